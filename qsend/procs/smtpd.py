"""smtpd: takes mail by SMTP, one event loop; there is one for each core.

uid qmaild, gid nofiles, no other group. Descriptors at entry: 0 to 2, "start",
"enqueue", "lookup", "login", and listening sockets "smtplisten0" ... in the order of
control/smtplisten, each sharing its port with those of its siblings. It reads
control/tcp.smtp.cdb and control/morercpthosts.cdb, asks DNS servers about block
lists, and opens nothing else; a message goes to enqueue as it comes. With
control/milters it also connects to these, and keeps what they look at in run/milter,
without names. start gone: all sessions end, and what was not acknowledged is not
queued.
Exit codes: 0 when start ended the line, 111 on anything unexpected.
Source: docs/ARCHITECTURE.md; qmail-smtpd(8).
"""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Mapping

from qsend.core import logline
from qsend.core.access import Access, Client
from qsend.core.errors import ConfigError
from qsend.core.lookups import Login
from qsend.core.relay import Refused, Taken, judge_existence
from qsend.core.smtpdsteps import Judge, ServerRules
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import parse_controls
from qsend.formats.listeners import Listener
from qsend.formats.loginwire import LoginOutcome
from qsend.formats.smtpdcontrols import LISTEN, SUBMISSION, SmtpdSettings, parse_smtpd
from qsend.sysio import aioprocess, spool
from qsend.sysio.admission import Admission
from qsend.sysio.aiolistener import AioListener
from qsend.sysio.aioloop import AioLoop
from qsend.sysio.asklines import LoginLine
from qsend.sysio.boot import Boot
from qsend.sysio.clientname import client_name
from qsend.sysio.dns import Dns
from qsend.sysio.filters import Filters
from qsend.sysio.gatekeeper import Gatekeeper
from qsend.sysio.localaddrs import OwnAddresses
from qsend.sysio.milterpool import MilterPool
from qsend.sysio.rbl import BlockLists
from qsend.sysio.runnerline import Intake
from qsend.sysio.sandbox import Extras
from qsend.sysio.siblings import Attach, Siblings
from qsend.sysio.smtpdclient import SmtpdClient
from qsend.sysio.smtpddesk import Visitor
from qsend.sysio.tls import server_context

TITLE = "qmail-smtpd: qsend"
_FDS_SPARE = 600
"""Descriptors for wires, listeners, the loop and questions to DNS servers."""

_SPOOLS = 2
"""Files that a client with filters may have, as a rule."""


class Smtpd:
    """The wiring of the process; a Desk to its clients."""

    def __init__(
        self,
        boot: Boot,
        loop: asyncio.AbstractEventLoop,
        gate: Gatekeeper,
        own: OwnAddresses,
        extras: Extras,
    ) -> None:
        # A connection may break while it is set up.
        self._crash = aioprocess.Crash(loop, harmless=(OSError,))
        self.context: ssl.SSLContext | None = None
        self._loop = loop
        self._processes = boot.siblings
        self._is_first = boot.role == "smtpd0"
        self._gate = gate
        self._own = own
        self._admission: Admission[Visitor] = Admission(1, 1)
        self._dns = Dns(boot.controls.resolvers)
        self._lists = BlockLists(self._dns)
        self._home = boot.home
        self._extras = extras
        self._pool = MilterPool()
        self._settings = SmtpdSettings()
        self._certificate = b""
        self._configure(boot.files, boot.controls.generation)
        self._listeners: list[AioListener] = []
        self._siblings = Siblings(loop, boot, self._take_controls, self._own_lines)

    def _own_lines(self, poller: AioLoop) -> Mapping[str, Attach]:
        self._login = LoginLine(poller)
        return {"login": self._login.attach}

    def listen(self, boot: Boot) -> None:
        """Take clients, and say READY to start."""
        for number, listener in enumerate(self._settings.listeners):

            def client(listener: Listener = listener) -> SmtpdClient:
                return SmtpdClient(self._loop, self, listener)

            sock = boot.socks[f"{LISTEN}{number}"]
            self._listeners.append(AioListener(self._loop, sock, client))
        self._siblings.ready()

    def close(self) -> None:
        """Drop all clients, and raise what ended the loop if that was a surprise."""
        for listener in self._listeners:
            listener.close()
        for client in self._admission.guests:
            client.abort()
        self._pool.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        if self._crash.failure is not None:
            raise self._crash.failure

    # Desk: what clients need

    def is_proxy(self, address: str) -> bool:
        """Whether it is a balancer that tells whose client it has."""
        return self._settings.is_proxy(address)

    async def name(self, address: str) -> bytes | None:
        """The client's name, where names are looked up."""
        if not self._settings.looks_up_names:
            return None
        return await client_name(self._dns, address)

    def lets_in(self, client: Client) -> Access | None:
        """What the access rules say; None when they cannot be read."""
        return self._gate.lets_in(client)

    def enter(self, client: Visitor) -> bool:
        """Whether there is room for one more, in all and from its network."""
        if self._admission.enter(client):
            return True
        full = (
            "concurrencysmtpd" if self._admission.is_full() else "concurrencysmtpdperip"
        )
        self.note(f"control/{full}: clients are sent away")
        return False

    def leave(self, client: Visitor) -> None:
        """The client has gone."""
        self._admission.leave(client)

    def note(self, text: str) -> None:
        """Tell the operator, the same thing not too often."""
        self._gate.note(text)

    def has_lists(self) -> bool:
        """Whether there are block lists to be asked."""
        return self._has_lists

    def intake(self, client: Client, access: Access, login: bytes | None) -> Intake:
        """Where the messages of a client go."""
        return self._siblings.intake("smtp", client, access, login)

    def filters(self, listener: Listener) -> Filters | None:
        """New ones for a client of `listener`; None: it meets none."""
        is_submission = SUBMISSION in listener.words
        milters = self._settings.milters
        met = [each for each in milters if each.serves(is_submission=is_submission)]
        return Filters(self._home, met, self._pool, self._tell) if met else None

    def _tell(self, text: str) -> None:
        os.write(2, f"qmail-smtpd: {text}\n".encode("ascii", "backslashreplace"))

    async def screen(self, address: str, access: Access) -> bytes | None:
        """What the block lists say: the reply to a client that is blocked."""
        judgement = await self._lists.judge(address, access.variables)
        for text in judgement.notes:
            self.note(f"rbl: {address}: {text.decode('ascii', 'replace')}")
        if not judgement.is_blocked:
            return None
        os.write(2, judgement.log_line(address, os.getpid()))
        return judgement.reply + b"\r\n"

    async def judge(self, asked: Judge) -> Taken | Refused:
        """Whether a recipient is taken."""
        verdict: Taken | Refused
        if isinstance(asked.verdict, Taken):
            verdict = asked.verdict
        else:
            verdict = await self._gate.settle(asked.verdict, self._siblings.lookup)
        if asked.checks and isinstance(verdict, Taken):
            return judge_existence(
                verdict, await self._siblings.lookup.exists(verdict.recip)
            )
        return verdict

    async def verify(self, login: Login) -> LoginOutcome:
        """What a login comes to."""
        return await self._login.verify(login)

    # start

    def _take_controls(self, generation: int, files: Mapping[str, bytes]) -> None:
        try:
            self._configure(files, generation)
        except ConfigError as exc:  # start checked them: a surprise
            os.write(2, logline.warning(f"qmail-smtpd: keeping controls: {exc}"))
            return
        self._gate.forget()
        if _extras(self._settings) != self._extras:
            # What it may do cannot grow: start makes another one, with these controls.
            self._tell("control/milters: starting again, to reach all filters")
            self._loop.stop()

    def _configure(self, files: Mapping[str, bytes], generation: int) -> None:
        """Raises: ConfigError; then nothing has changed."""
        controls = parse_controls(files, generation)
        settings = parse_smtpd(files, controls.me)
        access = parse_access(files, controls)
        if settings.certificate != self._certificate:
            self.context = (
                server_context(settings.certificate) if settings.certificate else None
            )
            self._certificate = settings.certificate
        self.me = controls.me or settings.greeting
        self.timeout_s = float(settings.timeout_s)
        self.rules = ServerRules(
            greeting=settings.greeting,
            relay=access.relay,
            own=self._own,
            databytes=settings.databytes,
            recipients_max=settings.recipients_max,
            errors_max=settings.errors_max,
            checks_recipients=settings.checks_recipients,
        )
        self._has_lists = bool(access.rbl)
        self._gate.has_database = controls.has_sql
        self._lists.configure(access.rbl, access.rbl_deadline_s)
        self._dns.set_resolvers(controls.resolvers)
        self._admission.sessions_max = math.ceil(
            settings.sessions_max / self._processes
        )
        self._admission.per_network = settings.sessions_per_address
        self._settings = settings
        if self._is_first:
            self._gate.warn(access.relay)


def _extras(settings: SmtpdSettings) -> Extras:
    """What filters need of the sandbox."""
    milters = settings.milters
    return Extras(
        unix=any(milter.path for milter in milters),
        writes=(spool.DIRECTORY,) if milters else (),
    )


def main(boot: Boot) -> int:
    """Serve until start closes its line; the exit code.

    Raises: whatever was unexpected, for the one line that fork_child writes.
    """
    settings = parse_smtpd(boot.files, boot.controls.me)
    each = 1 + (len(settings.milters) + _SPOOLS if settings.milters else 0)
    aioprocess.begin(TITLE, settings.sessions_max * each + _FDS_SPARE)
    gate, own = Gatekeeper(boot.home, "smtp"), OwnAddresses()
    extras = _extras(settings)
    loop = aioprocess.confine(
        boot.accounts.qmaild, "smtpd", gate.directories, home=boot.home, extras=extras
    )
    smtpd = Smtpd(boot, loop, gate, own, extras)
    smtpd.listen(boot)
    loop.run_forever()
    smtpd.close()
    return 0
