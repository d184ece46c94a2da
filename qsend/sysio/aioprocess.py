"""The beginning and the end of a process with an asyncio loop: remote, listeners.

Source: docs/ARCHITECTURE.md; docs/adr/0003-own-loop-and-uvloop.md.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sysconfig
from collections.abc import Iterable

import setproctitle
import uvloop

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.sysio import privilege, sandbox


def begin(title: str, descriptors: int) -> None:
    """Before the drop: title, signals, and room for so many descriptors."""
    setproctitle.setproctitle(title)
    # The operator's keyboard signals go to the whole group; start decides.
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, descriptors)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    sysconfig.get_paths()  # loads a module; the sandbox asks for them after the drop


def confine(
    account: Account,
    role: str,
    reads: Iterable[str] = (),
    *,
    home: str | None = None,
    extras: sandbox.Extras = sandbox.NO_EXTRAS,
) -> asyncio.AbstractEventLoop:
    """Become `account`, give up what `role` does not need, and make the loop.

    Args:
        reads, home, extras: as sandbox.apply.
    Raises: Fatal.
    """
    privilege.drop(account)
    privilege.harden()
    sandbox.apply(role, home, reads, extras)
    # Not before: libuv would make an io_uring, past which no filter sees.
    return uvloop.new_event_loop()


class Crash:
    """The loop's exception handler: the first surprise ends the process.

    `failure` is for `main` to raise when the loop has stopped.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        harmless: tuple[type[BaseException], ...] = (),
    ) -> None:
        """Handle what `loop` reports; `harmless` ones are passed over."""
        self.failure: BaseException | None = None
        self._harmless = harmless
        loop.set_exception_handler(self._take)

    def _take(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, object]
    ) -> None:
        exc = context.get("exception")
        if isinstance(exc, self._harmless):
            return
        if not isinstance(exc, BaseException):
            exc = Fatal(str(context.get("message")))
        self.failure = self.failure or exc
        loop.stop()
