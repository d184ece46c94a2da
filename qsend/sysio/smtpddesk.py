"""What an SMTP client needs of the process that serves it.

Source: docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import ssl
from typing import Protocol

from qsend.core.access import Access, Client
from qsend.core.lookups import Login
from qsend.core.relay import Refused, Taken
from qsend.core.smtpdsteps import Judge, ServerRules
from qsend.formats.listeners import Listener
from qsend.formats.loginwire import LoginOutcome
from qsend.sysio.admission import Guest
from qsend.sysio.filters import Filters
from qsend.sysio.runnerline import Intake


class Visitor(Guest, Protocol):
    """A client, as it is counted."""

    def abort(self) -> None:
        """Cut it off."""

    def __hash__(self) -> int: ...


class Desk(Protocol):
    """What a client needs of the process."""

    rules: ServerRules
    me: bytes
    timeout_s: float
    context: ssl.SSLContext | None

    def is_proxy(self, address: str) -> bool:
        """Whether it is a balancer that tells whose client it has."""

    async def name(self, address: str) -> bytes | None:
        """The client's name, where names are looked up."""

    def lets_in(self, client: Client) -> Access | None:
        """What the access rules say; None when they cannot be read."""

    def enter(self, client: Visitor) -> bool:
        """Whether there is room for one more, in all and from its network."""

    def leave(self, client: Visitor) -> None:
        """The client has gone."""

    def note(self, text: str) -> None:
        """Tell the operator, the same thing not too often."""

    def intake(self, client: Client, access: Access, login: bytes | None) -> Intake:
        """Where the messages of a client go."""

    def has_lists(self) -> bool:
        """Whether there are block lists to be asked."""

    def filters(self, listener: Listener) -> Filters | None:
        """New ones for a client of `listener`; None: it meets none."""

    async def screen(self, address: str, access: Access) -> bytes | None:
        """What the block lists say: the reply to a client that is blocked."""

    async def judge(self, asked: Judge) -> Taken | Refused:
        """Whether a recipient is taken."""

    async def verify(self, login: Login) -> LoginOutcome:
        """What a login comes to."""
