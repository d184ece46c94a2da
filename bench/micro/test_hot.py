"""One benchmark for each function that every message passes through.

python -m pytest -o addopts= --import-mode=importlib bench/micro
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_benchmark.fixture import BenchmarkFixture

from qsend.core import logline
from qsend.core.destinations import Destinations
from qsend.core.model import Cause, Channel, DelId, Letter, MessId
from qsend.core.rewrite import Rules, rewrite
from qsend.core.smtpc import Client
from qsend.core.smtptypes import Envelope, Reply
from qsend.formats import frames
from qsend.formats.delivery import Report, parse_report, render_report
from qsend.formats.smtp import ReplyReader
from qsend.formats.todo import Envelope as Todo
from qsend.formats.todo import parse_todo, render_todo

BATCH = 100
HOST = b"127.0.0.1"
RECIP = b"somebody@d17.sink.example"
REPLIES = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n250 2.0.0 taken\r\n"


def test_todo_parse(benchmark: BenchmarkFixture) -> None:
    content = render_todo(Todo(uid=0, pid=1, sender=b"me@x.example", recips=(RECIP,)))
    assert benchmark(parse_todo, content).recips == (RECIP,)


def test_rewrite(benchmark: BenchmarkFixture) -> None:
    rules = Rules(
        envnoathost=b"here.example",
        locals=frozenset({b"here.example"}),
        virtualdomains={b"v%d.example" % n: b"v" for n in range(100)},
    )
    assert benchmark(rewrite, RECIP, rules) == (Channel.REMOTE, RECIP)


def test_schedule_steps_of_100_messages(benchmark: BenchmarkFixture) -> None:
    """Put, choose, take and release."""
    keys = [b"d%d.sink.example" % (number % 10) for number in range(BATCH)]

    def steps() -> int:
        destinations = Destinations(lambda _key: 50)
        for number, key in enumerate(keys):
            destinations.put(key, (MessId(number), 0))
        taken = 0
        while (destination := destinations.next_ready(0.0, 50, 50)) is not None:
            taken += len(destinations.take(destination, 100))
            destinations.release(destination)
        return taken

    assert benchmark(steps) == BATCH


def test_report_decode_of_100_reports(benchmark: BenchmarkFixture) -> None:
    text = b"127.0.0.1 accepted message.\nRemote host said: 250 2.0.0 taken\n"
    packet = b"".join(
        render_report(
            Report(delid=DelId(n), letter=Letter.SUCCESS, text=text, cause=Cause.NORMAL)
        )
        for n in range(BATCH)
    )

    def decode() -> Sequence[Report]:
        return [parse_report(body) for _kind, body in frames.split(packet)]

    assert len(benchmark(decode)) == BATCH


def test_smtp_client_transaction(benchmark: BenchmarkFixture) -> None:
    """One message on a session that is up, pipelined."""
    client = Client(HOST, b"me.example")
    client.receive(Reply(220, b"220 sink\n"))
    client.receive(Reply(250, b"250-sink\n250-PIPELINING\n250 8BITMIME\n"))
    envelope = Envelope(sender=b"a@b", recips=[RECIP], size=2048, eight_bit=False)

    def transaction() -> int:
        reader = ReplyReader()
        client.begin(envelope)
        reader.feed(REPLIES)
        replies = list(iter(reader.take, None))
        for reply in replies[:3]:
            client.receive(reply)
        client.sent()
        client.receive(replies[3])
        return len(replies)

    assert benchmark(transaction) == 4


def test_log_lines_of_a_delivery(benchmark: BenchmarkFixture) -> None:
    number, messid = DelId(17), MessId(123456)

    def lines() -> bytes:
        return (
            logline.new_msg(messid)
            + logline.info_msg(messid, 2048, b"me@x.example", 17, 0)
            + logline.starting(number, messid, Channel.REMOTE, RECIP)
            + logline.delivery(number, Letter.SUCCESS, b"accepted_message./")
            + logline.end_msg(messid)
        )

    assert benchmark(lines).count(b"\n") == 5
