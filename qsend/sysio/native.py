"""What programs that must start fast need of `os`, which takes a while to load.

Source: os.fsencode, os.fsdecode, os.environ, os.path.isdir of Python; inode(7).
"""

from __future__ import annotations

import posix
import sys

S_ISUID = 0o4000
"""Mode bit of a setuid program; this and the next are the same on every Linux, and
loading `_stat` for them takes longer than all else here."""
_S_IFMT = 0o170000
_S_IFDIR = 0o040000
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


def to_bytes(text: str) -> bytes:
    """An argument, a path or a variable as the kernel has it; as os.fsencode."""
    return text.encode(_ENCODING, _ERRORS)


def to_text(raw: bytes) -> str:
    """The reverse; as os.fsdecode."""
    return raw.decode(_ENCODING, _ERRORS)


def read_environ() -> dict[str, str]:
    """A copy of the environment that the process was started with."""
    return {to_text(name): to_text(value) for name, value in posix.environ.items()}


def is_directory(path: str) -> bool:
    """Whether it is one, links followed; false when that cannot be known."""
    try:
        return posix.stat(path).st_mode & _S_IFMT == _S_IFDIR
    except (OSError, ValueError):
        return False
