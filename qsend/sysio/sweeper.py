"""Removes mess files that no message claims: a few per step, older than 36 hours.

They are what a crashed injection or removal left. Nobody can still be writing one:
an injection ends after 24 hours. Source: qmail-send.c cleanup_do; queue_layout.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from qsend.core import logline
from qsend.core.model import SPLIT, FileIdentity, MessId
from qsend.sysio.fsq import Queue

OSSIFIED_S = 129600
"""Age of an orphan (qmail-send.c OSSIFIED)."""
PAUSE_S = 76431.0
"""Between two sweeps (qmail-send.c SLEEP_CLEANUP)."""
STEP = 20
STEP_PAUSE_S = 0.05


class Timers(Protocol):
    """What of a loop a sweep needs."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call back after a delay."""


class Remover(Protocol):
    """What of a cleaner a sweep needs."""

    def sweep(
        self,
        messid: MessId,
        identity: FileIdentity,
        answer: Callable[[OSError | None], None],
    ) -> None:
        """Remove an orphan unless it has a todo/N."""


class Sweeper:
    """Walks mess/ from time to time."""

    def __init__(
        self,
        loop: Timers,
        queue: Queue,
        remover: Remover,
        is_known: Callable[[MessId], bool],
        now: Callable[[], int],
        say: Callable[[bytes], None],
    ) -> None:
        """`is_known` tells of messages in memory, whose number is in use."""
        self._loop = loop
        self._queue = queue
        self._remover = remover
        self._is_known = is_known
        self._now = now
        self._say = say

    def start(self) -> None:
        """Begin a sweep; the next ones follow by themselves."""
        self._step(self._files())

    def _files(self) -> Iterator[tuple[MessId, FileIdentity, int]]:
        for part in range(SPLIT):
            yield from self._queue.list_mess(part)

    def _step(self, files: Iterator[tuple[MessId, FileIdentity, int]]) -> None:
        try:
            for _ in range(STEP):
                found = next(files, None)
                if found is None:
                    self._loop.call_later(PAUSE_S, self.start)
                    return
                self._judge(*found)
        except OSError as exc:
            self._say(logline.warning(f"trouble sweeping mess: {exc.strerror}"))
            self._loop.call_later(PAUSE_S, self.start)
            return
        self._loop.call_later(STEP_PAUSE_S, lambda: self._step(files))

    def _judge(self, messid: MessId, identity: FileIdentity, touched: int) -> None:
        # A clock that was set back makes files look young, never old.
        if self._now() - touched <= OSSIFIED_S or self._is_known(messid):
            return
        if not self._queue.info_exists(messid) and not self._queue.todo_exists(messid):
            self._remover.sweep(messid, identity, self._swept)

    def _swept(self, error: OSError | None) -> None:
        if error is not None:
            self._say(
                logline.warning(f"qmail-clean unable to clean up: {error.strerror}")
            )
