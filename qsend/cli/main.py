"""qsend: the operator's command, one sub-command per task.

Imports only the module of the command that is asked for.
Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from qsend.cli.parser import EXIT_TEMPORARY, EXIT_USAGE, Parser, complain
from qsend.core.errors import ConfigError, QsendError

COMMANDS: dict[str, tuple[str, str]] = {
    "setup": ("setup", "make accounts, directories, controls and aliases"),
    "check": ("check", "say what is wrong with controls, queue and accounts"),
    "repair": ("repair", "mend a queue after a restore, a copy or damage"),
    "start": ("start", "run the mail system in the foreground"),
    "status": ("control", "what is running, waiting and held"),
    "queue": ("control", "list queued messages"),
    "flush": ("control", "try now what waits for its time"),
    "hold": ("control", "start no deliveries of some mail"),
    "release": ("control", "undo a hold"),
    "remove": ("control", "remove one message, without a bounce"),
    "reload": ("control", "read the control files again"),
    "tcprules": ("tcprules", "make and try out the rules of who may connect"),
    "stop": ("control", "finish running deliveries and end"),
    "sql": ("sql", "make the tables of virtual users"),
    "user": ("user", "mailboxes of virtual users: add, passwd, suspend, remove"),
    "virtual": ("virtual", "lead mail for virtual addresses to users"),
    "alias": ("virtual", "what happens to mail of a user or extension"),
    "rcpthost": ("virtual", "hosts whose mail is accepted"),
    "whois": ("whois", "explain what will happen to mail for an address"),
}
"""Each command, its module in qsend.cli, and what it does. The module's main gets
the command's own name first, then its arguments."""

_TEACHING = """\
commands:
{commands}

a first mail system, as root:
  qsend setup --me mail.example.org
  qsend check
  qsend start

`qsend COMMAND --help` explains each. Exit codes: 0; 1 the answer is no;
100 wrong usage or configuration; 111 it may work later."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name, default sys.argv."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_TEMPORARY
    except BrokenPipeError:
        # Whoever read our answer has had enough of it.
        sys.stdout = None  # its flush at exit would complain
        return 0


def _run(words: Sequence[str]) -> int:
    listed = "\n".join(f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items())
    parser = Parser("", "A mail queue manager.", _TEACHING.format(commands=listed))
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS))
    command = parser.parse_args(words[:1]).command
    try:
        module = importlib.import_module(f"qsend.cli.{COMMANDS[command][0]}")
    except (MemoryError, ImportError) as exc:
        complain(command, f"cannot be loaded: {str(exc) or 'out of memory'}")
        return EXIT_TEMPORARY
    run: Callable[[Sequence[str]], int] = module.main
    try:
        return run(words)
    except ConfigError as exc:
        for fault in exc.faults:
            complain(command, str(fault))
        return EXIT_USAGE
    except QsendError as exc:
        complain(command, str(exc))
        return EXIT_TEMPORARY
