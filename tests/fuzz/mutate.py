"""Random changes of known inputs, where no coverage is to be had."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.fuzz.target import INPUT_MAX

_BYTES = (b"\0", b"\n", b"\r", b"\xff", b" ", b"0", b"\x7f", b"\x80")


def mutated(pick: Random, inputs: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One input made of others by a few changes."""
    data = pick.choice(inputs)
    for _ in range(pick.randint(1, 6)):
        data = _changed(pick, data, inputs, tokens)[:INPUT_MAX]
    return data


def _changed(
    pick: Random, data: bytes, inputs: Sequence[bytes], tokens: Sequence[bytes]
) -> bytes:
    at = pick.randint(0, len(data))
    end = min(len(data), at + pick.choice((1, 2, 4, 16, 64)))
    match pick.randrange(7):
        case 0:
            return data[:at] + data[end:]
        case 1:
            return data[:at] + pick.choice((*tokens, *_BYTES)) + data[at:]
        case 2:
            return data[:at] + pick.randbytes(end - at) + data[end:]
        case 3:
            return data[:at] + data[at:end] * pick.choice((2, 3, 50)) + data[end:]
        case 4:
            other = pick.choice(inputs)
            return data[:at] + other[pick.randint(0, len(other)) :]
        case 5:
            return data[:at]
        case _:
            bit = bytes((data[at] ^ 1 << pick.randrange(8),)) if at < len(data) else b""
            return data[:at] + bit + data[at + 1 :]
