"""`python -m bench`: measure, print the tables, and fail if an aim isn't met."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence

from bench.contenders import CHECKS, CONTENDERS, SAFE, Job
from bench.data import ALL_DAYS
from bench.measure import Measured, import_seconds, loaded_by, measure, medians, prepare
from bench.report import Imports, Report

FULL = {30: 5, 90: 5, 365: 3, ALL_DAYS: 2}
QUICK = {30: 1, 90: 1}
MANY_AUDITS = 20
WATCHED_IMPORTS = ("pandas", "pyarrow", "polars", "sqlglot", "duckdb", "snowflake")


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 and 90 days, once")
    parser.add_argument("--only", action="append", help="part of a contender's name; repeatable")
    options = parser.parse_args(arguments)
    repetitions = QUICK if options.quick else FULL
    chosen = [
        name
        for name in CONTENDERS
        if not options.only or any(part in name for part in options.only)
    ]
    prepare()
    measured: dict[tuple[str, int, int], list[Measured]] = defaultdict(list)
    for job, verified in _jobs(chosen, repetitions):
        one = measure(job, verified=verified)
        measured[job.contender, job.days, job.audits].append(one)
        _say(f"{job.contender}, {job.days} days, {job.audits} audits: {one.wall:.2f} s, {one.peak_mb:.0f} MB")
    results = {key: medians(several) for key, several in measured.items()}
    report = Report(results, _imports(1 if options.quick else 7), audits=len(CHECKS))
    print(report.text())
    return 0 if all(aim.met for aim in report.aims()) else 1


def _jobs(chosen: Sequence[str], repetitions: dict[int, int]) -> list[tuple[Job, bool]]:
    """Return what to measure, contenders side by side; each result is verified the first time."""
    jobs: list[tuple[Job, bool]] = []
    for days, times in repetitions.items():
        for turn in range(times):
            # Each turn begins with another contender, so that none always runs in another's wake.
            order = [*chosen[turn % len(chosen) :], *chosen[: turn % len(chosen)]]
            jobs += [(Job(contender=name, days=days), turn == 0) for name in order]
        if SAFE["query"] in chosen:
            jobs.append((Job(contender=SAFE["query"], days=days, audits=1), True))
    if SAFE["query"] in chosen:
        jobs.append((Job(contender=SAFE["query"], days=min(repetitions), audits=MANY_AUDITS), True))
    return jobs


def _imports(repetitions: int) -> Imports:
    seconds = import_seconds(["dagster", "dagster_safe_backfill"], repetitions=repetitions)
    return Imports(
        dagster=seconds["dagster"],
        library=seconds["dagster_safe_backfill"],
        loaded=loaded_by("dagster_safe_backfill", WATCHED_IMPORTS),
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
