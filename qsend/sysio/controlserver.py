"""send's side of run/control.sock: what `qsend status, queue, flush ...` ask.

One JSON object per packet both ways. Only root and send's own account may ask. A
long list goes out a few messages per turn, so that deliveries go on meanwhile.
Source: formats/controlwire.py.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from qsend.core import operator
from qsend.core.errors import LocalProtocolError, QueueCorrupt
from qsend.core.manager import Manager
from qsend.core.message import Phase
from qsend.core.model import Channel, MessId
from qsend.formats import startwire
from qsend.formats.frames import PACKET_MAX
from qsend.formats.recips import parse_recips
from qsend.formats.todo import parse_todo
from qsend.sysio import clock
from qsend.sysio.acceptor import Acceptor
from qsend.sysio.callers import admit
from qsend.sysio.fsq import Queue
from qsend.sysio.loop import READ, Loop

REQUEST_MAX = 4096
CLIENTS_MAX = 32
LIST_STEP = 20
"""Messages per packet of a list."""
LIST_RECIPS_MAX = 50
"""Recipients shown of one message; `more_recips` counts the rest."""

Json = Mapping[str, object]


class Asker(Protocol):
    """How requests for the whole tree reach start."""

    def ask(self, word: bytes) -> None:
        """Pass an ASK_ word on."""


class ControlServer:
    """Answers control clients for one send process."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        queue: Queue,
        manager: Manager,
        parent: Asker,
        generation: Callable[[], int],
    ) -> None:
        """Own `listener`; `generation` is that of the controls in force."""
        self._loop = loop
        self._queue = queue
        self._manager = manager
        self._parent = parent
        self._generation = generation
        self._clients = 0
        Acceptor(loop, listener, self._welcome)

    def _welcome(self, sock: socket.socket) -> None:
        if admit(sock, self._is_welcome) is not None:
            self._clients += 1
            _Client(self, sock)

    def _is_welcome(self, uid: int) -> bool:
        return uid in (0, os.getuid()) and self._clients < CLIENTS_MAX

    # what clients use

    @property
    def loop(self) -> Loop:
        """The loop that serves."""
        return self._loop

    def gone(self) -> None:
        """A client's connection ended."""
        self._clients -= 1

    def answer(self, request: Json) -> Iterator[Json]:
        """The packets that answer one request, made when they can be sent.

        Raises: LocalProtocolError when the request asks for nothing there is.
        """
        do, what = request.get("do"), request.get("what", "all")
        if not isinstance(what, str):
            raise LocalProtocolError("expected a string as what")
        try:
            name = what.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as exc:
            raise LocalProtocolError("expected characters as what") from exc
        match do:
            case "status":
                yield self._status()
            case "queue":
                yield from self._list()
            case "flush" | "cure" | "hold" | "release":
                self._schedule(do, name)
                yield _done()
            case "remove":
                yield self._remove(request.get("messid"))
            case "reload":
                self._parent.ask(startwire.ASK_RELOAD)
                yield _done(generation=self._generation())
            case "stop":
                whole = bool(request.get("all"))
                self._parent.ask(
                    startwire.ASK_STOP_ALL if whole else startwire.ASK_STOP
                )
                yield _done()
            case _:
                raise LocalProtocolError(f"unknown request {do!r}")

    def _schedule(self, do: str, name: bytes) -> None:
        match do:
            case "flush":
                operator.flush(self._manager, name, clock.now())
            case "cure":
                operator.cure(self._manager)
            case "hold":
                operator.hold(self._manager, name)
            case _:
                operator.release(self._manager, name, clock.now())

    def _remove(self, messid: object) -> Json:
        if not isinstance(messid, int):
            raise LocalProtocolError("expected a number as messid")
        if not operator.remove(self._manager, MessId(messid)):
            return {"ok": False, "more": False, "error": f"no message {messid}"}
        return _done()

    def _status(self) -> Json:
        manager = self._manager
        channels = {}
        for channel in Channel:
            waiting = manager.attempts.waiting[channel]
            channels[channel.value] = {
                "running": manager.attempts.running[channel],
                "limit": manager.settings.limits[channel],
                "slots": manager.capacity[channel],
                "waiting": waiting.waiting + len(waiting.parked),
                "scheduled": len(manager.dues[channel]),
            }
        now_mono = clock.mono()
        ill = [
            {
                "destination": _text(each.key),
                "waiting": len(each.waiting),
                "ill_for_s": int(max(0.0, each.ill_until_mono - now_mono)),
                "error": _text(each.error),
            }
            for each in manager.attempts.waiting[Channel.REMOTE]
            if each.failures
        ]
        return _done(
            pid=os.getpid(),
            generation=self._generation(),
            exiting=manager.exiting,
            unprocessed=manager.backlog_size + manager.first,
            channels=channels,
            held=sorted(map(_text, manager.attempts.held)),
            ill=ill[:1000],
        )

    def _list(self) -> Iterator[Json]:
        """The queue as it is when each part is made."""
        due = {channel: self._dues(channel) for channel in Channel}
        numbers = set(self._manager.messages).union(*due.values())
        numbers.update(self._queue.list_todo())
        ordered = sorted(numbers)
        for at in range(0, len(ordered), LIST_STEP):
            items = [self._item(n, due) for n in ordered[at : at + LIST_STEP]]
            found = [item for item in items if item is not None]
            yield {"ok": True, "more": True, "items": found}
        yield {"ok": True, "more": False, "items": []}

    def _dues(self, channel: Channel) -> dict[MessId, int]:
        """When each message that is not in memory is due; parked ones are now."""
        parked = self._manager.attempts.waiting[channel].parked
        dues = {messid: at for at, messid in self._manager.dues[channel]}
        return {**dict.fromkeys(parked, clock.now()), **dues}

    def _item(
        self, messid: MessId, due: Mapping[Channel, Mapping[MessId, int]]
    ) -> Json | None:
        message = self._manager.messages.get(messid)
        rows: list[dict[str, object]] = []
        try:
            size = self._queue.stat_mess(messid).size
            if self._queue.todo_exists(messid):
                content, mtime_ns = self._queue.read_todo(messid)
                envelope = parse_todo(content)
                sender, birth, state = envelope.sender, mtime_ns // 10**9, "todo"
                rows += [{"address": _text(each)} for each in envelope.recips]
            else:
                sender, birth = self._queue.read_info(messid)
                state = "queued"
                for channel in Channel:
                    rows += self._rows(channel, messid, due[channel].get(messid))
        except (OSError, QueueCorrupt) as exc:
            if isinstance(exc, FileNotFoundError):
                return None
            return {"messid": messid, "state": "unreadable", "error": str(exc)}
        if message is not None and message.phase is Phase.ENDING:
            state = "ending"
        last = self._manager.last_reports.get(messid)
        return {
            "messid": messid,
            "birth": birth,
            "bytes": size,
            "sender": _text(sender),
            "state": state,
            "held": b"mess:%d" % messid in self._manager.attempts.held,
            "bouncing": message.bouncing if message is not None else None,
            "last": None if last is None else _text(last),
            "recips": rows[:LIST_RECIPS_MAX],
            "more_recips": max(0, len(rows) - LIST_RECIPS_MAX),
        }

    def _rows(
        self, channel: Channel, messid: MessId, due: int | None
    ) -> list[dict[str, object]]:
        try:
            content = self._queue.read_recips(channel, messid)
        except FileNotFoundError:
            return []
        return [
            {
                "channel": channel.value,
                "address": _text(address),
                "done": is_done,
                "next": None if is_done else due,
            }
            for _offset, is_done, address in parse_recips(content)
        ]


class _Client:
    """One connection: a request at a time, its answer as fast as it is read."""

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._answers: Iterator[Json] | None = None
        self._packet = b""
        sock.setblocking(False)
        server.loop.register(sock.fileno(), READ, self._ready)

    def _ready(self, mask: int) -> None:
        if self._answers is not None and mask & select.EPOLLOUT:
            self._push()
        elif self._answers is None:
            self._read()
        else:
            self._close()

    def _read(self) -> None:
        try:
            packet = self._sock.recv(REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._close()
            return
        try:
            request = json.loads(packet)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            self._answers = iter([_refusal("expected one JSON object")])
        else:
            self._answers = self._server.answer(request)
        self._server.loop.modify(self._sock.fileno(), select.EPOLLOUT)

    def _push(self) -> None:
        """Send the next packet; the loop comes back while the client reads."""
        if not self._packet:
            answer = self._next()
            if answer is None:
                self._answers = None
                self._server.loop.modify(self._sock.fileno(), READ)
                return
            self._packet = json.dumps(answer).encode()
        try:
            if len(self._packet) > PACKET_MAX:
                self._packet = json.dumps(_refusal("answer too long")).encode()
            self._sock.send(self._packet)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._packet = b""

    def _next(self) -> Json | None:
        assert self._answers is not None
        try:
            return next(self._answers, None)
        except LocalProtocolError as exc:
            return _refusal(str(exc))
        except OSError as exc:
            return _refusal(f"queue: {exc}")

    def _close(self) -> None:
        self._server.loop.unregister(self._sock.fileno())
        self._sock.close()
        self._server.gone()


def _done(**facts: object) -> Json:
    return {"ok": True, "more": False, **facts}


def _refusal(error: str) -> Json:
    return {"ok": False, "more": False, "error": error}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
