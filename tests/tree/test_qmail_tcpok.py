"""qmail-tcpto and qmail-tcpok beside a running tree."""

from __future__ import annotations

import re
import socket

from tests.tree.harness import Tree


def test_destination_that_could_not_be_reached_is_shown_and_forgotten(
    tree: Tree,
) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        tree.control("smtproutes", f":127.0.0.1:{closed.getsockname()[1]}\n")
        tree.start()
        tree.queue([b"ann@far.example"])
        tree.wait_for(rb"deferral: Sorry,_I_wasn't_able_to_establish")
        shown = tree.program("qmail-tcpto")
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert re.fullmatch(
            rb"\S+ could not be reached; next attempt in \d+ seconds; # waiting: \d+\n",
            shown.stdout,
        )
        assert tree.program("qmail-tcpok").returncode == 0
        assert tree.program("qmail-tcpto").stdout == b""
        assert tree.stop() == 0
