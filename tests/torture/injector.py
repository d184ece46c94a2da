"""A process that queues numbered messages without a pause, until it is told to stop.

Run by the text of this file (`python -c`), as any user:

    python -c SOURCE HOME HOW FIRST STEP [PACE]

HOW is an entrance of WAYS_IN; of those by network with a colon and the port behind it
("smtp:25"). The messages are FIRST, FIRST + STEP, ...; their senders, recipients and
content follow from the number. It stops when its standard input closes. With the PACE
"asked" it queues one for each byte of that, and leaves out nine of ten of those for
which programs are run. Every message is one line on its standard output: `NUMBER yes`
once it was acknowledged, else `NUMBER no`.
"""

from __future__ import annotations

import os
import select
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from qsend.core.errors import QsendError
from qsend.formats.netstring import render
from qsend.sysio import mailqueue

HERE = "here.example"
FAR = "far.example"
PAUSE_S = 0.1
WAIT_S = 60.0
WAYS = (
    ("box",),
    ("far",),
    ("prog",),
    ("box", "far"),
    ("nobox",),
    ("far", "nofar"),
    ("box", "nofar", "nobox"),
    ("fwd",),
    ("far", "far2", "prog"),
    ("list",),
    ("later", "far"),
    ("soft", "box"),
    ("list", "nobox"),
)
"""What kinds of recipient the messages have, in turn."""
REMOTE = frozenset({"far", "far2", "nofar", "soft", "listfar"})
"""Kinds that SMTP takes; the others are local."""
RETURNED = ("nobox", "nofar")
"""Kinds that fail: their message comes back to its sender."""
PROGRAMS = frozenset({"prog", "fwd", "list", "later"})
"""Kinds for which programs are run."""
BECOMES = {"fwd": ("hop",), "list": ("listbox", "listfar")}
"""Kinds that go on as a message of their own to others."""


def kinds_of(number: int) -> tuple[str, ...]:
    """The kinds of recipient of a message."""
    return WAYS[number % len(WAYS)]


def address(kind: str, number: int) -> str:
    """Where a message goes; nobox and nofar do not exist."""
    return f"{kind}-{number}@{FAR if kind in REMOTE else HERE}"


def body(number: int) -> bytes:
    """What arrives whatever is done to the header."""
    lines = (1, 10, 100, 2000)[number % 4]
    return b"%080d\n" % number * lines + b"end %d\n" % number


def content(number: int) -> bytes:
    """200 bytes to 200 kB, with the number at both ends."""
    return b"Subject: %d\n\n" % number + body(number)


def queue_by_library(home: str, number: int, sender: str, recips: list[str]) -> bool:
    """run/enqueue.sock; root writes the queue itself when nobody is there."""
    names = [os.fsencode(each) for each in recips]
    try:
        mailqueue.inject(home, [content(number)], os.fsencode(sender), names, {})
    except QsendError:
        return False
    return True


def queue_by_program(home: str, number: int, sender: str, recips: list[str]) -> bool:
    envelope = f"F{sender}\0" + "".join(f"T{each}\0" for each in recips) + "\0"
    read, write = os.pipe()
    os.write(write, os.fsencode(envelope))
    os.close(write)
    try:
        return _run(home, ["qmail-queue"], number, read)
    finally:
        os.close(read)


def queue_by_inject(home: str, number: int, sender: str, recips: list[str]) -> bool:
    return _run(home, ["qmail-inject", "-a", "-f", sender, "--", *recips], number)


def queue_by_sendmail(home: str, number: int, sender: str, recips: list[str]) -> bool:
    return _run(home, ["sendmail", "-i", "-f", sender, "--", *recips], number)


def _run(home: str, args: Sequence[str], number: int, stdout: int = -3) -> bool:
    done = subprocess.run(
        [f"{home}/bin/{args[0]}", *args[1:]],
        input=content(number),
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env={"QSEND_HOME": home, "PATH": os.environ["PATH"]},
        check=False,
    )
    return done.returncode == 0


def queue_by_smtp(port: str, number: int, sender: str, recips: list[str]) -> bool:
    lines = content(number).replace(b"\n", b"\r\n")
    try:
        with smtplib.SMTP("127.0.0.1", int(port), "c.example", WAIT_S) as client:
            refused = client.sendmail(sender, recips, lines)
    except (OSError, smtplib.SMTPException):
        return False
    return not refused


def queue_by_qmtp(port: str, number: int, sender: str, recips: list[str]) -> bool:
    names = b"".join(render(os.fsencode(each)) for each in recips)
    package = render(b"\n" + content(number)) + render(os.fsencode(sender))
    return _exchange(port, package + render(names), len(recips))


def queue_by_qmqp(port: str, number: int, sender: str, recips: list[str]) -> bool:
    names = [sender, *recips]
    parts = [content(number), *map(os.fsencode, names)]
    return _exchange(port, render(b"".join(map(render, parts))), 1)


def _exchange(port: str, request: bytes, count: int) -> bool:
    """Whether all answers, each a netstring that begins with K for yes, say yes."""
    try:
        with socket.create_connection(("127.0.0.1", int(port)), WAIT_S) as sock:
            sock.sendall(request)
            stream = sock.makefile("rb")
            answers = [_netstring(stream.read) for _ in range(count)]
    except (OSError, ValueError):
        return False
    return all(answer.startswith(b"K") for answer in answers)


def _netstring(read: Callable[[int], bytes]) -> bytes:
    """One netstring. Raises: ValueError when it ends too soon."""
    digits = b""
    while (byte := read(1)) != b":":
        digits += byte
        if not byte:
            raise ValueError(digits)
    return read(int(digits) + 1)


WAYS_IN: dict[str, Callable[[str, int, str, list[str]], bool]] = {
    "library": queue_by_library,
    "program": queue_by_program,
    "inject": queue_by_inject,
    "sendmail": queue_by_sendmail,
    "smtp": queue_by_smtp,
    "qmtp": queue_by_qmtp,
    "qmqp": queue_by_qmqp,
}
"""Every entrance for mail; the first argument is the home, or the port."""


def put(home: str, how: str, number: int) -> bool:
    """Queue one message; whether it was acknowledged."""
    name, _, port = how.partition(":")
    recips = [address(kind, number) for kind in kinds_of(number)]
    return WAYS_IN[name](port or home, number, address("sender", number), recips)


def main(home: str, how: str, first: str, step: str, pace: str = "") -> None:
    number = int(first)
    while os.read(0, 1) if pace else not select.select([0], [], [], PAUSE_S)[0]:
        while pace and number // 13 % 10 and PROGRAMS.intersection(kinds_of(number)):
            number += int(step)
        is_queued = put(home, how, number)
        os.write(1, b"%d %s\n" % (number, b"yes" if is_queued else b"no"))
        number += int(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
