"""Running another program to its end, as the programs for dot-qmail lines do.

Started without a fork of this interpreter: fast, and nothing of ours gets into the
child but the descriptors 0, 1 and 2.
Source: qmail-command(8); preline.c, condredirect.c, except.c; posix_spawn(3).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Sequence
from typing import NoReturn

from qsend.core.errors import TempFail

_DEFAULTED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by Python; programs expect the default."""

TEMPORARY_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        "EINTR", "ENOMEM", "ETXTBSY", "EIO", "ETIMEDOUT", "EAGAIN", "EDEADLK",
        "EBUSY", "ENFILE", "EMFILE", "EFBIG", "ENOSPC", "ENETDOWN", "ENETUNREACH",
        "ENETRESET", "ECONNABORTED", "ECONNRESET", "ENOBUFS", "ETOOMANYREFS",
        "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EUSERS", "EDQUOT", "ESTALE",
        "ENOLCK",
    )
)  # fmt: skip
"""What may be better at the next attempt (error_temp.c)."""


class NotStarted(Exception):
    """The program cannot be run; `is_temporary` says whether that may change."""

    def __init__(self, program: str, exc: OSError) -> None:
        super().__init__(f"unable to run {program}: {exc.strerror}")
        self.is_temporary = exc.errno in TEMPORARY_ERRORS


def run(argv: Sequence[str]) -> int:
    """Run a program, found by $PATH, on our own descriptors; its exit code.

    Raises: NotStarted; TempFail when a signal kills it.
    """
    return _wait(_spawn(argv, []))


def run_fed(argv: Sequence[str], pieces: Iterable[bytes]) -> int:
    """Run a program whose standard input is `pieces`; its exit code.

    A program that does not read to the end is content with what it had.
    Raises: NotStarted; TempFail when a signal kills it; what `pieces` raises, after
        the program, which saw only a part, was killed.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _spawn(argv, [(os.POSIX_SPAWN_DUP2, reading, 0)])
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    try:
        try:
            _feed(writing, pieces)
        finally:
            os.close(writing)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return _wait(pid)


def run_told(argv: Sequence[str], fd: int, told: bytes) -> int:
    """Run a program, found by $PATH, that can read `told` on descriptor `fd`.

    `told` is at most PIPE_BUF bytes; what `fd` is here does not matter.
    Returns: its exit code.
    Raises: NotStarted; TempFail when a signal kills it.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writing, told)
    finally:
        os.close(writing)
    try:
        pid = _spawn(argv, [(os.POSIX_SPAWN_DUP2, reading, fd)])
    finally:
        os.close(reading)
    return _wait(pid)


def start(argv: Sequence[str], stdin: int, stdout: int) -> int:
    """Start a program on these descriptors; its pid, for the caller to wait for.

    Of our other descriptors it has those that are inheritable.
    Raises: NotStarted.
    """
    dup2 = os.POSIX_SPAWN_DUP2
    return _spawn(argv, [(dup2, stdin, 0), (dup2, stdout, 1)])


def become(argv: Sequence[str]) -> NoReturn:
    """Become a program, found by $PATH, with the signals programs expect.

    Raises: TempFail when it cannot be run.
    """
    for signum in _DEFAULTED:
        signal.signal(signum, signal.SIG_DFL)
    try:
        try:
            os.execvp(argv[0], list(argv))
        except OSError as exc:
            if exc.errno != errno.ENOEXEC:
                raise
            os.execv("/bin/sh", ["/bin/sh", _path(argv[0]), *argv[1:]])
    except OSError as exc:
        raise TempFail(f"unable to run {argv[0]}: {exc.strerror}") from exc


def _spawn(argv: Sequence[str], actions: list[tuple[int, int, int]]) -> int:
    try:
        return _spawn_any(argv, actions)
    except OSError as exc:
        raise NotStarted(argv[0], exc) from exc


def _spawn_any(argv: Sequence[str], actions: list[tuple[int, int, int]]) -> int:
    """Spawn a program, or a script without `#!`, as execvp(3) does."""
    try:
        return os.posix_spawnp(
            argv[0], list(argv), os.environ, file_actions=actions, setsigdef=_DEFAULTED
        )
    except OSError as exc:
        if exc.errno != errno.ENOEXEC:
            raise
    shell = ["/bin/sh", _path(argv[0]), *argv[1:]]
    return os.posix_spawn(
        shell[0], shell, os.environ, file_actions=actions, setsigdef=_DEFAULTED
    )


def _path(program: str) -> str:
    if "/" in program:
        return program
    tried = (f"{folder}/{program}" for folder in os.get_exec_path())
    return next((path for path in tried if os.access(path, os.X_OK)), program)


def _feed(fd: int, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BrokenPipeError:
                return


def _wait(pid: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        raise TempFail("child crashed")
    return code
