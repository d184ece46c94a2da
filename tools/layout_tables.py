#!/usr/bin/env python3
"""Writes the tables of queue_layout.md from the code they describe.

    tools/layout_tables.py          rewrite the tables in place
    tools/layout_tables.py --check  say whether they are up to date (exit 1 if not)

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from qsend.core.model import SPLIT  # noqa: E402 - after the path to it is known
from qsend.core.states import (  # noqa: E402
    FILES,
    MEANINGS,
    PATTERNS,
    TRANSITIONS,
    Do,
    Fate,
    Transition,
    classify,
    fate,
)
from qsend.formats.layout import ENTRIES, QUEUE_FILES, TCPTO_SIZE  # noqa: E402
from qsend.formats.recips import RECIP_MAX  # noqa: E402
from qsend.sysio.cleaner import OSSIFIED_S  # noqa: E402
from qsend.sysio.fsq import RECIPS_MAX, TODO_MAX  # noqa: E402

DOCUMENT = ROOT / "queue_layout.md"
_TABLE = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def entries() -> str:
    """The fixed entries."""
    return _rows(
        ["path", "type", "owner", "mode", "what it is for"],
        (
            [
                f"`{entry.path}/0` to `{entry.path}/{SPLIT - 1}`, `{entry.path}`"
                if entry.split
                else f"`{entry.path}`",
                entry.kind.value + (f", {entry.size} bytes" if entry.size else ""),
                entry.owner.value,
                f"{entry.mode:04o}",
                entry.purpose,
            ]
            for entry in ENTRIES
        ),
    )


def files() -> str:
    """The files of messages."""
    return _rows(
        ["file", "owner", "mode", "created by", "read by", "removed by", "content"],
        (
            [
                f"`{file.path}`",
                file.owner.value,
                f"{file.mode:04o}",
                file.creates,
                file.reads,
                file.deletes,
                file.fields.replace("<", "&lt;"),
            ]
            for file in QUEUE_FILES
        ),
    )


def states() -> str:
    """The five states, and what becomes of each after a crash."""
    return _rows(
        ["state", *FILES, "meaning", "after a crash"],
        (
            [
                state.value,
                *pattern,
                MEANINGS[state],
                fate(_least(pattern)).value,
            ]
            for state, pattern in PATTERNS.items()
        ),
    )


def fates() -> str:
    """What is done with any set of files."""
    found = {
        Fate.PREPROCESS: "mess and todo, whatever else",
        Fate.DELIVER: "mess and info without todo, whatever else",
        Fate.SWEEP: "mess without todo and info",
        Fate.ASIDE: "todo or info without mess",
        Fate.LEFTOVER: "neither mess nor todo nor info",
        Fate.NONE: "nothing",
    }
    return _rows(
        ["what is found", "what becomes of it"],
        ([words, each.value] for each, words in found.items()),
    )


def transitions() -> str:
    """Every step between states."""
    return _rows(
        ["from", "to", "who", "what", "steps in order", "between them", "commits"],
        (
            [
                each.before.value,
                each.after.value,
                each.actor,
                each.what,
                ", ".join(str(step) for step in each.steps),
                _between(each),
                each.commits,
            ]
            for each in TRANSITIONS
        ),
    )


def syncs() -> str:
    """What is made durable at each level."""

    def synced(transition: Transition, *kinds: Do) -> str:
        steps = [str(step) for step in transition.steps if step.do in kinds]
        return ", ".join(steps) or "nothing"

    return _rows(
        ["from", "to", "what", "full", "qmail", "none"],
        (
            [
                each.before.value,
                each.after.value,
                each.what,
                synced(each, Do.SYNC_FILE, Do.SYNC_NAME),
                synced(each, Do.SYNC_FILE),
                "nothing",
            ]
            for each in TRANSITIONS
            if any(step.do in (Do.SYNC_FILE, Do.SYNC_NAME) for step in each.steps)
        ),
    )


def limits() -> str:
    """The bounds of what is read."""
    return _rows(
        ["limit", "value"],
        [
            ["subdirectories (qmail's conf-split)", str(SPLIT)],
            ["age of garbage before it is removed", f"{OSSIFIED_S // 3600} hours"],
            ["longest todo file read", f"{TODO_MAX >> 20} MiB"],
            ["longest local or remote file read", f"{RECIPS_MAX >> 20} MiB"],
            ["longest recipient after rewriting", f"{RECIP_MAX} bytes"],
            ["size of lock/tcpto", f"{TCPTO_SIZE} bytes"],
        ],
    )


def _least(pattern: str) -> frozenset[str]:
    """The files that must be there."""
    pairs = zip(FILES, pattern, strict=True)
    return frozenset(name for name, sign in pairs if sign == "+")


def _between(transition: Transition) -> str:
    """The states a kill may leave on the way."""
    present = _least(PATTERNS[transition.before]) | transition.only_with
    passed = [transition.before]
    for step in transition.steps:
        present = step.after(present)
        state = classify(present)
        if state is not None and state is not passed[-1]:
            passed.append(state)
    return " ".join(state.value for state in passed)


TABLES: dict[str, Callable[[], str]] = {
    "entries": entries,
    "files": files,
    "states": states,
    "fates": fates,
    "transitions": transitions,
    "syncs": syncs,
    "limits": limits,
}


def rewritten(text: str) -> str:
    """The document with every table as the code has it now."""
    return _TABLE.sub(lambda hit: hit[1] + TABLES[hit[2]]() + hit[4], text)


def names(text: str) -> list[str]:
    """The tables a document has, in its order."""
    return [hit[2] for hit in _TABLE.finditer(text)]


def main(argv: Sequence[str]) -> int:
    """Rewrite or check; 1 when a check finds a difference."""
    text = DOCUMENT.read_text()
    new = rewritten(text)
    if argv == ["--check"]:
        if new != text:
            print(f"{DOCUMENT.name} is out of date: run tools/layout_tables.py")
        return int(new != text)
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
