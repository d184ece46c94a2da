"""Scripted name servers, for what a real one would never say; and a loop to run in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import uvloop

from qsend.formats.control import Resolver

T = TypeVar("T")
Reply = Callable[[dns.message.Message], bytes | None]


def run(main: Coroutine[None, None, T], loop: str = "asyncio") -> T:
    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory, debug=False) as runner:
        return runner.run(main)


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


def with_text(text: str) -> Reply:
    """A TXT record that is good for a minute."""

    def reply(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        name = query.question[0].name
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", text))
        return response.to_wire()

    return reply


def referral(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.flags &= ~dns.flags.RA
    response.authority.append(
        dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example.")
    )
    return response.to_wire()
