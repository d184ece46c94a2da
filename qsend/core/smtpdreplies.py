"""What an SMTP server says.

Source: RFC 5321, RFC 2034 (status codes), RFC 3463; qmail-smtpd.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

TOO_BUSY = b"421 4.3.2 too many sessions; try again later\r\n"
TIMEOUT = b"451 4.4.2 timeout (#4.4.2)\r\n"
SHUTDOWN = b"421 4.3.2 going down\r\n"
DENIED = b"554 5.7.1 you are not allowed to connect (#5.7.1)\r\n"
UNREADABLE = b"421 4.3.0 unable to read controls (#4.3.0)\r\n"
STRAY = (
    b"451 4.6.0 See https://cr.yp.to/docs/smtplf.html: a line feed came without a"
    b" carriage return (#4.6.0)\r\n"
)
SYNTAX = b"501 5.5.4 syntax error in parameters (#5.5.4)\r\n"
UNKNOWN_PARAMETER = b"555 5.5.4 unknown parameter (#5.5.4)\r\n"
BAD_SENDER_SYNTAX = b"555 5.1.7 syntax error (#5.1.7)\r\n"
TOO_LARGE = (
    b"552 5.3.4 sorry, that message size exceeds my databytes limit (#5.3.4)\r\n"
)
UNIMPLEMENTED = b"502 5.5.1 unimplemented (#5.5.1)\r\n"
MAIL_FIRST = b"503 5.5.1 MAIL first (#5.5.1)\r\n"
RCPT_FIRST = b"503 5.5.1 RCPT first (#5.5.1)\r\n"
LINE_TOO_LONG = b"500 5.5.2 line too long (#5.5.2)\r\n"
LOG_IN_FIRST = b"530 5.7.0 log in first (#5.7.0)\r\n"
TLS_FIRST = b"538 5.7.11 STARTTLS first (#5.7.11)\r\n"
NO_MECHANISM = b"504 5.5.4 no such mechanism (#5.5.4)\r\n"
NO_LOGIN = b"501 5.5.2 no login (#5.5.2)\r\n"
NOT_NOW = b"503 5.5.1 not now (#5.5.1)\r\n"
BAD_RECIPIENT_SYNTAX = b"555 5.1.3 syntax error (#5.1.3)\r\n"
TOO_MANY_RECIPIENTS = b"452 4.5.3 too many recipients (#4.5.3)\r\n"
TOO_MANY_ERRORS = b"421 4.7.0 too many errors; goodbye\r\n"
GO_AHEAD = b"354 go ahead\r\n"
LOGIN_REFUSED = b"535 5.7.8 login refused (#5.7.8)\r\n"
LOGIN_TEMPORARY = b"454 4.7.0 unable to check logins now (#4.7.0)\r\n"
LOGIN_TOO_SOON = b"421 4.7.0 too many failed logins; try again later\r\n"
LOOPING = b"554 5.4.6 too many hops, this message is looping (#5.4.6)\r\n"
OK = b"250 2.0.0 ok\r\n"
SENDER_OK = b"250 2.1.0 ok\r\n"
RECIPIENT_OK = b"250 2.1.5 ok\r\n"
LOGGED_IN = b"235 2.7.0 ok, go ahead\r\n"
GO_AHEAD_TLS = b"220 2.0.0 ready for tls\r\n"
_ENHANCED = re.compile(r"\(#([245]\.[0-9]{1,3}\.[0-9]{1,3})\)")


def ehlo(
    greeting: bytes, *, databytes: int, offers_tls: bool, mechanisms: Sequence[bytes]
) -> bytes:
    """The reply to EHLO; `mechanisms` are those of AUTH, none without it."""
    lines = [
        greeting,
        b"PIPELINING",
        b"8BITMIME",
        b"SIZE %d" % databytes,
        b"SMTPUTF8",
        b"ENHANCEDSTATUSCODES",
    ]
    if offers_tls:
        lines.append(b"STARTTLS")
    if mechanisms:
        lines.append(b"AUTH " + b" ".join(mechanisms))
    said = [b"250-%b\r\n" % line for line in lines[:-1]]
    return b"".join(said) + b"250 %b\r\n" % lines[-1]


def reply(code: int, text: str) -> bytes:
    """A reply line; the status code that `text` has in `(#...)` stands in front, too.

    Only what is printable comes through: one reply stays one line.
    """
    found = _ENHANCED.search(text)
    status = f"{found[1]} " if found else ""
    raw = f"{code} {status}{text}".encode("utf-8", "surrogateescape")
    return bytes(32 if byte < 32 or byte == 127 else byte for byte in raw) + b"\r\n"
