"""Forked children: descriptors, signals, exceptions and exit codes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import pytest

from qsend.core.errors import Bug, TempFail
from qsend.sysio.fork import exec_program, fork_child


def collect(
    run: Callable[[int], int], keep: tuple[int, ...] = (), name: str = ""
) -> tuple[int, bytes]:
    """Run a child with the write end of a pipe; its wait status and output."""
    read, write = os.pipe()
    pid = fork_child(lambda: run(write), (write, *keep), name)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(pid, 0)
    return status, output


def open_fds(write: int) -> int:
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    # The last is the listing's own descriptor, closed again by now.
    alive = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
    os.write(write, repr(alive).encode())
    return 0


def test_child_has_only_the_descriptors_it_was_meant_to_have() -> None:
    left, right = socket.socketpair()
    with left, right, open(os.devnull) as other:
        assert other.fileno() > 2
        read, write = os.pipe()
        pid = fork_child(lambda: open_fds(write), (left.fileno(), write))
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            output = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0
        want = repr(sorted({0, 1, 2, left.fileno(), write}))
        assert output.decode() == want


def test_child_exits_with_what_run_returns() -> None:
    for code in (0, 1, 100, 111, 255):
        pid = fork_child(lambda code=code: code, ())  # type: ignore[misc]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code


@pytest.mark.parametrize(
    ("exc", "starts", "says_where"),
    [
        (TempFail("disk is\nfull"), b"alert: qmail-x: disk is full\n", False),
        (Bug("broken"), b"alert: qmail-x: Bug: broken at ", True),
        (KeyError("k"), b"alert: qmail-x: KeyError: 'k' at ", True),
        (SystemExit(3), b"alert: qmail-x: SystemExit: 3 at ", True),
        (KeyboardInterrupt(), b"alert: qmail-x: KeyboardInterrupt: Keyboard", True),
    ],
)
def test_exception_becomes_one_line_and_exit_111(
    exc: BaseException, starts: bytes, says_where: bool
) -> None:
    def run(write: int) -> int:
        os.dup2(write, 2)
        raise exc

    status, output = collect(run, name="qmail-x")
    assert os.waitstatus_to_exitcode(status) == 111
    assert output.startswith(starts)
    assert output.count(b"\n") == 1
    assert output.endswith(b"\n")
    assert (b"test_fork.py:" in output) is says_where


def test_exception_without_name_tells_the_pid() -> None:
    def run(write: int) -> int:
        os.dup2(write, 2)
        raise TempFail("no")

    _, output = collect(run)
    assert output.startswith(b"alert: process ")


def test_child_has_default_signals_and_no_wakeup() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    old = {
        signum: signal.signal(signum, lambda *_: None)
        for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
    }
    signal.set_wakeup_fd(write)
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    def run(out: int) -> int:
        handled = [
            signum
            for signum in signal.valid_signals()
            if signal.getsignal(signum) is not signal.SIG_DFL
        ]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        wakeup = signal.set_wakeup_fd(-1)
        os.write(out, repr((sorted(handled), sorted(blocked), wakeup)).encode())
        return 0

    try:
        status, output = collect(run)
        still = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        signal.set_wakeup_fd(-1)
        for signum, handler in old.items():
            signal.signal(signum, handler)
        os.close(read)
        os.close(write)
    assert status == 0
    assert signal.SIGUSR2 in still
    want = repr((sorted([signal.SIGPIPE, signal.SIGXFSZ]), [], -1))
    assert output.decode() == want


def test_signal_to_child_is_not_reported_to_parent() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    old = signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(write)
    try:
        for _ in range(20):
            pid = fork_child(lambda: signal.pause() or 0, ())  # type: ignore[func-returns-value]
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, old)
        os.close(read)
        os.close(write)


def test_executed_program_gets_sigpipe_back() -> None:
    def run(write: int) -> int:
        os.dup2(write, 1)
        exec_program("/bin/grep", ["grep", "SigIgn", "/proc/self/status"], {})

    status, output = collect(run)
    assert status == 0
    ignored = int(output.split()[1], 16)
    assert ignored & (1 << (signal.SIGPIPE - 1)) == 0
    assert ignored & (1 << (signal.SIGXFSZ - 1)) == 0
