"""The one line that the log gets of each attempt to log in; passwords never.

Source: docs/man/checkpassword.8; qmail-log(5) for how names are shown.
"""

from __future__ import annotations

from qsend.core.address import log_safe
from qsend.core.lookups import Login, Verdict, Verification

_WORDS = {
    Verdict.OK: b"accepted",
    Verdict.WRONG: b"refused: wrong password",
    Verdict.SUSPENDED: b"refused: suspended",
    Verdict.UNKNOWN: b"refused: unknown user",
    Verdict.TROUBLE: b"deferred: system error",
}
_SHOWN_MAX = 256


def describe(login: Login, verification: Verification) -> bytes:
    """As `login: ann from 192.0.2.1: refused: wrong password`, without line end.

    What the verification's text adds stands in brackets.
    """
    words = _WORDS[verification.verdict]
    name = log_safe(login.name[:_SHOWN_MAX]) or b"-"
    client = log_safe(login.client[:_SHOWN_MAX]) or b"unknown"
    text = bytes(byte if 32 <= byte <= 126 else 0x3F for byte in verification.text)
    more = b" (%b)" % text[:_SHOWN_MAX] if text and not words.endswith(text) else b""
    return b"login: %b from %b: %b%b" % (name, client, words, more)
