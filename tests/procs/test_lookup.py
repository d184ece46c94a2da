"""lookup answers over a real line, as qmailp, and survives what peers do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.core.model import User
from qsend.core.users import Outcome, Trouble
from qsend.formats import frames, lookupwire, startwire
from qsend.formats.control import Controls
from qsend.formats.lookupwire import Answer, Question
from qsend.procs import lookup
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child
from qsend.sysio.lookupdesk import QUESTIONS_MAX
from tests.localtree import (
    ALIAS,
    DEADLINE_S,
    made_accounts,
    make_home,
    reap,
    write_users,
)

pytestmark = pytest.mark.root


@dataclass(slots=True, kw_only=True)
class Running:
    home: Path
    pid: int
    start: socket.socket
    asker: socket.socket

    def frame(self) -> tuple[bytes, bytes]:
        (only,) = frames.split(self.asker.recv(frames.PACKET_MAX))
        return only

    def asked(self, *locals_: bytes) -> list[Outcome]:
        """The outcomes of questions sent in one packet."""
        questions = [
            lookupwire.render_question(Question(number=at, local=local))
            for at, local in enumerate(locals_)
        ]
        self.asker.send(b"".join(questions))
        answers: list[Answer] = []
        while len(answers) < len(locals_):
            for kind, body in frames.split(self.asker.recv(frames.PACKET_MAX)):
                assert kind == lookupwire.ANSWER
                answers.append(lookupwire.parse_answer(body))
        assert [answer.number for answer in answers] == list(range(len(locals_)))
        return [answer.outcome for answer in answers]

    def replace_asker(self) -> None:
        ours, theirs = pair()
        packet = frames.frame(startwire.PEER, b"lspawn")
        socket.send_fds(self.start, [packet], [theirs.fileno()])
        theirs.close()
        self.asker.close()
        self.asker = ours
        ours.settimeout(DEADLINE_S)
        assert self.frame()[0] == frames.HELLO


@contextmanager
def running(home: Path) -> Iterator[Running]:
    accounts = made_accounts()
    make_home(home, accounts)
    write_users(home, {"ann": (67201, 67301)})
    start, start_child = pair()
    asker, asked = pair()
    boot = Boot(
        role="lookup",
        home=str(home),
        single_user=False,
        accounts=accounts,
        controls=Controls(),
        default_delivery=b"",
        socks={"start": start_child, "lspawn": asked},
    )
    pid = fork_child(
        lambda: lookup.main(boot), [start_child.fileno(), asked.fileno()], "lookup"
    )
    start_child.close()
    asked.close()
    for sock in (start, asker):
        sock.settimeout(DEADLINE_S)
    assert start.recv(100) == frames.frame(startwire.READY, b"")
    made = Running(home=home, pid=pid, start=start, asker=asker)
    assert made.frame() == (frames.HELLO, frames.hello(QUESTIONS_MAX)[5:])
    try:
        yield made
    finally:
        made.start.close()
        made.asker.close()
        assert reap(pid) == 0


def test_questions_of_one_packet_are_answered_in_order(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        ann, list_, root, bill = made.asked(b"ANN", b"ann-List", b"root", b"bill")
        assert isinstance(ann, User)
        assert (ann.uid, ann.gid, ann.dash, ann.ext) == (67201, 67301, b"", b"")
        assert isinstance(list_, User)
        assert (list_.uid, list_.dash, list_.ext) == (67201, b"-", b"List")
        for outcome, local in ((root, b"root"), (bill, b"bill")):
            assert isinstance(outcome, User)
            assert (outcome.uid, outcome.gid) == (ALIAS.uid, ALIAS.gid)
            assert outcome.home == os.fsencode(open_tmp / "alias")
            assert outcome.ext == local


def test_runs_as_qmailp_with_the_group_nofiles(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        account = made_accounts().qmailp
        status = Path(f"/proc/{made.pid}/status").read_text()
        found = dict(line.split(":\t", 1) for line in status.splitlines())
        assert found["Uid"].split() == [str(account.uid)] * 4
        assert found["Gid"].split() == [str(account.gid)] * 4
        assert found["Groups"].split() == [str(account.gid)]
        assert found["NoNewPrivs"] == "1"
        assert b"qmail-lookup: qsend" in Path(f"/proc/{made.pid}/cmdline").read_bytes()


def test_new_users_cdb_is_seen_at_once_despite_the_cache(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        (before,) = made.asked(b"ann")
        (again,) = made.asked(b"ann")
        assert before == again
        write_users(open_tmp, {"ann": (67999, 67301)})
        (after,) = made.asked(b"ann")
        assert isinstance(after, User)
        assert after.uid == 67999
        (open_tmp / "users/cdb").unlink()
        (gone,) = made.asked(b"ann")
        assert isinstance(gone, User)
        assert gone.uid == ALIAS.uid


def test_damaged_users_cdb_is_trouble_and_heals(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        (open_tmp / "users/cdb").write_bytes(b"broken")
        (broken,) = made.asked(b"ann")
        assert isinstance(broken, Trouble)
        write_users(open_tmp, {"ann": (67201, 67301)})
        (healed,) = made.asked(b"ann")
        assert isinstance(healed, User)


def test_peer_that_breaks_the_protocol_is_dropped_and_replaced(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        for noise in (
            b"x",
            frames.frame(b"?", b""),
            frames.frame(lookupwire.USER, b""),
        ):
            made.asker.send(noise)
            assert made.asker.recv(100) == b""
            made.replace_asker()
        (ann,) = made.asked(b"ann")
        assert isinstance(ann, User)


def test_new_peer_takes_the_place_of_one_still_there(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        old = made.asker.dup()
        made.replace_asker()
        old.settimeout(DEADLINE_S)
        assert old.recv(100) == b""
        old.close()
        (ann,) = made.asked(b"ann")
        assert isinstance(ann, User)


def test_controls_and_unknown_peers_do_no_harm(open_tmp: Path) -> None:
    with running(open_tmp) as made:
        for packet in startwire.render_controls(2, {"me": b"x\n"}):
            made.start.send(packet)
        ours, theirs = pair()
        packet = frames.frame(startwire.PEER, b"nobody")
        socket.send_fds(made.start, [packet], [theirs.fileno()])
        theirs.close()
        ours.settimeout(DEADLINE_S)
        assert ours.recv(100) == b""
        ours.close()
        (ann,) = made.asked(b"ann")
        assert isinstance(ann, User)
