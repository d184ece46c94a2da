"""send's line to a classic spawner (qmail-lspawn, qmail-rspawn): slots of one byte.

The spawner says first how many deliveries it takes; commands are written whole and
in order, reports come back in any order. Source: qmail-send.c comm_*, del_*.
"""

from __future__ import annotations

from collections.abc import Callable

from qsend.core.model import Cause, DelId, Letter
from qsend.formats.classic import (
    ClassicReport,
    Command,
    ReportReader,
    render_command,
)
from qsend.formats.delivery import LocalDelivery, Report
from qsend.sysio.loop import Loop
from qsend.sysio.spawnlines import CRASHED
from qsend.sysio.wire import Wire

READ_MAX = 65536
MANGLED = b"The delivery's report was mangled. (#4.3.0)\n"


class ClassicSpawnLine:
    """One line to a classic spawner."""

    def __init__(
        self,
        loop: Loop,
        wire: Wire,
        name: str,
        on_report: Callable[[Report], None],
        on_lost: Callable[[str, str], None],
        on_slots: Callable[[], None],
    ) -> None:
        """As SpawnLine; `wire` passes to the line."""
        self.name = name
        self.slots = 0
        self._wire = wire
        self._on_report = on_report
        self._on_lost = on_lost
        self._on_slots = on_slots
        self._reader = ReportReader()
        self._by_delnum: dict[int, DelId] = {}
        self._out = bytearray()
        wire.serve(loop, self._read, self._write)

    def start_path(self, delivery: LocalDelivery) -> None:
        """Hand over one delivery in the lowest free slot."""
        delnum = next(n for n in range(256) if n not in self._by_delnum)
        self._by_delnum[delnum] = delivery.delid
        self._out += render_command(
            Command(
                delnum=delnum,
                path=delivery.path,
                sender=delivery.sender,
                recip=delivery.recip,
            )
        )
        self._write()

    def _write(self) -> None:
        try:
            while self._out:
                del self._out[: self._wire.write(self._out)]
        except BlockingIOError:
            pass
        except OSError as exc:
            self._close(f"write failed: {exc.strerror}")
            return
        self._wire.await_room(bool(self._out))

    def _read(self) -> None:
        try:
            data = self._wire.read(READ_MAX)
        except BlockingIOError:
            return
        except OSError as exc:
            self._close(f"read failed: {exc.strerror}")
            return
        if not data:
            self._close("closed")
            return
        if not self.slots:
            # At least one slot, and slot numbers below 255 (qmail-send.c).
            self.slots = min(max(data[0], 1), 255)
            data = data[1:]
            self._on_slots()
        for report in self._reader.feed(data):
            self._take(report)

    def _take(self, report: ClassicReport) -> None:
        delid = self._by_delnum.pop(report.delnum, None)
        if delid is None:
            delid = DelId(0)  # the manager logs a report out of range
        if report.letter is None:
            told = Report(
                delid=delid, letter=Letter.DEFERRAL, text=MANGLED, cause=Cause.MANGLED
            )
        else:
            told = Report(delid=delid, letter=report.letter, text=report.text)
        self._on_report(told)

    def _close(self, reason: str) -> None:
        self._wire.close()
        lost, self._by_delnum = self._by_delnum, {}
        for delid in sorted(lost.values()):
            self._on_report(
                Report(
                    delid=delid,
                    letter=Letter.DEFERRAL,
                    text=CRASHED,
                    cause=Cause.NORMAL,
                )
            )
        self._on_lost(self.name, reason)
