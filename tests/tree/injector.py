"""A process that queues numbered messages without a pause, until it is told to stop.

Run by the text of this file (`python -c`), as any user:

    python -c SOURCE HOME HOW FIRST STEP

HOW is "library" (sysio.mailqueue) or "program" (bin/qmail-queue). The messages are
FIRST, FIRST + STEP, ...; their senders, recipients and content follow from the number.
It stops when its standard input closes. Every message is one line on its standard
output: `NUMBER yes` once it was acknowledged, else `NUMBER no`.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

from qsend.core.errors import QsendError
from qsend.sysio import mailqueue

HERE = "here.example"
FAR = "far.example"
PAUSE_S = 0.01
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
)
"""What kinds of recipient the messages have, in turn."""


def kinds_of(number: int) -> tuple[str, ...]:
    """The kinds of recipient of a message."""
    return WAYS[number % len(WAYS)]


def address(kind: str, number: int) -> str:
    """Where a message goes; nobox and nofar do not exist."""
    is_far = kind in ("far", "far2", "nofar")
    return f"{kind}-{number}@{FAR if is_far else HERE}"


def content(number: int) -> bytes:
    """200 bytes to 200 kB, with the number at both ends."""
    lines = (1, 10, 100, 2000)[number % 4]
    middle = b"%080d\n" % number * lines
    return b"Subject: %d\n\n" % number + middle + b"end %d\n" % number


def queue_by_library(home: str, number: int, sender: str, recips: list[str]) -> bool:
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
    done = subprocess.run(
        [f"{home}/bin/qmail-queue"],
        input=content(number),
        stdout=read,
        stderr=subprocess.DEVNULL,
        env={"QSEND_HOME": home, "PATH": os.environ["PATH"]},
        check=False,
    )
    os.close(read)
    return done.returncode == 0


def main(home: str, how: str, first: str, step: str) -> None:
    put = queue_by_program if how == "program" else queue_by_library
    number = int(first)
    while not select.select([0], [], [], PAUSE_S)[0]:
        recips = [address(kind, number) for kind in kinds_of(number)]
        is_queued = put(home, number, address("sender", number), recips)
        os.write(1, b"%d %s\n" % (number, b"yes" if is_queued else b"no"))
        number += int(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
