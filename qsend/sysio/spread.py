"""The same done with many things, by one thread or by several.

For system calls that wait for the disk: an unlink that frees blocks takes ten times
as long as one that does not, on file systems that tell the disk of free blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol, TypeVar

from qsend.sysio.threads import Pool

THREADS = 4
"""Microseconds per unlink of a file of 2 KiB, by so many threads (ext4 without a
journal, mounted with discard): 1: 85-108, 2: 58, 4: 32-45, 8: 30. Eight take a third
more processor time, for they pass Python's lock around."""

SHARE_MIN = 2
"""Less than this is done sooner than given away: waking a thread costs 0.05 ms."""

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
    """Several threads, started when first needed; a Spread.

    Where none is to be had the caller's does it all.
    """

    def __init__(self) -> None:
        self._pool = Pool(THREADS - 1)

    def __call__(
        self, do: Callable[[_Thing], _Result], things: Sequence[_Thing]
    ) -> list[_Result]:
        """Give each of as many threads as it takes an equal share.

        Raises: what `do` raises.
        """
        count = min(THREADS, len(things) // SHARE_MIN)
        if count <= 1:
            return in_turn(do, things)
        shares = deque(things[at::count] for at in range(count))
        done: list[Future[list[_Result]]] = [Future() for _ in shares]
        free = deque(zip(shares, done, strict=True))

        def work() -> None:
            while free:
                with suppress(IndexError):  # another has just taken the last
                    share, future = free.popleft()
                    _do_share(do, share, future)

        for _ in range(len(shares) - 1):
            try:
                self._pool.add(work)
            except RuntimeError:
                break  # no thread: those there are have it
        work()
        results: list[_Result | None] = [None] * len(things)
        for at, future in enumerate(done):
            results[at::count] = future.result()
        return results  # type: ignore[return-value]  # all are filled in

    def close(self) -> None:
        """End the threads."""
        self._pool.close()


def _do_share(
    do: Callable[[_Thing], _Result],
    share: Sequence[_Thing],
    future: Future[list[_Result]],
) -> None:
    try:
        future.set_result(in_turn(do, share))
    except Exception as exc:  # noqa: BLE001 - raised again where the result is taken
        future.set_exception(exc)
