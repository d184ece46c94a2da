"""What a queue needs after a restore, a copy, or hands: decided from what lies there.

A message is one mess file and every file that belongs to it. The number of a message
must be the inode of its mess file; that of a restored one is not, so its files are
renamed in two steps: from `N` to `+M` in all directories, mess last, then from `+M`
to `M`, mess first. Which files belong together is told by the mess file's inode at
every moment in between, so that a repair that was cut off is repeated and not lost.
Must not do: I/O (sysio/queuescan finds, sysio/queuerepair does).
Source: qmail INTERNALS section 3, fmtqfn.c; queue_layout.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qsend.core.model import SPLIT
from qsend.core.states import FILES, Fate, fate

OSSIFIED_S = 129600
"""Age at which a file that no writer finished is garbage (qmail-clean.c OSSIFIED)."""

GONE = "its message file is gone"
NO_SENDER = "its sender record is gone"
SECOND_NAME = "its message file is that of message %d"
SAME_NUMBER = "another file has the number %d"

SPLIT_KINDS = frozenset({"mess", "info", "local", "remote"})
_OF_ATTEMPTS = ("local", "remote", "bounce")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry in the place of a queue file.

    `path` is relative to the queue, `kind` one of states.FILES, `number` that of its
    name; `is_staged` if that name was `+<number>`. `device` and `inode` are its own.
    `touched` is the later of mtime and ctime, whole seconds.
    """

    kind: str
    path: str
    number: int
    is_staged: bool
    device: int
    inode: int
    is_file: bool
    size: int
    touched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Files that belong together; `files` maps a kind to its file.

    `number` is what the message is called now, `target` what it has to be called.
    A group without a mess file keeps its number.
    """

    number: int
    target: int
    files: Mapping[str, Found]

    @property
    def fate(self) -> Fate:
        """What the queue manager would do with it."""
        return fate(frozenset(self.files))

    def to_read(self) -> tuple[Found, ...]:
        """The files whose content decides whether the message can be worked on.

        Before preprocessing is over, info, local and remote may be half written:
        nobody reads them.
        """
        wanted = {
            Fate.PREPROCESS: ("mess", "todo"),
            Fate.DELIVER: ("mess", "info", "local", "remote", "bounce"),
        }.get(self.fate, ())
        return tuple(self.files[kind] for kind in wanted if kind in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Set these files aside, under `number`, for `reason`; mess is the last to go."""

    number: int
    reason: str
    files: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove the files of a message that nobody was told of, mess last."""

    number: int
    files: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renumber:
    """Give the files the number `target`; those already called `+<target>` too."""

    number: int
    target: int
    files: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything to be done, in this order, each part durable before the next.

    `drops` are single files left over from an unfinished removal, `moves` pairs of a
    file and the path where it belongs. `kept` are messages that never were accepted,
    or are over, and too young to be removed.
    """

    asides: Sequence[Aside] = ()
    removes: Sequence[Remove] = ()
    drops: Sequence[Found] = ()
    moves: Sequence[tuple[Found, str]] = ()
    renumbers: Sequence[Renumber] = ()
    kept: Sequence[Message] = ()

    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.asides or self.removes or self.drops or self.moves or self.renumbers
        )


def place(kind: str, number: int) -> str:
    """The directory of a file, as `mess/20` or `todo`."""
    return f"{kind}/{number % SPLIT}" if kind in SPLIT_KINDS else kind


def final_path(kind: str, number: int) -> str:
    """Where a file of message `number` belongs."""
    return f"{place(kind, number)}/{number}"


def staged_path(kind: str, number: int) -> str:
    """Where it is while its message is renumbered to `number`."""
    return f"{place(kind, number)}/+{number}"


def group(found: Iterable[Found]) -> tuple[list[Message], list[Aside]]:
    """Everything found as messages, and what belongs to none.

    Of several files for one place the one in the right directory counts. A mess
    file with two names is the message that has its inode number.
    """
    grouping = _Grouping(found)
    messages = [grouping.message(mess) for mess in grouping.messes()]
    grouping.set_rest_apart()
    return messages, grouping.asides


@dataclass(slots=True)
class _Grouping:
    """The files not yet given to a message, by kind, number and staging."""

    found: Iterable[Found]
    asides: list[Aside] = field(default_factory=list)
    left: dict[tuple[str, int, bool], list[Found]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in self.found:
            key = (each.kind, each.number, each.is_staged)
            self.left.setdefault(key, []).append(each)

    def messes(self) -> list[Found]:
        """The mess file of each message; the others are set aside."""
        by_name = [
            self._take("mess", number, is_staged=is_staged)
            for kind, number, is_staged in list(self.left)
            if kind == "mess"
        ]
        by_inode: dict[tuple[int, int], Found] = {}
        for mess in sorted(filter(None, by_name), key=_mess_rank):
            first = by_inode.setdefault((mess.device, mess.inode), mess)
            if first is not mess:
                self._set_apart(mess, first)
        return list(by_inode.values())

    def message(self, mess: Found) -> Message:
        """The message of a mess file, with all that has its number."""
        target = mess.inode if mess.is_file else mess.number
        files = {"mess": mess}
        for kind in FILES[1:]:
            file = self._take(kind, target, is_staged=True)
            if file is None and not mess.is_staged:
                file = self._take(kind, mess.number, is_staged=False, near=mess)
            if file is not None:
                files[kind] = file
        return Message(number=mess.number, target=target, files=files)

    def set_rest_apart(self) -> None:
        """What is left when every message has its files."""
        for number, is_staged in sorted({key[1:] for key in self.left}):
            taken = [self._take(kind, number, is_staged=is_staged) for kind in FILES]
            files = tuple(each for each in taken if each is not None)
            self.asides.append(Aside(number=number, reason=GONE, files=files))

    def _set_apart(self, mess: Found, first: Found) -> None:
        """A second name of a message: with what that name has, if it has anything."""
        files = {"mess": mess}
        if mess.number != first.number and not mess.is_staged:
            for kind in FILES[1:]:
                file = self._take(kind, mess.number, is_staged=False, near=mess)
                if file is not None:
                    files[kind] = file
        reason = SECOND_NAME % first.inode
        self.asides.append(
            Aside(number=mess.number, reason=reason, files=tuple(files.values()))
        )

    def _take(
        self, kind: str, number: int, *, is_staged: bool, near: Found | None = None
    ) -> Found | None:
        """The file of a kind for a number; further ones are set aside."""
        candidates = self.left.pop((kind, number, is_staged), [])
        if not candidates:
            return None
        part = near.path.split("/")[1] if near else ""
        candidates.sort(key=lambda each: _rank(each, part))
        for extra in candidates[1:]:
            reason = SAME_NUMBER % number
            self.asides.append(Aside(number=number, reason=reason, files=(extra,)))
        return candidates[0]


def _rank(each: Found, part: str) -> tuple[bool, bool, bool, str]:
    """The best of several files with one number first."""
    directory = each.path.rpartition("/")[0]
    return (
        directory != place(each.kind, each.number),
        directory != f"{each.kind}/{part}",
        each.inode != each.number,
        each.path,
    )


def _mess_rank(each: Found) -> tuple[bool, bool, str]:
    """The best of several names of one mess file first."""
    return each.inode != each.number, not each.is_staged, each.path


def plan(
    messages: Iterable[Message],
    asides: Sequence[Aside],
    damage: Mapping[str, str],
    now: int,
    *,
    take_orphans: bool = False,
) -> Plan:
    """What to do with what `group` has found.

    Args:
        damage: path to reason, for each file of `Message.to_read` that cannot be
            used, and each entry that is no file.
        now: wall clock, whole seconds.
        take_orphans: remove messages that were never accepted whatever their age.
    """
    making = _Making(damage, now, take_orphans, list(asides))
    for message in sorted(messages, key=lambda each: each.number):
        making.add(message)
    return Plan(
        asides=making.asides,
        removes=making.removes,
        drops=making.drops,
        moves=making.moves,
        renumbers=making.renumbers,
        kept=making.kept,
    )


@dataclass(slots=True)
class _Making:
    damage: Mapping[str, str]
    now: int
    take_orphans: bool
    asides: list[Aside]
    removes: list[Remove] = field(default_factory=list)
    drops: list[Found] = field(default_factory=list)
    moves: list[tuple[Found, str]] = field(default_factory=list)
    renumbers: list[Renumber] = field(default_factory=list)
    kept: list[Message] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Decide about one message."""
        files = message.files
        reason = self._damage_of(message)
        if reason is not None:
            whole = _ordered(files.values())
            self.asides.append(Aside(number=message.number, reason=reason, files=whole))
        elif message.fate is Fate.SWEEP and self._is_garbage(message):
            self.removes.append(
                Remove(number=message.number, files=_ordered(files.values()))
            )
        else:
            self._put_right(message)

    def _damage_of(self, message: Message) -> str | None:
        reasons = [
            self.damage[file.path]
            for file in message.files.values()
            if file.path in self.damage
        ]
        if reasons:
            return reasons[0]
        # Without its sender, what is left of a message cannot be delivered; the
        # sweep would take it.
        if message.fate is Fate.SWEEP and message.files.keys() & set(_OF_ATTEMPTS):
            return NO_SENDER
        return None

    def _is_garbage(self, message: Message) -> bool:
        youngest = max(file.touched for file in message.files.values())
        if self.take_orphans or self.now - youngest > OSSIFIED_S:
            return True
        self.kept.append(message)
        return False

    def _put_right(self, message: Message) -> None:
        files = dict(message.files)
        if message.fate is Fate.DELIVER and "intd" in files:
            # +mess +intd -todo +info: the removal of intd was lost.
            self.drops.append(files.pop("intd"))
        staged = any(file.is_staged for file in files.values())
        if staged or message.number != message.target:
            self.renumbers.append(
                Renumber(
                    number=message.number,
                    target=message.target,
                    files=_ordered(files.values()),
                )
            )
            return
        for file in _ordered(files.values()):
            where = final_path(file.kind, message.target)
            if file.path != where:
                self.moves.append((file, where))


def _ordered(files: Iterable[Found]) -> tuple[Found, ...]:
    """mess is the last."""
    return tuple(sorted(files, key=lambda each: (each.kind == "mess", each.path)))
