"""The mail filters of one SMTP client: asked one after the other, as control/milters
has them.

A filter is asked when a recipient has been found good, and told then what came before;
of contents it hears when all of the message is there, changed as those in front of it
would have it.
Source: docs/NETWORK.md; Postfix's MILTER_README (what later filters see).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from qsend.core.address import log_safe, quote
from qsend.core.draft import FIELDS_MAX, HEADER_MAX, Draft, parse_header, render_field
from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.milter import Discarded, Refusal, Steps, Talk, Verdict
from qsend.core.milterfacts import ClientFacts, MailFacts
from qsend.core.smtpdsteps import Filter
from qsend.formats.crlf import Unix, network
from qsend.formats.milter import CHUNK_MAX
from qsend.formats.milters import Down, Milter
from qsend.sysio import clock
from qsend.sysio.milterlink import Link, LinkBroken
from qsend.sysio.milterpool import MilterPool
from qsend.sysio.spool import Spool

_BODY_MAX = 64 << 20
"""Bytes that a new body may have; twice the size of the message, if that is more."""
_UNAVAILABLE = Refusal(
    text=b"451 4.7.1 mail filter unavailable, try again later (#4.7.1)\r\n"
)
_UNCHECKED = Refusal(text=b"550 5.7.1 mail filter unavailable (#5.7.1)\r\n")
_QUARANTINED = Refusal(text=b"550 5.7.1 quarantined by a mail filter (#5.7.1)\r\n")
_HUGE_HEADER = Refusal(text=b"552 5.3.4 header too large (#5.3.4)\r\n")
_NO_ROOM = Refusal(text=b"451 4.3.0 unable to keep the message (#4.3.0)\r\n")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """The message may be queued, like this; read `chunks` before anything else."""

    ident: bytes
    sender: bytes
    recips: tuple[bytes, ...]
    chunks: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class _Body:
    """What follows a header: a file from byte `at` on."""

    spool: Spool
    at: int

    def on_the_wire(self) -> Iterator[bytes]:
        for piece in self.spool.pieces(self.at):
            lines = network(piece)
            for start in range(0, len(lines), CHUNK_MAX):
                yield lines[start : start + CHUNK_MAX]


class _Seat:
    """A filter's place at one client."""

    def __init__(self, milter: Milter) -> None:
        self.milter = milter
        self.link: Link | None = None
        self.talk: Talk | None = None
        self.failure: Verdict = None
        """What its failure means to the current message."""
        self.is_out = False
        """Whether it has failed in the current message."""

    def sit(self, link: Link, client: ClientFacts) -> None:
        self.link, self.talk = link, Talk(link.terms, client)

    def leave(self) -> Link | None:
        """The connection, if another client may have it."""
        link, talk, self.link, self.talk = self.link, self.talk, None, None
        if link is None or talk is None or link.is_lost:
            return None
        link.end_client(is_open=talk.is_open)
        if link.can_be_shared:
            return link
        link.close()
        return None


class Filters:
    """All of them, at one client. Raises nothing that a filter does."""

    def __init__(
        self,
        home: str,
        milters: Iterable[Milter],
        pool: MilterPool,
        tell: Callable[[str], None],
    ) -> None:
        """For a new client.

        Args:
            tell: takes what the operator should know.
        """
        self._home = home
        self._pool = pool
        self._tell = tell
        self._seats = [_Seat(milter) for milter in milters]
        self._ident = b""
        self._spools: list[Spool] = []
        self._trouble: TempFail | None = None

    async def recipient(self, client: ClientFacts, asked: Filter) -> Refusal | None:
        """Why one more recipient is not taken, if so."""
        if asked.is_first:
            self._ident = b"%x.%x.%x" % (clock.now(), os.getpid(), next(_numbers))
        mail = MailFacts(
            ident=self._ident, sender=quote(asked.sender), parameters=asked.parameters
        )
        recip = quote(asked.recip)

        def steps(talk: Talk) -> Steps:
            return talk.recipient(client, mail, recip, is_first=asked.is_first)

        for seat in self._seats:
            if asked.is_first:
                verdict = await self._start(seat, client, steps)
            elif seat.is_out:
                verdict = seat.failure
            else:
                verdict = await self._hold(seat, steps)
            if isinstance(verdict, Refusal):
                self._say(seat, b"recipient", recip, verdict)
                return verdict
        return None

    def begin(self) -> None:
        """The contents of the message come now."""
        self.abandon()
        self._spools.append(Spool(self._home))

    def write(self, data: bytes) -> None:
        """A piece of them."""
        if self._trouble is None:
            try:
                self._spools[0].write(data)
            except TempFail as exc:
                self._trouble = exc

    def abandon(self) -> None:
        """Forget the contents."""
        for spool in self._spools:
            spool.close()
        self._spools.clear()
        self._trouble = None

    async def finish(
        self, sender: bytes, recips: Sequence[bytes]
    ) -> Passed | Refusal | Discarded:
        """What the filters make of the message; then call `abandon`."""
        try:
            if self._trouble is not None:
                raise self._trouble
            return await self._judge(sender, recips)
        except TempFail as exc:
            self._tell(f"milter: {exc}")
            return _NO_ROOM

    def tell_queued(self, passed: Passed, qp: int) -> None:
        """The message is in the queue: its name here, and its name there."""
        self._tell(f"milter: {passed.ident.decode()} qp {qp}")

    def close(self) -> None:
        """The client has gone."""
        self.abandon()
        for seat in self._seats:
            link = seat.leave()
            if link is not None:
                self._pool.give(seat.milter, link)

    # One filter

    async def _start(
        self, seat: _Seat, client: ClientFacts, steps: Callable[[Talk], Steps]
    ) -> Verdict:
        """A message begins; a connection that was used before may be dead."""
        seat.is_out, seat.failure = False, None
        while True:
            if seat.link is not None and seat.link.is_lost:
                seat.link.abort()
                seat.link = None
            is_new = False
            try:
                if seat.link is None:
                    link, is_new = await self._pool.take(seat.milter)
                    seat.sit(link, client)
                assert seat.link is not None
                assert seat.talk is not None
                return await seat.link.run(steps(seat.talk))
            except LinkBroken as exc:
                if seat.link is None or is_new:
                    return self._fail(seat, exc)
                seat.link = None

    async def _hold(self, seat: _Seat, steps: Callable[[Talk], Steps]) -> Verdict:
        assert seat.link is not None
        assert seat.talk is not None
        try:
            return await seat.link.run(steps(seat.talk))
        except LinkBroken as exc:
            return self._fail(seat, exc)

    def _fail(self, seat: _Seat, exc: LinkBroken) -> Verdict:
        """What a filter's failure means to the message."""
        milter = seat.milter
        seat.link = seat.talk = None
        seat.is_out = True
        seat.failure = _FAILURES[milter.down]
        self._tell(f"milter {milter.name}: {exc}: {milter.down.value}")
        return seat.failure

    def _say(self, seat: _Seat, what: bytes, whom: bytes, refusal: Refusal) -> None:
        if not seat.is_out:
            said = b" ".join(refusal.text.split())
            shown = b"milter %b: %b %b of %b refused: %b" % (
                seat.milter.name.encode(),
                what,
                log_safe(whom),
                self._ident,
                said,
            )
            self._tell(shown.decode("ascii", "backslashreplace"))

    # The message

    async def _judge(
        self, sender: bytes, recips: Sequence[bytes]
    ) -> Passed | Refusal | Discarded:
        """Raises: TempFail."""
        draft = self._draft(sender, recips)
        if draft is None:
            return _HUGE_HEADER
        quarantine = None
        for seat in self._seats:
            if seat.is_out:
                continue
            verdict, draft = await self._show(seat, draft)
            if isinstance(verdict, Refusal):
                self._say(seat, b"message from", sender, verdict)
                return verdict
            if isinstance(verdict, Discarded) or not draft.recips:
                self._note(f"{seat.milter.name}: discards")
                return Discarded()
            if draft.quarantine is not None and quarantine is None:
                quarantine = seat.milter.quarantine
                if quarantine is None:
                    self._say(seat, b"message from", sender, _QUARANTINED)
                    return _QUARANTINED
        if quarantine is not None:
            self._note(f"quarantined: {draft.quarantine!r}")
            _quarantine(draft, quarantine)
        return Passed(
            ident=self._ident,
            sender=draft.sender,
            recips=tuple(draft.recips),
            chunks=itertools.chain(
                [draft.header()], draft.body.spool.pieces(draft.body.at)
            ),
        )

    def _note(self, text: str) -> None:
        self._tell(f"milter: {self._ident.decode()} {text}")

    def _draft(self, sender: bytes, recips: Sequence[bytes]) -> Draft[_Body] | None:
        """The message as it came; None when its header is too large."""
        spool = self._spools[0]
        head = spool.head(HEADER_MAX)
        found = parse_header(head, is_all=len(head) == spool.size)
        if found is None or len(found[0]) > FIELDS_MAX:
            return None
        fields, at = found
        return Draft(
            sender=sender,
            recips=list(recips),
            fields=fields,
            body=_Body(spool, at),
        )

    async def _show(
        self, seat: _Seat, draft: Draft[_Body]
    ) -> tuple[Verdict, Draft[_Body]]:
        """What a filter makes of the message, and what the message is then."""
        changed = draft.copy()
        body = _NewBody(self._home, max(_BODY_MAX, 2 * self._spools[0].size))
        try:
            verdict = await self._hold(
                seat,
                lambda talk: talk.message(
                    changed, draft.body.on_the_wire(), body.write
                ),
            )
        finally:
            self._spools += body.spools
        if seat.is_out:
            return verdict, draft
        body.end()
        if body.spools:
            changed.body = _Body(body.spools[0], 0)
        return verdict, changed


class _NewBody:
    """What a filter puts in the place of the body, once it begins to."""

    def __init__(self, home: str, most: int) -> None:
        self.spools: list[Spool] = []
        self._home = home
        self._left = most
        self._lines = Unix()

    def write(self, piece: bytes) -> None:
        """Raises: RemoteProtocolError when it is too much; TempFail."""
        self._left -= len(piece)
        if self._left < 0:
            raise RemoteProtocolError("new body too long")
        if not self.spools:
            self.spools.append(Spool(self._home))
        self.spools[0].write(self._lines.feed(piece))

    def end(self) -> None:
        """Nothing more comes. Raises: TempFail."""
        if self.spools:
            self.spools[0].write(self._lines.end())


def _quarantine(draft: Draft[_Body], address: bytes) -> None:
    """Have it go to `address`, with a note of whom it was for, and why not there."""
    told = [(b"X-Quarantine-Reason", draft.quarantine or b"")]
    told += [(b"X-Quarantine-Recipient", quote(recip)) for recip in draft.recips]
    draft.fields[:0] = [
        render_field(name, value, keeps_space=False) for name, value in told
    ]
    draft.recips = [address]


_FAILURES = {
    Down.TEMPFAIL: _UNAVAILABLE,
    Down.REJECT: _UNCHECKED,
    Down.ACCEPT: None,
}
