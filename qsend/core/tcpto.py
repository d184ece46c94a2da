"""Which hosts did not answer lately and are better left alone for a while.

The state of one process, without a table limit; the file that the classic
programs share is formats/tcptofile.py. Only timeouts count: two of them at least
two minutes apart, with no answer in between, suppress a host for an hour or more.
Source: tcpto.c, qmail-tcpto(8).
"""

from __future__ import annotations

from dataclasses import dataclass

REST_S = 64
"""Unit of the time a host is left alone; `rest_s` multiplies it."""
AGAIN_S = 120
"""Timeouts closer together than this are one."""
COUNT_MAX = 10
SKIP_COUNT = 2
"""Timeouts after which a host is skipped."""
KEEP_S = 6 * 3600
"""A host that timed out longer ago is forgotten: four times the longest rest, so
a dead host that is asked once per rest keeps its count."""
_PRUNE_FLOOR = 1024


def rest_s(seed: int) -> int:
    """How long a host is left alone, 3840 to 5824 s; `seed` spreads processes.

    The classic programs use their pid. Source: tcpto.c tcpto().
    """
    return (60 + (seed & 31)) * REST_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How often a host stayed silent, and when last (wall clock, seconds)."""

    count: int
    last: int


def is_skipped(silence: Silence | None, now: int, seed: int) -> bool:
    """Whether a host with this record is left alone at `now`."""
    if silence is None or silence.count < SKIP_COUNT:
        return False
    return now - silence.last < rest_s(seed)


def after_timeout(silence: Silence | None, now: int) -> Silence:
    """The record after another connection attempt timed out."""
    if silence is None or silence.count == 0:
        return Silence(count=1, last=now)
    if now < silence.last + AGAIN_S:
        return silence
    return Silence(count=min(silence.count + 1, COUNT_MAX), last=now)


class SilentHosts:
    """The records of one process, by canonical address (IPv4 or IPv6)."""

    __slots__ = ("_by_address", "_prune_at", "_seed")

    def __init__(self, seed: int) -> None:
        """`seed` is any number, the pid for example; see `rest_s`."""
        self._seed = seed
        self._by_address: dict[str, Silence] = {}
        self._prune_at = _PRUNE_FLOOR

    def __len__(self) -> int:
        return len(self._by_address)

    def is_skipped(self, address: str, now: int) -> bool:
        """Whether to leave this host alone for now."""
        return is_skipped(self._by_address.get(address), now, self._seed)

    def note_timeout(self, address: str, now: int) -> None:
        """A connection attempt to this host timed out."""
        record = after_timeout(self._by_address.get(address), now)
        self._by_address[address] = record
        if len(self._by_address) >= self._prune_at:
            self._prune(now)

    def note_answer(self, address: str) -> None:
        """The host answered: it accepted, or refused at once."""
        self._by_address.pop(address, None)

    def _prune(self, now: int) -> None:
        # The threshold doubles with what is left, so pruning stays cheap per call.
        self._by_address = {
            address: record
            for address, record in self._by_address.items()
            if now - record.last < KEEP_S
        }
        self._prune_at = max(_PRUNE_FLOOR, 2 * len(self._by_address))
