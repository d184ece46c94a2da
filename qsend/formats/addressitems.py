r"""Address lists as sendmail's users write them in aliases and .forward files.

A name, an address, `"|program"`, `/file` or `:include:file`, separated by commas,
blanks or line ends; comments and phrases as in RFC 822, no groups. Whether a name
is a program or a file is the reader's decision: it depends on `has_at`.
Source: newaliases(1), dot-forward(1); newaliases.c, dot-forward.c parseline().
Unlike them: `|"program"` is a program too, as in sendmail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qsend.core.errors import PermFail
from qsend.core.tokens import AT, WORDS, Kind, Token, address_bytes
from qsend.formats.rfc822 import tokenize

_PHRASE = frozenset({Kind.COMMENT, Kind.ATOM, Kind.QUOTED, Kind.AT, Kind.DOT})
_BAR = Token(kind=Kind.ATOM, text=b"|")


@dataclass(frozen=True, slots=True)
class Name:
    """Something that mail goes to; `has_at` when it holds an `@` outside quotes."""

    text: bytes
    has_at: bool


@dataclass(frozen=True, slots=True)
class Include:
    """Everything that is listed in the file at `path`."""

    path: bytes


Item = Name | Include


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """What incomplete addresses are completed with; controls of qmail-inject."""

    host: bytes
    domain: bytes
    plus: bytes


def complete(name: Name, domains: Domains) -> bytes:
    """The address of a name that is one, with a fully qualified domain.

    `x` gives `x@host`, `x@h` gives `x@h.domain`, `x@h+` gives `x@h.plus`.
    Source: dot-forward.c gotaddr().
    """
    address = name.text if name.has_at else name.text + b"@"
    if address.endswith(b"@"):
        address += domains.host
    if address.endswith(b"+"):
        address = address[:-1] + b"." + domains.plus
    host = address.rpartition(b"@")[2]
    if b"." in host or host.endswith(b"]"):
        return address
    return address + b"." + domains.domain


def parse_items(text: bytes) -> list[Item]:
    """The items of one line, from right to left, as qmail's programs work them.

    Args:
        text: the line without what continues it, whole; the caller bounds it.
    Returns: `<>` and `""` are a Name with an empty text.
    Raises: PermFail when it cannot be parsed.
    """
    return _Walk(tokenize(text)).items()


class _Walk:
    """One walk over the tokens; `_address` holds them from right to left."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._rest = list(tokens)
        self._address: list[Token] = []
        self._items: list[Item] = []
        # True where a word may join the one right of it: after a dot or an @.
        self._joins = True

    def items(self) -> list[Item]:
        while self._rest:
            token = self._rest.pop()
            if token.kind in WORDS:
                self._word(token)
            elif token.kind is Kind.RIGHT:
                self._angle()
            elif token.kind is Kind.COLON:
                self._colon()
            elif token.kind in (Kind.COMMA, Kind.SEMICOLON):
                self._finish()
            elif token.kind is Kind.LEFT:
                raise PermFail("unbalanced angle bracket")
            elif token.kind is not Kind.COMMENT:
                self._joins = True
                self._address.append(token)
        self._finish()
        return self._items

    def _word(self, token: Token) -> None:
        if token == _BAR and [each.kind for each in self._address] == [Kind.QUOTED]:
            command = self._address.pop().text
            token = Token(kind=Kind.QUOTED, text=token.text + command)
        elif not self._joins:
            self._finish()
        self._joins = False
        self._address.append(token)

    def _angle(self) -> None:
        self._finish()
        while self._rest and self._rest[-1].kind is not Kind.LEFT:
            self._address.append(self._rest.pop())
        if not self._rest:
            raise PermFail("unbalanced angle bracket")
        self._rest.pop()
        self._take()
        while self._rest and self._rest[-1].kind in _PHRASE:
            self._rest.pop()

    def _colon(self) -> None:
        before = self._rest[-2:]
        kinds = [token.kind for token in before]
        words = [token.text.lower() for token in before]
        if kinds == [Kind.COLON, Kind.ATOM] and words[1] == b"include":
            del self._rest[-2:]
            path = address_bytes(reversed(self._address))
            self._address.clear()
            self._items.append(Include(path))
        self._finish()

    def _finish(self) -> None:
        if self._address:
            self._take()
        self._joins = True

    def _take(self) -> None:
        has_at = AT in self._address
        text = address_bytes(reversed(self._address))
        self._address.clear()
        self._items.append(Name(text, has_at))
