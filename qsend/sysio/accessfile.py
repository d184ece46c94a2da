"""The access rules of one service, read again when their file changes.

Source: ucspi-tcp tcpserver.c (-x); docs/NETWORK.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from qsend.core.access import ALLOWED, Access, Client, Rule, judge
from qsend.core.errors import ConfigError, TempFail
from qsend.formats.tcprules import (
    LENGTHS_KEYS,
    parse_lengths,
    parse_rule,
    rules_name,
)
from qsend.sysio.watchedcdb import WatchedCdb

_JUDGED_MAX = 1000
"""Clients whose rule is remembered until the file changes."""


class AccessFile:
    """Judges clients by one cdb of rules; belongs to one thread."""

    def __init__(self, path: str, shown: str) -> None:
        """The rules at `path`; `shown` names it in errors.

        A file that is not there gives everybody nothing, as with tcpserver without
        -x; one that was there and is gone, or cannot be used, lets nobody in until
        it is back, or `forget` is called.
        """
        self._path = path
        self._shown = shown
        self._cdb = WatchedCdb(path, shown)
        self._was_there = False
        self._lengths: Mapping[int, Sequence[int]] = {}
        self._judged: dict[Client, Access] = {}

    @classmethod
    def of_service(cls, home: str, service: str) -> AccessFile:
        """Those in `home`/control for one of SERVICES."""
        name = f"control/{rules_name(service)}"
        return cls(f"{home}/{name}", name)

    @property
    def has_rules(self) -> bool:
        """Whether there is a file, as far as known; see `judge`."""
        return self._was_there

    @property
    def directories(self) -> tuple[str, ...]:
        """What a sandbox must let the process read, symbolic links followed."""
        paths = (self._path, os.path.realpath(self._path))
        return tuple(dict.fromkeys(os.path.dirname(path) for path in paths))

    def judge(self, client: Client) -> Access:
        """What the rules now say of a client; looks first whether they changed.

        Raises: TempFail with a reason for the log when they cannot be read: the
            client is to come back later.
        """
        try:
            self._refresh()
            if not self._cdb.is_there:
                return self._without_rules()
            return self._judge(client)
        except ConfigError as exc:
            raise TempFail(str(exc)) from exc
        except OSError as exc:
            raise TempFail(f"unable to read {self._shown}: {exc.strerror}") from exc

    def forget(self) -> None:
        """Begin anew, as after a restart; for a HUP."""
        self._cdb.close()
        self._judged.clear()
        self._was_there = False
        self._lengths = {}

    def close(self) -> None:
        """Give the descriptor back."""
        self._cdb.close()

    def _refresh(self) -> None:
        try:
            if not self._cdb.refresh():
                return
            self._judged.clear()
            if not self._cdb.is_there:
                return
            self._was_there = True
            self._lengths = {
                version: parse_lengths(self._cdb.get(key), version, self._shown)
                for version, key in LENGTHS_KEYS.items()
            }
        except BaseException:
            # Half known is unknown; the next client makes us look again.
            self._judged.clear()
            self._was_there = True
            self._cdb.close()
            raise

    def _judge(self, client: Client) -> Access:
        """As the rules say; a search takes longer than the rest of a short session."""
        known = self._judged.get(client)
        if known is None:
            known = judge(self._find, client, self._lengths)
            if len(self._judged) >= _JUDGED_MAX:
                self._judged.clear()
            self._judged[client] = known
        return known

    def _without_rules(self) -> Access:
        if os.path.islink(self._path):
            raise TempFail(f"{self._shown} is a link to nowhere")
        if self._was_there:
            raise TempFail(f"{self._shown} was removed; a HUP makes that the rule")
        return ALLOWED

    def _find(self, address: bytes) -> Rule | None:
        value = self._cdb.get(address)
        return None if value is None else parse_rule(value)
