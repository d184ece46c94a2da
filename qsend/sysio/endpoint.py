"""One end of a SEQPACKET wire under a Loop: frames in, frames out, descriptors.

Frames given to `send` in one turn leave together, as few packets as fit. A peer
that breaks the protocol, or goes away, is reported once through `on_close`; the
endpoint is closed by then. What a peer said before it went away is still given
out: it may be the only news of work that is done.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from qsend.core.errors import OutOfDescriptors, RemoteProtocolError
from qsend.formats import frames
from qsend.sysio.closing import close_read
from qsend.sysio.loop import READ, WRITE


class Poller(Protocol):
    """What an endpoint needs of a loop: Loop has it, and AioLoop for asyncio."""

    def register(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call back with the ready mask."""

    def modify(self, fd: int, mask: int) -> None:
        """Wait for another mask."""

    def unregister(self, fd: int) -> None:
        """Stop waiting."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn."""


# Plain numbers: the socket module's flags are enums, whose & is a function of Python.
_IS_LONG, LACKS_FDS = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)

OnFrame = Callable[[bytes, bytes, "Descriptors"], None]
"""Called with (kind, body, descriptors of the packet)."""


class Descriptors:
    """The descriptors that came with one packet, taken in order.

    Whoever takes one owns it; those not taken are closed when the packet is done.
    """

    __slots__ = ("_fds", "_is_short")

    def __init__(self, fds: Sequence[int], *, is_short: bool = False) -> None:
        """`is_short`: there were more, for which this process had no room."""
        self._fds = deque(fds)
        self._is_short = is_short

    def take(self) -> int:
        """The next descriptor.

        Raises: RemoteProtocolError when the peer sent none, OutOfDescriptors when it
            was lost here. Who cannot do without it ends by that, and is replaced.
        """
        if self._fds:
            return self._fds.popleft()
        if self._is_short:
            raise OutOfDescriptors("there are no descriptors left")
        raise RemoteProtocolError("a frame came without its descriptor")

    def take_two(self) -> tuple[int, int]:
        """The next two, or none. Raises: as `take`."""
        first = self.take()
        try:
            return first, self.take()
        except BaseException:
            close_read(first)
            raise

    def close_rest(self) -> None:
        """Close what nobody took."""
        while self._fds:
            close_read(self._fds.popleft())


class Endpoint:
    """Sends and receives frames; give it a connected SEQPACKET socket."""

    def __init__(
        self,
        loop: Poller,
        sock: socket.socket,
        on_frame: OnFrame,
        on_close: Callable[[str], None],
        *,
        max_fds: int = 0,
        max_packets: int = 16,
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        """Own `sock` from now on.

        `on_frame` may raise RemoteProtocolError to drop the peer. `on_close`
        gets the reason in words; b"" of a peer that closed is "closed".
        `max_fds` descriptors are accepted per packet, `max_packets` packets are
        read per turn, so that one busy peer does not starve the rest. `on_drained`
        is called when a peer that had left packets waiting has taken all.
        """
        sock.setblocking(False)
        self.sock = sock
        self.closed = False
        self.heard = False  # set by every packet; whoever watches clears it
        self._loop = loop
        self._on_frame = on_frame
        self._on_close = on_close
        self._max_fds = max_fds
        self._max_packets = max_packets
        self._on_drained = on_drained
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._fds: list[int] = []
        self._packets: deque[tuple[bytes, list[int]]] = deque()
        self._writing = False
        self._unheard = False
        loop.register(sock.fileno(), READ, self._ready)

    @property
    def backlog(self) -> int:
        """Packets that the peer has not yet taken."""
        return len(self._packets)

    def send(self, frame: bytes, fd: int | None = None, *more: int) -> None:
        """Queue one frame; `fd` and `more` go to the peer, and are closed here."""
        fds = [] if fd is None else [fd, *more]
        if self.closed or self._unheard:
            _close_all(fds)
            return
        if (
            self._parts_bytes + len(frame) > frames.PACKET_MAX
            or len(self._fds) + len(fds) > frames.FDS_MAX
        ):
            self._cut()
        if not self._parts and not self._packets:
            self._loop.call_soon(self.flush)
        self._parts.append(frame)
        self._parts_bytes += len(frame)
        self._fds += fds

    def flush(self) -> None:
        """Write what is queued as far as the peer takes it."""
        if self.closed:
            return
        self._cut()
        while self._packets:
            packet, fds = self._packets[0]
            try:
                if fds:
                    socket.send_fds(self.sock, [packet], fds)
                else:
                    self.sock.send(packet)
            except BlockingIOError:
                break
            except (BrokenPipeError, ConnectionResetError):
                # The peer is gone; reading its last packets ends in the close.
                self._unheard = True
                self._drop_output()
                break
            except OSError as exc:
                self.close(f"write failed: {exc.strerror}")
                return
            self._packets.popleft()
            _close_all(fds)
        if self._writing != bool(self._packets):
            self._writing = bool(self._packets)
            mask = READ | WRITE if self._writing else READ
            self._loop.modify(self.sock.fileno(), mask)
            if not self._writing and self._on_drained is not None:
                self._on_drained()

    def close(self, reason: str) -> None:
        """Close and report; later calls do nothing."""
        if self.closed:
            return
        self.closed = True
        self._loop.unregister(self.sock.fileno())
        self.sock.close()
        self._drop_output()
        self._on_close(reason)

    def _drop_output(self) -> None:
        self._parts, self._parts_bytes = [], 0
        _close_all(self._fds)
        for _, fds in self._packets:
            _close_all(fds)
        self._packets.clear()

    def _cut(self) -> None:
        if self._parts:
            self._packets.append((b"".join(self._parts), self._fds))
            self._parts, self._parts_bytes, self._fds = [], 0, []

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self.flush()
        if mask & ~WRITE and not self.closed:
            self._receive()

    def _receive(self) -> None:
        for _ in range(self._max_packets):
            try:
                packet, fds, flags = self._read()
            except BlockingIOError:
                return
            except ConnectionResetError:
                # Said once by a peer that closed without reading everything; its
                # packets come after.
                continue
            except OSError as exc:
                self.close(f"read failed: {exc.strerror}")
                return
            # The kernel keeps back what the process has no room for, the last ones.
            is_cut = bool(flags & LACKS_FDS)
            is_short = is_cut and len(fds) < self._max_fds
            self._take(
                packet,
                Descriptors(fds, is_short=is_short),
                is_too_long=bool(flags & _IS_LONG) or is_cut > is_short,
            )
            if self.closed:
                return

    def _read(self) -> tuple[bytes, Sequence[int], int]:
        """The next packet, its descriptors, and what the kernel says of both."""
        if not self._max_fds:
            packet, _, flags, _addr = self.sock.recvmsg(frames.PACKET_MAX)
            return packet, (), flags
        packet, fds, flags, _addr = socket.recv_fds(
            self.sock, frames.PACKET_MAX, self._max_fds
        )
        return packet, fds, flags

    def _take(self, packet: bytes, fds: Descriptors, *, is_too_long: bool) -> None:
        try:
            if is_too_long:
                raise RemoteProtocolError("packet too long")
            if not packet:
                self.close("closed")
                return
            self.heard = True
            is_asked = False
            for kind, body in frames.split(packet):
                if kind == frames.PING:
                    is_asked = True
                elif kind != frames.PONG:
                    self._on_frame(kind, body, fds)
                if self.closed:
                    return
            # A peer that only asks and never reads must not fill our memory; one
            # that has something of ours to read will hear of us by that.
            if is_asked and not self._packets:
                self.send(frames.frame(frames.PONG, b""))
        except RemoteProtocolError as exc:
            self.close(str(exc))
        finally:
            fds.close_rest()


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        close_read(fd)
    fds.clear()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected SEQPACKET sockets, closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
