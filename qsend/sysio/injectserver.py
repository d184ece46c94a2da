"""The injection service: connections and their streams of messages.

A client that trickles, stalls, floods or dies costs the others nothing: bytes are
bounded per packet and turn, ordinary uids have a share of connections, streams
and bytes in progress, and whoever sits idle above that share makes room.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Accounts
from qsend.core.quota import Limits, Quota, Share
from qsend.formats.queueexit import QueueExit
from qsend.sysio import clock
from qsend.sysio.acceptor import Acceptor
from qsend.sysio.callers import Caller, identify
from qsend.sysio.endpoint import Poller
from qsend.sysio.injectconnection import Connection
from qsend.sysio.injectstream import Intake, Stream
from qsend.sysio.loop import Loop
from qsend.sysio.turnbudget import TurnBudget

FIRST_SERIAL = 1 << 22
"""From here on a qp is no pid: Linux has none larger (pid_max)."""


class InjectServer:
    """Serves injection frames on any number of connections."""

    def __init__(
        self,
        loop: Loop,
        intake: Intake,
        accounts: Accounts,
        limits: Limits,
        on_handover: Callable[[Connection], bool] = lambda _connection: False,
    ) -> None:
        """Serve on `loop`.

        `on_handover` is asked when a client wants the listening socket; its
        answer says whether the client may go on.
        """
        self.loop = loop
        self._budget = TurnBudget(loop)
        self.intake = intake
        self._births: dict[Stream, None] = {}  # incomplete, oldest first
        self._accounts = accounts
        self._quota = Quota(limits)
        self._limits = limits
        self._on_handover = on_handover
        self._connections: dict[Connection, Callable[[], None]] = {}
        self._counted: dict[int, dict[Connection, None]] = {}
        self._serials = itertools.count(FIRST_SERIAL)
        self._syncing: set[Stream] = set()
        self._acceptor: Acceptor | None = None
        self._is_sweep_due = False
        self._on_drained: Callable[[], None] | None = None
        self._awaits_first = False

    # For the process

    def listen(self, sock: socket.socket) -> None:
        """Accept clients on `sock`, owning it."""
        self._acceptor = Acceptor(self.loop, sock, self._welcome)

    def stop_listening(self) -> int | None:
        """Accept no more; the listening descriptor, from now on the caller's."""
        listen = self._acceptor.release() if self._acceptor is not None else None
        return None if listen is None else listen.detach()

    def adopt(
        self,
        sock: socket.socket,
        caller: Caller,
        on_close: Callable[[], None] = lambda: None,
    ) -> Connection:
        """Serve a connected socket, owning it."""
        connection = Connection(self, sock, caller)
        self._connections[connection] = on_close
        if not caller.is_trusted:
            self._quota.connect(caller.uid)
            self._counted.setdefault(caller.uid, {})[connection] = None
        return connection

    def drain(self, on_drained: Callable[[], None], *, keep_incomplete: bool) -> None:
        """Take nothing new, finish, then call `on_drained` from the loop, once.

        Complete messages are always finished and answered. Incomplete ones are
        waited for, or dropped; with them the first of a client that has been
        accepted and not yet heard, unless it stalls.
        """
        self._on_drained = on_drained
        self._awaits_first = keep_incomplete
        if keep_incomplete:
            self.loop.call_later(self._limits.stalled_s, self._await_no_first)
        fd = self.stop_listening()
        if fd is not None:
            os.close(fd)
        for connection in list(self._connections):
            if not keep_incomplete:
                connection.abort_incomplete()
            self.settled(connection)
        self._check_drained()

    def _await_no_first(self) -> None:
        self._awaits_first = False
        for connection in list(self._connections):
            self.settled(connection)

    # For connections

    def poller(self, caller: Caller) -> Poller:
        """Where a client is served."""
        return self.loop if caller.is_trusted else self._budget

    def next_serial(self) -> int:
        """The qp of a message that cannot have its client's pid."""
        return next(self._serials)

    def share(self, caller: Caller) -> Share:
        """What a new stream counts against."""
        return Share() if caller.is_trusted else self._quota.begin(caller.uid)

    def begun(self, stream: Stream, *, is_first: bool) -> None:
        """A stream exists, of a connection the first or not: start its clock."""
        self._births[stream] = None
        self._plan_sweep()
        if self._on_drained is not None and not (is_first and self._awaits_first):
            stream.fail(QueueExit.BUSY)
        else:
            stream.begin()

    def completed(self, stream: Stream) -> None:
        """A stream is about to be committed: the client's part is over."""
        self._births.pop(stream, None)
        self._syncing.add(stream)

    def answered(self, stream: Stream) -> None:
        """A stream is over, or failed early."""
        self._births.pop(stream, None)
        self._syncing.discard(stream)

    def forgotten(self, stream: Stream) -> None:
        """A stream will never be answered, or has been."""
        self._births.pop(stream, None)

    def settled(self, connection: Connection) -> None:
        """A stream of a connection is over; when draining, so may both be."""
        if self._on_drained is None:
            return
        is_over = connection.has_begun or not self._awaits_first
        if is_over and connection.is_idle and not connection.is_closed:
            connection.close()
        self._check_drained()

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        on_close = self._connections.pop(connection)
        counted = self._counted.get(connection.caller.uid, {})
        if connection in counted:
            del counted[connection]
            self._quota.disconnect(connection.caller.uid)
        on_close()
        self._check_drained()

    def press(self, connection: Connection, *, is_pressed: bool) -> None:
        """A client says that it has too much to take up, or no more.

        Raises: RemoteProtocolError when it is not send.
        """
        if not connection.caller.is_exempt:
            raise RemoteProtocolError("pressure from this peer")
        self.intake.is_pressed = is_pressed

    def hand_over(self, connection: Connection) -> None:
        """A client asks for the listening socket.

        Raises: RemoteProtocolError when it may not have it.
        """
        if not self._on_handover(connection):
            raise RemoteProtocolError("no handover to this peer")

    def _check_drained(self) -> None:
        if self._on_drained and not self._connections and not self._syncing:
            self.loop.call_soon(self._on_drained)
            self._on_drained = _nothing

    # The 24 hours

    def _plan_sweep(self) -> None:
        """One timer for all streams: a timer each would stay in the loop for a day."""
        if self._is_sweep_due or not self._births:
            return
        self._is_sweep_due = True
        end_mono = next(iter(self._births)).birth_mono + self._limits.message_s
        self.loop.call_later(max(0.0, end_mono - clock.mono()), self._sweep)

    def _sweep(self) -> None:
        self._is_sweep_due = False
        last_mono = clock.mono() - self._limits.message_s
        late = itertools.takewhile(
            lambda one: one.birth_mono <= last_mono, self._births
        )
        for stream in list(late):
            stream.fail(QueueExit.TIMEOUT)
        self._plan_sweep()

    # New clients

    def _welcome(self, sock: socket.socket) -> None:
        try:
            caller = identify(sock, self._accounts)
        except OSError:
            sock.close()
            return
        is_admitted = caller.is_trusted or self._admit(caller)
        connection = self.adopt(sock, caller)
        if not is_admitted:
            connection.refuse()

    def _admit(self, caller: Caller) -> bool:
        """Whether an ordinary caller may come in; a stalled one may have to go."""
        uid, is_busy_too = caller.uid, False
        if not self._quota.has_own_share(uid):
            if not self._quota.is_full():
                return True
            uid, is_busy_too = self._quota.who_makes_room(uid)
        return self.intake.may_exceed(caller) or self._evict(uid, is_busy_too)

    def _evict(self, uid: int, is_busy_too: bool) -> bool:
        """Drop the longest idle connection of `uid`, if it is stalled or may go."""
        candidates = [one for one in self._counted[uid] if not one.is_syncing]
        if not candidates:
            return False
        idlest = min(candidates, key=lambda one: one.last_mono)
        is_stalled = clock.mono() - idlest.last_mono >= self._limits.stalled_s
        if is_stalled or is_busy_too:
            idlest.refuse()
            return True
        return False


def _nothing() -> None:
    """Stands for an `on_drained` that was called."""
