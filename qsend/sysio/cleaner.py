"""Removing from mess, intd, todo and pid, and setting damaged messages aside.

The one place where messages end. A whole batch shares its syncs. The order is the
proof: `+mess` is the last to go, and goes only when the removal of intd/N and
todo/N is durable, so that after any crash a message is either whole or garbage
that the sweep takes, never one that would be delivered again or half.
Source: qmail-clean.c; queue_layout.md; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qsend.core.model import MessId
from qsend.formats.cleanwire import Aside, Foop, Request, Todo
from qsend.formats.control import Durability
from qsend.formats.paths import aside_name
from qsend.sysio.filecalls import FileCalls
from qsend.sysio.queuedirs import QueueDirs, dir_of
from qsend.sysio.spread import Spread, in_turn

OSSIFIED_S = 129600
"""Age at which a file that no writer finished is garbage: 36 hours, well over the
24 hours that a writer may take (qmail-clean.c OSSIFIED)."""

_SECOND_NS = 1_000_000_000
_ASIDE_MODE = 0o770
_REASON = "reason"


@dataclass(slots=True)
class _Work:
    """A request, and how far it has come."""

    request: Request
    is_ending: bool = False
    """Whether mess/N goes once the rest is durable."""
    error: int = 0


class Cleaner:
    """The removing side of one queue; one process at a time has one."""

    def __init__(
        self,
        path: str,
        level: Durability = Durability.FULL,
        calls: FileCalls = os,
        spread: Spread = in_turn,
    ) -> None:
        """Open the queue directory `path`.

        `level` may be changed at any time: FULL syncs directories, the others,
        like qmail, do not. `spread` carries out the removals of a batch.
        """
        self.level = level
        self._calls = calls
        self._spread = spread
        self._dirs = QueueDirs(path, calls)
        # Directories whose last sync failed: owed before any mess/N may go.
        self._owed: set[str] = set()

    def close(self) -> None:
        """Give back the directory descriptors."""
        self._dirs.close()

    def work(self, batch: Sequence[Request]) -> list[int]:
        """Do every request; for each, 0 or the errno of what failed.

        Requests for one number are done in order. When a sync fails, no mess/N
        goes and every request that shared it fails.
        """
        of_number: dict[MessId, list[_Work]] = {}
        works = [_Work(request) for request in batch]
        for work in works:
            of_number.setdefault(work.request.messid, []).append(work)
        groups = list(of_number.values())
        # What sets aside syncs by itself, which one thread does at a time.
        is_plain = not any(isinstance(request, Aside) for request in batch)
        spread = self._spread if is_plain else in_turn
        changed = set(self._owed).union(*spread(self._begin, groups))
        try:
            self._sync(changed)
        except OSError as exc:
            code = exc.errno or errno.EIO
            for work in works:
                if not isinstance(work.request, Aside):
                    work.error = work.error or code
        else:
            spread(self._end, groups)
        return [work.error for work in works]

    def sweep_pid(self, now: int) -> int:
        """Remove what writers left in pid/ over OSSIFIED_S ago; how many.

        Age is the later of mtime and ctime (qmail: atime, which a backup moves).
        Raises: OSError.
        """
        removed = 0
        fd = self._dirs.fd("pid")
        for name in self._dirs.names("pid"):
            try:
                found = self._calls.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            touched = max(found.st_mtime_ns, found.st_ctime_ns) // _SECOND_NS
            if now >= touched + OSSIFIED_S:
                removed += self._dirs.unlink(name, fd)
        return removed

    def _begin(self, works: list[_Work]) -> set[str]:
        """What comes before the shared sync, for one number; what must be synced."""
        changed: set[str] = set()
        for work in works:
            try:
                work.is_ending = self._prepare(work.request, changed)
            except OSError as exc:
                work.error = exc.errno or errno.EIO
        return changed

    def _end(self, works: list[_Work]) -> None:
        """What comes after it; the number is unlinked once, for it may be a new
        message's then.
        """
        ending = [work for work in works if work.is_ending]
        if ending:
            code = self._unlink_mess(ending[0].request.messid)
            for work in ending:
                work.error = code

    def _prepare(self, request: Request, changed: set[str]) -> bool:
        """Everything that comes before the shared sync; whether mess/N goes after."""
        match request:
            case Todo():
                self._unlink_names(("intd", "todo"), request.messid, changed)
                return False
            case Aside():
                self._set_aside(request)
                return False
            case Foop(identity=None, orphan=False):
                self._unlink_names(("intd",), request.messid, changed)
                return True
            case Foop():
                if not self._is_meant(request):
                    return False
                self._unlink_names(("intd", "todo"), request.messid, changed)
                return True

    def _is_meant(self, foop: Foop) -> bool:
        """Whether mess/N is the file meant; False when there is none.

        While it exists nobody else can get its number, and only this process
        removes it, so the answer holds until we do.
        Raises: OSError ESTALE when it is another file.
        """
        try:
            found = self._calls.stat(
                str(foop.messid),
                dir_fd=self._dirs.of("mess", foop.messid),
                follow_symlinks=False,
            )
        except FileNotFoundError:
            # A number without a file may be given out at any moment: what intd/N
            # then is cannot be known, and who gets the number removes stale ones.
            return False
        meant = foop.identity
        if meant and (found.st_mtime_ns, found.st_size) != (meant.mtime_ns, meant.size):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if foop.orphan and self._dirs.exists(str(foop.messid), self._dirs.fd("todo")):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return True

    def _unlink_names(
        self, names: Iterable[str], messid: MessId, changed: set[str]
    ) -> None:
        """Remove N from flat directories, in order; stop at the first failure."""
        for name in names:
            if self._dirs.unlink(str(messid), self._dirs.fd(name)):
                changed.add(name)

    def _unlink_mess(self, messid: MessId) -> int:
        try:
            self._dirs.unlink(str(messid), self._dirs.of("mess", messid))
        except OSError as exc:
            return exc.errno or errno.EIO
        return 0

    def _sync(self, names: Iterable[str]) -> None:
        """Make changed directories durable, intd before todo."""
        todo = sorted(names)
        if self.level is Durability.FULL:
            self._owed.update(todo)
            for name in todo:
                self._calls.fsync(self._dirs.fd(name))
                self._owed.discard(name)

    # aside/

    def _set_aside(self, aside: Aside) -> None:
        """Link everything of N into a directory of its own, then remove it here.

        In this order each crash leaves all of it in at least one place, and as
        long as the copy of mess/N lives nobody gets its number.
        """
        messid = aside.messid
        target = self._open_aside(aside_name(messid, aside.stamp))
        try:
            self._write_reason(target, aside.reason)
            for kind in ("mess", "intd", "todo"):
                self._link_aside(kind, messid, target)
            if self.level is not Durability.NONE:
                self._calls.fsync(target)
                self._calls.fsync(self._dirs.fd("aside"))
        finally:
            self._calls.close(target)
        changed: set[str] = set()
        self._unlink_names(("intd", "todo"), messid, changed)
        self._sync(changed)
        if self._dirs.unlink(str(messid), self._dirs.of("mess", messid)):
            self._sync([dir_of("mess", messid)])

    def _open_aside(self, name: str) -> int:
        inside = self._dirs.fd("aside")
        try:
            self._calls.mkdir(name, 0o700, dir_fd=inside)
        except FileExistsError:
            pass  # the same request again, after an error
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = self._calls.open(name, flags, dir_fd=inside)
        # send, in the group, moves its own files in; the umask must not say no.
        self._calls.fchmod(fd, _ASIDE_MODE)
        return fd

    def _write_reason(self, fd: int, reason: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        text = self._calls.open(_REASON, flags, 0o644, dir_fd=fd)
        try:
            self._dirs.write_all(text, reason + b"\n")
            if self.level is not Durability.NONE:
                self._calls.fsync(text)
        finally:
            self._calls.close(text)

    def _link_aside(self, kind: str, messid: MessId, target: int) -> None:
        source = self._dirs.of(kind, messid)
        try:
            self._calls.link(
                str(messid),
                kind,
                src_dir_fd=source,
                dst_dir_fd=target,
                follow_symlinks=False,
            )
        except (FileNotFoundError, FileExistsError):
            pass  # not there; or the same request again
        except PermissionError:
            # A directory, or another account's file, takes no second name.
            self._calls.rename(str(messid), kind, src_dir_fd=source, dst_dir_fd=target)
