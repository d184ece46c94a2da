"""One snapshot of the control directory: every file's name and content.

Must not: parse anything; see formats/control.py.
"""

from __future__ import annotations

import errno
import os
import stat

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.control import FILE_MAX, KNOWN

SECRET = ("sqlserver", "servercert.pem", "clientcert.pem", "smtpauth")
"""Controls that nobody but root may read."""


def read_controls(home: str) -> dict[str, bytes]:
    """Name to content of every regular file in `home`/control.

    Names that start with a dot or end with `~` are an editor's and are left out, as
    are databases (`.cdb`), which are read where they are used, and what is no
    regular file and has no control's name either.
    Raises: ConfigError with every file that cannot be read or is longer than
        FILE_MAX; also when the directory itself cannot be read.
    """
    directory = os.path.join(home, "control")
    try:
        names = sorted(os.listdir(directory))
    except OSError as exc:
        raise ConfigError([_fault("", f"unreadable: {exc.strerror}")]) from exc
    files: dict[str, bytes] = {}
    faults: list[ConfigFault] = []
    for name in names:
        if name[0] == "." or name.endswith(("~", ".cdb")):
            continue
        try:
            content = _read(os.path.join(directory, name), is_known=name in KNOWN)
        except OSError as exc:
            faults.append(_fault(name, f"unreadable: {exc.strerror}"))
            continue
        if content is not None and len(content) > FILE_MAX:
            faults.append(_fault(name, f"longer than {FILE_MAX} bytes"))
        elif content is not None:
            files[name] = content
    if faults:
        raise ConfigError(faults)
    return files


def exposed(home: str) -> list[str]:
    """The secret control files that others than their owner may read."""
    found = []
    for name in SECRET:
        try:
            mode = os.stat(os.path.join(home, "control", name)).st_mode
        except OSError:
            continue  # not there, or told by who reads it
        if mode & 0o077:
            found.append(name)
    return found


def _fault(name: str, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{name}".rstrip("/"), line=0, problem=problem)


def _read(path: str, *, is_known: bool) -> bytes | None:
    """At most FILE_MAX + 1 bytes; None for what is left out."""
    # O_NONBLOCK: a FIFO in the directory must not hold up the whole tree.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if os.path.islink(path):
            raise
        return None  # removed since the listing: the same as never there
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        if is_known:
            # Its default would be in force, and nobody would know why.
            raise OSError(errno.EINVAL, "expected a regular file")
        return None
    with open(fd, "rb") as file:
        return file.read(FILE_MAX + 1)
