"""Messages known to be in todo and not yet taken up: numbers only, each once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from qsend.core.dues import Dues
from qsend.core.model import MessId


class Backlog:
    """First come, first read; what could not be read comes again later."""

    def __init__(self) -> None:
        self._waiting: deque[MessId] = deque()
        self._members: set[MessId] = set()
        self._later = Dues()
        self._asking: set[MessId] = set()
        self._parked: dict[MessId, None] = {}
        self._passed: set[MessId] = set()

    @property
    def asking(self) -> int:
        """Messages that were read, and whose recipients are being looked up."""
        return len(self._asking)

    @property
    def passed(self) -> int:
        """Messages that were passed over."""
        return len(self._passed)

    @property
    def size(self) -> int:
        """All of them, whatever they wait for, but those that are only due later."""
        return sum(map(len, (self._waiting, self._asking, self._parked, self._passed)))

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, messid: MessId) -> None:
        """Put a number at the end unless it is known already."""
        # Written out: a scan of todo/ comes here for each message, known or not.
        if messid in self._members or messid in self._asking or messid in self._passed:
            return
        self._parked.pop(messid, None)
        self._members.add(messid)
        self._waiting.append(messid)

    def add_later(self, messid: MessId, due: int) -> None:
        """Put a number in when it is `due`, wall clock seconds."""
        self._later.push(due, messid)

    def ask(self, messid: MessId) -> None:
        """Its recipients are looked up: until `answered` it is not read again."""
        self._asking.add(messid)

    def answered(self, messid: MessId) -> None:
        """The end of `ask`."""
        self._asking.discard(messid)

    def park(self, messid: MessId) -> None:
        """Keep a number until `unpark`, or until it is added again."""
        self._parked[messid] = None

    def unpark(self) -> None:
        """Put all parked numbers at the end."""
        parked, self._parked = self._parked, {}
        for messid in parked:
            self.add(messid)

    def pass_over(self, messid: MessId) -> None:
        """It waits elsewhere (Destinations.passed) until `call_back`."""
        self._passed.add(messid)

    def call_back(self, messids: Iterable[MessId]) -> None:
        """The end of `pass_over`: these are read now."""
        self._passed.difference_update(messids)

    def take(self, most: int, now: int) -> list[MessId]:
        """The next numbers to read, at most `most`."""
        while (late := self._later.pop_due(now)) is not None:
            self.add(late[1])
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._members.difference_update(taken)
        return taken

    def shift(self, seconds: int) -> None:
        """As Dues.shift, of the late ones."""
        self._later.shift(seconds)

    def next_due(self) -> int | None:
        """When the first of the late ones comes again."""
        return self._later.next_due()
