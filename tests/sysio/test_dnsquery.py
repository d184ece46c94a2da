"""Servers that are dead, broken, forged or slow; and resolv.conf."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from qsend.core.errors import TempFail
from qsend.core.mx import ADDRESSES_MAX
from qsend.formats.control import Resolver
from qsend.sysio.dns import Dns
from qsend.sysio.dnsquery import system_resolvers
from tests.dnsresponder import (
    Reply,
    referral,
    responder,
    run,
    silent,
    with_address,
    with_rcode,
)
from tests.dnsserver import DnsServer

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

    assert len(ask_scripted(reply, PATIENT)) == ADDRESSES_MAX


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


def test_answer_counts_whatever_the_other_sections_hold() -> None:
    def with_broken_rest(query: dns.message.Message) -> bytes | None:
        wire = with_address(60)(query)
        assert wire is not None
        if query.question[0].rdtype != dns.rdatatype.A:
            return wire
        return wire[:8] + b"\0\1\0\1" + wire[12:] + b"\xff"  # records that are none

    assert ask_scripted(with_broken_rest, PATIENT) == ["127.0.0.6"]


def test_answer_may_spell_the_name_in_its_own_way() -> None:
    def in_capitals(query: dns.message.Message) -> bytes | None:
        asked = query.question[0]
        other = dns.message.make_query("H.EXAMPLE.", asked.rdtype, id=query.id)
        return with_address(60)(other)

    assert ask_scripted(in_capitals, PATIENT) == ["127.0.0.6"]


def test_answer_about_another_name_is_passed_over() -> None:
    def about_another(query: dns.message.Message) -> bytes | None:
        asked = query.question[0]
        other = dns.message.make_query("g.example.", asked.rdtype, id=query.id)
        return with_address(60)(other)

    with pytest.raises(TempFail, match="timed out"):
        ask_scripted(about_another)
