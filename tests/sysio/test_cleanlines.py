"""send's lines to clean, ours and the classic one."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import pytest

from qsend.core.errors import Fatal
from qsend.core.model import FileIdentity, MessId
from qsend.formats import cleanwire, frames
from qsend.sysio.cleanline import ClassicCleanLine, CleanLine
from qsend.sysio.endpoint import pair
from qsend.sysio.loop import Loop
from qsend.sysio.wire import Wire

N = MessId(457)
IDENTITY = FileIdentity(mtime_ns=5, size=6)


class Recorder:
    """A loop, both ends of a line, and what happened in which order."""

    def __init__(self, ends: tuple[socket.socket, socket.socket]) -> None:
        self.loop = Loop()
        self.ours, self.peer = ends
        self.peer.settimeout(10)
        self.events: list[str] = []
        self.waiting: set[MessId] = set()
        self.wire: Wire | None = None

    def flush_log(self) -> None:
        asked, _, _ = select.select([self.peer], [], [], 0)
        self.events.append("log too late" if asked else "log before request")

    def answer(self, error: OSError | None) -> None:
        code = error.errno if error is not None else None
        self.events.append(errno.errorcode[code] if code else "done")

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)


@pytest.fixture
def own() -> Iterator[Recorder]:
    made = Recorder(pair())
    yield made
    made.ours.close()
    made.peer.close()
    made.loop.close()


@pytest.fixture
def classic() -> Iterator[Recorder]:
    made = Recorder(socket.socketpair())
    made.wire = Wire.of_socket(made.ours)
    yield made
    made.wire.close()
    made.peer.close()
    made.loop.close()


def own_line(made: Recorder) -> CleanLine:
    return CleanLine(
        made.loop,
        made.ours,
        made.flush_log,
        lambda messid, stamp: made.events.append(f"moved {messid} {stamp}"),
        lambda: 99,
    )


def answered(request: cleanwire.Request, code: int) -> bytes:
    return cleanwire.render_answer(request, code)


def test_log_is_written_before_anything_is_removed(own: Recorder) -> None:
    line = own_line(own)
    line.foop(N, IDENTITY, own.answer)
    line.todo(MessId(9), own.answer)
    own.turn()
    assert own.events == ["log before request"]
    found = [
        cleanwire.parse_request(*each) for each in frames.split(own.peer.recv(65536))
    ]
    assert found == [
        cleanwire.Foop(messid=N, identity=IDENTITY),
        cleanwire.Todo(messid=MessId(9)),
    ]


@pytest.mark.parametrize(
    ("code", "want"), [(0, "done"), (errno.ESTALE, "done"), (errno.EIO, "EIO")]
)
def test_removal_of_a_file_that_is_another_by_now_counts_as_done(
    own: Recorder, code: int, want: str
) -> None:
    own_line(own).foop(N, IDENTITY, own.answer)
    own.turn()
    own.peer.send(answered(cleanwire.Foop(messid=N, identity=IDENTITY), code))
    own.turn()
    assert own.events[1:] == [want]


def test_sweep_hears_that_the_file_was_not_an_orphan(own: Recorder) -> None:
    own_line(own).sweep(N, IDENTITY, own.answer)
    own.turn()
    request = cleanwire.Foop(messid=N, identity=IDENTITY, orphan=True)
    [(kind, body)] = frames.split(own.peer.recv(65536))
    assert cleanwire.parse_request(kind, body) == request
    own.peer.send(answered(request, errno.ESTALE))
    own.turn()
    assert own.events[1:] == ["ESTALE"]


def test_own_files_follow_aside_after_cleans(own: Recorder) -> None:
    own_line(own).aside(N, "damaged", own.answer)
    own.turn()
    assert "moved 457 99" not in own.events
    own.peer.send(answered(cleanwire.Aside(messid=N, stamp=99, reason=b""), 0))
    own.turn()
    assert own.events[1:] == ["moved 457 99", "done"]


def test_lost_clean_is_fatal(own: Recorder) -> None:
    line = own_line(own)
    line.todo(N, own.answer)
    own.peer.close()
    with pytest.raises(Fatal, match="lost qmail-clean"):
        own.turn()


def classic_line(made: Recorder) -> ClassicCleanLine:
    assert made.wire is not None
    return ClassicCleanLine(
        made.loop, made.wire, made.flush_log, made.waiting.__contains__
    )


def test_classic_commands_wait_for_each_other(classic: Recorder) -> None:
    line = classic_line(classic)
    line.foop(N, IDENTITY, classic.answer)
    line.todo(MessId(9), classic.answer)
    assert classic.peer.recv(100) == b"todo/457\0"
    classic.peer.send(b"+")
    classic.turn()
    assert classic.peer.recv(100) == b"todo/9\0"
    classic.peer.send(b"!")
    classic.turn()
    assert classic.peer.recv(100) == b"foop/457\0"
    classic.peer.send(b"+")
    classic.turn()
    assert [each for each in classic.events if "log" not in each] == ["EIO", "done"]
    assert "log too late" not in classic.events


def test_classic_removal_stops_when_todo_stays(classic: Recorder) -> None:
    classic_line(classic).foop(N, IDENTITY, classic.answer)
    assert classic.peer.recv(100) == b"todo/457\0"
    classic.peer.send(b"!")
    classic.turn()
    assert classic.events[-1] == "EIO"


def test_classic_sweep_spares_what_is_in_todo(classic: Recorder) -> None:
    line = classic_line(classic)
    classic.waiting.add(N)
    line.sweep(N, IDENTITY, classic.answer)
    assert classic.events == ["ESTALE"]
    line.sweep(MessId(9), IDENTITY, classic.answer)
    assert classic.peer.recv(100) == b"foop/9\0"


@pytest.mark.parametrize("gone", ["closed", "unasked answer"])
def test_classic_cleaner_lost_or_out_of_step_is_fatal(
    classic: Recorder, gone: str
) -> None:
    line = classic_line(classic)
    assert line is not None
    if gone == "closed":
        classic.peer.close()
    else:
        classic.peer.send(b"+")
    with pytest.raises(Fatal):
        classic.turn()
