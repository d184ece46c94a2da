"""The operator's side of run/control.sock, and facts about the tree's processes."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator

import psutil

from qsend.core.errors import PermFail, QsendError, RemoteProtocolError, TempFail
from qsend.formats.controlwire import ANSWER_MAX, Answer, parse_answer, render_request
from qsend.sysio.ground import control_path
from qsend.sysio.unixsocket import connect_to

TIMEOUT_S = 30.0
"""send answers between two turns of its loop; while it is being replaced, the
request waits in the socket."""

_CRED = struct.Struct("3i")


class NotRunning(TempFail):
    """Nobody listens: the tree is not running."""


class Refused(QsendError):
    """The queue manager said no; the text says why."""


class ControlClient:
    """One connection to a running tree; close it after use."""

    def __init__(self, home: str) -> None:
        """Connect. Raises: NotRunning, PermFail, TempFail."""
        try:
            self._sock = connect_to(control_path(home))
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise NotRunning(f"qsend is not running in {home}") from exc
        except PermissionError as exc:
            raise PermFail(
                "only root and the account that runs qmail-send may ask"
            ) from exc
        except OSError as exc:
            raise TempFail(f"cannot ask the queue manager: {exc.strerror}") from exc
        self._sock.settimeout(TIMEOUT_S)

    def close(self) -> None:
        """Give the connection back."""
        self._sock.close()

    @property
    def root_pid(self) -> int:
        """The pid of start: it is who made the listening socket."""
        cred = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CRED.size)
        return int(_CRED.unpack(cred)[0])

    def ask(self, do: str, **more: object) -> Iterator[Answer]:
        """The packets of the answer, as they come.

        Raises: Refused when the answer is no; TempFail when none comes.
        """
        try:
            self._sock.send(render_request(do, **more))
            while True:
                answer = self._receive()
                if answer.error:
                    raise Refused(answer.error)
                yield answer
                if not answer.more:
                    return
        except TimeoutError as exc:
            raise TempFail("the queue manager does not answer") from exc
        except OSError as exc:
            raise TempFail(f"the queue manager went away: {exc.strerror}") from exc
        except RemoteProtocolError as exc:
            raise TempFail(f"the queue manager answers strangely: {exc}") from exc

    def ask_one(self, do: str, **more: object) -> Answer:
        """The only packet of the answer. Raises: as ask."""
        *_, last = self.ask(do, **more)
        return last

    def _receive(self) -> Answer:
        packet, _, flags, _ = self._sock.recvmsg(ANSWER_MAX)
        if not packet:
            raise TempFail("the queue manager went away")
        if flags & socket.MSG_TRUNC:
            raise RemoteProtocolError("an answer is too long")
        return parse_answer(packet)


class ProcessWatch:
    """Waits for a process that is not our child to end."""

    def __init__(self, pid: int) -> None:
        """Hold on to the process with this number; one that is gone is ended."""
        self._fd: int | None
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
            self._fd = None

    def wait(self) -> None:
        """Return when the process has ended, however long that takes."""
        if self._fd is None:
            return
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.poll()
        os.close(self._fd)
        self._fd = None


def processes(root_pid: int) -> list[dict[str, object]]:
    """pid, name, uid, rss in bytes and cpu seconds of start and all below it."""
    try:
        root = psutil.Process(root_pid)
        members = [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
    found = []
    for member in members:
        try:
            with member.oneshot():
                times = member.cpu_times()
                title = member.cmdline()[:1] or [member.name()]
                found.append(
                    {
                        "pid": member.pid,
                        "name": title[0].removesuffix(": qsend"),
                        "uid": member.uids().real,
                        "rss": member.memory_info().rss,
                        "cpu_s": round(times.user + times.system, 2),
                    }
                )
        except psutil.Error:
            continue  # ended since it was listed
    return found
