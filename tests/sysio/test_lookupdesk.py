"""Peers of lookup: what they may ask, how much, and what becomes of rude ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qsend.core.lookups import Listing, Login, Proof
from qsend.core.model import Account, Accounts
from qsend.core.users import NoUser
from qsend.formats import frames, lookupwire
from qsend.formats.lookupwire import Question
from qsend.sysio import lookupdesk
from qsend.sysio.endpoint import pair
from qsend.sysio.lookupdesk import BY_ROLE, LookupDesk
from qsend.sysio.loop import Loop
from qsend.sysio.resolver import Resolver
from qsend.sysio.unixsocket import connect_to, listen_at
from qsend.sysio.verifier import Verifier
from tests.localtree import made_accounts

ALL = sorted({*lookupwire.ABOUT, lookupwire.VERIFY})


class Desk:
    """A desk without a database, under its own loop."""

    def __init__(self, home: Path, accounts: Accounts) -> None:
        self.loop = Loop()
        self.resolver = Resolver(
            self.loop, str(home), accounts, single_user=False, say=lambda _line: None
        )
        verifier = Verifier(self.loop, self.resolver)
        self.desk = LookupDesk(self.loop, self.resolver, verifier, accounts)
        self.path = str(home / "sock")
        self.desk.listen(listen_at(self.path, 0o666))

    def role(self, role: str) -> socket.socket:
        ours, theirs = pair()
        self.desk.attach(role, theirs)
        ours.setblocking(False)
        return ours

    def client(self) -> socket.socket:
        sock = connect_to(self.path)
        sock.setblocking(False)
        self.turn()
        return sock

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(0)

    def said(self, sock: socket.socket) -> list[tuple[bytes, bytes]]:
        """What came; b"" at the end of the line."""
        self.turn()
        found: list[tuple[bytes, bytes]] = []
        try:
            while packet := sock.recv(frames.PACKET_MAX):
                found += frames.split(packet)
        except BlockingIOError:
            return found
        return [*found, (b"", b"")]

    def close(self) -> None:
        self.desk.close()
        self.resolver.close()
        self.loop.close()


@pytest.fixture
def accounts() -> Accounts:
    """None of them is the caller, nor root."""
    return replace(made_accounts(), root=Account(uid=67999, gid=67999))


@pytest.fixture
def desk(tmp_path: Path, accounts: Accounts) -> Iterator[Desk]:
    made = Desk(tmp_path, accounts)
    yield made
    made.close()


def question(kind: bytes, about: bytes = b"joe@x") -> bytes:
    if kind == lookupwire.VERIFY:
        login = Login(proof=Proof.PASS, name=about, secret=b"s")
        return lookupwire.render_login(1, login)
    return lookupwire.render_question(Question(number=1, local=about), kind)


@pytest.mark.parametrize("role", sorted(BY_ROLE))
@pytest.mark.parametrize("kind", ALL)
def test_role_is_answered_what_it_may_ask_and_else_cut_off(
    desk: Desk, role: str, kind: bytes
) -> None:
    with desk.role(role) as sock:
        assert desk.said(sock)[0][0] == frames.HELLO
        sock.send(question(kind))
        said = [told for told, _ in desk.said(sock)]
        if kind in BY_ROLE[role]:
            assert len(said) == 1
            assert said[0] not in (lookupwire.REFUSED, b"")
        else:
            assert said == [lookupwire.REFUSED, b""]


def test_role_of_a_stranger_is_not_served(desk: Desk) -> None:
    with desk.role("remote0") as sock:
        assert desk.said(sock) == [(b"", b"")]


def test_files_answer_where_there_is_no_database(desk: Desk) -> None:
    with desk.role("send") as send, desk.role("lspawn") as lspawn:
        assert desk.said(send)[1] == (lookupwire.STATE, b"\1\0\0\0\0")
        send.send(question(lookupwire.LOCALITY))
        [(_, body)] = desk.said(send)
        assert lookupwire.parse_place(body) == (1, Listing.NONE)
        desk.said(lspawn)
        lspawn.send(question(lookupwire.USER, b"nobody-of-that-name"))
        [(_, body)] = desk.said(lspawn)
        outcome = lookupwire.parse_answer(body).outcome
        assert outcome == NoUser(text=b"unable to find alias user")


def test_send_alone_is_told_of_the_state(desk: Desk) -> None:
    with desk.role("send") as send, desk.role("lspawn") as lspawn:
        desk.said(send)
        desk.said(lspawn)
        desk.desk.tell_state(b"down")
        [(kind, body)] = desk.said(send)
        assert (kind, lookupwire.parse_state(body)) == (lookupwire.STATE, b"down")
        assert desk.said(lspawn) == []


UIDS = {
    "root": set(ALL),
    "qmaild": {lookupwire.RCPTHOST, lookupwire.EXISTS, lookupwire.VERIFY},
    "qmailp": {lookupwire.USER},
    "qmails": set[bytes](),
    "qmailr": set[bytes](),
    "alias": set[bytes](),
}


@pytest.mark.root
@pytest.mark.parametrize("name", sorted(UIDS))
def test_uid_of_a_client_decides(open_tmp: Path, accounts: Accounts, name: str) -> None:
    made = Desk(open_tmp, accounts)
    uid = 0 if name == "root" else getattr(accounts, name).uid
    for kind in ALL:
        os.seteuid(uid)
        try:
            sock = made.client()
        finally:
            os.seteuid(0)
        with sock:
            made.said(sock)
            sock.send(question(kind))
            said = [told for told, _ in made.said(sock)]
            allowed = kind in UIDS[name]
            assert (said == [lookupwire.REFUSED, b""]) is not allowed, kind
    made.close()


def test_one_question_too_many_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.resolver, "locality", lambda _address, _done: None)
    monkeypatch.setattr(lookupdesk, "QUESTIONS_MAX", 3)
    with desk.role("send") as sock:
        desk.said(sock)
        for _ in range(3):
            sock.send(question(lookupwire.LOCALITY))
        assert desk.said(sock) == []
        sock.send(question(lookupwire.LOCALITY))
        (kind, body), (end, _) = desk.said(sock)
        assert (kind, end) == (lookupwire.REFUSED, b"")
        assert lookupwire.parse_refused(body) == (1, b"too many questions at once")


def test_answers_to_one_that_has_gone_vanish(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = []
    monkeypatch.setattr(
        desk.resolver, "locality", lambda _address, done: waiting.append(done)
    )
    sock = desk.role("send")
    desk.said(sock)
    sock.send(question(lookupwire.LOCALITY))
    desk.turn()
    sock.close()
    desk.turn()
    waiting[0](Listing.NONE)
    with desk.role("send") as again:
        assert desk.said(again)[0][0] == frames.HELLO


def test_clients_are_bounded_and_come_back_when_others_leave(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookupdesk, "CLIENTS_PER_UID_MAX", 2)
    first, second, third = desk.client(), desk.client(), desk.client()
    assert desk.said(first)[0][0] == desk.said(second)[0][0] == frames.HELLO
    assert desk.said(third) == [(b"", b"")]
    first.close()
    desk.turn()
    with desk.client() as fourth:
        assert desk.said(fourth)[0][0] == frames.HELLO
    for sock in (second, third):
        sock.close()


@pytest.mark.parametrize("noise", [b"noise", frames.frame(b"?", b""), b"\0\0\0\1u"])
def test_noise_ends_the_line_of_who_makes_it(desk: Desk, noise: bytes) -> None:
    with desk.client() as rude, desk.role("send") as send:
        desk.said(rude)
        desk.said(send)
        rude.send(noise)
        assert desk.said(rude) == [(b"", b"")]
        send.send(question(lookupwire.LOCALITY))
        assert len(desk.said(send)) == 1
