"""asyncio in the shape that Endpoint asks of a loop; for remote and listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qsend.sysio.loop import READ, WRITE


class AioLoop:
    """Registers descriptors with a running asyncio (or uvloop) event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def register(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready mask)` whenever `fd` is ready for `mask`."""
        self._callbacks[fd] = callback
        self.modify(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Wait for another mask on a registered descriptor."""
        callback = self._callbacks[fd]
        if mask & READ:
            self._loop.add_reader(fd, callback, READ)
        else:
            self._loop.remove_reader(fd)
        if mask & WRITE:
            self._loop.add_writer(fd, callback, WRITE)
        else:
            self._loop.remove_writer(fd)

    def unregister(self, fd: int) -> None:
        """Stop waiting for `fd`; call it before closing the descriptor."""
        if self._callbacks.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call back once, `delay_s` seconds from now."""
        return self._loop.call_later(delay_s, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn; from the loop's own thread."""
        self._loop.call_soon(callback)
