"""Finding the hosts of a domain in the DNS, with a cache.

One Dns serves one event loop (asyncio or uvloop). Everything it needs is loaded
when this module is imported. Reports are one line of text without a final LF.
Source: dns.c, qmail-remote.c, RFC 5321 5.1, RFC 7505, RFC 6761 6.3.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from dns.rdatatype import AAAA, MX, A, RdataType

from qsend.core.errors import PermFail, TempFail
from qsend.core.mx import (
    ADDRESSES_MAX,
    Host,
    candidates,
    is_null_mx,
    literal,
    order_targets,
    refuse_null_mx,
    relay_literal,
    shown,
)
from qsend.core.ttlcache import TtlCache
from qsend.formats.control import Resolver
from qsend.sysio import clock
from qsend.sysio.dnsquery import (
    LIFETIME_S,
    TRIES_S,
    Answer,
    Outcome,
    Querier,
    system_resolvers,
    trouble,
)

CACHE_MAX = 20_000
"""Answers kept; some hundred bytes each."""
TTL_MAX_S = 3600
"""Longest time an answer is kept, so that a domain can move within the hour."""
TTL_NEGATIVE_MAX_S = 900
TTL_TROUBLE_S = 20
"""A server that failed is not asked the same again at once (RFC 2308 7)."""
QUERIES_MAX = 256
"""Questions under way at once: each holds a descriptor."""

_LOCALHOST = ("127.0.0.1", "::1")
_Key = tuple[bytes, RdataType]
T = TypeVar("T")


def has_route(address: str) -> bool:
    """Whether this machine could send to an address; IPv4 always counts as yes.

    Connecting a datagram socket sends nothing, it only looks up the route.
    """
    if ":" not in address:
        return True
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 25))
    except OSError:
        return False
    return True


class Dns:
    """Turns domains and relays into hosts to try."""

    def __init__(
        self,
        resolvers: Sequence[Resolver] = (),
        *,
        tries_s: Sequence[float] = TRIES_S,
        lifetime_s: float = LIFETIME_S,
        reachable: Callable[[str], bool] = has_route,
        ipv6: Callable[[], bool] = lambda: True,
        chance: Callable[[], float] = random.random,
        mono: Callable[[], float] = clock.mono,
    ) -> None:
        """Make it before privilege is dropped: resolv.conf is read here.

        Args:
            resolvers: servers to ask, none for the system's; hosts are addresses.
            tries_s, lifetime_s: see dnsquery.
            reachable: whether an address is worth trying.
            ipv6: whether names that have IPv4 addresses are asked for others too.
            chance: orders equal preferences.
            mono: the clock of the cache.
        Raises: ValueError on a resolver that is no address.
        """
        self._tries_s = tries_s
        self._lifetime_s = lifetime_s
        self._reachable = reachable
        self._ipv6 = ipv6
        self._chance = chance
        self._mono = mono
        self._cache: TtlCache[_Key, Answer] = TtlCache(CACHE_MAX)
        self._asking: dict[_Key, asyncio.Task[Answer]] = {}
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._slots = asyncio.Semaphore(QUERIES_MAX)
        self._system = system_resolvers()
        self._querier = self._make_querier(resolvers)

    def set_resolvers(self, resolvers: Sequence[Resolver]) -> None:
        """Ask other servers from now on, and forget what the old ones said.

        None stands for those the system named when this object was made.
        """
        self._querier = self._make_querier(resolvers)
        self._cache.clear()
        self._asking.clear()

    def _make_querier(self, resolvers: Sequence[Resolver]) -> Querier:
        return Querier(resolvers or self._system, self._tries_s, self._lifetime_s)

    async def close(self) -> None:
        """Give up every question under way; those who wait are cancelled."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def hosts(self, domain: bytes, own: Container[str] = ()) -> list[Host]:
        """The addresses that take a domain's mail, best first, at least one.

        A literal stands for itself; otherwise MX records, or without any the
        domain's own addresses. Equal preferences are in random order; of one name
        IPv4 comes before IPv6, which is left out where there is no route.

        Args:
            domain: of a recipient, any case, raw bytes.
            own: this machine's addresses (localaddrs); mail must not loop.
        Raises:
            TempFail: #4.1.2 no answer, #4.4.1 only unreachable addresses.
            PermFail: #5.1.2 no such host, #5.1.10 null MX, #5.4.4 exchangers
                without address, #5.4.6 this machine is the best exchanger.
        """
        found = await self._of_domain(domain)
        return self._usable(domain, candidates(domain, found, own))

    async def relay_hosts(self, relay: bytes) -> list[Host]:
        """The addresses of a relay from smtproutes, at least one; no MX.

        Raises: TempFail #4.1.2 or #4.4.1, PermFail #5.1.2.
        """
        address = relay_literal(relay)
        if address is not None:
            return [Host(address=address, preference=0, name=relay)]
        return self._usable(relay, await self._of_name(relay))

    def _usable(self, name: bytes, hosts: list[Host]) -> list[Host]:
        usable = [host for host in hosts if self._reachable(host.address)]
        if not usable:
            raise TempFail(
                f"{shown(name)} has only IPv6 addresses, to which this machine has"
                " no route. (#4.4.1)"
            )
        return usable[:ADDRESSES_MAX]

    async def _of_domain(self, domain: bytes) -> list[Host]:
        address = literal(domain)
        if address is not None:
            return [Host(address=address, preference=0, name=domain)]
        if _is_localhost(domain):
            return await self._of_name(domain)
        answer = await self.ask(domain, MX)
        if answer.outcome is Outcome.TROUBLE:
            raise _no_answer(domain, answer.reason)
        if not answer.mx:
            return await self._of_name(domain)
        if is_null_mx(answer.mx):
            raise refuse_null_mx(domain)
        return await self._of_targets(domain, answer.mx)

    async def _of_targets(
        self, domain: bytes, mx: Sequence[tuple[int, bytes]]
    ) -> list[Host]:
        targets = order_targets(mx, self._chance)
        looked_up = await _all(self._addresses(target) for _, target in targets)
        hosts = [
            Host(address=address, preference=preference, name=target)
            for (preference, target), (addresses, _) in zip(
                targets, looked_up, strict=True
            )
            for address in addresses
        ]
        if hosts:
            return hosts
        for _, reason in looked_up:
            if reason is not None:
                raise _no_answer(domain, reason)
        raise PermFail(
            f"{shown(domain)} names mail exchangers, but none of them has an"
            " address. (#5.4.4)"
        )

    async def _of_name(self, name: bytes) -> list[Host]:
        addresses, reason = await self._addresses(name)
        if addresses:
            return [
                Host(address=address, preference=0, name=name) for address in addresses
            ]
        if reason is not None:
            raise _no_answer(name, reason)
        raise PermFail(f"Sorry, I couldn't find any host named {shown(name)}. (#5.1.2)")

    async def _addresses(self, name: bytes) -> tuple[list[str], str | None]:
        """(addresses of a name, what the trouble was or None).

        IPv4 first: a machine whose IPv6 is broken without knowing it then still
        delivers without waiting for a timeout.
        """
        address = literal(name)
        if address is not None:
            return [address], None
        if _is_localhost(name):
            return list(_LOCALHOST), None
        first = [A, AAAA] if self._ipv6() else [A]
        answers = await _all(self.ask(name, each) for each in first)
        if len(first) == 1 and not answers[0].addresses:
            answers.append(await self.ask(name, AAAA))
        found = dict.fromkeys(
            address
            for answer in answers
            for address in answer.addresses[:ADDRESSES_MAX]
        )
        reasons = [a.reason for a in answers if a.outcome is Outcome.TROUBLE]
        return list(found), reasons[0] if reasons else None

    async def ask(self, name: bytes, rdtype: RdataType) -> Answer:
        """The cached or fresh answer; equal questions share one query.

        Args: as Querier.ask.
        Raises: nothing but the cancellation that `close` brings.
        """
        key = (name.lower().removesuffix(b"."), rdtype)
        answer = self._cache.get(key, self._mono())
        if answer is not None:
            return answer
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(key, self._querier))
            self._asking[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._forget(key, done))
        # One who gives up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _fetch(self, key: _Key, querier: Querier) -> Answer:
        try:
            if self._slots.locked():  # a limit costs a timer
                async with asyncio.timeout(self._lifetime_s):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError:
            return trouble("too many questions are waiting")
        try:
            answer = await querier.ask(*key)
        finally:
            self._slots.release()
        if querier is self._querier:
            self._cache.put(key, answer, self._mono(), _keep_s(answer))
        return answer

    def _forget(self, key: _Key, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        if self._asking.get(key) is task:
            del self._asking[key]


async def _all(questions: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they find, in order; one alone needs no task."""
    started = list(questions)
    if len(started) == 1:
        return [await started[0]]
    return await asyncio.gather(*started)


def _keep_s(answer: Answer) -> int:
    match answer.outcome:
        case Outcome.FOUND:
            return min(answer.ttl_s, TTL_MAX_S)
        case Outcome.TROUBLE:
            return TTL_TROUBLE_S
        case Outcome.NO_NAME | Outcome.NO_DATA:
            return min(answer.ttl_s, TTL_NEGATIVE_MAX_S)


def _is_localhost(name: bytes) -> bool:
    lower = name.lower().removesuffix(b".")
    return lower == b"localhost" or lower.endswith(b".localhost")


def _no_answer(name: bytes, reason: str) -> TempFail:
    return TempFail(f"The DNS did not answer about {shown(name)}: {reason}. (#4.1.2)")
