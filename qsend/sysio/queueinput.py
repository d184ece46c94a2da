"""What every qmail-queue does with its signals and its two descriptors.

Source: qmail-queue.c main(); qmail-queue(8).
"""

from __future__ import annotations

import posix

from qsend.core.light import TYPE_CHECKING
from qsend.formats.injection import CHUNK_MAX
from qsend.formats.queueexit import QueueExit

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # without the names of its enumerations

DEATH_S = 86400
"""How long one run may take (qmail-queue.c DEATH)."""

_IGNORED = (
    signal.SIGPIPE,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGXCPU,
    signal.SIGXFSZ,
)


def set_signals() -> None:
    """Let nothing of the caller's stop the run, and DEATH_S end it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(
        signal.SIGALRM, lambda _signum, _frame: posix._exit(QueueExit.TIMEOUT)
    )
    signal.alarm(DEATH_S)


def copy(
    fd: int,
    take: Callable[[bytes], object],
    is_enough: Callable[[], bool] = lambda: False,
) -> bool:
    """Give all bytes of `fd` to `take`; false when it cannot be read."""
    while not is_enough():
        try:
            data = posix.read(fd, CHUNK_MAX)
        except OSError:
            return False
        if not data:
            break
        take(data)
    return True
