"""Carries transactions to their destinations and reports every recipient once.

A transaction takes an idle session of its destination, or a new one: hosts from
the DNS or the route, dialled in order. Where no more sessions are to be had it
waits for one (smtpgate). A kept session that turns out dead before it answered
anything is replaced silently, once. Recipients told 452 after an accepted one go
into a next transaction.
Must not do: decide about retries or bounces; open a message by name.
Source: qmail-remote.c main(), qmail-rspawn.c report().
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import replace
from typing import Protocol

from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.model import Cause, DelId, Letter
from qsend.core.mx import Host
from qsend.core.smtpaddress import is_sendable, unsendable_answer
from qsend.core.smtptable import State
from qsend.core.smtptypes import Answer, Envelope, Outcome
from qsend.formats.delivery import Report, Transaction
from qsend.sysio.smtpcontent import Content
from qsend.sysio.smtpdial import Health, dial
from qsend.sysio.smtpgate import BUSY_S, IDLE_SHORT_S, PAUSE_S, Gates
from qsend.sysio.smtppool import IDLE_MAX, Pool
from qsend.sysio.smtpsession import Session, SessionFailed, Settings, Sweeper

IDLE_S = 5.0
"""How long an idle session waits for more mail: below every server's patience,
and long enough for a queue in motion."""
SERVED_MAX = 1000
"""Transactions of one session; servers and balancers like to see a client anew."""
AGE_MAX_S = 300.0
"""Longest use of one session, so that a better host that came back is found."""

OnReport = Callable[[Report], None]
Key = tuple[bytes, int]


class HostFinder(Protocol):
    """What the courier asks of the DNS (sysio.dns.Dns)."""

    async def hosts(
        self, domain: bytes, own: Container[str] = frozenset()
    ) -> Sequence[Host]:
        """The hosts of a domain. Raises: TempFail, PermFail."""

    async def relay_hosts(self, relay: bytes) -> Sequence[Host]:
        """The addresses of a relay. Raises: TempFail, PermFail."""


class _Work:
    """One transaction under way: whom it is still for, and who carries it.

    `refusal` and `since_mono` tell that it waits for a session, and why.
    """

    __slots__ = (
        "content",
        "key",
        "recips",
        "refusal",
        "report",
        "session",
        "since_mono",
        "task",
        "transaction",
    )

    def __init__(
        self,
        transaction: Transaction,
        recips: Sequence[tuple[DelId, bytes]],
        content: Content,
        report: OnReport,
    ) -> None:
        self.transaction = transaction
        self.recips = recips
        self.content = content
        self.report = report
        self.key: Key = (transaction.relay, transaction.port)
        if not transaction.relay:
            self.key = (transaction.domain.lower(), 0)
        self.session: Session | None = None
        self.task: asyncio.Task[None] | None = None
        self.refusal: Answer | None = None
        self.since_mono = 0.0

    def report_all(self, answer: Answer) -> None:
        for delid, _recip in self.recips:
            self.report(_report(delid, answer))


class Courier:
    """Runs the transactions of one remote process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dns: HostFinder,
        health: Health,
        settings: Settings,
        own: Callable[[], Container[str]],
        idle_max: int = IDLE_MAX,
    ) -> None:
        """Serve under `loop`.

        Args:
            settings: of new sessions.
            own: the addresses of this machine; may raise TempFail.
            idle_max: sessions kept while nobody needs them.
        """
        self._settings = settings
        self._loop = loop
        self._dns = dns
        self._health = health
        self._own = own
        self._sweeper = Sweeper(loop)
        self._pool: Pool[Session] = Pool(idle_max)
        self._gates: Gates[_Work] = Gates()
        self._tending: asyncio.TimerHandle | None = None
        self._works: set[_Work] = set()

    def deliver(self, transaction: Transaction, fd: int, report: OnReport) -> None:
        """Carry one message; owns `fd`; `report` gets each delivery once.

        After `abort` the reports of what was aborted may be missing.
        """
        try:
            content = Content(fd)
        except TempFail as exc:
            answer = _answer_of(exc, Letter.DEFERRAL, Cause.NORMAL)
            for delid, _recip in transaction.recips:
                report(_report(delid, answer))
            return
        recips = _sendable(transaction, report)
        if not recips:
            content.close()
            return
        work = _Work(transaction, recips, content, report)
        self._works.add(work)
        self._start(work)

    def use(self, settings: Settings) -> None:
        """New settings: sessions that were made by the old ones end when idle."""
        self._settings = settings
        self._pool.leave_all()

    def abort(self) -> None:
        """End every transaction whose final dot is not sent yet, unreported."""
        for work in tuple(self._works):
            if work.session is not None and work.session.state is State.DOT:
                continue
            self._end(work)
            if work.task is not None:
                work.task.cancel()
            if work.session is not None:
                work.session.abort()

    def close(self) -> None:
        """Drop everything at once."""
        self.abort()
        for work in tuple(self._works):
            self._end(work)
        if self._tending is not None:
            self._tending.cancel()
        self._sweeper.close_all()

    def _start(self, work: _Work) -> None:
        if work not in self._works:
            return  # aborted meanwhile
        session = self._pool.take(work.key)
        if session is not None:
            self._run(work, session)
        elif not self._gates.join(work.key, work, self._loop.time()):
            self._open(work)

    def _open(self, work: _Work) -> None:
        work.session = None
        work.task = self._loop.create_task(self._open_and_run(work))
        work.task.add_done_callback(_raise_unexpected)

    async def _open_and_run(self, work: _Work) -> None:
        try:
            session = await self._dial(work.transaction)
        except SessionFailed as exc:
            if exc.is_busy or self._gates.sessions(work.key):
                self._wait(work, exc.answer)
                return
            answer = exc.answer
        except TempFail as exc:
            answer = _answer_of(exc, Letter.DEFERRAL, Cause.UNREACHABLE)
        except PermFail as exc:
            answer = _answer_of(exc, Letter.FAILURE, Cause.NORMAL)
        else:
            work.task = None
            self._gates.opened(work.key)
            session.on_idle = lambda session: self._rest(work.key, session)
            session.on_closed = lambda session: self._lose(work.key, session)
            self._run(work, session)
            self._open_next(work.key)  # there may be room for more
            return
        self._give_up(work, answer)

    def _give_up(self, work: _Work, answer: Answer) -> None:
        work.report_all(answer)
        self._end(work)

    async def _dial(self, transaction: Transaction) -> Session:
        if transaction.relay:
            hosts = await self._dns.relay_hosts(transaction.relay)
            port = transaction.port or 25
        else:
            hosts = await self._dns.hosts(transaction.domain, self._own())
            port = 25
        settings = self._settings
        demand = settings.tls.demand(
            transaction.relay or transaction.domain, is_relay=bool(transaction.relay)
        )
        return await dial(hosts, port, demand, settings, self._health, self._sweeper)

    def _run(self, work: _Work, session: Session) -> None:
        work.session, work.refusal = session, None
        was_kept = session.served > 0
        envelope = Envelope(
            sender=work.transaction.sender,
            recips=[recip for _delid, recip in work.recips],
            size=work.content.size,
            eight_bit=work.content.is_eight_bit,
        )

        def done(_session: Session, outcome: Outcome) -> None:
            self._done(work, outcome, was_kept=was_kept)

        session.begin(envelope, work.content, done)

    def _done(self, work: _Work, outcome: Outcome, *, was_kept: bool) -> None:
        if work not in self._works:
            return  # aborted: nobody waits for it
        if was_kept and outcome.is_untouched:
            self._open(work)
            return
        later = []
        for index, (delid, recip) in enumerate(work.recips):
            answer = outcome.answer(index)
            if answer is None:
                later.append((delid, recip))
            else:
                work.report(_report(delid, answer))
        if later:
            work.recips, work.session = later, None
            # In the next turn this session is idle again and can be taken.
            self._loop.call_soon(self._start, work)
        else:
            self._end(work)

    def _rest(self, key: Key, session: Session) -> None:
        now_mono = self._loop.time()
        is_old = now_mono - session.born_mono > AGE_MAX_S
        is_stale = session.settings is not self._settings
        if is_old or is_stale or session.served >= SERVED_MAX:
            session.leave()
            return
        work = self._next(key)
        if work is not None:
            self._run(work, session)
            return
        is_scarce = self._gates.is_scarce(key, now_mono)
        session.rest_until(now_mono + (IDLE_SHORT_S if is_scarce else IDLE_S))
        self._pool.put(key, session)

    def _lose(self, key: Key, session: Session) -> None:
        self._pool.discard(session)
        self._gates.closed(key)
        self._open_next(key)  # in its place

    # Those who wait for a session.

    def _wait(self, work: _Work, refusal: Answer) -> None:
        work.task = None
        session = self._pool.take(work.key)  # idle since we asked for another
        if session is not None:
            self._run(work, session)
            return
        self._gates.refused(work.key, work, refusal, self._loop.time())
        if self._tending is None:
            self._tending = self._loop.call_later(PAUSE_S, self._tend)

    def _tend(self) -> None:
        """Every PAUSE_S while somebody waits: give up, or look for room."""
        self._tending = None
        now_mono = self._loop.time()
        busy_s = min(BUSY_S, self._settings.timeout_connect)
        for key in self._gates.waited_for():
            is_reached = self._gates.sessions(key) > 0
            for work in self._gates.overdue(key, now_mono, busy_s):
                if work in self._works and work.refusal is not None:
                    refusal = work.refusal
                    if is_reached:
                        refusal = replace(refusal, cause=Cause.NORMAL)
                    self._give_up(work, refusal)
            if not self._gates.is_full(key, now_mono):
                self._open_next(key)
        if self._gates.waited_for():
            self._tending = self._loop.call_later(PAUSE_S, self._tend)

    def _open_next(self, key: Hashable) -> None:
        work = self._next(key)
        if work is not None:
            self._open(work)

    def _next(self, key: Hashable) -> _Work | None:
        """The next one that waits for this destination, and was not aborted."""
        while (work := self._gates.next(key)) is not None:
            if work in self._works:
                return work
        return None

    def _end(self, work: _Work) -> None:
        self._works.discard(work)
        work.content.close()


def _raise_unexpected(task: asyncio.Task[None]) -> None:
    """An exception nobody foresaw goes to the loop's handler, not into silence."""
    if not task.cancelled():
        task.result()


def _sendable(
    transaction: Transaction, report: OnReport
) -> Sequence[tuple[DelId, bytes]]:
    """The recipients SMTP can carry; the others are reported."""
    if not is_sendable(transaction.sender):
        refused, recips = transaction.recips, []
        answer = unsendable_answer(is_sender=True)
    elif all(is_sendable(recip) for _delid, recip in transaction.recips):
        return transaction.recips
    else:
        recips = [pair for pair in transaction.recips if is_sendable(pair[1])]
        refused = tuple(p for p in transaction.recips if not is_sendable(p[1]))
        answer = unsendable_answer(is_sender=False)
    for delid, _recip in refused:
        report(_report(delid, answer))
    return recips


def _report(delid: DelId, answer: Answer) -> Report:
    return Report(
        delid=delid, letter=answer.letter, text=answer.text, cause=answer.cause
    )


def _answer_of(exc: QsendError, letter: Letter, cause: Cause) -> Answer:
    text = str(exc).encode("ascii", "replace") + b"\n"
    return Answer(letter=letter, text=text, cause=cause)
