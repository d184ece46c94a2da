"""The system calls that the queue is worked with, as a seam for tests.

`os` itself is the real implementation; tests/fakes.py has one in memory that
knows which of its changes are durable. Every call raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Listed(Protocol):
    """One entry of a directory."""

    @property
    def name(self) -> str:
        """Its name, without the directory."""


class FileCalls(Protocol):
    """What queue code needs of a file system; see the manual of each call."""

    def open(
        self, path: str, flags: int, mode: int = ..., /, *, dir_fd: int | None = ...
    ) -> int:
        """open(2): a descriptor, closed on exec."""

    def close(self, fd: int, /) -> None:
        """close(2)."""

    def fstat(self, fd: int, /) -> os.stat_result:
        """fstat(2)."""

    def stat(
        self, path: str, /, *, dir_fd: int | None = ..., follow_symlinks: bool = ...
    ) -> os.stat_result:
        """fstatat(2)."""

    def read(self, fd: int, length: int, /) -> bytes:
        """read(2)."""

    def pread(self, fd: int, length: int, offset: int, /) -> bytes:
        """pread(2)."""

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        """write(2)."""

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        """pwrite(2)."""

    def fsync(self, fd: int, /) -> None:
        """fsync(2)."""

    def fchmod(self, fd: int, mode: int, /) -> None:
        """fchmod(2)."""

    def ftruncate(self, fd: int, length: int, /) -> None:
        """ftruncate(2)."""

    def mkdir(self, path: str, mode: int = ..., /, *, dir_fd: int | None = ...) -> None:
        """mkdirat(2)."""

    def link(
        self,
        src: str,
        dst: str,
        /,
        *,
        src_dir_fd: int | None = ...,
        dst_dir_fd: int | None = ...,
        follow_symlinks: bool = ...,
    ) -> None:
        """linkat(2)."""

    def rename(
        self,
        src: str,
        dst: str,
        /,
        *,
        src_dir_fd: int | None = ...,
        dst_dir_fd: int | None = ...,
    ) -> None:
        """renameat(2)."""

    def unlink(self, path: str, /, *, dir_fd: int | None = ...) -> None:
        """unlinkat(2)."""

    def utime(
        self,
        path: int | str,
        /,
        *,
        ns: tuple[int, int],
        dir_fd: int | None = ...,
        follow_symlinks: bool = ...,
    ) -> None:
        """utimensat(2) and futimens(2)."""

    def scandir(self, path: int, /) -> AbstractContextManager[Iterator[Listed]]:
        """The entries of an open directory."""
