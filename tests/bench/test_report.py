"""Results are kept whole, and several runs make one report."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import report, show
from bench.outcome import Outcome, Run, load, save

MACHINE = {"commit": "abc", "cores": 2, "rounds": 1}


def test_minutes_are_those_of_whole_rounds_by_workload() -> None:
    rounds = [outcome("w1 x", "qsend", 1.0), outcome("w1 y", "qsend", 1.0)]
    rounds += [outcome("w2 z", "qsend", 1.0), outcome("micro parse", "machine", 1.0)]
    for each, took_s in zip(rounds, (30, 90, 60), strict=False):
        each.took_s = took_s
    assert show.minutes(rounds) == "minutes: w1 2.0, w2 1.0; together 3.0\n"


def outcome(variant: str, system: str, seconds: float, number: int = 1) -> Outcome:
    return Outcome(
        variant=variant,
        system=system,
        round=number,
        units=100,
        seconds=seconds,
        cpu_s=0.1,
        settings={"concurrencyremote": "50", "home": "/somewhere"},
        timeline=[(0.0, 100), (seconds, 0)],
    )


def test_saved_run_is_loaded_as_it_was(tmp_path: Path) -> None:
    made = [outcome("w1 x", "qsend", 0.5), outcome("w1 x", "postfix", 1.0)]
    save(tmp_path, MACHINE, made)
    run = load(tmp_path / "results.json")
    assert run.machine == MACHINE
    # nan is not equal to itself
    assert [str(each) for each in run.outcomes] == [str(each) for each in made]
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rate"] for row in rows] == ["200.0", "100.0"]
    assert [row["commit"] for row in rows] == ['"abc"', '"abc"']


def test_report_of_two_runs_says_what_is_of_which(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="tools/venv bench installs it")
    first = Run(MACHINE, [outcome("w1 x", "qsend", 1.0), outcome("w2 y", "qsend", 1.0)])
    again = [outcome("w2 y", name, s, n) for n in (1, 2) for name, s in PAIR]
    second = Run({**MACHINE, "rounds": 2, "scale": 0.5}, again)
    report.write(tmp_path / "REPORT.md", [first, second], tmp_path / "plots")
    text = (tmp_path / "REPORT.md").read_text()
    assert "* commit: abc\n* cores: 2\n" in text
    assert "* run 1 (w1 x): rounds 1\n" in text
    assert "* run 2 (w2 y): rounds 2, scale 0.5\n" in text
    assert "| qsend | 2 | 200 | 1.00 |" in text
    assert "| postfix | 2 | 50 | 1.00 |  |  |  | 4.00 |" in text
    assert "concurrencyremote='50'" in text
    assert "/somewhere" not in text
    assert "](plots/depth-w1-x.png)" in text
    assert (tmp_path / "plots/depth-w1-x.png").exists()


PAIR = (("qsend", 0.5), ("postfix", 2.0))
