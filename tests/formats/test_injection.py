"""Injection frames: both directions, limits, broken bodies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import MessId
from qsend.formats import injection
from qsend.formats.frames import PACKET_MAX, split

Render = Callable[[int], bytes]


@pytest.mark.parametrize("length", [0, 1, injection.CHUNK_MAX, 200000])
def test_chunks_carry_all_bytes_in_frames_that_fit(length: int) -> None:
    data = bytes(range(256)) * (length // 256 + 1)
    data = data[:length]
    kept = b""
    for packet in injection.render_chunks(injection.MESSAGE, 7, data):
        assert len(packet) <= PACKET_MAX
        ((kind, body),) = split(packet)
        assert kind == injection.MESSAGE
        stream, part = injection.parse_stream(body)
        assert stream == 7
        kept += part
    assert kept == data


def test_word_is_the_stream_alone() -> None:
    ((kind, body),) = split(injection.render_word(injection.COMMIT, 3))
    assert (kind, injection.parse_stream(body)) == (injection.COMMIT, (3, b""))


def test_result_both_ways() -> None:
    ((kind, body),) = split(injection.render_result(2**32 - 1, 255, 2**63))
    assert kind == injection.RESULT
    assert injection.parse_result(body) == (2**32 - 1, 255, 2**63)


@pytest.mark.parametrize("count", [1, 2, 8191, 8192, 20000])
def test_queued_both_ways(count: int) -> None:
    messids = [MessId(2**64 - 1 - n) for n in range(count)]
    kept: list[MessId] = []
    for packet in injection.render_queued(messids):
        assert len(packet) <= PACKET_MAX
        ((kind, body),) = split(packet)
        assert kind == injection.QUEUED
        kept += injection.parse_queued(body)
    assert kept == messids


@pytest.mark.parametrize("body", [b"", b"abc", b"\xff\xff\xff\xff", b"\xff" * 8])
def test_bad_stream_raises(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        injection.parse_stream(body)


@pytest.mark.parametrize("body", [b"", b"x" * 12, b"x" * 14])
def test_bad_result_raises(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        injection.parse_result(body)


@pytest.mark.parametrize("body", [b"x", b"x" * 7, b"x" * 9])
def test_bad_queued_raises(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        injection.parse_queued(body)
