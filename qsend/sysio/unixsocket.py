"""SEQPACKET unix sockets with a path: listening and connecting.

A path may be longer than the 107 bytes that the kernel takes.
Source: unix(7).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from qsend.core.errors import Fatal
from qsend.core.model import Account

_PATH_MAX = 107

BACKLOG = 128
"""Clients that wait to be accepted; more wait in connect(2), of each process one.
Thousands would let a single process that connects, dies and connects again put
seconds of dead clients before everybody else."""


def listen_at(path: str, mode: int, owner: Account | None = None) -> socket.socket:
    """A listening socket at `path`, replacing what a dead process left there.

    Nobody but this process' user can connect before owner and mode are set.
    Raises: Fatal.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    old_mask = os.umask(0o177)
    try:
        with _short(path) as name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sock.bind(name)
        if owner is not None and os.geteuid() == 0:
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise Fatal(f"cannot listen at {path}: {exc.strerror}") from exc
    finally:
        os.umask(old_mask)
    return sock


def connect_to(path: str) -> socket.socket:
    """A socket connected to the listener at `path`.

    Raises: OSError, untranslated: FileNotFoundError and ConnectionRefusedError
        mean that nobody listens, PermissionError that the caller may not.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """A name for `path` that fits into an address."""
    if len(os.fsencode(path)) <= _PATH_MAX:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Take the name away, so that nobody tries to connect."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
