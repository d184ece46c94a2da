"""send's line to lookup, with the test as lookup."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Mapping

import pytest

from qsend.core.lookups import Listing, Locality, Stored
from qsend.core.users import Trouble
from qsend.formats import frames, lookupwire
from qsend.sysio.endpoint import pair
from qsend.sysio.loop import Loop
from qsend.sysio.placeline import PlaceLine

GONE = Trouble(text=b"the user lookup is not running")


class Peer:
    """A line under its own loop, and the other end of it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.log: list[bytes] = []
        self.backs = 0
        self.line = PlaceLine(self.loop, self.log.append, self._back)
        self.sock: socket.socket | None = None
        self.asked: deque[tuple[int, bytes]] = deque()

    def _back(self) -> None:
        self.backs += 1

    def attach(self, slots: int = 100) -> None:
        self.hang_up()
        self.sock, theirs = pair()
        self.sock.settimeout(20)
        self.line.attach(theirs)
        self.say(frames.hello(slots))

    def say(self, *told: bytes) -> None:
        assert self.sock is not None
        self.sock.send(b"".join(told))
        self.turn()

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(0)

    def ask(self, *addresses: bytes) -> list[Mapping[bytes, Locality]]:
        got: list[Mapping[bytes, Locality]] = []
        self.line.ask(addresses, got.append)
        self.turn()
        return got

    def read(self) -> list[tuple[int, bytes]]:
        """The questions that came; their numbers and addresses."""
        assert self.sock is not None
        self.sock.setblocking(False)
        found = []
        try:
            while packet := self.sock.recv(frames.PACKET_MAX):
                for kind, body in frames.split(packet):
                    assert kind == lookupwire.LOCALITY
                    question = lookupwire.parse_question(body)
                    found.append((question.number, question.local))
        except BlockingIOError:
            pass
        return found

    def answer(self, number: int, place: Locality) -> None:
        self.say(lookupwire.render_place(number, place))

    def hang_up(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            self.turn()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.hang_up()
    made.loop.close()


def test_all_addresses_are_asked_at_once_and_told_together(peer: Peer) -> None:
    peer.attach()
    got = peer.ask(b"a@x", b"b@x")
    (first, _), (second, _) = asked = peer.read()
    assert [address for _, address in asked] == [b"a@x", b"b@x"]
    peer.answer(second, Stored(address=b"j-b@x"))
    assert got == []
    peer.answer(first, Listing.HOST)
    assert got == [{b"b@x": Stored(address=b"j-b@x"), b"a@x": Listing.HOST}]


def test_equal_questions_on_their_way_are_asked_once(peer: Peer) -> None:
    peer.attach()
    one, two = peer.ask(b"a@x"), peer.ask(b"a@x", b"b@x")
    [(first, _), (second, _)] = peer.read()
    peer.answer(first, Listing.NONE)
    assert one == [{b"a@x": Listing.NONE}]
    peer.answer(second, Listing.NONE)
    assert two == [{b"a@x": Listing.NONE, b"b@x": Listing.NONE}]


def test_no_more_is_asked_than_lookup_takes(peer: Peer) -> None:
    peer.attach(slots=2)
    got = peer.ask(*(b"%d@x" % n for n in range(5)))
    seen = []
    while not got:
        asked = peer.read()
        assert 1 <= len(asked) <= 2
        for number, address in asked:
            seen.append(address)
            peer.answer(number, Listing.NONE)
    assert seen == [b"%d@x" % n for n in range(5)]


def test_without_lookup_everything_is_trouble_at_once(peer: Peer) -> None:
    assert peer.ask(b"a@x") == [{b"a@x": GONE}]
    assert peer.line.is_down(GONE.text)
    assert peer.line.is_down(GONE.text)
    assert peer.log == [
        b"warning: new mail waits in todo: the user lookup is not running\n"
    ]


def test_lookup_that_goes_answers_all_and_a_new_one_is_told_of(peer: Peer) -> None:
    peer.attach(slots=1)
    assert peer.backs == 1
    got = peer.ask(b"a@x", b"b@x")
    assert len(peer.read()) == 1
    peer.hang_up()
    assert got == [{b"a@x": GONE, b"b@x": GONE}]
    peer.attach()
    assert peer.backs == 2
    got = peer.ask(b"a@x")
    [(number, _)] = peer.read()
    peer.answer(number, Listing.NONE)
    assert got == [{b"a@x": Listing.NONE}]


def test_trouble_of_the_database_is_said_once_and_its_end_heard(peer: Peer) -> None:
    peer.attach()
    for outage in (1, 2):
        peer.say(lookupwire.render_state(b"no answer"))
        assert peer.line.is_down(b"no answer")
        assert peer.line.is_down(b"no answer")
        assert len(peer.log) == outage
        peer.say(lookupwire.render_state(None))
        assert not peer.line.is_down(b"a row that cannot be meant")
        assert peer.backs == outage + 1
    assert len(peer.log) == 2


def test_too_long_an_address_is_not_asked(peer: Peer) -> None:
    peer.attach()
    address = b"x" * lookupwire.LOCAL_MAX + b"@x"
    [answers] = peer.ask(address)
    assert isinstance(answers[address], Trouble)
    assert peer.read() == []


def test_answer_to_no_question_ends_the_line(peer: Peer) -> None:
    peer.attach()
    peer.answer(7, Listing.NONE)
    assert peer.ask(b"a@x") == [{b"a@x": GONE}]
