r"""Lines that end in LF as lines that end in CR LF, and back, in pieces.

>>> lines = Unix()
>>> lines.feed(b"a\r"), lines.feed(b"\nb"), lines.end()
(b'a', b'\nb', b'')
"""

from __future__ import annotations


def network(piece: bytes) -> bytes:
    """Each LF as CR LF."""
    return piece.replace(b"\n", b"\r\n")


class Unix:
    """Each CR LF as LF; a CR or an LF alone stays."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What `piece` adds."""
        data = self._held + piece
        self._held = b"\r" if data.endswith(b"\r") else b""
        return data[: len(data) - len(self._held)].replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        """What is left when nothing more comes."""
        held, self._held = self._held, b""
        return held
