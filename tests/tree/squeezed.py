"""Processes that run out of something: put before `qsend start` as a patch.

A process that gets SIGUSR1 reads in PLACE/squeeze what it is to have no more of:
"descriptors", "memory" or "processes" than it has now; nothing gives all of it back.
Each time is a byte in PLACE/done.
"""

import fcntl
import os
import resource
import signal
from contextlib import suppress
from typing import Any

from qsend.core import manager
from qsend.sysio import executor, fork

PLACE = globals().get("PLACE", "")
_WORD, _DONE, _SIZE = 1000, 1001, 1002
_first_close_all_but = fork.close_all_but
_first_default_signals = fork._default_signals
_LIMITS = {
    "descriptors": resource.RLIMIT_NOFILE,
    "memory": resource.RLIMIT_AS,
    "processes": resource.RLIMIT_NPROC,
}
_USUAL = {each: resource.getrlimit(each) for each in _LIMITS.values()}


def _first_free() -> int:
    fd = 0
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            return fd
        fd += 1


def _has(what: str) -> int:
    """How much of it this process has."""
    if what == "descriptors":
        return _first_free()
    if what == "memory":
        return int(os.pread(_SIZE, 100, 0).split()[0]) * resource.getpagesize()
    return 1


def _squeeze(_signum: int, _frame: object) -> None:
    word = os.pread(_WORD, 20, 0).decode().strip()
    for what, limit in _LIMITS.items():
        soft, hard = _USUAL[limit]
        resource.setrlimit(limit, (_has(what) if what == word else soft, hard))
    os.write(_DONE, b"x")


def _default_signals() -> None:
    _first_default_signals()
    # Of this process; nothing can be opened any more where the signal arrives, or in
    # the child of a process that it has reached.
    with suppress(OSError):
        fd = os.open("/proc/self/statm", os.O_RDONLY)
        os.dup2(fd, _SIZE, inheritable=False)
        os.close(fd)
    signal.signal(signal.SIGUSR1, _squeeze)


def _close_all_but(kept: Any) -> None:
    _first_close_all_but([*kept, _WORD, _DONE, _SIZE])


if PLACE:
    for number, flags in ((_WORD, os.O_RDONLY), (_DONE, os.O_WRONLY | os.O_APPEND)):
        path = f"{PLACE}/{'squeeze' if number == _WORD else 'done'}"
        os.dup2(opened := os.open(path, flags), number, inheritable=False)
        os.close(opened)
    fork.close_all_but = _close_all_but
    fork._default_signals = _default_signals
    # What is tried again later is tried again in the test's time.
    executor.RETRY_S = executor.RETRY_BOUNCE_S = 0.5
    manager.SYSFAIL_S = 1
