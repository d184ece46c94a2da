"""qmail-smtpd: take mail by SMTP on descriptors 0 and 1, under tcpserver or inetd.

Who the client is and what it may is in the environment: TCPREMOTEIP, TCPREMOTEHOST,
TCPREMOTEINFO, TCPLOCALHOST, TCPLOCALIP, RELAYCLIENT, DATABYTES, QMAILQUEUE. Exit code
0 after QUIT, 1 when the client went otherwise or the controls cannot be read.
Source: qmail-smtpd(8), qmail-smtpd.c. Unlike it: a missing control/rcpthosts takes
mail for nobody, and recipients are judged under the address that percenthack makes.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING

from qsend.cli.options import teach, wants_help
from qsend.core import smtpdreplies as replies
from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.milter import Discarded, Refusal
from qsend.core.relay import Refused, Taken, judge_existence
from qsend.core.smtpd import Dialogue
from qsend.core.smtpdsteps import (
    Abandon,
    Begin,
    Bye,
    Chunk,
    Filter,
    Finish,
    Judge,
    Peer,
    Say,
    ServerRules,
    Step,
    databytes_of,
)
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import Controls, parse_controls
from qsend.formats.milters import Milter
from qsend.formats.smtpdcontrols import SmtpdSettings, parse_smtpd
from qsend.formats.smtpreceived import render_received_of
from qsend.sysio import clock
from qsend.sysio.clientline import ClientGone, ClientLine, ClientSilent
from qsend.sysio.home import find_home, read_control
from qsend.sysio.hostask import HostAsk
from qsend.sysio.mailqueue import inject
from qsend.sysio.stderr import complain, ensure_stderr

if TYPE_CHECKING:
    from qsend.sysio.blockingfilters import BlockingFilters

CONTROLS = (
    "me", "badmailfrom", "databytes", "envnoathost", "localiphost", "maxrecipients",
    "maxsmtperrors", "milters", "percenthack", "rcpthosts", "recipientcheck",
    "smtpgreeting", "timeoutsmtpd",
)  # fmt: skip
_GONE = 1
_FIRST_S = 60.0
"""How long a client may take a refusal before the controls say how long."""

_HELP = """\
usage: qmail-smtpd

Takes mail by SMTP on descriptors 0 and 1. Run it under tcpserver, as the user qmaild:

  tcpserver -x /etc/tcp.smtp.cdb -u qmaild -g nofiles 0 smtp qmail-smtpd
"""


class _OwnAddresses(Container[str]):
    """This machine's addresses, found out only if a client names one."""

    def __contains__(self, address: object) -> bool:
        # Almost no run needs it, and it loads more than all the rest.
        module = importlib.import_module("qsend.sysio.localaddrs")
        try:
            return address in module.own_addresses()
        except TempFail:
            return False


def main(argv: Sequence[str]) -> int:
    """Serve one client; the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    try:
        session = _open(find_home(None, os.environ))
    except QsendError as exc:
        _complain(str(exc))
        return _refuse()
    try:
        return session.run()
    except ClientSilent:
        session.line.write(replies.TIMEOUT)
        return session.leave()
    except ClientGone:
        return _GONE
    except Exception as exc:  # noqa: BLE001 - the outermost frame
        _complain(repr(exc))
        session.line.write(b"451 4.3.0 internal trouble (#4.3.0)\r\n")
        return session.leave()
    finally:
        session.close()


def _open(home: str) -> _Session:
    """Raises: TempFail, ConfigError."""
    found = {name: read_control(home, name) for name in CONTROLS}
    files = {name: content for name, content in found.items() if content is not None}
    # Which domains are local is nobody's business here.
    controls = parse_controls({"locals": b"", **files})
    settings = parse_smtpd(files, controls.me)
    if not settings.greeting:
        raise TempFail("there is neither control/smtpgreeting nor control/me")
    return _Session(home, files, controls, settings)


def _refuse() -> int:
    line = ClientLine(0, 1, _FIRST_S)
    try:
        line.write(replies.UNREADABLE)
        line.flush()
    except ClientGone:
        pass
    finally:
        line.close()
    return _GONE


def _complain(words: str) -> None:
    complain("qmail-smtpd", words)


class _Stop(Exception):
    """A message ends without being queued; `step` says what follows."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step


def _queued(qp: int) -> Say:
    return Say(text=b"250 2.0.0 ok %d qp %d\r\n" % (clock.now(), qp))


class _Session:
    """One client."""

    def __init__(
        self,
        home: str,
        files: dict[str, bytes],
        controls: Controls,
        settings: SmtpdSettings,
    ) -> None:
        self.line = ClientLine(0, 1, settings.timeout_s)
        self._home = home
        self._hosts = HostAsk(home, _complain)
        environ = os.environb
        rules = ServerRules(
            greeting=settings.greeting,
            relay=parse_access(files, controls).relay,
            own=_OwnAddresses(),
            databytes=settings.databytes,
            recipients_max=settings.recipients_max,
            errors_max=settings.errors_max,
            checks_recipients=settings.checks_recipients,
        )
        self._filters = self._open_filters(settings.milters, controls.me)
        peer = Peer(
            relay_suffix=environ.get(b"RELAYCLIENT"),
            databytes=databytes_of(environ),
            is_filtered=self._filters is not None,
        )
        self._talk = Dialogue(rules, peer)

    def _open_filters(
        self, milters: Sequence[Milter], me: bytes
    ) -> BlockingFilters | None:
        met = [each for each in milters if each.serves(is_submission=False)]
        if not met:
            return None
        # Who has no filters does not wait for it to load.
        module = importlib.import_module("qsend.sysio.blockingfilters")
        made: BlockingFilters = module.BlockingFilters(
            self._home, met, me, os.environb, _complain
        )
        return made

    def run(self) -> int:
        """Serve until the client goes. Raises: ClientGone."""
        self.line.write(self._talk.greeting)
        while True:
            step = self._next()
            if isinstance(step, Begin):
                step = self._take(step)
            if isinstance(step, Judge):
                step = self._talk.judged(self._judge(step))
            if isinstance(step, Filter):
                assert self._filters is not None
                step = self._talk.filtered(step, self._filters.recipient(step))
            assert isinstance(step, Say | Bye)  # nothing else is offered
            self.line.write(step.text)
            if isinstance(step, Bye):
                self.line.flush()
                return 0 if step.text.startswith(b"221") else _GONE

    def close(self) -> None:
        """Forget the client."""
        if self._filters is not None:
            self._filters.close()
        self.line.close()

    def leave(self) -> int:
        """Say the last words, if the client still takes them; the exit code."""
        try:
            self.line.flush()
        except ClientGone:
            pass
        return _GONE

    def _next(self) -> Step:
        while (step := self._talk.next()) is None:
            self._talk.feed(self.line.read())
        return step

    # Recipients

    def _judge(self, asked: Judge) -> Taken | Refused:
        verdict: Taken | Refused
        if isinstance(asked.verdict, Taken):
            verdict = asked.verdict
        else:
            verdict = self._hosts.settle(asked.verdict)
        if asked.checks and isinstance(verdict, Taken):
            return judge_existence(verdict, self._hosts.exists(verdict.recip))
        return verdict

    # Messages

    def _take(self, begin: Begin) -> Step:
        """Queue a message; what to say then. Raises: ClientGone."""
        self.line.write(replies.GO_AHEAD)
        pieces = self._pieces(begin)
        try:
            if self._filters is not None:
                return self._filter(self._filters, begin, pieces)
            return self._queue(begin.sender, begin.recips, pieces)[0]
        except _Stop as stop:
            return stop.step

    def _filter(
        self, filters: BlockingFilters, begin: Begin, pieces: Iterator[bytes]
    ) -> Step:
        """Have the message looked at, and queue what is left. Raises: _Stop ..."""
        received = next(pieces)
        filters.begin()
        try:
            for piece in pieces:
                filters.write(piece)
            found = filters.finish(begin.sender, begin.recips)
            if isinstance(found, Refusal):
                return self._talk.refused(found.text)
            if isinstance(found, Discarded):
                return _queued(0)
            chunks = itertools.chain([received], found.chunks)
            reply, qp = self._queue(found.sender, found.recips, chunks)
            if qp:
                filters.tell_queued(found, qp)
            return reply
        finally:
            filters.abandon()

    def _queue(
        self, sender: bytes, recips: Sequence[bytes], pieces: Iterator[bytes]
    ) -> tuple[Say, int]:
        """Queue it: the reply, and its qp, 0 without. Raises: _Stop, ClientGone."""
        try:
            qp = inject(self._home, pieces, sender, recips, os.environ)
        except (PermFail, TempFail) as exc:
            for _ in pieces:
                pass  # the client says all before it listens
            code = 554 if isinstance(exc, PermFail) else 451
            return Say(text=replies.reply(code, str(exc))), 0
        return _queued(qp), qp

    def _pieces(self, begin: Begin) -> Iterator[bytes]:
        """The message as it comes. Raises: _Stop when it is not taken, ClientGone."""
        yield render_received_of(
            os.environb, helo=begin.helo, protocol=begin.protocol, now=clock.now()
        )
        while True:
            match self._next():
                case Chunk(data=data):
                    yield data
                case Finish():
                    return
                case Abandon():
                    continue
                case step:
                    raise _Stop(step)
