"""What a service manager tells us in the environment, and what it is told.

Source: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIRST_DESCRIPTOR = 3
"""The first of those handed over (SD_LISTEN_FDS_START)."""
DESCRIPTORS_MAX = 256
STATUS_MAX = 512
"""A status is one line of a screen or two."""

READY = b"READY=1"
ALIVE = b"WATCHDOG=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the service manager offers.

    `notify` is the address it listens at, `watchdog_s` how long it waits for a sign
    of life, `descriptors` how many sockets lie open from FIRST_DESCRIPTOR on.
    """

    notify: bytes | None = None
    watchdog_s: float | None = None
    descriptors: int = 0


def parse_offer(environ: Mapping[bytes, bytes], pid: int) -> Offer:
    """The offer to process `pid`; what is meant for another one is none.

    Raises: Nothing: what cannot be understood is not offered.
    """
    mine = b"%d" % pid
    descriptors = 0
    if environ.get(b"LISTEN_PID") == mine:
        descriptors = _number(environ.get(b"LISTEN_FDS", b""), DESCRIPTORS_MAX)
    notify = environ.get(b"NOTIFY_SOCKET", b"")
    watchdog_us = 0
    if environ.get(b"WATCHDOG_PID", mine) == mine:
        watchdog_us = _number(environ.get(b"WATCHDOG_USEC", b""), 2**53)
    return Offer(
        notify=_address(notify),
        watchdog_s=watchdog_us / 1e6 if watchdog_us else None,
        descriptors=descriptors,
    )


def _number(text: bytes, largest: int) -> int:
    if not text.isdigit() or len(text) > 20:
        return 0
    number = int(text)
    return number if number <= largest else 0


def _address(text: bytes) -> bytes | None:
    """As connect(2) wants it; abstract ones are written with an @."""
    if len(text) < 2 or text[:1] not in (b"/", b"@"):
        return None
    return b"\0" + text[1:] if text[:1] == b"@" else text


def status(text: bytes) -> bytes:
    """The line that `systemctl status` shows."""
    shown = text.decode("utf-8", "replace")
    line = "".join(each if each.isprintable() else " " for each in shown).strip()
    return b"STATUS=" + line[:STATUS_MAX].encode()


def reloading(mono_s: float) -> bytes:
    """New controls are being read since `mono_s` of CLOCK_MONOTONIC; READY follows."""
    return b"RELOADING=1\nMONOTONIC_USEC=%d" % int(mono_s * 1e6)


def stopping(within_s: float) -> bytes:
    """The end has begun, and may take so long."""
    return b"STOPPING=1\nEXTEND_TIMEOUT_USEC=%d" % int(within_s * 1e6)
