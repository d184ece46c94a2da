"""Peers of lookup: what they may ask, how much, and what becomes of rude ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from qsend.core.loginbrake import FREE
from qsend.core.lookups import Login, Proof, Verdict
from qsend.core.model import Account, Accounts, Ownership, User
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats import frames, lookupwire, turnwire
from qsend.formats.control import parse_controls
from qsend.formats.lookupwire import Question
from qsend.formats.sqlcontrols import parse_sql
from qsend.formats.turnwire import Stage, Turn
from qsend.sysio import lookupdesk
from qsend.sysio.endpoint import pair
from qsend.sysio.lookupdesk import BY_ROLE, LookupDesk
from qsend.sysio.loop import Loop
from qsend.sysio.resolver import Resolver
from qsend.sysio.unixsocket import connect_to, listen_at
from qsend.sysio.verifier import Verifier
from tests.localtree import made_accounts

CONTROLS = parse_controls({"me": b"here.example"})
ALL = sorted({*lookupwire.ABOUT, lookupwire.VERIFY, turnwire.TURN})


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

    def client(self, uid: int | None = None) -> socket.socket:
        """A client; of that account, where this is root."""
        own_uid = os.geteuid()
        os.seteuid(own_uid if uid is None else uid)
        try:
            sock = connect_to(self.path)
        finally:
            os.seteuid(own_uid)
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


def turn(stage: Stage, name: bytes, client: bytes = b"192.0.2.7") -> bytes:
    return turnwire.render_turn(Turn(number=1, stage=stage, name=name, client=client))


def question(kind: bytes, about: bytes = b"joe@x") -> bytes:
    if kind == lookupwire.VERIFY:
        login = Login(proof=Proof.PASS, name=about, secret=b"s")
        return lookupwire.render_login(1, login)
    if kind == turnwire.TURN:
        return turn(Stage.BEGINS, about)
    return lookupwire.render_question(Question(number=1, local=about), kind)


@pytest.mark.parametrize("role", sorted(BY_ROLE))
@pytest.mark.parametrize("kind", ALL)
def test_role_is_answered_what_it_may_ask_and_else_cut_off(
    desk: Desk, role: str, kind: bytes
) -> None:
    with desk.role(role) as sock:
        assert desk.said(sock)[0][0] == frames.HELLO
        sock.send(question(kind))
        said = [told for told, _ in desk.said(sock) if told != lookupwire.STATE]
        if kind in BY_ROLE[role]:
            assert len(said) == 1
            assert said[0] not in (lookupwire.REFUSED, b"")
        else:
            assert said == [lookupwire.REFUSED, b""]


@pytest.mark.parametrize("client", [b"192.0.2.7", b""])
def test_turns_of_programs_get_longer_by_what_failed(
    tmp_path: Path, accounts: Accounts, client: bytes
) -> None:
    mine = replace(accounts, root=Account(uid=os.getuid(), gid=os.getgid()))
    with closing(Desk(tmp_path, mine)) as desk:
        check_turns(desk, client)


def check_turns(desk: Desk, client: bytes) -> None:

    def pause(sock: socket.socket, stage: Stage, name: bytes = b"ann") -> float | None:
        sock.send(turn(stage, name, client))
        [(kind, body)] = desk.said(sock)
        assert kind == turnwire.PAUSE
        return turnwire.parse_pause(body)

    with desk.client() as sock:
        desk.said(sock)
        for _ in range(FREE + 1):
            assert pause(sock, Stage.BEGINS) == 0
            assert pause(sock, Stage.WRONG) == 0
        first = pause(sock, Stage.BEGINS)
        assert first is not None
        assert 0 < first <= 1
        # Where it comes from counts as well, if that is known.
        assert bool(pause(sock, Stage.BEGINS, b"ben")) is (client != b"")
        for _ in range(40):
            pause(sock, Stage.BEGINS)
        assert pause(sock, Stage.BEGINS) is None
        pause(sock, Stage.RIGHT)
        # The user is free again; where it comes from is not.
        assert pause(sock, Stage.BEGINS) == (None if client else 0)


def test_role_of_a_stranger_is_not_served(desk: Desk) -> None:
    with desk.role("remote0") as sock:
        assert desk.said(sock) == [(b"", b"")]


def test_files_answer_where_there_is_no_database(desk: Desk) -> None:
    with desk.role("send") as send, desk.role("lspawn") as lspawn:
        assert desk.said(send)[1] == (lookupwire.STATE, b"\1\0\0\0\0")
        desk.said(lspawn)
        lspawn.send(question(lookupwire.USER, b"nobody-of-that-name"))
        [(_, body)] = desk.said(lspawn)
        outcome = lookupwire.parse_answer(body).outcome
        assert outcome == NoUser(text=b"unable to find alias user")


@pytest.mark.parametrize("asker", ["send", "smtpd0", "client"])
def test_database_that_is_only_known_to_the_asker_is_waited_for(
    tmp_path: Path, accounts: Accounts, asker: str
) -> None:
    mine = replace(accounts, root=Account(uid=os.getuid(), gid=os.getgid()))
    kind = lookupwire.LOCALITY if asker == "send" else lookupwire.RCPTHOST
    with closing(Desk(tmp_path, mine)) as desk:
        sock = desk.client() if asker == "client" else desk.role(asker)
        with sock:
            desk.said(sock)
            sock.send(question(kind))
            said = dict(desk.said(sock))
            if asker == "send":
                assert lookupwire.parse_state(said[lookupwire.STATE])
                _, place = lookupwire.parse_place(said[lookupwire.PLACE])
                assert isinstance(place, Trouble)
            else:
                _, verdict = lookupwire.parse_verdict(said[lookupwire.VERDICT])
                assert isinstance(verdict, Trouble)
            desk.desk.configured()
            assert desk.said(sock) == []
            settings = parse_sql(
                {"sqlserver": b"server x\nlogin x\npassword x\ndb x\n"}, CONTROLS
            )
            desk.resolver.configure(settings)
            desk.desk.configured()
            wanted = [(lookupwire.STATE, b"\1\0\0\0\0")] if asker == "send" else []
            assert desk.said(sock) == wanted


def test_client_is_not_told_that_a_login_is_unknown_without_the_database(
    tmp_path: Path, accounts: Accounts
) -> None:
    mine = replace(accounts, root=Account(uid=os.getuid(), gid=os.getgid()))
    with closing(Desk(tmp_path, mine)) as desk, desk.client() as sock:
        desk.said(sock)
        sock.send(question(lookupwire.VERIFY))
        [(_, body)] = desk.said(sock)
        assert lookupwire.parse_verified(body)[1].verdict is Verdict.TROUBLE


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
    "qmailp": {lookupwire.USER, lookupwire.OWN},
    "qmails": {lookupwire.OWN},
    "qmailr": {lookupwire.OWN},
    "alias": {lookupwire.OWN},
}


@pytest.mark.root
@pytest.mark.parametrize("name", sorted(UIDS))
def test_uid_of_a_client_decides(open_tmp: Path, accounts: Accounts, name: str) -> None:
    made = Desk(open_tmp, accounts)
    uid = 0 if name == "root" else getattr(accounts, name).uid
    for kind in ALL:
        with made.client(uid) as sock:
            made.said(sock)
            sock.send(question(kind))
            said = [told for told, _ in made.said(sock)]
            allowed = kind in UIDS[name]
            assert (said == [lookupwire.REFUSED, b""]) is not allowed, kind
    made.close()


@pytest.mark.root
def test_users_are_told_of_themselves_alone(
    open_tmp: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Desk(open_tmp, accounts)
    user = User(
        name=b"joe", uid=64801, gid=64801, home=b"/mail/joe", dash=b"", ext=b"",
        ownership=Ownership.UID_GID, instructions=b"./Rows/\n",
    )  # fmt: skip
    outcomes: dict[bytes, Outcome] = {
        b"joe": user, b"no": NoUser(text=b"no alias"), b"ann": Trouble(text=b"row ann")
    }  # fmt: skip
    monkeypatch.setattr(
        made.resolver, "user", lambda local, done: done(outcomes[local])
    )

    def told(uid: int, local: bytes) -> Outcome:
        with made.client(uid) as sock:
            made.said(sock)
            sock.send(question(lookupwire.OWN, local))
            [(_, body)] = made.said(sock)
            return lookupwire.parse_answer(body).outcome

    assert told(user.uid, b"joe") == user
    for uid, local in ((64802, b"joe"), (64802, b"no"), (user.uid, b"no")):
        assert told(uid, local) == NoUser(text=b"not yours")
    answer = told(64802, b"ann")
    assert isinstance(answer, Trouble)
    assert b"row" not in answer.text
    made.close()


def test_one_question_too_many_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.resolver, "user", lambda _address, _done: None)
    monkeypatch.setattr(lookupdesk, "QUESTIONS_MAX", 3)
    with desk.role("lspawn") as sock:
        desk.said(sock)
        for _ in range(3):
            sock.send(question(lookupwire.USER))
        assert desk.said(sock) == []
        sock.send(question(lookupwire.USER))
        (kind, body), (end, _) = desk.said(sock)
        assert (kind, end) == (lookupwire.REFUSED, b"")
        assert lookupwire.parse_refused(body) == (1, b"too many questions at once")


def test_answers_to_one_that_has_gone_vanish(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = []
    monkeypatch.setattr(
        desk.resolver, "user", lambda _address, done: waiting.append(done)
    )
    sock = desk.role("lspawn")
    desk.said(sock)
    sock.send(question(lookupwire.USER))
    desk.turn()
    sock.close()
    desk.turn()
    waiting[0](NoUser(text=b"none"))
    with desk.role("lspawn") as again:
        assert desk.said(again)[0][0] == frames.HELLO


@pytest.mark.root
def test_users_keep_neither_each_other_nor_our_accounts_out(
    open_tmp: Path, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookupdesk, "CLIENTS_MAX", 3)
    monkeypatch.setattr(lookupdesk, "CLIENTS_PER_UID_MAX", 2)
    made = Desk(open_tmp, accounts)
    uids = (64801, 64801, 64801, 64802, 64803, 0, accounts.qmaild.uid, 0, 0)
    with ExitStack() as open_until_the_end:
        greeted = []
        for uid in uids:
            sock = open_until_the_end.enter_context(made.client(uid))
            greeted.append(made.said(sock)[0][0] == frames.HELLO)
        assert greeted == [True, True, False, True, False, True, True, True, False]
    made.close()


def test_clients_are_bounded_and_come_back_when_others_leave(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookupdesk, "CLIENTS_MAX", 2)
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
    with desk.client() as rude, desk.role("lspawn") as other:
        desk.said(rude)
        desk.said(other)
        rude.send(noise)
        assert desk.said(rude) == [(b"", b"")]
        other.send(question(lookupwire.USER))
        assert len(desk.said(other)) == 1
