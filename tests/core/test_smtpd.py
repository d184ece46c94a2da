"""The SMTP dialogue without a network: what is said to what, however it is cut."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from qsend.core.relay import Refused, RelayRules, Taken, settle
from qsend.core.rewrite import Rules
from qsend.core.smtpd import Dialogue
from qsend.core.smtpdata import DataReader, HopCounter, StrayNewline
from qsend.core.smtpdauth import Credentials
from qsend.core.smtpdlines import LINE_MAX, Lines, LineTooLong
from qsend.core.smtpdpath import parse_argument
from qsend.core.smtpdreplies import reply
from qsend.core.smtpdsteps import (
    Abandon,
    Begin,
    Bye,
    Chunk,
    Filter,
    Finish,
    Judge,
    LogIn,
    Peer,
    Say,
    Screen,
    ServerRules,
    StartTls,
    Step,
    databytes_of,
)

RULES = ServerRules(
    greeting=b"here.example",
    relay=RelayRules(
        rewriting=Rules(envnoathost=b"here.example"),
        rcpthosts=frozenset({b"here.example"}),
        badmailfrom=frozenset({b"bad@far.example"}),
    ),
    errors_max=5,
    recipients_max=3,
)


def tls_peer(*, is_screened: bool = True, must_log_in: bool = False) -> Peer:
    return Peer(
        is_screened=is_screened,
        must_log_in=must_log_in,
        offers_tls=True,
        offers_login=True,
    )


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def judge(asked: Judge) -> Taken | Refused:
    """As with a database that lists table.example."""
    if isinstance(asked.verdict, Taken):
        return asked.verdict
    return settle(asked.verdict, asked.verdict.host == b"table.example")


class Driver:
    """Does what the steps say, in the simplest way; `wire` is what the client sees."""

    def __init__(self, peer: Peer | None = None, rules: ServerRules = RULES) -> None:
        self.talk = Dialogue(rules, peer or Peer())
        self.wire = b""
        self.queued: list[tuple[bytes, tuple[bytes, ...], bytes]] = []
        self.begun: list[Begin] = []
        self.message: bytes | None = None
        self.is_over = False
        self.blocked: bytes | None = None
        self.is_secure = False

    def send(self, data: bytes, size: int = 1 << 16) -> list[int]:
        """The codes of the replies."""
        before = len(self.wire)
        for piece in cut(data, size):
            if self.is_over:
                break
            self.talk.feed(piece)
            while not self.is_over and (step := self.talk.next()) is not None:
                self.do(step)
        lines = self.wire[before:].split(b"\r\n")
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    def do(self, step: Step) -> None:
        match step:
            case Say(text=text):
                self.wire += text
            case Bye(text=text):
                self.wire += text
                self.is_over, self.message = True, None
            case StartTls(text=text):
                self.wire += text
                self.is_secure = True
                self.talk.secured()
            case LogIn(credentials=given):
                is_right = given == Credentials(name=b"ann", secret=b"pw")
                name = given.name if is_right else None
                self.do(self.talk.logged_in(name, b"535 5.7.8 no\r\n"))
            case Screen():
                self.talk.screened(self.blocked)
            case Judge():
                self.do(self.talk.judged(judge(step)))
            case Begin() | Chunk() | Abandon() | Finish():
                self.do_message(step)
            case Filter():
                raise AssertionError("no filters here")

    def do_message(self, step: Begin | Chunk | Abandon | Finish) -> None:
        match step:
            case Begin():
                self.begun.append(step)
                self.message = b""
                self.wire += b"354 go\r\n"
            case Chunk(data=data):
                assert self.message is not None
                self.message += data
            case Abandon():
                self.message = None
            case Finish():
                assert self.message is not None
                begin = self.begun[-1]
                self.queued.append((begin.sender, begin.recips, self.message))
                self.wire += b"250 queued\r\n"


ENVELOPE = b"MAIL FROM:<a@far.example>\r\nRCPT TO:<b@here.example>\r\nDATA\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1 << 16])
def test_any_cut_of_the_input_means_the_same(size: int) -> None:
    driver = Driver()
    data = (
        b"EHLO x\r\n"
        + ENVELOPE
        + b"S: x\r\n\r\n..dot\r\n.\rx\r\r\n.\r\n"
        + ENVELOPE
        + b".\r\nNOOP\r\nQUIT\r\n"
    )
    got = driver.send(data, size)
    assert got == [250, 250, 250, 354, 250, 250, 250, 354, 250, 250, 221]
    recips = (b"b@here.example",)
    assert driver.queued == [
        (b"a@far.example", recips, b"S: x\n\n.dot\n\rx\r\n"),
        (b"a@far.example", recips, b""),
    ]
    assert driver.is_over


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 16])
@pytest.mark.parametrize(
    "text",
    [
        b"\n", b"x\n", b"\r\n\n", b"x\n.\r\n", b"x\r\n.\n", b"x\n.\n", b"\n.\r\n",
        b"\r\n.\r\r\n\n", b".\n", b"..\n",
    ],
)  # fmt: skip
def test_a_stray_newline_ends_the_session(text: bytes, size: int) -> None:
    driver = Driver()
    assert driver.send(ENVELOPE) == [250, 250, 354]
    assert driver.send(text + b"\r\n.\r\n" + ENVELOPE + b"x\r\n.\r\n", size) == [451]
    assert driver.is_over
    assert driver.queued == []


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_data_reader_says_what_the_old_machine_said(size: int) -> None:
    # Every text of three pieces, against a reader that looks at one byte at a time.
    pieces = [b"\r\n", b"\r", b".", b"x", b"\r\n.", b"\r\n.\r"]
    for text in (a + b + c for a in pieces for b in pieces for c in pieces):
        whole = text + b"\r\n.\r\nrest"
        reader = DataReader()
        got = b""
        for piece in cut(whole, size):
            if reader.is_over:
                reader.rest += piece
            else:
                got += reader.feed(piece)
        want, rest = slow(whole)
        assert (got, reader.rest) == (want, rest), text


def slow(data: bytes) -> tuple[bytes, bytes]:
    """Line by line; a line ends with CR LF and nothing else."""
    message = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        assert end
        if line == b".":
            return message, data
        message += line.removeprefix(b".") + b"\n"


def test_data_reader_needs_its_stray_newline() -> None:
    reader = DataReader()
    assert reader.feed(b"abc\r") == b"abc"
    with pytest.raises(StrayNewline):
        reader.feed(b"x\n")


@pytest.mark.parametrize("size", [1, 2, 9, 1000])
@pytest.mark.parametrize(
    ("header", "hops"),
    [
        (b"Received: x\nreceived : y\nDELIVERED-TO:z\n\nReceived: no\n", 3),
        (b"\nReceived: no\n", 0),
        (b"Received-SPF: x\nDelivered: x\n Received: x\nX-Received: y\n\n", 0),
        (b"S: " + b"y" * 200 + b"Received: no\nReceived: x\n\n", 1),
        (b"Received: without an end", 0),
    ],
)
def test_hops(header: bytes, hops: int, size: int) -> None:
    counter = HopCounter()
    for piece in cut(header, size):
        counter.feed(piece)
    assert counter.hops == hops


def test_long_lines_are_skipped_and_said_once() -> None:
    lines = Lines()
    lines.feed(b"x" * (LINE_MAX + 1))
    with pytest.raises(LineTooLong):
        lines.next()
    for _ in range(3):
        lines.feed(b"y" * 100_000)
        assert lines.next() is None
        assert lines.take_rest() == b""
    lines.feed(b"end\r\nNOOP\r\n")
    assert lines.next() == b"NOOP"
    lines.feed(b"z" * LINE_MAX + b"\r\n" + b"z" * (LINE_MAX - 1) + b"\n")
    with pytest.raises(LineTooLong):
        lines.next()
    assert lines.next() == b"z" * (LINE_MAX - 1)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"FROM:<a@b>", b"a@b"),
        (b"<a@b>", b"a@b"),
        (b"FROM: <a@b> ", b"a@b"),
        (b"FROM:a@b", b"a@b"),
        (b"FROM: a@b SIZE=1", b"a@b"),
        (b"FROM:<>", b""),
        (b"FROM:<@x,@y:a@b>", b"a@b"),
        (b'FROM:<"a b"@c>', b"a b@c"),
        (b'FROM:<"a>b"@c>', b"a>b@c"),
        (b'FROM:<"a\\"b"@c>', b'a"b@c'),
        (b"FROM:<a\\@b@c>", b"a@b@c"),
        (b"FROM:<a@b", b"a@b"),
        (b"", b""),
        (b"FROM:<" + b"a" * 899 + b">", b"a" * 899),
        (b"FROM:<" + b"a" * 900 + b">", None),
        (b"FROM:<a\0b@c>", None),
        (b"FROM:<a\rb@c>", None),
        (b"FROM:<a\xc3\xa4@b>", b"a\xc3\xa4@b"),
    ],
)
def test_addresses(text: bytes, want: bytes | None) -> None:
    argument = parse_argument(text)
    assert (argument and argument.address) == (want if argument else None)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"MAIL FROM:<> SIZE=10 body=8bitmime SMTPUTF8", 250),
        (b"MAIL FROM:<a@b> SIZE=ten", 501),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", 501),
        (b"MAIL FROM:<a@b> SMTPUTF8=1", 501),
        (b"MAIL FROM:<a@b> RET=FULL", 555),
        (b"MAIL FROM:<a@b> AUTH=<>", 555),
        (b"MAIL FROM:<a@b> =", 501),
        (b"mail from:<a@b>", 250),
        (b"RCPT TO:<b@here.example>", 503),
        (b"DATA", 503),
        (b"RSET x", 250),
        (b"NOOP x", 250),
        (b"VRFY x", 252),
        (b"HELP", 214),
        (b"EXPN x", 502),
        (b"", 502),
        (b"STARTTLS", 502),
        (b"AUTH PLAIN", 502),
        (b"QUIT", 221),
        (b"HELO", 250),
    ],
)
def test_commands(line: bytes, code: int) -> None:
    assert Driver().send(line + b"\r\n") == [code]
    assert Driver().send(line + b"\n") == [code]


def test_errors_recipients_and_senders_have_limits() -> None:
    driver = Driver()
    assert driver.send(b"FOO\r\n" * 9) == [502] * 5 + [421]
    assert driver.is_over
    driver = Driver()
    rcpt = b"RCPT TO:<b@here.example>\r\n"
    assert driver.send(b"MAIL FROM:<x>\r\n" + rcpt * 6) == [250] * 4 + [452] * 3
    bad = b"MAIL FROM:<BAD@far.example>\r\n" + rcpt
    assert Driver().send(bad) == [250, 553]


def test_a_table_may_list_what_the_file_does_not() -> None:
    mail = b"MAIL FROM:<x>\r\nRCPT TO:<a@table.example>\r\nRCPT TO:<a@far.example>\r\n"
    assert Driver().send(mail) == [250, 250, 553]


def test_size_is_judged_before_and_after() -> None:
    driver = Driver(Peer(databytes=10))
    assert driver.send(b"MAIL FROM:<a> SIZE=11\r\nEHLO x\r\n") == [552, 250]
    assert b"250-SIZE 10\r\n" in driver.wire
    assert driver.send(ENVELOPE + b"x" * 10 + b"\r\n.\r\n") == [250, 250, 354, 552]
    assert driver.send(ENVELOPE + b"x" * 9 + b"\r\n.\r\n") == [250, 250, 354, 250]
    assert len(driver.queued) == 1
    assert [databytes_of(each) for each in ({}, {b"DATABYTES": b"5"})] == [None, 5]
    assert databytes_of({b"DATABYTES": b"x"}) == 0


def test_blocked_clients_hear_it_at_rcpt_and_data_unless_they_log_in() -> None:
    driver = Driver(Peer(is_screened=False))
    driver.blocked = b"553 go away\r\n"
    assert driver.send(b"HELO x\r\n" + ENVELOPE + b"RSET\r\n") == [
        250, 250, 553, 553, 250,
    ]  # fmt: skip
    driver = Driver(tls_peer(is_screened=False))
    driver.blocked = b"553 go away\r\n"
    driver.send(b"STARTTLS\r\n")
    plain = base64.b64encode(b"\0ann\0pw")
    assert driver.send(b"AUTH PLAIN " + plain + b"\r\n" + ENVELOPE) == [
        235, 250, 250, 354,
    ]  # fmt: skip


def test_what_came_with_starttls_is_forgotten() -> None:
    driver = Driver(tls_peer())
    text = b"EHLO x\r\nMAIL FROM:<a>\r\nSTARTTLS\r\nRCPT TO:<b@here.example>\r\n"
    assert driver.send(text) == [250, 250, 220]
    assert driver.is_secure
    assert driver.send(b"RCPT TO:<b@here.example>\r\n") == [503]
    assert driver.send(b"STARTTLS\r\n") == [502]
    before = len(driver.wire)
    driver.send(b"EHLO x\r\n")
    assert b"STARTTLS" not in driver.wire[before:]
    assert b"250 AUTH PLAIN LOGIN\r\n" in driver.wire[before:]


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ([b"AUTH PLAIN " + base64.b64encode(b"\0ann\0pw")], [235]),
        ([b"auth plain", base64.b64encode(b"ann\0ann\0pw")], [334, 235]),
        ([b"AUTH PLAIN " + base64.b64encode(b"bob\0ann\0pw")], [501]),
        ([b"AUTH PLAIN " + base64.b64encode(b"\0ann\0wrong")], [535]),
        ([b"AUTH LOGIN", b"YW5u", b"cHc="], [334, 334, 235]),
        ([b"AUTH LOGIN YW5u", b"cHc="], [334, 235]),
        ([b"AUTH LOGIN", b"*", b"NOOP"], [334, 501, 250]),
        ([b"AUTH LOGIN", b"!!"], [334, 501]),
        ([b"AUTH LOGIN", b"=" * 5000, b"NOOP"], [334, 500, 250]),
        ([b"AUTH PLAIN ="], [501]),
        ([b"AUTH CRAM-MD5"], [504]),
        ([b"MAIL FROM:<a>", b"AUTH PLAIN"], [250, 503]),
        ([b"AUTH PLAIN AGFubgBwdw==", b"AUTH PLAIN"], [235, 503]),
    ],
)
def test_logins(lines: list[bytes], codes: list[int]) -> None:
    driver = Driver(tls_peer())
    driver.send(b"STARTTLS\r\n")
    assert driver.send(b"".join(line + b"\r\n" for line in lines)) == codes
    assert driver.talk.login == (b"ann" if 235 in codes else None)


def test_logins_need_tls_and_relaying_needs_logins() -> None:
    driver = Driver(tls_peer(must_log_in=True))
    assert driver.send(b"AUTH PLAIN\r\nMAIL FROM:<a>\r\n") == [538, 530]
    wrong = b"AUTH PLAIN " + base64.b64encode(b"\0ann\0x") + b"\r\n"
    driver.send(b"STARTTLS\r\n")
    assert driver.send(wrong * 4) == [535] * 3
    assert driver.is_over
    driver = Driver(tls_peer(must_log_in=True))
    driver.send(b"STARTTLS\r\n")
    driver.send(b"EHLO x\r\n")
    text = b"AUTH PLAIN AGFubgBwdw==\r\nMAIL FROM:<a>\r\nRCPT TO:<b@far.example>\r\n"
    assert driver.send(text + b"DATA\r\nx\r\n.\r\n") == [235, 250, 250, 354, 250]
    assert driver.begun[0].protocol == b"ESMTPSA"
    assert driver.queued == [(b"a", (b"b@far.example",), b"x\n")]


def test_relayclient_adds_its_value_and_submission_takes_it() -> None:
    driver = Driver(Peer(relay_suffix=b"@out", must_log_in=True))
    text = b"MAIL FROM:<a>\r\nRCPT TO:<b@far.example>\r\nDATA\r\n.\r\n"
    assert driver.send(text) == [250, 250, 354, 250]
    assert driver.queued[0][1] == (b"b@far.example@out",)
    assert driver.begun[0].protocol == b"SMTP"


def test_a_reply_is_one_line_with_its_status_in_front() -> None:
    assert reply(451, "no\r\n250 ok (#4.3.0)") == (b"451 4.3.0 no  250 ok (#4.3.0)\r\n")
    assert reply(250, "ok") == b"250 ok\r\n"
