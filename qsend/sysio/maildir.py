"""Delivery into a maildir: written, synced, linked into new, new synced.

The file has no name before that of new where the file system can do so, and its link
is durable with that name (sysio/filesystem.py): that takes two directory changes less
and leaves no rubbish at a crash. Elsewhere it is written under a name in tmp.

Works by directory descriptors, so that many deliveries can be under way at once: no
chdir, umask or alarm, which they would share. The maildir must exist already,
with tmp and new.
Source: maildir(5), qmail-local.c maildir_child(). Unlike
qmail: no child per delivery, `new` is synced, names have microseconds, a counter
and a random part, `/` and `:` of the host name are escaped.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

from qsend.core.errors import TempFail
from qsend.formats.control import Durability
from qsend.sysio import clock
from qsend.sysio.durable import Steps
from qsend.sysio.filesystem import syncs_links_with_names
from qsend.sysio.messagefile import MessageFile

_LIMIT_S = 86400
"""Longest time one message may take to be written (qmail-local.c alarm)."""

_TRIES = 3
_Made = TypeVar("_Made")
_TEMPORARY = frozenset(
    {
        errno.EINTR, errno.ENOMEM, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN,
        errno.EBUSY, errno.ENFILE, errno.EMFILE, errno.ESTALE, errno.ENOLCK,
    }
)  # fmt: skip


def escape_host(host: str) -> bytes:
    r"""A host name fit for a file name: `/` is `\057`, `:` is `\072`; 64 bytes."""
    safe = os.fsencode(host).replace(b"/", b"\\057").replace(b":", b"\\072")
    return safe[:64] or b"localhost"


class Maildirs:
    """Delivers into any number of maildirs; one object per process."""

    def __init__(self, durability: Durability, host: str | None = None) -> None:
        """Make it after the fork: names carry the process number.

        `host` is the name in file names, default the machine's.
        """
        self._durability = durability
        self._tail = b"P%dR%b." % (os.getpid(), os.urandom(4).hex().encode())
        self._tail += escape_host(socket.gethostname() if host is None else host)
        self._count = itertools.count()
        # An unnamed file gets its name through /proc.
        self._has_proc = os.path.isdir("/proc/self/fd")
        self._syncs_links: dict[int, bool] = {}

    def deliver(
        self, home_fd: int, path: bytes, prefix: bytes, message: MessageFile
    ) -> Steps[None]:
        """Put `prefix` and the message into the maildir as one new file.

        Args:
            home_fd: the home; a relative `path` starts there.
            path: the maildir.
            prefix: the Return-Path and Delivered-To lines.
        Yields: what must be durable before it goes on.
        Raises: TempFail; then nothing is in new, except when only the last sync
            failed: the message is there, and may come again.
        """
        try:
            maildir_fd = os.open(
                path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=home_fd
            )
        except OSError as exc:
            code = "#4.3.0" if exc.errno in _TEMPORARY else "#4.2.1"
            raise TempFail(
                f"Unable to enter maildir {os.fsdecode(path)}: {exc.strerror}. ({code})"
            ) from exc
        try:
            yield from self._deliver(maildir_fd, prefix, message)
        except OSError as exc:
            raise TempFail(
                f"Unable to deliver into maildir {os.fsdecode(path)}:"
                f" {exc.strerror}. (#4.3.0)"
            ) from exc
        finally:
            os.close(maildir_fd)

    def _deliver(
        self, maildir_fd: int, prefix: bytes, message: MessageFile
    ) -> Steps[None]:
        if self._durability is not Durability.FULL:
            yield from self._store(maildir_fd, prefix, message)
            return
        # Opened first, so that a maildir without new fails before any work.
        new_fd = os.open(
            b"new", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=maildir_fd
        )
        try:
            yield from self._store(maildir_fd, prefix, message)
            yield new_fd
        finally:
            os.close(new_fd)

    def _store(
        self, maildir_fd: int, prefix: bytes, message: MessageFile
    ) -> Steps[None]:
        fd = self._open_unnamed(maildir_fd)
        if fd < 0:
            yield from self._store_named(maildir_fd, prefix, message)
            return
        try:
            yield from self._write(fd, prefix, message)
            source = b"/proc/self/fd/%d" % fd
            self._with_name(
                lambda name: os.link(
                    source, b"new/" + name, dst_dir_fd=maildir_fd, follow_symlinks=True
                )
            )
        finally:
            os.close(fd)

    def _open_unnamed(self, maildir_fd: int) -> int:
        """A new file in tmp's file system; -1 when there is none to be had so.

        Whatever the reason: the other way meets it again, and says it.
        """
        if not self._has_proc or not self._may_be_unnamed(maildir_fd):
            return -1
        flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
        try:
            return os.open(b"tmp", flags, 0o600, dir_fd=maildir_fd)
        except OSError:
            return -1

    def _may_be_unnamed(self, maildir_fd: int) -> bool:
        device = os.fstat(maildir_fd).st_dev
        known = self._syncs_links.get(device)
        if known is None:
            known = self._syncs_links[device] = syncs_links_with_names(device)
        return known

    def _store_named(
        self, maildir_fd: int, prefix: bytes, message: MessageFile
    ) -> Steps[None]:
        fd, name = self._with_name(lambda name: _create(maildir_fd, name))
        tmp_name = b"tmp/" + name
        try:
            try:
                yield from self._write(fd, prefix, message)
            finally:
                os.close(fd)
            os.link(
                tmp_name, b"new/" + name, src_dir_fd=maildir_fd, dst_dir_fd=maildir_fd
            )
        finally:
            try:
                os.unlink(tmp_name, dir_fd=maildir_fd)
            except OSError:
                pass  # what became of the delivery is decided; readers clean tmp

    def _with_name(self, make: Callable[[bytes], _Made]) -> _Made:
        """What `make` makes of a name that nobody has; a few are tried."""
        for _ in range(_TRIES - 1):
            try:
                return make(self._name())
            except FileExistsError:
                continue
        return make(self._name())

    def _name(self) -> bytes:
        seconds, rest_ns = divmod(clock.now_ns(), 1_000_000_000)
        return b"%d.M%06dQ%d%b" % (
            seconds,
            rest_ns // 1000,
            next(self._count),
            self._tail,
        )

    def _write(self, fd: int, prefix: bytes, message: MessageFile) -> Steps[None]:
        deadline_mono = clock.mono() + _LIMIT_S
        for piece in _pieces(prefix, message):
            write_all(fd, piece)
            if clock.mono() > deadline_mono:
                raise TempFail("Timeout while writing into the maildir. (#4.3.0)")
        if self._durability is not Durability.NONE:
            yield fd


def _create(maildir_fd: int, name: bytes) -> tuple[int, bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(b"tmp/" + name, flags, 0o600, dir_fd=maildir_fd), name


def _pieces(prefix: bytes, message: MessageFile) -> Iterator[bytes]:
    """The prefix joined to the first piece: one write for most messages."""
    chunks = message.chunks()
    yield prefix + next(chunks, b"")
    yield from chunks


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises: OSError."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
