"""The sockets between siblings: made by start, owned by the two ends.

When a child is forked it gets an end to each peer. A peer that is alive is sent
the other end; for one that is not, the other end waits here until its own fork.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from qsend.core import family
from qsend.sysio import endpoint

START = "start"


class Ends:
    """What one fork needs: the child's ends, and those its living peers get.

    `line` is start's end of the child's own line, the other is `own["start"]`.
    """

    def __init__(self, line: tuple[socket.socket, socket.socket]) -> None:
        self.line, start = line
        self.own = {START: start}
        self.for_peers: list[tuple[str, socket.socket]] = []

    def close(self) -> None:
        """Give all up; the fork did not happen."""
        theirs = (sock for _, sock in self.for_peers)
        for sock in (self.line, *self.own.values(), *theirs):
            sock.close()


class Wiring:
    """The ends that wait for their owner's fork."""

    def __init__(self) -> None:
        # (owner, whom it leads to) to socket
        self._waiting: dict[tuple[str, str], socket.socket] = {}

    def connect(self, role: str, peers: Iterable[str], alive: frozenset[str]) -> Ends:
        """The ends for the fork of `role`; `alive` are those who have forked.

        Raises: OSError when there are not enough descriptors; `drop` then.
        """
        ends = Ends(endpoint.pair())
        try:
            self._connect(ends, role, peers, alive)
        except BaseException:
            ends.close()
            raise
        return ends

    def _connect(
        self, ends: Ends, role: str, peers: Iterable[str], alive: frozenset[str]
    ) -> None:
        for peer in peers:
            waiting = self._waiting.pop((role, peer), None)
            if waiting is not None:
                ends.own[peer] = waiting
                continue
            ends.own[peer], theirs = _pair(role, peer)
            if peer in alive:
                ends.for_peers.append((peer, theirs))
            else:
                self._waiting[peer, role] = theirs

    def leads(self, owner: str, peer: str) -> bool:
        """Whether an end that leads to `peer` waits for `owner`."""
        return (owner, peer) in self._waiting

    def drop(self, role: str) -> None:
        """`role` has ended: close the ends that lead to it."""
        for owner, peer in list(self._waiting):
            if peer == role:
                self._waiting.pop((owner, peer)).close()

    def close(self) -> None:
        """Close all that waits."""
        for sock in self._waiting.values():
            sock.close()
        self._waiting.clear()


def _pair(role: str, peer: str) -> tuple[socket.socket, socket.socket]:
    if family.is_classic(role) or family.is_classic(peer):
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return endpoint.pair()
