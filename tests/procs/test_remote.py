"""remote: a real process against scripted SMTP peers on loopback."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from qsend.core.model import Cause, Letter
from qsend.formats.control import Resolver
from qsend.formats.smtp import encode_content
from qsend.sysio import privilege
from tests.ports import free_port
from tests.remoteprocess import (
    CONTROLS,
    NOFILES_GID,
    QMAILR_UID,
    RemoteProcess,
    lower_descriptor_limit,
    reap,
    running,
)
from tests.smtppeer import LOCKSTEP, PIPELINED, Odd, Peer, Said, Script
from tests.smtpsink import Sink

MESSAGE = b"Subject: x\n\nhello\n.dots\n"
OK = b"K127.0.0.1 accepted message.\nRemote host said: 250 ok\n"
NO_CONNECTION = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n"
DIED = b"ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n"
DUPLICATE = (
    b"ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n"
)
HASTY = replace(CONTROLS, timeoutremote=1, timeoutconnect=1)


@pytest.fixture(scope="module")
def shared() -> Iterator[RemoteProcess]:
    """One process for the tests that leave it as it was."""
    with running() as process:
        yield process


@pytest.fixture(scope="module")
def hasty() -> Iterator[RemoteProcess]:
    """One process whose peers get a second."""
    with running(HASTY) as process:
        yield process


@pytest.mark.parametrize("script", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_message_arrives_as_it_is(shared: RemoteProcess, script: Script) -> None:
    with Peer(script) as peer:
        assert shared.outcome(MESSAGE, b"r@example.org", port=peer.port) == [OK]
    assert peer.contents == [b"Subject: x\r\n\r\nhello\r\n..dots\r\n.\r\n"]
    assert peer.commands[0] == b"EHLO helo.example"
    assert peer.commands[1].startswith(b"MAIL FROM:<s@sender.example>")
    assert peer.commands[2:4] == [b"RCPT TO:<r@example.org>", b"DATA"]


def test_pipelined_envelope_comes_in_one_packet(shared: RemoteProcess) -> None:
    with Peer(PIPELINED) as peer:
        shared.outcome(b"\xff\n", b"a@b", b"c d@e", port=peer.port)
    assert peer.served[0].packets[1] == (
        b"MAIL FROM:<s@sender.example> SIZE=3 BODY=8BITMIME\r\n"
        b'RCPT TO:<a@b>\r\nRCPT TO:<"c d"@e>\r\nDATA\r\n'
    )


def test_plain_message_is_not_called_8bit(shared: RemoteProcess) -> None:
    with Peer(PIPELINED) as peer:
        shared.outcome(b"x\n", b"a@b", port=peer.port)
    assert peer.commands[1] == b"MAIL FROM:<s@sender.example> SIZE=3"


def refusal(step: str) -> bytes:
    return b"127.0.0.1 does not like recipient.\nRemote host said: " + step.encode()


ROWS: list[tuple[str, Said | Sequence[Said], bytes]] = [
    ("greeting", b"554 no", b"ZConnected to 127.0.0.1 but greeting failed.\n"),
    ("greeting", b"450 no", b"ZConnected to 127.0.0.1 but greeting failed.\n"),
    ("greeting", b"SSH-2.0", b"ZConnected to 127.0.0.1 but it broke the protocol"),
    ("greeting", Odd.CLOSE, DIED),
    ("greeting", Odd.LONG_LINE, b"ZConnected to 127.0.0.1 but it broke the protocol"),
    ("greeting", Odd.MANY_LINES, b"ZConnected to 127.0.0.1 but it broke the protocol"),
    ("EHLO", b"450 no", b"ZConnected to 127.0.0.1 but my name was rejected.\n"),
    ("EHLO", Odd.CLOSE, DIED),
    ("EHLO", b"250 peer\r\n421 bye", NO_CONNECTION),
    ("EHLO", b"250 peer\r\nwhat", NO_CONNECTION),
    ("MAIL", b"550 no", b"DConnected to 127.0.0.1 but sender was rejected.\n"),
    ("MAIL", b"450 no", b"ZConnected to 127.0.0.1 but sender was rejected.\n"),
    ("MAIL", Odd.CLOSE, DIED),
    ("MAIL", Odd.LONG_LINE, b"ZConnected to 127.0.0.1 but it broke the protocol"),
    ("RCPT", b"550 no", b"D" + refusal("550 no\nGiving up on 127.0.0.1.\n")),
    ("RCPT", b"450 no", b"Z" + refusal("450 no\nGiving up on 127.0.0.1.\n")),
    ("RCPT", Odd.CLOSE, DIED),
    ("DATA", b"554 no", b"D127.0.0.1 failed on DATA command.\n"),
    ("DATA", b"451 no", b"Z127.0.0.1 failed on DATA command.\n"),
    ("DATA", b"250 odd", b"ZConnected to 127.0.0.1 but it broke the protocol"),
    ("DATA", Odd.CLOSE, DIED),
    ("DOT", b"554 no", b"D127.0.0.1 failed after I sent the message.\n"),
    ("DOT", b"451 no", b"Z127.0.0.1 failed after I sent the message.\n"),
    ("DOT", Odd.CLOSE, DUPLICATE),
    ("DOT", Odd.RESET, DUPLICATE),
    ("DOT", Odd.MANY_LINES, b"ZConnected to 127.0.0.1 but it broke the protocol: "),
]


@pytest.mark.parametrize("script", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
@pytest.mark.parametrize(("step", "said", "want"), ROWS)
def test_failure_row_gives_its_report(
    shared: RemoteProcess,
    script: Script,
    step: str,
    said: Said | Sequence[Said],
    want: bytes,
) -> None:
    with Peer({**script, step: said}) as peer:
        delids = shared.deliver(MESSAGE, b"r@example.org", port=peer.port)
        (report,) = shared.reports(delids)
    text = report.letter.value + report.text
    assert text.startswith(want)
    assert len(text) < 6000
    is_before_mail = step in ("greeting", "EHLO")
    assert report.cause is (Cause.UNREACHABLE if is_before_mail else Cause.NORMAL)


def test_reset_before_the_greeting_is_unreachable(shared: RemoteProcess) -> None:
    with Peer(LOCKSTEP | {"greeting": Odd.RESET}) as peer:
        (report,) = shared.reports(shared.deliver(MESSAGE, port=peer.port))
    # Whether connecting is told before the reset is the kernel's affair.
    assert b"Z" + report.text in (DIED, NO_CONNECTION)
    assert report.cause is Cause.UNREACHABLE


@pytest.mark.slow
@pytest.mark.parametrize("odd", [Odd.SILENCE, Odd.TRICKLE])
def test_peer_that_never_answers_is_given_up_at_every_step(
    hasty: RemoteProcess, odd: Odd
) -> None:
    steps = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "DOT"]
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer({**LOCKSTEP, s: odd})) for s in steps]
        sent = [hasty.deliver(MESSAGE, port=peer.port) for peer in peers]
        reports = [hasty.reports(delids)[0] for delids in sent]
    got = [report.letter.value + report.text for report in reports]
    assert got == [DIED] * 5 + [DUPLICATE]


@pytest.mark.slow
def test_peer_that_stops_reading_is_given_up(hasty: RemoteProcess) -> None:
    big = (b"x" * 70 + b"\n") * 300_000
    with Peer(LOCKSTEP | {"DATA": Odd.STOP_READING}) as peer:
        assert hasty.outcome(big, port=peer.port) == [DIED]


@pytest.mark.slow
def test_connection_that_times_out_is_unreachable(hasty: RemoteProcess) -> None:
    # A listener whose backlog is full drops what comes next, as a dead host does.
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        delids = hasty.deliver(MESSAGE, port=listener.getsockname()[1])
        (report,) = hasty.reports(delids)
    assert (b"Z" + report.text, report.cause) == (NO_CONNECTION, Cause.UNREACHABLE)


def test_refusal_in_the_middle_of_a_big_message(shared: RemoteProcess) -> None:
    big = (b"x" * 70 + b"\n") * 300_000
    with Peer(LOCKSTEP | {"DATA": Odd.EARLY_552}) as peer:
        (text,) = shared.outcome(big, port=peer.port)
    assert text.startswith(b"D127.0.0.1 failed after I sent the message.\n")


def test_big_message_arrives_whole(shared: RemoteProcess) -> None:
    lines = [b"." * (at % 97) + b"\n" for at in range(100_000)]
    big = b"".join(lines) + b"no line end"
    with Peer(PIPELINED) as peer:
        assert shared.outcome(big, port=peer.port) == [OK]
    (content,) = peer.contents
    assert content == encode_content(big)
    assert b" SIZE=%d BODY=8BITMIME" % len(big) in peer.commands[1]


def test_sessions_are_reused(shared: RemoteProcess) -> None:
    with Peer(PIPELINED) as peer:
        for _ in range(5):
            assert shared.outcome(MESSAGE, port=peer.port) == [OK]
        assert len(peer.served) == 1
    assert len(peer.contents) == 5


def test_many_at_once_share_what_becomes_idle(shared: RemoteProcess) -> None:
    with Peer(PIPELINED) as peer:
        sent = [shared.deliver(MESSAGE, port=peer.port) for _ in range(20)]
        assert all(shared.reports(d)[0].letter is Letter.SUCCESS for d in sent)
        sent = [shared.deliver(MESSAGE, port=peer.port) for _ in range(20)]
        assert all(shared.reports(d)[0].letter is Letter.SUCCESS for d in sent)
        assert len(peer.served) <= 20
    assert len(peer.contents) == 40


def test_refused_transactions_leave_the_session_usable(shared: RemoteProcess) -> None:
    script = PIPELINED | {"RCPT": [b"550 no", b"250 r"]}
    with Peer(script) as peer:
        (text,) = shared.outcome(MESSAGE, port=peer.port)
        assert text.startswith(b"D127.0.0.1 does not like recipient.\n")
        assert shared.outcome(MESSAGE, port=peer.port) == [OK]
        # The report may come before the session is idle, so a second one is fine;
        # two at a time then need both.
        sent = [shared.deliver(MESSAGE, port=peer.port) for _ in range(2)]
        assert all(shared.reports(d)[0].letter is Letter.SUCCESS for d in sent)
        assert len(peer.served) <= 2
    # The peer answered 354 to nobody's DATA: the lone dot is an empty content.
    assert peer.served[0].contents[0] == b".\r\n"
    assert peer.contents.count(encode_content(MESSAGE)) == 3


KEPT_THEN_DEAD: list[Script] = [
    PIPELINED | {"MAIL": [b"250 s", Odd.CLOSE, b"250 s"]},
    PIPELINED | {"MAIL": [b"250 s", Odd.RESET, b"250 s"]},
    PIPELINED | {"MAIL": [b"250 s", b"421 idle too long", b"250 s"]},
    LOCKSTEP | {"MAIL": [b"250 s", Odd.CLOSE, b"250 s"]},
]


@pytest.mark.parametrize("script", KEPT_THEN_DEAD)
def test_kept_session_that_died_is_replaced_silently(
    shared: RemoteProcess, script: Script
) -> None:
    with Peer(script) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [OK]
        assert shared.outcome(MESSAGE, port=peer.port) == [OK]
        assert len(peer.served) == 2
    assert len(peer.contents) == 2


def test_kept_session_that_the_peer_closed_is_replaced(shared: RemoteProcess) -> None:
    with Peer(PIPELINED) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [OK]
        peer.close_connections()
        assert shared.outcome(MESSAGE, port=peer.port) == [OK]
        assert len(peer.served) == 2


def test_fresh_session_that_dies_is_a_deferral(shared: RemoteProcess) -> None:
    with Peer(PIPELINED | {"MAIL": [Odd.CLOSE, b"250 s"]}) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [DIED]
        assert len(peer.served) == 1


def test_deliveries_wait_for_the_sessions_that_a_peer_allows(
    shared: RemoteProcess,
) -> None:
    with Sink(sessions_max=2, slow_s=0.01) as sink:
        sent = [shared.deliver(MESSAGE, port=sink.port) for _ in range(30)]
        assert all(shared.reports(d)[0].letter is Letter.SUCCESS for d in sent)
        assert sink.refused < 40  # each asks once, then one a second
    assert (sink.peak, len(sink.mails)) == (2, 30)


def test_deliveries_wait_for_a_session_where_no_other_is_let_in(
    shared: RemoteProcess,
) -> None:
    with Sink(hold=True) as sink:
        first = shared.deliver(MESSAGE, port=sink.port)
        sink.wait_for_mails(1)
        sink.stop_listening()
        sent = [shared.deliver(MESSAGE, port=sink.port) for _ in range(3)]
        assert shared.is_quiet(0.2)
        sink.open_gate()
        for delids in (first, *sent):
            assert shared.reports(delids)[0].letter is Letter.SUCCESS
        assert sink.sessions == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["greeting", "EHLO"])
def test_peer_that_stays_full_is_given_up_in_time(
    hasty: RemoteProcess, step: str
) -> None:
    with Peer(LOCKSTEP | {step: b"421 full"}) as peer:
        sent = [hasty.deliver(MESSAGE, port=peer.port) for _ in range(5)]
        for delids in sent:
            (report,) = hasty.reports(delids)
            assert report.letter is Letter.DEFERRAL
            assert report.cause is Cause.UNREACHABLE
            assert report.text.endswith(b"Remote host said: 421 full\n")


@pytest.mark.slow
def test_peer_that_has_room_again_gets_the_mail(shared: RemoteProcess) -> None:
    script = LOCKSTEP | {"greeting": [b"421 full"] * 4 + [b"220 hello"]}
    with Peer(script) as peer:
        sent = [shared.deliver(MESSAGE, port=peer.port) for _ in range(4)]
        assert all(shared.reports(d)[0].letter is Letter.SUCCESS for d in sent)
    assert len(peer.contents) == 4


def test_aborted_deliveries_wait_for_no_session() -> None:
    with running() as process, Peer(LOCKSTEP | {"greeting": b"421 full"}) as peer:
        process.deliver(MESSAGE, port=peer.port)
        peer.wait_served(1)
        process.replace_send()
        assert process.is_quiet(0.2)


def test_recipients_each_get_their_report(shared: RemoteProcess) -> None:
    script = PIPELINED | {"RCPT": [b"550 no", b"250 r", b"450 later", b"250 r"]}
    with Peer(script) as peer:
        texts = shared.outcome(MESSAGE, b"a@x", b"b@x", b"c@x", b"d@x", port=peer.port)
    assert [text[:1] for text in texts] == [b"D", b"K", b"Z", b"K"]
    assert len(peer.contents) == 1


@pytest.mark.parametrize("script", [LOCKSTEP, PIPELINED], ids=["lock", "pipe"])
def test_452_after_an_accepted_recipient_makes_a_next_transaction(
    shared: RemoteProcess, script: Script
) -> None:
    said = [b"250 r", b"452 many", b"452 many", b"250 r", b"452 many", b"250 r"]
    with Peer({**script, "RCPT": said}) as peer:
        texts = shared.outcome(MESSAGE, b"a@x", b"b@x", b"c@x", port=peer.port)
        assert texts == [OK] * 3
        assert len(peer.served) == 1
    assert len(peer.contents) == 3
    rcpts = [c for c in peer.commands if c.startswith(b"RCPT")]
    assert [c[9:-1] for c in rcpts] == [b"a@x", b"b@x", b"c@x", b"b@x", b"c@x", b"c@x"]


@pytest.mark.parametrize("bad", [b"a\r\nDATA@x", b"a\n@x", b"a\r@x", b"a\0@x"])
def test_address_with_a_line_break_is_never_sent(
    shared: RemoteProcess, bad: bytes
) -> None:
    with Peer(PIPELINED) as peer:
        texts = shared.outcome(MESSAGE, bad, b"good@x", port=peer.port)
        assert texts[0].startswith(b"D")
        assert texts[0].endswith(b"(#5.1.3)\n")
        assert texts[1] == OK
        delids = shared.deliver(MESSAGE, b"good@x", port=peer.port, sender=bad)
        (report,) = shared.reports(delids)
        assert report.letter is Letter.FAILURE
        assert report.text.endswith(b"(#5.1.7)\n")
    assert [c for c in peer.commands if c.startswith(b"RCPT")] == [b"RCPT TO:<good@x>"]


def test_ehlo_refused_falls_back_to_helo(shared: RemoteProcess) -> None:
    with Peer(LOCKSTEP | {"EHLO": b"502 what"}) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [OK]
    assert peer.commands[:2] == [b"EHLO helo.example", b"HELO helo.example"]


def test_ipv6_peer(shared: RemoteProcess) -> None:
    with Peer(PIPELINED, host="::1") as peer:
        (text,) = shared.outcome(MESSAGE, port=peer.port, relay=b"::1")
    assert text == b"K::1 accepted message.\nRemote host said: 250 ok\n"


@pytest.mark.parametrize("first", [b"421 busy", b"554 no", Odd.CLOSE])
def test_greeting_that_fails_makes_way_for_the_next_host(
    shared: RemoteProcess, first: Said
) -> None:
    with (
        Peer(PIPELINED | {"greeting": first}) as bad,
        Peer(PIPELINED, host="::1", port=bad.port) as good,
    ):
        (text,) = shared.outcome(MESSAGE, port=bad.port, relay=b"localhost")
        assert (len(bad.served), len(good.served)) == (1, 1)
    assert text.startswith(b"K::1 accepted message.\n")


def test_refused_connection_makes_way_for_the_next_host(
    shared: RemoteProcess,
) -> None:
    with Peer(PIPELINED, host="::1") as peer:
        (text,) = shared.outcome(MESSAGE, port=peer.port, relay=b"localhost")
    assert text.startswith(b"K::1 accepted message.\n")


def test_nobody_listening_is_unreachable(shared: RemoteProcess) -> None:
    (report,) = shared.reports(shared.deliver(MESSAGE, port=free_port()))
    assert b"Z" + report.text == NO_CONNECTION
    assert report.cause is Cause.UNREACHABLE


def test_own_address_as_destination_is_a_failure(shared: RemoteProcess) -> None:
    delids = shared.deliver(MESSAGE, relay=b"", domain=b"[127.0.0.1]")
    (report,) = shared.reports(delids)
    assert report.letter is Letter.FAILURE
    assert b"(#5.4.6)\n" in report.text


def test_dns_without_answer_is_unreachable() -> None:
    resolvers = (Resolver(host="127.0.0.1", port=free_port()),)
    with running(replace(CONTROLS, resolvers=resolvers)) as process:
        (report,) = process.reports(process.deliver(MESSAGE, relay=b""))
    assert report.letter is Letter.DEFERRAL
    assert report.text.endswith(b"(#4.1.2)\n")
    assert report.cause is Cause.UNREACHABLE


@pytest.mark.parametrize(
    "domain", [b"", b".", b"a..b", b"x" * 70, b"x." * 200, b"\xff\xfe.example", b"a b"]
)
def test_odd_domain_gets_a_report(domain: bytes) -> None:
    resolvers = (Resolver(host="127.0.0.1", port=free_port()),)
    with running(replace(CONTROLS, resolvers=resolvers)) as process:
        delids = process.deliver(MESSAGE, b"r@x", relay=b"", domain=domain)
        (report,) = process.reports(delids)
        assert report.letter is not Letter.SUCCESS
        process.outcome(MESSAGE, b"r@x", relay=domain or b"y")


def test_message_that_cannot_be_read_is_a_deferral(shared: RemoteProcess) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.close(writer)
    with Peer(PIPELINED) as peer:
        os.set_blocking(reader, False)
        (text,) = shared.outcome(reader, port=peer.port)
        assert peer.served == []
    assert text.startswith(b"ZUnable to read message: ")
    assert text.endswith(b"(#4.3.0)\n")


def test_message_that_shrinks_is_never_ended_with_a_dot(
    shared: RemoteProcess, tmp_path: Path
) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x\n" * 20_000)
    with Peer(LOCKSTEP, gate="DATA") as peer:
        delids = shared.deliver(os.open(path, os.O_RDONLY), port=peer.port)
        peer.wait_at_gate()
        os.truncate(path, 10_000)
        peer.open_gate()
        (report,) = shared.reports(delids)
    assert report.letter is Letter.DEFERRAL
    assert report.text.startswith(b"Unable to read message: ")
    assert peer.contents == []


def test_lost_send_aborts_what_is_before_the_dot_and_ends_what_is_past() -> None:
    with (
        running() as process,
        Peer(LOCKSTEP, gate="DOT") as past,
        Peer(LOCKSTEP | {"RCPT": Odd.SILENCE}) as before,
        Peer(LOCKSTEP) as after,
    ):
        process.deliver(MESSAGE, port=past.port)
        process.deliver(MESSAGE, port=before.port)
        past.wait_at_gate()
        process.replace_send()
        assert process.outcome(MESSAGE, port=after.port) == [OK]
        past.open_gate()
        # The session that was past its dot lives: it serves the new send, next to
        # the one that this first message may have needed.
        assert process.outcome(MESSAGE, port=past.port) == [OK]
        # The last that was idle is the first to be taken: more at once in each round
        # than there are sessions.
        for most in range(3, 40):
            sent = [process.deliver(MESSAGE, port=past.port) for _ in range(most)]
            assert all(process.reports(d)[0].letter is Letter.SUCCESS for d in sent)
            mails = [c for c in past.served[0].commands if c.startswith(b"MAIL")]
            if len(mails) > 1:
                break
        assert len(mails) > 1
        assert process.is_quiet(0)
        assert before.contents == []


def test_lost_start_ends_the_process_in_the_middle_of_everything() -> None:
    with Peer(LOCKSTEP | {"RCPT": Odd.SILENCE}) as silent, Peer(PIPELINED) as peer:
        process = RemoteProcess()
        assert process.outcome(MESSAGE, port=peer.port) == [OK]
        process.deliver(MESSAGE, port=silent.port)
        process.start.close()
        assert reap(process.pid) == 0
        process.send.close()


def test_process_for_suspects_ends_with_the_send_that_asked_for_it() -> None:
    process = RemoteProcess(role="isolated")
    process.send.close()
    assert reap(process.pid) == 0
    process.start.close()


SNIPPETS = [
    b"220 hello\r\n",
    b"250 ok\r\n",
    b"250-peer\r\n250 PIPELINING\r\n",
    b"250 ok\r\n" * 2,
    b"250 ok\r\n250 ok\r\n354 go\r\n",
    b"354 go\r\n",
    b"421 bye\r\n",
    b"450 later\r\n",
    b"452 many\r\n",
    b"550 no\r\n",
    b"what\r\n",
    b"25",
    b"",
]


async def _babble(
    chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say anything whenever the client has said something, and often what is due."""
    said = b"220 hello\r\n"
    try:
        while chance.random() > 0.03:
            for _ in range(chance.choice((1, 1, 1, 2, 3))):
                writer.write(said)
                said = chance.choice(SNIPPETS)
            await writer.drain()
            if not (heard := await reader.read(4096)):
                break
            if chance.random() < 0.7:
                said = b"250 ok\r\n" * (heard.count(b"\r\n") or 1)
                if b"DATA\r\n" in heard:
                    said = said[8:] + b"354 go\r\n"
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_peers_that_babble_get_reports_and_end_nothing(
    hasty: RemoteProcess, seed: int
) -> None:
    chance = random.Random(seed)
    letters: set[Letter] = set()

    async def serve() -> None:
        server = await asyncio.start_server(
            lambda reader, writer: _babble(chance, reader, writer), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        async with server:
            for _ in range(2):
                recips = [b"a@x", b"b@x", b"c@x"][: chance.randrange(1, 4)]
                sent = [hasty.deliver(MESSAGE, *recips, port=port) for _ in range(100)]
                for delids in sent:
                    reports = await loop.run_in_executor(None, hasty.reports, delids)
                    letters.update(report.letter for report in reports)

    asyncio.run(serve())
    assert letters == set(Letter)
    with Peer(PIPELINED) as peer:
        assert hasty.outcome(MESSAGE, port=peer.port) == [OK]


def test_new_controls_hold_for_new_sessions() -> None:
    with running() as process, Peer(PIPELINED) as one, Peer(PIPELINED) as two:
        process.reload({"me": b"other.example\n", "timeoutremote": b"7\n"})
        assert process.outcome(MESSAGE, port=one.port) == [OK]
        process.reload({"me": b"me.example\n", "helohost": b"third.example\n"})
        assert process.outcome(MESSAGE, port=two.port) == [OK]
    assert one.commands[0] == b"EHLO other.example"
    assert two.commands[0] == b"EHLO third.example"


def test_unusable_controls_are_not_taken() -> None:
    with running() as process, Peer(PIPELINED) as peer:
        process.reload({"me": b"other.example\n", "timeoutremote": b"soon\n"})
        assert process.outcome(MESSAGE, port=peer.port) == [OK]
    assert peer.commands[0] == b"EHLO helo.example"


def test_send_that_breaks_the_protocol_is_dropped_and_replaced() -> None:
    with running() as process, Peer(PIPELINED) as peer:
        process.send.send(b"\0\0\0\1?x")
        assert process.send.recv(100) == b""
        process.replace_send()
        assert process.outcome(MESSAGE, port=peer.port) == [OK]


@pytest.mark.root
def test_process_is_qmailr_without_any_other_group(shared: RemoteProcess) -> None:
    status = Path(f"/proc/{shared.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(QMAILR_UID)}
    assert set(fields["Gid"].split()) == {str(NOFILES_GID)}
    assert fields["Groups"].split() == [str(NOFILES_GID)]
    assert fields["NoNewPrivs"] == "1"
    assert fields["CapEff"].strip("0") == ""


def test_slots_follow_the_descriptor_limit(shared: RemoteProcess) -> None:
    assert shared.slots > 500
    with running(before=lower_descriptor_limit) as process:
        assert process.slots == (200 - 64 - (200 - 64) // 8) // 2


def _forbid_imports_after_the_drop() -> None:
    """The code's directory may be out of reach once privilege is gone."""

    class Forbidding:
        @staticmethod
        def find_spec(name: str, *_rest: object) -> None:
            os.write(2, f"late import of {name}\n".encode())
            os._exit(42)

    def harden() -> None:
        sys.meta_path.insert(0, Forbidding())
        original()

    original, privilege.harden = privilege.harden, harden


def test_nothing_is_imported_after_the_drop() -> None:
    resolvers = (Resolver(host="127.0.0.1", port=free_port()),)
    controls = replace(CONTROLS, resolvers=resolvers)
    with (
        running(controls, before=_forbid_imports_after_the_drop) as process,
        Peer(PIPELINED) as peer,
        Peer(PIPELINED | {"greeting": b"what"}) as bad,
    ):
        assert process.outcome(MESSAGE, port=peer.port) == [OK]
        process.outcome(MESSAGE, port=bad.port)
        process.outcome(MESSAGE, port=peer.port, relay=b"relay.example")
        process.outcome(MESSAGE, relay=b"", port=0)
        process.reload({"me": b"other.example\n", "timeoutremote": b"soon\n"})
        assert process.outcome(MESSAGE, port=free_port()) == [NO_CONNECTION]
