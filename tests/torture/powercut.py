"""Power cuts of a recorded run: which there may be, and what each does to the mail.

A cut is a moment, what of the changes that were not yet synced has reached the
platter, and which writes did in part. Every subset of those changes is legal here: more
than ext4, xfs and btrfs do, which order what they put into their journals.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace

from tests.faketree import WHOLE, Op
from tests.torture import judge
from tests.torture.ledger import Pair
from tests.torture.recorddisk import RecordDisk


@dataclass(frozen=True, slots=True)
class Cut:
    """Behind `count` operations; `kept` and `torn` are positions of unsynced ones.

    What is torn has its first half, then zeros.
    """

    count: int
    kept: frozenset[int]
    torn: frozenset[int] = frozenset()


@dataclass(slots=True)
class Verdict:
    """What a cut does."""

    lost: list[Pair]
    faults: list[str]
    repeated: set[Pair]
    """Delivered before the cut, and attempted again."""

    @property
    def is_good(self) -> bool:
        """Nothing is lost, and no human is needed."""
        return not self.lost and not self.faults


def choose(disk: RecordDisk, chance: random.Random) -> Cut:
    """Any cut of the run."""
    count = chance.randint(disk.marks[0].ops, len(disk.ops))
    open_ops = disk.unsynced(count)
    match chance.randrange(6):
        case 0:
            kept: Collection[int] = ()
        case 1:  # in the order of a journal
            kept = open_ops[: chance.randint(0, len(open_ops))]
        case 2:  # all but one
            kept = set(open_ops) - set(chance.sample(open_ops, min(1, len(open_ops))))
        case 3:  # names before contents
            kept = [each for each in open_ops if disk.ops[each].kind != "write"]
        case 4:  # contents before names
            kept = [each for each in open_ops if disk.ops[each].kind == "write"]
        case _:
            part = chance.random()
            kept = [each for each in open_ops if chance.random() < part]
    writes = [each for each in kept if len(disk.ops[each].data) > 1]
    torn = chance.sample(writes, chance.randint(0, min(2, len(writes))))
    return Cut(count, frozenset(kept), frozenset(torn))


def left_by(disk: RecordDisk, cut: Cut) -> RecordDisk:
    """The disk that the next start finds."""
    if not cut.torn:
        return disk.after_power_cut(cut.count, cut.kept)
    other = RecordDisk()
    other.now_ns = disk.now_ns
    other._next_node = disk._next_node
    other.ops = [
        _tear(op) if position in cut.torn else op
        for position, op in enumerate(disk.ops[: cut.count])
    ]
    return other.after_power_cut(cut.count, cut.kept)


def _tear(op: Op) -> Op:
    half = len(op.data) // 2
    return replace(op, data=op.data[:half] + bytes(len(op.data) - half))


def try_out(
    disk: RecordDisk, cut: Cut, *, fails: bool = False, is_alive: bool = True
) -> Verdict:
    """Cut, look at what is left, and let it be worked to its end.

    Args:
        fails: whether every later attempt fails.
        is_alive: False looks at the files alone.
    """
    accepted, taken = said(disk, cut.count)
    found = left_by(disk, cut)
    left = judge.Left.read(found.files())
    least = judge.Left.read(left_by(disk, Cut(cut.count, frozenset())).files())
    again = {
        pair for pair in left.waiting & (taken | least.arrived) if judge.is_single(pair)
    }
    faults = [
        *left.faults,
        # What a sync has said is done is not done again.
        *(f"{pair} is attempted again" for pair in sorted(again - least.waiting)),
    ]
    lost = judge.missing(accepted, left, taken)
    if is_alive and not faults and not lost:
        outcome = judge.all_fail if fails else judge.as_always
        faults += judge.live_on(found, left, outcome)
    return Verdict(lost=lost, faults=faults, repeated=again)


def said(disk: RecordDisk, count: int) -> tuple[set[int], set[Pair]]:
    """Numbers acknowledged, and what SMTP servers had, before operation `count`."""
    accepted: set[int] = set()
    taken: set[Pair] = set()
    for mark in disk.marks:
        if mark.ops > count:
            break
        word, _, rest = mark.text.partition(" ")
        if word == "yes":
            accepted.add(int(rest))
        elif word == "took":
            taken.add(judge.pair_of(f"{rest}@".encode()))
    return accepted, taken


def is_needed(disk: RecordDisk, position: int, within: int = 120) -> bool:
    """Whether mail is lost, or worse, at a cut soon after the sync at `position`, had
    that one not been made."""
    other = disk.without(lambda each, _op: each == position)
    for count in range(position + 1, min(position + within, len(disk.ops)) + 1):
        open_ops = other.unsynced(count)
        if open_ops == disk.unsynced(count):
            continue
        names = frozenset(each for each in open_ops if not disk.ops[each].data)
        for cut in (Cut(count, frozenset()), Cut(count, names)):
            if not try_out(other, cut, is_alive=False).is_good:
                return True
    return False


def syncs(disk: RecordDisk) -> dict[str, list[int]]:
    """Positions of syncs by what they are of: "mess/7" of a directory, "mess/7/" of a
    file below it, "*" of everything."""
    names = {
        op.target: f"{disk.path_of(op.node)}/" for op in disk.ops if op.kind == "link"
    }
    found: dict[str, list[int]] = defaultdict(list)
    for position in range(disk.marks[0].ops, len(disk.ops)):
        op = disk.ops[position]
        if op.kind == "sync":
            name = "*" if op.node == WHOLE else disk.path_of(op.node)
            found[name or names.get(op.node, "?")].append(position)
    return dict(found)
