"""One connection to the database, owned by one thread, and a breaker in front of it.

Whoever asks never waits for the server: answers come back on the loop's thread, and
within ANSWER_S there is one, if only Trouble. While no server answers, every
question gets Trouble at once, and the thread tries the servers in turn until one
does. A connection that the server dropped is opened again, and the question that
met it is asked again: all questions only read.
Must not: write to the database, or build queries from values.
Source: PyMySQL; docs/VIRTUAL.md.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qsend.core import logline
from qsend.core.errors import TempFail
from qsend.core.sqlrules import Ask, Part, Row
from qsend.core.users import Trouble
from qsend.formats.sqlqueries import SqlQueries
from qsend.formats.sqlserver import SqlServer
from qsend.sysio import clock, threads
from qsend.sysio.loop import Loop
from qsend.sysio.sqlconnection import QueryRefused, ServerLost, SqlConnection

OnRows = Callable[[Sequence[Row] | Trouble], None]

ANSWER_S = 5.0
"""Longest wait of a question, from asking: what waits in line counts too."""
PROBE_S = 0.5
"""Pause between two tries to reach any server: delivery goes on within seconds."""
WAITING_MAX = 20000
"""Questions in line; with more, they are asked faster than they are answered."""
PARTS_MAX = 48
"""Parts of one statement, which questions share, and with it a round trip: more of
them do not make an answer cheaper, and let the first one wait for the last. A question
that has more, for a local part with many dashes, takes several statements."""


@dataclass(slots=True, kw_only=True)
class _Request:
    """One question on its way; `done` is None once it is answered."""

    ask: Ask
    queries: SqlQueries
    done: OnRows | None
    due_mono: float


class SqlLink:
    """Asks one question after another; give all of them from the loop's thread.

    Questions that wait in line are asked together.
    """

    def __init__(
        self,
        loop: Loop,
        servers: Sequence[SqlServer],
        say: Callable[[bytes], None],
        on_state: Callable[[bytes | None], None] = lambda _trouble: None,
    ) -> None:
        """Start the thread; nothing is connected before the first query.

        Args:
            servers: tried in this order, at least one.
            say: writes a log line; called on the loop's thread.
            on_state: told when no server answers any more (the reason), and when
                one does again (None).
        """
        self._loop = loop
        self._say = say
        self._on_state = on_state
        self._trouble: bytes | None = None
        self._waiting: deque[_Request] = deque()
        self._is_watched = False
        self._done: deque[tuple[_Request | None, Sequence[Row] | Exception]] = deque()
        self._is_due = False
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._put_back: _Request | None = None  # the thread's own
        self._closing = threading.Event()
        self._connection = SqlConnection(servers)
        self._begin()

    @property
    def trouble(self) -> bytes | None:
        """Why nothing can be asked now; None when it can."""
        return self._trouble

    def ask(self, ask: Ask, queries: SqlQueries, done: OnRows) -> None:
        """Ask by these queries; `done` gets the rows of the parts, or Trouble.

        It may do so before this returns. `ask` has parts.
        """
        if self._trouble is not None:
            done(Trouble(text=self._trouble))
            return
        if len(self._waiting) >= WAITING_MAX:
            done(Trouble(text=b"too many questions wait for the database"))
            return
        due_mono = clock.mono() + ANSWER_S
        request = _Request(ask=ask, queries=queries, done=done, due_mono=due_mono)
        self._waiting.append(request)
        self._requests.put(request)
        self._watch()

    def close(self) -> None:
        """Take no more questions; those asked are still answered."""
        self._requests.put(None)
        self._closing.set()

    # On the loop's thread

    def _begin(self) -> None:
        """Start the thread; when there is none to be had, soon again."""
        if self._closing.is_set():
            return
        try:
            threads.start(self._serve)
        except RuntimeError:
            self._break(b"no thread is to be had")
            self._loop.call_later(PROBE_S, self._begin)

    def _watch(self) -> None:
        """Look after the oldest question, which is the first to be due."""
        while self._waiting and self._waiting[0].done is None:
            self._waiting.popleft()
        if self._waiting and not self._is_watched:
            self._is_watched = True
            delay_s = max(0.0, self._waiting[0].due_mono - clock.mono())
            self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._is_watched = False
        self._watch()
        if self._waiting and self._waiting[0].due_mono <= clock.mono():
            self._break(b"no answer")

    def _break(self, reason: bytes) -> None:
        """No server answers: nobody waits from here on."""
        waiting, self._waiting = self._waiting, deque()
        if self._trouble is None:
            self._trouble = b"the database does not answer: " + reason
            text = self._trouble.decode("utf-8", "backslashreplace")
            self._say(logline.warning(f"qmail-lookup: {text}"))
            self._on_state(self._trouble)
        for request in waiting:
            _finish(request, Trouble(text=self._trouble))

    def _mend(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._say(b"qmail-lookup: the database answers again\n")
            self._on_state(None)

    def _take_done(self) -> None:
        self._is_due = False
        while self._done:
            request, result = self._done.popleft()
            if isinstance(result, Exception) and not isinstance(result, TempFail):
                raise result
            if isinstance(result, ServerLost):
                self._break(os.fsencode(str(result)))
                continue
            self._mend()
            if request is None or request.done is None:
                continue  # a probe, or the asker has had its answer
            if isinstance(result, TempFail):
                text = f"the database refuses a query: {result}"
                self._say(logline.alert(f"qmail-lookup: {text}"))
                _finish(request, Trouble(text=os.fsencode(text)))
            else:
                _finish(request, result)
        self._watch()

    # On the thread of the connection

    def _serve(self) -> None:
        try:
            if self._trouble is not None:
                self._probe()
            while (first := self._next()) is not None:
                self._answer([first, *self._those_like(first)])
        except Exception as exc:  # noqa: BLE001 - the thread's outermost handler
            # A bug: the process ends by it, and start brings one with a new thread.
            self._done.append((None, exc))
            self._loop.call_soon(self._take_done)
        self._connection.close()

    def _next(self) -> _Request | None:
        """The next one that somebody waits for; None after `close`."""
        request, self._put_back = self._put_back, None
        while request is None or request.done is None:
            request = self._requests.get()
            if request is None:
                return None
        return request

    def _those_like(self, first: _Request) -> Iterator[_Request]:
        """What waits in line and can be asked with it."""
        room = PARTS_MAX - len(first.ask.parts)
        while room > 0 and not self._requests.empty():
            request = self._requests.get()
            if request is None:
                self._requests.put(None)
                return
            if request.done is None:
                continue
            room -= len(request.ask.parts)
            if room < 0 or request.queries is not first.queries:
                self._put_back = request
                return
            yield request

    def _answer(self, together: Sequence[_Request]) -> None:
        parts = [part for request in together for part in request.ask.parts]
        try:
            rows = self._run(together[0].queries, parts)
        except ServerLost as exc:
            self._tell(together[0], exc)  # all others hear of it by that
            self._probe()
        except QueryRefused as exc:
            if len(together) == 1:
                self._tell(together[0], exc)
                return
            for request in together:
                self._answer([request])  # it may be the fault of one
        else:
            shares = _shares(rows, [len(request.ask.parts) for request in together])
            for request, share in zip(together, shares, strict=True):
                self._tell(request, share)

    def _run(self, queries: SqlQueries, parts: Sequence[Part]) -> list[Row]:
        """The rows of all parts, by as many statements as it takes.

        Raises: ServerLost, QueryRefused.
        """
        rows: list[Row] = []
        for at in range(0, len(parts), PARTS_MAX):
            some = parts[at : at + PARTS_MAX]
            sql, values = queries.statement(Ask(parts=tuple(some)))
            found = self._connection.run(sql, values)
            rows += [_moved(row, at, len(some)) for row in found] if at else found
        return rows

    def _probe(self) -> None:
        """Try the servers until one takes a connection."""
        while not self._closing.wait(PROBE_S):
            try:
                self._connection.connect()
            except ServerLost:
                continue
            self._tell(None, ())
            return

    def _tell(self, request: _Request | None, result: Sequence[Row] | TempFail) -> None:
        self._done.append((request, result))
        # Cleared before the results are taken, so none can be left behind.
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._take_done)


def _finish(request: _Request, answer: Sequence[Row] | Trouble) -> None:
    done, request.done = request.done, None
    if done is not None:
        done(answer)


def _moved(row: Row, at: int, count: int) -> Row:
    """A row of a later statement, numbered as all parts are."""
    number = row[0]
    if isinstance(number, int) and 0 <= number < count:
        return (at + number, *row[1:])
    return (-1, *row[1:])


def _shares(rows: Sequence[Row], counts: Sequence[int]) -> list[list[Row]]:
    """Each question's rows, numbered as its own parts are.

    `counts` are the parts of each question. A row with an unknown number goes to
    all, so that nobody takes it for none.
    """
    owners = [
        (share, number) for share, count in enumerate(counts) for number in range(count)
    ]
    shares: list[list[Row]] = [[] for _ in counts]
    for row in rows:
        at = row[0]
        if isinstance(at, int) and 0 <= at < len(owners):
            share, number = owners[at]
            shares[share].append((number, *row[1:]))
        else:
            for each in shares:
                each.append((-1, *row[1:]))
    return shares
