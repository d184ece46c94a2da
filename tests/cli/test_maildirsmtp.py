"""maildirsmtp: a maildir emptied into an SMTP server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.recorder import Outcome, Recorder
from tests.smtppeer import LOCKSTEP, PIPELINED, Odd, Peer, Script

DAY_S = 86400


class Place:
    """A maildir, and the program."""

    def __init__(self, path: Path) -> None:
        self.recorder = Recorder(path)
        self.maildir = path / "Maildir"
        for name in ("", "tmp", "new", "cur"):
            (self.maildir / name).mkdir()

    def message(self, name: str, age: int = 100, recip: str = "pre-r@y") -> None:
        path = self.maildir / "new" / name
        path.write_text(
            f"Return-Path: <s@x>\nDelivered-To: {recip}\nSubject: {name}\n\nbody\n"
        )
        at = path.stat().st_mtime - age
        os.utime(path, (at, at))

    def run(self, port: int, host: str = "127.0.0.1", *options: str) -> Outcome:
        args = [*options, "-p", str(port), "Maildir", "pre-", host, "helo.example"]
        return self.recorder.run("maildirsmtp", "main(args)", args, b"", {})

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.maildir.glob("*/*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize("script", [LOCKSTEP, PIPELINED])
def test_all_messages_go_over_one_connection(place: Place, script: Script) -> None:
    for at in range(3):
        place.message(f"m{at}", 100 - at)
    place.message("other", recip="other-r@y")
    with Peer(script) as peer:
        done = place.run(peer.port)
        assert (done.code, done.envelope) == (0, None)
        assert place.left == ["other"]
        assert len(peer.served) == 1
        assert [content.split(b"\r\n")[0] for content in peer.contents] == [
            b"Subject: m0", b"Subject: m1", b"Subject: m2",
        ]  # fmt: skip
        assert peer.commands[:3] == [
            b"EHLO helo.example", b"MAIL FROM:<s@x>", b"RCPT TO:<r@y>",
        ]  # fmt: skip
        assert peer.commands.count(b"RSET") == 2
        assert peer.commands[-1] == b"QUIT"
    assert done.stderr.splitlines()[0] == (
        b"maildirsmtp: info: new/m0 succeeded: 127.0.0.1 said: 250 ok"
    )


@pytest.mark.slow
def test_thousands_of_messages_go_over_one_connection(place: Place) -> None:
    for at in range(2500):
        place.message(f"m{at:04}", 3000 - at)
    with Peer(PIPELINED) as peer:
        done = place.run(peer.port)
        assert (done.code, place.left, len(peer.served)) == (0, [], 1)
        subjects = [content.split(b"\r\n")[0] for content in peer.contents]
    assert subjects == [b"Subject: m%04d" % at for at in range(2500)]


def test_empty_maildir_connects_nowhere(place: Place) -> None:
    place.message("other", recip="other-r@y")
    with Peer(LOCKSTEP) as peer:
        assert place.run(peer.port).code == 0
        assert peer.served == []


@pytest.mark.parametrize("host", ["localhost", "[127.0.0.1]", "[IPv6:::1]", "::1"])
def test_host_may_be_a_name_or_any_address(place: Place, host: str) -> None:
    place.message("m")
    with Peer(LOCKSTEP, host="::1" if ":" in host else "127.0.0.1") as peer:
        done = place.run(peer.port, host)
        assert done.code == 0, done.stderr
        assert len(peer.contents) == 1


def test_refused_message_is_returned_and_the_others_go(place: Place) -> None:
    place.message("m0", 90)
    place.message("m1", 80)
    with Peer({**LOCKSTEP, "RCPT": [b"550 no such person", b"250 ok"]}) as peer:
        done = place.run(peer.port)
    assert (done.code, place.left) == (0, [])
    assert done.recips == [b"s@x"]
    assert b"<r@y>:\n127.0.0.1 said: 550 no such person\n\n" in done.message


@pytest.mark.parametrize(
    ("age", "code", "left"), [(13 * DAY_S, 111, ["m"]), (15 * DAY_S, 0, [])]
)
def test_deferred_message_waits_two_weeks(
    place: Place, age: int, code: int, left: list[str]
) -> None:
    place.message("m", age)
    with Peer({**LOCKSTEP, "RCPT": b"450 later"}) as peer:
        done = place.run(peer.port)
        assert len(peer.served) == 1
    assert (done.code, place.left) == (code, left)
    assert (done.envelope is None) is (code == 111)


def test_host_that_is_away_is_tried_once_and_keeps_only_what_is_young(
    place: Place, closed_port: int
) -> None:
    place.message("old", 15 * DAY_S)
    place.message("young", DAY_S)
    done = place.run(closed_port)
    assert (done.code, place.left) == (111, ["young"])
    text = f"unable to connect to 127.0.0.1 port {closed_port}: ".encode()
    assert done.stderr.count(b"fatal: " + text) == 1
    assert b"<r@y>:\n" + text in done.message
    assert b"This message is too old. Giving up.\n" in done.message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"greeting": b"554 no"}, b"connected but greeting failed"),
        ({"greeting": Odd.CLOSE}, b"network read error: end of file"),
        ({"EHLO": b"502 x", "HELO": b"550 y"}, b"connected but my name was rejected"),
    ],
)
def test_server_that_takes_no_session_is_tried_once(
    place: Place, script: Script, words: bytes
) -> None:
    place.message("m")
    with Peer({**LOCKSTEP, **script}) as peer:
        done = place.run(peer.port)
        assert len(peer.served) == 1
    assert (done.code, place.left) == (111, ["m"])
    assert done.stderr == b"maildirsmtp: fatal: %b\n" % words


def test_connection_lost_in_a_message_is_made_again(place: Place) -> None:
    place.message("m0", 90)
    place.message("m1", 80)
    with Peer({**LOCKSTEP, "DOT": [b"250 ok", Odd.CLOSE, b"250 ok"]}) as peer:
        done = place.run(peer.port)
        assert len(peer.served) == 2
    assert (done.code, place.left) == (0, [])
    assert b"network read error: end of file" in done.stderr


def test_server_that_always_breaks_off_is_given_up(place: Place) -> None:
    place.message("m")
    with Peer({**LOCKSTEP, "DATA": Odd.CLOSE}) as peer:
        done = place.run(peer.port)
        assert len(peer.served) == 3
    assert (done.code, place.left) == (111, ["m"])
    assert done.stderr.endswith(b"maildirsmtp: fatal: making no progress, giving up\n")


def test_name_that_does_not_exist_leaves_the_mail(place: Place) -> None:
    place.message("m")
    done = place.run(25, "no such name")
    assert (done.code, place.left) == (111, ["m"])
    assert b"maildirsmtp: fatal: " in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["Maildir", "pre-", "host"],
        ["Maildir", "pre-", "host", "helo", "more"],
        ["-p", "0", "Maildir", "pre-", "host", "helo"],
        ["-p", "smtp", "Maildir", "pre-", "host", "helo"],
        ["-x", "Maildir", "pre-", "host", "helo"],
    ],
)
def test_wrong_usage(place: Place, args: list[str]) -> None:
    done = place.recorder.run("maildirsmtp", "main(args)", args, b"", {})
    assert done.code == 100
    assert done.stderr.endswith(
        b"maildirsmtp: usage: maildirsmtp [ -p port ] dir prefix host helohost\n"
    )
