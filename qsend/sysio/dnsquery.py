"""One question to the DNS: servers, retries, UDP and TCP, and what the answer says.

Every type this module can meet in an answer we ask for is imported here, so that
nothing is loaded from disk once a process has given up its privilege; an unknown
type in another section is then read as opaque bytes by dnspython.
Must not cache: sysio/dns.py does.
Source: RFC 1035 sections 4 and 7, RFC 2308, resolver(5), dns.c resolve().
"""

from __future__ import annotations

import asyncio
import encodings.idna
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.DNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rrset

from qsend.core.mx import canonical
from qsend.formats.control import Resolver
from qsend.formats.dnsquestion import (
    answers_alone,
    has_number_of,
    render_question,
    repeats,
)

_PRELOADED = (encodings.idna, dns.rdtypes.ANY.OPT, dns.rdtypes.ANY.DNAME)

RESOLV_CONF = "/etc/resolv.conf"
RESOLV_CONF_MAX = 65536
TRIES_S = (2.0, 3.0, 5.0)
"""How long each server may take in each round over all servers; a lost datagram
or two do no harm, and libc waits about as long in all."""
LIFETIME_S = 30.0
"""Longest time for one question, however many servers there are."""

_DATAGRAM_MAX = 65535

_BACKEND = dns.asyncbackend.get_backend("asyncio")


class Outcome(Enum):
    """What is known after one question."""

    FOUND = "found"
    NO_NAME = "no such name"
    NO_DATA = "no such record"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one question.

    `mx` holds (preference, target without final dot; b"" for the root) after an
    MX question, `addresses` canonical text after one for A or AAAA, `texts` one
    text for each TXT record, `names` those of PTR records without final dot; all in
    answer order and empty unless FOUND. `ttl_s` says how long the answer is good;
    `reason` says in words what the TROUBLE was.
    """

    outcome: Outcome
    mx: tuple[tuple[int, bytes], ...] = ()
    addresses: tuple[str, ...] = ()
    texts: tuple[bytes, ...] = ()
    names: tuple[bytes, ...] = ()
    ttl_s: int = 0
    reason: str = ""


def trouble(reason: str) -> Answer:
    """An answer that says nothing about the name; asking later may help."""
    return Answer(outcome=Outcome.TROUBLE, reason=reason)


def system_resolvers(path: str = RESOLV_CONF) -> tuple[Resolver, ...]:
    """The servers that resolv.conf names; 127.0.0.1 when it names none.

    A missing or unreadable file counts as empty, as it does for libc.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(RESOLV_CONF_MAX)
    except OSError:
        content = b""
    found = []
    for line in content.split(b"\n"):
        words = line.split()
        if len(words) > 1 and words[0] == b"nameserver":
            try:
                found.append(Resolver(host=canonical(words[1].decode())))
            except ValueError:
                continue  # libc skips what is no address, too
    return tuple(found) or (Resolver(host="127.0.0.1"),)


class Querier:
    """Asks a list of servers, the one that answered last first."""

    def __init__(
        self,
        resolvers: Sequence[Resolver],
        tries_s: Sequence[float] = TRIES_S,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        """`resolvers` holds at least one; each host is an IP address.

        Raises: ValueError on a resolver whose host is no address.
        """
        self._servers = tuple(map(_server, resolvers))
        self._tries_s = tuple(tries_s)
        self._lifetime_s = lifetime_s
        self._first = 0

    async def ask(self, name: bytes, rdtype: dns.rdatatype.RdataType) -> Answer:
        """The answer about one name, in at most the lifetime.

        Args:
            name: labels joined by dots, with or without the final one, raw bytes.
            rdtype: MX, A, AAAA or TXT.
        Raises: nothing; every failure is an Answer.
        """
        question = render_question(secrets.randbits(16), name, rdtype)
        if question is None:
            return Answer(outcome=Outcome.NO_NAME)
        loop = asyncio.get_running_loop()
        end_mono = loop.time() + self._lifetime_s
        count = len(self._servers)
        order = [(self._first + step) % count for step in range(count)]
        answer = trouble("no server")
        for wait_s in self._tries_s:
            for index in tuple(order):
                left_s = min(wait_s, end_mono - loop.time())
                if left_s <= 0:
                    return trouble("timed out")
                try:
                    answer = await _exchange(self._servers[index], question, left_s)
                except TimeoutError:
                    answer = trouble("timed out")
                    continue
                except OSError as exc:
                    answer = trouble((exc.strerror or "network error").lower())
                    continue
                if answer.outcome is not Outcome.TROUBLE:
                    self._first = index
                    return answer
                order.remove(index)  # it has spoken; asking again would not help
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """A resolver, and how the socket module wants it."""

    resolver: Resolver
    family: int
    address: Any


def _server(resolver: Resolver) -> _Server:
    host = canonical(resolver.host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = dns.inet.low_level_address_tuple((host, resolver.port), family)
    resolver = Resolver(host=host, port=resolver.port)
    return _Server(resolver=resolver, family=family, address=address)


async def _exchange(server: _Server, question: bytes, wait_s: float) -> Answer:
    """What one server's reply says, over TCP when the datagram was cut.

    Raises: TimeoutError, OSError.
    """
    loop = asyncio.get_running_loop()
    end_mono = loop.time() + wait_s
    answer = await _over_udp(server, question, wait_s)
    if answer is not None:
        return answer
    request, resolver = dns.message.from_wire(question), server.resolver
    try:
        async with asyncio.timeout_at(end_mono):
            reply = await dns.asyncquery.tcp(
                request, resolver.host, port=resolver.port, backend=_BACKEND
            )
    except EOFError as exc:
        raise ConnectionAbortedError(0, "answer over TCP was cut") from exc
    except dns.exception.DNSException as exc:
        raise ConnectionAbortedError(0, "malformed answer over TCP") from exc
    return read_reply(reply)


async def _over_udp(server: _Server, question: bytes, wait_s: float) -> Answer | None:
    """What one server's reply says, None when it was cut.

    What comes from elsewhere, or is malformed, may be forged: it is passed over.
    dnspython's own exchange takes as long again as its parser does.
    Raises: TimeoutError, OSError.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer | None] = loop.create_future()

    def receive() -> None:
        if answered.done():
            return
        try:
            answered.set_result(_read_datagram(sock.recv(_DATAGRAM_MAX), question))
        except BlockingIOError:
            pass  # a datagram with a wrong checksum was here
        except OSError as exc:
            answered.set_exception(exc)
        except dns.exception.DNSException:
            pass  # the true one may follow

    # A socket for each question: its port is half of what a forger must guess.
    with socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        # Connected, so that a server that is not there is heard of at once.
        sock.connect(server.address)
        sock.send(question)
        loop.add_reader(sock, receive)
        late = loop.call_later(wait_s, _give_up, answered)
        try:
            return await answered
        finally:
            late.cancel()
            loop.remove_reader(sock)


def _give_up(answered: asyncio.Future[Answer | None]) -> None:
    if not answered.done():
        answered.set_exception(TimeoutError())


def _read_datagram(content: bytes, question: bytes) -> Answer | None:
    """What the reply in a datagram says, None when it was cut.

    Of most replies only the answers are read: half of the records of a usual one
    are about the servers of its zone, which nobody asked for.
    Raises: DNSException for what does not answer `question`.
    """
    if not has_number_of(content, question):
        raise dns.exception.FormError
    plain = answers_alone(content) if repeats(content, question) else None
    if plain is not None:
        answer = read_reply(dns.message.from_wire(plain, ignore_trailing=True))
        if answer.outcome is Outcome.FOUND:
            return answer
    request = dns.message.from_wire(question)
    try:
        reply = dns.message.from_wire(content, raise_on_truncation=True)
    except dns.message.Truncated as exc:
        _require_answer(request, exc.message())  # type: ignore[no-untyped-call] # dnspython
        return None
    _require_answer(request, reply)
    return read_reply(reply)


def _require_answer(request: dns.message.Message, reply: dns.message.Message) -> None:
    if not request.is_response(reply):
        raise dns.exception.FormError


def read_reply(reply: dns.message.Message) -> Answer:
    """What a well-formed reply to one of our questions says.

    Unlike qmail, which bounces when a server refuses, anything but a clear "yes"
    or "no" is trouble: a broken server must not bounce mail.
    """
    rcode = reply.rcode()
    if rcode == dns.rcode.NXDOMAIN:
        return Answer(outcome=Outcome.NO_NAME, ttl_s=_negative_ttl_s(reply))
    if rcode != dns.rcode.NOERROR or not isinstance(reply, dns.message.QueryMessage):
        return trouble(dns.rcode.to_text(rcode))
    try:
        chain = reply.resolve_chaining()
    except dns.exception.DNSException:
        return trouble("malformed answer")
    if chain.answer is None:
        if not reply.flags & (dns.flags.AA | dns.flags.RA):
            return trouble("the server only refers to others")
        return Answer(outcome=Outcome.NO_DATA, ttl_s=_negative_ttl_s(reply))
    return _found(chain.answer, chain.minimum_ttl)


def _found(rrset: dns.rrset.RRset, ttl_s: int) -> Answer:
    mx, addresses, texts, names = [], [], [], []
    for rdata in rrset:
        if isinstance(rdata, dns.rdtypes.ANY.MX.MX):
            mx.append((rdata.preference, b".".join(rdata.exchange.labels[:-1])))
        elif isinstance(rdata, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA):
            addresses.append(canonical(rdata.address))
        elif isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
            texts.append(b"".join(rdata.strings))
        elif isinstance(rdata, dns.rdtypes.ANY.PTR.PTR):
            names.append(b".".join(rdata.target.labels[:-1]))
    return Answer(
        outcome=Outcome.FOUND,
        mx=tuple(mx),
        addresses=tuple(addresses),
        texts=tuple(texts),
        names=tuple(names),
        ttl_s=ttl_s,
    )


def _negative_ttl_s(reply: dns.message.Message) -> int:
    """How long "no" is good: RFC 2308 5; without an SOA it is not kept."""
    for rrset in reply.authority:
        for rdata in rrset:
            if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
                return min(rrset.ttl, rdata.minimum)
    return 0
