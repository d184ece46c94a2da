"""What a file holds, kept in an unnamed file in memory that nobody can change.

Whoever makes it never has the content among its own memory, where every process
that it forks would inherit it; whoever is given the descriptor can read it.
Source: memfd_create(2), sendfile(2), F_ADD_SEALS in fcntl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os

_SEALS = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
)


def seal(source: int, name: str, most: int) -> int | None:
    """A descriptor with the content of the regular file `source`.

    Args:
        source: open for reading; its offset stays.
        name: what /proc shows.
        most: the greatest length in bytes.
    Returns: a descriptor that the caller owns; None for a longer file.
    Raises: OSError.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        length = 0
        while sent := os.sendfile(fd, source, length, most + 1 - length):
            length += sent
        if length <= most:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def content(fd: int) -> bytes:
    """The whole content. Other processes share the offset: it is not used.

    Raises: OSError.
    """
    size = os.fstat(fd).st_size
    found = os.pread(fd, size, 0)
    if len(found) != size:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return found
