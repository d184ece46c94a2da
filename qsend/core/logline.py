"""The lines of the delivery log, exactly as qmail's log tools read them.

Every function gives one line with its line end. Bytes that come from peers pass
through log_safe. Source: qmail-log(5), qmail-send.c.
"""

from __future__ import annotations

from qsend.core.address import log_safe
from qsend.core.model import Channel, DelId, Letter, MessId

EXITING = b"status: exiting\n"

_WORDS = {
    Letter.SUCCESS: b"success",
    Letter.FAILURE: b"failure",
    Letter.DEFERRAL: b"deferral",
}


def status(
    local: int, local_max: int, remote: int, remote_max: int, *, exiting: bool
) -> bytes:
    """How many deliveries run on each channel."""
    tail = b" exitasap\n" if exiting else b"\n"
    return b"status: local %d/%d remote %d/%d%b" % (
        local,
        local_max,
        remote,
        remote_max,
        tail,
    )


def new_msg(messid: MessId) -> bytes:
    """A message was found in todo."""
    return b"new msg %d\n" % messid


def info_msg(messid: MessId, size: int, sender: bytes, pid: int, uid: int) -> bytes:
    """Its size with the added Received line, sender, injecting pid and uid."""
    return b"info msg %d: bytes %d from <%b> qp %d uid %d\n" % (
        messid,
        size,
        log_safe(sender),
        pid,
        uid,
    )


def starting(delid: DelId, messid: MessId, channel: Channel, recip: bytes) -> bytes:
    """A delivery begins."""
    return b"starting delivery %d: msg %d to %b %b\n" % (
        delid,
        messid,
        channel.value.encode(),
        log_safe(recip),
    )


def delivery(delid: DelId, letter: Letter, text: bytes) -> bytes:
    """A delivery ended."""
    return b"delivery %d: %b: %b\n" % (delid, _WORDS[letter], log_safe(text))


def mangled(delid: DelId) -> bytes:
    """A spawner answered with an unknown letter."""
    return b"delivery %d: report mangled, will defer\n" % delid


def bounce_msg(messid: MessId, pid: int) -> bytes:
    """A bounce was queued."""
    return b"bounce msg %d qp %d\n" % (messid, pid)


def triple_bounce(messid: MessId) -> bytes:
    """A failed double bounce was dropped."""
    return b"triple bounce: discarding bounce/%d\n" % messid


def end_msg(messid: MessId) -> bytes:
    """Nothing is left to do for a message."""
    return b"end msg %d\n" % messid


def alert(text: str) -> bytes:
    """Somebody must look now."""
    return f"alert: {text}\n".encode("ascii", "backslashreplace")


def warning(text: str) -> bytes:
    """We coped; somebody should look."""
    return f"warning: {text}\n".encode("ascii", "backslashreplace")
