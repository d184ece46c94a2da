"""The delivery log: whole lines to a descriptor, written when there is a pause.

Lines collect for one turn of the loop, so that a busy turn costs one write. The
log is a pipe or a file; a reader that stops reading stops the writer, as qmail's.
"""

from __future__ import annotations

import os

from qsend.core import logline


class LogSink:
    """Collects lines and writes them to one descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lines: list[bytes] = []

    def say(self, line: bytes) -> None:
        """Add one line, with its line end."""
        self._lines.append(line)

    def alert(self, text: str) -> None:
        """Add an alert line."""
        self.say(logline.alert(text))

    def warning(self, text: str) -> None:
        """Add a warning line."""
        self.say(logline.warning(text))

    def flush(self) -> None:
        """Write what was collected; a log that nobody reads any more loses it."""
        rest = memoryview(b"".join(self._lines))
        self._lines.clear()
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                # Somebody made the shared descriptor non-blocking: wait our turn.
                os.set_blocking(self.fd, True)
            except BrokenPipeError:
                return
