"""Clients that break the rules: never a crash, a second message, or a full memory."""

from __future__ import annotations

import os
import select

import psutil
import pytest

from tests.smtpdtree import Raw, SmtpTree
from tests.tree.harness import until

pytestmark = pytest.mark.root

Both = tuple[SmtpTree, int]
ENVELOPE = b"MAIL FROM:<a@far.example>\r\nRCPT TO:<box@here.example>\r\nDATA\r\n"
TO_DATA = [250, 250, 354]


def taken(tree: SmtpTree) -> list[bytes]:
    """The messages in the queue and the maildir."""
    maildir = tree.tree.home / "alias/Maildir/new"
    return [path.read_bytes() for path in (*tree.queued(), *maildir.iterdir())]


def is_alive(port: int) -> bool:
    with Raw(port) as raw:
        return raw.ask(b"NOOP").startswith(b"250") and raw.ask(b"QUIT")[:3] == b"221"


SMUGGLED = ENVELOPE + b"SECOND\r\n.\r\n"


STRAY_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n\n", b"\n\n.\n", b"\r\n.\r\r\n\n.\n",
    b"\n.\r", b"\r\n\x00.\n",
]  # fmt: skip


def test_a_bare_newline_ends_the_session_and_no_message(both: Both) -> None:
    tree, port = both
    for end in STRAY_ENDS:
        with Raw(port) as raw:
            assert raw.codes(ENVELOPE, 3) == TO_DATA
            raw.send(b"S: x\r\n\r\nfirst" + end + SMUGGLED)
            assert raw.line().startswith(b"451 ")
            assert raw.rest() == b""
    assert is_alive(port)
    assert taken(tree) == []


INNER_ENDS = [
    b"\r.\r",
    b"\r\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r.\r\n",
    b"\r\n..\r\n",
    b"\0.\0",
]


def test_what_looks_like_an_end_is_part_of_one_message(both: Both) -> None:
    tree, port = both
    for end in INNER_ENDS:
        with Raw(port) as raw:
            assert raw.codes(ENVELOPE, 3) == TO_DATA
            raw.send(b"S: x\r\n\r\nfirst" + end + SMUGGLED)
            assert raw.line().startswith(b"250 ")
            raw.send(b"QUIT\r\n")
            assert raw.rest().startswith(b"221 ")
    tree.tree.wait_empty()
    messages = taken(tree)
    assert len(messages) == len(INNER_ENDS)
    assert all(b"first" in each and b"SECOND" in each for each in messages)


def test_commands_may_come_all_at_once(both: Both) -> None:
    tree, port = both
    with Raw(port) as raw:
        twice = (ENVELOPE + b"one\r\n.\r\n") * 2
        raw.send(b"EHLO x\r\n" + twice + b"RSET\r\nNONSENSE\r\nQUIT\r\n")
        replies = raw.rest().splitlines()
        codes = [int(line[:3]) for line in replies if line[3:4] == b" "]
        assert codes == [250, *[*TO_DATA, 250] * 2, 250, 502, 221]
    tree.tree.wait_for(rb"end msg", 2)


def test_a_client_that_stops_talking_still_hears_the_answer(both: Both) -> None:
    tree, port = both
    with Raw(port) as raw:
        raw.send(ENVELOPE + b"one\r\n.\r\n")
        raw.half_close()
        assert [int(line[:3]) for line in raw.rest().splitlines()] == [*TO_DATA, 250]
    tree.tree.wait_for(rb"end msg")


def test_half_a_message_is_none(both: Both) -> None:
    tree, port = both
    for cut in (b"one\r\n", b"one\r\n.", b"one\r\n.\r", b""):
        with Raw(port) as raw:
            raw.send(ENVELOPE + cut)
            raw.half_close()
            assert [int(line[:3]) for line in raw.rest().splitlines()] == TO_DATA
    assert is_alive(port)
    assert taken(tree) == []


def test_garbage_ends_with_a_limit_of_errors(both: Both) -> None:
    _, port = both
    with Raw(port) as raw:
        raw.send(os.urandom(200_000).replace(b"\n", b"x") + b"\n" + b"\0\n" * 100)
        replies = raw.rest()
        assert replies.count(b"\r\n") <= 22
        assert replies.splitlines()[-1].startswith(b"421 ")
    assert is_alive(port)


def test_a_line_without_end_is_not_kept(both: Both) -> None:
    _, port = both
    with Raw(port) as raw:
        for _ in range(16):
            raw.send(b"MAIL FROM:<" + b"a" * (1 << 20))
        raw.send(b">\r\nNOOP\r\n")
        assert raw.reply().startswith(b"500 5.5.2")
        assert raw.reply().startswith(b"250 ")


def test_lines_of_a_megabyte_come_through(both: Both) -> None:
    tree, port = both
    line = b"x" * (1 << 20)
    with Raw(port) as raw:
        assert raw.codes(ENVELOPE, 3) == TO_DATA
        raw.send(b"\r\n" + (line + b"\r\n") * 3 + b".\r\n")
        assert raw.reply().startswith(b"250 ")
    tree.tree.wait_empty()
    [message] = taken(tree)
    assert message.endswith(b"\n\n" + (line + b"\n") * 3)


def test_nul_bytes_are_data_in_a_message_and_errors_elsewhere(both: Both) -> None:
    tree, port = both
    with Raw(port) as raw:
        assert raw.ask(b"MAIL FROM:<a\0b@far.example>").startswith(b"555")
        assert raw.ask(b"MAIL\0 FROM:<a@far.example>").startswith(b"502")
        assert raw.codes(ENVELOPE, 3) == TO_DATA
        assert raw.ask(b"\0\r\n\0.\0\r\n.").startswith(b"250")
    tree.tree.wait_empty()
    [message] = taken(tree)
    assert message.endswith(b"\n\0\n\0.\0\n")


def test_bare_carriage_returns_do_not_end_commands(both: Both) -> None:
    _, port = both
    with Raw(port) as raw:
        assert raw.ask(b"NOOP\rNOOP").startswith(b"502")
        assert raw.ask(b"MAIL FROM:<a@b>\rRCPT TO:<box@here.example>")[:3] == b"501"
        assert raw.ask(b"RCPT TO:<box@here.example>").startswith(b"503")


def memory(tree: SmtpTree) -> int:
    until(lambda: bool(tree.tree.pids("qmail-smtpd")))
    pids = tree.tree.pids("qmail-smtpd")
    return max(psutil.Process(pid).memory_info().rss for pid in pids)


def test_a_client_that_does_not_read_fills_no_memory(smtp: SmtpTree) -> None:
    before = memory(smtp)
    with Raw(smtp.port) as raw:
        raw.sock.setblocking(False)
        sent = 0
        while select.select([], [raw.sock], [], 2.0)[1]:
            sent += raw.sock.send(b"HELP\r\n" * 10_000)
            assert sent < 200 << 20
        assert memory(smtp) - before < 8 << 20
    assert is_alive(smtp.port)


def test_hundreds_of_slow_clients_leave_room_for_others(unstarted: SmtpTree) -> None:
    unstarted.tree.control("concurrencysmtpd", "400\n")
    unstarted.tree.control("concurrencysmtpdperip", "150\n")
    unstarted.start()
    slow: list[Raw] = []
    sources = ("127.0.0.2", "127.0.0.3")
    try:
        slow.extend(Raw(unstarted.port, sources[at % 2]) for at in range(200))
        for byte in ENVELOPE[:20]:
            for raw in slow:
                raw.send(bytes([byte]))
        with unstarted.client() as client:
            client.sendmail("a@far.example", ["box@here.example"], b"x\r\n")
        unstarted.tree.wait_for(rb"end msg")
    finally:
        for raw in slow:
            raw.close()


def test_too_many_sessions_of_one_address_are_sent_away(unstarted: SmtpTree) -> None:
    unstarted.tree.control("concurrencysmtpdperip", "2\n")
    unstarted.start()
    raws = [Raw(unstarted.port) for _ in range(12)]
    greetings = [raw.greeting[:3] for raw in raws]
    processes = len(unstarted.tree.pids("qmail-smtpd"))
    assert 2 <= greetings.count(b"220") <= 2 * processes
    assert set(greetings) == {b"220", b"421"}
    unstarted.tree.find(rb"warning: qmail-smtpd: control/concurrencysmtpdperip: ")
    for raw in raws:
        raw.close()
    until(lambda: is_alive_quietly(unstarted.port))


def is_alive_quietly(port: int) -> bool:
    with Raw(port) as raw:
        return raw.greeting.startswith(b"220")


def test_silence_ends_with_a_word(unstarted: SmtpTree) -> None:
    unstarted.tree.control("timeoutsmtpd", "1\n")
    unstarted.start()
    for start in (b"", b"NOO", ENVELOPE + b"half"):
        with Raw(unstarted.port) as raw:
            raw.send(start)
            assert raw.rest().endswith(b"451 4.4.2 timeout (#4.4.2)\r\n")
    assert taken(unstarted) == []


@pytest.mark.parametrize("when", ["together", "after"])
def test_what_is_said_before_tls_never_counts(smtp: SmtpTree, when: str) -> None:
    with Raw(smtp.port) as raw:
        assert b"STARTTLS" in raw.ask(b"EHLO x")
        injected = b"MAIL FROM:<evil@far.example>\r\n"
        if when == "together":
            raw.send(b"STARTTLS\r\n" + injected)
            assert raw.line().startswith(b"220 ")
            raw.start_tls()
            assert raw.ask(b"RCPT TO:<box@here.example>").startswith(b"503")
            assert b"STARTTLS" not in raw.ask(b"EHLO x")
        else:
            assert raw.ask(b"STARTTLS").startswith(b"220 ")
            raw.send(injected)
            assert b"250" not in raw.rest()
    assert is_alive(smtp.port)
