"""send's lines to those who deliver: lspawn, the remote processes, classic spawners.

A line takes attempts and gives back one report per delivery, whatever happens: the
deliveries of a lost process are reported as crashed. Source: formats/delivery.py;
for classic spawners formats/classic.py.
"""

from __future__ import annotations

import os
import socket
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from qsend.core.errors import RemoteProtocolError
from qsend.core.model import Cause, DelId, Letter
from qsend.formats import frames
from qsend.formats.delivery import (
    FORGET,
    REPORT,
    LocalDelivery,
    Report,
    Transaction,
    parse_report,
    render_local,
    render_transaction,
)
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.loop import Loop

OnReport = Callable[[Report], None]

CHECK_S = 20.0
SILENT_CHECKS = 3
"""A process that is silent for 60 s, though asked, is to be killed."""
LEAD = 8
LEAD_SHARE = 4
"""A remote process may have LEAD attempts more than the one that has fewest, and the
LEAD_SHARE-th part of its; then that one gets attempts for any destination."""
CRASHED = b"The delivery process was lost. (#4.3.0)\n"


class SpawnLine:
    """One line to lspawn or to one remote process."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        name: str,
        on_report: OnReport,
        on_lost: Callable[[str, str], None],
        on_slots: Callable[[], None],
    ) -> None:
        """`on_slots` comes when the process has said how much it takes;
        `on_lost(name, reason)` after the reports of what was lost.
        """
        self.name = name
        self.outstanding: set[DelId] = set()
        self.slots = 0
        self._silences = 0
        self._on_report = on_report
        self._on_lost = on_lost
        self._on_slots = on_slots
        self._endpoint = Endpoint(loop, sock, self._frame, self._closed)

    def start(self, delids: list[DelId], frame: bytes, fd: int | None) -> None:
        """Hand over an attempt; `fd` passes to the process and is closed here."""
        self.outstanding.update(delids)
        self._endpoint.send(frame, fd)

    def is_silent(self) -> bool:
        """Whether it has deliveries and said nothing at SILENT_CHECKS checks.

        Call it every CHECK_S; each call asks for a sign of life.
        """
        if self._endpoint.heard or not self.outstanding:
            self._silences = 0
        else:
            self._silences += 1
        self._endpoint.heard = False
        if self.outstanding:
            self._endpoint.send(frames.frame(frames.PING, b""))
        return self._silences >= SILENT_CHECKS

    def forget_silence(self) -> None:
        """Have the remote process forget which hosts did not answer."""
        self._endpoint.send(frames.frame(FORGET, b""))

    def start_path(self, delivery: LocalDelivery) -> None:
        """Hand over a delivery by the message's path."""
        self.start([delivery.delid], render_local(delivery), None)

    def close(self) -> None:
        """End the line; what it holds is reported as crashed."""
        self._endpoint.close("closed here")

    def _frame(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind == frames.HELLO:
            self.slots = frames.parse_hello(body)
            self._on_slots()
            return
        if kind != REPORT:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from {self.name}")
        report = parse_report(body)
        if report.delid not in self.outstanding:
            raise RemoteProtocolError(f"report of a delivery {self.name} has not got")
        self.outstanding.discard(report.delid)
        self._on_report(report)

    def _closed(self, reason: str) -> None:
        lost, self.outstanding = self.outstanding, set()
        for delid in sorted(lost):
            self._on_report(
                Report(
                    delid=delid,
                    letter=Letter.DEFERRAL,
                    text=CRASHED,
                    cause=Cause.CRASHED,
                )
            )
        self._on_lost(self.name, reason)


class PathLine(Protocol):
    """A line that takes deliveries by path: lspawn's, or a classic spawner's."""

    @property
    def name(self) -> str:
        """Role of the process at the other end."""

    @property
    def slots(self) -> int:
        """How many deliveries it takes at once."""

    def start_path(self, delivery: LocalDelivery) -> None:
        """Hand over one delivery."""


class LocalLine:
    """lspawn, present or between two lives."""

    def __init__(self) -> None:
        self._line: PathLine | None = None

    @property
    def slots(self) -> int:
        """How many deliveries it takes at once; 0 while it is lost."""
        return 0 if self._line is None else self._line.slots

    def attach(self, line: PathLine) -> None:
        """Use this line from now on."""
        self._line = line

    def detach(self, line: PathLine) -> bool:
        """Do without this line; False when it was another that is used."""
        if self._line is not line:
            return False
        self._line = None
        return True

    def start(self, delivery: LocalDelivery) -> None:
        """Hand over one delivery; only while it has slots."""
        if self._line is None:
            raise RuntimeError("no line to lspawn")
        self._line.start_path(delivery)


class RemoteLines:
    """The remote processes: each attempt goes to the one that knows its destination.

    That one has the open sessions and the answers of the DNS. While it has much more
    to do than another, the other one gets the attempt.
    Suspects go to a process of their own, one at a time; it is asked for when
    the first suspect comes and closed when none is left. `classic` is a classic
    spawner that takes all attempts instead, one recipient each, by path.
    """

    def __init__(self, ask_isolated: Callable[[], None]) -> None:
        self.classic: PathLine | None = None
        self._lines: dict[str, SpawnLine] = {}
        self._ask_isolated = ask_isolated
        self._isolated: SpawnLine | None = None
        self._suspects: deque[tuple[Transaction, int]] = deque()

    @property
    def slots(self) -> int:
        """How many attempts they take at once; 0 while all are lost."""
        if self.classic is not None:
            return self.classic.slots
        return sum(line.slots for line in self._lines.values())

    def attach(self, line: SpawnLine) -> None:
        """Add or replace the line of that name; "isolated" takes the suspects."""
        if line.name == "isolated":
            self._isolated = line
            self.pump_suspects()
        else:
            self._lines[line.name] = line

    def __iter__(self) -> Iterator[SpawnLine]:
        """The lines there are now."""
        yield from list(self._lines.values())
        if self._isolated is not None:
            yield self._isolated

    def detach(self, line: PathLine) -> bool:
        """Do without this line; False when it was none of those that are used."""
        if self.classic is line:
            self.classic = None
        elif self._isolated is line:
            self._isolated = None
            if self._suspects:
                self._ask_isolated()
        elif self._lines.get(line.name) is line:
            del self._lines[line.name]
        else:
            return False
        return True

    def start(self, transaction: Transaction, fd: int) -> None:
        """Hand over one attempt; the descriptor of mess/N passes to the process."""
        if transaction.alone:
            self._suspects.append((transaction, fd))
            if self._isolated is None and len(self._suspects) == 1:
                self._ask_isolated()
            self.pump_suspects()
            return
        _hand_over(self._line_for(transaction), transaction, fd)

    def _line_for(self, transaction: Transaction) -> SpawnLine:
        lines = list(self._lines.values())
        if len(lines) == 1:
            return lines[0]
        name = transaction.relay or transaction.domain
        usual = lines[zlib.crc32(name.lower()) % len(lines)]
        idlest = min(lines, key=lambda each: len(each.outstanding))
        fewest = len(idlest.outstanding)
        is_ahead = len(usual.outstanding) >= fewest + LEAD + fewest // LEAD_SHARE
        return idlest if is_ahead else usual

    def forget_silence(self) -> None:
        """Have all of them forget which hosts did not answer."""
        for line in self:
            line.forget_silence()

    def pump_suspects(self) -> None:
        """Give the isolated process its next suspect, or let it end."""
        line = self._isolated
        if line is None or line.outstanding:
            return
        if self._suspects:
            _hand_over(line, *self._suspects.popleft())
        else:
            self._isolated = None
            line.close()

    def close(self) -> None:
        """Drop the suspects that were never handed over."""
        while self._suspects:
            os.close(self._suspects.popleft()[1])


def _hand_over(line: SpawnLine, transaction: Transaction, fd: int) -> None:
    delids = [delid for delid, _ in transaction.recips]
    line.start(delids, render_transaction(transaction), fd)
