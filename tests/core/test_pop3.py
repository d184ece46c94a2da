"""POP3 without a network: lines, logins, sessions, messages on the wire."""

from __future__ import annotations

import pytest

from qsend.core import pop3, pop3auth
from qsend.core.errors import RemoteProtocolError
from qsend.core.lookups import Proof
from qsend.core.pop3 import Listed, Send, Transaction, Update
from qsend.core.pop3auth import Authorization, Bye, Say, StartTls, Try
from qsend.core.pop3lines import LINE_MAX, Command, Lines
from qsend.core.pop3message import Rendering

CHALLENGE = b"<1.2@here.example>"


def command(line: bytes) -> Command:
    lines = Lines()
    lines.feed(line + b"\r\n")
    found = lines.next()
    assert found is not None
    return found


# Lines


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    data = b"user Ann b\r\nPASS  x y \nQUIT\r\n\r\nrest"
    lines, found = Lines(), []
    for at in range(0, len(data), size):
        lines.feed(data[at : at + size])
        while (one := lines.next()) is not None:
            found.append((one.verb, one.rest))
    assert found == [
        (b"USER", b"Ann b"), (b"PASS", b" x y "), (b"QUIT", b""), (b"", b""),
    ]  # fmt: skip
    assert (lines.take_rest(), lines.take_rest()) == (b"rest", b"")


def test_longest_line_is_taken_and_a_longer_one_refused() -> None:
    lines = Lines()
    lines.feed(b"x" * (LINE_MAX - 1) + b"\n" + b"x" * LINE_MAX)
    assert lines.next() is not None
    with pytest.raises(RemoteProtocolError):
        lines.next()


def test_line_that_never_ends_is_refused_before_it_is_stored() -> None:
    lines = Lines()
    lines.feed(b"x" * (LINE_MAX - 1))
    assert lines.next() is None
    lines.feed(b"x")
    with pytest.raises(RemoteProtocolError):
        lines.next()


# Authorization


def auth(*lines: bytes, offers_tls: bool = False) -> list[pop3auth.Step]:
    made = Authorization(challenge=CHALLENGE, offers_tls=offers_tls)
    return [made.take(command(line)) for line in lines]


OK = Say(text=b"+OK \r\n")
SYNTAX = Say(text=b"-ERR syntax error\r\n")


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        ([b"USER ann", b"PASS x"], Try(proof=Proof.PASS, name=b"ann", secret=b"x")),
        (
            [b"user  a@b.example ", b"pass  x y "],
            Try(proof=Proof.PASS, name=b"a@b.example", secret=b" x y "),
        ),
        (
            [b"USER a", b"USER b", b"PASS x"],
            Try(proof=Proof.PASS, name=b"b", secret=b"x"),
        ),
        ([b"USER ann"], OK),
        ([b"USER"], SYNTAX),
        ([b"USER  "], SYNTAX),
        ([b"PASS x"], Say(text=b"-ERR USER first\r\n")),
        ([b"USER ann", b"PASS"], SYNTAX),
        ([b"USER ann", b"PASS x", b"PASS y"], Say(text=b"-ERR USER first\r\n")),
        ([b"USER ann", b"PASS x\0y"], SYNTAX),
        ([b"USER ann", b"PASS " + b"x" * 510], SYNTAX),
        ([b"APOP ann 0a1b"], Try(proof=Proof.APOP, name=b"ann", secret=b"0a1b")),
        ([b"APOP ann"], SYNTAX),
        ([b"APOP"], SYNTAX),
        ([b"NOOP"], OK),
        ([b"QUIT"], Bye(text=b"+OK \r\n")),
        ([b"STAT"], Say(text=b"-ERR authorization first\r\n")),
        ([b""], Say(text=b"-ERR authorization first\r\n")),
        ([b"STLS"], Say(text=b"-ERR authorization first\r\n")),
        ([b"\xff\xfe"], Say(text=b"-ERR authorization first\r\n")),
    ],
)  # fmt: skip
def test_last_answer_before_the_login(lines: list[bytes], want: pop3auth.Step) -> None:
    assert auth(*lines)[-1] == want


def test_greeting_is_the_challenge() -> None:
    assert (
        Authorization(challenge=CHALLENGE).greeting() == b"+OK <1.2@here.example>\r\n"
    )


def test_passwords_are_refused_before_tls_where_it_is_needed() -> None:
    made = Authorization(challenge=CHALLENGE, offers_tls=True, needs_tls=True)
    for line in (b"USER ann", b"PASS secret"):
        step = made.take(command(line))
        assert step == Say(text=pop3auth.TLS_FIRST)
    before = text_of(made.take(command(b"CAPA"))).split(b"\r\n")
    assert b"USER" not in before
    assert b"STLS" in before
    digest = b"0" * 32
    apop = Try(proof=Proof.APOP, name=b"ann", secret=digest)
    assert made.take(command(b"APOP ann " + digest)) == apop
    made.secured()
    assert b"USER" in text_of(made.take(command(b"CAPA"))).split(b"\r\n")
    assert made.take(command(b"USER ann")) == Say(text=pop3auth.OK)
    secret = Try(proof=Proof.PASS, name=b"ann", secret=b"secret")
    assert made.take(command(b"PASS secret")) == secret


def test_tls_is_offered_once_and_forgets_the_user() -> None:
    made = Authorization(challenge=CHALLENGE, offers_tls=True)
    assert b"\r\nSTLS\r\n" in text_of(made.take(command(b"CAPA")))
    made.take(command(b"USER ann"))
    assert made.take(command(b"STLS x")) == Say(text=b"-ERR authorization first\r\n")
    assert isinstance(made.take(command(b"STLS")), StartTls)
    made.secured()
    assert made.take(command(b"PASS x")) == Say(text=b"-ERR USER first\r\n")
    assert b"STLS" not in text_of(made.take(command(b"CAPA")))
    assert made.take(command(b"STLS")) == Say(text=b"-ERR authorization first\r\n")


def text_of(step: pop3auth.Step | pop3.Step) -> bytes:
    assert isinstance(step, Say)
    return step.text


def test_secrets_are_in_no_representation() -> None:
    step = Try(proof=Proof.PASS, name=b"ann", secret=b"hunter2")
    assert "hunter2" not in repr(step)


# Transaction

MESSAGES = [
    Listed(size=10, uid=b"a"), Listed(size=200, uid=b"b"), Listed(size=3000, uid=b"c"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        (["STAT"], b"+OK 3 3210\r\n"),
        (["DELE 2", "STAT"], b"+OK 2 3010\r\n"),
        (["DELE 2", "RSET", "STAT"], b"+OK 3 3210\r\n"),
        (["LIST"], b"+OK \r\n1 10\r\n2 200\r\n3 3000\r\n.\r\n"),
        (["DELE 1", "LIST"], b"+OK \r\n2 200\r\n3 3000\r\n.\r\n"),
        (["LIST 2"], b"+OK 2 200\r\n"),
        (["UIDL"], b"+OK \r\n1 a\r\n2 b\r\n3 c\r\n.\r\n"),
        (["UIDL 3"], b"+OK 3 c\r\n"),
        (["DELE 3", "UIDL 3"], b"-ERR already deleted\r\n"),
        (["DELE 3", "DELE 3"], b"-ERR already deleted\r\n"),
        (["RETR 0"], b"-ERR messages are counted from 1\r\n"),
        (["RETR 4"], b"-ERR not that many messages\r\n"),
        (["RETR"], b"-ERR syntax error\r\n"),
        (["RETR x"], b"-ERR syntax error\r\n"),
        (["RETR -1"], b"-ERR syntax error\r\n"),
        (["RETR \xb2"], b"-ERR syntax error\r\n"),
        (["RETR 99999999999999999999"], b"-ERR syntax error\r\n"),
        (["TOP 1 x"], b"-ERR syntax error\r\n"),
        (["LAST"], b"+OK 0\r\n"),
        (["RETR 2", "LAST"], b"+OK 2\r\n"),
        (["RETR 2", "RSET", "LAST"], b"+OK 0\r\n"),
        (["NOOP"], b"+OK \r\n"),
        (["USER x"], b"-ERR unimplemented\r\n"),
        ([""], b"-ERR unimplemented\r\n"),
    ],
)
def test_last_answer_after_the_login(lines: list[str], want: bytes) -> None:
    made = Transaction(MESSAGES)
    steps = [made.take(command(line.encode("latin-1"))) for line in lines]
    assert text_of(steps[-1]) == want


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"RETR 1", Send(index=0, body_lines=None)),
        (b"retr  3 ", Send(index=2, body_lines=None)),
        (b"TOP 2 0", Send(index=1, body_lines=0)),
        (b"TOP 2  17", Send(index=1, body_lines=17)),
        (b"TOP 2", Send(index=1, body_lines=None)),
        (b"QUIT", Update(removed=frozenset())),
    ],
)
def test_what_is_sent(line: bytes, want: pop3.Step) -> None:
    assert Transaction(MESSAGES).take(command(line)) == want


def test_quit_removes_what_is_deleted_by_then() -> None:
    made = Transaction(MESSAGES)
    for line in (b"DELE 1", b"RSET", b"DELE 3", b"DELE 2"):
        made.take(command(line))
    assert made.take(command(b"QUIT")) == Update(removed=frozenset({1, 2}))


def test_empty_mailbox_lists_nothing() -> None:
    made = Transaction([])
    assert text_of(made.take(command(b"STAT"))) == b"+OK 0 0\r\n"
    assert text_of(made.take(command(b"LIST"))) == b"+OK \r\n.\r\n"
    assert b"not that many" in text_of(made.take(command(b"RETR 1")))


# Messages

SENT = b"A: b\r\n..C: d\r\n\r\n..one\r\n...\r\nthree\rx\r\nfour\r\n\r\n..\r\n.\r\n"
STORED = b"A: b\n.C: d\n\n.one\n..\nthree\rx\r\nfour\n\n.\n"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("stored", "lines", "want"),
    [
        (
            STORED, None,
            SENT,
        ),
        (STORED, 0, b"A: b\r\n..C: d\r\n\r\n.\r\n"),
        (STORED, 2, b"A: b\r\n..C: d\r\n\r\n..one\r\n...\r\n.\r\n"),
        (
            STORED, 99,
            SENT,
        ),
        (b"", None, b".\r\n"),
        (b"", 3, b".\r\n"),
        (b"no end", None, b"no end\r\n.\r\n"),
        (b"A: b\n\nno end", 1, b"A: b\r\n\r\nno end\r\n.\r\n"),
        (b"A: b\n\nx\n\ny\n", 1, b"A: b\r\n\r\nx\r\n.\r\n"),
        (b"A: b\r\n\r\nx\r\ny\r\n", 1, b"A: b\r\n\r\nx\r\n.\r\n"),
        (b"\nx\ny\n", 1, b"\r\nx\r\n.\r\n"),
        (b"A: b\n", 0, b"A: b\r\n.\r\n"),
        (b".\n", None, b"..\r\n.\r\n"),
        (b"x\r", None, b"x\r\r\n.\r\n"),
    ],
)  # fmt: skip
def test_message_on_the_wire(
    stored: bytes, lines: int | None, want: bytes, size: int
) -> None:
    rendering = Rendering(lines)
    pieces = [stored[at : at + size] for at in range(0, len(stored), size)]
    got = b"".join(map(rendering.feed, pieces)) + rendering.finish()
    assert got == want


def test_nothing_more_is_wanted_after_the_lines_of_top() -> None:
    rendering = Rendering(1)
    assert rendering.feed(b"A: b\n\none\ntw") == b"A: b\r\n\r\none\r\n"
    assert rendering.is_complete
    assert rendering.feed(b"o\n") + rendering.finish() == b".\r\n"
