r"""Header fields with addresses as bytes: tokens, fields, whole headers.

A token's text never holds NUL, CR or LF: a folded line is unfolded first, and
such bytes inside a token are refused, so that nothing written from tokens can
start a new field or a new envelope record.
Source: RFC 822 3.3, RFC 5322 2.2; qmail token822.c, hfield.c, headerbody.c.
"""

from __future__ import annotations

from qsend.core.errors import PermFail
from qsend.core.inject import ROLES, HeaderField
from qsend.core.light import TYPE_CHECKING
from qsend.core.tokens import MARKS, Kind, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LINE_MAX = 78
"""Longest line that addresses are packed into, in characters: qmail's 80 less the
two bytes of the line break it is trying to avoid. One long address may exceed it."""

HEADER_MAX = 8 << 20
"""Longest header in bytes; 200,000 recipients of 40 bytes fit."""

_UNBALANCED = "unbalanced quote, bracket or parenthesis"
_LABEL_MAX = 1024
"""Longest name looked for where a line is cut off; RFC 5322 allows 998 in a line."""

_BACKSLASH = ord("\\")
_BLANKS = b" \t\r\n"
_ATOM_ENDS = b'[("<>;:@,.' + _BLANKS
_CLOSING_ALONE = b")]"
_ESCAPED = b'\\"[]()'
"""Written with a backslash; the backslash itself first."""
_NOT_IN_ATOM = bytes(range(33)) + b'\x7f()[]"\\<>;:@,.'
_LABEL = bytes(range(33, 127))
_MARKS = {mark[0]: token for mark, token in MARKS.items()}
_FRAMES = {
    Kind.QUOTED: (b'"', b'"'),
    Kind.LITERAL: (b"[", b"]"),
    Kind.COMMENT: (b"(", b")"),
}
_WORDY = frozenset({Kind.ATOM, *_FRAMES})


def tokenize(text: bytes) -> tuple[Token, ...]:
    r"""The tokens of an address list.

    A backslash quotes the next byte anywhere. An atom with bytes that atoms may
    not have becomes a quoted string; UTF-8 is fine in an atom (RFC 6532), other
    bytes from 128 up are not. Comments lose their inner parentheses.

    Args:
        text: the list, unfolded; whole, as the caller has bounded it.
    Raises: PermFail when quotes, brackets or parentheses do not match, a
        backslash ends the text, or a token holds NUL, CR or LF.
    Source: token822.c token822_parse(). Unlike it: UTF-8 is not quoted, an atom
        with a quoted blank or mark is.
    """
    tokens = []
    at = 0
    while at < len(text):
        byte = text[at]
        if byte in _BLANKS:
            at += 1
        elif byte in _MARKS:
            tokens.append(_MARKS[byte])
            at += 1
        else:
            kind, word, at = _word(text, at)
            tokens.append(_token(kind, word))
    return tuple(tokens)


def _word(text: bytes, at: int) -> tuple[Kind, bytes, int]:
    """The kind of the word at `at`, what it says, and where it ends."""
    opening = text[at : at + 1]
    if opening == b"(":
        return Kind.COMMENT, *_comment(text, at + 1)
    if opening == b'"':
        return Kind.QUOTED, *_until(b'"', text, at + 1)
    if opening == b"[":
        return Kind.LITERAL, *_until(b"]", text, at + 1)
    if opening in _CLOSING_ALONE:
        raise PermFail(_UNBALANCED)
    return Kind.ATOM, *_atom(text, at)


def _atom(text: bytes, at: int) -> tuple[bytes, int]:
    parts = []
    start = at
    while at < len(text) and text[at] not in _ATOM_ENDS:
        if text[at] == _BACKSLASH:
            parts.append(text[start:at])
            at += 1
            start = at  # the quoted byte is part of what follows
            if at == len(text):
                raise PermFail(_UNBALANCED)
        at += 1
    return b"".join([*parts, text[start:at]]), at


def _until(closing: bytes, text: bytes, at: int) -> tuple[bytes, int]:
    """What stands before `closing`, without backslashes, and where that ends."""
    parts: list[bytes] = []
    end = -1
    while True:
        if end < at:
            end = text.find(closing, at)
            if end < 0:
                raise PermFail(_UNBALANCED)
        quoting = text.find(b"\\", at, end)
        if quoting < 0:
            return b"".join([*parts, text[at:end]]), end + 1
        parts += (text[at:quoting], text[quoting + 1 : quoting + 2])
        at = quoting + 2


def _comment(text: bytes, at: int) -> tuple[bytes, int]:
    """What a comment says, and where it ends, from after its parenthesis."""
    parts = []
    start = at
    level = 1
    while level:
        byte = text[at : at + 1]
        if byte == b"\\":
            parts.append(text[start:at])
            at += 1
            start = at
        elif byte in (b"(", b")"):
            parts.append(text[start:at])
            start = at + 1
            level += 1 if byte == b"(" else -1
        at += 1
        if at > len(text):
            raise PermFail("unbalanced parenthesis")
    return b"".join(parts), at


def _token(kind: Kind, text: bytes) -> Token:
    if b"\n" in text or b"\r" in text or b"\0" in text:
        raise PermFail("NUL, CR or LF inside a word")
    if kind is Kind.ATOM and not _is_atom(text):
        kind = Kind.QUOTED
    return Token(kind=kind, text=text)


def _is_atom(text: bytes) -> bool:
    if len(text.translate(None, _NOT_IN_ATOM)) != len(text):
        return False
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def render_field(label: bytes, tokens: Iterable[Token]) -> bytes:
    """The field as lines: one blank after `:` and `,`, folded, with a final LF.

    Items, each through its comma, are packed while the line is at most LINE_MAX
    long; else the next begins on a new line after two blanks.

    Args:
        label: the field's name as it is to appear.
        tokens: what follows the colon; may be empty.
    Raises: nothing.
    Source: token822.c token822_unparse().
    """
    lines: list[bytes] = []
    line = b""
    for item in _items(label + b":", tokens):
        if not line:
            line = item
        elif len(line) + 1 + len(item) <= LINE_MAX:
            line += b" " + item
        else:
            lines.append(line)
            line = b"  " + item
    lines.append(line)
    return b"\n".join(lines) + b"\n"


def _items(start: bytes, tokens: Iterable[Token]) -> list[bytes]:
    """The text cut after each comma; blanks at the cuts are left out."""
    items = []
    item = bytearray(start)
    before = Kind.COLON
    for token in tokens:
        if before is not Kind.COMMA and _needs_blank(before, token.kind):
            item += b" "
        item += _written(token)
        before = token.kind
        if before is Kind.COMMA:
            items.append(bytes(item))
            item.clear()
    if item:
        items.append(bytes(item))
    return items


def _needs_blank(before: Kind, after: Kind) -> bool:
    if before is Kind.COLON or after is Kind.LEFT:
        return True
    return before in _WORDY and after in _WORDY


def _written(token: Token) -> bytes:
    if token.kind not in _WORDY:
        return token.text
    opening, closing = _FRAMES.get(token.kind, (b"", b""))
    text = token.text
    if len(text.translate(None, _ESCAPED)) != len(text):
        for byte in _ESCAPED:
            text = text.replace(b"%c" % byte, b"\\%c" % byte)
    return opening + text + closing


def field_label(line: bytes) -> bytes | None:
    """The name that a header field starts with, as written; None for another line.

    Printable ASCII without a colon, then blanks, then a colon.
    Source: hfield.c hfield_valid().
    """
    label = line[: max(0, line.find(b":"))].rstrip(b" \t")
    return label if label and not label.translate(None, _LABEL) else None


def parse_field(raw: bytes) -> HeaderField:
    """One header field; tokenized when it is one that holds addresses.

    Args:
        raw: the field with all its lines and its final LF, as read_header gives.
    Raises: nothing: what cannot be tokenized comes back with is_parsed False.
    """
    label = field_label(raw) or b""
    name = label.lower()
    if name not in ROLES:
        return HeaderField(name=name, label=label, raw=raw)
    try:
        tokens = tokenize(_unfolded(raw.partition(b":")[2]))
    except PermFail:
        return HeaderField(name=name, label=label, raw=raw, is_parsed=False)
    return HeaderField(name=name, label=label, raw=raw, tokens=tokens)


def _unfolded(text: bytes) -> bytes:
    """Without the line breaks before a blank, and without the last one."""
    if text.endswith(b"\n"):
        text = text[:-1].removesuffix(b"\r")
    unfolded, *more = text.split(b"\n")
    parts = []
    for line in more:
        is_folded = line.startswith((b" ", b"\t"))
        parts.append(unfolded.removesuffix(b"\r") if is_folded else unfolded + b"\n")
        unfolded = line
    return b"".join([*parts, unfolded])


def read_header(readline: Callable[[int], bytes]) -> tuple[list[bytes], bytes]:
    r"""(fields, start of the body) of a message.

    A line `From ...` is turned into a field `MBOX-Line`. The header ends before
    an empty line, or before a line that is no field: then an empty line is put
    between. The body's start is b"" when the message ends with the header; what
    follows it is still unread, and may continue an unfinished line.

    Args:
        readline: gives at most so many bytes, up to and with the next LF; b"" at
            the end of the message. Lines end in LF.
    Returns: fields with all their lines, each ending in LF.
    Raises: PermFail when the header is longer than HEADER_MAX; what `readline`
        raises.
    Source: headerbody.c headerbody().
    """
    fields: list[bytearray] = []
    left = HEADER_MAX
    while line := readline(left + _LABEL_MAX):
        if line == b"\n":
            return [bytes(item) for item in fields], line
        if fields and line[:1] in (b" ", b"\t"):
            fields[-1] += line
        elif line.startswith(b"From "):
            fields.append(bytearray(b"MBOX-Line: " + line))
        elif field_label(line) is not None:
            fields.append(bytearray(line))
        else:
            return [bytes(item) for item in fields], b"\n" + line
        left -= len(line)
        if left < 0:
            raise PermFail(f"header is longer than {HEADER_MAX} bytes")
    if fields and not fields[-1].endswith(b"\n"):
        fields[-1] += b"\n"
    return [bytes(item) for item in fields], b""
