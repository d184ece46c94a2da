"""control/morercpthosts.cdb: hosts whose mail is taken, too many for a text file.

Source: rcpthosts.c; qmail-newmrh(8).
"""

from __future__ import annotations

from qsend.core.errors import ConfigError
from qsend.core.lookups import YesNo
from qsend.core.relay import host_keys
from qsend.core.users import Trouble
from qsend.sysio.watchedcdb import WatchedCdb

NAME = "control/morercpthosts.cdb"


class MoreHosts:
    """Looks hosts up; opens the file again when it changes."""

    def __init__(self, home: str) -> None:
        """That of `home`."""
        self._path = f"{home}/{NAME}"
        self._cdb = WatchedCdb(self._path, NAME)

    @property
    def path(self) -> str:
        """What a sandbox must let the process read; see AccessFile.directories."""
        return self._path

    def is_there(self) -> bool:
        """Whether there is such a file now; one that cannot be used counts."""
        try:
            self._cdb.refresh()
        except (ConfigError, OSError):
            return True
        return self._cdb.is_there

    def lists(self, host: bytes) -> YesNo:
        """Whether the file has `host` or a `.suffix` of it; not there lists nothing.

        Never raises: what goes wrong is Trouble, with a text for the log.
        """
        try:
            self._cdb.refresh()
            return any(self._cdb.get(key) is not None for key in host_keys(host))
        except ConfigError as exc:
            return Trouble(text=str(exc).encode("utf-8", "backslashreplace"))
        except OSError as exc:
            return Trouble(text=f"unable to read {NAME}: {exc.strerror}".encode())

    def close(self) -> None:
        """Give the descriptor back."""
        self._cdb.close()
