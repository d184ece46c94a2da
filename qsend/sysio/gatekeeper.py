"""What listeners for mail have in common: who comes in, and whose hosts these are.

Source: docs/NETWORK.md; rcpthosts.c; tcpserver(1).
"""

from __future__ import annotations

import os

from qsend.core import logline
from qsend.core.access import Access, Client
from qsend.core.errors import TempFail
from qsend.core.relay import (
    Refused,
    RelayRules,
    Taken,
    Unlisted,
    relay_warning,
    settle,
)
from qsend.core.repeats import Repeats
from qsend.core.users import Trouble
from qsend.sysio import clock
from qsend.sysio.accessfile import AccessFile
from qsend.sysio.asklines import LookupLine
from qsend.sysio.morehosts import MoreHosts


class Gatekeeper:
    """Asks the access rules of one service, control/morercpthosts.cdb and lookup."""

    def __init__(self, home: str, service: str) -> None:
        """`service` is one of tcprules.SERVICES; its program is called by it, too."""
        self.has_database = False
        self._program = f"qmail-{service}d"
        self._access = AccessFile.of_service(home, service)
        self._more = MoreHosts(home)
        self._repeats = Repeats()

    @property
    def directories(self) -> tuple[str, ...]:
        """What a sandbox must let the process read.

        That of morercpthosts.cdb is among them.
        """
        return self._access.directories

    def note(self, text: str) -> None:
        """Tell the operator, the same thing not too often."""
        if self._repeats.is_news(text, clock.mono()):
            os.write(2, logline.warning(f"{self._program}: {text}"))

    def lets_in(self, client: Client) -> Access | None:
        """What the access rules say; None when they cannot be read."""
        try:
            return self._access.judge(client)
        except TempFail as exc:
            self.note(str(exc))
            return None

    def forget(self) -> None:
        """Begin anew with the access rules, as after a restart; for a HUP."""
        self._access.forget()

    async def settle(self, unlisted: Unlisted, lookup: LookupLine) -> Taken | Refused:
        """Whether a recipient is taken that control/rcpthosts does not list."""
        answers = [self._more.lists(unlisted.host)]
        if isinstance(answers[0], Trouble):
            self.note(answers[0].text.decode("utf-8", "replace"))
        if answers[0] is not True and self.has_database:
            answers.append(await lookup.rcpthost(unlisted.host))
        return settle(unlisted, *answers)

    def warn(self, rules: RelayRules) -> None:
        """Say in the log why nobody's mail is taken, if that is so."""
        warning = relay_warning(
            rules, has_more=self._more.is_there(), has_database=self.has_database
        )
        if warning is not None:
            os.write(2, logline.warning(f"{self._program}: {warning}"))
