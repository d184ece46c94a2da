"""Parsers of what strangers on the network send, and of messages."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import dns.exception
import dns.message

from qsend.core import draft, smtpdpath
from qsend.core.addresslist import rewrite_list
from qsend.core.errors import PermFail
from qsend.core.pop3 import Listed, Transaction
from qsend.core.pop3auth import Authorization
from qsend.core.pop3lines import Lines as PopLines
from qsend.core.pop3message import Rendering
from qsend.core.relay import RelayRules, Taken
from qsend.core.rewrite import Rules
from qsend.core.smtpc import Client as SmtpClient
from qsend.core.smtpd import Dialogue
from qsend.core.smtpdata import DataReader, HopCounter, StrayNewline
from qsend.core.smtpdsteps import (
    Bye,
    Filter,
    Judge,
    LogIn,
    Peer,
    Say,
    Screen,
    ServerRules,
    StartTls,
)
from qsend.core.smtptable import State
from qsend.core.smtptypes import Envelope, SendContent
from qsend.formats import crlf, mbox, milter, qmqp, qmtp, rfc822, serialmail, smtp
from qsend.formats.netstring import NetstringReader
from qsend.sysio import dnsquery, proxyheader
from tests.fuzz.target import FAILURE, PROTOCOL, Target, agree

RULES = Rules(envnoathost=b"a.example", locals=frozenset({b"a.example"}))
RELAY = RelayRules(rewriting=RULES, rcpthosts=frozenset({b"a.example"}))
SERVER = ServerRules(greeting=b"a.example", relay=RELAY, databytes=20000)


def _netstring() -> Callable[[bytes], object]:
    reader = NetstringReader()
    is_open = False

    def feed(data: bytes) -> bytes:
        nonlocal is_open
        reader.feed(data)
        told = b""
        while True:
            if not is_open:
                length = reader.open()
                if length is None:
                    return told
                is_open = True
                told += b"%d:" % length
            told += reader.read()
            if reader.left or not reader.close():
                return told
            is_open = False
            told += b","

    return feed


def _reply() -> Callable[[bytes], object]:
    reader = smtp.ReplyReader()

    def feed(data: bytes) -> list[object]:
        reader.feed(data)
        found: list[object] = []
        while (reply := reader.take()) is not None:
            assert len(reply.text) <= smtp.TEXT_MAX
            found.append(reply)
        return found

    return feed


def _smtp_client(data: bytes) -> None:
    """A server that says anything to a client with a message."""
    client = SmtpClient(b"192.0.2.1", b"me.example")
    reader = smtp.ReplyReader()
    reader.feed(data)
    envelope = Envelope(sender=b"a@b", recips=(b"c@d", b"e@f"), size=9, eight_bit=True)
    is_begun = False
    while True:
        reply = reader.take()
        actions = list(client.receive(reply) if reply else client.lost())
        while any(isinstance(each, SendContent) for each in actions):
            actions = list(client.sent())
        if client.state is State.IDLE and reply is not None and not is_begun:
            is_begun = True
            client.begin(envelope)
        if reply is None or client.state is State.CLOSED:
            return


def _smtpd(data: bytes) -> None:
    """A client that says anything, to a server that grants it everything."""
    talk = Dialogue(
        SERVER,
        Peer(
            is_screened=False,
            offers_tls=data[:1] == b"t",
            offers_login=data[:1] == b"t",
            is_filtered=data[:1] == b"f",
        ),
    )
    for at in range(0, len(data), 1000):
        talk.feed(data[at : at + 1000])
        while (step := talk.next()) is not None:
            if isinstance(step, Judge):
                verdict = step.verdict
                recip = verdict.recip if isinstance(verdict, Taken) else b"a@a.example"
                step = talk.judged(Taken(recip=recip))
            if isinstance(step, Filter):
                step = talk.filtered(step, None)
            match step:
                case Say(text=text) | Bye(text=text):
                    assert text.endswith(b"\r\n")
                    assert text.count(b"\r\n") == text.count(b"\n")
                case Screen():
                    talk.screened(None)
                case StartTls():
                    talk.secured()
                case LogIn():
                    talk.logged_in(b"ann")
                case _:
                    pass
            if isinstance(step, Bye):
                return


def _data_reader(data: bytes) -> None:
    whole, cut = DataReader(), DataReader()
    hops = HopCounter()
    text = b""
    expected: bytes | None = None
    try:
        expected = whole.feed(data)
    except StrayNewline:
        expected = None
    try:
        for at in range(0, len(data), 3):
            if cut.is_over:
                break
            piece = cut.feed(data[at : at + 3])
            hops.feed(piece)
            text += piece
    except StrayNewline:
        assert expected is None
        return
    # What is wrong in it may come after a part that was given out already.
    assert expected is None or text == expected


def _pop(data: bytes) -> None:
    lines = PopLines()
    lines.feed(data)
    login = Authorization(challenge=b"<1@a.example>", offers_tls=True)
    session = Transaction([Listed(size=7, uid=b"u1"), Listed(size=9, uid=b"u2")])
    while (command := lines.next()) is not None:
        for step in (login.take(command), session.take(command)):
            text = getattr(step, "text", b"\r\n")
            assert text.endswith(b"\r\n")


def _rendering(data: bytes) -> None:
    for count in (None, 2):
        whole, cut = Rendering(count), Rendering(count)
        text = whole.feed(data) + whole.finish()
        pieces = [cut.feed(data[at : at + 2]) for at in range(0, len(data), 2)]
        assert b"".join(pieces) + cut.finish() == text
        assert text.endswith(b".\r\n")
        # Nothing inside of it looks like its end.
        assert b"\r\n.\r\n" not in text[:-5]


def _qmtp(make: Callable[[], qmtp.Dialogue]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        dialogue = make()
        for at in range(0, len(data), 5):
            dialogue.feed(data[at : at + 5])
            while (step := dialogue.next()) is not None:
                if isinstance(step, qmtp.Judge):
                    dialogue.judged(Taken(recip=b"a@b"))
                elif isinstance(step, qmtp.Commit):
                    dialogue.queued(qmtp.accepted(1, 2))
                elif isinstance(step, qmtp.Bye):
                    return

    return run


def _milter(data: bytes) -> None:
    reader = milter.PacketReader()
    reader.feed(data)
    while (packet := reader.take()) is not None:
        if packet[0] == milter.NEGOTIATE:
            milter.parse_terms(packet[1])
        else:
            milter.parse_answer(*packet)


def _dns(data: bytes) -> None:
    try:
        reply = dns.message.from_wire(data)
    except dns.exception.DNSException:
        return
    answer = dnsquery.read_reply(reply)
    for name in (*answer.names, *(target for _, target in answer.mx)):
        assert isinstance(name, bytes)
    assert answer.ttl_s >= 0


class _NoLoop:
    """Enough of a loop for a reader that never has to wait."""

    def get_debug(self) -> bool:
        return False


def _proxy(data: bytes) -> None:
    reader = asyncio.StreamReader(loop=_NoLoop())  # type: ignore[arg-type]
    reader.feed_data(data)
    reader.feed_eof()
    wanted = proxyheader.client(reader)
    try:
        wanted.send(None)
    except StopIteration as exc:
        found = exc.value
        assert found is None or 0 <= found[1] <= 65535
    else:
        raise AssertionError("it waits")


def _header(data: bytes) -> None:
    fields, rest = rfc822.read_header(io.BytesIO(data).readline)
    for raw in fields:
        field = rfc822.parse_field(raw)
        try:
            rewrite_list(field.tokens, lambda address: address)
        except PermFail:
            continue
    assert sum(map(len, fields)) + len(rest) <= 2 * len(data) + 20


def _tokens(data: bytes) -> None:
    tokens = rfc822.tokenize(data)
    text = rfc822.render_field(b"To", tokens)
    assert text.endswith(b"\n")
    # What it writes is one field.
    fields, _rest = rfc822.read_header(io.BytesIO(text).readline)
    assert len(fields) == 1


def _draft(data: bytes) -> None:
    found = draft.parse_header(data, is_all=True)
    assert found is not None
    fields, at = found
    assert 0 <= at <= len(data) + 1
    for field in fields:
        field.value(keeps_space=True)
    draft.parse_header(data, is_all=False)


def _text(make: Callable[[], crlf.Unix | mbox.MboxText]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        pieces = [data[at : at + 2] for at in range(0, len(data), 2)]
        assert _through(make(), [data]) == _through(make(), pieces)

    return run


def _through(each: crlf.Unix | mbox.MboxText, pieces: list[bytes]) -> bytes:
    text = b"".join(map(each.feed, pieces))
    return text + (each.end() if isinstance(each, crlf.Unix) else each.finish())


_SESSION = (
    b"220 a\r\n250-a\r\n250-SIZE 9\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n"
    b"452 later\r\n354 go\r\n250 done\r\n221 bye\r\n"
)
_MAIL = (
    b"EHLO c.example\r\nMAIL FROM:<a@b> SIZE=3\r\nRCPT TO:<c@a.example>\r\n"
    b"DATA\r\nReceived: x\r\n\r\n..\r\n.\r\nQUIT\r\n"
)
_MESSAGE = (
    b"From mail\nReceived: by a\nTo: ann <a@b>, (note) c@d,\n list: e@f, g;\n"
    b'Cc: "q\\"r" @x:s@[192.0.2.1]\n\nbody\n'
)
_MX_REPLY = bytes.fromhex(
    "000181800001000100000000016107657861"
    "6d706c6500000f0001c00c000f00010000000a0005000a016dc00c"
)

PEERS = (
    Target(
        name="netstrings",
        run=agree(_netstring),
        seeds=(b"5:hello,0:,12:3:abc,3:def,,",),
        tokens=(b":", b",", b"9999999999:"),
    ),
    Target(
        name="smtp replies",
        run=agree(_reply),
        seeds=(_SESSION,),
        tokens=(b"\r\n", b"250-", b"421 "),
    ),
    Target(
        name="smtp client",
        run=_smtp_client,
        legal=PROTOCOL,
        seeds=(_SESSION, b"220 a\r\n500 no\r\n250 helo\r\n421 x\r\n"),
        tokens=(b"\r\n", b"250-", b"250 ", b"452 ", b"354 ", b"554 "),
    ),
    Target(
        name="smtp server",
        run=_smtpd,
        seeds=(
            _MAIL,
            b"f\n" + _MAIL,
            b"t\nEHLO a\nSTARTTLS\nEHLO b\nAUTH PLAIN AGEAYg==\n",
            b"t\nEHLO a\nSTARTTLS\nEHLO b\nAUTH LOGIN\nYQ==\nYg==\n",
        ),
        tokens=(b"\r\n.\r\n", b"RCPT TO:<", b"MAIL FROM:<", b"RSET\n", b"DATA\r\n"),
    ),
    Target(
        name="smtp address",
        run=smtpdpath.parse_argument,
        legal=(ValueError,),
        seeds=(b'FROM:<@r:"a\\"b"@c.example> SIZE=9 BODY=8BITMIME',),
        tokens=(b"<", b">", b'"', b"\\", b"="),
    ),
    Target(
        name="smtp data",
        run=_data_reader,
        seeds=(b"a: b\r\nDelivered-To: x\r\n\r\n..c\r\n.\r\nrest",),
        tokens=(b"\r\n.\r\n", b"\r\n..", b"\r", b"\n"),
    ),
    Target(
        name="pop3",
        run=_pop,
        legal=PROTOCOL,
        seeds=(b"CAPA\r\nUSER a\r\nPASS b c\r\nLIST 1\nTOP 1 2\nDELE 2\nUIDL\nQUIT\n",),
        tokens=(b"\n", b"APOP ", b"RETR ", b"99999999999"),
    ),
    Target(
        name="pop3 message",
        run=_rendering,
        seeds=(b"a: b\r\n\n.c\r\r\n.\n",),
        tokens=(b"\n.", b"\r", b"\n\n"),
    ),
    Target(
        name="qmtp",
        run=_qmtp(lambda: qmtp.QmtpDialogue(RELAY, None, 1000)),
        legal=PROTOCOL,
        seeds=(b"7:\na: b\n\n,3:a@b,15:11:c@a.example,,",),
        tokens=(b"3:a@b,", b","),
    ),
    Target(
        name="qmqp",
        run=_qmtp(qmtp.QmqpDialogue),
        legal=PROTOCOL,
        seeds=(b"18:3:abc,3:a@b,3:c@d,,",),
        tokens=(b"3:a@b,", b","),
    ),
    Target(
        name="qmqp answer",
        run=agree(lambda: _answers(qmqp.AnswerReader())),
        seeds=(b"3:Kok,",),
    ),
    Target(
        name="milter",
        run=_milter,
        legal=PROTOCOL,
        seeds=(
            b"\0\0\0\x0dO\0\0\0\6\0\0\0\x3f\0\0\0\0" + b"\0\0\0\1c" * 3,
            b"\0\0\0\x06y550 \0" + b"\0\0\0\x05ha\0b\0",
            b"\0\0\0\x0am\0\0\0\1a\0b\0",
        ),
        tokens=(b"\0\0\0\1", b"\0\0\0\5", b"y", b"h", b"m", b"i"),
    ),
    Target(
        name="dns",
        run=_dns,
        seeds=(_MX_REPLY,),
        tokens=(b"\xc0\x0c", b"\0\x0f\0\1", b"\0\1\0\1", b"\0\5\0\1", b"\0\x10\0\1"),
    ),
    Target(
        name="proxy header",
        run=_proxy,
        legal=PROTOCOL,
        seeds=(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 25\r\n",
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\1\2\3\4\0\1\0\2",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + b"/run/a".ljust(216, b"\0"),
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ),
        tokens=(b"TCP6 ", b"::1 ", b"\r\n"),
    ),
    Target(
        name="message header",
        run=_header,
        legal=FAILURE,
        seeds=(_MESSAGE,),
        tokens=(b"\nTo: ", b"\n ", b"(", b"<", b'"', b"\\", b";", b"="),
    ),
    Target(
        name="address tokens",
        run=_tokens,
        legal=FAILURE,
        seeds=(_MESSAGE[30:], b'"a b"@[1.2.3.4] (c (d))'),
        tokens=(b"(", b"<", b'"', b"\\", b"\n", b"\r"),
    ),
    Target(
        name="filtered header",
        run=_draft,
        seeds=(_MESSAGE,),
        tokens=(b"\n ", b": ", b"\n\n"),
    ),
    Target(
        name="crlf",
        run=_text(crlf.Unix),
        seeds=(b"a\r\nb\rc\n",),
        tokens=(b"\r", b"\n"),
    ),
    Target(
        name="mbox",
        run=_text(mbox.MboxText),
        seeds=(b"From a\n>From b\nFromage\n",),
        tokens=(b"\nFrom ", b">", b"\n"),
    ),
    Target(
        name="serial results",
        run=agree(lambda: serialmail.ResultReader().feed),
        legal=PROTOCOL,
        seeds=(b"new/1\0Kdone\nnew/2\0Zlater\n",),
    ),
)


def _answers(reader: qmqp.AnswerReader) -> Callable[[bytes], list[object]]:
    """Until the answer has come."""
    is_over = False

    def feed(data: bytes) -> list[object]:
        nonlocal is_over
        letter = None if is_over else reader.feed(data)
        is_over = is_over or letter is not None
        return [] if letter is None else [letter]

    return feed
