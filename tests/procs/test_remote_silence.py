"""remote leaves hosts alone that did not answer, until it is told to forget them."""

from __future__ import annotations

from qsend.core.model import Cause
from qsend.core.tcpto import SilentHosts
from qsend.formats import delivery, frames
from qsend.procs import remote
from qsend.sysio import clock
from tests.remoteprocess import running
from tests.smtppeer import PIPELINED, Peer

MESSAGE = b"Subject: x\n\n"


def remember_silence() -> None:
    """In the process: its first table knows that 127.0.0.1 did not answer twice."""
    hosts = SilentHosts(0)
    now = clock.now()
    for at in (now - 300, now - 100):
        hosts.note_timeout("127.0.0.1", at)
    tables = iter([hosts])
    vars(remote)["SilentHosts"] = lambda seed: next(tables, None) or SilentHosts(seed)


def test_silent_host_is_tried_again_once_it_is_forgotten() -> None:
    with running(before=remember_silence) as process, Peer(PIPELINED) as peer:
        (report,) = process.reports(process.deliver(MESSAGE, port=peer.port))
        assert report.cause is Cause.UNREACHABLE
        assert peer.commands == []
        process.send.send(frames.frame(delivery.FORGET, b""))
        assert process.outcome(MESSAGE, port=peer.port)[0][:1] == b"K"
