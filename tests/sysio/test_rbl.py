"""Block lists asked for real: rbldnsd answers, and rblsmtpd judges the same."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dns.message
import pytest

from qsend.core.rbl import Action, Judgement, Source
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import Controls, Resolver
from qsend.sysio.dns import Dns
from qsend.sysio.rbl import DEAD_S, FAILURES_MAX, BlockLists
from tests.dnsresponder import responder, run, silent, with_address, with_text
from tests.rblserver import running_rbldnsd

FLAGS = {"-r": "defer {}", "-b -r": "reject {}", "-a": "allow {}"}
REASON = b"Blocked, see http://bl.example/192.0.2.1"


@pytest.fixture(scope="module")
def server() -> Iterator[Resolver]:
    with running_rbldnsd() as resolver:
        yield resolver


def sources(text: str) -> tuple[Source, ...]:
    return parse_access({"rbl": text.encode()}, Controls()).rbl


def judge(
    server: Resolver, address: str, text: str, loop: str = "asyncio"
) -> Judgement:
    async def main() -> Judgement:
        dns = Dns((server,))
        judgement = await BlockLists(dns, sources(text)).judge(address)
        await dns.close()
        return judgement

    return run(main(), loop)


def rblsmtpd(server: Resolver, address: str, flags: Sequence[str]) -> bytes | None:
    """The answer to RCPT, or None where the program is run."""
    done = subprocess.run(
        ["/usr/bin/rblsmtpd", *flags, "/bin/echo", "passed"],
        input=b"mail x\r\nrcpt x\r\nquit\r\n",
        env={"DNSCACHEIP": server.host, "TCPREMOTEIP": address},
        capture_output=True,
        timeout=60,
        check=True,
    )
    if done.stdout == b"passed\n":
        return None
    reply = done.stdout.split(b"\r\n")[2]
    assert done.stderr.endswith(b": " + reply + b"\n")
    return reply


CHAINS = [
    ["-r bl.example"],
    ["-b -r bl.example"],
    ["-a wl.example", "-r bl.example"],
    ["-r bl.example", "-a wl.example"],
    ["-a bl.example", "-b -r bl.example"],
]


@pytest.mark.root
@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
def test_judgement_is_that_of_rblsmtpd(server: Resolver, chain: list[str]) -> None:
    flags = " ".join(chain).split()
    text = ""
    for each in chain:
        option, _, zone = each.rpartition(" ")
        text += FLAGS[option].format(zone) + "\n"
    for last in (1, 2, 3, 5, 9):
        address = f"192.0.2.{last}"
        want = rblsmtpd(server, address, flags)
        judgement = judge(server, address, text)
        assert judgement.is_blocked == (want is not None), address
        if want is not None:
            assert judgement.reply == want


FAILING = [
    ("-r no.example -b -r bl.example", "defer no.example\nreject bl.example"),
    ("-c -r no.example -r bl.example", "defer no.example closed"),
    ("-a no.example -r bl.example", "allow no.example\ndefer bl.example"),
    (
        "-c -a no.example -b -r bl.example",
        "allow no.example closed\nreject bl.example closed",
    ),
]


@pytest.mark.root
@pytest.mark.slow
def test_list_that_fails_is_judged_as_by_rblsmtpd(server: Resolver) -> None:
    def ask(flags: str) -> bytes | None:
        return rblsmtpd(server, "192.0.2.1", flags.split())

    # rblsmtpd asks a server that refuses again and again, for eleven seconds.
    with ThreadPoolExecutor(len(FAILING)) as pool:
        wanted = list(pool.map(ask, [flags for flags, _ in FAILING]))
    for (_, text), want in zip(FAILING, wanted, strict=True):
        judgement = judge(server, "192.0.2.1", text)
        assert (judgement.reply if judgement.is_blocked else None) == want, text


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("address", "text", "want"),
    [
        ("192.0.2.1", "", None),
        ("192.0.2.1", "defer bl.example", b"451 " + REASON),
        ("192.0.2.1", "reject bl.example=127.0.0.2-9", b"553 " + REASON),
        ("192.0.2.1", "reject bl.example=127.0.0.3", None),
        ("192.0.2.2", "reject bl.example=127.0.0.3", b"553 other text"),
        ("192.0.2.1", "defer bl.example Go away, %IP%", b"451 Go away, 192.0.2.1"),
        ("192.0.2.3", "defer bl.example=127.0.0.4", b"451 listed by bl.example"),
        ("192.0.2.4", "defer bl.example=127.0.0.2-10", None),
        ("192.0.2.9", "defer bl.example gone", None),
        ("192.0.2.1", "log bl.example", None),
        ("192.0.2.1", "log bl.example\nreject bl.example", b"553 " + REASON),
        ("2001:db8::7", "defer six.example", b"451 six"),
        ("2001:db9::7", "defer six.example", None),
        ("192.0.2.1", "defer no.example closed", b"451 temporary RBL lookup error"),
        ("192.0.2.1", "defer no.example", None),
    ],
)
def test_lists(
    server: Resolver, address: str, text: str, want: bytes | None, loop: str
) -> None:
    judgement = judge(server, address, text, loop)
    assert (judgement.reply if judgement.is_blocked else None) == want


def test_override_asks_nobody() -> None:
    async def main() -> None:
        async with responder(silent) as server:
            lists = BlockLists(Dns((server.resolver,)), sources("reject bl.example"))
            passed = await lists.judge("192.0.2.1", {b"RBLSMTPD": b""})
            assert not passed.is_blocked
            blocked = await lists.judge("192.0.2.1", {b"RBLSMTPD": b"-no"})
            assert blocked.reply == b"553 no"
            assert server.asked == 0

    run(main())


def test_answers_are_remembered() -> None:
    async def main() -> None:
        async with responder(with_text("why")) as server:
            lists = BlockLists(Dns((server.resolver,)), sources("reject bl.example"))
            for _ in range(3):
                judgement = await lists.judge("192.0.2.1")
                assert judgement.reply == b"553 why"
            assert server.asked == 1

    run(main())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_silent_list_costs_the_deadline_and_is_then_taken_for_dead() -> None:
    names: list[str] = []

    def silent_but_noting(query: dns.message.Message) -> None:
        names.append(str(query.question[0].name).partition(".")[0])

    async def main() -> None:
        clock = Clock()
        async with responder(silent_but_noting) as server:
            finder = Dns((server.resolver,))
            lists = BlockLists(finder, sources("defer s.example closed"), 0.05, clock)
            for number in range(FAILURES_MAX):
                judgement = await lists.judge(f"192.0.2.{number}")
                assert judgement.reply == b"451 temporary RBL lookup error"
                assert judgement.notes == (b"s.example did not answer",)
            judgement = await lists.judge("192.0.2.77")
            assert judgement.reply == b"451 temporary RBL lookup error"
            clock.now += DEAD_S
            await lists.judge("192.0.2.78")
            async with asyncio.timeout(20):
                while "78" not in names:
                    await asyncio.sleep(0.01)
            assert "77" not in names
            await finder.close()

    run(main())


def test_what_decides_is_enough() -> None:
    def only_allows(query: dns.message.Message) -> bytes | None:
        is_asked = "wl.example" in str(query.question[0].name)
        return with_address(60)(query) if is_asked else None

    async def main() -> None:
        async with responder(only_allows) as server:
            finder = Dns((server.resolver,))
            chain = sources("allow wl.example\nreject bl.example closed")
            async with asyncio.timeout(20):
                judgement = await BlockLists(finder, chain, 60).judge("192.0.2.2")
            assert judgement.action is Action.PASS
            assert judgement.zone == b"wl.example"
            await finder.close()
            assert len(asyncio.all_tasks()) == 1

    run(main())


def test_client_that_leaves_cancels_its_questions() -> None:
    async def main() -> None:
        async with responder(silent) as server:
            dns = Dns((server.resolver,))
            lists = BlockLists(dns, sources("defer s.example\ndefer t.example"), 20)
            task = asyncio.create_task(lists.judge("192.0.2.1"))
            while server.asked < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await dns.close()
            assert task.cancelled()
            assert len(asyncio.all_tasks()) == 1

    run(main())


def test_new_lists_are_in_force_at_once(server: Resolver) -> None:
    async def main() -> None:
        dns = Dns((server,))
        lists = BlockLists(dns)
        assert not (await lists.judge("192.0.2.1")).is_blocked
        lists.configure(sources("reject bl.example"), 10)
        assert (await lists.judge("192.0.2.1")).is_blocked
        await dns.close()

    run(main())
