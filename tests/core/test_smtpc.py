"""The SMTP client: every row of qmail-remote's dialogue, and what EHLO adds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest

from qsend.core.errors import LocalProtocolError, RemoteProtocolError
from qsend.core.model import Cause, Letter
from qsend.core.smtpaddress import is_sendable, unsendable_answer
from qsend.core.smtpc import Client
from qsend.core.smtpopening import CLEAR
from qsend.core.smtptable import TABLE, Event, State
from qsend.core.smtptypes import (
    Action,
    Answer,
    Close,
    Done,
    Envelope,
    Failed,
    Outcome,
    Ready,
    Secure,
    Send,
    SendContent,
    SendDot,
)
from qsend.core.tlspolicy import Demand, Level, Login
from qsend.formats.smtp import ReplyReader, render_commands

HOST = b"192.0.2.1"
CUTS = [1, 2, 3, 100_000]
LOCKSTEP = b"220 hi\r\n250 me\r\n"
PIPELINED = b"220 hi\r\n250-me\r\n250-SIZE 1000\r\n250 PIPELINING\r\n"
DIED = b"Connected to 192.0.2.1 but connection died. (#4.4.2)\n"
DUPLICATE = (
    b"Connected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)\n"
)
MAY = Demand(level=Level.MAY)
MUST = Demand(level=Level.ENCRYPT)
LOGIN = Login(user=b"ann", password=b"pa:ss")
SAID = b"Remote host said: "
GIVING_UP = b"Giving up on 192.0.2.1.\n"


class Peer:
    """Feeds a client with a peer's bytes and keeps what the client wants done."""

    def __init__(
        self, recips: Sequence[bytes], *, cut: int, demand: Demand = CLEAR
    ) -> None:
        self.client = Client(HOST, b"me.example", demand)
        self.wire: list[bytes] = []
        self.answer: Answer | None = None
        self.outcome: Outcome | None = None
        self.failed: Failed | None = None
        self.is_closed = False
        self._recips = recips
        self._cut = cut
        self._reader = ReplyReader()
        self._transactions = 1

    def say(self, data: bytes, *, then_close: bool = False) -> Peer:
        for at in range(0, len(data), self._cut):
            self._reader.feed(data[at : at + self._cut])
            try:
                while (reply := self._reader.take()) is not None:
                    self._do(self.client.receive(reply))
            except RemoteProtocolError as exc:
                self._do(self.client.garbage(str(exc).encode()))
                break
        if then_close:
            self._do(self.client.lost())
        return self

    def begin(self) -> None:
        self._do(
            self.client.begin(
                Envelope(sender=b"s@x", recips=self._recips, size=9, eight_bit=True)
            )
        )

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(commands):
                    self.wire.append(render_commands(commands))
                case SendContent():
                    self.wire.append(b"<content>")
                    self._do(self.client.sent())
                case SendDot():
                    self.wire.append(b"<dot>")
                case Secure():
                    self.wire.append(b"<tls>")
                    self._do(self.client.secured(b"TLSv1.3 CIPHER name"))
                case Ready():
                    self._ready()
                case Failed(answer):
                    self.answer = answer
                    self.failed = action
                case Done(outcome):
                    assert self.outcome is None, "two outcomes"
                    self.outcome = outcome
                case Close():
                    self.is_closed = True

    def _ready(self) -> None:
        self.wire.append(b"<ready>")
        if self._transactions:
            self._transactions -= 1
            self.begin()

    @property
    def answers(self) -> list[tuple[bytes, bytes] | None]:
        assert self.outcome is not None, self.client.state
        found = [self.outcome.answer(index) for index in range(len(self._recips))]
        return [None if a is None else (a.letter.value, a.text) for a in found]


def test_table_is_total() -> None:
    assert set(TABLE) == set(product(State, Event))


# (name, replies after EHLO's, whether the peer closes then, the report)
ROWS = [
    (
        "accepted",
        [b"250 s", b"250 r", b"354 go", b"250 ok"],
        b"K192.0.2.1 accepted message.\n" + SAID + b"250 ok\n",
    ),
    (
        "sender-5xx",
        [b"550 no", b"503 x", b"503 x"],
        b"DConnected to 192.0.2.1 but sender was rejected.\n" + SAID + b"550 no\n",
    ),
    (
        "sender-4xx",
        [b"450 no", b"503 x", b"503 x"],
        b"ZConnected to 192.0.2.1 but sender was rejected.\n" + SAID + b"450 no\n",
    ),
    (
        "sender-421-ends-it",
        [b"421 bye"],
        b"ZConnected to 192.0.2.1 but sender was rejected.\n" + SAID + b"421 bye\n",
    ),
    (
        "recipient-5xx",
        [b"250 s", b"550 no", b"554 none"],
        b"D192.0.2.1 does not like recipient.\n" + SAID + b"550 no\n" + GIVING_UP,
    ),
    (
        "recipient-4xx",
        [b"250 s", b"450 no", b"554 none"],
        b"Z192.0.2.1 does not like recipient.\n" + SAID + b"450 no\n" + GIVING_UP,
    ),
    (
        "first-recipient-452-is-a-deferral",
        [b"250 s", b"452 full", b"554 none"],
        b"Z192.0.2.1 does not like recipient.\n" + SAID + b"452 full\n" + GIVING_UP,
    ),
    (
        "data-5xx",
        [b"250 s", b"250 r", b"550 no"],
        b"D192.0.2.1 failed on DATA command.\n" + SAID + b"550 no\n",
    ),
    (
        "data-4xx",
        [b"250 s", b"250 r", b"450 no"],
        b"Z192.0.2.1 failed on DATA command.\n" + SAID + b"450 no\n",
    ),
    (
        "dot-5xx",
        [b"250 s", b"250 r", b"354 go", b"554-a\r\n554 b"],
        b"D192.0.2.1 failed after I sent the message.\n" + SAID + b"554-a\n554 b\n",
    ),
    (
        "dot-4xx",
        [b"250 s", b"250 r", b"354 go", b"451 x"],
        b"Z192.0.2.1 failed after I sent the message.\n" + SAID + b"451 x\n",
    ),
    ("dies-at-mail", [b"<eof>"], b"Z" + DIED),
    ("dies-at-rcpt", [b"250 s", b"<eof>"], b"Z" + DIED),
    ("dies-at-data", [b"250 s", b"250 r", b"<eof>"], b"Z" + DIED),
    ("dies-at-dot", [b"250 s", b"250 r", b"354 go", b"<eof>"], b"Z" + DUPLICATE),
    (
        "garbage-at-mail",
        [b"hello"],
        b"ZConnected to 192.0.2.1 but it broke the protocol: "
        b"reply without a valid code. (#4.5.0)\n",
    ),
    (
        "garbage-at-dot",
        [b"250 s", b"250 r", b"354 go", b"999 x"],
        b"ZConnected to 192.0.2.1 but it broke the protocol: "
        b"reply without a valid code. Possible duplicate! (#4.5.0)\n",
    ),
    (
        "mail-354",
        [b"354 go"],
        b"ZConnected to 192.0.2.1 but it broke the protocol: reply 354. (#4.5.0)\n",
    ),
    (
        "data-250",
        [b"250 s", b"250 r", b"250 odd"],
        b"ZConnected to 192.0.2.1 but it broke the protocol: reply 250. (#4.5.0)\n",
    ),
    (
        "dot-354",
        [b"250 s", b"250 r", b"354 go", b"354 more"],
        b"ZConnected to 192.0.2.1 but it broke the protocol: "
        b"reply 354. Possible duplicate! (#4.5.0)\n",
    ),
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("hello", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
@pytest.mark.parametrize(("name", "replies", "want"), ROWS, ids=[r[0] for r in ROWS])
def test_dialogue_row_gives_report(
    name: str, replies: list[bytes], want: bytes, hello: bytes, cut: int
) -> None:
    if hello is LOCKSTEP:  # nothing was sent ahead, so nothing else is answered
        replies = [r for r in replies if not r.startswith((b"503", b"554 none"))]
    is_eof = replies[-1] == b"<eof>"
    lines = b"".join(r + b"\r\n" for r in replies if r != b"<eof>")
    peer = Peer([b"r@x"], cut=cut).say(hello + lines, then_close=is_eof)
    assert peer.answers == [(want[:1], want[1:])]
    is_over = is_eof or b"broke the protocol" in want or b"421" in want
    assert peer.is_closed is is_over, name
    assert peer.client.state is not State.DOT


NOT_SMTP = b"it broke the protocol: reply without a valid code. (#4.5.0)\n"
SESSION_ROWS = [
    (b"421 busy\r\n", b"greeting failed.\n" + SAID + b"421 busy\n"),
    (b"554 no\r\n", b"greeting failed.\n" + SAID + b"554 no\n"),
    (b"250 odd\r\n", b"greeting failed.\n" + SAID + b"250 odd\n"),
    (b"354 odd\r\n", b"greeting failed.\n" + SAID + b"354 odd\n"),
    (b"220 hi\r\n451 x\r\n", b"my name was rejected.\n" + SAID + b"451 x\n"),
    (b"220 hi\r\n220 x\r\n", b"my name was rejected.\n" + SAID + b"220 x\n"),
    (b"220 hi\r\n502 x\r\n550 y\r\n", b"my name was rejected.\n" + SAID + b"550 y\n"),
    (b"SSH-2.0\r\n", NOT_SMTP),
    (b"220 hi\r\nx\r\n", NOT_SMTP),
    (b"", b"connection died. (#4.4.2)\n"),
    (b"220 hi\r\n", b"connection died. (#4.4.2)\n"),
    (b"220 hi\r\n500 x\r\n", b"connection died. (#4.4.2)\n"),
]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("replies", "want"), SESSION_ROWS)
def test_session_that_never_comes_up_is_unreachable(
    replies: bytes, want: bytes, cut: int
) -> None:
    peer = Peer([b"r@x"], cut=cut).say(replies, then_close=b"died" in want)
    assert peer.answer == Answer(
        letter=Letter.DEFERRAL,
        text=b"Connected to 192.0.2.1 but " + want,
        cause=Cause.UNREACHABLE,
    )
    assert peer.is_closed
    assert peer.outcome is None


def test_lockstep_sends_one_command_at_a_time() -> None:
    peer = Peer([b"r@x", b"q r@x"], cut=1).say(
        LOCKSTEP + b"250 s\r\n250 r\r\n250 r\r\n354 go\r\n250 ok\r\n"
    )
    assert peer.wire == [
        b"EHLO me.example\r\n",
        b"<ready>",
        b"MAIL FROM:<s@x>\r\n",
        b"RCPT TO:<r@x>\r\n",
        b'RCPT TO:<"q r"@x>\r\n',
        b"DATA\r\n",
        b"<content>",
        b"<ready>",
    ]


def test_pipelining_sends_the_envelope_in_one_write() -> None:
    hello = b"220 hi\r\n250-me\r\n250-size\r\n250-8BITMIME\r\n250 Pipelining\r\n"
    peer = Peer([b"r@x", b"q@x"], cut=1).say(hello)
    assert peer.wire[2:] == [
        b"MAIL FROM:<s@x> SIZE=9 BODY=8BITMIME\r\n"
        b"RCPT TO:<r@x>\r\nRCPT TO:<q@x>\r\nDATA\r\n"
    ]


def test_helo_fallback_has_no_extensions() -> None:
    peer = Peer([b"r@x"], cut=1).say(b"220 hi\r\n502 what\r\n250-me\r\n250 SIZE\r\n")
    assert peer.wire == [
        b"EHLO me.example\r\n",
        b"HELO me.example\r\n",
        b"<ready>",
        b"MAIL FROM:<s@x>\r\n",
    ]


@pytest.mark.parametrize("hello", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_mixed_recipients_each_get_their_report(hello: bytes) -> None:
    recips = [b"a@x", b"b@x", b"c@x", b"d@x"]
    peer = Peer(recips, cut=3).say(
        hello + b"250 s\r\n550 no\r\n250 r\r\n452 full\r\n450 later\r\n"
        b"354 go\r\n250 ok\r\n"
    )
    bad = b"192.0.2.1 does not like recipient.\n" + SAID
    assert peer.answers == [
        (b"D", bad + b"550 no\n" + GIVING_UP),
        (b"K", b"192.0.2.1 accepted message.\n" + SAID + b"250 ok\n"),
        None,
        (b"Z", bad + b"450 later\n" + GIVING_UP),
    ]
    assert peer.outcome is not None
    assert peer.outcome.items() == (
        b"h" + bad + b"550 no\n\0r\0s" + bad + b"452 full\n\0s" + bad + b"450 later\n\0"
        b"K192.0.2.1 accepted message.\nRemote host said: 250 ok\n\0"
    )


def test_later_recipient_of_a_failed_transaction_is_deferred() -> None:
    peer = Peer([b"a@x", b"b@x"], cut=3).say(
        LOCKSTEP + b"250 s\r\n250 r\r\n452 full\r\n354 go\r\n554 spam\r\n"
    )
    assert [a and a[0] for a in peer.answers] == [b"D", b"Z"]


def test_all_refused_but_data_accepted_sends_the_lone_dot() -> None:
    peer = Peer([b"r@x", b"q@x"], cut=1).say(
        PIPELINED + b"250 s\r\n550 no\r\n551 no\r\n354 go\r\n"
    )
    assert peer.wire[-1] == b"<dot>"
    assert [a and a[0] for a in peer.answers] == [b"D", b"D"]
    peer.say(b"554 nobody\r\n")
    assert peer.wire[-1] == b"<ready>"


def test_all_refused_in_lockstep_resets() -> None:
    peer = Peer([b"r@x"], cut=1).say(LOCKSTEP + b"250 s\r\n550 no\r\n")
    assert peer.wire[-1] == b"RSET\r\n"
    peer.say(b"250 ok\r\n")
    assert peer.wire[-1] == b"<ready>"


def test_sender_refused_but_recipient_and_data_accepted_closes_unsent() -> None:
    peer = Peer([b"r@x"], cut=1).say(PIPELINED + b"550 s\r\n250 r\r\n354 go\r\n")
    assert peer.is_closed
    assert b"<dot>" not in peer.wire
    assert b"<content>" not in peer.wire
    assert [a and a[0] for a in peer.answers] == [b"D"]


def test_rset_refused_closes() -> None:
    peer = Peer([b"r@x"], cut=1).say(LOCKSTEP + b"550 s\r\n502 what\r\n")
    assert peer.is_closed
    assert [a and a[0] for a in peer.answers] == [b"D"]


def test_421_after_the_message_closes_instead_of_resting() -> None:
    peer = Peer([b"r@x"], cut=1).say(
        LOCKSTEP + b"250 s\r\n250 r\r\n354 go\r\n421 shutting down\r\n"
    )
    assert peer.is_closed
    assert [a and a[0] for a in peer.answers] == [b"Z"]


@pytest.mark.parametrize(
    ("replies", "want"),
    [(b"", True), (b"421 idle\r\n", True), (b"250 s\r\n", False)],
)
def test_untouched_says_whether_anything_was_answered(
    replies: bytes, want: bool
) -> None:
    peer = Peer([b"r@x"], cut=1).say(PIPELINED + replies, then_close=True)
    assert peer.outcome is not None
    assert peer.outcome.is_untouched is want


def test_refusal_in_the_middle_of_the_content_is_the_answer() -> None:
    client = Client(HOST, b"me")
    reader = ReplyReader()
    reader.feed(LOCKSTEP + b"250 s\r\n250 r\r\n354 go\r\n552 too big\r\n")
    last: Sequence[Action] = ()
    while (reply := reader.take()) is not None:
        last = client.receive(reply)
        if client.state is State.IDLE:
            client.begin(Envelope(sender=b"", recips=[b"r"], size=1, eight_bit=False))
    done, close = last
    assert isinstance(done, Done)
    assert isinstance(close, Close)
    assert done.outcome.verdict.letter is Letter.FAILURE
    assert done.outcome.verdict.text.startswith(b"192.0.2.1 failed after I sent")


def test_several_transactions_share_the_session() -> None:
    peer = Peer([b"r@x"], cut=1)
    once = b"250 s\r\n250 r\r\n354 go\r\n250 ok\r\n"
    peer.say(LOCKSTEP + once)
    for _ in range(3):
        assert [a and a[0] for a in peer.answers] == [b"K"]
        peer.outcome = None
        peer.begin()
        peer.say(once)
    assert peer.wire.count(b"<content>") == 4


def test_idle_peer_that_speaks_is_left() -> None:
    peer = Peer([b"r@x"], cut=1)
    peer.say(LOCKSTEP + b"250 s\r\n250 r\r\n354 go\r\n250 ok\r\n421 bye\r\n")
    assert peer.is_closed
    assert [a and a[0] for a in peer.answers] == [b"K"]


def test_starttls_says_ehlo_again_and_forgets_what_was_said_in_clear() -> None:
    peer = Peer([b"r@x"], cut=1, demand=MAY)
    peer.say(b"220 hi\r\n250-me\r\n250-PIPELINING\r\n250 STARTTLS\r\n220 go\r\n")
    peer.say(b"250 me\r\n")
    assert peer.wire == [
        b"EHLO me.example\r\n",
        b"STARTTLS\r\n",
        b"<tls>",
        b"EHLO me.example\r\n",
        b"<ready>",
        b"MAIL FROM:<s@x>\r\n",
    ]


def test_starttls_refused_goes_on_in_clear() -> None:
    peer = Peer([b"r@x"], cut=1, demand=MAY)
    peer.say(b"220 hi\r\n250-me\r\n250 STARTTLS\r\n454 no\r\n")
    assert peer.wire[-1] == b"MAIL FROM:<s@x>\r\n"


HELLO_TLS = b"220 hi\r\n250-me\r\n250 STARTTLS\r\n"


def test_session_under_tls_is_told_in_every_report() -> None:
    once = b"250 s\r\n250 r\r\n550 no\r\n354 go\r\n250 ok\r\n"
    peer = Peer([b"r@x", b"q@x"], cut=3, demand=MAY)
    peer.say(HELLO_TLS + b"220 go\r\n250 me\r\n" + once)
    session = b"TLSv1.3 CIPHER name\n"
    accepted = b"192.0.2.1 accepted message.\nRemote host said: 250 ok\n"
    refused = b"192.0.2.1 does not like recipient.\nRemote host said: 550 no\n"
    assert peer.answers == [
        (b"K", accepted + session),
        (b"D", refused + GIVING_UP + session),
    ]
    assert peer.outcome is not None
    assert peer.outcome.items() == b"r\0h%s\0K%s\0" % (refused, accepted + session)


TLS_FAILED = b"Connected to 192.0.2.1 but TLS failed: connection died. (#4.7.5)\n"
NO_TLS = b"Connected to 192.0.2.1 but it does not offer TLS. (#4.7.4)\n"
REFUSED_TLS = b"Connected to 192.0.2.1 but STARTTLS was refused.\n" + SAID
TLS_ROWS = [
    (MUST, LOCKSTEP, NO_TLS, False),
    (MUST, b"220 hi\r\n502 x\r\n250 me\r\n", NO_TLS, False),
    (MUST, HELLO_TLS + b"454 no\r\n", REFUSED_TLS + b"454 no\n", False),
    (MUST, HELLO_TLS + b"502 no\r\n", REFUSED_TLS + b"502 no\n", False),
    (MAY, HELLO_TLS + b"421 no\r\n", REFUSED_TLS + b"421 no\n", False),
    (MAY, HELLO_TLS + b"<eof>", TLS_FAILED, True),
    (MAY, HELLO_TLS + b"220 go\r\n<eof>", TLS_FAILED, True),
    (MUST, HELLO_TLS + b"220 go\r\n<eof>", TLS_FAILED, True),
    (
        MAY,
        HELLO_TLS + b"220 go\r\n451 x\r\n",
        b"Connected to 192.0.2.1 but my name was rejected.\n" + SAID + b"451 x\n",
        False,
    ),
]


@pytest.mark.parametrize(("demand", "replies", "want", "is_insecure"), TLS_ROWS)
def test_session_that_comes_not_up_for_want_of_tls(
    demand: Demand, replies: bytes, want: bytes, is_insecure: bool
) -> None:
    is_eof = replies.endswith(b"<eof>")
    peer = Peer([b"r@x"], cut=100, demand=demand)
    peer.say(replies.removesuffix(b"<eof>"), then_close=is_eof)
    answer = Answer(letter=Letter.DEFERRAL, text=want, cause=Cause.UNREACHABLE)
    is_busy = b"421" in want
    assert peer.failed == Failed(answer, is_busy, is_insecure)
    assert peer.is_closed
    assert b"MAIL FROM:<s@x>\r\n" not in peer.wire


def test_reply_after_starttls_in_clear_fails_the_session() -> None:
    client = Client(HOST, b"me", MAY)
    reader = ReplyReader()
    reader.feed(HELLO_TLS + b"220 go\r\n250 I am under TLS\r\n")
    for _ in range(3):
        reply = reader.take()
        assert reply is not None
        last = client.receive(reply)
    assert last == (Secure(),)
    assert reader.is_ahead  # what the driver looks for
    failed, close = client.garbage(b"words in clear")
    assert isinstance(failed, Failed)
    assert failed.answer.text.endswith(b"protocol: words in clear. (#4.5.0)\n")
    assert not failed.is_insecure
    assert isinstance(close, Close)


PLAIN = b"AUTH PLAIN AGFubgBwYTpzcw==\r\n"
AUTH_ROWS = [
    (b"250 AUTH PLAIN LOGIN", b"235 yes", [PLAIN]),
    (b"250 auth=login plain", b"235 yes", [PLAIN]),
    (
        b"250 AUTH CRAM-MD5 LOGIN",
        b"334 VXNlcg==\r\n334 UGFzcw==\r\n235 yes",
        [b"AUTH LOGIN\r\n", b"YW5u\r\n", b"cGE6c3M=\r\n"],
    ),
]


@pytest.mark.parametrize(("offer", "replies", "want"), AUTH_ROWS)
def test_relay_is_told_the_login(
    offer: bytes, replies: bytes, want: list[bytes]
) -> None:
    demand = Demand(level=Level.ENCRYPT, login=LOGIN)
    peer = Peer([b"r@x"], cut=1, demand=demand)
    peer.say(HELLO_TLS + b"220 go\r\n250-me\r\n" + offer + b"\r\n" + replies + b"\r\n")
    head = [b"EHLO me.example\r\n", b"STARTTLS\r\n", b"<tls>", b"EHLO me.example\r\n"]
    assert peer.wire == [*head, *want, b"<ready>", b"MAIL FROM:<s@x>\r\n"]


AUTH_FAILURES = [
    (
        b"250 AUTH PLAIN\r\n535 wrong\r\n",
        b"my login was refused.\n" + SAID + b"535 wrong",
    ),
    (
        b"250 AUTH PLAIN\r\n454 later\r\n",
        b"my login was refused.\n" + SAID + b"454 later",
    ),
    (b"250 AUTH PLAIN\r\n334 more\r\n", b"it broke the protocol: reply 334. (#4.5.0)"),
    (b"250 AUTH LOGIN\r\n" + b"334 x\r\n" * 3, b"protocol: reply 334. (#4.5.0)"),
    (b"250 AUTH CRAM-MD5\r\n", b"it offers no way to log in. (#4.7.4)"),
    (b"250 SIZE\r\n", b"it offers no way to log in. (#4.7.4)"),
]


@pytest.mark.parametrize(("replies", "want"), AUTH_FAILURES)
def test_login_that_fails_is_a_deferral(replies: bytes, want: bytes) -> None:
    demand = Demand(level=Level.NONE, login=LOGIN)
    peer = Peer([b"r@x"], cut=1, demand=demand)
    peer.say(b"220 hi\r\n250-me\r\n" + replies)
    assert peer.answer is not None
    assert peer.answer.letter is Letter.DEFERRAL
    assert peer.answer.text.endswith(want + b"\n")
    assert b"pa:ss" not in peer.answer.text
    assert peer.is_closed


def test_login_is_never_offered_by_words_said_in_clear() -> None:
    demand = Demand(level=Level.ENCRYPT, login=LOGIN)
    peer = Peer([b"r@x"], cut=1, demand=demand)
    hello = b"220 hi\r\n250-me\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"
    peer.say(hello + b"220 go\r\n250 me\r\n")
    assert peer.answer is not None
    assert not [line for line in peer.wire if line.startswith(b"AUTH")]


def test_words_in_clear_do_not_count_for_helo_under_tls() -> None:
    demand = Demand(level=Level.ENCRYPT)
    peer = Peer([b"r@x"], cut=1, demand=demand)
    hello = b"220 hi\r\n250-me\r\n250-SIZE\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
    peer.say(hello + b"220 go\r\n502 what\r\n250 me\r\n")
    assert peer.wire[-3:] == [
        b"HELO me.example\r\n",
        b"<ready>",
        b"MAIL FROM:<s@x>\r\n",
    ]


def test_begin_in_a_transaction_is_our_mistake() -> None:
    peer = Peer([b"r@x"], cut=1).say(LOCKSTEP)
    with pytest.raises(LocalProtocolError):
        peer.begin()


@pytest.mark.parametrize(
    ("address", "want"),
    [
        (b"", True),
        (b"a@b", True),
        (b"a b@c", True),
        (b'"<>\xff@c', True),
        (b"#@[]", True),
        (b"a", True),
        (b"a\r@b", False),
        (b"a\n@b", False),
        (b"a\0@b", False),
        (b"a@b\r\nDATA", False),
        (b"a@b> SIZE=1", False),
        (b"a@b<c", False),
        (b"a b", False),
        (b"a\n", False),
    ],
)
def test_unsendable_addresses(address: bytes, want: bool) -> None:
    assert is_sendable(address) is want


def test_unsendable_answer_is_a_failure() -> None:
    assert unsendable_answer(is_sender=True) == Answer(
        letter=Letter.FAILURE,
        text=b"Sorry, the sender address cannot be sent over SMTP. (#5.1.7)\n",
    )
    assert b"(#5.1.3)" in unsendable_answer(is_sender=False).text
