"""send's line to lookup: where mail for addresses goes, many asked at once.

Without lookup, and while the database does not answer, everything asked is in
trouble at once; when it is over, whoever waits is told.
Source: formats/lookupwire.py.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from qsend.core import logline
from qsend.core.errors import RemoteProtocolError
from qsend.core.lookups import Locality
from qsend.core.users import Trouble
from qsend.formats import frames, lookupwire
from qsend.formats.lookupwire import Question
from qsend.sysio.endpoint import Endpoint, Poller

_GONE = b"the user lookup is not running"
_NUMBERS = 2**32

OnAnswers = Callable[[Mapping[bytes, Locality]], None]


class _Asked:
    """The addresses of one caller, until all are answered."""

    __slots__ = ("answers", "done", "open")

    def __init__(self, count: int, done: OnAnswers) -> None:
        self.open = count
        self.answers: dict[bytes, Locality] = {}
        self.done = done


class PlaceLine:
    """Asks lookup; equal questions under way are asked once."""

    def __init__(
        self, loop: Poller, say: Callable[[bytes], None], on_back: Callable[[], None]
    ) -> None:
        """`say` writes a log line; `on_back` is called when a trouble is over."""
        self._loop = loop
        self._say = say
        self._on_back = on_back
        self._endpoint: Endpoint | None = None
        self._trouble: bytes | None = _GONE
        self._is_told = False
        self._slots = 0
        self._next_number = 0
        self._unsent: deque[bytes] = deque()
        self._sent: dict[int, bytes] = {}
        self._askers: dict[bytes, list[_Asked]] = {}

    def attach(self, sock: socket.socket) -> None:
        """Ask over this socket from now on."""
        if self._endpoint is not None:
            self._endpoint.close("replaced")
        endpoint = Endpoint(
            self._loop,
            sock,
            lambda kind, body, _fds: self._frame(kind, body),
            lambda _reason: self._lost(endpoint),
        )
        self._endpoint = endpoint
        self._slots = 0
        self._over()

    def is_down(self, reason: bytes) -> bool:
        """Whether nothing can be asked until `on_back`; the log is told once why."""
        if self._trouble is None:
            return False
        if not self._is_told:
            self._is_told = True
            text = reason.decode("utf-8", "backslashreplace")
            self._say(logline.warning(f"new mail waits in todo: {text}"))
        return True

    def ask(self, addresses: Sequence[bytes], done: OnAnswers) -> None:
        """Call `done` with an answer to each, maybe before this returns.

        `addresses` are different ones, at least one.
        """
        asked = _Asked(len(addresses), done)
        if self._endpoint is None:
            done(dict.fromkeys(addresses, Trouble(text=_GONE)))
            return
        for address in addresses:
            askers = self._askers.setdefault(address, [])
            if not askers:
                self._unsent.append(address)
            askers.append(asked)
        self._pump()

    def _pump(self) -> None:
        """Send what lookup takes."""
        assert self._endpoint is not None
        while self._unsent and len(self._sent) < self._slots:
            address = self._unsent.popleft()
            if len(address) > lookupwire.LOCAL_MAX:
                self._answered(address, Trouble(text=b"the address is too long"))
                continue
            number = self._next_number
            self._next_number = (number + 1) % _NUMBERS
            self._sent[number] = address
            question = Question(number=number, local=address)
            self._endpoint.send(
                lookupwire.render_question(question, lookupwire.LOCALITY)
            )

    def _frame(self, kind: bytes, body: bytes) -> None:
        if kind == frames.HELLO:
            self._slots = frames.parse_hello(body)
            self._pump()
        elif kind == lookupwire.STATE:
            self._trouble = lookupwire.parse_state(body)
            if self._trouble is None:
                self._over()
        elif kind == lookupwire.PLACE:
            number, locality = lookupwire.parse_place(body)
            address = self._sent.pop(number, None)
            if address is None:
                raise RemoteProtocolError(f"an answer to no question, {number}")
            self._answered(address, locality)
            self._pump()
        else:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from lookup")

    def _answered(self, address: bytes, locality: Locality) -> None:
        for asked in self._askers.pop(address, ()):
            asked.answers[address] = locality
            asked.open -= 1
            if not asked.open:
                asked.done(asked.answers)

    def _lost(self, endpoint: Endpoint) -> None:
        """lookup is gone; start brings another."""
        if self._endpoint is not endpoint:
            return
        self._endpoint = None
        self._trouble = _GONE
        self._sent.clear()
        self._unsent.clear()
        for address in list(self._askers):
            self._answered(address, Trouble(text=_GONE))

    def _over(self) -> None:
        self._trouble = None
        self._is_told = False
        self._on_back()
