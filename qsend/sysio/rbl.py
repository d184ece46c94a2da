"""Asking block lists about a client: all at once, with a deadline.

Source: ucspi-tcp rblsmtpd.c, which asks one after the other; docs/NETWORK.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from dns.rdatatype import TXT, A

from qsend.core import rbl
from qsend.core.rbl import Action, Finding, Found, Judgement, Source
from qsend.sysio import clock
from qsend.sysio.dns import Dns
from qsend.sysio.dnsquery import Answer, Outcome

FAILURES_MAX = 3
"""Deadlines a list may miss in a row before it is taken for dead."""
DEAD_S = 30.0
"""How long a dead list counts as failed without being waited for."""

_FAILED = Found(finding=Finding.FAILED)
_ABSENT = Found(finding=Finding.ABSENT)


class BlockLists:
    """Judges clients by the lists of control/rbl; belongs to one event loop."""

    def __init__(
        self,
        dns: Dns,
        sources: Sequence[Source] = (),
        deadline_s: float = 10.0,
        mono: Callable[[], float] = clock.mono,
    ) -> None:
        """`dns` asks and remembers; `deadline_s` is the longest anybody waits."""
        self._dns = dns
        self._sources = tuple(sources)
        self._deadline_s = deadline_s
        self._mono = mono
        self._misses: dict[bytes, int] = {}
        self._dead_until_mono: dict[bytes, float] = {}

    def configure(self, sources: Sequence[Source], deadline_s: float) -> None:
        """Use these from now on, and forget which were dead."""
        self._sources, self._deadline_s = tuple(sources), deadline_s
        self._misses.clear()
        self._dead_until_mono.clear()

    async def judge(
        self, address: str, variables: Mapping[bytes, bytes] | None = None
    ) -> Judgement:
        """What becomes of a client, in at most the deadline.

        Args:
            address: the client's, canonical, without scope.
            variables: those of the access rules, or the environment: RBLSMTPD in it
                decides without any question.
        Raises: nothing; a list that fails is judged as control/rbl says.
        """
        decided = rbl.override(variables or {})
        if decided is not None or not self._sources:
            return decided or rbl.PASSED
        return await self._ask_all(self._sources, address)

    async def _ask_all(self, sources: Sequence[Source], address: str) -> Judgement:
        """Ends as soon as those that decide have answered."""
        asked = {
            asyncio.create_task(self._ask(source, address)): index
            for index, source in enumerate(sources)
        }
        found: list[Found | None] = [None] * len(sources)
        pending = set(asked)
        try:
            async with asyncio.timeout(self._deadline_s):
                while (decided := rbl.judge(sources, found)) is None:
                    done, pending = await asyncio.wait(
                        pending, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        found[asked[task]] = task.result()
                return decided
        except TimeoutError:
            for task in pending:
                self._missed(sources[asked[task]].zone)
            return rbl.judge_late(sources, found)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, source: Source, address: str) -> Found:
        if self._mono() < self._dead_until_mono.get(source.zone, 0.0):
            return _FAILED
        name = rbl.question(address, source.zone)
        answer = await self._dns.ask(name, A if source.asks_address else TXT)
        self._misses.pop(source.zone, None)
        if answer.outcome is Outcome.TROUBLE:
            return _FAILED
        if not source.asks_address:
            # As rblsmtpd: a record without text is no listing.
            is_listed = any(answer.texts)
            return self._listed(source, answer, address) if is_listed else _ABSENT
        if not rbl.counts(source, answer.addresses):
            return _ABSENT
        if source.text or source.action is Action.PASS:
            return self._listed(source, answer, address)
        return self._listed(source, await self._dns.ask(name, TXT), address)

    def _listed(self, source: Source, answer: Answer, address: str) -> Found:
        text = rbl.reason(source, answer.texts, address)
        return Found(finding=Finding.LISTED, text=text)

    def _missed(self, zone: bytes) -> None:
        self._misses[zone] = self._misses.get(zone, 0) + 1
        if self._misses[zone] >= FAILURES_MAX:
            self._dead_until_mono[zone] = self._mono() + DEAD_S
