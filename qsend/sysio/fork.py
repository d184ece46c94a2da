"""Forking: a child with nothing of its parent but what it is meant to have.

Every process of ours is forked here and nowhere else. Must not: be called by a
process that has threads.
Source: fork(2), close_range(2), signal(7).
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from qsend.core.errors import QsendError, TempFail

if TYPE_CHECKING:
    import signal
    import types
else:
    # Without the names of its enumerations: a tenth of what a fork costs.
    import _signal as signal

EXIT_CRASHED = 111
"""Exit code of a child that ended in an exception (temporary, as everywhere)."""

_GC_AFTER = 10_000
"""New objects until the next look for cycles. With Python's own 700 it is one for each
forty messages under way, and 6 % of send's time."""

_FD_END = 2**31 - 1
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


def fork_child(run: Callable[[], int], keep: Iterable[int], name: str = "") -> int:
    """Fork a child that calls `run` and exits with the code it returns.

    In the child only descriptors 0, 1, 2 and those in `keep` are open, every
    signal has its default disposition and is unblocked, and there is no signal
    wake-up descriptor. SIGPIPE and SIGXFSZ stay ignored, as Python needs them;
    `exec_program` gives them back. An exception from `run` becomes one line on
    descriptor 2, starting with `name`, and exit code 111; the child never
    returns into its parent's code.
    Returns: the child's pid; the caller must reap it.
    Raises: TempFail when the system has no room for another process.
    """
    kept = sorted(set(keep))
    # Blocked over the fork: a signal that meets the child before it has given up
    # the wake-up descriptor would be reported to the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    except OSError as exc:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise TempFail(f"cannot fork: {exc.strerror}") from exc
    if pid == 0:
        _child(run, kept, name)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _child(run: Callable[[], int], kept: Sequence[int], name: str) -> NoReturn:
    code = EXIT_CRASHED
    try:
        # Objects of the parent must not be collected here: a socket's finaliser
        # would close a number that by then belongs to someone else.
        gc.freeze()
        gc.set_threshold(_GC_AFTER)
        _default_signals()
        close_all_but(kept)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = run()
    except BaseException as exc:  # noqa: BLE001 - the outermost frame of a process
        _say(name or f"process {os.getpid()}", exc)
    finally:
        os._exit(code & 0xFF)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(signum) != signal.SIG_DFL:
            _set_default(signum)


def _set_default(signum: int) -> None:
    try:
        signal.signal(signum, signal.SIG_DFL)
    except OSError:
        pass  # reserved by the C library: it never had another disposition


def pass_over(signums: Iterable[int]) -> None:
    """Let these signals do nothing; programs that are run have them as by default.

    A handler, not SIG_IGN: programs would inherit that one.
    """
    for signum in signums:
        signal.signal(signum, _nothing)


def _nothing(_signum: int, _frame: types.FrameType | None) -> None:
    """A signal that was meant for another process."""


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor except 0, 1, 2 and those in `kept`."""
    start = 3
    for fd in sorted(set(kept)):
        if fd >= start:
            os.closerange(start, fd)
            start = fd + 1
    os.closerange(start, _FD_END)


def _say(name: str, exc: BaseException) -> None:
    """One line on descriptor 2; where it happened is said only of bugs."""
    words = " ".join(str(exc).split()) or type(exc).__name__
    if not isinstance(exc, QsendError):
        frames = traceback.extract_tb(exc.__traceback__)
        at = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        words = f"{type(exc).__name__}: {words}{at}"
    try:
        os.write(2, f"alert: {name}: {words}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody is left to read it; the exit code still tells


def reaped() -> Iterator[tuple[int, int]]:
    """Pid and status of every child that has ended and was not reaped yet."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def exec_program(
    path: str | bytes,
    argv: Sequence[str | bytes],
    environ: Mapping[str, str] | Mapping[bytes, bytes],
) -> NoReturn:
    """Become another program, with the signal dispositions programs expect.

    Raises: OSError, untranslated: who asks decides what it means.
    """
    for signum in _IGNORED_BY_PYTHON:
        signal.signal(signum, signal.SIG_DFL)
    os.execve(path, list(argv), dict(environ))
