"""qbiff: tell a user at his terminals that mail has come.

Only terminals whose owner let programs write (`biff y`: the owner's x bit). The exit
code is always 0: no message waits for a terminal.
Source: qbiff(1), qbiff.c.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from qsend.cli import outcome
from qsend.core.errors import QsendError
from qsend.formats.rfc822 import field_label, read_header
from qsend.formats.utmp import parse_utmp

_HELP = """\
usage: qbiff

In a .qmail file, `|qbiff` shows sender, subject and the start of each message on the
terminals where $USER is logged in and has said `biff y`. Always exits 0.
"""
_UTMP = "/run/utmp"
_UTMP_MAX = 1 << 20
_WIDTH = 78
"""Columns of a terminal less two; the text starts with four blanks."""
_SAFE = bytes(byte if 32 <= byte <= 126 else ord("_") for byte in range(256))
_SAFE_TEXT = bytes(byte if 32 <= byte <= 126 else ord("/") for byte in range(256))


def main(argv: Sequence[str]) -> int:
    """Arguments are ignored, as qbiff does."""
    outcome.run("qbiff", _HELP, lambda _: tell(_UTMP, "/dev"), argv)
    return 0


def tell(utmp: str, devices: str) -> int:
    """Write to the user's terminals; return 0.

    Args:
        utmp: the file that says who is logged in where.
        devices: the directory of terminals.
    """
    variables = [os.environb.get(name) for name in (b"USER", b"LOCAL", b"SENDER")]
    user, local, sender = variables
    if user is None or local is None or sender is None:
        return 0
    start = b"*** TO <%b> FROM <%b>" % (local, sender)
    text = b"\r\n\a%b\r\n%b\r\n" % (start.translate(_SAFE), _read_text())
    try:
        with open(utmp, "rb") as file:
            logins = list(parse_utmp(file.read(_UTMP_MAX)))
    except OSError:
        return 0
    for name, line in logins:
        if name == user and line and line[:1] != b"/" and b"." not in line:
            with contextlib.suppress(OSError):
                _write(os.path.join(os.fsencode(devices), line), text)
    return 0


def _read_text() -> bytes:
    """The subject, and as much of the body as the line takes."""
    try:
        with open(0, "rb", closefd=False) as file:
            fields, start = read_header(file.readline)
            body = start + file.read(_WIDTH)
    except (OSError, QsendError):
        return b""
    subjects = [_value(field) for field in fields if _is_subject(field)]
    text = b"    " + b"".join(subjects) + body
    if not text.endswith(b"\n"):
        text += b"\n"
    return text[:_WIDTH].translate(_SAFE_TEXT)


def _is_subject(field: bytes) -> bool:
    return (field_label(field) or b"").lower() == b"subject"


def _value(field: bytes) -> bytes:
    return field.partition(b":")[2].lstrip(b" \t\r\n")


def _write(path: bytes, text: bytes) -> None:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags)
    try:
        status = os.fstat(fd)
        if status.st_mode & stat.S_IXUSR and status.st_uid == os.getuid():
            os.write(fd, text)
    finally:
        os.close(fd)
