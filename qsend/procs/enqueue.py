"""The enqueue process: the only writer of mess/, intd/ and todo/ of ours.

Runs as qmailq, gid qmail. At entry: socks "start", "listen" (the injection
socket), "send" and listeners, while there are any. Writes below queue/pid, mess,
intd, todo and nothing else; never reads a message. It does not need the queue manager:
without send, mail is accepted and waits in todo/, and after DETACH it outlives
start until the next start takes the listening socket over.
Exits 0 when start closes its line (after DETACH: at TERM or handover), after
finishing what is complete; 111 through an exception.
Source: qmail-queue.c; docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Mapping

import setproctitle

from qsend.core.family import kind
from qsend.core.model import MessId
from qsend.core.quota import Limits
from qsend.core.repeats import Repeats
from qsend.formats.control import parse_controls
from qsend.formats.frames import frame
from qsend.formats.injection import HANDOVER, render_queued
from qsend.sysio import callers, clock, sandbox, trigger
from qsend.sysio.boot import Boot
from qsend.sysio.injectconnection import Connection
from qsend.sysio.injectserver import InjectServer
from qsend.sysio.injectstream import Intake
from qsend.sysio.loop import Loop
from qsend.sysio.parent import Parent
from qsend.sysio.privilege import drop, harden
from qsend.sysio.queuewriter import QueueWriter
from qsend.sysio.syncer import Syncer

_LISTENERS = frozenset({"smtpd", "qmtpd", "qmqpd"})
_SEND_BACKLOG_MAX = 8
"""Packets of QUEUED that send may leave unread; then the trigger tells it."""
_TITLE = "qmail-queue: qsend"


def main(boot: Boot) -> int:
    """Serve until start ends this process; the answer is the exit code.

    Raises: Fatal and QueueTrouble before it serves.
    """
    setproctitle.setproctitle(_TITLE)
    most = _raise_descriptor_limit()
    # A terminal's signal reaches the whole group; start decides what it means.
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.umask(0o033)  # qmail-queue's: what it makes for the queue needs no fchmod then
    drop(boot.accounts.qmailq)
    harden()
    sandbox.apply("enqueue", boot.home)
    enqueue = Enqueue(boot, Limits.for_descriptors(most))
    try:
        enqueue.run()
    finally:
        enqueue.close()
    return 0


class Enqueue:
    """What the process is made of."""

    def __init__(self, boot: Boot, limits: Limits) -> None:
        """Open the queue and serve every socket of `boot`."""
        self._boot = boot
        self._loop = Loop()
        self._writer = QueueWriter(boot.queue)
        self._syncer = Syncer(
            self._loop, boot.controls.durability, [self._writer.todo_fd]
        )
        self._intake = Intake(
            self._writer,
            self._syncer,
            min_free=boot.controls.queueminfree,
            start_pid=os.getppid(),
            on_queued=self._queued,
            on_trouble=self._trouble,
        )
        self._server = InjectServer(
            self._loop, self._intake, boot.accounts, limits, self._hand_over
        )
        self._send: Connection | None = None
        self._messids: list[MessId] = []
        self._repeats = Repeats()
        self._is_detaching = False
        self._is_detached = False
        self._parent = Parent(
            self._loop,
            boot.socks["start"],
            on_close=self._parent_gone,
            on_controls=self._controls,
            on_peer=self._peer,
            on_detach=self._detach,
        )

    def run(self) -> None:
        """Serve until it is time to end."""
        for role, sock in self._boot.socks.items():
            if role == "listen":
                self._server.listen(sock)
            elif role != "start":
                self._peer(role, sock)
        self._loop.at_turn_end(self._tell_queued)
        self._loop.on_signal(signal.SIGTERM, self._terminate)
        self._parent.ready()
        self._loop.run()

    def close(self) -> None:
        """Finish the syncs under way and give everything back."""
        self._syncer.close()
        self._loop.close()
        self._writer.close()

    # What start says

    def _parent_gone(self) -> None:
        if self._is_detaching:
            self._is_detached = True
        else:
            self._server.drain(self._loop.stop, keep_incomplete=False)

    def _terminate(self) -> None:
        """TERM counts when there is no start any more to end this process."""
        if self._is_detached:
            self._server.drain(self._loop.stop, keep_incomplete=False)

    def _detach(self) -> None:
        self._is_detaching = True

    def _controls(self, _generation: int, files: Mapping[str, bytes]) -> None:
        # start validated the whole snapshot; we may know only a part, without me.
        controls = parse_controls({"me": b"unused", **files})
        self._syncer.set_level(controls.durability)
        self._intake.min_free = controls.queueminfree

    def _peer(self, role: str, sock: socket.socket) -> None:
        if role == "send":
            self._replace_send(sock)
        elif kind(role) in _LISTENERS:
            self._server.adopt(sock, callers.listener(self._boot.accounts))
        else:
            sock.close()

    def _replace_send(self, sock: socket.socket) -> None:
        old, self._send = self._send, None
        if old is not None and not old.is_closed:
            old.close()

        def gone() -> None:
            if self._send is connection:
                self._send = None
                self._intake.is_pressed = False

        caller = callers.bounces(self._boot.accounts)
        connection = self._server.adopt(sock, caller, gone)
        self._send = connection

    # What send hears

    def _queued(self, messid: MessId) -> None:
        """A message is in the queue. +mess +todo, durable"""
        self._messids.append(messid)

    def _tell_queued(self) -> None:
        if not self._messids:
            return
        messids, self._messids = self._messids, []
        if self._send is not None and self._send.backlog < _SEND_BACKLOG_MAX:
            for part in render_queued(messids):
                self._send.send(part)
        else:
            # A foreign queue manager, the next send, or one that is very busy.
            trigger.pull(f"{self._boot.queue}/lock/trigger")

    # The end

    def _hand_over(self, connection: Connection) -> bool:
        if not self._is_detached or connection.caller.uid not in (0, os.getuid()):
            return False
        fd = self._server.stop_listening()
        if fd is None:
            return False
        connection.send(frame(HANDOVER, b""), fd)
        self._server.drain(self._loop.stop, keep_incomplete=True)
        return True

    def _trouble(self, text: str) -> None:
        """Say on the log what the operator should know, not once per message."""
        if not self._repeats.is_news(text, clock.mono()):
            return
        os.write(2, f"warning: enqueue: {text}\n".encode("utf-8", "backslashreplace"))


def _raise_descriptor_limit() -> int:
    """Use all descriptors the system lets us; the answer is how many."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
