"""Everything that lies in a queue that nobody works on, right or wrong.

Looks also where no file belongs: subdirectories of another split, envelopes in
subdirectories (the big-todo patches), messages without any. Changes nothing.
Source: qmail fmtqfn.c, readsubdir.c; queue_layout.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from qsend.core.errors import QueueCorrupt
from qsend.core.model import SPLIT
from qsend.core.repair import SPLIT_KINDS, Found
from qsend.core.states import FILES
from qsend.formats.info import INFO_MAX, parse_info
from qsend.formats.paths import parse_messid
from qsend.formats.recips import parse_recips
from qsend.formats.todo import parse_todo
from qsend.sysio.filecalls import FileCalls
from qsend.sysio.fsq import RECIPS_MAX, TODO_MAX
from qsend.sysio.queuedirs import QueueDirs

STAGED = "+"
"""Begins the name of a file that is being renumbered; no number, so that qmail and
qsend pass it over."""
PARTS_MAX = 1000
"""A directory of a smaller number is a subdirectory, not a damaged message; nobody
has a conf-split as large."""

_SECOND_NS = 1_000_000_000
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Who owns a file; `links` counts its names."""

    uid: int
    gid: int
    mode: int
    links: int


@dataclass(slots=True)
class Scan:
    """What was found.

    `permissions` has every regular file by path. `names` counts the names found of
    each (device, inode). `foreign` are paths nobody can say anything about, `parts`
    subdirectories that should not be there, `pid` the files of pid/ with the time
    they were last touched.
    """

    found: list[Found]
    permissions: dict[str, Permissions]
    names: dict[tuple[int, int], int]
    foreign: list[str]
    parts: list[str]
    pid: dict[str, int]


class Scanner:
    """Reads one queue through its directory descriptors."""

    def __init__(self, dirs: QueueDirs) -> None:
        self._dirs = dirs
        self._calls: FileCalls = dirs.calls
        self._scan = Scan([], {}, {}, [], [], {})

    def scan(self) -> Scan:
        """Look at everything once; a directory that is missing is empty.

        Raises: OSError when something cannot be seen.
        """
        for kind in FILES:
            self._kind(kind)
        for name in self._names("pid"):
            found = self._stat("pid", name)
            self._scan.pid[f"pid/{name}"] = _touched(found)
            self._count(found)
        return self._scan

    def _kind(self, kind: str) -> None:
        parts = []
        for name in self._names(kind):
            found = self._stat(kind, name)
            if stat.S_ISDIR(found.st_mode) and _is_part(name):
                parts.append(name)
            else:
                self._entry(kind, f"{kind}/{name}", name, found)
        for part in parts:
            directory = f"{kind}/{part}"
            if kind not in SPLIT_KINDS or int(part) >= SPLIT or str(int(part)) != part:
                self._scan.parts.append(directory)
            for name in self._names(directory):
                found = self._stat(directory, name)
                self._entry(kind, f"{directory}/{name}", name, found)

    def _entry(self, kind: str, path: str, name: str, found: os.stat_result) -> None:
        number = parse_messid(name.removeprefix(STAGED))
        if number is None:
            self._scan.foreign.append(path)
            return
        self._count(found)
        is_file = stat.S_ISREG(found.st_mode)
        if is_file:
            self._scan.permissions[path] = Permissions(
                uid=found.st_uid,
                gid=found.st_gid,
                mode=stat.S_IMODE(found.st_mode),
                links=found.st_nlink,
            )
        self._scan.found.append(
            Found(
                kind=kind,
                path=path,
                number=number,
                is_staged=name.startswith(STAGED),
                device=found.st_dev,
                inode=found.st_ino,
                is_file=is_file,
                size=found.st_size,
                touched=_touched(found),
            )
        )

    def _count(self, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        self._scan.names[key] = self._scan.names.get(key, 0) + 1

    def _names(self, directory: str) -> list[str]:
        try:
            return sorted(self._dirs.names(directory))
        except FileNotFoundError:
            return []

    def _stat(self, directory: str, name: str) -> os.stat_result:
        return self._calls.stat(
            name, dir_fd=self._dirs.fd(directory), follow_symlinks=False
        )


def _touched(found: os.stat_result) -> int:
    return max(found.st_mtime_ns, found.st_ctime_ns) // _SECOND_NS


def _is_part(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name[:9]) < PARTS_MAX


def find_damage(
    dirs: QueueDirs, everything: Iterable[Found], to_read: Iterable[Found]
) -> dict[str, str]:
    """Path to reason for each of `to_read` that is of no use, and for what is no file.

    Raises: OSError when a file cannot be read: its content is not known then.
    """
    damage = {
        each.path: f"{each.kind} is not a regular file"
        for each in everything
        if not each.is_file
    }
    for each in to_read:
        if each.path not in damage:
            try:
                _check(dirs, each)
            except QueueCorrupt as exc:
                damage[each.path] = f"{each.kind}: {exc}"
    return damage


def _check(dirs: QueueDirs, each: Found) -> None:
    """Raises: QueueCorrupt when the content cannot be what the file is for."""
    if each.kind == "mess" and each.size == 0:
        # Every message begins with its Received line.
        raise QueueCorrupt("empty, so its content is lost")
    if each.kind not in _CHECKS:
        return
    limit, parse = _CHECKS[each.kind]
    if each.size > limit:
        raise QueueCorrupt(f"{each.size} bytes")
    parse(_read(dirs, each))


def _read(dirs: QueueDirs, each: Found) -> bytes:
    directory, _, name = each.path.rpartition("/")
    calls = dirs.calls
    fd, _size, _mtime_ns = dirs.open_regular(name, os.O_RDONLY, dirs.fd(directory))
    try:
        return b"".join(iter(lambda: calls.read(fd, _READ_BYTES), b""))
    finally:
        calls.close(fd)


def _parse_channel(content: bytes) -> None:
    _exhaust(parse_recips(content))


def _exhaust(records: Iterator[object]) -> None:
    for _ in records:
        pass


_CHECKS: Mapping[str, tuple[int, Callable[[bytes], object]]] = {
    "todo": (TODO_MAX, parse_todo),
    "info": (INFO_MAX, parse_info),
    "local": (RECIPS_MAX, _parse_channel),
    "remote": (RECIPS_MAX, _parse_channel),
}
