"""qmail-send: our queue manager in the place of qmail's, under qmail's qmail-start.

Descriptors, as that leaves them: 0 the log, 1 and 2 to and from qmail-lspawn, 3 and 4
qmail-rspawn, 5 and 6 qmail-clean. Runs as qmails, group qmail; writes what send owns in
the queue; bounces go through $QMAILQUEUE or bin/qmail-queue. Signals: TERM, ALRM, HUP.
Exit codes: 0 after TERM and the last delivery; 111 when it cannot start, or lost a
spawner or the cleaner.
Source: qmail-send.c; qmail-send(8). Unlike qmail's, HUP rereads all controls, or none
if one is wrong. Unlike send under our start, it is not confined: qmail-queue may be
setuid.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, Fatal, TempFail
from qsend.formats.sendcontrols import bounce_identity
from qsend.procs.send import Send
from qsend.sysio import endpoint, privilege
from qsend.sysio.accounts import load_accounts
from qsend.sysio.boot import Boot
from qsend.sysio.executor import Bouncer
from qsend.sysio.home import find_home
from qsend.sysio.logsink import LogSink
from qsend.sysio.lonestart import LoneStart, first_controls
from qsend.sysio.programbouncer import ProgramBouncer
from qsend.sysio.runlock import lock_queue
from qsend.sysio.spawners import CLASSIC
from qsend.sysio.wire import Wire

_HELP = """\
usage: qmail-send

The queue manager, for a qmail-start of qmail: that starts it with the log on descriptor
0 and pipes to qmail-lspawn, qmail-rspawn and qmail-clean on 1 to 6. It is not run by
hand; `qsend start` and our own qmail-start do not need it.

Signals: TERM ends after the running deliveries, ALRM tries all mail now, HUP reads the
control files again.
"""
_WIRES = {CLASSIC[0]: (2, 1), CLASSIC[1]: (4, 3), "classic-clean": (6, 5)}
"""Role to the descriptors we read from and write to."""
_ABOVE = 10
_LOST_SPAWNER = "oh no! lost spawn connection! dying..."


class LoneSend(Send):
    """send without start: its siblings are at the ends of six pipes."""

    def __init__(self, boot: Boot, log: LogSink, wires: Mapping[str, Wire]) -> None:
        self.code = 0
        self._given = wires
        self._program = os.environ.get("QMAILQUEUE") or f"{boot.home}/bin/qmail-queue"
        super().__init__(boot, log)

    def open_wires(self, boot: Boot) -> dict[str, Wire]:
        """Those that qmail-start made."""
        del boot
        return dict(self._given)

    def bounces(self) -> Bouncer:
        """There is no enqueue."""
        return ProgramBouncer(
            self.loop,
            self.queue,
            self._program,
            lambda: bounce_identity(self.controls),
            self.sink.say,
        )

    def spawner_lost(self, name: str, reason: str) -> None:
        """Nobody brings another: end, as qmail's does."""
        super().spawner_lost(name, reason)
        if not self.manager.exiting:
            self.code = 111
            self.sink.alert(_LOST_SPAWNER)
            self.stop()

    def stop(self) -> None:
        """End when all running deliveries have: their reports would be lost."""
        self.manager.stop()


def main(argv: Sequence[str]) -> int:
    """Serve until told to end; arguments are ignored, as qmail-send does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        wires = _take_descriptors()
    except OSError:
        sys.stderr.write("qmail-send: fatal: expected to be run by qmail-start\n")
        return 111
    log = LogSink(1)
    try:
        return _serve(log, wires)
    except ConfigError as exc:
        for fault in exc.faults:
            log.alert(f"cannot start: unable to read controls: {fault}")
    except (Fatal, TempFail) as exc:
        log.alert(str(exc))
    except OSError as exc:
        log.alert(f"cannot go on: {exc}")
    log.flush()
    return 111


def _take_descriptors() -> dict[str, Wire]:
    """Move 0 to 6 out of the way of programs we run; 1 and 2 become the log.

    Raises: OSError when one of them is closed.
    """
    log, *pipes = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in range(7))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, _ABOVE)
    return {
        name: Wire(pipes[reads - 1], pipes[writes - 1])
        for name, (reads, writes) in _WIRES.items()
    }


def _serve(log: LogSink, wires: Mapping[str, Wire]) -> int:
    """Raises: ConfigError, Fatal, TempFail, OSError."""
    home = os.path.abspath(find_home(None, os.environ))
    single_user = os.getuid() != 0
    accounts = load_accounts(single_user)
    controls = first_controls(home)
    lock_fd = lock_queue(f"{home}/queue")
    privilege.drop(accounts.qmails)
    os.umask(0o077)
    os.chdir(home)  # from where a relative $QMAILQUEUE is run
    ours, theirs = endpoint.pair()
    boot = Boot(
        role="send",
        home=home,
        single_user=single_user,
        accounts=accounts,
        controls=controls,
        default_delivery=b"",
        socks={"start": ours},
    )
    send = LoneSend(boot, log, wires)
    LoneStart(send.loop, theirs, home, send.sink.say)
    try:
        return send.run() or send.code
    finally:
        os.close(lock_fd)
