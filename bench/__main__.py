"""The benchmark suite.

    python -m bench [WORKLOAD ...] [--full] [--rounds N] [--scale F] [--systems LIST]

Workloads are w1 ... w8, limits and micro; without any, all of the quick set. Results
are printed, and written as JSON, CSV and a report with plots to --out. Needs root.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (  # fmt: skip
    backlog,
    drains,
    flow,
    intake,
    large,
    limits,
    lists,
    machine,
    micro,
    namespace,
    neighbours,
    peers,
    report,
    runner,
    show,
)
from bench.errors import BenchError
from bench.lab import Lab
from bench.outcome import RESULTS, Outcome, Run, load, save
from bench.sink import running_sink
from bench.tree import ROOT
from bench.workload import Variant, unfinished

FAMILIES = (limits, intake, drains, lists, flow, backlog, neighbours, large)
"""In the order of the runs. Intake comes first, for it makes most files: without a
journal ext4 does that slowly where others were just removed, as every drain does."""
MICRO = "micro"
WORKLOADS = ("limits", *(f"w{number}" for number in range(1, 9)), MICRO)
HERE = ROOT / "bench"
OUT = HERE / "results"


def main() -> int:
    """Run what is asked for.

    Returns: 1 when a run failed, as when a message did not arrive exactly once.
    """
    options = _options()
    try:
        namespace.enter("bench", sys.argv[1:])
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    # Every session of every peer ends at the sink.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    facts = machine.facts(options.durability)
    facts |= {"rounds": options.rounds, "scale": options.scale}
    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        save(options.out, facts, outcomes)

    # Only now: as the first process of its namespace it would not hear this signal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(options, keep)
    except KeyboardInterrupt:
        print(f"bench: stopped; so far: {options.out / RESULTS}", file=sys.stderr)
        return 130
    runs = [Run(facts, outcomes)]
    for place in (options.out, *([HERE] if options.report else [])):
        report.write(place / "REPORT.md", runs, place / "plots")
    print(show.facts(runs) + "\n" + show.tables(outcomes))
    print("\n" + show.minutes(outcomes))
    print(f"All of it is in {options.out}")
    return int(any(each.error for each in outcomes))


def _run(options: argparse.Namespace, keep: Callable[[Outcome], None]) -> None:
    with (
        running_sink() as sink,
        Lab(
            sink=sink,
            durability=options.durability,
            scale=options.scale,
            is_quick=not options.full,
        ) as lab,
    ):
        systems = options.systems.split(",")
        runner.run(lab, _chosen(options, systems), systems, options.rounds, keep)
    if MICRO in options.workloads:
        for outcome in micro.run():
            keep(outcome)


def _chosen(options: argparse.Namespace, systems: list[str]) -> list[Variant]:
    """What is asked for, but for what earlier results have in all rounds."""
    chosen = [
        variant
        for family in FAMILIES
        for variant in family.variants(full=options.full)
        if variant.workload in options.workloads and options.only in variant.name
    ]
    had = load(options.rest_of).outcomes if options.rest_of else ()
    return unfinished(chosen, systems, options.rounds, had)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS)
    )
    parser.add_argument("--full", action="store_true", help="all variants")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the counts of messages"
    )
    parser.add_argument("--only", default="", help="variants with this in their name")
    parser.add_argument(
        "--rest-of",
        type=Path,
        metavar="RESULTS.json",
        help="leave out variants that a run which was stopped has in all rounds",
    )
    parser.add_argument(
        "--systems", default=",".join(peers.present()), help="default: %(default)s"
    )
    parser.add_argument(
        "--durability", default="full", choices=["full", "qmail", "none"]
    )
    parser.add_argument(
        "--report", action="store_true", help="write bench/REPORT.md too, for a commit"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    options = parser.parse_args()
    unknown = set(options.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    if options.rest_of and options.rest_of.parent.resolve() == options.out.resolve():
        parser.error("--rest-of: these results would be overwritten; choose an --out")
    options.workloads = options.workloads or list(WORKLOADS)
    return options


if __name__ == "__main__":
    sys.exit(main())
