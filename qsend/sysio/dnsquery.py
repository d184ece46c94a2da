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
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
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
        self._servers = tuple(
            Resolver(host=canonical(entry.host), port=entry.port) for entry in resolvers
        )
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
        qname = _qname(name)
        if qname is None:
            return Answer(outcome=Outcome.NO_NAME)
        request = dns.message.make_query(qname, rdtype)
        try:
            async with asyncio.timeout(self._lifetime_s):
                return await self._rounds(request)
        except TimeoutError:
            return trouble("timed out")

    async def _rounds(self, request: dns.message.Message) -> Answer:
        count = len(self._servers)
        order = [(self._first + step) % count for step in range(count)]
        answer = trouble("no server")
        for wait_s in self._tries_s:
            for index in tuple(order):
                try:
                    reply = await _exchange(self._servers[index], request, wait_s)
                except TimeoutError:
                    answer = trouble("timed out")
                    continue
                except OSError as exc:
                    answer = trouble((exc.strerror or "network error").lower())
                    continue
                answer = read_reply(reply)
                if answer.outcome is not Outcome.TROUBLE:
                    self._first = index
                    return answer
                order.remove(index)  # it has spoken; asking again would not help
        return answer


def _qname(name: bytes) -> dns.name.Name | None:
    """The name for the wire, or None when no such name can exist."""
    labels = name.removesuffix(b".").split(b".")
    try:
        return dns.name.Name((*labels, b""))
    except dns.exception.DNSException:
        return None


async def _exchange(
    server: Resolver, request: dns.message.Message, wait_s: float
) -> dns.message.Message:
    """One server's reply, over TCP when the datagram was cut.

    Raises: TimeoutError, OSError.
    """
    async with asyncio.timeout(wait_s):
        reply = await _over_udp(server, request)
        if reply is not None:
            return reply
        try:
            return await dns.asyncquery.tcp(
                request, server.host, port=server.port, backend=_BACKEND
            )
        except EOFError as exc:
            raise ConnectionAbortedError(0, "answer over TCP was cut") from exc
        except dns.exception.DNSException as exc:
            raise ConnectionAbortedError(0, "malformed answer over TCP") from exc


async def _over_udp(
    server: Resolver, request: dns.message.Message
) -> dns.message.Message | None:
    """One server's reply, None when it was cut.

    What comes from elsewhere, or is malformed, may be forged: it is passed over.
    dnspython's own exchange takes as long again as its parser does.
    Raises: OSError.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[dns.message.Message | None] = loop.create_future()
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET

    def receive() -> None:
        if answered.done():
            return
        try:
            answered.set_result(_read_datagram(sock, request))
        except BlockingIOError:
            pass  # a datagram with a wrong checksum was here
        except OSError as exc:
            answered.set_exception(exc)
        except dns.exception.DNSException:
            pass  # the true one may follow

    # A socket for each question: its port is half of what a forger must guess.
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        # Connected, so that a server that is not there is heard of at once.
        sock.connect(
            dns.inet.low_level_address_tuple((server.host, server.port), family)
        )
        sock.send(request.to_wire())
        loop.add_reader(sock, receive)
        try:
            return await answered
        finally:
            loop.remove_reader(sock)


def _read_datagram(
    sock: socket.socket, request: dns.message.Message
) -> dns.message.Message | None:
    """The reply in the next datagram, None when it was cut.

    Raises: OSError; DNSException for what does not answer `request`.
    """
    content = sock.recv(_DATAGRAM_MAX)
    try:
        reply = dns.message.from_wire(content, raise_on_truncation=True)
    except dns.message.Truncated as exc:
        _require_answer(request, exc.message())  # type: ignore[no-untyped-call] # dnspython
        return None
    _require_answer(request, reply)
    return reply


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
