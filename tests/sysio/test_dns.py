"""Hosts of a domain, against a real name server and scripted broken ones."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import uvloop

from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.mx import ADDRESSES_MAX, MX_MAX
from qsend.formats.control import Resolver
from qsend.sysio.dns import Dns, has_route
from qsend.sysio.dnsquery import system_resolvers
from tests.dnsserver import DnsServer

T = TypeVar("T")
OWN = frozenset({"127.0.0.1", "0.0.0.0", "::"})
Reply = Callable[[dns.message.Message], bytes | None]


def run(main: Coroutine[None, None, T], loop: str = "asyncio") -> T:
    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory, debug=False) as runner:
        return runner.run(main)


def find(
    server: DnsServer, domain: bytes, own: frozenset[str] = OWN, loop: str = "asyncio"
) -> list[tuple[str, int]]:
    async def main() -> list[tuple[str, int]]:
        finder = Dns((server.resolver,), chance=iter(range(10**6)).__next__)
        try:
            hosts = await finder.hosts(domain, own)
        finally:
            await finder.close()
        return [(host.address, host.preference) for host in hosts]

    return run(main(), loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("domain", "want"),
    [
        (b"one.example", [("127.0.0.2", 10)]),
        (b"ONE.Example.", [("127.0.0.2", 10)]),
        (b"two.example", [("127.0.0.2", 10), ("127.0.0.3", 20), ("127.0.0.33", 20)]),
        (b"alias2.example", [("127.0.0.2", 10), ("127.0.0.3", 20), ("127.0.0.33", 20)]),
        (b"threeme.example", [("127.0.0.2", 10)]),
        (b"plain.example", [("127.0.0.5", 0)]),
        (b"hostalias.example", [("127.0.0.5", 0)]),
        (b"mxalias.example", [("127.0.0.5", 10)]),
        (b"notnull.example", [("127.0.0.2", 10)]),
        (b"v6.example", [("::1", 10)]),
        (b"v46.example", [("127.0.0.4", 10), ("::1", 10)]),
        (b"mapped.example", [("127.0.0.9", 0)]),
        (b"partial.example", [("127.0.0.2", 20)]),
        (b"softpart.example", [("127.0.0.2", 20)]),
        (b"numeric.example", [("127.0.0.7", 10)]),
        (b"127.0.0.8", [("127.0.0.8", 0)]),
        (b"[127.0.0.8]", [("127.0.0.8", 0)]),
        (b"[IPv6:::1]", [("::1", 0)]),
    ],
)
def test_hosts_of_a_domain(
    dns_server: DnsServer, domain: bytes, want: list[tuple[str, int]], loop: str
) -> None:
    found = find(dns_server, domain, loop=loop)
    assert sorted(found, key=lambda host: host[1]) == found
    assert sorted(found) == sorted(want)


def test_hosts_put_ipv4_before_ipv6(dns_server: DnsServer) -> None:
    assert find(dns_server, b"v46.example") == [("127.0.0.4", 10), ("::1", 10)]


def test_hosts_of_equal_preference_follow_chance(dns_server: DnsServer) -> None:
    async def first(chance: Callable[[], float]) -> str:
        finder = Dns((dns_server.resolver,), chance=chance)
        hosts = await finder.hosts(b"equal.example")
        assert {host.preference for host in hosts} == {10}
        assert len(hosts) == 3
        return hosts[0].name.decode()

    up = run(first(iter((1, 2)).__next__))
    down = run(first(iter((2, 1)).__next__))
    assert {up, down} == {"mx2.example", "mx3.example"}


@pytest.mark.parametrize(
    ("domain", "error", "code"),
    [
        (b"me.example", PermFail, "#5.4.6"),
        (b"127.0.0.1", PermFail, "#5.4.6"),
        (b"[0.0.0.0]", PermFail, "#5.4.6"),
        (b"[IPv6:::ffff:127.0.0.1]", PermFail, "#5.4.6"),
        (b"localhost", PermFail, "#5.4.6"),
        (b"null.example", PermFail, "#5.1.10"),
        (b"missing.example", PermFail, "#5.4.4"),
        (b"nxdomain.example", PermFail, "#5.1.2"),
        (b"nodata.example", PermFail, "#5.1.2"),
        (b"dangling.example", PermFail, "#5.1.2"),
        (b"outside.example", PermFail, "#5.1.2"),
        (b"", PermFail, "#5.1.2"),
        (b".", PermFail, "#5.1.2"),
        (b"a..b", PermFail, "#5.1.2"),
        (b"x" * 64 + b".example", PermFail, "#5.1.2"),
        (b"x." * 200, PermFail, "#5.1.2"),
        (b"b\xc3\xa9 \n.example", PermFail, "#5.1.2"),
        (b"softmx.example", TempFail, "#4.1.2"),
        (b"broken.example", TempFail, "#4.1.2"),
        (b"not.served.invalid", TempFail, "#4.1.2"),
        (b"loop1.example", TempFail, "#4.1.2"),
    ],
)
def test_hosts_that_cannot_be_found(
    dns_server: DnsServer, domain: bytes, error: type[QsendError], code: str
) -> None:
    with pytest.raises(error) as caught:
        find(dns_server, domain)
    text = str(caught.value)
    assert text.endswith(f"({code})")
    assert all(33 <= ord(char) <= 126 or char == " " for char in text)


def test_hosts_without_ipv6_route(dns_server: DnsServer) -> None:
    async def look(domain: bytes) -> list[str]:
        finder = Dns(
            (dns_server.resolver,), reachable=lambda address: ":" not in address
        )
        return [host.address for host in await finder.hosts(domain)]

    assert run(look(b"v46.example")) == ["127.0.0.4"]
    with pytest.raises(TempFail, match=r"\(#4\.4\.1\)$"):
        run(look(b"onlyfar6.example"))


def test_has_route_knows_loopback_and_refuses_the_unroutable() -> None:
    assert has_route("127.0.0.1")
    assert has_route("::1")
    assert not has_route("fe80::1")  # link-local without a scope goes nowhere


def test_truncated_answer_comes_over_tcp_and_is_bounded(dns_server: DnsServer) -> None:
    found = find(dns_server, b"many.example")
    assert found == [(f"127.0.1.{n}", n) for n in range(1, MX_MAX + 1)]


@pytest.mark.parametrize(
    ("relay", "want"),
    [
        (b"mx3.example", {"127.0.0.3", "127.0.0.33"}),
        (b"mx1.example", {"127.0.0.1"}),
        (b"127.0.0.1", {"127.0.0.1"}),
        (b"[127.0.0.1]", {"127.0.0.1"}),
        (b"::1", {"::1"}),
        (b"[IPv6:::1]", {"::1"}),
        (b"localhost", {"127.0.0.1", "::1"}),
    ],
)
def test_relay_hosts_have_no_mx(
    dns_server: DnsServer, relay: bytes, want: set[str]
) -> None:
    async def look() -> set[str]:
        hosts = await Dns((dns_server.resolver,)).relay_hosts(relay)
        assert {host.preference for host in hosts} == {0}
        return {host.address for host in hosts}

    assert run(look()) == want


@pytest.mark.parametrize(
    ("relay", "error", "code"),
    [
        (b"one.example", PermFail, "#5.1.2"),
        (b"nowhere.example", PermFail, "#5.1.2"),
        (b"host.broken.example", TempFail, "#4.1.2"),
    ],
)
def test_relay_that_cannot_be_found(
    dns_server: DnsServer, relay: bytes, error: type[QsendError], code: str
) -> None:
    with pytest.raises(error, match=code):
        run(Dns((dns_server.resolver,)).relay_hosts(relay))


# Scripted servers: what nsd would never say.


class Responder:
    """Answers each datagram as its script says and counts the questions."""

    def __init__(self, sock: socket.socket, reply: Reply) -> None:
        self.sock = sock
        self.reply = reply
        self.asked = 0
        host, port = sock.getsockname()
        self.resolver = Resolver(host=host, port=port)

    def ready(self) -> None:
        data, self.peer = self.sock.recvfrom(65535)
        self.asked += 1
        answer = self.reply(dns.message.from_wire(data))
        if answer is not None:
            self.sock.sendto(answer, self.peer)


@asynccontextmanager
async def responder(
    reply: Reply, address: tuple[str, int] = ("127.0.0.1", 0)
) -> AsyncIterator[Responder]:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        server = Responder(sock, reply)
        loop.add_reader(sock, server.ready)
        try:
            yield server
        finally:
            loop.remove_reader(sock)


def silent(_query: dns.message.Message) -> bytes | None:
    return None


def with_rcode(rcode: dns.rcode.Rcode) -> Reply:
    def reply(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        return response.to_wire()

    return reply


def with_address(ttl: int, address: str = "127.0.0.6") -> Reply:
    """A host without MX: its A record, and NODATA (with SOA) for the rest."""

    def reply(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        name = query.question[0].name
        if query.question[0].rdtype == 1:
            response.answer.append(dns.rrset.from_text(name, ttl, "IN", "A", address))
        else:
            soa = "ns. root. 1 2 3 4 1000000"
            response.authority.append(
                dns.rrset.from_text("example.", ttl, "IN", "SOA", soa)
            )
        return response.to_wire()

    return reply


def referral(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.flags &= ~dns.flags.RA
    response.authority.append(
        dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example.")
    )
    return response.to_wire()


FAST = (0.05, 0.05)
PATIENT = (0.1, 5.0)  # a loaded machine may need the second round


def ask_scripted(reply: Reply, tries_s: tuple[float, ...] = FAST) -> list[str]:
    async def main() -> list[str]:
        async with responder(reply) as server:
            finder = Dns((server.resolver,), tries_s=tries_s)
            return [host.address for host in await finder.hosts(b"h.example")]

    return run(main(), "uvloop")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (silent, "timed out"),
        (with_rcode(dns.rcode.SERVFAIL), "SERVFAIL"),
        (with_rcode(dns.rcode.REFUSED), "REFUSED"),
        (with_rcode(dns.rcode.NOTIMP), "NOTIMP"),
        (with_rcode(dns.rcode.FORMERR), "FORMERR"),
        (referral, "refers"),
        (lambda query: b"", "timed out"),
        (lambda query: b"\xff" * 100, "timed out"),
        (lambda query: query.to_wire(), "timed out"),
        (
            lambda query: with_address(60)(dns.message.make_query("x.", "A")),
            "timed out",
        ),
    ],
)
def test_server_trouble_is_temporary(reply: Reply, reason: str) -> None:
    with pytest.raises(TempFail, match=rf"{reason}.*\(#4\.1\.2\)$"):
        ask_scripted(reply)


def test_lost_datagram_is_asked_again() -> None:
    seen = []

    def second_time(query: dns.message.Message) -> bytes | None:
        key = query.question[0].rdtype
        seen.append(key)
        return with_address(60)(query) if seen.count(key) > 1 else None

    assert ask_scripted(second_time, PATIENT) == ["127.0.0.6"]


def test_forged_answer_is_passed_over() -> None:
    async def main() -> list[str]:
        async with responder(silent) as server:

            def forge_then_answer(query: dns.message.Message) -> bytes | None:
                other = dns.message.make_query("h.example.", query.question[0].rdtype)
                other.id = query.id ^ 1
                forged = with_address(60, "127.6.6.6")(other)
                assert forged is not None
                server.sock.sendto(forged, server.peer)
                return with_address(60)(query)

            server.reply = forge_then_answer
            finder = Dns((server.resolver,), tries_s=PATIENT)
            return [host.address for host in await finder.hosts(b"h.example")]

    assert run(main()) == ["127.0.0.6"]


@contextmanager
def closed_port() -> Iterator[Resolver]:
    """An address where nobody listens, kept so by holding it for TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield Resolver(host="127.0.0.1", port=sock.getsockname()[1])


def test_dead_resolver_is_temporary_at_once() -> None:
    with closed_port() as dead:

        async def main() -> None:
            await Dns((dead,), tries_s=(60.0,)).hosts(b"one.example")

        with pytest.raises(TempFail, match="refused"):
            run(main(), "uvloop")


def test_lifetime_bounds_many_silent_servers() -> None:
    async def main() -> None:
        async with responder(silent) as server:
            finder = Dns([server.resolver] * 10, tries_s=(60.0,), lifetime_s=0.1)
            await finder.hosts(b"one.example")

    with pytest.raises(TempFail, match="timed out"):
        run(main())


def test_second_resolver_answers_and_is_asked_first_from_then(
    dns_server: DnsServer,
) -> None:
    async def main() -> None:
        async with responder(silent) as dead:
            finder = Dns((dead.resolver, dns_server.resolver), tries_s=PATIENT)
            assert await finder.hosts(b"one.example")
            before = dead.asked
            assert before > 0
            assert await finder.hosts(b"two.example")
            assert dead.asked == before

    run(main())


def test_second_resolver_is_asked_after_servfail(dns_server: DnsServer) -> None:
    async def main() -> None:
        async with responder(with_rcode(dns.rcode.SERVFAIL)) as bad:
            finder = Dns((bad.resolver, dns_server.resolver))
            assert await finder.hosts(b"one.example")

    run(main())


# The cache.


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


def test_many_questions_wait_for_their_turn(dns_server: DnsServer) -> None:
    async def main() -> int:
        finder = Dns((dns_server.resolver,))
        results = await asyncio.gather(
            *(finder.hosts(b"n%d.example" % n) for n in range(600)),
            return_exceptions=True,
        )
        return sum(isinstance(result, PermFail) for result in results)

    assert run(main(), "uvloop") == 600


def test_resolver_must_be_an_address() -> None:
    with pytest.raises(ValueError, match=r"ns\.example"):
        Dns((Resolver(host="ns.example"),))


def test_address_count_is_bounded() -> None:
    def reply(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        name, rdtype = query.question[0].name, query.question[0].rdtype
        if rdtype != dns.rdatatype.MX:
            prefix = "127.1.0." if rdtype == dns.rdatatype.A else "::ffff:127.2.0."
            texts = [f"{prefix}{n}" for n in range(100)]
            response.answer.append(dns.rrset.from_text(name, 60, "IN", rdtype, *texts))
        return response.to_wire(max_size=4096)

    assert len(ask_scripted(reply)) == ADDRESSES_MAX


@pytest.mark.parametrize(
    ("cut", "reason"), [(1, "cut"), (40, "cut"), (None, "malformed")]
)
def test_tcp_answer_that_is_cut_or_wrong_is_temporary(
    cut: int | None, reason: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        query = await reader.readexactly(length)
        writer.write((struct.pack("!H", 500) + query + b"\xff" * 500)[: cut or 502])
        writer.close()
        await writer.wait_closed()

    def truncated(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response.to_wire()

    async def main() -> None:
        # An address of its own, so that both ports of one number are free.
        host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
        async with await asyncio.start_server(serve, host, 0) as tcp:
            address = tcp.sockets[0].getsockname()
            async with responder(truncated, address) as server:
                await Dns((server.resolver,), tries_s=(1.0,)).hosts(b"h.example")

    with pytest.raises(TempFail, match=reason):
        run(main())


@pytest.mark.parametrize(
    ("content", "want"),
    [
        ("nameserver 192.0.2.53\n", [("192.0.2.53", 53)]),
        (
            "search x\n nameserver\t::1 # c\n;nameserver 1.1.1.1\nnameserver no.name\n",
            [("::1", 53)],
        ),
        ("options a\n", [("127.0.0.1", 53)]),
        (None, [("127.0.0.1", 53)]),
    ],
)
def test_system_resolvers(
    tmp_path: Path, content: str | None, want: list[tuple[str, int]]
) -> None:
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_text(content)
    found = [(entry.host, entry.port) for entry in system_resolvers(str(path))]
    assert found == want


IN_EMPTY_ROOT = """
import os, sys, uvloop, asyncio
from qsend.core.errors import QsendError
from qsend.formats.control import Resolver
from qsend.sysio.dns import Dns

dns = Dns((Resolver(host="127.0.0.1", port=int(sys.argv[1])),))
os.chroot(sys.argv[2])
os.chdir("/")
os.setresuid(65534, 65534, 65534)
loaded = set(sys.modules)

async def main():
    for name in sys.argv[3:]:
        try:
            hosts = await dns.hosts(name.encode())
            print(name, *(host.address for host in hosts))
        except QsendError as exc:
            print(name, str(exc)[-8:])
    await dns.close()

uvloop.run(main())
print(sorted(set(sys.modules) - loaded))
"""


@pytest.mark.root
def test_nothing_is_loaded_once_privilege_is_gone(
    dns_server: DnsServer, tmp_path: Path
) -> None:
    domains = ("two", "v6", "alias2", "many", "nowhere", "nodata", "softmx", "loop1")
    names = [f"{domain}.example" for domain in domains]
    script = [sys.executable, "-c", IN_EMPTY_ROOT]
    out = subprocess.run(
        [*script, str(dns_server.port), str(tmp_path), *names],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ).stdout.splitlines()
    assert out[-1] == "[]"
    assert out[0] == "two.example 127.0.0.2 127.0.0.3 127.0.0.33"
    assert out[1] == "v6.example ::1"
    assert out[3].startswith("many.example 127.0.1.1 127.0.1.2 ")
    assert [line[-8:] for line in out[4:8]] == [
        "(#5.1.2)",
        "(#5.1.2)",
        "(#4.1.2)",
        "(#4.1.2)",
    ]
