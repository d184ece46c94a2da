"""Mending a queue that nobody works on, as core/repair has planned.

Each part of a plan is durable before the next one starts, and a file is always
reached by one name at least: after a cut anywhere the same repair, run again, goes
on from what it finds. Nothing is overwritten, nothing deleted but what was never
accepted.
Source: queue_layout.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from qsend.core.errors import TempFail
from qsend.core.model import Account, MessId
from qsend.core.repair import (
    OSSIFIED_S,
    Aside,
    Found,
    Plan,
    Remove,
    Renumber,
    final_path,
    group,
    plan,
    staged_path,
)
from qsend.formats.layout import QUEUE_FILES, Role
from qsend.formats.paths import aside_name
from qsend.sysio.filecalls import FileCalls
from qsend.sysio.queuedirs import QueueDirs
from qsend.sysio.queuescan import Scan, Scanner, find_damage

_ASIDE_MODE = 0o770
_REASON_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_ANY_GROUP = frozenset({"mess", "intd", "todo"})
"""A foreign qmail-queue, setuid only, leaves them in the group of who called it."""
_TAKEN_AWAY = (("info",), ("local", "remote", "bounce"), ("intd", "todo"), ("mess",))
"""Without info the recipients are nobody's; without todo the envelope is garbage."""


class RepairCalls(FileCalls, Protocol):
    """What a repair needs besides."""

    def fchown(self, fd: int, uid: int, gid: int, /) -> None:
        """fchown(2)."""

    def rmdir(self, path: str, /, *, dir_fd: int | None = ...) -> None:
        """unlinkat(2) with AT_REMOVEDIR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owning:
    """Files of one kind get this owner and mode; `gid` is -1 where any will do."""

    kind: str
    uid: int
    gid: int
    mode: int
    paths: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is wrong, and what is to be done; nothing is changed yet."""

    plan: Plan
    ownings: Sequence[Owning]
    old_pid: Sequence[str]
    parts: Sequence[str]
    foreign: Sequence[str]
    shared: Sequence[str]
    """Files with names outside the queue: their owner and mode are left alone."""

    def is_clean(self) -> bool:
        """Whether there is nothing to do."""
        return self.plan.is_empty() and not (self.ownings or self.old_pid or self.parts)


class Repairer:
    """Repairs one queue; who makes it has locked the queue."""

    def __init__(
        self,
        path: str,
        owners: Mapping[Role, Account],
        calls: RepairCalls = os,
    ) -> None:
        """Open the queue directory `path`, whose directories are all there."""
        self._owners = owners
        self._calls = calls
        self._dirs = QueueDirs(path, calls)

    def close(self) -> None:
        """Give back the directory descriptors."""
        self._dirs.close()

    def survey(self, now: int, *, take_orphans: bool = False) -> Survey:
        """Look at everything. Raises: OSError."""
        scan = Scanner(self._dirs).scan()
        messages, asides = group(scan.found)
        to_read = [file for message in messages for file in message.to_read()]
        damage = find_damage(self._dirs, scan.found, to_read)
        planned = plan(messages, asides, damage, now, take_orphans=take_orphans)
        ownings, shared = self._ownings(scan, _leaving(planned))
        return Survey(
            plan=planned,
            ownings=ownings,
            old_pid=[
                path
                for path, touched in scan.pid.items()
                if take_orphans or now - touched > OSSIFIED_S
            ],
            parts=scan.parts,
            foreign=scan.foreign,
            shared=shared,
        )

    def mend(self, survey: Survey, now: int) -> None:
        """Do it all.

        Raises: TempFail, naming the file, when a step fails; what was done is done,
        and the rest is found by the next survey.
        """
        for owning in survey.ownings:
            for path in owning.paths:
                with _naming(path):
                    self._own(path, owning)
        todo = survey.plan
        for aside in todo.asides:
            self._set_aside(aside, now)
        self._remove(todo.removes, todo.drops)
        self._move([(file.path, where) for file, where in todo.moves])
        self._renumber(todo.renumbers)
        for path in survey.old_pid:
            self._unlink(path)
        for path in survey.parts:
            self._remove_part(path)

    # owners and modes

    def _ownings(
        self, scan: Scan, leaving: frozenset[str]
    ) -> tuple[list[Owning], list[str]]:
        """What has the wrong owner or mode, by kind; and what must not be touched."""
        wrong: dict[str, list[str]] = {}
        shared = []
        wants = self._wants()
        for each in scan.found:
            found = scan.permissions.get(each.path)
            if found is None or each.path in leaving:
                continue
            want = wants[each.kind]
            if (found.uid, found.mode) == (want.uid, want.mode) and (
                want.gid in (-1, found.gid)
            ):
                continue
            # root must not give away a file that somebody has linked in here.
            if found.links > scan.names[each.device, each.inode]:
                shared.append(each.path)
            else:
                wrong.setdefault(each.kind, []).append(each.path)
        ownings = [
            Owning(kind=kind, uid=want.uid, gid=want.gid, mode=want.mode, paths=paths)
            for kind, paths in wrong.items()
            for want in (wants[kind],)
        ]
        return ownings, shared

    def _wants(self) -> dict[str, Owning]:
        wants = {}
        for file in QUEUE_FILES:
            kind = file.path.partition("/")[0]
            owner = self._owners[file.owner]
            gid = -1 if kind in _ANY_GROUP else owner.gid
            wants[kind] = Owning(
                kind=kind, uid=owner.uid, gid=gid, mode=file.mode, paths=()
            )
        return wants

    def _own(self, path: str, want: Owning) -> None:
        directory, _, name = path.rpartition("/")
        fd, _size, _mtime = self._dirs.open_regular(
            name, os.O_RDONLY, self._dirs.fd(directory)
        )
        try:
            found = self._calls.fstat(fd)
            if found.st_uid != want.uid or want.gid not in (-1, found.st_gid):
                self._calls.fchown(fd, want.uid, want.gid)
            self._calls.fchmod(fd, want.mode)
        finally:
            self._calls.close(fd)

    # aside/

    def _set_aside(self, aside: Aside, now: int) -> None:
        """Link everything there, durably; then take it out of the queue, mess last."""
        inside = self._dirs.fd("aside")
        name = self._aside_directory(aside.number, now)
        target = self._calls.open(name, _OPEN_DIR, dir_fd=inside)
        try:
            owner = self._owners[Role.QMAILQ]
            found = self._calls.fstat(target)
            if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
                self._calls.fchown(target, owner.uid, owner.gid)
            self._calls.fchmod(target, _ASIDE_MODE)
            self._write_reason(target, aside.reason)
            for file in aside.files:
                with _naming(file.path):
                    self._link(file, target)
            self._calls.fsync(target)
            self._calls.fsync(inside)
        finally:
            self._calls.close(target)
        self._take_away([file.path for file in aside.files if file.is_file])

    def _aside_directory(self, number: int, now: int) -> str:
        """A directory of its own: one number may be set aside twice in a second."""
        inside = self._dirs.fd("aside")
        while True:
            name = aside_name(MessId(number), now)
            try:
                self._calls.mkdir(name, 0o700, dir_fd=inside)
            except FileExistsError:
                now += 1
            else:
                return name

    def _write_reason(self, target: int, reason: str) -> None:
        fd = self._calls.open("reason", _REASON_FLAGS, 0o644, dir_fd=target)
        try:
            self._dirs.write_all(fd, reason.encode("ascii", "replace") + b"\n")
            self._calls.fsync(fd)
        finally:
            self._calls.close(fd)

    def _link(self, file: Found, target: int) -> None:
        directory, _, name = file.path.rpartition("/")
        source = self._dirs.fd(directory)
        if file.is_file:
            self._calls.link(
                name,
                file.kind,
                src_dir_fd=source,
                dst_dir_fd=target,
                follow_symlinks=False,
            )
        else:  # a directory takes no second name
            self._calls.rename(name, file.kind, src_dir_fd=source, dst_dir_fd=target)

    # removing

    def _remove(self, removes: Sequence[Remove], drops: Sequence[Found]) -> None:
        paths = [file.path for remove in removes for file in remove.files]
        self._take_away([*(file.path for file in drops), *paths])

    def _take_away(self, paths: Sequence[str]) -> None:
        """Remove names in an order that leaves nothing deliverable, mess last."""
        for kinds in _TAKEN_AWAY:
            some = [path for path in paths if path.partition("/")[0] in kinds]
            for path in some:
                self._unlink(path)
            self._sync(map(_directory, some))

    def _unlink(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        with _naming(path):
            self._dirs.unlink(name, self._dirs.fd(directory))

    def _remove_part(self, path: str) -> None:
        """Remove a foreign subdirectory if it is empty by now."""
        directory, _, name = path.rpartition("/")
        try:
            self._calls.rmdir(name, dir_fd=self._dirs.fd(directory))
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise TempFail(f"{path}: {exc.strerror}") from exc

    # renaming

    def _renumber(self, renumbers: Sequence[Renumber]) -> None:
        """`N` to `+M` in all directories, mess last; then to `M`, mess first.

        Only when all of one step are durable the next begins: a number may be
        another message's old one.
        """
        staging = [
            (file.path, staged_path(file.kind, each.target))
            for each in renumbers
            for file in each.files
            if not file.is_staged
        ]
        ending = [
            (
                file.path if file.is_staged else staged_path(file.kind, each.target),
                final_path(file.kind, each.target),
            )
            for each in renumbers
            for file in each.files
        ]
        self._move([pair for pair in staging if not _is_mess(pair)])
        self._move([pair for pair in staging if _is_mess(pair)])
        self._move([pair for pair in ending if _is_mess(pair)])
        self._move([pair for pair in ending if not _is_mess(pair)])

    def _move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Rename, never onto a name that is there, and make it durable."""
        for old, new in pairs:
            with _naming(old):
                self._rename(old, new)
        self._sync(_directory(path) for pair in pairs for path in pair)

    def _rename(self, old: str, new: str) -> None:
        (from_directory, _, from_name) = old.rpartition("/")
        (to_directory, _, to_name) = new.rpartition("/")
        target = self._dirs.fd(to_directory)
        if self._dirs.exists(to_name, target):
            raise FileExistsError(errno.EEXIST, f"{new} is in the way")
        self._calls.rename(
            from_name,
            to_name,
            src_dir_fd=self._dirs.fd(from_directory),
            dst_dir_fd=target,
        )

    def _sync(self, directories: Iterable[str]) -> None:
        for directory in sorted(set(directories)):
            with _naming(directory):
                self._calls.fsync(self._dirs.fd(directory))


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """A step whose failure names its file."""
    try:
        yield
    except OSError as exc:
        raise TempFail(f"{path}: {exc.strerror}") from exc


def _leaving(todo: Plan) -> frozenset[str]:
    """The files that will be gone."""
    gone = list(todo.drops)
    for aside in todo.asides:
        gone += aside.files
    for remove in todo.removes:
        gone += remove.files
    return frozenset(file.path for file in gone)


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _is_mess(pair: tuple[str, str]) -> bool:
    return pair[0].startswith("mess/")
