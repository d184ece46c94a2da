"""The frame of a classic spawner: commands on descriptor 0, reports on 1.

It checks each command, opens the message, has a child started, collects what the
child writes, and reports when the child is dead. Unlike qmail's it does not wait
for a descendant that keeps the child's output open: the slot is free at once, and
what such a process still writes is read and dropped, so that it meets no SIGPIPE.
Must not do: know what a delivery is; the hooks do.
Source: spawn.c.
"""

from __future__ import annotations

import os
import signal
import stat
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from qsend.core import spawncheck
from qsend.core.errors import TempFail
from qsend.core.model import Letter
from qsend.formats.classic import (
    SLOTS_DEFAULT,
    Command,
    CommandReader,
    render_report,
)
from qsend.sysio.loop import READ, Loop

OUTPUT_MAX = 1 << 20
"""Output of one child kept when the hooks set no limit; send clips at 10000."""
STRAYS_MAX = 1000
"""Pipes kept for descendants that outlive their child; the oldest is closed."""
CUT_NOTE = b"\nThe rest of the text was cut.\n"
_CUT_SPARE = 3
"""The classic spawner cuts this much below its limit."""
_PIECE = 65536
_LAST_PIECES = 16
"""Reads from a dead child's pipe, which holds 64 KiB unless made larger."""

Answer = tuple[Letter, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One delivery that passed the checks; `at` is the last `@` in `recip`."""

    sender: bytes
    recip: bytes
    at: int


class Hooks(Protocol):
    """What makes a spawner the local or the remote one."""

    def start(self, job: Job, message: int, output: int) -> int:
        """Start a child and return its pid.

        The child needs `message` as descriptor 0 and `output` as 1 and 2; both
        are close-on-exec and stay the frame's, which closes them afterwards.
        Raises: OSError for a Z report, TempFail for a Z report with its text.
        """

    def report(self, status: int, output: bytes) -> Answer:
        """The report of a dead child, text with NULs allowed.

        `status` is its exit code, or minus the signal that killed it.
        """


@dataclass(slots=True)
class _Child:
    delnum: int
    pid: int
    pipe: int
    output: bytearray = field(default_factory=bytearray)
    is_at_end: bool = False


class Spawner:
    """Serves one send over two descriptors; the current directory is mess/."""

    def __init__(
        self,
        hooks: Hooks,
        *,
        limit: int = SLOTS_DEFAULT,
        output_max: int = 0,
        commands: int = 0,
        reports: int = 1,
    ) -> None:
        """Prepare to serve; `serve` does.

        Args:
            limit: deliveries at once, 1 to 255.
            output_max: longest report text, longer ones are cut with a note; 0
                for no such limit.
            commands, reports: the descriptors, which stay the caller's.
        Raises: OSError when the current directory cannot be looked at.
        """
        self._hooks = hooks
        self._limit = limit
        self._output_max = output_max
        self._commands = commands
        self._reports = reports
        # mess/ belongs to the account whose messages it holds: qmailq, or the
        # one user of single-user mode.
        self._owner = os.stat(".").st_uid
        self._loop = Loop()
        self._reader = CommandReader()
        self._children: dict[int, _Child] = {}
        self._strays: OrderedDict[int, None] = OrderedDict()
        self._is_open = True
        self._is_polled = True
        self._is_mute = False

    def serve(self) -> None:
        """Serve until the commands end and the last child is dead."""
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        self._write(bytes((self._limit,)))
        try:
            self._loop.register(self._commands, READ, self._read_commands)
        except PermissionError:  # a file or /dev/null, which epoll refuses
            self._is_polled = False
            while self._is_open:
                self._read_commands(READ)
        self._loop.run()
        for pipe in self._strays:
            os.close(pipe)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._loop.close()

    # Commands.

    def _read_commands(self, _mask: int) -> None:
        try:
            data = os.read(self._commands, _PIECE)
        except OSError:
            data = b""
        if not data:
            self._is_open = False
            if self._is_polled:
                self._loop.unregister(self._commands)
            self._stop_when_done()
        for command in self._reader.feed(data):
            answer = self._start(command)
            if answer is not None:
                self._report(command.delnum, answer)

    def _stop_when_done(self) -> None:
        if not self._is_open and not self._children:
            self._loop.stop()

    def _start(self, command: Command) -> Answer | None:
        """Start a delivery; the answer when that fails."""
        if command.is_cut:
            return spawncheck.CANNOT_FORK
        if command.delnum >= self._limit or command.delnum in self._children:
            return spawncheck.BAD_DELNUM
        refusal = spawncheck.refuse(command.path, command.recip)
        if refusal is not None:
            return refusal
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            message = os.open(command.path, flags)
        except OSError:
            return spawncheck.CANNOT_OPEN
        try:
            return self._start_child(command, message)
        finally:
            os.close(message)

    def _start_child(self, command: Command, message: int) -> Answer | None:
        try:
            status = os.fstat(message)
        except OSError:
            return spawncheck.CANNOT_OPEN
        if not stat.S_ISREG(status.st_mode) or status.st_uid != self._owner:
            return spawncheck.WRONG_FILE
        try:
            pipe, output = os.pipe2(os.O_CLOEXEC)
        except OSError:
            return spawncheck.CANNOT_FORK
        at = command.recip.rindex(b"@")
        job = Job(sender=command.sender, recip=command.recip, at=at)
        try:
            pid = self._hooks.start(job, message, output)
        except (OSError, TempFail) as exc:
            os.close(pipe)
            if isinstance(exc, TempFail):
                return Letter.DEFERRAL, str(exc).encode("ascii", "replace") + b"\n"
            return spawncheck.CANNOT_FORK
        finally:
            os.close(output)
        os.set_blocking(pipe, False)
        child = _Child(delnum=command.delnum, pid=pid, pipe=pipe)
        self._children[command.delnum] = child
        self._loop.register(pipe, READ, lambda _mask: self._take_output(child))
        return None

    # Children.

    def _take_output(self, child: _Child) -> None:
        self._collect(child)

    def _collect(self, child: _Child) -> bool:
        """Take a piece of output; whether there may be more at once."""
        if child.is_at_end:
            return False
        try:
            piece = os.read(child.pipe, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            child.is_at_end = True
            self._loop.unregister(child.pipe)
            return False
        room = (self._output_max + 1 if self._output_max else OUTPUT_MAX) - len(
            child.output
        )
        child.output += piece[: max(0, room)]
        return True

    def _reap(self) -> None:
        """SIGCHLD: report whoever is dead; one signal may stand for several."""
        for child in tuple(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid == child.pid:
                self._end(child, os.waitstatus_to_exitcode(status))
        self._stop_when_done()

    def _end(self, child: _Child, status: int) -> None:
        for _ in range(_LAST_PIECES):
            if not self._collect(child):
                break
        del self._children[child.delnum]
        if child.is_at_end:
            os.close(child.pipe)
        else:
            self._keep_stray(child.pipe)
        answer = self._hooks.report(status, self._cut(bytes(child.output)))
        self._report(child.delnum, answer)

    def _cut(self, output: bytes) -> bytes:
        if not self._output_max or len(output) <= self._output_max:
            return output
        return output[: self._output_max - len(CUT_NOTE) - _CUT_SPARE] + CUT_NOTE

    def _keep_stray(self, pipe: int) -> None:
        self._loop.unregister(pipe)
        self._strays[pipe] = None
        self._loop.register(pipe, READ, lambda _mask: self._drop_output(pipe))
        if len(self._strays) > STRAYS_MAX:
            self._close_stray(next(iter(self._strays)))

    def _drop_output(self, pipe: int) -> None:
        try:
            piece = os.read(pipe, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._close_stray(pipe)

    def _close_stray(self, pipe: int) -> None:
        del self._strays[pipe]
        self._loop.unregister(pipe)
        os.close(pipe)

    # Reports.

    def _report(self, delnum: int, answer: Answer) -> None:
        letter, text = answer
        self._write(render_report(delnum, letter, text))

    def _write(self, data: bytes) -> None:
        """Blocking: send reads its reports whenever it is not writing."""
        try:
            while data and not self._is_mute:
                data = data[os.write(self._reports, data) :]
        except OSError:
            self._is_mute = True  # send is gone; deliveries under way still end


def serve(hooks: Hooks, *, limit: int = SLOTS_DEFAULT, output_max: int = 0) -> int:
    """Serve on descriptors 0 and 1 until they are done; returns 0.

    The current directory must be queue/mess. See `Spawner`.
    """
    Spawner(hooks, limit=limit, output_max=output_max).serve()
    return 0
