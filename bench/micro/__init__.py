"""The hot functions alone, measured by pytest-benchmark."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.outcome import Outcome
from bench.tree import ROOT
from bench.workload import MACHINE

MICRO = "micro"


def run() -> list[Outcome]:
    """Measure all of them; the units are calls."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "micro.json"
        command = [
            sys.executable, "-m", "pytest", "-q", "-c", os.devnull,
            f"--rootdir={ROOT}", "--import-mode=importlib", f"--benchmark-json={path}",
            "--benchmark-columns=median,iqr,ops", str(ROOT / "bench/micro"),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
        if done.returncode:
            error = f"pytest ended with {done.returncode}"
            return [Outcome(variant=MICRO, system=MACHINE, round=1, error=error)]
        found = json.loads(path.read_text())["benchmarks"]
    return [
        Outcome(
            variant=f"{MICRO} {each['name'].removeprefix('test_').replace('_', ' ')}",
            system=MACHINE,
            round=1,
            units=1,
            seconds=each["stats"]["median"],
            cpu_s=math.nan,
        )
        for each in found
    ]
