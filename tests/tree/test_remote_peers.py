"""Remote delivery by a whole tree: what SMTP servers say and do, good and bad.

The servers are scripted ones (smtppeer) or a sink for many sessions (smtpsink);
smtproutes leads to them, so that no test needs a name server.
"""

from __future__ import annotations

import mailbox
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from qsend.formats.smtp import encode_content
from qsend.sysio import clock, mailqueue
from tests.ports import free_port
from tests.smtppeer import LOCKSTEP, PIPELINED, Odd, Peer, Said, Script
from tests.smtpsink import Sink
from tests.tree.harness import Installation, Tree

pytestmark = pytest.mark.root

BOUNCES = b"bounces@here.example"
LIST = b"list-@here.example-@[]"
MESSAGE = b"Subject: test\n\nbody\n"
SAID = b"Remote_host_said:_"
ACCEPTED = b"success: 127.0.0.1_accepted_message./Remote_host_said:_250_ok/"
DIED = b"deferral: Connected_to_127.0.0.1_but_connection_died._(#4.4.2)/"
DUPLICATE = (
    b"deferral: Connected_to_127.0.0.1_but_connection_died._"
    b"Possible_duplicate!_(#4.4.2)/"
)
NO_CONNECTION = (
    b"deferral: Sorry,_I_wasn't_able_to_establish_an_SMTP_connection._(#4.4.1)/"
)
BROKE = b"deferral: Connected_to_127.0.0.1_but_it_broke_the_protocol:_"
PATIENCE_S = 2
"""timeoutremote and timeoutconnect of every tree here."""


@contextmanager
def world(
    installation: Installation, peers: Mapping[str, int], **controls: str
) -> Iterator[Tree]:
    """A running tree that routes the domain NAME.test to a port on 127.0.0.1."""
    path = Path(tempfile.mkdtemp(prefix="qsend-test-", dir="/tmp"))
    path.chmod(0o755)
    routes = [f"{name}.test:127.0.0.1:{port}\n" for name, port in peers.items()]
    files = {
        "smtproutes": "".join(routes),
        "timeoutconnect": f"{PATIENCE_S}\n",
        "timeoutremote": f"{PATIENCE_S}\n",
        "timeoutterm": "1\n",
        "durability": "none\n",
        **controls,
    }
    try:
        with Tree(installation, path / "home") as tree:
            for name, content in files.items():
                tree.control(name, content)
            tree.maildir("Bounces")
            tree.alias("bounces", "./Bounces/\n")
            tree.start()
            yield tree
            assert tree.stop() == 0
    finally:
        shutil.rmtree(path)


def inject(tree: Tree, recips: Sequence[bytes], message: bytes = MESSAGE) -> None:
    """Queue one message from this process: many a second."""
    mailqueue.inject(str(tree.home), [message], BOUNCES, recips, {})


def bounces(tree: Tree) -> list[bytes]:
    return [each.as_bytes() for each in mailbox.Maildir(tree.home / "alias/Bounces")]


def refused(text: bytes) -> bytes:
    """What the log shows of a refused recipient."""
    return b"127.0.0.1_does_not_like_recipient./%b%b/Giving_up_on_127.0.0.1./" % (
        SAID,
        text,
    )


@dataclass(frozen=True)
class Row:
    """One thing a peer does, and the report about it."""

    step: str
    said: Said | Sequence[Said]
    want: bytes


GREETING = b"deferral: Connected_to_127.0.0.1_but_greeting_failed./" + SAID
NAME = b"deferral: Connected_to_127.0.0.1_but_my_name_was_rejected./" + SAID
SENDER = b"Connected_to_127.0.0.1_but_sender_was_rejected./" + SAID
ON_DATA = b"127.0.0.1_failed_on_DATA_command./" + SAID
AT_END = b"127.0.0.1_failed_after_I_sent_the_message./" + SAID
ROWS = [
    Row("greeting", b"554 no", GREETING + b"554_no/"),
    Row("greeting", b"450-not\r\n450 now", GREETING + b"450-not/450_now/"),
    Row("greeting", b"421 full", GREETING + b"421_full/"),
    Row("greeting", b"250 odd", GREETING + b"250_odd/"),
    Row("EHLO", b"450 no", NAME + b"450_no/"),
    Row("EHLO", b"251 odd", NAME + b"251_odd/"),
    Row("HELO", b"550 no", NAME + b"550_no/"),
    Row("MAIL", b"550 no", b"failure: " + SENDER + b"550_no/"),
    Row("MAIL", b"450 no", b"deferral: " + SENDER + b"450_no/"),
    Row("RCPT", b"550 no", b"failure: " + refused(b"550_no")),
    Row("RCPT", b"450 no", b"deferral: " + refused(b"450_no")),
    Row("DATA", b"554 no", b"failure: " + ON_DATA + b"554_no/"),
    Row("DATA", b"451 no", b"deferral: " + ON_DATA + b"451_no/"),
    Row("DOT", b"554 no", b"failure: " + AT_END + b"554_no/"),
    Row("DOT", b"451 no", b"deferral: " + AT_END + b"451_no/"),
]
"""What qmail-remote.c smtp() tells apart."""


def script_of(row: Row, base: Script) -> Script:
    if row.step == "HELO":
        return {**base, "EHLO": b"502 what", "HELO": row.said}
    return {**base, row.step: row.said}


@pytest.mark.parametrize("base", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_rows_of_qmail_remote_give_their_log_line_and_bounce(
    installation: Installation, base: Script
) -> None:
    with ExitStack() as stack:
        peers = {
            f"row{at}": stack.enter_context(Peer(script_of(row, base)))
            for at, row in enumerate(ROWS)
        }
        ports = {name: peer.port for name, peer in peers.items()}
        tree = stack.enter_context(world(installation, ports))
        recips = [f"r@{name}.test".encode() for name in peers]
        for recip in recips:
            inject(tree, [recip])
        assert tree.reports(*recips) == [row.want for row in ROWS]
        failed = [
            (recip, row.want.removeprefix(b"failure: "))
            for recip, row in zip(recips, ROWS, strict=True)
            if row.want.startswith(b"failure: ")
        ]
        tree.find(rb"(?s)" + rb"end msg \d+\n.*" * 2 * len(failed))
        assert len(bounces(tree)) == len(failed)
        for recip, text in failed:
            [bounce] = [each for each in bounces(tree) if b"<%b>:" % recip in each]
            shown = text.replace(b"_", b" ").replace(b"/", b"\n")
            assert b"<%b>:\n%b\n" % (recip, shown) in bounce
            assert bounce.endswith(MESSAGE)
        # What was deferred is in the queue, with the reason, and is tried again.
        deferred = [recip for recip in recips if recip not in dict(failed)]
        items = tree.ask("queue")
        assert len(items) == len(deferred)
        for item in items:
            [recip] = item["recips"]
            assert recip["next"] > clock.now()
            assert item["last"]
        tree.run("flush", "all")
        for recip in deferred:
            tree.find(rb"(?s)" + rb"delivery \d+: msg \d+ to remote %b\n.*" % recip * 2)


ODD_ROWS = [
    Row("greeting", b"\x16\x03\x01\x00\xff", BROKE + b"reply_without_a_valid_code"),
    Row("greeting", b"HTTP/1.1 400 Bad", BROKE + b"reply_without_a_valid_code"),
    Row("greeting", b"2200 odd", BROKE + b"reply_code_of_more_than_three"),
    Row("greeting", b"999 odd", BROKE + b"reply_without_a_valid_code"),
    Row("greeting", b"220-a\r\n550 b", BROKE + b"reply_of_mixed_codes"),
    Row("MAIL", b"", BROKE + b"reply_without_a_valid_code"),
    Row("DATA", b"250 odd", BROKE + b"reply_250"),
    Row("DOT", b"354 odd", BROKE + b"reply_354._Possible_duplicate!_"),
    *(
        Row(step, odd, DUPLICATE if step == "DOT" else DIED)
        for step in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "DOT")
        for odd in (Odd.CLOSE, Odd.SILENCE, Odd.TRICKLE)
    ),
    *(
        Row(step, odd, BROKE + b"reply_")
        for step in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "DOT")
        for odd in (Odd.LONG_LINE, Odd.MANY_LINES)
    ),
    Row("RCPT", Odd.RESET, DIED),
    Row("DATA", Odd.STOP_READING, DIED),
    Row("DATA", Odd.EARLY_552, b"failure: " + AT_END + b"552_too_much/"),
]


def test_odd_peers_are_deferrals_in_time_and_hold_up_nobody(
    installation: Installation,
) -> None:
    big = MESSAGE + (b"x" * 70 + b"\n") * 150_000
    with ExitStack() as stack:
        peers = {
            f"odd{at}": stack.enter_context(Peer(script_of(row, LOCKSTEP)))
            for at, row in enumerate(ODD_ROWS)
        }
        sink = stack.enter_context(Sink())
        ports = {name: peer.port for name, peer in peers.items()}
        slots = f"{2 * len(peers)}\n"
        tree = stack.enter_context(
            world(installation, {**ports, "good": sink.port}, concurrencyremote=slots)
        )
        recips = [f"r@{name}.test".encode() for name in peers]
        tree.run("hold", "remote")
        for row, recip in zip(ODD_ROWS, recips, strict=True):
            is_big = row.said in (Odd.STOP_READING, Odd.EARLY_552)
            inject(tree, [recip], big if is_big else MESSAGE)
        stalled = [
            recip
            for row, recip in zip(ODD_ROWS, recips, strict=True)
            if row.said in (Odd.SILENCE, Odd.TRICKLE, Odd.STOP_READING)
        ]
        good = [b"r%d@good.test" % number for number in range(50)]
        for recip in good:
            inject(tree, [recip])
        begin = clock.mono()
        tree.run("release", "remote")
        assert tree.reports(*good) == [ACCEPTED] * 50
        # They went while the others were still being waited for.
        assert not set(stalled) & set(tree.reported())
        reports = tree.reports(*recips)
        assert clock.mono() - begin < 3 * PATIENCE_S + 10
        for row, recip, report in zip(ODD_ROWS, recips, reports, strict=True):
            assert report.startswith(row.want), (row, recip, report)
            assert len(report) < 6000


@contextmanager
def black_hole() -> Iterator[int]:
    """A port where connections are neither accepted nor refused."""
    # A listener whose backlog is full drops what comes next, as a dead host does.
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("step", ["connect", "greeting", "DATA", "DOT"])
def test_host_that_hangs_leaves_slots_to_others(
    installation: Installation, step: str
) -> None:
    with ExitStack() as stack:
        if step == "connect":
            port = stack.enter_context(black_hole())
        else:
            port = stack.enter_context(Peer({**LOCKSTEP, step: Odd.SILENCE})).port
        sink = stack.enter_context(Sink())
        tree = stack.enter_context(
            world(
                installation,
                {"bad": port, "good": sink.port},
                timeoutremote="60\n",
                timeoutconnect="60\n",
                concurrencyremote="20\n",
                concurrencylocal="0\n",
            )
        )
        for number in range(100):
            inject(tree, [b"r%d@bad.test" % number])
        tree.find(b"status: local 0/0 remote 15/20\n")
        begin = clock.mono()
        good = [b"r%d@good.test" % number for number in range(100)]
        for recip in good:
            inject(tree, [recip])
        assert tree.reports(*good) == [ACCEPTED] * 100
        assert clock.mono() - begin < 10
        assert tree.reported().keys() == set(good)  # the bad ones hang, or wait
        remote = tree.ask("status")["channels"]["remote"]
        assert (remote["running"], remote["waiting"]) == (15, 85)


def test_dead_host_backs_off_and_a_flush_tries_it_again(
    installation: Installation,
) -> None:
    port = free_port()
    with world(installation, {"dead": port}) as tree:
        inject(tree, [b"r@dead.test"])
        [report] = tree.reports(b"r@dead.test")
        assert report == NO_CONNECTION
        [ill] = tree.ask("status")["ill"]
        assert ill["destination"] == f"127.0.0.1:{port}"
        assert ill["ill_for_s"] == 0  # one failure: the next mail is a probe
        assert "(#4.4.1)" in ill["error"]
        inject(tree, [b"r2@dead.test"])
        assert tree.reports(b"r2@dead.test") == [NO_CONNECTION]
        [ill] = tree.ask("status")["ill"]  # too soon to count
        assert ill["ill_for_s"] == 0
        assert len(tree.ask("queue")) == 2
        with Sink(port=port) as sink:
            tree.run("flush", f"host:127.0.0.1:{port}")
            tree.find(rb"(?s)" + rb"end msg \d+\n.*" * 2)
            sink.wait_for_mails(2)
        assert tree.ask("status")["ill"] == []
        tree.wait_empty()


def test_list_goes_in_two_transactions_and_verp_in_one_each(
    installation: Installation,
) -> None:
    with Sink() as sink, world(installation, {"list": sink.port}) as tree:
        recips = [b"r%d@list.test" % number for number in range(150)]
        inject(tree, recips)
        assert tree.reports(*recips) == [ACCEPTED] * 150
        assert sorted(len(mail.recips) for mail in sink.mails) == [50, 100]
        got = [recip for mail in sink.mails for recip in mail.recips]
        assert sorted(got) == sorted(recips)
        assert all(b"<%b>" % BOUNCES in mail.sender for mail in sink.mails)
        sink.mails.clear()
        verp = [b"v%d@list.test" % number for number in range(150)]
        tree.queue(verp, sender=LIST)
        assert tree.reports(*verp) == [ACCEPTED] * 150
        assert sorted(mail.recips for mail in sink.mails) == sorted([v] for v in verp)
        for mail in sink.mails:
            [recip] = mail.recips
            want = b"<list-%b@here.example>" % recip.replace(b"@", b"=")
            assert want in mail.sender
        assert sink.sessions < 60  # a session served several


def test_sessions_are_kept_for_the_next_message(installation: Installation) -> None:
    with Sink() as sink, world(installation, {"kept": sink.port}) as tree:
        for number in range(10):
            recip = b"r%d@kept.test" % number
            inject(tree, [recip])
            assert tree.reports(recip) == [ACCEPTED]
        assert sink.sessions == 1
        assert len(sink.mails) == 10


@pytest.mark.parametrize("base", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_recipients_that_are_too_many_go_in_the_next_transaction(
    installation: Installation, base: Script
) -> None:
    said = [b"250 r", b"452 many", b"550 no", b"250 r"]
    with (
        Peer({**base, "RCPT": said}) as peer,
        world(installation, {"few": peer.port}) as tree,
    ):
        recips = [b"a@few.test", b"b@few.test", b"c@few.test"]
        inject(tree, recips)
        reports = tree.reports(*recips)
        assert reports == [ACCEPTED, ACCEPTED, b"failure: " + refused(b"550_no")]
    assert len(peer.served) == 1
    rcpts = [c[9:-1] for c in peer.commands if c.startswith(b"RCPT")]
    assert rcpts == [*recips, b"b@few.test"]


@pytest.mark.parametrize("base", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_message_that_every_recipient_refuses_is_not_sent(
    installation: Installation, base: Script
) -> None:
    said = [b"550 no", b"450 later", b"551 no", b"250 r"]
    with (
        Peer({**base, "RCPT": said}) as peer,
        world(installation, {"none": peer.port}) as tree,
    ):
        recips = [b"a@none.test", b"b@none.test", b"c@none.test"]
        inject(tree, recips)
        assert tree.reports(*recips) == [
            b"failure: " + refused(b"550_no"),
            b"deferral: " + refused(b"450_later"),
            b"failure: " + refused(b"551_no"),
        ]
        inject(tree, [b"d@none.test"])
        assert tree.reports(b"d@none.test") == [ACCEPTED]
        # Nobody's content is the lone dot, where DATA was already on its way.
        contents = [c for c in peer.contents if c != b".\r\n"]
        assert len(contents) == 1
        assert len(peer.contents) == (2 if base is PIPELINED else 1)


BODIES = {
    b"dots": (b"\n.\n..\n...x\n", b"\r\n..\r\n...\r\n....x\r\n"),
    b"eight": (b"\n\xc3\xa9\xff\x80\n", b"\r\n\xc3\xa9\xff\x80\r\n"),
    b"cr": (b"\na\rb\r\nc\r\r\nd\n", b"\r\na\r\nb\r\nc\r\n\r\nd\r\n"),
    b"smuggle": (b"\na\r.\nMAIL FROM:<x@x>\n", b"\r\na\r\n..\r\nMAIL FROM:<x@x>\r\n"),
    b"smuggle2": (b"\na\n.\r\nb\n", b"\r\na\r\n..\r\nb\r\n"),
    b"unended": (b"\nno end", b"\r\nno end\r\n"),
    b"dotend": (b"\n.", b"\r\n..\r\n"),
    b"crend": (b"\nx\r", b"\r\nx\r\n"),
    b"empty": (b"", b""),
    b"long": (b"\n" + b"x" * 100_000 + b"\n", b"\r\n" + b"x" * 100_000 + b"\r\n"),
    b"nul": (b"\na\0b\n", b"\r\na\0b\r\n"),
}


@pytest.mark.parametrize("base", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_bodies_arrive_right(installation: Installation, base: Script) -> None:
    with (
        Peer(base) as peer,
        world(installation, {"body": peer.port}, concurrencyremote="1\n") as tree,
    ):
        for name, (body, _) in BODIES.items():
            recip = name + b"@body.test"
            inject(tree, [recip], body)
            assert tree.reports(recip) == [ACCEPTED]
    assert len(peer.contents) == len(BODIES)
    for content, (_, want) in zip(peer.contents, BODIES.values(), strict=True):
        received, _, rest = content.partition(b"-0000\r\n")
        assert received.startswith(b"Received: (qmail ")
        assert rest == want + b".\r\n"
    mails = [c for c in peer.commands if c.startswith(b"MAIL")]
    is_eight_bit = [c.endswith(b" BODY=8BITMIME") for c in mails]
    assert is_eight_bit == [base is PIPELINED and n == b"eight" for n in BODIES]


def test_big_message_arrives_whole_in_bounded_memory(
    installation: Installation,
) -> None:
    lines = b"".join(b".%d\n" % number * 16 for number in range(5000))
    message = MESSAGE + lines * (20 * 2**20 // len(lines) + 1)
    with ExitStack() as stack:
        sinks = {f"big{n}": stack.enter_context(Sink()) for n in range(4)}
        tree = stack.enter_context(
            world(installation, {name: sink.port for name, sink in sinks.items()})
        )
        remotes = [psutil.Process(pid) for pid in tree.pids("qmail-remote")]
        assert len(remotes) >= 1
        before = [each.memory_info().rss for each in remotes]
        recips = [f"r@{name}.test".encode() for name in sinks]
        inject(tree, recips, message)
        assert tree.reports(*recips) == [ACCEPTED] * len(sinks)
        peaks = [peak_bytes(each.pid) for each in remotes]
        for was, peak in zip(before, peaks, strict=True):
            assert peak - was < 8 * 2**20
        want = encode_content(message).removesuffix(b".\r\n")
        for sink in sinks.values():
            [mail] = sink.mails
            assert mail.content.partition(b"-0000\r\n")[2] == want


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_recipient_with_a_line_break_fails_and_is_never_sent(
    installation: Installation,
) -> None:
    with (
        Peer(PIPELINED) as peer,
        world(installation, {"x": peer.port}, concurrencyremote="1\n") as tree,
    ):
        bad = b"a\r\nDATA\r\n@x.test"
        inject(tree, [bad, b"good@x.test"])
        assert tree.reports(b"good@x.test") == [ACCEPTED]
        tree.find(rb"failure: Sorry,_the_recipient_address_cannot_be_sent")
    rcpts = [c for c in peer.commands if c.startswith(b"RCPT")]
    assert rcpts == [b"RCPT TO:<good@x.test>"]
    assert b"DATA\r\n" not in b"".join(peer.served[0].packets[1:2])[:6]


@pytest.mark.parametrize("sessions", [1, 2])
def test_server_that_limits_sessions_gets_everything_in_one_go(
    installation: Installation, sessions: int
) -> None:
    with (
        Sink(sessions_max=sessions, slow_s=0.002) as sink,
        world(installation, {"tight": sink.port}, timeoutconnect="60\n") as tree,
    ):
        tree.run("hold", "remote")
        recips = [b"r%d@tight.test" % number for number in range(200)]
        for recip in recips:
            inject(tree, [recip])
        tree.run("release", "remote")
        reports = tree.reports(*recips)
        assert reports.count(ACCEPTED) >= 190
        assert sink.peak <= sessions
        assert len(sink.mails) == reports.count(ACCEPTED)


@pytest.mark.slow
def test_fifteen_hundred_sessions_run_at_once(installation: Installation) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, max(soft, 8192))
    assert wanted >= 4096
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        with (
            Sink(hold=True) as sink,
            world(
                installation,
                {"wide": sink.port},
                concurrencyremote="2000\n",
                concurrencyperhost="2000\n",
                timeoutremote="60\n",
            ) as tree,
        ):
            recips = [b"r%d@wide.test" % number for number in range(1500)]
            tree.queue(recips, sender=LIST)
            tree.wait_for(b"status: local 0/10 remote 1500/2000\n")
            sink.wait_for_mails(1500)
            assert sink.open == 1500
            sink.open_gate()
            assert tree.reports(*recips) == [ACCEPTED] * 1500
            tree.find(rb"\nend msg \d+\nstatus: local 0/10 remote 0/2000\n")
            tree.wait_empty()
        assert sink.sessions == 1500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
