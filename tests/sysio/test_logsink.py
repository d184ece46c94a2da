"""The delivery log: lines of a turn leave whole and together."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from qsend.sysio.logsink import LogSink


@pytest.fixture
def log() -> Iterator[tuple[LogSink, int]]:
    read, write = os.pipe()
    yield LogSink(write), read
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            pass  # the test closed it


def test_lines_wait_for_the_flush_and_leave_in_order(log: tuple[LogSink, int]) -> None:
    sink, read = log
    sink.say(b"one\n")
    sink.alert("two")
    sink.warning("three")
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 100)
    sink.flush()
    assert os.read(read, 100) == b"one\nalert: two\nwarning: three\n"
    sink.flush()
    with pytest.raises(BlockingIOError):
        os.read(read, 100)


@pytest.mark.parametrize("blocking", [True, False])
def test_slow_reader_loses_nothing(log: tuple[LogSink, int], blocking: bool) -> None:
    sink, read = log
    os.set_blocking(sink.fd, blocking)
    wanted = b"".join(b"line %d\n" % n for n in range(50_000))
    sink.say(wanted)
    writer = threading.Thread(target=sink.flush)
    writer.start()
    found = b""
    while len(found) < len(wanted):
        found += os.read(read, 65536)
    writer.join(10)
    assert found == wanted


def test_reader_that_is_gone_stops_nothing(log: tuple[LogSink, int]) -> None:
    sink, read = log
    os.close(read)
    sink.say(b"lost\n")
    sink.flush()
    sink.say(b"lost too\n")
    sink.flush()
    assert sink.fd > 2
