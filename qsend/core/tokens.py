"""The words and marks that addresses in header fields are made of.

Must not know how they are written: that is formats/rfc822.
Source: RFC 822 3.3; qmail token822.h, token822.c token822_unquote().
"""

from __future__ import annotations

from qsend.core.light import TYPE_CHECKING, Enum, dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(Enum):
    """What a token is; the marks' values are how they are written."""

    ATOM = "atom"
    QUOTED = "quoted string"
    LITERAL = "domain literal"
    COMMENT = "comment"
    DOT = b"."
    COMMA = b","
    AT = b"@"
    LEFT = b"<"
    RIGHT = b">"
    COLON = b":"
    SEMICOLON = b";"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token; `text` is what it says, without quotes, brackets and backslashes.

    Of a mark, `text` is the mark itself. No text holds NUL, CR or LF.
    """

    kind: Kind
    text: bytes


DOT, COMMA, AT, LEFT, RIGHT, COLON, SEMICOLON = (
    Token(kind=kind, text=kind.value)
    for kind in (
        Kind.DOT,
        Kind.COMMA,
        Kind.AT,
        Kind.LEFT,
        Kind.RIGHT,
        Kind.COLON,
        Kind.SEMICOLON,
    )
)
MARKS = {token.text: token for token in (DOT, COMMA, AT, LEFT, RIGHT, COLON, SEMICOLON)}
"""Every mark by how it is written."""

WORDS = frozenset({Kind.ATOM, Kind.QUOTED, Kind.LITERAL})
"""The kinds an address is mostly made of."""


def address_bytes(tokens: Iterable[Token]) -> bytes:
    """The address as envelopes have it: unquoted, literals in brackets, no comments.

    `"a b" . c @ [1.2.3.4] (x)` gives `a b.c@[1.2.3.4]`. Raises: nothing.
    """
    parts = []
    for token in tokens:
        if token.kind is Kind.LITERAL:
            parts.append(b"[" + token.text + b"]")
        elif token.kind is not Kind.COMMENT:
            parts.append(token.text)
    return b"".join(parts)
