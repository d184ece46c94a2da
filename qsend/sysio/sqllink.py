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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qsend.core import logline
from qsend.core.errors import TempFail
from qsend.core.sqlrules import Row
from qsend.core.users import Trouble
from qsend.formats.sqlserver import SqlServer
from qsend.sysio import clock
from qsend.sysio.loop import Loop
from qsend.sysio.sqlconnection import QueryRefused, ServerLost, SqlConnection, Value

OnRows = Callable[[Sequence[Row] | Trouble], None]

ANSWER_S = 5.0
"""Longest wait of a question, from asking: what waits in line counts too."""
PROBE_S = 0.5
"""Pause between two tries to reach any server: delivery goes on within seconds."""
WAITING_MAX = 20000
"""Questions in line; with more, they are asked faster than they are answered."""


@dataclass(slots=True, kw_only=True)
class _Request:
    """One query on its way; `done` is None once it is answered."""

    sql: str
    values: Mapping[str, Value]
    done: OnRows | None
    due_mono: float


class SqlLink:
    """Runs queries one after another; give all of them from the loop's thread."""

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
        self._done: deque[tuple[_Request | None, Sequence[Row] | TempFail]] = deque()
        self._is_due = False
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._connection = SqlConnection(servers)
        # Daemon: it may be waiting for a server when the process ends.
        threading.Thread(target=self._serve, name="sql", daemon=True).start()

    @property
    def trouble(self) -> bytes | None:
        """Why nothing can be asked now; None when it can."""
        return self._trouble

    def ask(self, sql: str, values: Mapping[str, Value], done: OnRows) -> None:
        """Run one query; `done` gets its rows or Trouble, maybe before this returns.

        `sql` has `%(name)s` where `values` go in.
        """
        if self._trouble is not None:
            done(Trouble(text=self._trouble))
            return
        if len(self._waiting) >= WAITING_MAX:
            done(Trouble(text=b"too many questions wait for the database"))
            return
        due_mono = clock.mono() + ANSWER_S
        request = _Request(sql=sql, values=values, done=done, due_mono=due_mono)
        self._waiting.append(request)
        self._requests.put(request)
        self._watch()

    def close(self) -> None:
        """Take no more questions; those asked are still answered."""
        self._requests.put(None)
        self._closing.set()

    # On the loop's thread

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
        while (request := self._requests.get()) is not None:
            if request.done is None:
                continue  # nobody waits for it any more
            result = self._run(request)
            self._tell(request, result)
            if isinstance(result, ServerLost):
                self._probe()
        self._connection.close()

    def _run(self, request: _Request) -> Sequence[Row] | TempFail:
        try:
            return self._connection.run(request.sql, request.values)
        except (ServerLost, QueryRefused) as exc:
            return exc

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
