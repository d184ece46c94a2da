from __future__ import annotations

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.core.relay import Refused, RelayRules, Taken
from qsend.core.rewrite import Rules
from qsend.formats.netstring import NetstringTooLong, render
from qsend.formats.qmtp import (
    RECIPIENTS_MAX,
    Abandon,
    Begin,
    Bye,
    Commit,
    Dialogue,
    Envelope,
    Judge,
    Message,
    QmqpDialogue,
    QmtpDialogue,
    Say,
    Step,
)

RULES = RelayRules(
    rewriting=Rules(envnoathost=b"here.example"),
    rcpthosts=frozenset({b"here.example", b".here.example"}),
)
OK = b"Kok 1 qp 2"
NOT_LISTED = b"66:Dsorry, that domain isn't in my list of allowed rcpthosts (#5.7.1),"
BAD_RECIPIENT = b"46:Dsorry, I can't handle that recipient (#5.1.3),"
BAD_SENDER = b"29:Dunacceptable sender (#5.1.7),"
TOO_LARGE = b"61:Dsorry, that message size exceeds my databytes limit (#5.3.4),"


class Server:
    """Does what a dialogue says, and keeps what would have been done."""

    def __init__(self, dialogue: Dialogue, result: bytes = OK) -> None:
        self.dialogue = dialogue
        self.result = result
        self.said = b""
        self.queued: list[tuple[bytes, bytes]] = []
        self.abandoned = 0
        self.has_left = False
        self._message: bytes | None = None
        self._envelope = b""

    def feed(self, wire: bytes, size: int = 1 << 20) -> Server:
        for at in range(0, len(wire), size):
            self.dialogue.feed(wire[at : at + size])
            while not self.has_left and (step := self.dialogue.next()) is not None:
                self._do(step)
        return self

    def _do(self, step: Step) -> None:
        match step:
            case Begin():
                assert self._message is None
                self._message, self._envelope = b"", b""
            case Message(data=data):
                assert self._message is not None
                assert not self._envelope
                self._message += data
            case Envelope(data=data):
                assert self._message is not None
                self._envelope += data
            case Judge(unlisted=unlisted):
                if unlisted.host == b"asked.example":
                    self.dialogue.judged(Taken(recip=unlisted.recip))
                else:
                    is_permanent = unlisted.host != b"unsure.example"
                    text = "no (#5.7.1)" if is_permanent else "unsure (#4.3.0)"
                    self.dialogue.judged(Refused(text=text, is_permanent=is_permanent))
            case Commit():
                assert self._message is not None
                self.queued.append((self._message, self._envelope))
                self._message = None
                self.dialogue.queued(self.result)
            case Abandon():
                assert self._message is not None
                self._message = None
                self.abandoned += 1
            case Say(text=text):
                self.said += text
            case Bye():
                self.has_left = True


def qmtp(suffix: bytes | None = None, databytes: int = 0) -> Server:
    return Server(QmtpDialogue(RULES, suffix, databytes))


def package(message: bytes, sender: bytes, *recips: bytes) -> bytes:
    return render(message) + render(sender) + render(b"".join(map(render, recips)))


def request(message: bytes, sender: bytes, *recips: bytes) -> bytes:
    return render(b"".join(map(render, (message, sender, *recips))))


WIRE = (
    package(b"\nS: x\n\ny\n", b"a@b", b"c@here.example", b"d@there.example")
    + package(b"\rS: x\r\n\r\n\r\ry\n\r", b"", b"e@sub.here.example")
    + package(b"\n", b"x", b"f@there.example")
    + package(b"\nz", b"a@b", b"g", b"h@asked.example", b"i@unsure.example")
)
SAID = (
    b"10:Kok 1 qp 2,12:Dno (#5.7.1),"
    b"10:Kok 1 qp 2,"
    b"12:Dno (#5.7.1),"
    b"10:Kok 1 qp 2,10:Kok 1 qp 2,16:Zunsure (#4.3.0),"
)
QUEUED = [
    (b"S: x\n\ny\n", b"Fa@b\0Tc@here.example\0\0"),
    (b"S: x\n\n\r\ry\n\r", b"F\0Te@sub.here.example\0\0"),
    (b"z", b"Fa@b\0Tg\0Th@asked.example\0\0"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pipelined_packages_are_answered_in_order(size: int) -> None:
    server = qmtp().feed(WIRE, size)
    assert server.said == SAID
    assert server.queued == QUEUED
    assert server.abandoned == 1


@pytest.mark.parametrize("end", range(len(WIRE)))
def test_a_cut_after_every_byte_gives_whole_packages_only(end: int) -> None:
    server = qmtp().feed(WIRE[:end])
    assert SAID.startswith(server.said)
    assert server.queued == QUEUED[: len(server.queued)]


@pytest.mark.parametrize(
    ("sender", "recip", "want"),
    [
        (b"s" * 999, b"r" * 986 + b"@here.example", b"10:Kok 1 qp 2,"),
        (b"s" * 1000, b"r@here.example", BAD_SENDER),
        (b"s\0", b"r@here.example", BAD_SENDER),
        (b"s" * 1000, b"r@there.example", b"12:Dno (#5.7.1),"),
        (b"s", b"r" * 987 + b"@here.example", BAD_RECIPIENT),
        (b"s", b"r\0@here.example", BAD_RECIPIENT),
        (b"s", b"r" * 70000, BAD_RECIPIENT),
        (b"s", b"r@" + b"h" * 256, NOT_LISTED),
        (b"s", b"", b"10:Kok 1 qp 2,"),
    ],
)
@pytest.mark.parametrize("size", [3, 4000])
def test_addresses_that_cannot_be(
    sender: bytes, recip: bytes, want: bytes, size: int
) -> None:
    server = qmtp().feed(package(b"\nx", sender, recip), size)
    assert server.said == want
    assert len(server.queued) == (want == b"10:Kok 1 qp 2,")
    assert len(server.queued) + server.abandoned == 1


@pytest.mark.parametrize("suffix", [b"", b"@relay.example"])
def test_clients_that_may_relay_have_the_suffix_added(suffix: bytes) -> None:
    longest = b"r" * (999 - len(suffix))
    wire = package(b"\nx", b"s", b"a@far.example", longest, longest + b"r")
    server = qmtp(suffix).feed(wire)
    assert server.said == b"10:Kok 1 qp 2," * 2 + BAD_RECIPIENT
    want = b"Fs\0Ta@far.example%b\0T%b\0\0" % (suffix, longest + suffix)
    assert server.queued == [(b"x", want)]


@pytest.mark.parametrize(
    ("message", "is_taken"),
    [
        (b"\n" + b"x" * 10, True),
        (b"\n" + b"x" * 11, False),
        (b"\n" + b"x" * 200_000, False),
        (b"\r" + b"x\r\n" * 5, True),
        (b"\r" + b"x\r\n" * 5 + b"\r", False),
    ],
)
@pytest.mark.parametrize("size", [1000, 65536])
def test_databytes(message: bytes, is_taken: bool, size: int) -> None:
    server = qmtp(databytes=10)
    wire = package(
        message, b"s" * 1000 if not is_taken else b"s", b"r", b"r@no.example"
    )
    server.feed(wire + package(b"\ny", b"", b"r"), size)
    first = b"10:Kok 1 qp 2," if is_taken else TOO_LARGE
    assert server.said == first + b"12:Dno (#5.7.1),10:Kok 1 qp 2,"
    assert server.abandoned == (not is_taken)
    assert server.queued[-1] == (b"y", b"F\0Tr\0\0")


def test_failure_to_queue_is_told_to_accepted_recipients_only() -> None:
    server = Server(QmtpDialogue(RULES, None, 0), b"Zqq full (#4.3.0)")
    server.feed(package(b"\nx", b"s", b"a", b"b@no.example", b"c"))
    full = b"17:Zqq full (#4.3.0),"
    assert server.said == full + b"12:Dno (#5.7.1)," + full


def test_package_without_recipients_is_no_mail() -> None:
    server = qmtp().feed(package(b"\nx", b"s"))
    assert (server.said, server.queued, server.abandoned) == (b"", [], 1)


@pytest.mark.parametrize(
    "wire",
    [
        b"0:,", b"1:x", b"2:xy,", b"EHLO me\r\n", b"2:\nx.",
        package(b"\nx", b"s")[:-3] + b"3:a@b,",
        render(b"\nx") + render(b"s") + b"5:9:abc,",
        render(b"\nx") + render(b"s") + b"2:0:,",
    ],
)  # fmt: skip
def test_what_is_no_package_is_never_queued(wire: bytes) -> None:
    server = qmtp()
    with pytest.raises(RemoteProtocolError):
        server.feed(wire)
    assert (server.said, server.queued) == (b"", [])


@pytest.mark.parametrize("wire", [b"200000001:", b"3:\nab,200000001:"])
def test_huge_lengths_are_refused_before_their_bytes(wire: bytes) -> None:
    with pytest.raises(NetstringTooLong):
        qmtp().feed(wire)


def test_recipients_are_many_but_not_more() -> None:
    wire = render(b"\nx") + render(b"s") + b"%d:" % (3 * RECIPIENTS_MAX + 3)
    server = qmtp(b"")
    server.feed(wire + b"0:," * (RECIPIENTS_MAX - 1), 65536)
    with pytest.raises(NetstringTooLong):
        server.feed(b"0:,")
    assert (server.said, server.queued) == (b"", [])


def test_long_list_of_recipients_is_given_on_in_pieces() -> None:
    recips = [b"%d@here.example" % number for number in range(5000)]
    steps: list[int] = []

    class Watched(Server):
        def _do(self, step: Step) -> None:
            if isinstance(step, Envelope | Say):
                data = step.data if isinstance(step, Envelope) else step.text
                steps.append(len(data))
            super()._do(step)

    server = Watched(QmtpDialogue(RULES, None, 0))
    server.feed(package(b"\nx", b"s", *recips), 65536)
    assert server.queued == [
        (b"x", b"Fs\0" + b"".join(b"T%b\0" % r for r in recips) + b"\0")
    ]
    assert server.said == b"10:Kok 1 qp 2," * 5000
    assert max(steps) < 40_000


# QMQP

EXAMPLE = b"30:14:Subject: x\n\ny\n,3:a@b,3:c@d,,"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_qmqp_message_is_taken_as_it_is(size: int) -> None:
    server = Server(QmqpDialogue()).feed(EXAMPLE, size)
    assert server.queued == [(b"Subject: x\n\ny\n", b"Fa@b\0Tc@d\0\0")]
    assert server.said == b"10:Kok 1 qp 2,"
    assert server.has_left


@pytest.mark.parametrize("end", range(len(EXAMPLE)))
def test_qmqp_cut_after_every_byte_queues_nothing(end: int) -> None:
    server = Server(QmqpDialogue()).feed(EXAMPLE[:end])
    assert (server.queued, server.said, server.has_left) == ([], b"", False)


def test_qmqp_has_one_message_per_connection() -> None:
    server = Server(QmqpDialogue()).feed(EXAMPLE + EXAMPLE)
    assert len(server.queued) == 1


@pytest.mark.parametrize(
    ("addresses", "is_taken"),
    [
        ([b""], True),
        ([b"s" * 999, b"r" * 999], True),
        ([b"s" * 1000, b"r"], False),
        ([b"s\0", b"r"], False),
        ([b"s", b"r" * 1000, b"q"], False),
        ([b"s", b"r", b"q\0"], False),
        ([b"s\0", b"r" * 1000, b"q\0"], False),
    ],
)
def test_qmqp_takes_all_addresses_or_none(
    addresses: list[bytes], is_taken: bool
) -> None:
    server = Server(QmqpDialogue()).feed(request(b"", *addresses), 700)
    refused = b"51:Dsorry, I can't accept addresses like that (#5.1.3),"
    assert server.said == (b"10:Kok 1 qp 2," if is_taken else refused)
    assert (len(server.queued), server.abandoned) == (is_taken, not is_taken)


@pytest.mark.parametrize(
    "wire",
    [
        b"0:,", b"3:0:,,", b"6:0:,,0:,", b"5:9:abc", b"x", b"31" + EXAMPLE[2:] + b"x",
        b"29" + EXAMPLE[2:], EXAMPLE[:-1] + b"\n",
    ],
)  # fmt: skip
def test_qmqp_that_is_none_is_never_queued(wire: bytes) -> None:
    server = Server(QmqpDialogue())
    with pytest.raises(RemoteProtocolError):
        server.feed(wire)
    assert (server.queued, server.said) == ([], b"")
