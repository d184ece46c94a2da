"""lookup: answers whose mail an address is, for all who may ask.

uid qmailp, gid nofiles. Descriptors at entry: 0, 1, 2, the sockets to start and to
the processes that ask, and the listening run/lookup.sock. Alone knows the password
of control/sqlserver. Writes nothing but log lines. Exit codes: 0 when start has
gone, 111 (from the fork) after an exception.
Source: docs/ARCHITECTURE.md; qmail-getpw(8), qmail-users(5).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from setproctitle import setproctitle

from qsend.core import logline
from qsend.core.errors import ConfigError
from qsend.formats.control import Controls, parse_controls
from qsend.formats.routing import rules
from qsend.formats.sqlcontrols import SqlSettings, parse_sql
from qsend.sysio import sandbox
from qsend.sysio.boot import Boot
from qsend.sysio.lookupdesk import LookupDesk
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import drop, harden
from qsend.sysio.resolver import Resolver
from qsend.sysio.verifier import Verifier

OTHERS_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Meant for start when they reach the whole process group: answers are needed
until start closes the line."""


class Lookup:
    """Serves questions until start goes away."""

    def __init__(self, boot: Boot) -> None:
        self._loop = Loop()
        for signum in OTHERS_SIGNALS:
            self._loop.on_signal(signum, lambda: None)
        self._resolver = Resolver(
            self._loop,
            boot.home,
            boot.accounts,
            single_user=boot.single_user,
            say=_say,
            on_state=lambda trouble: self._desk.tell_state(trouble),
        )
        self._desk = LookupDesk(
            self._loop,
            self._resolver,
            Verifier(self._loop, self._resolver),
            boot.accounts,
        )
        self._desk.default_delivery = boot.default_delivery
        self._configure(boot.controls, parse_sql(boot.files, boot.controls))
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._loop.stop,
            on_controls=self._controls,
            on_peer=self._desk.attach,
        )
        for role, sock in boot.socks.items():
            if role == "listen":
                self._desk.listen(sock)
            elif role != "start":
                self._desk.attach(role, sock)

    def run(self) -> None:
        """Serve; returns when start has closed its line."""
        self._parent.ready()
        self._loop.run()
        self._desk.close()
        self._resolver.close()
        self._loop.close()

    def _controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        try:
            controls = parse_controls(files, generation)
            sql = parse_sql(files, controls)
        except ConfigError as exc:
            # start has validated them; should it not agree, the old ones stay.
            _say(logline.warning(f"qmail-lookup: keeping controls: {exc}"))
            return
        self._configure(controls, sql)

    def _configure(self, controls: Controls, sql: SqlSettings | None) -> None:
        # HUP is also how an operator says "look again".
        self._desk.rules = rules(controls)
        self._resolver.configure(sql)
        self._desk.configured()


def _say(line: bytes) -> None:
    """One line to the log; one that nobody reads any more is lost."""
    try:
        os.write(2, line)
    except OSError:
        pass


def main(boot: Boot) -> int:
    """Drop to qmailp, then answer until start goes away; the exit code."""
    setproctitle("qmail-lookup: qsend")
    drop(boot.accounts.qmailp)
    harden()
    sandbox.apply("lookup")
    Lookup(boot).run()
    return 0
