from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.sysio import clock, program
from qsend.sysio.program import OUTPUT_MAX

ENVIRON = {b"PATH": b"/usr/bin:/bin", b"SENDER": b"a b;$(id)@c", b"DTLINE": b"x\n"}


class Place:
    """A home and a message, opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "message").write_bytes(b"A: b\n\nbody\n")
        self.home_fd = os.open(path, os.O_PATH)
        self.mess_fd = os.open(path / "message", os.O_RDONLY)

    def run(self, command: str, output: bytearray | None) -> int:
        return program.run(
            command.encode(),
            home_fd=self.home_fd,
            mess_fd=self.mess_fd,
            environ=ENVIRON,
            output=output,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    yield place
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(place.home_fd)
    os.close(place.mess_fd)


@pytest.mark.parametrize("code", [0, 1, 64, 99, 100, 111, 127, 255])
def test_program_exit_code_is_returned(place: Place, code: int) -> None:
    output = bytearray()
    assert place.run(f"echo out; echo err >&2; exit {code}", output) == code
    assert output == b"out\nerr\n"


def test_program_killed_by_signal_defers(place: Place) -> None:
    output = bytearray()
    with pytest.raises(TempFail, match=r"killed by signal 9.*#4\.3\.0"):
        place.run("echo first; kill -9 $$", output)
    assert output == b"first\n"


def test_program_reads_the_message_from_its_start_each_time(place: Place) -> None:
    output = bytearray()
    os.lseek(place.mess_fd, 5, os.SEEK_SET)
    for _ in range(2):
        assert place.run("cat", output) == 0
    assert output == b"A: b\n\nbody\n" * 2


def test_program_reads_the_message_when_it_cannot_be_opened_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_args: object) -> int:
        raise PermissionError(13, "denied")

    output = bytearray()
    os.lseek(place.mess_fd, 5, os.SEEK_SET)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied)
        assert place.run("cat", output) == 0
    assert output == b"A: b\n\nbody\n"


def test_program_has_exactly_the_environment(place: Place) -> None:
    os.environ["QSEND_TEST_LEAK"] = "leaked"
    try:
        output = bytearray()
        assert place.run("exec cat /proc/self/environ", output) == 0
    finally:
        del os.environ["QSEND_TEST_LEAK"]
    entries = dict(
        entry.split(b"=", 1) for entry in bytes(output).split(b"\0") if entry
    )
    # The shell adds the variables of its own.
    for name in (b"PWD", b"OLDPWD", b"SHLVL", b"_"):
        entries.pop(name, None)
    assert entries == ENVIRON


def test_program_starts_with_a_clean_state(place: Place) -> None:
    output = bytearray()
    command = (
        "pwd; umask; ls /proc/self/fd | tr '\\n' ' '; echo;"
        "grep -E '^Sig(Ign|Blk)' /proc/self/status;"
        "ps -o sid=,pgid= -p $$ | tr -d ' ' | grep -c ^$$$$$"
    )
    assert place.run(command, output) == 0
    pwd, umask, fds, blocked, ignored, sessions = output.decode().splitlines()
    assert pwd == os.path.realpath(place.path)
    assert umask == "0077"
    assert fds.split()[:3] == ["0", "1", "2"]
    assert len(fds.split()) == 4
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert sessions == "1"


def test_program_works_in_the_opened_home_whatever_its_name(
    place: Place, tmp_path: Path
) -> None:
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    try:
        assert place.run("echo x > made", bytearray()) == 0
        assert (moved / "made").read_text() == "x\n"
        assert (moved / "made").stat().st_mode & 0o777 == 0o600
    finally:
        moved.rename(tmp_path)


def test_program_output_is_bounded_and_never_blocks(place: Place) -> None:
    output = bytearray(b"before")
    assert place.run("head -c 1000000 /dev/zero | tr '\\0' x; exit 7", output) == 7
    assert output == b"before" + b"x" * (OUTPUT_MAX - 6)
    assert place.run("echo more", output) == 0
    assert len(output) == OUTPUT_MAX


def test_program_that_closes_its_output_is_waited_for(place: Place) -> None:
    output = bytearray()
    assert place.run("exec >&- 2>&-; sleep 0.1; exit 3", output) == 3
    assert output == b""


def test_program_is_not_held_up_by_a_grandchild(place: Place) -> None:
    output = bytearray()
    start = clock.mono()
    assert place.run("sleep 60 & echo $!; exit 5", output) == 5
    assert clock.mono() - start < 20
    grandchild = int(output)
    os.kill(grandchild, 0)  # the group is not killed: it lives on
    os.kill(grandchild, signal.SIGKILL)


def test_program_in_a_home_that_is_gone_defers(place: Place, tmp_path: Path) -> None:
    fd = place.home_fd
    place.home_fd = os.open(tmp_path / "message", os.O_PATH)
    try:
        with pytest.raises(TempFail, match="Unable to run a program"):
            place.run("true", bytearray())
    finally:
        os.close(place.home_fd)
        place.home_fd = fd


def test_program_inherits_the_output_when_not_collected(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert place.run("echo out; echo err >&2", None) == 0
    assert capfd.readouterr() == ("out\n", "err\n")
