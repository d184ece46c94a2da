"""Group commit for threads: one round of syncing for all that wait.

A thread that asks while a round runs waits for the next one, together with all
others of its file system that asked meanwhile: what it wrote may have come too late
for the running round, never for the next. A round of many is one syncfs, as in
sysio/syncer.py, whose figures show why.
"""

from __future__ import annotations

import errno
import os
import threading

from qsend.sysio.syncer import SYNCFS_FROM, syncfs

_DEVICES_MAX = 16
"""File systems that one process keeps a descriptor for."""


class _Round:
    """One round: who is in it, and how it ended."""

    __slots__ = ("done", "errno", "fds", "turn")

    def __init__(self, fd: int) -> None:
        self.fds = {fd}
        self.done = threading.Event()
        self.errno = 0
        self.turn = threading.Event()


class SharedSync:
    """Shares rounds of syncing among the threads of one process.

    `asked` counts the calls that have found their round.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._lock = threading.Lock()
        self._running: dict[int, _Round] = {}
        self._waiting: dict[int, _Round] = {}
        self._devices: dict[int, int] = {}

    def sync(self, fd: int) -> None:
        """Return when what was written to the file or directory of `fd` is durable.

        Raises: OSError when the round that covered it failed.
        """
        device = os.fstat(fd).st_dev
        with self._lock:
            mine, leads, waits = self._join(device, fd)
            self.asked += 1
        if waits:
            mine.turn.wait()
        if leads:
            self._lead(device, mine)
        else:
            mine.done.wait()
        if mine.errno:
            raise OSError(mine.errno, os.strerror(mine.errno))

    def close(self) -> None:
        """Give back what is kept open; no call may be under way."""
        for fd in self._devices.values():
            os.close(fd)
        self._devices.clear()

    def _join(self, device: int, fd: int) -> tuple[_Round, bool, bool]:
        """(round, whether this thread runs it, whether it must wait to do so)."""
        if device not in self._running:
            mine = self._running[device] = _Round(fd)
            return mine, True, False
        waiting = self._waiting.get(device)
        if waiting is not None:
            waiting.fds.add(fd)
            return waiting, False, False
        mine = self._waiting[device] = _Round(fd)
        return mine, True, True

    def _lead(self, device: int, mine: _Round) -> None:
        try:
            self._sync(device, mine.fds)
        except OSError as exc:
            mine.errno = exc.errno or errno.EIO
        finally:
            with self._lock:
                # Promoting under the lock closes the next round to late comers.
                following = self._waiting.pop(device, None)
                if following is None:
                    del self._running[device]
                else:
                    self._running[device] = following
            mine.done.set()
            if following is not None:
                following.turn.set()

    def _sync(self, device: int, fds: set[int]) -> None:
        known = self._devices.get(device)
        if known is not None and len(fds) >= SYNCFS_FROM:
            syncfs(known)
            return
        if known is None and len(self._devices) < _DEVICES_MAX:
            # syncfs reports errors since its descriptor was opened: it must have
            # been opened before what it is to cover was written.
            path = f"/proc/self/fd/{next(iter(fds))}"
            self._devices[device] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        for fd in fds:
            os.fsync(fd)
