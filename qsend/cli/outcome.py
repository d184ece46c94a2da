"""How small programs end: their last words on descriptor 2, and the exit code.

Source: qmail strerr_die.c; qmail-command(8) for what the codes mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from qsend.cli.options import UsageError, teach, wants_help
from qsend.core.errors import PermFail, QsendError

PERMANENT = 100
TEMPORARY = 111


def run(
    program: str,
    text: str,
    body: Callable[[Sequence[str]], int],
    argv: Sequence[str],
) -> int:
    """Run `body(argv)`; its exit code, or that of the failure it raises.

    UsageError and PermFail are 100, everything else that is raised 111. A failure
    without words prints none: somebody else has said what there is to say.

    Args:
        text: what `--help`, alone, prints; its first line is the usage.
    Raises: nothing.
    """
    if wants_help(argv):
        return teach(text)
    try:
        return body(argv)
    except UsageError as exc:
        if words := str(exc):
            say(f"{program}: {words}")
        say(f"{program}: {text.partition(chr(10))[0]}")
        return PERMANENT
    except PermFail as exc:
        return _fatal(program, str(exc), PERMANENT)
    except QsendError as exc:
        return _fatal(program, str(exc), TEMPORARY)
    except MemoryError:
        return _fatal(program, "out of memory", TEMPORARY)
    except KeyboardInterrupt:
        return _fatal(program, "interrupted", TEMPORARY)
    except Exception as exc:  # noqa: BLE001 - outermost: unknown is temporary
        return _fatal(program, f"internal trouble: {exc!r}", TEMPORARY)


def _fatal(program: str, words: str, code: int) -> int:
    if words:
        say(f"{program}: fatal: {words}")
    return code


def say(words: str) -> None:
    """One line on descriptor 2."""
    try:
        os.write(2, words.encode("utf-8", "surrogateescape") + b"\n")
    except OSError:
        return  # nowhere left to complain; the exit code still tells
