"""Reading at most so many bytes, without room for more than there are.

Python's read(n) asks for room for n at once: under a limit on memory it fails for a
small file, too.
"""

from __future__ import annotations

import posix

_PART = 65536


def read_most(fd: int, most: int) -> bytes:
    """What an open file holds from here on, but no more than `most` bytes.

    Raises: OSError.
    """
    content = part = posix.read(fd, min(_PART, most))
    while part and len(content) < most:
        part = posix.read(fd, min(_PART, most - len(content)))
        content += part
    return content
