"""config-fast: the first control files, from the host's full name alone.

Writes me, defaultdomain and plusdomain; adds the name to locals and rcpthosts. Exit
codes: 0, 100 for a name that is none, 111 when a file cannot be written.
Source: config-fast.sh; INSTALL.ctl. Unlike qmail's, it wants a full name, adds no line
twice, and replaces each file at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, TempFail
from qsend.core.firstcontrols import add_line, check_host_name, first_controls
from qsend.sysio.home import find_home, read_control
from qsend.sysio.replacefile import write_file

_HELP = """\
usage: config-fast FQDN

Makes the control files of a host called FQDN: me, defaultdomain (FQDN without its
first part), plusdomain (its last two parts), and adds it to locals and rcpthosts.
Asks no DNS; config does. `qsend setup --me FQDN` makes the same files, and keeps
those that exist. For a running system `qsend reload` puts them in force.
"""
_LISTS = ("locals", "rcpthosts")


def main(argv: Sequence[str]) -> int:
    """Write the files, and say so."""
    if wants_help(argv):
        return teach(_HELP)
    if len(argv) != 1:
        sys.stderr.write("config-fast: usage: config-fast FQDN\n")
        return 100
    try:
        check_host_name(argv[0])
        for line in _write(find_home(None, os.environ), argv[0].rstrip(".")):
            sys.stdout.write(f"{line}\n")
    except ConfigError as exc:
        sys.stderr.write(f"config-fast: {exc.faults[0].problem}\n")
        return 100
    except TempFail as exc:
        sys.stderr.write(f"config-fast: fatal: {exc}\n")
        return 111
    except OSError as exc:
        what = f"{exc.filename}: {exc.strerror}"
        sys.stderr.write(f"config-fast: fatal: unable to write {what}\n")
        return 111
    return 0


def _write(home: str, name: str) -> Iterator[str]:
    """Raises: OSError; TempFail when a list cannot be read."""
    yield f"Your fully qualified host name is {name}."
    for control, content in first_controls(name.encode()).items():
        value = content.decode().rstrip("\n")
        yield f"Putting {value} into control/{control}..."
        if control in _LISTS:
            content = add_line(read_control(home, control) or b"", value.encode())
        put(home, control, content)
    yield f"Now qmail will refuse to accept SMTP messages except to {name}."
    yield "Make sure to change rcpthosts if you add hosts to locals or virtualdomains!"


def put(home: str, control: str, content: bytes) -> None:
    """Replace one control file. Raises: OSError."""
    directory = f"{home}/control"
    # Who reads the directory meanwhile passes over names with a dot.
    write_file(f"{directory}/{control}", f"{directory}/.{control}.new", content)
