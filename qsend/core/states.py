"""The states of a message on disk, and every step from one to another, as data.

A state is which of seven files exist for a number. The tables are qmail's S1 to
S5 with the transitions that qsend adds (removal straight from todo, damaged
messages); queue_layout.md prints them, tests walk them, and whoever touches the
queue follows them. Must not do: anything.
Source: qmail INTERNALS sections 3 and 4, qmail-send.c; queue_layout.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

FILES = ("mess", "intd", "todo", "info", "local", "remote", "bounce")
"""The files a message may have, in the order of the patterns below."""


class State(Enum):
    """A state; the value is its name in every document."""

    S1 = "S1"
    S2 = "S2"
    S3 = "S3"
    S4 = "S4"
    S5 = "S5"


PATTERNS: Mapping[State, str] = MappingProxyType(
    {
        State.S1: "-------",
        State.S2: "+------",
        State.S3: "++-----",
        State.S4: "+?+???-",
        State.S5: "+--+???",
    }
)
"""For each file of FILES: + exists, - does not, ? either."""

MEANINGS: Mapping[State, str] = MappingProxyType(
    {
        State.S1: "no such message",
        State.S2: "being received, or being eliminated",
        State.S3: "its envelope is being received",
        State.S4: "queued: accepted, not or half preprocessed",
        State.S5: "preprocessed: every recipient still to do is in local or remote",
    }
)


class Fate(Enum):
    """What qsend does with what it finds after a crash."""

    NONE = "nothing is there"
    SWEEP = "removed when 36 hours old: never accepted, or over"
    PREPROCESS = "delivered from todo; older info, local, remote, bounce removed first"
    DELIVER = "delivered from info, local, remote"
    ASIDE = "its message file is gone: the rest is moved to aside, with an alert"
    LEFTOVER = "ignored; removed before the number is used again"


def classify(present: frozenset[str]) -> State | None:
    """The state of a message that has exactly these files; None for no state.

    Args:
        present: names of FILES.
    """
    for state, pattern in PATTERNS.items():
        if _matches(present, pattern):
            return state
    return None


def _matches(present: frozenset[str], pattern: str) -> bool:
    return all(
        sign == "?" or (sign == "+") == (name in present)
        for name, sign in zip(FILES, pattern, strict=True)
    )


def fate(present: frozenset[str]) -> Fate:
    """What becomes of these files when nobody works on the number any more.

    Answers for every combination: those that are no state come from a power cut
    below durability full, or from hands.
    """
    if "mess" in present:
        if "todo" in present:
            return Fate.PREPROCESS
        return Fate.DELIVER if "info" in present else Fate.SWEEP
    if present & {"todo", "info"}:
        return Fate.ASIDE
    return Fate.LEFTOVER if present else Fate.NONE


class Do(Enum):
    """What a step does to its target; the value is the word in documents."""

    CREATE = "create"
    LINK = "link"
    WRITE = "write"
    SYNC_FILE = "sync"
    SYNC_NAME = "sync directory of"
    UNLINK = "unlink"


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `target` is a name of FILES.

    CREATE and LINK make the name, UNLINK removes it if it is there; SYNC_FILE
    makes the content durable, SYNC_NAME the directory entry.
    """

    do: Do
    target: str

    def after(self, present: frozenset[str]) -> frozenset[str]:
        """The files that exist after the step."""
        if self.do in (Do.CREATE, Do.LINK):
            return present | {self.target}
        if self.do is Do.UNLINK:
            return present - {self.target}
        return present

    def __str__(self) -> str:
        return f"{self.do.value} {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A way from one state to another: who, and which steps in which order.

    Every prefix of the steps leaves a state of PATTERNS. `commits` says what has
    happened for good when the last step is done, where anything has. It is taken
    only when all files of `only_with` exist and none of `only_without`.
    """

    before: State
    after: State
    actor: str
    what: str
    steps: tuple[Step, ...]
    commits: str = ""
    only_with: frozenset[str] = frozenset()
    only_without: frozenset[str] = frozenset()


def _steps(*words: str) -> tuple[Step, ...]:
    """Steps from `create info`, `sync directory of todo` and the like."""
    found = []
    for line in words:
        verb, _, target = line.rpartition(" ")
        found.append(Step(Do(verb), target))
    return tuple(found)


_S1, _S2, _S3, _S4, _S5 = State
_ENQUEUE = "enqueue, qmail-queue"
_CLEAN = "clean, asked by send"
_REMOVE = (
    "unlink intd",
    "unlink todo",
    "sync directory of intd",
    "sync directory of todo",
)

TRANSITIONS = (
    Transition(
        before=_S1,
        after=_S2,
        actor=_ENQUEUE,
        what="a message file gets its number",
        steps=_steps("unlink todo", "link mess"),
    ),
    Transition(
        before=_S2,
        after=_S3,
        actor=_ENQUEUE,
        what="the envelope is written; all of it is made durable in one round",
        steps=_steps(
            "unlink intd",
            "create intd",
            "write intd",
            "sync mess",
            "sync directory of mess",
            "sync intd",
            "sync directory of intd",
        ),
    ),
    Transition(
        before=_S3,
        after=_S4,
        actor=_ENQUEUE,
        what="the message is queued",
        steps=_steps("link todo", "sync directory of todo"),
        commits="acceptance: only now the sender is told yes",
    ),
    Transition(
        before=_S2,
        after=_S1,
        actor=_ENQUEUE,
        what="the injection failed",
        steps=_steps("unlink mess"),
    ),
    Transition(
        before=_S3,
        after=_S1,
        actor=_ENQUEUE,
        what="the injection failed",
        steps=_steps("unlink intd", "unlink mess"),
    ),
    Transition(
        before=_S4,
        after=_S4,
        actor="send",
        what="preprocessing: what an older message of this number left goes first",
        steps=_steps(
            "unlink info",
            "unlink local",
            "unlink remote",
            "unlink bounce",
            "create info",
            "write info",
            "create local",
            "write local",
            "create remote",
            "write remote",
            "sync info",
            "sync local",
            "sync remote",
            "sync directory of info",
            "sync directory of local",
            "sync directory of remote",
        ),
    ),
    Transition(
        before=_S4,
        after=_S5,
        actor=_CLEAN,
        what="the envelope goes",
        steps=_steps(*_REMOVE),
        commits="preprocessing: from now on info, local and remote are the truth",
        only_with=frozenset({"info"}),
    ),
    Transition(
        before=_S4,
        after=_S1,
        actor=_CLEAN,
        what="every recipient succeeded at the first attempt, straight from todo",
        steps=_steps(*_REMOVE, "unlink mess"),
        commits="delivery, with the durable removal from todo",
        only_without=frozenset({"info", "local", "remote"}),
    ),
    Transition(
        before=_S5,
        after=_S5,
        actor="send",
        what="a recipient succeeded: its T becomes D",
        steps=_steps("write remote", "sync remote"),
        commits="that recipient",
    ),
    Transition(
        before=_S5,
        after=_S5,
        actor="send",
        what="a recipient failed: the text first, then the mark",
        steps=_steps(
            "create bounce",
            "write bounce",
            "sync bounce",
            "sync directory of bounce",
            "write remote",
            "sync remote",
        ),
        commits="that recipient, and the sender will be told",
    ),
    Transition(
        before=_S5,
        after=_S5,
        actor="send",
        what="nobody is left on a channel",
        steps=_steps("unlink remote", "sync directory of remote"),
    ),
    Transition(
        before=_S5,
        after=_S5,
        actor="send",
        what="the bounce is queued as a message of its own",
        steps=_steps("unlink bounce", "sync directory of bounce"),
    ),
    Transition(
        before=_S5,
        after=_S2,
        actor="send",
        what="nobody is left and no bounce is owed",
        steps=_steps("unlink info", "sync directory of info"),
        commits="the end of the message",
        only_without=frozenset({"local", "remote", "bounce"}),
    ),
    Transition(
        before=_S2,
        after=_S1,
        actor=_CLEAN,
        what="elimination, and the sweep of what is 36 hours old",
        steps=_steps(*_REMOVE, "unlink mess"),
    ),
    Transition(
        before=_S3,
        after=_S1,
        actor=_CLEAN,
        what="the sweep of what is 36 hours old",
        steps=_steps(*_REMOVE, "unlink mess"),
    ),
)
"""Every transition, in the order of a message's life.

Where `remote` is written or removed, `local` may stand as well.
"""
