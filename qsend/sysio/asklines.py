"""A listener's lines to lookup and login: questions out, answers back, in any order.

Belong to an asyncio loop. Whatever happens to the process at the other end, every
question is answered: at worst nobody knows now.
Source: formats/lookupwire.py, formats/loginwire.py.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Generic, TypeVar

from qsend.core.errors import RemoteProtocolError
from qsend.core.lookups import Login, YesNo
from qsend.core.users import Trouble
from qsend.formats import frames, loginwire, lookupwire
from qsend.formats.loginwire import LoginOutcome
from qsend.formats.lookupwire import Question
from qsend.sysio.endpoint import Descriptors, Endpoint, Poller

T = TypeVar("T")

LOOKUP_S = 30.0
"""lookup answers within seconds, whatever the database does."""
LOGIN_S = 90.0
"""login may let half a minute pass before it looks, and lookup a minute."""


class _AskLine(Generic[T]):
    """Questions by number; `trouble` answers those that nobody else does."""

    def __init__(self, poller: Poller, trouble: T, deadline_s: float) -> None:
        self._poller = poller
        self._trouble = trouble
        self._deadline_s = deadline_s
        self._endpoint: Endpoint | None = None
        self._asked: dict[int, asyncio.Future[T]] = {}
        self._next_number = 0

    def attach(self, sock: socket.socket) -> None:
        """Use this socket from now on."""
        if self._endpoint is not None:
            self._endpoint.close("replaced")
        self._endpoint = Endpoint(
            self._poller, sock, self._hear, lambda _reason: self._lost()
        )
        self._endpoint.send(frames.hello(1))

    def _number(self) -> int:
        self._next_number = (self._next_number + 1) % 2**32
        return self._next_number

    async def _ask(self, number: int, question: bytes) -> T:
        if self._endpoint is None or self._endpoint.closed:
            return self._trouble
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._endpoint.send(question)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await future
        except TimeoutError:
            return self._trouble
        finally:
            self._asked.pop(number, None)

    def _answer(self, number: int, answer: T) -> None:
        """Numbers that are not asked any more are late."""
        future = self._asked.pop(number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def _hear(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind == frames.HELLO:
            frames.parse_hello(body)
        else:
            self._take(kind, body)

    def _take(self, kind: bytes, body: bytes) -> None:
        raise RemoteProtocolError(f"unexpected frame {kind!r}")

    def _lost(self) -> None:
        for number in list(self._asked):
            self._answer(number, self._trouble)


class LookupLine(_AskLine[YesNo]):
    """Asks lookup about hosts and recipients."""

    def __init__(self, poller: Poller) -> None:
        """Without a socket yet; `attach` comes next."""
        trouble = Trouble(text=b"the user lookup does not answer")
        super().__init__(poller, trouble, LOOKUP_S)

    async def rcpthost(self, host: bytes) -> YesNo:
        """Does the database list the host?"""
        return await self._about(lookupwire.RCPTHOST, host)

    async def exists(self, address: bytes) -> YesNo:
        """Is there such a recipient, or is it somebody else's to say?"""
        return await self._about(lookupwire.EXISTS, address)

    async def _about(self, kind: bytes, about: bytes) -> YesNo:
        number = self._number()
        question = Question(number=number, local=about)
        return await self._ask(number, lookupwire.render_question(question, kind))

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == lookupwire.VERDICT:
            self._answer(*lookupwire.parse_verdict(body))
        elif kind == lookupwire.REFUSED:
            number, text = lookupwire.parse_refused(body)
            self._answer(number, Trouble(text=text))
        else:
            super()._take(kind, body)


class LoginLine(_AskLine[LoginOutcome]):
    """Has logins judged by login; no session is made of them."""

    def __init__(self, poller: Poller) -> None:
        """Without a socket yet; `attach` comes next."""
        super().__init__(poller, LoginOutcome.TEMPORARY, LOGIN_S)

    async def verify(self, login: Login) -> LoginOutcome:
        """What the login came to; OPEN when it is right."""
        number = self._number()
        try:
            return await self._ask(number, lookupwire.render_login(number, login))
        except asyncio.CancelledError:
            # The client has left: it need not be judged any more.
            if self._endpoint is not None:
                self._endpoint.send(loginwire.render_cancel(number))
            raise

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == loginwire.OUTCOME:
            self._answer(*loginwire.parse_outcome(body))
        else:
            super()._take(kind, body)
