r"""Header fields with addresses as bytes: tokens, fields, whole headers.

A token's text never holds NUL, CR or LF: a folded line is unfolded first, and
such bytes inside a token are refused, so that nothing written from tokens can
start a new field or a new envelope record.
Source: RFC 822 3.3, RFC 5322 2.2; qmail token822.c, hfield.c, headerbody.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from qsend.core.errors import PermFail
from qsend.core.inject import ROLES, HeaderField
from qsend.core.tokens import MARKS, Kind, Token

LINE_MAX = 78
"""Longest line that addresses are packed into, in characters: qmail's 80 less the
two bytes of the line break it is trying to avoid. One long address may exceed it."""

HEADER_MAX = 8 << 20
"""Longest header in bytes; 200,000 recipients of 40 bytes fit."""

_LABEL_MAX = 1024
"""Longest name looked for where a line is cut off; RFC 5322 allows 998 in a line."""

_LEXER = re.compile(
    rb"""(?P<blank>[ \t\r\n]+)
    |(?P<mark>[.,@<>:;])
    |"(?P<quoted>(?:[^"\\]|\\.)*+)"
    |\[(?P<literal>(?:[^\]\\]|\\.)*+)\]
    |(?P<comment>\()
    |(?P<atom>(?:[^][()"\\<>;:@,. \t\r\n]|\\.)(?:[^[("\\<>;:@,. \t\r\n]|\\.)*+)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(rb"([^()\\]++)|\\(.)|([()])", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = re.compile(rb'["\[\]()\\]')
_UNSAFE = re.compile(rb"[\0\r\n]")
_NOT_IN_ATOM = re.compile(rb'[\0-\x20\x7f()\[\]"\\<>;:@,.]')
_FOLD = re.compile(rb"\r?\n(?=[ \t]|\Z)")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_KINDS = {"atom": Kind.ATOM, "quoted": Kind.QUOTED, "literal": Kind.LITERAL}
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
    position = 0
    while position < len(text):
        match = _LEXER.match(text, position)
        if match is None:
            raise PermFail("unbalanced quote, bracket or parenthesis")
        position = match.end()
        group = match.lastgroup
        if group == "comment":
            inside, position = _comment(text, position)
            tokens.append(_token(Kind.COMMENT, inside))
        elif group == "mark":
            tokens.append(MARKS[match[0]])
        elif group in _KINDS:
            word = _ESCAPED.sub(rb"\1", match[group])
            tokens.append(_token(_KINDS[group], word))
    return tuple(tokens)


def _comment(text: bytes, position: int) -> tuple[bytes, int]:
    """What a comment says, and where it ends, from after its parenthesis."""
    parts = []
    level = 1
    while level:
        match = _COMMENT_PART.match(text, position)
        if match is None:
            raise PermFail("unbalanced parenthesis")
        position = match.end()
        if match[3]:
            level += 1 if match[3] == b"(" else -1
        else:
            parts.append(match[1] or match[2])
    return b"".join(parts), position


def _token(kind: Kind, text: bytes) -> Token:
    if _UNSAFE.search(text):
        raise PermFail("NUL, CR or LF inside a word")
    if kind is Kind.ATOM and not _is_atom(text):
        kind = Kind.QUOTED
    return Token(kind=kind, text=text)


def _is_atom(text: bytes) -> bool:
    if _NOT_IN_ATOM.search(text):
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
    return opening + _ESCAPES.sub(rb"\\\g<0>", token.text) + closing


def field_label(line: bytes) -> bytes | None:
    """The name that a header field starts with, as written; None for another line.

    Printable ASCII without a colon, then blanks, then a colon.
    Source: hfield.c hfield_valid().
    """
    match = _FIELD.match(line)
    return match[1] if match else None


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
        tokens = tokenize(_FOLD.sub(b"", raw.partition(b":")[2]))
    except PermFail:
        return HeaderField(name=name, label=label, raw=raw, is_parsed=False)
    return HeaderField(name=name, label=label, raw=raw, tokens=tokens)


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
