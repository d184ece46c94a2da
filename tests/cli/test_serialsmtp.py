"""serialsmtp over files and sockets: what it sends, says and exits with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.core.model import Letter
from qsend.formats.serialmail import Result
from qsend.sysio import serialsmtp
from qsend.sysio.serialsmtp import Serial, Wire
from tests.smtppeer import LOCKSTEP, PIPELINED, Odd, Peer, Script

ROOT = Path(__file__).parents[2]
COMMAND = (
    "import sys; from qsend.cli.serialsmtp import main; sys.exit(main(sys.argv[1:]))"
)
HELLO = [b"220-hi", b"220 there", b"250-host", b"250-SIZE", b"250 pipelining"]
ACCEPTED = [b"250 ok", b"250 ok", b"354 go", b"250 thanks"]


def shell(reading: str) -> list[str]:
    """Runs Python with these descriptors."""
    return ["sh", "-c", f'exec "$@" {reading} 7>sent', "sh", sys.executable]


@dataclass
class Place:
    """A directory with messages."""

    path: Path

    def message(
        self,
        name: str,
        body: bytes = b"Subject: x\n\nhello\n",
        sender: bytes = b"s@x",
        recip: bytes = b"pre-r@y",
    ) -> str:
        head = b"Return-Path: <%b>\nDelivered-To: %b\n" % (sender, recip)
        (self.path / name).write_bytes(head + body)
        return name

    def run(
        self,
        replies: Sequence[bytes],
        *names: str,
        args: Sequence[str] = ("pre-", "helo.example"),
        remote: str | None = None,
    ) -> tuple[int, bytes, bytes, list[bytes]]:
        """(exit code, descriptor 1, descriptor 2, lines sent), replies from a file."""
        server, sent = self.path / "replies", self.path / "sent"
        server.write_bytes(b"".join(reply + b"\r\n" for reply in replies))
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        if remote:
            environ["TCPREMOTEIP"] = remote
        done = subprocess.run(
            [*shell("6<replies"), "-W", "error", "-c", COMMAND, *args],
            input=b"".join(name.encode() + b"\0" for name in names),
            env=environ,
            cwd=self.path,
            capture_output=True,
            check=False,
            timeout=60,
        )
        lines = sent.read_bytes().split(b"\r\n")
        assert lines.pop() == b""
        return done.returncode, done.stdout, done.stderr, lines


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_message_goes_out_with_the_envelope_of_its_lines(place: Place) -> None:
    place.message("1", b"a\n.b\n..c\nd\r\ne")
    code, out, err, sent = place.run([*HELLO, *ACCEPTED], "1")
    assert (code, out, err) == (0, b"1\0K250 thanks\n", b"")
    assert sent == [
        b"EHLO helo.example", b"MAIL FROM:<s@x>", b"RCPT TO:<r@y>", b"DATA",
        b"a", b"..b", b"...c", b"d", b"e", b".", b"QUIT",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sender", "recip", "mail", "rcpt"),
    [
        (b"", b"pre-r@y", b"<>", b"<r@y>"),
        (b'"a b"@x', b"pre-c d@y", b'<"a b"@x>', b'<"c d"@y>'),
        (b"a b@x", b"pre-@y", b'<"a b"@x>', b'<""@y>'),
        (b"#@[]", b"pre-pre-r@y", b"<#@[]>", b"<pre-r@y>"),
    ],
)
def test_addresses_are_quoted_once(
    place: Place, sender: bytes, recip: bytes, mail: bytes, rcpt: bytes
) -> None:
    place.message("1", sender=sender, recip=recip)
    _, _, _, sent = place.run([*HELLO, *ACCEPTED], "1")
    assert sent[1:3] == [b"MAIL FROM:" + mail, b"RCPT TO:" + rcpt]


def test_second_message_follows_a_reset(place: Place) -> None:
    names = [place.message(name) for name in "12"]
    replies = [*HELLO, *ACCEPTED, b"250 reset", *ACCEPTED]
    code, out, _, sent = place.run(replies, *names, remote="192.0.2.1")
    assert code == 0
    assert out == b"".join(
        b"%b\0K192.0.2.1 said: 250 thanks\n" % n for n in (b"1", b"2")
    )
    assert sent.count(b"RSET") == 1
    assert sent.index(b"RSET") > sent.index(b".")


@pytest.mark.parametrize(
    ("replies", "out"),
    [
        ([b"451 mail", b"503 x", b"503 x"], b"Z451 mail"),
        ([b"550 mail", b"503 x", b"503 x"], b"D550 mail"),
        ([b"250 ok", b"450 rcpt", b"503 x"], b"Z450 rcpt"),
        ([b"250 ok", b"553-a", b"553 rcpt", b"503 x"], b"D553 rcpt"),
        ([b"250 ok", b"250 ok", b"451 data"], b"Z451 data"),
        ([b"250 ok", b"250 ok", b"354 go", b"452 full"], b"Z452 full"),
        ([b"250 ok", b"250 ok", b"354 go", b"554 \x07no"], b"D554 ?no"),
    ],
)
def test_refusal_is_told_and_the_next_message_is_tried(
    place: Place, replies: list[bytes], out: bytes
) -> None:
    names = [place.message(name) for name in "12"]
    code, said, err, _ = place.run([*HELLO, *replies, b"250 reset", *ACCEPTED], *names)
    assert (code, err) == (0, b"")
    assert said == b"1\0%b\n2\0K250 thanks\n" % out


@pytest.mark.parametrize(
    ("replies", "out", "err"),
    [
        ([b"451 mail", b"250 ok"], b"1\0Z451 mail\n", b"protocol violation"),
        ([b"451 mail", b"503 x", b"354 go"], b"1\0Z451 mail\n", b"protocol violation"),
        ([b"250 ok", b"451 rcpt", b"354 go"], b"1\0Z451 rcpt\n", b"protocol violation"),
        ([b"354 go"], b"", b"protocol violation"),
        ([b"250 ok", b"250 ok", b"250 go"], b"", b"protocol violation"),
        ([b"250 ok", b"250 ok", b"354 go", b"354 go"], b"", b"protocol violation"),
        ([b"nonsense"], b"", b"protocol violation"),
        ([b"250 ok", b"250 ok", b"354 go"], b"", b"network read error: end of file"),
        ([], b"", b"network read error: end of file"),
    ],
)
def test_server_that_breaks_off_or_the_protocol_ends_the_run(
    place: Place, replies: list[bytes], out: bytes, err: bytes
) -> None:
    place.message("1")
    code, said, told, sent = place.run([*HELLO, *replies], "1")
    assert (code, said, told) == (111, out, b"serialsmtp: fatal: %b\n" % err)
    assert b"QUIT" not in sent
    # A message without an envelope must not be ended, or it would be one.
    assert (b"." in sent) is (replies[:3] == [b"250 ok", b"250 ok", b"354 go"])


@pytest.mark.parametrize(
    ("replies", "err", "sent"),
    [
        ([b"554 no"], b"connected but greeting failed", [b"QUIT"]),
        (
            [b"220 hi", b"502 what", b"550 no"],
            b"connected but my name was rejected",
            [b"EHLO helo.example", b"HELO helo.example", b"QUIT"],
        ),
    ],
)
def test_server_that_takes_nothing_ends_the_run(
    place: Place, replies: list[bytes], err: bytes, sent: list[bytes]
) -> None:
    place.message("1")
    assert place.run(replies, "1") == (111, b"", b"serialsmtp: fatal: %b\n" % err, sent)


def test_server_without_ehlo_is_asked_step_by_step(place: Place) -> None:
    names = [place.message(name) for name in "12"]
    replies = [b"220 hi", b"502 what", b"250 hi", b"250 ok", b"550 no", b"250 reset"]
    code, out, _, sent = place.run([*replies, *ACCEPTED], *names)
    assert (code, out) == (0, b"1\0D550 no\n2\0K250 thanks\n")
    assert sent[1:6] == [
        b"HELO helo.example", b"MAIL FROM:<s@x>", b"RCPT TO:<r@y>", b"RSET",
        b"MAIL FROM:<s@x>",
    ]  # fmt: skip


def test_files_that_are_not_ours_are_passed_over(place: Place) -> None:
    place.message("other", recip=b"else-r@y")
    (place.path / "bare").write_bytes(b"Subject: x\n\n")
    (place.path / "empty").touch()
    names = ("other", "bare", "empty", "gone")
    assert place.run(HELLO, *names) == (0, b"", b"", [b"EHLO helo.example", b"QUIT"])


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_what_is_no_file_ends_the_run(place: Place, kind: str) -> None:
    odd = place.path / "odd"
    if kind == "directory":
        odd.mkdir()
    elif kind == "fifo":
        os.mkfifo(odd)
    else:
        place.message("1")
        odd.symlink_to("1")
    code, out, err, sent = place.run(HELLO, "odd")
    assert (code, out) == (111, b"")
    assert err.startswith(b"serialsmtp: fatal: unable to open odd: ")
    assert sent == [b"EHLO helo.example"]


@pytest.mark.parametrize(
    ("sender", "recip", "word"),
    [(b"a@b\r.c", b"pre-r@y", b"sender"), (b"a@b", b"pre-r@y z", b"recipient")],
)
def test_address_that_smtp_cannot_carry_is_a_failure(
    place: Place, sender: bytes, recip: bytes, word: bytes
) -> None:
    place.message("1", sender=sender, recip=recip)
    code, out, _, sent = place.run(HELLO, "1")
    assert code == 0
    assert out.startswith(b"1\0DSorry, the %b address cannot be sent" % word)
    assert sent == [b"EHLO helo.example", b"QUIT"]


@pytest.mark.parametrize("args", [(), ("pre-",)])
def test_missing_arguments_are_wrong_usage(place: Place, args: tuple[str, ...]) -> None:
    done = place.run([], args=args)
    assert done == (100, b"", b"serialsmtp: usage: serialsmtp prefix helohost\n", [])


def test_closed_descriptor_is_told(place: Place) -> None:
    done = subprocess.run(
        [*shell("6<&-"), "-c", COMMAND, "pre-", "helo"],
        input=b"",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=place.path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 111
    assert b"network read error: Bad file descriptor" in done.stderr


# Over sockets, in this process.


class Talk:
    """A Serial with a peer; `results` as they are reported."""

    def __init__(self, peer: Peer) -> None:
        self.results: list[Result] = []
        self.sock = socket.create_connection(("127.0.0.1", peer.port))
        fd = self.sock.fileno()
        wire = Wire(reading=fd, writing=fd, remote=b"")
        self.serial = Serial(wire, b"pre-", self.results.append)

    def send(self, place: Place, *names: str) -> None:
        self.serial.open(b"helo.example")
        for name in names:
            self.serial.send(os.fsencode(place.path / name))
        self.serial.quit()


def talking(script: Script) -> Iterator[tuple[Peer, Talk]]:
    with Peer(script) as peer:
        talk = Talk(peer)
        yield peer, talk
        talk.sock.close()


@pytest.mark.parametrize("script", [LOCKSTEP, PIPELINED])
def test_big_message_arrives_whole(place: Place, script: Script) -> None:
    body = b"".join(b"%d\n.%d\n" % (n, n) for n in range(200_000))
    names = [place.message(name, body) for name in "12"]
    for peer, talk in talking(script):
        talk.send(place, *names)
        want = body.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n") + b".\r\n"
        assert peer.contents == [want, want]
        assert [result.letter for result in talk.results] == [Letter.SUCCESS] * 2


@pytest.mark.parametrize("odd", [Odd.SILENCE, Odd.TRICKLE])
def test_server_that_does_not_answer_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, odd: Odd
) -> None:
    monkeypatch.setattr(serialsmtp, "READ_S", 0.3)
    place.message("1")
    for _, talk in talking({**LOCKSTEP, "MAIL": odd}):
        with pytest.raises(TempFail, match="network read error: Connection timed out"):
            talk.send(place, "1")
        assert talk.results == []


def test_server_that_takes_nothing_more_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serialsmtp, "WRITE_S", 0.3)
    place.message("1", b"x" * 70 * 1_000_000 + b"\n")
    for _, talk in talking({**LOCKSTEP, "DATA": Odd.STOP_READING}):
        with pytest.raises(TempFail, match="network write error: Connection timed out"):
            talk.send(place, "1")


@pytest.mark.parametrize("odd", [Odd.LONG_LINE, Odd.MANY_LINES])
def test_endless_reply_is_a_violation(place: Place, odd: Odd) -> None:
    place.message("1")
    for _, talk in talking({**LOCKSTEP, "MAIL": odd}):
        with pytest.raises(TempFail, match="protocol violation"):
            talk.send(place, "1")
