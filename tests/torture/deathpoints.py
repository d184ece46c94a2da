"""Points at which a process dies: put before `qsend start` as a patch.

With BOARD (a file of one page) and HOME in front, every process of the tree counts its
calls that change, make durable, open or close what is below HOME/queue, HOME/alias and
HOME/run/send. Before the call that the board names, the process kills itself with
SIGKILL. The board is mapped before the children are forked, so they share it, and
nothing has to be attached, waited for or timed.

What takes seconds otherwise comes at once: restarts, and the next attempt of what was
deferred. Nobody flushes: what is not tried again by itself is a stall.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

TITLES = (
    "qmail-start", "qmail-queue", "qmail-send", "qmail-clean", "qmail-lspawn",
    "qmail-local", "qmail-remote", "other",
)  # fmt: skip
CALLS = (
    "open", "close", "write", "pwrite", "fsync", "syncfs", "link", "unlink", "rename",
    "mkdir", "utime", "ftruncate", "fchmod", "fchown",
)  # fmt: skip
_PLACES = ("queue", "alias", "run/send")
IDLE, FIRST, RECOVERY = range(3)
"""Nobody dies; the victim dies; one has died, and recovery is counted."""

_STAGE, _VICTIM, _AT, _SEEN, _AGAIN_AT, _AGAIN_SEEN = range(6)
_DEATHS = (6, 8)
"""Title and call of the first death and of the second, from 1 on; 0 for none."""
_READY, _READY_THEN = 16, 32
"""How often processes of a title have become ready, now and at the last death."""
_PAIR = TITLES.index("qmail-send"), TITLES.index("qmail-clean")
"""They are replaced together."""
_COUNTS = 64
PAGE = 4096


class Board:
    """What the test says to the tree and the tree to the test, in shared memory."""

    def __init__(self, path: str) -> None:
        """Map a file of PAGE bytes."""
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE)
        self._cells = memoryview(self._page).cast("q")

    # the test's side

    def arm(self, title: str, at: int, again_at: int = 0) -> None:
        """Processes of `title` die at their `at`-th call, counted from 1 and together.

        After that whoever makes the `again_at`-th call of the tree dies too.
        """
        cells = self._cells
        cells[_STAGE] = IDLE
        cells[_VICTIM], cells[_AT], cells[_SEEN] = TITLES.index(title), at, 0
        cells[_AGAIN_AT], cells[_AGAIN_SEEN] = again_at, 0
        for cell in _DEATHS:
            cells[cell] = cells[cell + 1] = 0
        for cell in range(_COUNTS, PAGE // 8):
            cells[cell] = 0
        cells[_STAGE] = FIRST

    def disarm(self) -> None:
        """Nobody dies or counts any more."""
        self._cells[_STAGE] = IDLE

    def deaths(self) -> list[tuple[str, str]]:
        """(title, call) of each process that has died since `arm`."""
        cells = self._cells
        return [
            (TITLES[cells[at] - 1], CALLS[cells[at + 1] - 1])
            for at in _DEATHS
            if cells[at]
        ]

    @property
    def recovery_calls(self) -> int:
        """How many calls the tree has made since the first death."""
        return self._cells[_AGAIN_SEEN]

    def is_replaced(self) -> bool:
        """Whether processes became ready in place of those that have died."""
        dead = {TITLES.index(title) for title, _ in self.deaths()}
        if dead & set(_PAIR):
            dead.update(_PAIR)
        dead -= {TITLES.index(each) for each in ("qmail-start", "qmail-local")}
        cells = self._cells
        return all(cells[_READY + each] > cells[_READY_THEN + each] for each in dead)

    def counts(self) -> Counter[tuple[str, str]]:
        """How often each (title, call) was made since `arm`."""
        found: Counter[tuple[str, str]] = Counter()
        for place, title in enumerate(TITLES):
            for number, call in enumerate(CALLS):
                cell = _COUNTS + place * len(CALLS) + number
                if self._cells[cell]:
                    found[title, call] = self._cells[cell]
        return found

    # the tree's side

    @property
    def is_armed(self) -> bool:
        return self._cells[_STAGE] != IDLE

    def note_ready(self, title: int) -> None:
        self._cells[_READY + title] += 1

    def meet(self, title: int, call: int) -> None:
        """A process is about to make a call: the last thing it does, or not."""
        cells = self._cells
        cells[_COUNTS + title * len(CALLS) + call] += 1
        if cells[_STAGE] == FIRST:
            if title == cells[_VICTIM]:
                cells[_SEEN] += 1
                if cells[_SEEN] == cells[_AT]:
                    cells[_STAGE] = RECOVERY
                    self._die(_DEATHS[0], title, call)
            return
        cells[_AGAIN_SEEN] += 1
        again_at = cells[_AGAIN_AT]
        if 0 < again_at <= cells[_AGAIN_SEEN] and not cells[_DEATHS[1]]:
            self._die(_DEATHS[1], title, call)

    def _die(self, cell: int, title: int, call: int) -> None:
        for number in _PAIR if title in _PAIR else (title,):
            self._cells[_READY_THEN + number] = self._cells[_READY + number]
        self._cells[cell], self._cells[cell + 1] = title + 1, call + 1
        os.kill(os.getpid(), signal.SIGKILL)


class _Calls:
    """The calls of one tree's processes, which tell a board."""

    def __init__(self, board: Board, home: str, title: Callable[[], str]) -> None:
        """`title` is how this process calls itself now; we are in start."""
        self._board = board
        self._places = tuple(f"{home}/{each}" for each in _PLACES)
        self._own_title = title
        self._start = os.getpid()

    def title(self) -> int:
        """The number of this process's title."""
        if os.getpid() == self._start:
            return 0
        name = self._own_title().partition(":")[0]
        return TITLES.index(name) if name in TITLES[1:] else len(TITLES) - 1

    def dying(self, name: str, first_call: Callable[..., Any]) -> Callable[..., Any]:
        """A call of `os` that is the last thing some processes do."""
        number = CALLS.index(name)
        makes_name = name in ("link", "rename")

        def call(*args: Any, **more: Any) -> Any:
            if self._board.is_armed:
                target = args[1] if makes_name else args[0]
                dir_fd = more.get("dst_dir_fd" if makes_name else "dir_fd")
                if self._is_meant(target, dir_fd):
                    self._board.meet(self.title(), number)
            return first_call(*args, **more)

        return call

    def _is_meant(self, target: Any, dir_fd: int | None) -> bool:
        if isinstance(target, int):
            try:
                return os.readlink(f"/proc/self/fd/{target}").startswith(self._places)
            except OSError:
                return False
        name = os.fsdecode(target)
        if not name.startswith("/"):
            start = "cwd" if dir_fd is None else f"fd/{dir_fd}"
            name = f"{os.readlink(f'/proc/self/{start}')}/{name}"
        return name.startswith(self._places)


def _patch(path: str, home: str) -> None:
    """Have this process, and all that it forks, meet the board."""
    # Only a tree has these, and setproctitle.
    import setproctitle  # noqa: PLC0415

    from qsend.sysio import durable, parent, syncer  # noqa: PLC0415

    board = Board(path)
    calls = _Calls(board, home, setproctitle.getproctitle)

    def ready(self: parent.Parent) -> None:
        first_ready(self)
        board.note_ready(calls.title())

    first_ready = parent.Parent.ready
    parent.Parent.ready = ready  # type: ignore[method-assign]
    vars(syncer)["syncfs"] = calls.dying("syncfs", syncer.syncfs)
    vars(durable)["syncfs"] = syncer.syncfs
    for each in CALLS:
        if each != "syncfs":
            setattr(os, each, calls.dying(each, getattr(os, each)))
    _hasten()


def _hasten() -> None:
    """Let what is tried again later be tried at once."""
    from qsend.core import childtable, lifecycle, manager, message, reading  # noqa: PLC0415
    from qsend.sysio import executor  # noqa: PLC0415

    def load_job(self: reading.Reading, load: message.LoadJob, now: int) -> None:
        # Due while its message is still being written: a second later, else.
        found = self.messages.get(load.messid)
        if found is not None and found.plans and not found.jobs:
            self.dues[load.channel].push(now, load.messid)
        else:
            first_load(self, load, now)

    first_load = reading.Reading._load_job
    reading.Reading._load_job = load_job  # type: ignore[method-assign]
    for module in (lifecycle, manager, message):
        vars(module)["next_retry"] = lambda _birth, now, _channel: now
    executor.RETRY_S = executor.RETRY_BOUNCE_S = 0.1
    manager.SYSFAIL_S = 0
    childtable.DELAY_MAX_S = 0


def text(board: str, home: str) -> str:
    """The patch for a tree at `home`."""
    with open(__file__, encoding="ascii") as file:
        source = file.read().replace("from __future__ import annotations\n", "")
    front = f"from __future__ import annotations\nBOARD, HOME = {board!r}, {home!r}"
    return f"{front}\n{source}"


if globals().get("BOARD"):
    _patch(globals()["BOARD"], globals()["HOME"])
