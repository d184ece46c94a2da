"""Making the queue directory, and saying what is wrong with one.

Both follow formats/layout.py. Runs as root over directories that belong to other
accounts, so it follows no link and changes no file that has a second name.
Source: qmail instcheck.c, hier.c; queue_layout.md.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import assert_never

from qsend.core.errors import ConfigFault, Fatal
from qsend.core.model import SPLIT, Account, Accounts
from qsend.formats.layout import ENTRIES, QUEUE_FILES, Entry, Kind, Role
from qsend.formats.paths import SPLIT_DIRS, parse_messid
from qsend.sysio.inodegroups import scatter

_TYPES = {Kind.DIR: stat.S_IFDIR, Kind.FILE: stat.S_IFREG, Kind.FIFO: stat.S_IFIFO}
_SCATTERED = ("mess",)
"""Whose parts lie apart: where the inodes of all messages and envelopes are made."""
_ONE_DEVICE = (("pid", "mess", "aside"), ("intd", "todo", "aside"))
"""Directories between which files are linked."""

FAULTS_MAX = 50
"""verify_messages stops here: whoever has more has one cause for all."""


def create(home: str, accounts: Accounts) -> None:
    """Make the queue below `home`, or mend its owners and modes; idempotent.

    Contents are never touched, except that lock/tcpto gets its size.
    Raises: Fatal, naming the entry, when one cannot be made or is of the wrong
    type, or is a file with several names.
    """
    with contextlib.ExitStack() as opened:
        parents = {"": _kept(opened, home, os.O_DIRECTORY, None)}
        for entry in ENTRIES:
            owner = owner_of(entry.owner, accounts)
            for path in entry.paths():
                shown = _shown(path)
                parent, _, name = shown.rpartition("/")
                if parent not in parents:
                    parents[parent] = _kept(
                        opened, parent, os.O_DIRECTORY | os.O_NOFOLLOW, parents[""]
                    )
                try:
                    _make(parents[parent], name, entry, owner)
                except OSError as exc:
                    raise Fatal(f"unable to make {shown}: {exc.strerror}") from exc


def _kept(
    opened: contextlib.ExitStack, path: str, flags: int, dir_fd: int | None
) -> int:
    """A directory descriptor that `opened` closes."""
    try:
        fd = os.open(path, os.O_RDONLY | flags, dir_fd=dir_fd)
    except OSError as exc:
        raise Fatal(f"unable to open {path}: {exc.strerror}") from exc
    opened.callback(os.close, fd)
    return fd


def _make(parent: int, name: str, entry: Entry, owner: Account) -> None:
    try:
        match entry.kind:
            case Kind.DIR:
                os.mkdir(name, 0o700, dir_fd=parent)
                if name in _SCATTERED:
                    _scatter(parent, name)
            case Kind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=parent)
            case Kind.FILE:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                os.close(os.open(name, flags, 0o600, dir_fd=parent))
            case _:
                assert_never(entry.kind)
    except FileExistsError:
        pass  # _mend looks at what it is
    _mend(parent, name, entry, owner)


def _scatter(parent: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        scatter(fd)
    finally:
        os.close(fd)


def _mend(parent: int, name: str, entry: Entry, owner: Account) -> None:
    access = os.O_RDWR if entry.kind is Kind.FILE else os.O_RDONLY
    fd = os.open(name, access | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    try:
        found = os.fstat(fd)
        if stat.S_IFMT(found.st_mode) != _TYPES[entry.kind]:
            raise Fatal(f"{_shown(entry.path)} is not a {entry.kind.value}")
        if entry.kind is not Kind.DIR and found.st_nlink != 1:
            raise Fatal(f"{_shown(entry.path)} has {found.st_nlink} names")
        if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
            os.fchown(fd, owner.uid, owner.gid)
        if stat.S_IMODE(found.st_mode) != entry.mode:
            os.fchmod(fd, entry.mode)
        if entry.size is not None and found.st_size != entry.size:
            os.ftruncate(fd, entry.size)
    finally:
        os.close(fd)


def owner_of(role: Role, accounts: Accounts) -> Account:
    """The uid of a role, with the queue's group, which is that of qmailq."""
    match role:
        case Role.QMAILQ:
            uid = accounts.qmailq.uid
        case Role.QMAILR:
            uid = accounts.qmailr.uid
        case Role.QMAILS:
            uid = accounts.qmails.uid
        case _:
            assert_never(role)
    return Account(uid=uid, gid=accounts.qmailq.gid)


def verify(home: str, accounts: Accounts) -> list[ConfigFault]:
    """Everything that differs from the layout; empty when all is well.

    Looks at the fixed entries only; see verify_messages.
    """
    faults = entry_faults(home, accounts)
    if not faults:
        faults += _foreign_parts(home)
        faults += _device_faults(home)
    return faults


def entry_faults(home: str, accounts: Accounts) -> list[ConfigFault]:
    """The fixed entries that are missing or different: what `create` mends."""
    faults: list[ConfigFault] = []
    for entry in ENTRIES:
        owner = owner_of(entry.owner, accounts)
        for path in entry.paths():
            faults += _faults_of(os.path.join(home, "queue", path), path, entry, owner)
    return faults


def _faults_of(full: str, path: str, entry: Entry, owner: Account) -> list[ConfigFault]:
    try:
        found = os.lstat(full)
    except OSError as exc:
        return [_fault(path, f"expected a {entry.kind.value}: {exc.strerror}")]
    if stat.S_IFMT(found.st_mode) != _TYPES[entry.kind]:
        return [_fault(path, f"expected a {entry.kind.value}, found something else")]
    problems = []
    if found.st_uid != owner.uid:
        problems.append(f"expected owner {owner.uid}, found {found.st_uid}")
    if found.st_gid != owner.gid:
        problems.append(f"expected group {owner.gid}, found {found.st_gid}")
    mode = stat.S_IMODE(found.st_mode)
    if mode != entry.mode:
        problems.append(f"expected mode {entry.mode:04o}, found {mode:04o}")
    if entry.size is not None and found.st_size != entry.size:
        problems.append(f"expected {entry.size} bytes, found {found.st_size}")
    return [_fault(path, problem) for problem in problems]


def _foreign_parts(home: str) -> Iterator[ConfigFault]:
    """Subdirectories of another split: their messages would never be seen."""
    known = {str(number) for number in range(SPLIT)}
    for name in SPLIT_DIRS:
        for found in sorted(set(_names(home, name)) - known):
            yield _fault(f"{name}/{found}", f"expected only 0 to {SPLIT - 1} here")


def _device_faults(home: str) -> Iterator[ConfigFault]:
    for first, *others in _ONE_DEVICE:
        device = _device(home, first)
        for name in others:
            if _device(home, name) != device:
                yield _fault(name, f"expected the same file system as {first}")


def _device(home: str, name: str) -> int:
    return os.stat(os.path.join(home, "queue", name)).st_dev


def verify_messages(home: str, accounts: Accounts) -> list[ConfigFault]:
    """What is wrong with the files in the queue, at most FAULTS_MAX of them.

    Foreign names, files in the wrong subdirectory, of the wrong owner or type, or
    that run with privilege, and messages whose number is not their inode (a queue
    restored from a copy): qmail never reports these.
    Safe on a live queue. Raises: OSError when a directory cannot be read.
    """
    faults: list[ConfigFault] = []
    for fault in _message_faults(home, accounts):
        faults.append(fault)
        if len(faults) == FAULTS_MAX:
            break
    return faults


def _message_faults(home: str, accounts: Accounts) -> Iterator[ConfigFault]:
    owners = {
        file.path.partition("/")[0]: owner_of(file.owner, accounts).uid
        for file in QUEUE_FILES
    }
    for name in ("intd", "todo", "bounce"):
        for found in _names(home, name):
            yield from _file_faults(home, f"{name}/{found}", owners[name])
    for name in SPLIT_DIRS:
        for part in range(SPLIT):
            for found in _names(home, f"{name}/{part}"):
                messid = parse_messid(found)
                path = f"{name}/{part}/{found}"
                if messid is not None and messid % SPLIT != part:
                    yield _fault(path, f"expected in {name}/{messid % SPLIT}")
                else:
                    yield from _file_faults(home, path, owners[name])


def _file_faults(home: str, path: str, owner: int) -> Iterator[ConfigFault]:
    messid = parse_messid(os.path.basename(path))
    if messid is None:
        yield _fault(path, "expected a message number")
        return
    try:
        found = os.lstat(os.path.join(home, "queue", path))
    except FileNotFoundError:
        return  # delivered meanwhile
    if not stat.S_ISREG(found.st_mode):
        yield _fault(path, "expected a file, found something else")
        return
    if path.startswith("mess/") and found.st_ino != messid:
        yield _fault(path, f"expected the inode number, which is {found.st_ino}")
    if found.st_uid != owner:
        yield _fault(path, f"expected owner {owner}, found {found.st_uid}")
    if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
        yield _fault(path, "is setuid or setgid; nothing of qsend's is")


def _names(home: str, name: str) -> list[str]:
    return os.listdir(os.path.join(home, "queue", name))


def _fault(path: str, problem: str) -> ConfigFault:
    return ConfigFault(file=_shown(path), line=0, problem=problem)


def _shown(path: str) -> str:
    return "queue" if path == "." else f"queue/{path}"
