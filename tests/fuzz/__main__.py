"""Fuzz every parser: `python -m tests.fuzz --runs 100000`.

With atheris (PyPI) guided by coverage, without it by random changes of the inputs
that are kept. A table at the end says how many executions each parser had and what
was found; the exit code is 1 when anything was. Each input that was refused in a way
that is not legal is shown, and kept below --found.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

from qsend.sysio import clock
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, corpus_file, inputs

LENGTH_MAX = 4096
_KEPT_MAX = 40
_KEPT_BYTES = 300


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    name: str
    runs: int
    seconds: float
    found: str


def main() -> int:
    """Fuzz the targets asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="executions of each")
    parser.add_argument("--seconds", type=int, default=0, help="at most, for each")
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--keep", action="store_true", help="add to the corpus")
    args = parser.parse_args()
    guided = not args.plain and importlib.util.find_spec("atheris") is not None
    run = _guided if guided else _plain
    outcomes = []
    for name in TARGETS:
        if re.search(args.only, name):
            outcomes.append(run(name, args))
            _say(outcomes[-1])
    total = sum(each.runs for each in outcomes)
    bad = [each for each in outcomes if each.found]
    _print(f"{len(outcomes)} parsers, {total} executions, {len(bad)} with a defect")
    return 1 if bad else 0


def _say(outcome: Outcome) -> None:
    found = outcome.found or "nothing found"
    _print(f"{outcome.name:20} {outcome.runs:10} {outcome.seconds:7.0f} s  {found}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _plain(name: str, args: argparse.Namespace) -> Outcome:
    target, pick, began = TARGETS[name], Random(args.seed), clock.mono()
    kept, runs = inputs(target), 0
    while runs < args.runs:
        data = mutated(pick, kept, target.tokens)
        runs += 1
        try:
            target.check(data)
        except Exception as exc:  # noqa: BLE001 - what is looked for
            return Outcome(name, runs, clock.mono() - began, f"{data!r}: {exc!r}")
        if args.seconds and clock.mono() - began > args.seconds:
            break
    return Outcome(name, runs, clock.mono() - began, "")


def _guided(name: str, args: argparse.Namespace) -> Outcome:
    """In a process of its own: libFuzzer ends by exit."""
    target, began = TARGETS[name], clock.mono()
    args.found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        known, grown = Path(place, "known"), Path(place, "grown")
        known.mkdir()
        grown.mkdir()
        for number, data in enumerate(inputs(target)):
            (known / str(number)).write_bytes(data)
        tokens = Path(place, "tokens")
        # libFuzzer ends at a dictionary without words.
        words = target.tokens or (b"\n",)
        tokens.write_text("".join(f'"{_escaped(each)}"\n' for each in words))
        prefix = args.found / (corpus_file(name).stem + "-")
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz.guided", name,
                f"-runs={args.runs}", f"-max_total_time={args.seconds}",
                f"-max_len={LENGTH_MAX}", f"-seed={args.seed}", f"-dict={tokens}",
                f"-artifact_prefix={prefix}", "-timeout=20", "-rss_limit_mb=1024",
                "-print_final_stats=1", str(grown), str(known),
            ],
            capture_output=True, check=False,
        )  # fmt: skip
        if args.keep and done.returncode == 0:
            _keep(name, grown)
    told = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    counts = re.findall(r"number_of_executed_units: (\d+)", told)
    counts = counts or re.findall(r"(?m)^#(\d+)", told) or ["0"]
    found = "" if done.returncode == 0 else told[-1500:] + str(done.returncode)
    return Outcome(name, int(counts[-1]), clock.mono() - began, found)


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _keep(name: str, grown: Path) -> None:
    """Keep the shortest inputs that reached something new."""
    found = sorted((path.read_bytes() for path in grown.iterdir()), key=len)
    new = [data for data in found if len(data) <= _KEPT_BYTES][:_KEPT_MAX]
    kept = [each for each in inputs(TARGETS[name]) if each not in TARGETS[name].seeds]
    lines = sorted({repr(data) for data in (*kept, *new)})
    corpus_file(name).write_text("".join(f"{line}\n" for line in lines))


sys.exit(main())
