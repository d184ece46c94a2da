"""Messages known to be in todo and not yet read: numbers only, each once."""

from __future__ import annotations

from collections import deque

from qsend.core.dues import Dues
from qsend.core.model import MessId


class Backlog:
    """First come, first read; what could not be read comes again later."""

    def __init__(self) -> None:
        self._waiting: deque[MessId] = deque()
        self._members: set[MessId] = set()
        self._later = Dues()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, messid: MessId) -> None:
        """Put a number at the end unless it is there already."""
        if messid not in self._members:
            self._members.add(messid)
            self._waiting.append(messid)

    def add_later(self, messid: MessId, due: int) -> None:
        """Put a number in when it is `due`, wall clock seconds."""
        self._later.push(due, messid)

    def take(self, most: int, now: int) -> list[MessId]:
        """The next numbers to read, at most `most`."""
        while (late := self._later.pop_due(now)) is not None:
            self.add(late[1])
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._members.difference_update(taken)
        return taken

    def next_due(self) -> int | None:
        """When the first of the late ones comes again."""
        return self._later.next_due()
