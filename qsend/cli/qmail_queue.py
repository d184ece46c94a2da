"""qmail-queue: put one message into the queue.

Reads the message from descriptor 0 to its end, then the envelope from descriptor
1, prints nothing, and says everything by its exit code. It is not setuid: the
enqueue process writes, and knows who asks from the kernel.
Source: qmail-queue(8), qmail-queue.c main(); queue_layout.md.
"""

from __future__ import annotations

from qsend.cli.options import teach, wants_help
from qsend.core.errors import QsendError
from qsend.core.light import TYPE_CHECKING
from qsend.formats.queueexit import QueueExit
from qsend.formats.todo import EnvelopeReader
from qsend.sysio.home import find_home
from qsend.sysio.native import read_environ
from qsend.sysio.queueclient import QueueClient, QueueStopped
from qsend.sysio.queueinput import copy, set_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = """\
usage: qmail-queue < message 1< envelope

Queues the message that descriptor 0 holds for the recipients that descriptor 1 names:
F, the sender, NUL; for each recipient T, the address, NUL; and one NUL more. Prints
nothing; exit code 0 means that the message is durable, 11 to 40 that it is refused,
any other that it may be taken later. People and scripts use qmail-inject or sendmail.
"""


def main(argv: Sequence[str]) -> int:
    """Queue what descriptors 0 and 1 hold; the answer is the exit code of 1.6.

    Arguments are ignored, as qmail-queue does.
    """
    if wants_help(argv):
        return teach(_HELP)
    del argv
    set_signals()
    try:
        with QueueClient(find_home(None, read_environ())) as client:
            return _run(client)
    except QueueStopped as exc:
        return exc.code
    except MemoryError:
        return QueueExit.MEMORY
    except QsendError:
        return QueueExit.CONFIG


def _run(client: QueueClient) -> int:
    if not copy(0, client.message):
        return QueueExit.READ
    reader = EnvelopeReader()

    def take(data: bytes) -> None:
        # Checked here too, so that no bad envelope waits for its end.
        reader.feed(data)
        if reader.error:
            raise QueueStopped(reader.error)
        client.envelope(data)

    if not copy(1, take, lambda: reader.is_complete) or not reader.is_complete:
        return QueueExit.READ
    client.commit()
    return QueueExit.QUEUED
