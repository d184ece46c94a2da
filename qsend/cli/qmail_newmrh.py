"""qmail-newmrh: make control/morercpthosts.cdb of control/morercpthosts.

Exit codes: 0; 111 with a line on standard error, and the old database as it was.
Source: qmail-newmrh.c; qmail-newmrh(8). Unlike qmail's, the new name is durable when
it ends, and two runs take turns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import QsendError
from qsend.sysio.cdbmaker import make_cdb
from qsend.sysio.home import find_home

_HELP = """\
usage: qmail-newmrh

Makes control/morercpthosts.cdb of control/morercpthosts: one domain for which mail
is accepted per line, `.domain` for all below a domain, `#` for a comment. It adds to
control/rcpthosts, which holds the most used ones. In force at once. If anything is
wrong the old database stays as it is and the exit code is 111.
"""
_LINE_MAX = 65536
"""Longest line taken; a domain has 253 bytes."""


def main(argv: Sequence[str]) -> int:
    """Make it; arguments are ignored, as qmail-newmrh does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        _make(f"{find_home(None, os.environ)}/control/morercpthosts")
    except OSError as exc:
        return _die(f"{exc.filename or 'control/morercpthosts.tmp'}: {exc.strerror}")
    except ValueError:
        return _die(f"control/morercpthosts: a line is longer than {_LINE_MAX} bytes")
    except QsendError as exc:
        return _die(str(exc))
    return 0


def _make(path: str) -> None:
    make_cdb(f"{path}.cdb", f"{path}.tmp", _records(path))


def _records(path: str) -> Iterator[tuple[bytes, bytes]]:
    """Opens the file when first asked: by then no other run is under way."""
    with open(path, "rb") as file:
        for line in iter(lambda: file.readline(_LINE_MAX + 1), b""):
            if len(line) > _LINE_MAX:
                raise ValueError
            key = line.rstrip(b" \t\n").lower()
            if key and key[:1] != b"#":
                yield key, b""


def _die(problem: str) -> int:
    sys.stderr.write(f"qmail-newmrh: fatal: {problem}\n")
    return 111
