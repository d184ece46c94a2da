"""lock/trigger: the FIFO by which a foreign qmail-queue says "look into todo".

A pull writes one byte. The reader never counts bytes: before each scan of todo/
it closes and reopens the FIFO, so pulls from before are forgotten and pulls
after it are seen. A pull that meets a closed FIFO is covered by that scan.
Source: qmail trigger.c, triggerpull.c; queue_layout.md.
"""

from __future__ import annotations

import os


class Trigger:
    """The reading end. Unregister `fileno()` from the loop before `reset`."""

    def __init__(self, path: str) -> None:
        """Open the FIFO at `path`. Raises: OSError."""
        self._path = path
        self._fds: tuple[int, ...] = ()
        self._open()

    def fileno(self) -> int:
        """The descriptor that is readable after a pull; another after a reset."""
        return self._fds[0]

    def reset(self) -> None:
        """Forget all pulls so far. Raises: OSError; the FIFO is then closed."""
        self.close()
        self._open()

    def close(self) -> None:
        """Stop listening; harmless when closed already."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def _open(self) -> None:
        reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            # With a writer of our own the FIFO never reports a hang-up.
            writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            os.close(reader)
            raise
        self._fds = (reader, writer)


def pull(path: str) -> None:
    """Wake whoever listens at `path`; nobody listening, or no FIFO, is fine.

    Whoever misses a pull scans todo/ every 1500 s anyway.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        os.write(fd, b"\0")
    except OSError:
        pass  # full: it has been pulled already
    finally:
        os.close(fd)
