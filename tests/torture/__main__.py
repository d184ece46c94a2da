"""`make torture`: the long part of the tests that nothing is lost.

Units of a few minutes each, one after the other, and at last the soak, of hours; what a
unit found is kept in .torture/, so that a run that is stopped goes on with the unit
where it was. `--fresh` begins anew. Root, strace; two cores. Exit code 1 when anything
was found.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qsend.sysio import clock
from tests.torture import deaths, kills, powercut, powerloss, soak
from tests.torture.ledger import Ledger
from tests.tree.harness import ROOT, Installation, Tree, install

KEPT = ROOT / ".torture"
KILLS = 250
REPEATS = 4
"""Second deaths for each first one."""
CUTS = 2500
BOOTS = 10
Run = Callable[[int, Installation, Path], Counter[str]]


@dataclass(frozen=True, slots=True)
class Stage:
    """Units of one kind; `run` gets the number of a unit, and counts what it did.

    Raises: AssertionError that tells what is wrong.
    """

    name: str
    units: int
    run: Run


def random_kills(unit: int, there: Installation, place: Path) -> Counter[str]:
    """kill -9 of anything at any time."""
    with Tree(there, place / "home") as tree:
        found = kills.run(tree, KILLS, random.Random(unit), place)
        found.ledger.check()
        kills.sweep(tree)
    return Counter(kills=found.kills.total()) + _books(found.ledger)


def call_by_call(unit: int, there: Installation, place: Path) -> Counter[str]:
    """kill -9 at each system call of a message's life."""
    with Tree(there, place / "home") as tree:
        found = deaths.run(tree, place, *deaths.SERIES[unit], REPEATS)
        found.ledger.check()
        kills.sweep(tree)
    by_title = Counter({"twice": found.again.total()})
    for name, count in found.deaths.items():
        by_title[name.split()[0]] += count
    return by_title + _books(found.ledger)


def power_cuts(unit: int, _there: Installation, place: Path) -> Counter[str]:
    """Power cuts at level full; every second recording has kills in it."""
    disk = powerloss.make(place, unit, 40, "full", kills=6 * (unit % 2))
    chance = random.Random(unit)
    done = Counter(operations=len(disk.ops))
    for number in range(CUTS):
        cut = powercut.choose(disk, chance)
        found = powercut.try_out(disk, cut, fails=bool(number % 2))
        assert found.is_good, (cut, found.lost, found.faults)
        done += Counter(cuts=1, repeats=len(found.repeated))
    run = Installation(max(place.glob("run*/venv")))
    faults = powerloss.sample(run, place / "home", disk, chance, BOOTS)
    assert not faults, faults
    return done + Counter(boots=BOOTS)


def needed_syncs(unit: int, _there: Installation, place: Path) -> Counter[str]:
    """Syncs without each of which mail would be lost: that the cuts see anything."""
    disk = powerloss.make(place, unit, 26, "full", kills=0)
    done: Counter[str] = Counter()
    for positions in powercut.syncs(disk).values():
        for position in positions:
            done["syncs left out"] += 1
            done["missed"] += powercut.is_needed(disk, position)
    assert done["missed"] > done["syncs left out"] / 4, done
    return done


def level_qmail(unit: int, _there: Installation, place: Path) -> Counter[str]:
    """The losses of level qmail."""
    disk = powerloss.make(place, unit, 40, "qmail", kills=0)
    chance = random.Random(unit)
    done: Counter[str] = Counter()
    for _ in range(CUTS):
        cut = powercut.choose(disk, chance)
        found = powercut.try_out(disk, cut, is_alive=False)
        done += Counter(cuts=1, lossy=bool(found.lost), faulty=bool(found.faults))
    assert done["lossy"], "level qmail lost nothing: the cuts see nothing"
    return done


def long_run(count: int) -> Run:
    """A mixed load of so many messages, and nothing grows."""

    def tell(answered: int) -> None:
        sys.stderr.write(f"\r{answered:>9}/{count} ")
        sys.stderr.flush()

    def run(_unit: int, there: Installation, place: Path) -> Counter[str]:
        with Tree(there, place / "home") as tree:
            books = soak.run(tree, place, count, tell)
            kills.sweep(tree)
        (KEPT / "soak.txt").write_text(books.figures.table())
        assert not books.figures.grown(), books.figures.grown()
        return books.counts + _books(books.ledger)

    return run


STAGES = (
    Stage("power cuts at level full", 10, power_cuts),
    Stage("syncs left out", 1, needed_syncs),
    Stage("power cuts at level qmail", 1, level_qmail),
    Stage("kill -9 at every system call", len(deaths.SERIES), call_by_call),
    Stage("random kills under load", 20, random_kills),
)


def _books(ledger: Ledger) -> Counter[str]:
    return Counter(
        accepted=len(ledger.accepted),
        attempts=ledger.attempts,
        duplicates=len(ledger.duplicates),
    )


def main() -> int:
    """Run what is left to do; the exit code."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget earlier units")
    parser.add_argument("--only", default="", help="stages whose name has this in it")
    parser.add_argument(
        "--messages", type=int, default=1_000_000, help="of the soak, in one run"
    )
    parser.add_argument("--most", type=int, default=1000, help="units to do now")
    parser.add_argument(
        "--dir", default="/tmp", help="where the trees are, short; default: /tmp"
    )
    args = parser.parse_args()
    if args.fresh and KEPT.exists():
        shutil.rmtree(KEPT)
    KEPT.mkdir(exist_ok=True)
    every_stage = (*STAGES, Stage("soak", 1, long_run(args.messages)))
    stages = [stage for stage in every_stage if args.only in stage.name]
    every = [(stage, unit) for stage in stages for unit in range(stage.units)]
    units = [each for each in every if not _is_done(*each)][: args.most]
    place = Path(tempfile.mkdtemp(prefix="qsend-torture-", dir=args.dir))
    place.chmod(0o755)
    try:
        there = install(place / "venv")
        for number, (stage, unit) in enumerate(units):
            _progress(number, len(units), stage, unit)
            _keep(stage, unit, there, place / f"unit{number}")
    finally:
        shutil.rmtree(place)
    _progress_end()
    return _table(stages)


def _kept(stage: Stage, unit: int) -> Path:
    return KEPT / f"{stage.name.replace(' ', '-')}.{unit}.json"


def _is_done(stage: Stage, unit: int) -> bool:
    """Whether it was run to its end and found nothing; else it is run again."""
    path = _kept(stage, unit)
    return path.exists() and not json.loads(path.read_text())["wrong"]


def _keep(stage: Stage, unit: int, there: Installation, place: Path) -> None:
    """Run a unit and keep what it found."""
    place.mkdir()
    place.chmod(0o755)
    began_mono = clock.mono()
    wrong = ""
    done: Counter[str] = Counter()
    try:
        done = stage.run(unit, there, place)
    except AssertionError as exc:
        wrong = f"{exc}\n{traceback.format_exc()}"
    finally:
        shutil.rmtree(place)
    took_s = round(clock.mono() - began_mono, 1)
    row = {"done": done, "wrong": wrong, "seconds": took_s}
    _kept(stage, unit).write_text(json.dumps(row))


def _progress(number: int, count: int, stage: Stage, unit: int) -> None:
    full = 30 * number // count
    bar = "#" * full + "." * (30 - full)
    sys.stderr.write(f"\r[{bar}] {number}/{count} {stage.name} {unit:<20}")
    sys.stderr.flush()


def _progress_end() -> None:
    sys.stderr.write("\n")


def _table(stages: list[Stage]) -> int:
    """Print what all units found; 1 when that is something wrong."""
    all_wrong = []
    for stage in stages:
        done: Counter[str] = Counter()
        seconds = 0.0
        kept = [each for each in range(stage.units) if _kept(stage, each).exists()]
        for unit in kept:
            row = json.loads(_kept(stage, unit).read_text())
            done.update(row["done"])
            seconds += row["seconds"]
            if row["wrong"]:
                all_wrong.append(f"{stage.name} {unit}: {row['wrong']}")
        counts = ", ".join(f"{count} {name}" for name, count in done.items())
        much = f"{len(kept)}/{stage.units}"
        sys.stdout.write(f"{stage.name:32} {much:>5} {seconds:7.0f} s  {counts}\n")
    figures = KEPT / "soak.txt"
    if figures.exists():
        sys.stdout.write(figures.read_text())
    sys.stdout.write("".join(f"\nWRONG {each}\n" for each in all_wrong))
    return 1 if all_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
