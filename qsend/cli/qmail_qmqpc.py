"""qmail-qmqpc: a qmail-queue that hands the message to a QMQP server.

Reads the message from descriptor 0 and the envelope from descriptor 1, as qmail-queue
does, and says everything by its exit code. For machines without a queue of their own.
Source: qmail-qmqpc(8), qmail-qmqpc.c. Unlike it: the next server is tried also when
one fails after the connection, servers may have names, ports and IPv6 addresses, and
the message waits in an unnamed file and not in memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

from qsend.cli.options import teach, wants_help
from qsend.core.errors import TempFail
from qsend.formats.netstring import LENGTH_MAX
from qsend.formats.qmqp import SERVERS, EnvelopeNetstrings, Server, parse_servers
from qsend.formats.queueexit import QueueExit
from qsend.sysio.home import find_home, read_control
from qsend.sysio.qmqpclient import Spool, submit
from qsend.sysio.queueclient import QueueStopped
from qsend.sysio.queueinput import copy, set_signals

_HELP = """\
usage: qmail-qmqpc < message 1< envelope

A qmail-queue for machines without a queue: hands the message to the first server of
control/qmqpservers that takes it. Exit code 0 means that a server has queued it, 31
that one refuses it, any other that it may be taken later. In place of qmail-queue:

  ln -sf qmail-qmqpc /var/qmail/bin/qmail-queue
"""


def main(argv: Sequence[str]) -> int:
    """Queue what descriptors 0 and 1 hold elsewhere; the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    set_signals()
    try:
        servers = _servers(find_home(None, os.environ))
        with closing(Spool()) as spool:
            _fill(spool)
            return submit(servers, spool)
    except QueueStopped as exc:
        return exc.code
    except TempFail:
        return QueueExit.CONFIG
    except OSError:
        return QueueExit.WRITE  # of the temporary file: all others are caught below
    except MemoryError:
        return QueueExit.MEMORY


def _servers(home: str) -> list[Server]:
    """Raises: TempFail when the control file cannot be read, or names none."""
    if not os.path.isdir(home):
        raise QueueStopped(QueueExit.HOME)
    servers = parse_servers(read_control(home, SERVERS) or b"")
    if not servers:
        raise QueueStopped(QueueExit.CONFIG)
    return servers


def _fill(spool: Spool) -> None:
    """Read message and envelope. Raises: QueueStopped, OSError."""
    if not copy(0, spool.message):
        raise QueueStopped(QueueExit.READ)
    spool.end_message()
    addresses = EnvelopeNetstrings()

    def take(data: bytes) -> None:
        spool.envelope(addresses.feed(data))
        if addresses.error:
            raise QueueStopped(addresses.error)

    is_read = copy(1, take, lambda: addresses.is_complete)
    if not is_read or not addresses.is_complete:
        raise QueueStopped(QueueExit.READ)
    spool.end()
    if spool.length > LENGTH_MAX:
        raise QueueStopped(QueueExit.REFUSED)  # as every server would
