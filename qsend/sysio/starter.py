"""Begins attempts: reads what is missing, logs, and hands over to a spawner."""

from __future__ import annotations

from collections.abc import Callable

from qsend.core import logline
from qsend.core.address import verp
from qsend.core.errors import QueueCorrupt
from qsend.core.manager import Manager
from qsend.core.message import StartDelivery
from qsend.core.model import Cause, Channel, DelId, Letter
from qsend.formats import paths
from qsend.formats.delivery import LocalDelivery, Report, Transaction
from qsend.sysio import clock
from qsend.sysio.clocks import Clocks
from qsend.sysio.fsq import Queue
from qsend.sysio.loader import Loader
from qsend.sysio.spawnlines import LocalLine, RemoteLines

UNKNOWN = b"Sorry, there is no mailbox here by that name. (#5.1.1)\n"
"""To a recipient that the database does not have, at a host that it has."""
UNREADABLE = b"The message could not be read from the queue. (#4.3.0)\n"


class Starter:
    """Does what StartDelivery says."""

    def __init__(
        self,
        queue: Queue,
        loader: Loader,
        manager: Manager,
        local: LocalLine,
        remote: RemoteLines,
        say: Callable[[bytes], None],
        clocks: Clocks = clock,
    ) -> None:
        self._queue = queue
        self._loader = loader
        self._manager = manager
        self._local = local
        self._remote = remote
        self._say = say
        self._clocks = clocks

    def start(self, action: StartDelivery) -> None:
        """Begin one attempt; what cannot begin is reported as deferred."""
        try:
            recips = self._addresses(action)
        except QueueCorrupt as exc:
            path = paths.recips(action.channel, action.messid)
            self._manager.damaged(action.messid, f"{path}: {exc}")
            self._defer(action, UNREADABLE)
            return
        except OSError as exc:
            path = paths.recips(action.channel, action.messid)
            self._say(logline.warning(f"trouble reading {path}: {exc.strerror}"))
            self._defer(action, UNREADABLE)
            return
        for delid, recip in recips:
            self._say(logline.starting(delid, action.messid, action.channel, recip))
        if action.verdict is not None:
            self._defer(action, action.verdict)
        elif self._is_unknown(action):
            self._end(action, Letter.FAILURE, UNKNOWN)
        elif action.channel is Channel.LOCAL:
            self._local.start(_by_path(action, *recips[0]))
        elif self._remote.classic is not None:
            self._remote.classic.start_path(_by_path(action, *recips[0]))
        else:
            self._start_remote(action, recips)

    def report(self, report: Report) -> None:
        """Pass a spawner's report on."""
        self._manager.report(
            report.delid,
            report.letter,
            report.text,
            report.cause,
            self._clocks.now(),
            self._clocks.mono(),
        )

    def _addresses(self, action: StartDelivery) -> list[tuple[DelId, bytes]]:
        recips = []
        for delid, offset, known in action.recips:
            address = known
            if not address:
                address = self._queue.read_recip(action.channel, action.messid, offset)
                self._manager.recip_read(delid, address)
            recips.append((delid, address))
        return recips

    def _start_remote(
        self, action: StartDelivery, recips: list[tuple[DelId, bytes]]
    ) -> None:
        try:
            fd, size = self._loader.take_mess(action.messid)
        except (OSError, QueueCorrupt) as exc:
            path = paths.mess(action.messid)
            self._say(logline.warning(f"trouble opening {path}: {exc}"))
            self._defer(action, UNREADABLE)
            return
        first = recips[0][1]
        domain, route = self._loader.routing.route(first)
        try:
            self._remote.start(
                Transaction(
                    domain=domain,
                    relay=b"" if route is None else route.host,
                    port=25 if route is None else route.port or 25,
                    size=size,
                    sender=verp(action.sender, first),
                    recips=tuple(recips),
                    alone=action.alone,
                ),
                fd,
            )
        except BaseException:
            self._queue.close_fd(fd)
            raise

    def _is_unknown(self, action: StartDelivery) -> bool:
        """Whether there is no such recipient; local ones come one at a time."""
        message = self._manager.messages.get(action.messid)
        if message is None or action.channel is not Channel.LOCAL:
            return False
        note = message.notes.get(action.recips[0][1])
        return note is not None and note.is_unknown

    def _defer(self, action: StartDelivery, text: bytes) -> None:
        self._end(action, Letter.DEFERRAL, text)

    def _end(self, action: StartDelivery, letter: Letter, text: bytes) -> None:
        for delid, _offset, _address in action.recips:
            self.report(
                Report(delid=delid, letter=letter, text=text, cause=Cause.NORMAL)
            )


def _by_path(action: StartDelivery, delid: DelId, recip: bytes) -> LocalDelivery:
    return LocalDelivery(
        delid=delid,
        path=paths.split_name(action.messid).encode(),
        sender=verp(action.sender, recip),
        recip=recip,
        alone=action.alone,
    )
