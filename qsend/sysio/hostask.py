"""Whose mail a program under tcpserver takes, asked one question at a time.

Source: rcpthosts.c; docs/NETWORK.md.
"""

from __future__ import annotations

from collections.abc import Callable

from qsend.core.errors import TempFail
from qsend.core.lookups import YesNo
from qsend.core.relay import Refused, Taken, Unlisted, settle
from qsend.core.users import Trouble
from qsend.sysio.lookupclient import LookupClient, is_asked
from qsend.sysio.morehosts import MoreHosts


class HostAsk:
    """Asks control/morercpthosts.cdb and lookup; what it does not need it never opens.

    Nothing raises: who cannot be asked is Trouble, and told.
    """

    def __init__(self, home: str, complain: Callable[[str], None]) -> None:
        """`complain` is told why something could not be found out."""
        self._home = home
        self._complain = complain
        self._more = MoreHosts(home)

    def settle(self, unlisted: Unlisted) -> Taken | Refused:
        """Whether a recipient is taken that control/rcpthosts does not list."""
        answers = [self._more.lists(unlisted.host)]
        if isinstance(answers[0], Trouble):
            self._complain(answers[0].text.decode("utf-8", "replace"))
        if answers[0] is not True:
            answers.append(self._database_lists(unlisted.host))
        return settle(unlisted, *answers)

    def exists(self, address: bytes) -> YesNo:
        """Whether there is such a recipient, or it is somebody else's to say."""
        try:
            with LookupClient(self._home) as lookup:
                return lookup.exists(address)
        except TempFail as exc:
            return self._trouble(exc)

    def _database_lists(self, host: bytes) -> YesNo:
        try:
            if not is_asked(self._home):
                return False
            with LookupClient(self._home) as lookup:
                return lookup.rcpthost(host)
        except TempFail as exc:
            return self._trouble(exc)

    def _trouble(self, exc: TempFail) -> Trouble:
        self._complain(str(exc))
        return Trouble(text=str(exc).encode("utf-8", "backslashreplace"))
