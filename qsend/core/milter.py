"""One mail filter and one client: what is said in which order, and what comes of it.

Each conversation is a generator: it yields what to say and is resumed with the answer,
or None where there is none (and at the end of a message, yields LISTEN for the next
thing to hear); what it returns is the verdict. Must not: do I/O.
Source: libmilter's engine.c; Postfix's milter8.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from qsend.core.draft import HEADER_MAX, Body, Draft, apply
from qsend.core.errors import RemoteProtocolError
from qsend.core.milterfacts import ClientFacts, MailFacts, macros
from qsend.core.milterwords import (
    Answer,
    Connection,
    Edit,
    Heard,
    NewBody,
    Reply,
    Say,
    Stage,
    Terms,
    needed_action,
)

EDITS_MAX = 2_000
"""Things that a filter may change in one message, its body aside."""
_LINES_MAX = 32
_LINE_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The reply to the client, with its CR LF; 421 ends the session."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Discarded:
    """The client hears that the message is taken, and it is forgotten."""


Verdict = Refusal | Discarded | None
"""None: nothing against it."""
LISTEN = None
Steps = Generator[Say | None, Heard | None, Verdict]

REJECTED = Refusal(text=b"550 5.7.1 rejected by a mail filter (#5.7.1)\r\n")
DEFERRED = Refusal(text=b"451 4.7.1 mail filter: try again later (#4.7.1)\r\n")
SHUT_DOWN = Refusal(text=b"421 4.7.0 mail filter: goodbye\r\n")

_REPLY = re.compile(rb"([45][0-9]{2})(?:([ -])(.*))?")


def refusal_of(reply: Reply) -> Refusal:
    """The reply that a filter made up, as one that can be sent.

    Raises: RemoteProtocolError when it is none.
    """
    lines = reply.text.removesuffix(b"\r\n").split(b"\r\n")
    found = [_REPLY.fullmatch(line) for line in lines]
    codes = {match[1] for match in found if match is not None}
    if None in found or len(codes) != 1 or len(lines) > _LINES_MAX:
        raise RemoteProtocolError(f"no reply to a client: {reply.text[:60]!r}")
    code = codes.pop()
    # The filter's library has doubled each per cent, for sendmail.
    texts = [_shown(match[3] or b"") for match in found if match is not None]
    sent = [b"%b-%b\r\n" % (code, text) for text in texts[:-1]]
    sent.append(b"%b %b\r\n" % (code, texts[-1]))
    return Refusal(text=b"".join(sent))


def _shown(text: bytes) -> bytes:
    text = text.replace(b"%%", b"%")[:_LINE_MAX]
    return bytes(32 if byte < 32 or byte == 127 else byte for byte in text)


class Talk:
    """What one filter has been told of one client.

    After an error, or a conversation that was not finished, it is of no use.
    """

    def __init__(self, terms: Terms, client: ClientFacts) -> None:
        self._terms = terms
        self._client = client
        self._mail = MailFacts()
        self._is_connected = False
        self._helo: tuple[object, ...] | None = None
        self._connection: Answer | Refusal = Answer.CONTINUE
        """ACCEPT: whatever this client sends is taken."""
        self._message: Answer | Refusal = Answer.CONTINUE
        self.is_open = False
        """Whether the filter is in the middle of a message."""

    def recipient(
        self, client: ClientFacts, mail: MailFacts, recip: bytes, *, is_first: bool
    ) -> Steps:
        """Whether one more recipient is taken, of a new message if it `is_first`.

        Args:
            recip: quoted, without brackets.
        Raises: RemoteProtocolError.
        """
        self._client = client
        if is_first:
            self._mail = mail
            yield from self._begin()
        if (standing := self._standing()) is not Answer.CONTINUE:
            return standing if isinstance(standing, Refusal) else None
        heard = yield from self._ask(Stage.RCPT, b"<%b>" % recip, recip=recip)
        fate = self._fate(heard)
        if isinstance(fate, Refusal):
            return fate
        self._message = fate
        return None

    def message(
        self,
        draft: Draft[Body],
        body: Iterable[bytes],
        replace_body: Callable[[bytes], None],
    ) -> Steps:
        """What becomes of the message, and `draft` with what the filter changes.

        Args:
            body: in pieces, with lines that end in CR LF.
            replace_body: takes each piece of a new one.
        Raises: RemoteProtocolError.
        """
        standing = self._standing()
        if standing is Answer.CONTINUE:
            standing = yield from self._content(draft, body)
        if standing is Answer.CONTINUE:
            standing = yield from self._end(draft, replace_body)
        if isinstance(standing, Refusal):
            return standing
        return Discarded() if standing is Answer.DISCARD else None

    def _standing(self) -> Answer | Refusal:
        if self._connection is not Answer.CONTINUE:
            return self._connection
        return self._message

    # Envelope

    def _begin(self) -> Steps:
        if self.is_open:
            self.is_open = False
            yield Say(stage=Stage.ABORT, has_answer=False)
        self._message = Answer.CONTINUE
        if not self._is_connected:
            self._is_connected = True
            client = self._client
            connection = Connection(
                host=client.shown_host, address=client.address, port=client.port
            )
            self._connection = yield from self._greet(
                Stage.CONNECT, connection=connection
            )
        helo = self._client.helo
        said = (helo, self._client.tls)
        is_new = helo is not None and said != self._helo
        if self._connection is Answer.CONTINUE and is_new:
            self._helo = said
            self._connection = yield from self._greet(Stage.HELO, helo or b"")
        if self._connection is Answer.CONTINUE:
            self.is_open = True
            mail = self._mail
            words = (b"<%b>" % mail.sender, *mail.parameters)
            heard = yield from self._ask(Stage.MAIL, *words)
            self._message = self._fate(heard)
        return None

    def _greet(
        self, stage: Stage, *words: bytes, connection: Connection | None = None
    ) -> Generator[Say | None, Heard | None, Answer | Refusal]:
        heard = yield from self._ask(stage, *words, connection=connection)
        # A client cannot be discarded: libmilter takes that for CONTINUE.
        fate = self._fate(heard)
        return Answer.CONTINUE if fate is Answer.DISCARD else fate

    # Contents

    def _content(
        self, draft: Draft[Body], body: Iterable[bytes]
    ) -> Generator[Say | None, Heard | None, Answer | Refusal]:
        """Everything up to the end, of which the filter is not told yet."""
        fate = self._fate((yield from self._ask(Stage.DATA)))
        keeps_space = self._terms.keeps_space
        fields = ((each.name, each.value(keeps_space)) for each in draft.fields)
        if fate is Answer.CONTINUE:
            fate = yield from self._each(Stage.HEADER, fields)
        if fate is Answer.CONTINUE:
            fate = self._fate((yield from self._ask(Stage.END_OF_HEADER)))
        if fate is Answer.CONTINUE:
            fate = yield from self._each(Stage.BODY, ((piece,) for piece in body))
        return fate

    def _each(
        self, stage: Stage, things: Iterable[tuple[bytes, ...]]
    ) -> Generator[Say | None, Heard | None, Answer | Refusal]:
        if stage in self._terms.omitted:
            return Answer.CONTINUE
        for words in things:
            heard = yield from self._ask(stage, *words)
            if heard is Answer.SKIP:
                break
            fate = self._fate(heard)
            if fate is not Answer.CONTINUE:
                return fate
        return Answer.CONTINUE

    def _end(
        self, draft: Draft[Body], replace_body: Callable[[bytes], None]
    ) -> Generator[Say | None, Heard | None, Answer | Refusal]:
        """The filter's changes; they count only if it takes the message."""
        heard: Heard | None = yield from self._ask(Stage.END)
        grown = edits = 0
        while not isinstance(heard, (Answer, Reply)):
            if heard is None:
                raise RemoteProtocolError("no answer at the end of a message")
            self._check(heard)
            if isinstance(heard, NewBody):
                replace_body(heard.data)
            else:
                edits += 1
                grown += _growth(heard)
                if edits > EDITS_MAX or grown > HEADER_MAX:
                    raise RemoteProtocolError("too many changes")
                apply(draft, heard, keeps_space=self._terms.keeps_space)
            heard = yield LISTEN
        self.is_open = False
        return self._fate(heard)

    def _check(self, edit: Edit) -> None:
        if needed_action(edit) not in self._terms.actions:
            raise RemoteProtocolError("change that was not agreed upon")

    # Answers

    def _ask(
        self,
        stage: Stage,
        *words: bytes,
        connection: Connection | None = None,
        recip: bytes = b"",
    ) -> Generator[Say | None, Heard | None, Heard]:
        terms = self._terms
        known = macros(stage, self._client, self._mail, recip, terms.macros.get(stage))
        is_told = stage not in terms.omitted
        has_answer = is_told and stage not in terms.silent
        if not is_told and not known:
            return Answer.CONTINUE
        heard = yield Say(
            stage=stage,
            words=words,
            connection=connection,
            macros=known,
            is_told=is_told,
            has_answer=has_answer,
        )
        if not has_answer:
            return Answer.CONTINUE
        if heard is None or (
            stage is not Stage.END and not isinstance(heard, (Answer, Reply))
        ):
            raise RemoteProtocolError(f"{type(heard).__name__} before the end")
        return heard

    def _fate(self, heard: Heard) -> Answer | Refusal:
        """CONTINUE, ACCEPT, DISCARD, or why not."""
        if isinstance(heard, (Answer, Reply)):
            if heard is Answer.SKIP:
                return Answer.CONTINUE
            if heard in _FINAL:
                return Answer(heard)
            return self._refusal(heard) or Answer.CONTINUE
        raise RemoteProtocolError(f"{type(heard).__name__} before the end")

    def _refusal(self, heard: Answer | Reply) -> Refusal | None:
        if isinstance(heard, Reply):
            return refusal_of(heard)
        refusal = _REFUSALS.get(heard)
        if refusal is SHUT_DOWN:
            self._connection = SHUT_DOWN
        return refusal


_FINAL = frozenset({Answer.ACCEPT, Answer.DISCARD})
_REFUSALS = {
    Answer.REJECT: REJECTED,
    Answer.TEMPFAIL: DEFERRED,
    Answer.SHUTDOWN: SHUT_DOWN,
}


def _growth(edit: Edit) -> int:
    """Bytes that an edit may add to what is kept in memory."""
    value = getattr(edit, "value", b"")
    return len(value) if isinstance(value, bytes) else 0
