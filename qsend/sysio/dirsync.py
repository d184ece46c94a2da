"""Making directory entries durable, one fsync for all threads that wait.

A thread that asks while a sync of the same directory runs waits for the next
one, together with all others that asked meanwhile: its own entry may have come
too late for the running sync, never for the next.
"""

from __future__ import annotations

import errno
import os
import threading


class _Round:
    """One fsync and those who wait for it."""

    __slots__ = ("done", "errno", "turn")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.errno = 0
        self.turn = threading.Event()


class DirSync:
    """Shares directory syncs among the threads of one process.

    `asked` counts the calls that have found their round.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._lock = threading.Lock()
        self._running: dict[tuple[int, int], _Round] = {}
        self._waiting: dict[tuple[int, int], _Round] = {}

    def sync(self, fd: int) -> None:
        """Return when everything now in the directory of `fd` is durable.

        Raises: OSError when the sync that covered it failed.
        """
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        with self._lock:
            mine, leads, waits = self._join(key)
            self.asked += 1
        if waits:
            mine.turn.wait()
        if leads:
            self._lead(key, mine, fd)
        else:
            mine.done.wait()
        if mine.errno:
            raise OSError(mine.errno, os.strerror(mine.errno))

    def _join(self, key: tuple[int, int]) -> tuple[_Round, bool, bool]:
        """(round, whether this thread runs it, whether it must wait to do so)."""
        if key not in self._running:
            mine = self._running[key] = _Round()
            return mine, True, False
        waiting = self._waiting.get(key)
        if waiting is not None:
            return waiting, False, False
        mine = self._waiting[key] = _Round()
        return mine, True, True

    def _lead(self, key: tuple[int, int], mine: _Round, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as exc:
            mine.errno = exc.errno or errno.EIO
        finally:
            with self._lock:
                # Promoting under the lock closes the next round to late comers.
                following = self._waiting.pop(key, None)
                if following is None:
                    del self._running[key]
                else:
                    self._running[key] = following
            mine.done.set()
            if following is not None:
                following.turn.set()
