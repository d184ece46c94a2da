"""Whether every message arrived exactly once. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.errors import BenchError

SHOWN = 5
"""Names that a complaint lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is wrong: never arrived, arrived more than once, was never sent."""

    lost: tuple[bytes, ...]
    doubled: tuple[bytes, ...]
    foreign: tuple[bytes, ...]

    @property
    def is_clean(self) -> bool:
        """Everything arrived once, and nothing else."""
        return not (self.lost or self.doubled or self.foreign)


def tally(sent: Iterable[bytes], arrived: Iterable[bytes]) -> Tally:
    """Compare what was sent (names may repeat) with what arrived."""
    wanted, found = Counter(sent), Counter(arrived)
    return Tally(
        lost=tuple(name for name in wanted if found[name] < wanted[name]),
        doubled=tuple(name for name in wanted if found[name] > wanted[name]),
        foreign=tuple(name for name in found if name not in wanted),
    )


def require(
    sent: Iterable[bytes], arrived: Iterable[bytes], *, may_lack: bool = False
) -> None:
    """Raises: BenchError that names some of what is wrong; it `may_lack` some."""
    found = tally(sent, arrived)
    if may_lack:
        found = replace(found, lost=())
    if found.is_clean:
        return
    parts = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (
            ("lost", found.lost),
            ("doubled", found.doubled),
            ("foreign", found.foreign),
        )
        if names
    ]
    raise BenchError("not exactly once: " + ", ".join(parts))


def _some(names: tuple[bytes, ...]) -> str:
    shown = b" ".join(names[:SHOWN]).decode(errors="replace")
    return shown if len(names) <= SHOWN else f"{shown} ..."
