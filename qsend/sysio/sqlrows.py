"""Rows of questions: from memory, from a question already on its way, or asked.

Equal questions at the same time cost one round trip, and for a while after it
none. That there are no rows is remembered too, more shortly: a mailbox made
meanwhile wants its mail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qsend.core.sqlrules import Ask, Row
from qsend.core.ttlcache import TtlCache
from qsend.core.users import Trouble
from qsend.formats.sqlqueries import SqlQueries
from qsend.sysio import clock
from qsend.sysio.sqllink import OnRows, SqlLink

FOUND_S = 30.0
"""How long rows count as known: an operator's change is waited for this long at
most, or not at all after a HUP."""
NONE_S = 2.0
KEPT_QUESTIONS = 20000
"""Some megabytes: the addresses that most mail of a large site goes to."""

_Key = tuple[tuple[object, ...], ...]


class SqlRows:
    """The rows that a link brings, each asked for once."""

    def __init__(
        self,
        link: SqlLink,
        queries: SqlQueries,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """`log`, if given, is told every query that goes to the server."""
        self._link = link
        self._queries = queries
        self._log = log
        self._known: TtlCache[_Key, Sequence[Row]] = TtlCache(KEPT_QUESTIONS)
        self._coming: dict[_Key, list[OnRows]] = {}

    def ask(self, ask: Ask, done: OnRows, *, is_kept: bool = True) -> None:
        """`done` gets the rows of `ask` or Trouble, maybe before this returns.

        Rows that are not to be kept are asked for anew, by each who asks.
        """
        if not ask.parts:
            done(())
            return
        if not is_kept:
            self._send(ask, done)
            return
        key = _key(ask)
        known = self._known.get(key, clock.mono())
        if known is not None:
            done(known)
            return
        waiting = self._coming.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        self._coming[key] = [done]
        self._send(ask, lambda rows: self._came(key, rows))

    def clear(self) -> None:
        """Forget all rows; what is on its way is still handed out."""
        self._known.clear()

    def _send(self, ask: Ask, done: OnRows) -> None:
        if self._log is None:
            self._link.ask(ask, self._queries, done)
            return
        log, shown = self._log, _shown(ask)

        def logged(rows: Sequence[Row] | Trouble) -> None:
            if isinstance(rows, Trouble):
                log(f"query {shown}: no answer")
            else:
                log(f"query {shown}: rows {len(rows)}")
            done(rows)

        self._link.ask(ask, self._queries, logged)

    def _came(self, key: _Key, rows: Sequence[Row] | Trouble) -> None:
        if not isinstance(rows, Trouble):
            lasts_s = FOUND_S if rows else NONE_S
            self._known.put(key, rows, clock.mono(), lasts_s)
        for done in self._coming.pop(key):
            done(rows)


def _key(ask: Ask) -> _Key:
    return tuple((part.query, *part.values.values()) for part in ask.parts)


def _shown(ask: Ask) -> str:
    """The parts for the log; a value is a name or an address, never a secret."""
    return "; ".join(
        " ".join((part.query, *(ascii(each)[1:] for each in part.values.values())))
        for part in ask.parts
    )
