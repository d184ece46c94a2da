"""qsend status, queue, flush, hold, release, remove, reload, stop.

Each asks the running queue manager over run/control.sock and prints its answer.
Source: docs/ARCHITECTURE.md; formats/controlwire.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from qsend.cli import controlview
from qsend.cli.parser import EXIT_NO, EXIT_USAGE, Parser, complain, home_of
from qsend.core.errors import PermFail
from qsend.formats.controlwire import Answer
from qsend.sysio import clock, unixsocket
from qsend.sysio.accounts import load_accounts
from qsend.sysio.controlclient import (
    ControlClient,
    NotRunning,
    ProcessWatch,
    Refused,
    processes,
)
from qsend.sysio.ground import injection_path
from qsend.sysio.handover import take_over
from qsend.sysio.validate import take_good

_WHAT = """\
WHAT is one of
  all          everything
  local        the local channel
  remote       the remote channel
  host:NAME    one remote destination: a domain, or the host that its mail goes to
  mess:NUMBER  one message (for short: the number alone)"""

_RELOAD_S = 30.0
"""Reading and checking a million virtual domains takes a few seconds."""


def _status(args: argparse.Namespace) -> int:
    with _client(args) as client:
        facts = client.ask_one("status").facts
        members = processes(client.root_pid)
    if args.json:
        _print_json({**facts, "processes": members})
    else:
        _print_lines(controlview.status_lines(facts, members))
    return 0


def _queue(args: argparse.Namespace) -> int:
    with _client(args) as client:
        items = _items(client.ask("queue"))
        if args.json:
            _print_array(items)
            return 0
        now = clock.now()
        for item in items:
            _print_lines(controlview.message_lines(item, now))
    return 0


def _items(answers: Iterable[Answer]) -> Iterator[Mapping[str, object]]:
    for answer in answers:
        yield from answer.items


def _do(args: argparse.Namespace) -> int:
    """flush, hold and release."""
    what = f"mess:{args.what}" if args.what.isdigit() else args.what
    with _client(args) as client:
        facts = client.ask_one(args.command, what=what).facts
    _done(args, facts, f"{args.command} {what}: done")
    return 0


def _remove(args: argparse.Namespace) -> int:
    with _client(args) as client:
        facts = client.ask_one("remove", messid=args.messid).facts
    _done(args, facts, f"message {args.messid} is removed")
    return 0


def _reload(args: argparse.Namespace) -> int:
    """Say what is wrong before asking; wait until the new ones are in force."""
    home = home_of(args)
    with _client(args) as client:
        before = client.ask_one("status").facts.get("generation")
        accounts = load_accounts(single_user=os.getuid() != 0)
        take_good(home, accounts.qmailp).close()
        client.ask_one("reload")
        deadline_mono = clock.mono() + _RELOAD_S
        while clock.mono() < deadline_mono:
            facts = client.ask_one("status").facts
            if facts.get("generation") != before:
                generation = facts.get("generation")
                _done(
                    args,
                    {"generation": generation},
                    f"controls of generation {generation} are in force",
                )
                return 0
            time.sleep(0.05)
    complain("reload", "the old controls are still in force; the log says why")
    return EXIT_NO


def _stop(args: argparse.Namespace) -> int:
    home = home_of(args)
    try:
        with _client(args) as client:
            watch = ProcessWatch(client.root_pid)
            client.ask_one("stop", all=args.all)
        watch.wait()
        said = "stopped"
    except NotRunning:
        said = "is not running"
    if args.all:
        _end_enqueue(injection_path(home))
    _done(args, {"stopped": True}, f"{home}: {said}")
    return 0


def _end_enqueue(path: str) -> None:
    """End an enqueue that an earlier stop has left running: take its socket."""
    listener = take_over(path)
    if listener is not None:
        listener.close()
        unixsocket.remove(path)


def _client(args: argparse.Namespace) -> contextlib.closing[ControlClient]:
    """A connection for one command."""
    return contextlib.closing(ControlClient(home_of(args)))


def _done(args: argparse.Namespace, facts: Mapping[str, object], text: str) -> None:
    if args.json:
        _print_json(facts)
    else:
        _print_lines([text])


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _print_json(facts: Mapping[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(facts)}\n")


def _print_array(items: Iterable[Mapping[str, object]]) -> None:
    """A JSON array that is never whole in memory."""
    start = "["
    for item in items:
        sys.stdout.write(f"{start}{json.dumps(item)}")
        start = ",\n"
    sys.stdout.write("[]\n" if start == "[" else "]\n")


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str, str]] = {
    "status": (
        _status,
        "Show what is running, waiting and held.",
        "Exit code 1 when qsend is not running.",
    ),
    "queue": (
        _queue,
        "List queued messages with state, next attempt and last report.",
        "The last report is known for attempts since qmail-send started.\n"
        "qmail-qread shows the queue when nothing is running.",
    ),
    "flush": (_do, "Try now what waits for its time.", _WHAT),
    "hold": (
        _do,
        "Start no more deliveries of some mail; what is running is finished.",
        f"{_WHAT}\n\nA hold lasts over restarts, until `qsend release`.",
    ),
    "release": (_do, "Undo a hold; `release all` undoes every hold.", _WHAT),
    "remove": (
        _remove,
        "Remove one queued message, without a bounce.",
        "There is no way back. A message that is just being delivered is not\n"
        "removed: hold it first.",
    ),
    "reload": (
        _reload,
        "Read the control files again, in all processes or, if one is wrong, none.",
        "Says what is wrong, or waits until the new ones are in force.",
    ),
    "stop": (
        _stop,
        "Finish running deliveries and end; returns when all have ended.",
        "Programs can go on queueing mail, for the next start to deliver; with\n"
        "--all that ends too. Deliveries get control/timeoutterm seconds.",
    ),
}


def _parser(command: str) -> Parser:
    _, summary, teaching = _COMMANDS[command]
    parser = Parser(command, summary, teaching)
    parser.add_home()
    parser.add_json()
    if command in ("flush", "hold", "release"):
        default = "all" if command == "flush" else None
        parser.add_argument(
            "what", metavar="WHAT", nargs="?" if default else None, default=default
        )
    elif command == "remove":
        parser.add_argument("messid", metavar="NUMBER", type=int)
    elif command == "stop":
        parser.add_argument(
            "--all", action="store_true", help="end the injection process too"
        )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command `argv[0]`."""
    args = _parser(argv[0]).parse_args(argv[1:])
    args.command = argv[0]
    run, _, _ = _COMMANDS[argv[0]]
    try:
        return run(args)
    except NotRunning as exc:
        if argv[0] != "status":
            raise
        return _negative(args, str(exc))
    except Refused as exc:
        return _negative(args, str(exc))
    except PermFail as exc:
        complain(argv[0], str(exc))
        return EXIT_USAGE


def _negative(args: argparse.Namespace, text: str) -> int:
    """The answer is no."""
    if args.json:
        _print_json({"error": text})
    else:
        complain(args.command, text)
    return EXIT_NO
