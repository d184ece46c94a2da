"""The same done with many things, by one thread or by several.

For system calls that wait for the disk: an unlink that frees blocks takes ten times
as long as one that does not, on file systems that tell the disk of free blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

THREADS = 8
"""Microseconds per unlink of a file of 2 KiB, by so many threads (ext4 without a
journal, mounted with discard): 1: 85-108, 2: 58, 4: 32-45, 8: 30."""

_FEW = 4
"""Less than this is done sooner than given away."""

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


class Spread(Protocol):
    """Does something with each of many things; the results are in their order."""

    def __call__(
        self, do: Callable[[_Thing], _Result], things: Sequence[_Thing]
    ) -> list[_Result]:
        """Call `do` with each, perhaps several at a time; return when all are done."""


def in_turn(do: Callable[[_Thing], _Result], things: Sequence[_Thing]) -> list[_Result]:
    """One after another, in the caller's thread."""
    return [do(thing) for thing in things]


class Threads:
    """Several threads, started when first needed; a Spread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS)

    def __call__(
        self, do: Callable[[_Thing], _Result], things: Sequence[_Thing]
    ) -> list[_Result]:
        """Give each thread an equal share. Raises: what `do` raises."""
        if len(things) < _FEW:
            return in_turn(do, things)
        shares = [things[at::THREADS] for at in range(min(THREADS, len(things)))]
        results: list[_Result | None] = [None] * len(things)

        def work(at: int) -> None:
            results[at::THREADS] = in_turn(do, shares[at])

        list(self._pool.map(work, range(len(shares))))
        return results  # type: ignore[return-value]  # all are filled in

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
