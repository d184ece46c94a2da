"""Delivery into an mbox file: locked, appended, synced; cut back on error.

Deliveries of this process to the same file queue for a lock of their own first,
so that threads do not poll against each other; other programs are kept out by
flock. Nothing sleeps while it holds the lock.
Source: mbox(5), qmail-local.c mailfile(). Unlike qmail, a new
file's directory entry is synced, a device (/dev/null) is not synced or cut, and a
file that was replaced while we waited for its lock (maildir2mbox does) is opened anew.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qsend.core.errors import TempFail
from qsend.formats.control import Durability
from qsend.formats.mbox import MboxText
from qsend.sysio import clock
from qsend.sysio.maildir import write_all
from qsend.sysio.messagefile import MessageFile

LOCK_LIMIT_S = 30.0
"""Longest wait for the lock (qmail-local.c)."""

_POLL_FIRST_S = 0.005
_POLL_MOST_S = 0.2

_Key = tuple[int, int]


class _Busy(Exception):
    """The lock was not to be had in time."""


class _Replaced(Exception):
    """The file that is locked is no longer the one of that name."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One delivery under way."""

    home_fd: int
    path: bytes
    prefix: bytes
    message: MessageFile
    owner: int | None
    deadline_mono: float


class _FileLocks:
    """One lock per file (device, inode) that threads of this process use now."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[_Key, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, key: _Key, limit_s: float) -> Iterator[None]:
        """Hold the lock of one file. Raises: _Busy."""
        with self._guard:
            lock, users = self._locks.get(key) or (threading.Lock(), 0)
            self._locks[key] = (lock, users + 1)
        try:
            if not lock.acquire(timeout=limit_s):
                raise _Busy
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks[key]
                if users == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, users - 1)


class Mboxes:
    """Delivers into any number of mbox files; one object per process."""

    def __init__(
        self, durability: Durability, lock_limit_s: float = LOCK_LIMIT_S
    ) -> None:
        self._durability = durability
        self._lock_limit_s = lock_limit_s
        self._locks = _FileLocks()

    def deliver(
        self,
        home_fd: int,
        path: bytes,
        prefix: bytes,
        message: MessageFile,
        *,
        owner: int | None = None,
    ) -> None:
        """Append `prefix` and the message, quoted, to the file; make it if absent.

        Args:
            home_fd: the home; a relative `path` starts there.
            path: the file; new ones get mode 0600.
            prefix: the From, Return-Path and Delivered-To lines.
            owner: refuse what is not a regular file of this uid.
        Raises: TempFail; then the file is as before if it could be locked.
        """
        deadline_mono = clock.mono() + self._lock_limit_s
        entry = _Entry(home_fd, path, prefix, message, owner, deadline_mono)
        name = os.fsdecode(path)
        try:
            while not self._try(entry):
                pass
        except _Busy as exc:
            raise TempFail(
                f"File {name} is locked for {self._lock_limit_s:g} seconds. (#4.3.0)"
            ) from exc
        except OSError as exc:
            raise TempFail(f"Unable to write {name}: {exc.strerror}. (#4.3.0)") from exc

    def _try(self, entry: _Entry) -> bool:
        """Deliver; False when the file was replaced meanwhile.

        Raises: TempFail, _Busy, OSError.
        """
        fd, is_new = _open(entry)
        try:
            status = os.fstat(fd)
            _check_owner(status, entry)
            if stat.S_ISREG(status.st_mode):
                self._deliver(fd, status, entry)
            else:
                _append(fd, entry)
        except _Replaced:
            return False
        finally:
            os.close(fd)
        if is_new and self._durability is Durability.FULL:
            _sync_parent(entry.home_fd, entry.path)
        return True

    def _deliver(self, fd: int, status: os.stat_result, entry: _Entry) -> None:
        left_s = max(0.0, entry.deadline_mono - clock.mono())
        with self._locks.hold((status.st_dev, status.st_ino), left_s):
            is_locked = _lock(fd, entry.deadline_mono)
            _check_same(status, entry)
            end = os.lseek(fd, 0, os.SEEK_END)
            try:
                _append(fd, entry)
                if self._durability is not Durability.NONE:
                    os.fsync(fd)
            except BaseException:
                if is_locked:
                    os.ftruncate(fd, end)
                raise
            finally:
                if is_locked:
                    # Before the next thread of ours tries: it would have to poll.
                    fcntl.flock(fd, fcntl.LOCK_UN)


def _open(entry: _Entry) -> tuple[int, bool]:
    """(descriptor, whether the file is new). Raises: TempFail."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC
    path, home_fd = entry.path, entry.home_fd
    try:
        try:
            return os.open(path, flags, dir_fd=home_fd), False
        except FileNotFoundError:
            return os.open(path, flags | os.O_CREAT, 0o600, dir_fd=home_fd), True
    except OSError as exc:
        name = os.fsdecode(path)
        raise TempFail(f"Unable to open {name}: {exc.strerror}. (#4.2.1)") from exc


def _check_owner(status: os.stat_result, entry: _Entry) -> None:
    if entry.owner is None:
        return
    if status.st_uid != entry.owner or not stat.S_ISREG(status.st_mode):
        name = os.fsdecode(entry.path)
        raise TempFail(f"{name} is not a file of the recipient's. (#4.2.1)")


def _check_same(status: os.stat_result, entry: _Entry) -> None:
    """Raises: _Replaced when the name is another file's now."""
    try:
        found = os.stat(entry.path, dir_fd=entry.home_fd)
    except FileNotFoundError:
        raise _Replaced from None
    if not os.path.samestat(found, status):
        raise _Replaced


def _lock(fd: int, deadline_mono: float) -> bool:
    """Lock the file, polling; False on a file system that has no locks.

    Raises: _Busy at the deadline.
    """
    wait_s = _POLL_FIRST_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left_s = deadline_mono - clock.mono()
            if left_s <= 0:
                raise _Busy from None
            time.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _POLL_MOST_S)
        except OSError:
            return False  # as qmail: mail must not stop where nothing can lock
        else:
            return True


def _append(fd: int, entry: _Entry) -> None:
    text = MboxText()
    pending = entry.prefix
    for chunk in entry.message.chunks():
        write_all(fd, pending + text.feed(chunk))
        pending = b""
    write_all(fd, pending + text.finish())


def _sync_parent(home_fd: int, path: bytes) -> None:
    parent = os.path.dirname(path) or b"."
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=home_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
