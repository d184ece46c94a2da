"""qsend start: run the mail system in the foreground.

Source: docs/ARCHITECTURE.md; qmail-start(8).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence

from qsend.cli.parser import EXIT_TEMPORARY, EXIT_USAGE, Parser, complain, home_of
from qsend.core import logline
from qsend.core.startoptions import StartOptions
from qsend.procs import local, lspawn, start

_TEACHING = """\
The log goes to standard output, one line per event, as qmail-send writes it:
  qsend start | multilog t ./main

Signals: TERM or INT finishes running deliveries and ends; ALRM tries everything
now; HUP reads the control files again, all of them or, if one is wrong, none.

--lspawn, --rspawn and --clean run a program that speaks qmail's own wire, such
as qmail-lspawn, in place of ours."""


def main(argv: Sequence[str]) -> int:
    """Run until stopped; the exit code."""
    parser = Parser(argv[0], "Run the mail system in the foreground.", _TEACHING)
    parser.add_home()
    parser.add_argument(
        "--single-user",
        action="store_true",
        help="run everything as the calling user; implied unless root calls",
    )
    parser.add_argument(
        "--default-delivery",
        metavar="TEXT",
        default="./Mailbox",
        help="what a missing or empty .qmail file means; may have several lines "
        "(default: %(default)s)",
    )
    for kind in ("lspawn", "rspawn", "clean"):
        parser.add_argument(
            f"--{kind}", metavar="PROGRAM", help=f"a classic qmail-{kind} to run"
        )
    args = parser.parse_args(argv[1:])
    is_root = os.getuid() == 0
    if is_root and args.single_user:
        complain(argv[0], "--single-user is not for root, which never receives mail")
        return EXIT_USAGE
    options = StartOptions(
        home=home_of(args),
        single_user=not is_root,
        default_delivery=os.fsencode(args.default_delivery),
        lspawn=_absolute(args.lspawn),
        rspawn=_absolute(args.rspawn),
        clean=_absolute(args.clean),
    )
    return run(options)


def main_of(kind: str) -> start.Main:
    """What a kind of child runs.

    lspawn, the first to be forked, is forked before the code of the others is loaded:
    its children, one for each account, have half as much memory to share with it.
    """
    if kind == "lspawn":
        return functools.partial(lspawn.main, child_main=local.main)
    return _others()[kind]


@functools.cache
def _others() -> Mapping[str, start.Main]:
    # All at once, so that none is loaded when the files may be a newer version's.
    from qsend.procs import (  # noqa: PLC0415
        clean,
        enqueue,
        login,
        lookup,
        pop3d,
        qmtpd,
        remote,
        runner,
        send,
        smtpd,
    )

    return {
        "enqueue": enqueue.main,
        "lookup": lookup.main,
        "clean": clean.main,
        "remote": remote.main,
        "send": send.main,
        "login": login.main,
        "pop3d": pop3d.main,
        "smtpd": smtpd.main,
        "qmtpd": qmtpd.main,
        "runner": runner.main,
    }


def _absolute(program: str | None) -> str | None:
    return None if program is None else os.path.abspath(program)


def run(options: StartOptions) -> int:
    """Run the tree until it is stopped; the exit code."""
    try:
        return start.main(options, main_of)
    except Exception as exc:  # noqa: BLE001 - the outermost frame of the root
        # The children end by themselves: their lines to us close.
        sys.stdout.write(logline.alert(f"start broke down: {exc!r}").decode())
        return EXIT_TEMPORARY
