"""What Dns remembers, and for how long."""

from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from qsend.core.errors import PermFail
from qsend.sysio.dns import Dns
from tests.dnsresponder import Reply, responder, run, silent, with_address, with_rcode
from tests.dnsserver import DnsServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("reply", "ttl_s"),
    [
        (with_address(60), 60),
        (with_address(10**6), 900),
        (with_rcode(dns.rcode.SERVFAIL), 20),
    ],
)
def test_answers_are_kept_for_their_time(reply: Reply, ttl_s: int) -> None:
    async def main() -> None:
        clock = Clock()
        async with responder(reply) as server:
            finder = Dns((server.resolver,), mono=clock)
            await asyncio.gather(finder.hosts(b"h.example"), return_exceptions=True)
            first = server.asked
            clock.now += ttl_s - 1
            await asyncio.gather(finder.hosts(b"H.example."), return_exceptions=True)
            assert server.asked == first
            clock.now += 1
            await asyncio.gather(finder.hosts(b"h.example"), return_exceptions=True)
            assert server.asked > first

    run(main())


def test_answer_with_ttl_zero_is_not_kept() -> None:
    async def main() -> None:
        async with responder(with_address(0)) as server:
            finder = Dns((server.resolver,))
            for _ in range(2):
                await finder.hosts(b"h.example")
            assert server.asked == 6

    run(main())


def test_equal_questions_share_one_query() -> None:
    async def main() -> None:
        async with responder(with_address(60)) as server:
            finder = Dns((server.resolver,))
            found = await asyncio.gather(
                *(finder.hosts(b"h.example") for _ in range(50))
            )
            assert {hosts[0].address for hosts in found} == {"127.0.0.6"}
            assert server.asked == 3  # MX, A, AAAA

    run(main())


def test_without_ipv6_only_a_name_without_ipv4_is_asked_for_it() -> None:
    async def main() -> None:
        async with responder(with_address(60)) as server:
            finder = Dns((server.resolver,), ipv6=lambda: False)
            [host] = await finder.hosts(b"h.example")
            assert host.address == "127.0.0.6"
            assert server.asked == 2  # MX, A
        async with responder(with_rcode(dns.rcode.NXDOMAIN)) as server:
            finder = Dns((server.resolver,), ipv6=lambda: False)
            with pytest.raises(PermFail):
                await finder.relay_hosts(b"h.example")
            assert server.asked == 2  # A, AAAA

    run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_waiter_may_give_up(loop: str) -> None:
    async def main() -> None:
        async with responder(with_address(60)) as server:
            finder = Dns((server.resolver,))
            impatient = asyncio.create_task(finder.hosts(b"h.example"))
            patient = asyncio.create_task(finder.hosts(b"h.example"))
            await asyncio.sleep(0)
            impatient.cancel()
            assert (await patient)[0].address == "127.0.0.6"
            with pytest.raises(asyncio.CancelledError):
                await impatient

    run(main(), loop)


def test_close_ends_questions_under_way() -> None:
    async def main() -> None:
        async with responder(silent) as server:
            finder = Dns((server.resolver,), tries_s=(60.0,))
            waiting = asyncio.create_task(finder.hosts(b"h.example"))
            while not server.asked:
                await asyncio.sleep(0.001)
            await finder.close()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(main(), "uvloop")


def test_set_resolvers_forgets_the_old_answers(dns_server: DnsServer) -> None:
    async def main() -> list[str]:
        async with responder(with_address(60)) as server:
            finder = Dns((server.resolver,))
            before = await finder.hosts(b"plain.example")
            finder.set_resolvers((dns_server.resolver,))
            after = await finder.hosts(b"plain.example")
        return [before[0].address, after[0].address]

    assert run(main()) == ["127.0.0.6", "127.0.0.5"]


def test_alias_to_nothing_is_kept_as_long_as_its_zone_says() -> None:
    def dangling(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        name = query.question[0].name
        response.answer = [dns.rrset.from_text(name, 300, "IN", "CNAME", "g.example.")]
        soa = "ns.example. root.example. 1 3600 600 86400 60"
        response.authority = [dns.rrset.from_text("example.", 300, "IN", "SOA", soa)]
        return response.to_wire()

    async def main() -> None:
        async with responder(dangling) as server:
            finder = Dns((server.resolver,))
            for _ in range(2):
                with pytest.raises(PermFail, match=r"5\.1\.2"):
                    await finder.hosts(b"h.example")
            assert server.asked == 3  # MX, A, AAAA

    run(main())
