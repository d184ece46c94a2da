"""The suite's own source and sink: what one sends the other records."""

from __future__ import annotations

import socket

import pytest

from bench import exactly, source
from bench.letters import one_each
from bench.sink import running_sink


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "new connections"])
def test_every_message_is_recorded_once(keep: bool) -> None:
    letters = one_each(50, b"m%d@d%d.example", domains=7)
    with running_sink(port=0) as sink:
        sent = source.send(letters, sink.port, keep=keep)
        assert sink.count == 50
        arrivals = sink.take()
        assert sink.count == 0
    exactly.require((each.recips[0] for each in letters), (a.recip for a in arrivals))
    assert sent.taken.keys() == set(range(50))
    by_recip = {each.recip: each.at for each in arrivals}
    assert all(by_recip[each.recips[0]] <= sent.taken[each.number] for each in letters)


def test_latency_delays_the_answer_to_the_final_dot() -> None:
    with running_sink(port=0) as sink:
        sink.latency(200)
        letters = one_each(2, b"m%d@d.example")
        sent = source.send(letters, sink.port, keep=True, sessions=1)
        assert sent.taken[1] - sent.taken[0] >= 0.19


def test_pipelined_mail_is_answered_in_order_however_it_is_cut() -> None:
    mail = (
        b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\n"
        b"..\r\n.x\r\n\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<w@y>\r\nDATA\r\n.\r\nQUIT\r\n"
    )
    with running_sink(port=0) as sink:
        for size in (1, 2, 3, len(mail)):
            with socket.create_connection(("127.0.0.1", sink.port), 10) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for begin in range(0, len(mail), size):
                    sock.sendall(mail[begin : begin + size])
                replies = sock.makefile("rb").read().split(b"\r\n")
            codes = b" ".join(each[:3] for each in replies if each[3:4] == b" ")
            assert codes == b"220 250 250 250 250 354 250 250 250 354 250 221"
            assert [each.recip for each in sink.take()] == [b"x@y", b"z@y", b"w@y"]
