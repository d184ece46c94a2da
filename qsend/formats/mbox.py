"""The text of one mbox entry: `From ` lines of the message quoted, ended by LF.

The variant is mboxrd: every line of `>`s and `From ` gets one more `>`, so that a
reader can take it off again. Header lines are quoted too.
Source: mbox(5), qmail-local.c mailfile().
"""

from __future__ import annotations

import re

_FROM = re.compile(rb"\n(>*)From ")
_FROM_FIRST = re.compile(rb">*From ")
_MAYBE_FROM = re.compile(rb">*(F?|Fr|Fro|From)\Z")


class MboxText:
    """Turns a message, given in pieces, into mbox text; memory is bounded.

    The result does not depend on how the message is cut.
    """

    __slots__ = ("_at_end_of_line", "_carry", "_in_quotes")

    def __init__(self) -> None:
        self._carry = b""
        """Up to four bytes of a `From ` that may be beginning; not yet given out."""
        self._in_quotes = True
        """Only `>`s stand so far in the line that `_carry` continues."""
        self._at_end_of_line = True

    def feed(self, chunk: bytes) -> bytes:
        """The mbox text that one more piece of the message allows to give out."""
        if not chunk:
            return b""
        text = self._carry + chunk
        self._at_end_of_line = text.endswith(b"\n")
        # A run of `>` may have been given out already: one more anywhere in the
        # run is the same text, so it goes where the run meets `From `.
        quoted = _FROM.sub(rb"\n\1>From ", text) if b"From " in text else text
        if self._in_quotes and _FROM_FIRST.match(text):
            quoted = b">" + quoted
        return self._hold_back(text, quoted)

    def _hold_back(self, text: bytes, quoted: bytes) -> bytes:
        start = text.rfind(b"\n") + 1
        if start == 0 and not self._in_quotes:
            self._carry = b""
            return quoted
        maybe = _MAYBE_FROM.match(text, start)
        self._in_quotes = maybe is not None
        self._carry = maybe[1] if maybe else b""
        return quoted[: len(quoted) - len(self._carry)]

    def finish(self) -> bytes:
        """What ends the entry: the rest, a missing last LF, and the empty line."""
        rest, self._carry = self._carry, b""
        return rest + (b"\n" if self._at_end_of_line else b"\n\n")
