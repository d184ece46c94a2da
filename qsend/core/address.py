"""Envelope addresses: their two sides, quoting, VERP, and how logs show them.

Addresses are bytes as the queue stores them: unquoted, the domain after the last
`@`. Must not judge whether an address exists.
Source: quote.c, qmail-send.c (comm_write, stripvdomprepend, logsafe),
qmail-remote.c addrmangle(), addresses(5).
"""

from __future__ import annotations

_PLAIN = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    b"!#$%&'*+-/=?^_`{|}~."
)
_VERP_MARK = b"-@[]"
_LOG_TABLE = bytes(
    ord("/") if byte == 10 else byte if 33 <= byte <= 126 and byte != 37 else ord("_")
    for byte in range(256)
)


def split(address: bytes) -> tuple[bytes, bytes | None]:
    """(local part, domain) at the last `@`; the domain is None without an `@`.

    `a@b@c` gives (b"a@b", b"c"), `a@` gives (b"a", b""). Raises: nothing.
    """
    local, at, domain = address.rpartition(b"@")
    return (local, domain) if at else (address, None)


def quote_local(local: bytes) -> bytes:
    r"""The local part as SMTP and header fields need it.

    Unchanged when it is an RFC 5321 dot-string; otherwise in double quotes, with
    a backslash before CR, LF, `"` and `\`. Bytes from 128 up force quotes and
    stay raw; b"" becomes `""`. CR and LF are kept: who sends the result on a
    line must refuse them first. Source: quote.c quote_need(), doit().
    """
    if _is_dot_string(local):
        return local
    quoted = bytearray(b'"')
    for byte in local:
        if byte in b'\r\n"\\':
            quoted += b"\\"
        quoted.append(byte)
    return bytes(quoted + b'"')


def _is_dot_string(local: bytes) -> bool:
    return (
        bool(local)
        and _PLAIN.issuperset(local)
        and not local.startswith(b".")
        and not local.endswith(b".")
        and b".." not in local
    )


def quote(address: bytes) -> bytes:
    """The address with its local part quoted where needed, the domain unchanged.

    An address without `@`, b"" among them, is returned as it is; `@d` becomes
    `""@d`. Source: quote.c quote2(), qmail-remote.c addrmangle().
    """
    local, domain = split(address)
    if domain is None:
        return address
    return quote_local(local) + b"@" + domain


def verp(sender: bytes, recip: bytes) -> bytes:
    """The sender that one recipient sees, qmail's variable envelope return path.

    `l-owner-@h-@[]` sent to `a@b` is `l-owner-a=b@h`. A sender that does not end
    in `-@[]` after an address, `#@[]` among them, and any sender to a recipient
    without `@`, stay as they are. Source: qmail-send.c del_start() senderadd().
    """
    if not sender.endswith(_VERP_MARK):
        return sender
    box, at, host = sender[: -len(_VERP_MARK)].rpartition(b"@")
    recip_box, recip_at, recip_host = recip.rpartition(b"@")
    if not at or not recip_at:
        return sender
    return box + recip_box + b"=" + recip_host + b"@" + host


def unverp(sender: bytes) -> bytes:
    """The address that bounces go to: the sender without a final `-@[]`.

    `box@host-@[]` is `box@host`. Source: qmail-send.c injectbounce().
    """
    return sender.removesuffix(_VERP_MARK)


def log_safe(text: bytes) -> bytes:
    """Text as one word of a log line.

    LF becomes `/`; bytes below 33, above 126 and `%` become `_`.
    Source: qsutil.c logsafe().
    """
    return text.translate(_LOG_TABLE)
