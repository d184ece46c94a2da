"""One snapshot of the control directory: every file's name and content.

Must not: parse anything; see formats/control.py.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from qsend.core import family
from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.family import SECRETS
from qsend.formats import startwire
from qsend.formats.control import KNOWN
from qsend.formats.controllines import FILE_MAX
from qsend.formats.frames import frame
from qsend.sysio import sealed
from qsend.sysio.boundedread import read_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The control files as they were at one moment, kept by a process that forks.

    `files` maps names to content; `secrets`, of those in family.SECRETS, to
    descriptors that the snapshot owns and this process never reads.
    """

    files: Mapping[str, bytes]
    secrets: Mapping[str, int] = field(default_factory=dict)

    def descriptors_of(self, role: str) -> dict[str, int]:
        """The secrets that a role may know."""
        known = family.CONTROL_FILES[family.kind(role)]
        return {name: fd for name, fd in self.secrets.items() if name in known}

    def read_as(self, role: str) -> dict[str, bytes]:
        """In the child: all that its role may know; its descriptors are closed.

        Raises: OSError.
        """
        mine = self.descriptors_of(role)
        seen = family.visible(role, self.files, self.secrets.keys())
        seen |= _contents(mine)
        for fd in mine.values():
            os.close(fd)
        return seen

    def read_all(self) -> dict[str, bytes]:
        """Everything, for a child that parses and ends. Raises: OSError."""
        return {**self.files, **_contents(self.secrets)}

    def tell(
        self, role: str, generation: int, send: Callable[[bytes, int | None], None]
    ) -> None:
        """Send a running child what it may know; see startwire.

        Args:
            send: takes a frame, and a descriptor that it closes.
        """
        for name, fd in self.descriptors_of(role).items():
            send(frame(startwire.SECRET, name.encode()), os.dup(fd))
        seen = family.visible(role, self.files, self.secrets.keys())
        for part in startwire.render_controls(generation, seen):
            send(part, None)

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in self.secrets.values():
            os.close(fd)


def take_snapshot(home: str) -> Snapshot:
    """As `read_controls`, but the secret ones stay out of this process' memory.

    Raises: ConfigError.
    """
    files: dict[str, bytes] = {}
    secrets: dict[str, int] = {}

    def take(name: str, fd: int) -> bool:
        if name not in SECRETS:
            return _take_plainly(files, name, fd)
        copy = sealed.seal(fd, f"control/{name}", FILE_MAX)
        if copy is not None:
            secrets[name] = copy
        return copy is not None

    try:
        _each(home, take)
    except BaseException:
        Snapshot(files={}, secrets=secrets).close()
        raise
    return Snapshot(files=files, secrets=secrets)


def read_controls(home: str) -> dict[str, bytes]:
    """Name to content of every regular file in `home`/control.

    Names that start with a dot or end with `~` are an editor's and are left out, as
    are databases (`.cdb`), which are read where they are used, and what is no
    regular file and has no control's name either.
    Raises: ConfigError with every file that cannot be read or is longer than
        FILE_MAX; also when the directory itself cannot be read.
    """
    files: dict[str, bytes] = {}
    _each(home, lambda name, fd: _take_plainly(files, name, fd))
    return files


def read_for(role: str, home: str) -> dict[str, bytes]:
    """What a role without secrets may know, read by itself.

    No secret is opened: whether there is one can be seen by its name.
    Raises: ConfigError.
    """
    files: dict[str, bytes] = {}
    _each(home, lambda name, fd: _take_plainly(files, name, fd), leave=SECRETS)
    there = {name for name in SECRETS if os.path.lexists(f"{home}/control/{name}")}
    return family.visible(role, files, there)


def exposed(home: str) -> list[str]:
    """The secret control files that others than their owner may read."""
    found = []
    for name in sorted(SECRETS):
        try:
            mode = os.stat(os.path.join(home, "control", name)).st_mode
        except OSError:
            continue  # not there, or told by who reads it
        if mode & 0o077:
            found.append(name)
    return found


def _each(
    home: str,
    take: Callable[[str, int], bool],
    leave: Set[str] = frozenset(),
) -> None:
    """Open every control file but those in `leave` for `take`.

    Args:
        take: gets name and descriptor; False says that the file is too long.
    Raises: ConfigError with all that went wrong.
    """
    directory = os.path.join(home, "control")
    try:
        names = sorted(os.listdir(directory))
    except OSError as exc:
        raise ConfigError([_fault("", f"unreadable: {exc.strerror}")]) from exc
    faults: list[ConfigFault] = []
    for name in names:
        if name[0] == "." or name.endswith(("~", ".cdb")) or name in leave:
            continue
        try:
            fd = _open(os.path.join(directory, name), is_known=name in KNOWN | SECRETS)
            if fd is None:
                continue
            try:
                fits = take(name, fd)
            finally:
                os.close(fd)
        except OSError as exc:
            faults.append(_fault(name, f"unreadable: {exc.strerror}"))
            continue
        if not fits:
            faults.append(_fault(name, f"longer than {FILE_MAX} bytes"))
    if faults:
        raise ConfigError(faults)


def _fault(name: str, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{name}".rstrip("/"), line=0, problem=problem)


def _contents(secrets: Mapping[str, int]) -> dict[str, bytes]:
    return {name: sealed.content(fd) for name, fd in secrets.items()}


def _open(path: str, *, is_known: bool) -> int | None:
    """A descriptor of a regular file; None for what is left out."""
    # O_NONBLOCK: a FIFO in the directory must not hold up the whole tree.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if os.path.islink(path):
            raise
        return None  # removed since the listing: the same as never there
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    if is_known:
        # Its default would be in force, and nobody would know why.
        raise OSError(errno.EINVAL, "expected a regular file")
    return None


def _take_plainly(files: dict[str, bytes], name: str, fd: int) -> bool:
    with open(fd, "rb", closefd=False) as file:
        content = read_most(file.fileno(), FILE_MAX + 1)
    files[name] = content
    return len(content) <= FILE_MAX
