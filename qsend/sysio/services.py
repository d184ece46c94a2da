"""Service directories and units on disk: written when they are ours, kept when not.

Source: svscan(8), supervise(8), systemd.unit(5); qsend/formats makes the texts.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.sysio.launchers import replace

_TOOL_PATH = "/usr/bin:/usr/local/bin:/command:/bin"
"""Where daemontools and ucspi-tcp are: Debian's, a howto's, their author's."""
_READ_MAX = 1 << 16
"""More than any file of ours is long."""


def find_tools(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Name to path of each program, and those that are not there.

    These get the path of howtos, and can be installed later.
    """
    found = {name: shutil.which(name, path=_TOOL_PATH) for name in names}
    missing = [name for name, path in found.items() if path is None]
    return {name: path or f"/usr/local/bin/{name}" for name, path in found.items()}, (
        missing
    )


def install(
    directory: str, files: Mapping[str, str], mark: str, mode: int, owner: Account
) -> list[str]:
    """Write the files below `directory` whose directories exist.

    One that is there without `mark` is somebody's own and stays.

    Returns: the names of those that stay.
    Raises: Fatal, naming the file.
    """
    kept = []
    for name, text in files.items():
        path = f"{directory}/{name}"
        try:
            found = _read(path)
            if found is not None and mark.encode() not in found:
                kept.append(name)
            elif found != text.encode() or _mode(path) != mode:
                replace(path, text.encode(), mode, owner)
        except OSError as exc:
            raise Fatal(f"unable to write {path}: {exc.strerror}") from exc
    return kept


def withdraw(path: str, mark: str) -> bool:
    """Remove a file of ours that is of no use any more; whether it was there.

    Raises: Fatal.
    """
    try:
        found = _read(path)
        if found is None or mark.encode() not in found:
            return False
        os.unlink(path)
    except OSError as exc:
        raise Fatal(f"unable to remove {path}: {exc.strerror}") from exc
    return True


def make_directory(path: str, mode: int, owner: Account) -> bool:
    """Make a directory, and those above it; whether it was missing.

    One that is there stays as it is. Raises: Fatal.
    """
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mkdir(path, 0o700)
        os.chown(path, owner.uid, owner.gid)
        os.chmod(path, mode)
    except FileExistsError:
        if os.path.isdir(path):
            return False
        raise Fatal(f"unable to make {path}: expected a directory") from None
    except OSError as exc:
        raise Fatal(f"unable to make {path}: {exc.strerror}") from exc
    return True


def set_sticky(path: str) -> None:
    """Mark a service directory as one with a log, as svscan wants it. Raises: Fatal."""
    try:
        mode = _mode(path)
        if not mode & stat.S_ISVTX:
            os.chmod(path, mode | stat.S_ISVTX)
    except OSError as exc:
        raise Fatal(f"unable to change {path}: {exc.strerror}") from exc


def owner_of(path: str) -> int:
    """The uid that a directory belongs to. Raises: Fatal."""
    try:
        return os.stat(path).st_uid
    except OSError as exc:
        raise Fatal(f"unable to look at {path}: {exc.strerror}") from exc


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_READ_MAX)
    except FileNotFoundError:
        return None
