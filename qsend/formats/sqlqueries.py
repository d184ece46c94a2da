"""The SQL texts: the defaults, control/sqlqueries, and one text for a whole Ask.

A query is a SELECT with named placeholders (`:name`) that gives the columns of
core/sqlrules.py. The queries of an Ask are joined by UNION ALL, each row led by
the number of its part, all values as binary strings: one round trip, whatever
the character sets of the tables.
Values never become part of a text here: they go to the driver beside it.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.sqlrules import COLUMNS, PLACEHOLDERS, Ask

SQLQUERIES = "control/sqlqueries"
QUERY_MAX = 4096
"""Longest query: what 128 prefixes of one local part make of it stays far below
the packet size of any server."""

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "mailbox": "SELECT username, uid, gid, home FROM mailbox"
        " WHERE username = :username",
        "virtual": "SELECT username, ext, virtual_username, virtual_host FROM `virtual`"
        " WHERE virtual_host = :host AND virtual_username IN (:user, '')",
        "pattern": "SELECT username, ext, virtual_username, virtual_host FROM `virtual`"
        " WHERE virtual_host = :host"
        " AND (virtual_username = '' OR :user LIKE virtual_username)",
        "virtualhost": "SELECT virtual_host FROM `virtual`"
        " WHERE virtual_host = :host LIMIT 1",
        "forward": "SELECT username, ext FROM `virtual`"
        " WHERE username = 'forward' AND ext = :ext LIMIT 1",
        "alias": "SELECT alias, alias_username, alias_host FROM alias"
        " WHERE username = :username AND alias IN (:alias, '@', '')",
        "rcpthost": "SELECT host FROM rcpthosts WHERE host = :host",
        "login": "SELECT username, uid, gid, home, password, password_type, suspended"
        " FROM mailbox WHERE username = :username",
    }
)
"""The queries as they are without control/sqlqueries."""

# What a query is made of: quoted text, where nothing has a meaning; marks that
# would end or hide the statement it is put into; and placeholders.
_TOKENS = re.compile(
    r"(?P<quoted>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`[^`]*`)"
    r"|(?P<open>['\"`])"
    r"|(?P<forbidden>;|--|#|/\*)"
    r"|(?P<placeholder>(?<![:\w]):(?P<name>[A-Za-z_][A-Za-z0-9_]*))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlQueries:
    """The text of every query of COLUMNS, as an operator writes it; all valid."""

    texts: tuple[tuple[str, str], ...]

    def statement(self, ask: Ask) -> tuple[str, dict[str, bytes]]:
        """An Ask (with parts) as PyMySQL takes it: text with `%(...)s`, and values."""
        names = tuple(part.query for part in ask.parts)
        values = {
            f"{name}_{number}": _characters(value)
            for number, part in enumerate(ask.parts)
            for name, value in part.values.items()
        }
        return _statement(self.texts, names), values


def parse_sqlqueries(content: bytes | None, file: str = SQLQUERIES) -> SqlQueries:
    """The queries in force; `content` is None without the file.

    Lines are `name=query`; blank lines and those with `#` in the first column are
    passed over.
    Raises: ConfigError with every fault and its line.
    """
    texts = dict(DEFAULTS)
    faults: list[ConfigFault] = []
    seen: set[str] = set()
    for number, raw in enumerate((content or b"").split(b"\n"), start=1):
        if raw[:1] == b"#" or not raw.strip():
            continue
        name, text = "", ""
        try:
            name, equals, text = (
                word.strip() for word in raw.decode("utf-8").partition("=")
            )
            problem = None if equals else "expected name=query"
        except UnicodeDecodeError:
            problem = "not UTF-8"
        problem = problem or _problem(name, text, seen)
        if problem:
            faults.append(ConfigFault(file=file, line=number, problem=problem))
        seen.add(name)
        texts[name] = text
    if faults:
        raise ConfigError(faults)
    return SqlQueries(texts=tuple(texts.items()))


def _problem(name: str, text: str, seen: set[str]) -> str | None:
    """What is wrong with a query, or None."""
    if name not in COLUMNS:
        return f"expected one of {', '.join(COLUMNS)}, found {name[:40]!r}"
    if name in seen:
        return f"{name} again"
    if len(text) > QUERY_MAX:
        return f"{name} is longer than {QUERY_MAX} characters"
    if not re.match(r"select\b", text, re.IGNORECASE) or "\0" in text:
        return f"{name} is no SELECT"
    return _token_problem(name, text)


def _token_problem(name: str, text: str) -> str | None:
    missing = set(PLACEHOLDERS[name])
    for token in _TOKENS.finditer(text):
        if token["open"]:
            return f"{name}: a {token['open']} is not closed"
        if token["forbidden"]:
            return f"{name}: {token['forbidden']} is not allowed outside quotes"
        if token["name"] and token["name"] not in PLACEHOLDERS[name]:
            return f"{name} has no value :{token['name'][:40]}"
        missing.discard(token["name"] or "")
    if missing:
        return f"{name}: :{', :'.join(sorted(missing))} missing"
    return None


def _characters(value: bytes) -> bytes:
    """A value that a server compares with text columns.

    Bytes that are no UTF-8 would fail the query, and the mail would wait for ever.
    The replacement finds patterns and catch-alls; what it finds besides is not what
    was asked for, and the judges pass it over.
    """
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace").encode("utf-8")
    return value


@lru_cache(maxsize=1024)
def _statement(texts: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> str:
    by_name = dict(texts)
    width = max(len(COLUMNS[name]) for name in names)
    arms = [
        _arm(number, name, by_name[name], width) for number, name in enumerate(names)
    ]
    return " UNION ALL ".join(arms)


def _arm(number: int, name: str, text: str, width: int) -> str:
    cells = [f"CAST(q.{column} AS BINARY)" for column in COLUMNS[name]]
    cells += ["NULL"] * (width - len(cells))
    return f"SELECT {number}, {', '.join(cells)} FROM ({_bound(text, number)}) AS q"


def _bound(text: str, number: int) -> str:
    """The query in the driver's form, its placeholders marked with the part."""
    pieces: list[str] = []
    at = 0
    for token in _TOKENS.finditer(text):
        if token["name"]:
            pieces.append(text[at : token.start()].replace("%", "%%"))
            pieces.append(f"%({token['name']}_{number})s")
            at = token.end()
    pieces.append(text[at:].replace("%", "%%"))
    return "".join(pieces)
