"""What became of mail: hosts it is for, maildirs of alias, lines of trouble."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from qsend.core.model import Channel, MessId
from qsend.formats import paths
from qsend.sysio import clock
from tests.smtppeer import LOCKSTEP, Peer, Script
from tests.tree.harness import Tree, until


@contextmanager
def hosts(tree: Tree, **scripts: Script) -> Iterator[dict[str, Peer]]:
    """A peer for each name; mail for NAME.example goes to it."""
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(Peer({**LOCKSTEP, **script}))
            for name, script in scripts.items()
        }
        lines = (f"{name}.example:127.0.0.1:{p.port}\n" for name, p in peers.items())
        tree.control("smtproutes", "".join(lines))
        yield peers


def contents(tree: Tree, name: str) -> list[bytes]:
    return [path.read_bytes() for path in (tree.home / f"alias/{name}/new").iterdir()]


def retry(tree: Tree, *channels: Channel) -> None:
    """ALRM, once the only message waits for its next attempt on these channels."""
    messid = MessId(int(re.findall(rb"new msg (\d+)\n", tree.log)[-1]))
    files = [tree.home / "queue" / paths.recips(each, messid) for each in channels]
    soon = clock.now() + 60
    until(lambda: all(f.exists() and f.stat().st_mtime > soon for f in files))
    tree.signal(signal.SIGALRM)


def trouble(tree: Tree) -> list[bytes]:
    """Lines of the log that tell of more than mail."""
    marks = (b"alert", b"warning")
    return [each for each in tree.log.splitlines() if each.startswith(marks)]
