"""Address lists of header fields: which addresses they hold, each one rewritten.

Lists are worked from right to left, where each token already tells what the
one before it belongs to. Must not know how tokens are written.
Source: qmail token822.c token822_addrlist(), qmail-inject.c rwgeneric(),
qmail-header(5).
"""

from __future__ import annotations

from qsend.core.light import TYPE_CHECKING, dataclass
from qsend.core.tokens import AT, COMMA, DOT, WORDS, Kind, Token, address_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Tokens = tuple[Token, ...]

_PHRASE = frozenset({Kind.COMMENT, Kind.ATOM, Kind.QUOTED, Kind.AT, Kind.DOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What incomplete addresses are completed with.

    `host` stands for a missing domain; `domain` follows a host without a dot;
    `plus` replaces a final `+`. Without their leading `@` or dot.
    """

    host: Tokens
    domain: Tokens
    plus: Tokens


def rewrite_address(address: Tokens, defaults: Defaults) -> Tokens:
    """The address, completed; () for the null address and for what leaves nothing.

    `x` gives `x@host`, `x@h` gives `x@h.domain`, `x@h+` gives `x@h.plus`; a
    source route, one final dot and one final `@` are dropped. An address at
    the empty literal `[]` stays as it is.

    Args:
        address: tokens from left to right, without angle brackets.
    Raises: nothing.
    Source: qmail-inject.c rwgeneric().
    """
    if address[-2:-1] == (AT,) and _is_empty_literal(address[-1]):
        return address
    address = _without_route(address)
    for mark in (DOT, AT):
        if address and address[-1] == mark:
            address = address[:-1]
    if not address:
        return ()
    if AT not in address:
        address = (*address, AT, *defaults.host)
    return _with_domain(_with_plus(address, defaults.plus), defaults.domain)


def _is_empty_literal(token: Token) -> bool:
    return token.kind is Kind.LITERAL and not token.text


def _without_route(address: Tokens) -> Tokens:
    if not address or address[0] != AT:
        return address
    for index, token in enumerate(address):
        if token.kind is Kind.COLON:
            return address[index + 1 :]
    return ()


def _with_plus(address: Tokens, plus: Tokens) -> Tokens:
    last = address[-1]
    if last.kind is not Kind.ATOM or not last.text.endswith(b"+"):
        return address
    return (*address[:-1], Token(kind=Kind.ATOM, text=last.text[:-1]), DOT, *plus)


def _with_domain(address: Tokens, domain: Tokens) -> Tokens:
    for token in reversed(address):
        if token.kind in (Kind.DOT, Kind.LITERAL):
            return address
        if token.kind is Kind.AT:
            break
    return (*address, DOT, *domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressList:
    """An address list after rewriting.

    `tokens` is the whole list from left to right, and means something only
    when `is_complete`. `addresses` are the rewritten addresses, unquoted, from
    right to left; of a list with an error those right of the error.
    """

    tokens: Tokens
    addresses: tuple[bytes, ...]
    is_complete: bool


def rewrite_list(
    tokens: Sequence[Token], rewrite: Callable[[Tokens], Tokens]
) -> AddressList:
    """The list with `rewrite` applied to each address in it.

    Phrases, comments and groups stay; words that nothing joins become addresses
    of their own (`a b` gives `a, b`). An address may be (): `<>`.

    Args:
        tokens: the list from left to right, without the field's name and colon.
        rewrite: a pure function of one address, left to right; () is allowed.
    Raises: nothing; a nested group, a colon outside a group or a `>` alone give
        a list that is not complete.
    Source: token822.c token822_addrlist().
    """
    reader = _RightToLeft(tokens, rewrite)
    is_complete = reader.read()
    return AddressList(
        tokens=tuple(reversed(reader.out)),
        addresses=tuple(reader.addresses),
        is_complete=is_complete,
    )


class _RightToLeft:
    """The state of one walk; every token list here runs from right to left."""

    def __init__(
        self, tokens: Sequence[Token], rewrite: Callable[[Tokens], Tokens]
    ) -> None:
        self._rewrite = rewrite
        self._rest = list(tokens)
        self._address: list[Token] = []
        self._in_group = False
        # True where a word may join the address right of it: after a mark.
        self._joins = True
        self.out: list[Token] = []
        self.addresses: list[bytes] = []

    def read(self) -> bool:
        """Walk the whole list; False when it has an error."""
        is_good = True
        while self._rest and is_good:
            kind = self._rest[-1].kind
            if kind in WORDS:
                self._read_word()
            elif kind is Kind.RIGHT:
                is_good = self._read_angle()
            elif kind is Kind.SEMICOLON:
                is_good = self._read_group_end()
            elif kind is Kind.COLON:
                is_good = self._read_group_name()
            else:
                self._read_other(kind)
        if is_good:
            self._finish_address()
        return is_good

    def _read_word(self) -> None:
        if not self._joins:
            self._finish_address(COMMA)
        self._joins = False
        self._address.append(self._rest.pop())

    def _read_other(self, kind: Kind) -> None:
        if kind is Kind.COMMENT:  # a blank: it neither joins nor separates
            self.out.append(self._rest.pop())
            return
        self._joins = True
        if kind is Kind.COMMA:
            self._finish_address()
            self.out.append(self._rest.pop())
        else:
            self._address.append(self._rest.pop())

    def _read_angle(self) -> bool:
        self._finish_address(COMMA)
        self.out.append(self._rest.pop())
        while self._rest and self._rest[-1].kind is not Kind.LEFT:
            self._address.append(self._rest.pop())
        self._take_address()
        if not self._rest:
            return False
        self.out.append(self._rest.pop())
        while self._rest and self._rest[-1].kind in _PHRASE:
            self.out.append(self._rest.pop())
        self._joins = False
        return True

    def _read_group_end(self) -> bool:
        self._finish_address(COMMA)
        if self._in_group:
            return False
        self._in_group = True
        self._joins = True
        self.out.append(self._rest.pop())
        return True

    def _read_group_name(self) -> bool:
        self._finish_address()
        if not self._in_group:
            return False
        self._in_group = False
        while self._rest and self._rest[-1].kind is not Kind.COMMA:
            self.out.append(self._rest.pop())
        if self._rest:
            self.out.append(self._rest.pop())
        self._joins = True
        return True

    def _finish_address(self, *separator: Token) -> None:
        if self._address:
            self._take_address()
            self.out.extend(separator)

    def _take_address(self) -> None:
        address = self._rewrite(tuple(reversed(self._address)))
        self._address.clear()
        self.addresses.append(address_bytes(address))
        self.out.extend(reversed(address))
