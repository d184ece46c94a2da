"""SMTP's bytes: replies however they are cut, commands, and the content."""

from __future__ import annotations

import io
import smtplib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsend.core.errors import LocalProtocolError, RemoteProtocolError
from qsend.core.smtptypes import Command, Reply, Verb
from qsend.formats.smtp import (
    LINE_MAX,
    REPLY_MAX,
    TEXT_MAX,
    ContentEncoder,
    ReplyReader,
    encode_content,
    render_command,
    render_commands,
)

CUTS = [1, 2, 3, 1_000_000]


def read(data: bytes, cut: int) -> list[Reply]:
    reader, found = ReplyReader(), []
    for at in range(0, len(data), cut):
        reader.feed(data[at : at + cut])
        while (reply := reader.take()) is not None:
            found.append(reply)
    return found


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"250 ok\r\n", [(250, b"250 ok\n")]),
        (b"250 ok\n", [(250, b"250 ok\n")]),
        (b"250\r\n", [(250, b"250\n")]),
        (b"250 \r\n", [(250, b"250 \n")]),
        (b"250 ok\r\n354 go\r\n", [(250, b"250 ok\n"), (354, b"354 go\n")]),
        (b"250-a\r\n250-b\r\n250 c\r\n", [(250, b"250-a\n250-b\n250 c\n")]),
        (b"550-a\r\n551 b\r\n", [(551, b"550-a\n551 b\n")]),
        (b"250 a\0b\rc\r\n", [(250, b"250 a?bc\n")]),
        (b"250 ok\r\n250-more", [(250, b"250 ok\n")]),
        (b"250 \xff\xfe\r\n", [(250, b"250 \xff\xfe\n")]),
    ],
)
def test_replies_are_read(data: bytes, want: list[tuple[int, bytes]], cut: int) -> None:
    assert read(data, cut) == want


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"25\r\n",
        b"hello\r\n",
        b"150 early\r\n",
        b"600 late\r\n",
        b"25x ok\r\n",
        b"2500 ok\r\n",
        b"250ok\r\n",
        b" 250 ok\r\n",
        b"250-a\r\n550 b\r\n",
        b"250-a\r\nb\r\n",
        "²50 ok\r\n".encode(),
        b"x" * LINE_MAX,
        b"250 " + b"x" * LINE_MAX,
        b"250-x\r\n" * (REPLY_MAX // 7 + 1),
    ],
)
def test_what_is_no_reply_is_refused(data: bytes, cut: int) -> None:
    with pytest.raises(RemoteProtocolError):
        read(data, cut)


def test_replies_before_garbage_are_not_lost() -> None:
    reader = ReplyReader()
    reader.feed(b"250 ok\r\ngarbage\r\n")
    assert reader.take() == (250, b"250 ok\n")
    with pytest.raises(RemoteProtocolError):
        reader.take()


@pytest.mark.parametrize("cut", CUTS)
def test_long_reply_text_is_cut(cut: int) -> None:
    (reply,) = read(b"550-" + b"x" * 3000 + b"\r\n550 " + b"y" * 3000 + b"\r\n", cut)
    assert len(reply.text) == TEXT_MAX
    assert reply.text.endswith(b"y")


@pytest.mark.parametrize(
    ("command", "want"),
    [
        (Command(Verb.EHLO, b"me"), b"EHLO me\r\n"),
        (Command(Verb.HELO, b"me"), b"HELO me\r\n"),
        (Command(Verb.MAIL), b"MAIL FROM:<>\r\n"),
        (Command(Verb.MAIL, b"a@b", 7), b"MAIL FROM:<a@b> SIZE=7\r\n"),
        (
            Command(Verb.MAIL, b"a@b", 7, True),
            b"MAIL FROM:<a@b> SIZE=7 BODY=8BITMIME\r\n",
        ),
        (Command(Verb.RCPT, b"a@b"), b"RCPT TO:<a@b>\r\n"),
        (Command(Verb.DATA), b"DATA\r\n"),
        (Command(Verb.RSET), b"RSET\r\n"),
        (Command(Verb.QUIT), b"QUIT\r\n"),
        (Command(Verb.STARTTLS), b"STARTTLS\r\n"),
    ],
)
def test_commands_are_rendered(command: Command, want: bytes) -> None:
    assert render_command(command) == want


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0"])
@pytest.mark.parametrize("verb", [Verb.MAIL, Verb.RCPT, Verb.EHLO])
def test_line_break_in_a_command_is_never_rendered(verb: Verb, byte: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        render_commands([Command(verb, b"a" + byte + b"b")])


CONTENT = [
    (b"", b".\r\n"),
    (b"a\n", b"a\r\n.\r\n"),
    (b".\n..\n", b"..\r\n...\r\n.\r\n"),
    (b"a\n.b\n", b"a\r\n..b\r\n.\r\n"),
    (b"a.b\n", b"a.b\r\n.\r\n"),
    (b"a\n\n.\n", b"a\r\n\r\n..\r\n.\r\n"),
    (b"a\r\n.\r\n", b"a\r\n..\r\n.\r\n"),
    (b"a\r.\nb\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\r.\r\nb\n", b"a\r\n..\r\nb\r\n.\r\n"),
    (b"a\r", b"a\r\n.\r\n"),
    (b"\r", b"\r\n.\r\n"),
    (b"\r\r\n", b"\r\n\r\n.\r\n"),
    (b"\r.", b"\r\n..\r\n.\r\n"),
    (b"a\n\r\n.\n", b"a\r\n\r\n..\r\n.\r\n"),
    (b"no end", b"no end\r\n.\r\n"),
    (b".", b"..\r\n.\r\n"),
    (b"\xff\0\n", b"\xff\0\r\n.\r\n"),
]


def encode(message: bytes, cut: int) -> bytes:
    encoder = ContentEncoder()
    cuts = [message[at : at + cut] for at in range(0, len(message), cut)]
    return b"".join(map(encoder.encode, cuts)) + encoder.finish()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("message", "want"), CONTENT)
def test_content_is_encoded_however_cut(message: bytes, want: bytes, cut: int) -> None:
    assert encode(message, cut) == want
    assert encode_content(message) == want


@given(st.text(alphabet="a.\r\n", max_size=40), st.integers(1, 5))
def test_content_never_ends_early_on_the_wire(text: str, cut: int) -> None:
    message = text.encode()
    wire = encode(message, cut)
    assert wire == encode_content(message)
    assert wire.replace(b"\r\n", b"").count(b"\r") == 0
    assert wire.replace(b"\r\n", b"").count(b"\n") == 0
    assert (b"\r\n" + wire).index(b"\r\n.\r\n") == len(wire) - 3
    # The library's encoding of the same lines, as a second opinion.
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    quoted = smtplib.quotedata(lines).encode()
    if quoted and not quoted.endswith(b"\r\n"):
        quoted += b"\r\n"
    assert wire == quoted + b".\r\n"


def test_long_message_keeps_its_lines() -> None:
    message = (b"x" * 70 + b"\n") * 30
    wire = encode_content(message)
    assert io.BytesIO(wire).readlines()[:-1] == [b"x" * 70 + b"\r\n"] * 30
