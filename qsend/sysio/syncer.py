"""Group commit: many waiting writers share each round of syncing.

One thread syncs, one round at a time; everything that waits when a round starts
shares it, so the cost of a round is paid once however many wait. Must not decide
what needs to be durable: callers name files and directories.
Source: fsync(2), syncfs(2) (errors since the descriptor was opened: Linux 5.8).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from qsend.formats.control import Durability
from qsend.sysio import clock, threads

Done = Callable[[OSError | None], None]
"""Called on the loop's thread with what went wrong, or None."""

LAZY_S = 0.1
"""How long a lazy request may wait for an eager one: what a power cut may repeat"""

SYNCFS_FROM = 6
"""Descriptors in a round from which one syncfs per file system replaces them.

Measured on 2 cores, new 2 KiB files with their directories, ms per round (one
fsync after another / in 8 threads / syncfs):
ext4 without a journal: 3 descriptors 1.4/1.3/1.5, 6: 2.3/1.6/0.4, 24: 7.3/4.2/2.6,
87: 35/12/2.9; with a journal: 3: 1.8/1.8/0.9, 6: 2.8/1.7/1.1, 24: 12/4.4/1.9,
87: 43/13/2.9. Threads take the processor time of single fsyncs or more, a syncfs
a tenth of it. So threads never win. A syncfs also waits for what strangers wrote
to the same file system, therefore a lone message (4 descriptors) is still synced
file by file.
"""

_libc = ctypes.CDLL(None, use_errno=True)


class SoonCaller(Protocol):
    """What a syncer needs of a loop."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back on the loop's thread; must be safe from another thread."""


def syncfs(fd: int) -> None:
    """Make everything on the file system of `fd` durable.

    Raises: OSError, also for a write-back error since the last call on this
    open file; so keep one descriptor open rather than opening one per call.
    """
    if _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sync_now(dirs: Iterable[int], level: Durability) -> None:
    """Make directories durable before returning; nothing below level FULL.

    Raises: OSError of the first that fails; the rest is then not synced.
    """
    if level is Durability.FULL:
        for fd in set(dirs):
            os.fsync(fd)


class _Request:
    __slots__ = ("dirs", "done", "due_mono", "error", "files")

    def __init__(
        self, files: Sequence[int], dirs: Sequence[int], done: Done, due_mono: float
    ) -> None:
        self.files = tuple(files)
        self.dirs = tuple(dirs)
        self.done = done
        self.due_mono = due_mono
        self.error: OSError | None = None


class Syncer:
    """Makes files and directories durable in shared rounds.

    All methods are for the loop's thread. The thread starts with the first
    request that needs it, so a process may fork before.
    """

    def __init__(
        self, loop: SoonCaller, level: Durability, syncfs_fds: Sequence[int]
    ) -> None:
        """Serve `loop`.

        Args:
            level: FULL files and directories; QMAIL files; NONE nothing.
            syncfs_fds: one descriptor per file system that requests may touch;
                stays the caller's. Empty: every descriptor is synced by itself.
        """
        self._loop = loop
        self._level = level
        self._syncfs_fds = tuple(syncfs_fds)
        self._changed = threading.Condition()
        self._batch: list[_Request] = []
        self._waiting: list[_Request] = []
        self._wake_mono = 0.0
        self._closing = False
        self._ended: threading.Event | None = None  # the thread's, while there is one
        self._threaded = 0
        self._direct = 0

    def commit(
        self,
        files: Sequence[int],
        dirs: Sequence[int],
        done: Done,
        *,
        lazy: bool = False,
    ) -> None:
        """Make files and directories durable, close the files, then call `done`.

        Args:
            files: open descriptors of written files; the syncer closes them,
                whatever happens. A close error fails this request.
            dirs: directory descriptors; they stay open, and the caller's.
            done: called from the loop, never from here, in the order of commits.
                A sync error fails every request of its round.
            lazy: start no round for this before LAZY_S; share any earlier one.
        """
        if self._level is Durability.NONE and not self._threaded:
            self._commit_unsynced(_Request(files, dirs, done, 0.0))
            return
        request = _Request(files, dirs, done, clock.mono() + LAZY_S if lazy else 0.0)
        self._threaded += 1
        # Given to the thread at the end of the turn: else the first of a batch
        # would start a round and the rest of it miss that.
        if not self._batch:
            self._loop.call_soon(self._give_batch)
        self._batch.append(request)

    def set_level(self, level: Durability) -> None:
        """Use another level from the next round on."""
        self._level = level

    def idle(self) -> bool:
        """Whether every request so far has been answered."""
        return not self._threaded and not self._direct

    def close(self) -> None:
        """Sync what waits, lazy or not, and join the thread.

        Their `done` calls are given to the loop; it must turn once more for
        them to happen.
        """
        self._give_batch()
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._ended is not None:
            self._ended.wait()
            self._ended = None
        self._closing = False

    def _give_batch(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        if self._ended is None and not self._start_thread():
            self._refuse(batch)
            return
        due_mono = min(request.due_mono for request in batch)
        with self._changed:
            # Lazy requests behind others change nothing for a sleeping thread.
            if not self._waiting or due_mono < self._wake_mono:
                self._wake_mono = due_mono
                self._changed.notify()
            self._waiting += batch

    def _start_thread(self) -> bool:
        ended = threading.Event()

        def serve() -> None:
            self._serve()
            ended.set()

        try:
            threads.start(serve)
        except RuntimeError:
            return False
        self._ended = ended
        return True

    def _refuse(self, batch: list[_Request]) -> None:
        """No thread is to be had now: nothing of it is durable."""
        for request in batch:
            request.error = OSError(errno.EAGAIN, "no thread is to be had")
            _close_files(request)
        self._loop.call_soon(lambda: self._answer(batch))

    def _commit_unsynced(self, request: _Request) -> None:
        _close_files(request)
        self._direct += 1

        def answer() -> None:
            self._direct -= 1
            request.done(request.error)

        self._loop.call_soon(answer)

    def _serve(self) -> None:
        try:
            self._run_rounds()
        except Exception as exc:  # noqa: BLE001 - the thread's outermost loop
            # Whoever waits for an answer would wait for ever: end the process,
            # from its own thread.
            self._loop.call_soon(functools.partial(_raise, exc))

    def _run_rounds(self) -> None:
        """Round after round until closed and nothing waits."""
        while True:
            with self._changed:
                while not self._is_due():
                    if self._closing and not self._waiting:
                        return
                    self._changed.wait(self._wait_s())
                requests, self._waiting = self._waiting, []
            self._run_round(requests)

    def _is_due(self) -> bool:
        if not self._waiting:
            return False
        return self._closing or self._wake_mono <= clock.mono()

    def _wait_s(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._wake_mono - clock.mono())

    def _run_round(self, requests: list[_Request]) -> None:
        error: OSError | None = None
        try:
            self._sync(requests, self._level)
        except OSError as exc:
            error = exc
        for request in requests:
            request.error = error
            _close_files(request)
        self._loop.call_soon(lambda: self._answer(requests))

    def _sync(self, requests: list[_Request], level: Durability) -> None:
        if level is Durability.NONE:
            return
        fds = {fd for request in requests for fd in request.files}
        if level is Durability.FULL:
            fds.update(fd for request in requests for fd in request.dirs)
            if len(fds) >= SYNCFS_FROM and self._syncfs_fds:
                for fd in self._syncfs_fds:
                    syncfs(fd)
                return
        for fd in fds:
            os.fsync(fd)

    def _answer(self, requests: list[_Request]) -> None:
        for request in requests:
            self._threaded -= 1
            request.done(request.error)


def _raise(exc: Exception) -> None:
    raise exc


def _close_files(request: _Request) -> None:
    for fd in request.files:
        try:
            os.close(fd)
        except OSError as exc:
            # EBADF, EIO, ENOSPC (NFS): the data may not be where it should.
            request.error = request.error or exc
