"""start's end of send's line, for a send that a classic qmail-start has started.

It lives in send's own process: what send asks start for is done here.
Source: qmail-send.c main() (TERM, HUP); formats/startwire.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from qsend.core import family, logline
from qsend.core.errors import ConfigError
from qsend.formats import startwire
from qsend.formats.control import Controls, parse_controls
from qsend.formats.frames import frame
from qsend.sysio.controldir import read_for
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.loop import Loop


class LoneStart:
    """Grants ends and new controls; has no children to speak of."""

    def __init__(
        self, loop: Loop, sock: socket.socket, home: str, say: Callable[[bytes], None]
    ) -> None:
        """Own `sock`; `say` writes a log line."""
        self._home = home
        self._say = say
        self._generation = 1
        self._line = Endpoint(loop, sock, self._frame, lambda _reason: None)

    def _frame(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind != startwire.ASK:
            return  # READY is no news here
        if body in (startwire.ASK_STOP, startwire.ASK_STOP_ALL):
            self._line.send(frame(startwire.SIGNAL, startwire.SIGNAL_TERM))
        elif body == startwire.ASK_RELOAD:
            self._reload()

    def _reload(self) -> None:
        try:
            files = read_for(family.SEND, self._home)
            parse_controls(files)
        except ConfigError as exc:
            for fault in exc.faults:
                self._say(logline.alert(f"unable to reread controls: {fault}"))
            return
        self._generation += 1
        for part in startwire.render_controls(self._generation, files):
            self._line.send(part)
        self._say(b"reread controls: generation %d\n" % self._generation)


def first_controls(home: str) -> Controls:
    """What send may know of the controls as they are. Raises: ConfigError."""
    return parse_controls(read_for(family.SEND, home), 1)
