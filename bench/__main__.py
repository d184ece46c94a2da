"""The benchmark suite.

    python -m bench [WORKLOAD ...] [--full] [--rounds N] [--scale F] [--systems LIST]

Workloads are w1 ... w8, limits and micro; without any, all of the quick set. Results
are printed, and written as JSON, CSV and a report with plots to --out. Needs root.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import drains, machine, namespace, peers, runner, show
from bench.errors import BenchError
from bench.lab import Lab
from bench.outcome import save
from bench.sink import running_sink
from bench.tree import ROOT

FAMILIES = (drains,)
WORKLOADS = ("w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "limits", "micro")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", default=[])
    parser.add_argument("--full", action="store_true", help="all variants")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times the number of messages"
    )
    parser.add_argument(
        "--only", default="", help="variants that have this in their name"
    )
    parser.add_argument(
        "--systems", default=",".join(peers.present()), help="default: %(default)s"
    )
    parser.add_argument(
        "--durability", default="full", choices=["full", "qmail", "none"]
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    return parser.parse_args()


def main() -> int:
    """Run what is asked for; 1 when something did not arrive exactly once."""
    options = _options()
    try:
        namespace.enter("bench", sys.argv[1:])
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    facts = machine.facts(options.durability)
    wanted = options.workloads or WORKLOADS
    chosen = [
        variant
        for family in FAMILIES
        for variant in family.variants(full=options.full)
        if variant.workload in wanted and options.only in variant.name
    ]
    with (
        running_sink() as sink,
        Lab(sink=sink, durability=options.durability, scale=options.scale) as lab,
    ):
        outcomes = runner.run(lab, chosen, options.systems.split(","), options.rounds)
    save(options.out, facts, outcomes)
    print(show.tables(facts, outcomes))
    return any(each.error for each in outcomes)


if __name__ == "__main__":
    sys.exit(main())
