"""What a parser under test is, and how one input is given to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from qsend.core.errors import (
    ConfigError,
    PermFail,
    QueueCorrupt,
    RemoteProtocolError,
    TempFail,
)

INPUT_MAX = 1 << 16
TIME_S = 2.0
"""Processor time that the longest input may take; most take a thousandth of it."""

PROTOCOL = (RemoteProtocolError,)
CONFIG = (ConfigError,)
QUEUE = (QueueCorrupt,)
FAILURE = (TempFail, PermFail)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parser: `run` gives it an input, and asserts what always holds of it.

    `legal` are the exceptions by which it may refuse one. `seeds` are well-formed
    inputs, `tokens` what a mutation may put in.
    """

    name: str
    run: Callable[[bytes], object]
    legal: tuple[type[Exception], ...] = ()
    seeds: Sequence[bytes] = ()
    tokens: Sequence[bytes] = ()

    def check(self, data: bytes) -> bool:
        """Whether the input is taken. Raises: what is no legal refusal."""
        began = time.process_time()
        try:
            self.run(data)
        except self.legal:
            return False
        finally:
            took_s = time.process_time() - began
            assert took_s < TIME_S, f"{took_s} s for {len(data)} bytes"
        return True


def drain(items: Iterable[object]) -> None:
    """Have a lazy parser parse."""
    for _ in items:
        pass


class Feeder(Protocol):
    """Takes the next piece; returns what is complete by it."""

    def __call__(self, data: bytes, /) -> object: ...


def _cuts(data: bytes) -> Iterator[bytes]:
    """`data` in pieces whose lengths depend on the data itself."""
    at = 0
    while at < len(data):
        length = 1 + data[at] % 7
        yield data[at : at + length]
        at += length


def agree(make: Callable[[], Callable[[bytes], object]]) -> Callable[[bytes], None]:
    """A run that asserts: however the input is cut, the outcome is the same.

    `make` gives a fresh feeder, whose results are bytes, lists or None.
    """

    def outcome(pieces: Iterable[bytes]) -> tuple[object, str]:
        feed = make()
        gone: list[object] = []
        text = b""
        try:
            for piece in pieces:
                result = feed(piece)
                if isinstance(result, bytes):
                    text += result
                elif isinstance(result, list):
                    gone += result
        except RemoteProtocolError as exc:
            return (gone, text), str(exc)
        return (gone, text), ""

    def run(data: bytes) -> None:
        whole, problem = outcome([data])
        cut, cut_problem = outcome(_cuts(data))
        # What is refused may be refused sooner when it comes in pieces.
        assert bool(problem) == bool(cut_problem), (problem, cut_problem)
        if not problem:
            assert whole == cut

    return run
