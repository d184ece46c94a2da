"""A program's side of injection: one message to the enqueue process.

Streams in bounded memory; connects when the first packet is full or all is said,
so that a slow writer holds no connection for a short message. Without a listener,
root and the owner of the queue directory write the queue themselves.
Must stay cheap to import: qmail-queue is this and little else.
Source: docs/ARCHITECTURE.md; queue_layout.md.
"""

from __future__ import annotations

import _socket as socket
import posix
import struct
import time

from qsend.core.errors import RemoteProtocolError, TempFail
from qsend.core.light import TYPE_CHECKING
from qsend.formats import injection
from qsend.formats.frames import PACKET_MAX, split
from qsend.formats.queueexit import QueueExit
from qsend.sysio import clock
from qsend.sysio.native import is_directory, to_bytes

if TYPE_CHECKING:
    from types import TracebackType

CONNECT_S = 60.0
"""How long a restart of the listener may take without failing mail."""

ANSWER_S = 86400.0
"""qmail-queue's DEATH: whoever waits longer for the disk gives up with 52."""

_RETRY_S = 0.1
_PATH_MAX = 100
"""Below sun_path, 108 bytes with its NUL."""
_TIMEVAL = struct.Struct("@ll")
_STREAM = 0
_ABSENT = (FileNotFoundError, ConnectionRefusedError)
_LATER = (*_ABSENT, BlockingIOError, InterruptedError)


class QueueStopped(TempFail):
    """The message was not queued; `code` is qmail-queue's exit code.

    Temporary or not is for formats.queueexit.explain to say, to which `custom` goes:
    what a program said on descriptor 6.
    """

    def __init__(self, code: int, custom: bytes = b"") -> None:
        super().__init__(f"not queued (exit {code})")
        self.code = code
        self.custom = custom


def socket_path(home: str) -> str:
    """Where the enqueue process of a home listens."""
    return f"{home}/run/enqueue.sock"


def connect(path: str, wait_s: float) -> socket.socket:
    """A blocking connection to a SEQPACKET socket, however long its path.

    Waits up to `wait_s` seconds for room in the listener's backlog.
    Raises: OSError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _limit(sock, socket.SO_SNDTIMEO, wait_s)
        if len(to_bytes(path)) <= _PATH_MAX:
            sock.connect(path)
            return sock
        folder, _, name = path.rpartition("/")
        fd = posix.open(folder or "/", posix.O_PATH | posix.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            posix.close(fd)
    except OSError:
        sock.close()
        raise
    return sock


def _limit(sock: socket.socket, option: int, limit_s: float) -> None:
    """Let the kernel end a wait, with EAGAIN.

    Python's own time limits neither wait for room in a backlog nor allow a read
    that does not wait.
    """
    timeval = _TIMEVAL.pack(max(1, round(limit_s)), 0)
    sock.setsockopt(socket.SOL_SOCKET, option, timeval)


class QueueClient:
    """One message: `message` and then `envelope` as often as needed, `commit`.

    Every method raises QueueStopped when the message cannot be queued any more.
    Use as a context manager, or call `close`: without a commit nothing is queued.
    """

    def __init__(self, home: str, connect_s: float = CONNECT_S) -> None:
        """Prepare; nothing is opened. `connect_s`: how long to wait for a listener."""
        self._home = home
        self._connect_s = connect_s
        self._sock: socket.socket | None = None
        self._writer_pid = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def __enter__(self) -> QueueClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def message(self, data: bytes) -> None:
        """Send bytes of the message."""
        for part in injection.render_chunks(injection.MESSAGE, _STREAM, data):
            self._add(part)

    def envelope(self, data: bytes) -> None:
        """Send bytes of the envelope in the fd 1 form."""
        for part in injection.render_chunks(injection.ENVELOPE, _STREAM, data):
            self._add(part)

    def commit(self) -> int:
        """All is said: wait for the answer. Returns: qp of the queued message."""
        self._add(injection.render_word(injection.COMMIT, _STREAM))
        self._send()
        code, qp = self._read_result(wait=True)
        if code != QueueExit.QUEUED:
            raise QueueStopped(code)
        return qp

    def close(self) -> None:
        """End the connection; harmless when repeated."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._reap()

    def _add(self, frame: bytes) -> None:
        if self._parts_bytes + len(frame) > PACKET_MAX:
            self._send()
            # A full disk or a limit is said early: do not send gigabytes for it.
            code, _ = self._read_result(wait=False)
            if code != QueueExit.QUEUED:
                raise QueueStopped(code)
        self._parts.append(frame)
        self._parts_bytes += len(frame)

    def _send(self) -> None:
        if self._sock is None:
            self._sock = self._open()
            _limit(self._sock, socket.SO_RCVTIMEO, ANSWER_S)
            _limit(self._sock, socket.SO_SNDTIMEO, ANSWER_S)
        packet = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        try:
            self._sock.send(packet)
        except BlockingIOError as exc:
            raise QueueStopped(QueueExit.TIMEOUT) from exc
        except OSError as exc:
            # The reason may have been said before the line was cut.
            raise QueueStopped(self._read_result(wait=True)[0]) from exc

    def _read_result(self, *, wait: bool) -> tuple[int, int]:
        """(exit code, qp); (QUEUED, 0) when nothing came and `wait` is false."""
        if self._sock is None:
            return QueueExit.BUG, 0
        flags = 0 if wait else socket.MSG_DONTWAIT
        while True:
            try:
                packet = self._sock.recv(PACKET_MAX, flags)
            except BlockingIOError:
                return (QueueExit.TIMEOUT if wait else QueueExit.QUEUED), 0
            except ConnectionResetError:
                # Said once when the peer left bytes unread; what it sent before
                # can still be read.
                continue
            except OSError:
                return QueueExit.CONNECTION_LOST, 0
            if not packet:
                return self._reap() or QueueExit.CONNECTION_LOST, 0
            found = _find_result(packet)
            if found is not None:
                return found

    def _open(self) -> socket.socket:
        """A connection, or a writer of our own. Raises: QueueStopped."""
        _check_directories(self._home)
        end_mono = clock.mono() + self._connect_s
        while True:
            try:
                return connect(socket_path(self._home), self._connect_s)
            except OSError as exc:
                if isinstance(exc, _ABSENT) and _may_write(self._home):
                    return self._open_writer()
                if not isinstance(exc, _LATER) or clock.mono() >= end_mono:
                    raise QueueStopped(QueueExit.BUSY) from exc
            time.sleep(_RETRY_S)

    def _open_writer(self) -> socket.socket:
        from importlib import import_module  # noqa: PLC0415

        # Not imported at the top: almost no run needs it, and it costs more than
        # everything else here.
        module = import_module("qsend.sysio.directqueue")
        sock, self._writer_pid = module.open_writer(self._home)
        assert isinstance(sock, socket.socket)
        return sock

    def _reap(self) -> int:
        """Exit code of our own writer, once; 0 when there is none."""
        pid, self._writer_pid = self._writer_pid, 0
        if not pid:
            return 0
        code = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
        return code if code >= 0 else QueueExit.BUG


def _find_result(packet: bytes) -> tuple[int, int] | None:
    try:
        for kind, body in split(packet):
            if kind == injection.RESULT:
                _, code, qp = injection.parse_result(body)
                return code, qp
    except RemoteProtocolError:
        return QueueExit.CONNECTION_LOST, 0
    return None


def _check_directories(home: str) -> None:
    """Raises: QueueStopped with HOME or QUEUE when that directory is not there."""
    for path, code in ((home, QueueExit.HOME), (f"{home}/queue", QueueExit.QUEUE)):
        if not is_directory(path):
            raise QueueStopped(code)


def _may_write(home: str) -> bool:
    """Whether this process may write the queue itself: as root or as its owner."""
    uid = posix.geteuid()
    return uid == 0 or uid == posix.stat(f"{home}/queue").st_uid
