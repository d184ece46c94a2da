"""What qmail-inject makes of a header: new header, envelope sender, recipients.

Must not tokenize or print: fields come with tokens and leave with tokens.
Source: qmail-inject.c doheaderfield(), finishheader(), exitnicely();
qmail-inject(8), qmail-header(5).
"""

from __future__ import annotations

from qsend.core.address import quote
from qsend.core.addresslist import (
    AddressList,
    Defaults,
    Tokens,
    rewrite_address,
    rewrite_list,
)
from qsend.core.calendar import render_date, utc
from qsend.core.errors import PermFail
from qsend.core.light import TYPE_CHECKING, Enum, dataclass
from qsend.core.tokens import AT, LEFT, RIGHT, Kind, Token, address_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Role(Enum):
    """What the addresses of a header field are used for."""

    SHOWN = "recipients that a follow-up goes to"
    HIDDEN = "recipients that it does not go to"
    RESENT = "recipients of a resent message"
    RETURN_PATH = "envelope sender"
    ORIGIN = "only rewritten"


ROLES: Mapping[bytes, Role] = {
    b"to": Role.SHOWN,
    b"cc": Role.SHOWN,
    b"bcc": Role.HIDDEN,
    b"apparently-to": Role.HIDDEN,
    b"resent-to": Role.RESENT,
    b"resent-cc": Role.RESENT,
    b"resent-bcc": Role.RESENT,
    b"return-path": Role.RETURN_PATH,
    b"sender": Role.ORIGIN,
    b"from": Role.ORIGIN,
    b"reply-to": Role.ORIGIN,
    b"return-receipt-to": Role.ORIGIN,
    b"errors-to": Role.ORIGIN,
    b"resent-sender": Role.ORIGIN,
    b"resent-from": Role.ORIGIN,
    b"resent-reply-to": Role.ORIGIN,
}
"""Header fields that hold addresses, by lower case name."""

_DELETED = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})
_RESENT_MARKS = frozenset(
    b"resent-" + name
    for name in (
        *(b"sender", b"from", b"reply-to", b"to", b"cc", b"bcc"),
        *(b"date", b"message-id"),
    )
)
_NO_RECIPIENTS = b"Cc: recipient list not shown: ;\n"

RECIPS_MAX = 500_000
"""Most recipients of one message: a queue file of them, at 130 bytes each, is
still within the 64 MiB that the queue manager reads."""

SHOWN_MAX = 200
"""How much of a faulty line a diagnostic repeats, in characters."""


class RecipSource(Enum):
    """Where envelope recipients come from."""

    ARGS = "arguments"
    HEADER = "header"
    BOTH = "arguments, then header"
    DEFAULT = "arguments if there are any, else header"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The letters of $QMAILINJECT."""

    name_as_comment: bool = False  # c
    ignore_return_path: bool = False  # s
    drop_from: bool = False  # f
    drop_message_id: bool = False  # i
    verp_recip: bool = False  # r
    verp_message: bool = False  # m


PLAIN_STYLE = Style()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that the header itself does not say.

    `user`, `host` and `name` are the From field's; `sender_user` and
    `sender_host` the default envelope sender's, its user still unquoted. A host
    is None when unset. `sender` is option -f, None without it, and `recips` are
    the arguments that count; neither is rewritten yet. `followup_lists` are the
    addresses of $QMAILMFTFILE in lower case. No bytes here hold NUL, CR or LF.
    """

    user: Tokens
    host: Tokens | None
    name: bytes | None
    sender_user: bytes
    sender_host: Tokens | None
    sender: Tokens | None
    recips: tuple[Tokens, ...]
    recip_source: RecipSource
    defaults: Defaults
    idhost: bytes
    followup_lists: frozenset[bytes] = frozenset()
    style: Style = PLAIN_STYLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What makes one run different from every other.

    `now` is wall clock in whole seconds; `unique` is fit for a Message-ID and
    never repeats within a second and a pid.
    """

    now: int
    pid: int
    unique: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderField:
    """One header field as it came.

    `name` is lower case, `label` the name as written, `raw` the whole field
    with its final LF. `tokens` is what follows the colon, for the fields of
    ROLES; () when `is_parsed` is False because it is no sequence of tokens.
    """

    name: bytes
    label: bytes
    raw: bytes
    tokens: Tokens = ()
    is_parsed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressField:
    """One header field to be written from tokens."""

    label: bytes
    tokens: Tokens


HeaderPart = bytes | AddressField
"""A part of the new header: lines as they are, or a field to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """What to queue: the header in order, the envelope, and what to warn of."""

    header: tuple[HeaderPart, ...]
    sender: bytes
    recips: tuple[bytes, ...]
    warnings: tuple[str, ...]


def plan_injection(
    request: Request, fields: Iterable[HeaderField], stamp: Stamp
) -> Injection:
    """What becomes of a message with these header fields.

    A recipient field that cannot be parsed stays as it is, with a warning; the
    addresses right of the error still count.

    Raises: PermFail when another address field cannot be parsed, or there are
        more than RECIPS_MAX recipients.
    Source: qmail-inject.c. Unlike it: Message-IDs of one second and pid differ;
        unparsable recipient fields are warned of.
    """
    header = _Header(request)
    for item in fields:
        header.take(item)
    is_resent = not _RESENT_MARKS.isdisjoint(header.seen)
    recips = _argument_recips(request)
    if takes_header_recips(request):
        recips += header.resent if is_resent else header.recips
    if len(recips) > RECIPS_MAX:
        raise PermFail(f"more than {RECIPS_MAX} recipients")
    sender = header.sender
    if sender is None:
        sender = _default_sender(request, stamp)
    return Injection(
        header=(*_new_fields(request, header, stamp, is_resent), *header.kept),
        sender=sender,
        recips=tuple(recips),
        warnings=tuple(header.warnings),
    )


def takes_header_recips(request: Request) -> bool:
    """True when recipients in the header count."""
    if request.recip_source is RecipSource.DEFAULT:
        return not request.recips
    return request.recip_source is not RecipSource.ARGS


def _argument_recips(request: Request) -> list[bytes]:
    return [
        address_bytes(rewrite_address(recip, request.defaults))
        for recip in request.recips
    ]


class _Header:
    """The header fields taken so far."""

    def __init__(self, request: Request) -> None:
        self._defaults = request.defaults
        self._verp_recip = request.style.verp_recip
        style = request.style
        self._dropped = {
            name
            for name, is_dropped in (
                (b"from", style.drop_from),
                (b"message-id", style.drop_message_id),
                (b"return-path", style.ignore_return_path),
            )
            if is_dropped
        }
        self.kept: list[HeaderPart] = []
        self.seen: set[bytes] = set()
        self.recips: list[bytes] = []
        self.shown: list[bytes] = []
        self.resent: list[bytes] = []
        self.warnings: list[str] = []
        self.sender: bytes | None = None
        if request.sender is not None:
            self.sender = address_bytes(
                rewrite_address(request.sender, request.defaults)
            )

    def take(self, item: HeaderField) -> None:
        """Use one field: its addresses, and itself unless it is dropped."""
        if item.name in self._dropped:
            return
        self.seen.add(item.name)
        role = ROLES.get(item.name)
        part = item.raw if role is None else self._rewritten(item, role)
        if item.name not in _DELETED:
            self.kept.append(part)

    def _rewritten(self, item: HeaderField, role: Role) -> HeaderPart:
        found = AddressList(tokens=(), addresses=(), is_complete=False)
        if item.is_parsed:
            found = _rewritten_list(item.tokens, self._defaults)
        if not found.is_complete:
            problem = f"unable to parse this line: {show_line(item.raw)}"
            if role in (Role.RETURN_PATH, Role.ORIGIN):
                raise PermFail(problem)
            self.warnings.append(problem)
        self._collect(role, found.addresses)
        if not found.is_complete:
            return item.raw
        return AddressField(label=item.label, tokens=found.tokens)

    def _collect(self, role: Role, addresses: tuple[bytes, ...]) -> None:
        if role is Role.RESENT:
            self.resent += addresses
        elif role in (Role.SHOWN, Role.HIDDEN):
            self.recips += addresses
            if role is Role.SHOWN:
                self.shown += addresses
        elif role is Role.RETURN_PATH and addresses and self.sender is None:
            self.sender = addresses[0] + (b"-@[]" if self._verp_recip else b"")


def _rewritten_list(tokens: Tokens, defaults: Defaults) -> AddressList:
    return rewrite_list(tokens, lambda address: rewrite_address(address, defaults))


def show_line(raw: bytes) -> str:
    """A faulty line fit for a terminal: one line, printable, not too long."""
    text = raw.rstrip(b"\r\n")[: SHOWN_MAX + 1].decode("ascii", "replace")
    safe = "".join(char if " " <= char <= "~" else "?" for char in text)
    return safe if len(safe) <= SHOWN_MAX else safe[:SHOWN_MAX] + "..."


def _default_sender(request: Request, stamp: Stamp) -> bytes:
    user = request.sender_user
    if request.style.verp_message:
        user += b"-%d.%d" % (stamp.now, stamp.pid)
    if request.style.verp_recip:
        user += b"-"
    tokens: Tokens = (Token(kind=Kind.QUOTED, text=user),)
    if request.sender_host is not None:
        tokens += (AT, *request.sender_host)
    found = _rewritten_list(tokens, request.defaults)
    if not found.is_complete:
        raise PermFail("unable to parse the default envelope sender's host")
    return found.addresses[0] + (b"-@[]" if request.style.verp_recip else b"")


def _new_fields(
    request: Request, header: _Header, stamp: Stamp, is_resent: bool
) -> list[HeaderPart]:
    """The fields that the message should have had, in qmail's order."""
    prefix = b"Resent-" if is_resent else b""
    missing = {
        name
        for name in (b"date", b"message-id", b"from", b"to", b"cc")
        if prefix.lower() + name not in header.seen
    }
    new: list[HeaderPart] = []
    if b"date" in missing:
        new.append(prefix + b"Date: " + render_date(stamp.now) + b"\n")
    if b"message-id" in missing:
        new.append(prefix + _message_id(request.idhost, stamp))
    if b"from" in missing:
        new.append(AddressField(label=prefix + b"From", tokens=_from_list(request)))
    if {b"to", b"cc"} <= missing:
        new.append(prefix + _NO_RECIPIENTS)
    if not is_resent and b"mail-followup-to" not in header.seen:
        new += _followup(request.followup_lists, header.shown)
    return new


def _message_id(idhost: bytes, stamp: Stamp) -> bytes:
    when = b"%04d%02d%02d%02d%02d%02d" % utc(stamp.now)
    local = b"%b.%d.%b.qmail" % (when, stamp.pid, stamp.unique)
    return b"Message-ID: <" + local + b"@" + idhost + b">\n"


def _from_list(request: Request) -> Tokens:
    tokens = request.user
    if request.host is not None:
        tokens += (AT, *request.host)
    if request.name is not None:
        if request.style.name_as_comment:
            tokens = (*tokens, Token(kind=Kind.COMMENT, text=request.name))
        else:
            name = Token(kind=Kind.QUOTED, text=request.name)
            tokens = (name, LEFT, *tokens, RIGHT)
    found = _rewritten_list(tokens, request.defaults)
    if not found.is_complete:
        raise PermFail("unable to parse the host of the default From field")
    return found.tokens


def _followup(lists: frozenset[bytes], shown: list[bytes]) -> list[HeaderPart]:
    if not any(address.lower() in lists for address in shown):
        return []
    joined = b",\n  ".join(quote(address) for address in reversed(shown))
    return [b"Mail-Followup-To: " + joined + b"\n"]
