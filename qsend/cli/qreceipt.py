"""qreceipt: tell the sender of a message that it was delivered, if he asked.

Exit codes: 0, receipt or not; 100 usage or a field that cannot be parsed; 111.
Source: qreceipt(1), qreceipt.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from qsend.cli import outcome
from qsend.cli.options import UsageError
from qsend.core.address import quote
from qsend.core.addresslist import rewrite_list
from qsend.core.errors import PermFail, TempFail
from qsend.formats.rfc822 import field_label, read_header, tokenize
from qsend.sysio.home import find_home
from qsend.sysio.mailqueue import inject

_HELP = """\
usage: qreceipt deliveryaddress

In a .qmail file, `|qreceipt me@here.example` answers each message that lists that
address in a field Notice-Requested-Upon-Delivery-To with a short success notice to
$SENDER. Bounces are never answered. Put it before the line that delivers.
"""
_WISH = b"notice-requested-upon-delivery-to"
_NEVER = (b"", b"#@[]")
_SHOWN_MAX = 200


def main(argv: Sequence[str]) -> int:
    """`argv[0]` is the address."""
    return outcome.run("qreceipt", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    sender = os.environb.get(b"SENDER")
    if not argv or sender is None:
        raise UsageError
    address = os.fsencode(argv[0])
    fields = _read_fields()
    if address in _wished(fields) and sender not in _NEVER:
        home = find_home(None, os.environ)
        inject(home, [_notice(fields, sender, address)], b"", [sender], os.environ)
    return 0


def _read_fields() -> list[bytes]:
    try:
        with open(0, "rb", closefd=False) as file:
            return read_header(file.readline)[0]
    except OSError as exc:
        raise TempFail(f"read error: {exc.strerror}") from exc


def _wished(fields: Iterable[bytes]) -> set[bytes]:
    """The addresses whose delivery is to be told of. Raises: PermFail."""
    wished: set[bytes] = set()
    for field in fields:
        if _name(field) != _WISH:
            continue
        try:
            tokens = tokenize(b"".join(field.partition(b":")[2].splitlines()))
        except PermFail as exc:
            raise _unparsable(field) from exc
        found = rewrite_list(tokens, lambda address: address)
        if not found.is_complete:
            raise _unparsable(field)
        wished |= set(found.addresses)
    return wished


def _name(field: bytes) -> bytes:
    return (field_label(field) or b"").lower()


def _unparsable(field: bytes) -> PermFail:
    shown = field[:_SHOWN_MAX].rstrip().decode("utf-8", "backslashreplace")
    return PermFail(f"unable to parse this: {shown}")


def _notice(fields: Sequence[bytes], sender: bytes, address: bytes) -> bytes:
    quoted = quote(sender).replace(b"\n", b"_")
    message_ids = [field for field in fields if _name(field) == b"message-id"]
    return (
        b"From: DELIVERY NOTICE SYSTEM <%b>\n"
        b"To: <%b>\n"
        b"Subject: success notice\n"
        b"\n"
        b"This is the qreceipt program. As you asked, here is the news: your message\n"
        b"was delivered to the following address: %b\n" % (quoted, quoted, address)
    ) + b"".join(b"Your " + field for field in message_ids[-1:])
