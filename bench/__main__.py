"""`python -m bench`: measure, print the tables, and fail if an aim isn't met."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

from bench.contenders import CONTENDERS, SAFE, TIGHT, Job
from bench.data import ALL_DAYS
from bench.measure import (
    Measured,
    audit_seconds,
    batches,
    command,
    import_seconds,
    loaded_by,
    measure,
    medians,
    prepare,
    publications,
    retention,
    sameness,
)
from bench.report import MANY_AUDITS, Report

FULL = {30: 5, 90: 5, 365: 3, ALL_DAYS: 2}
QUICK = {30: 1, 90: 1}
WATCHED = ("pandas", "pyarrow", "polars", "sqlglot", "duckdb", "snowflake")


def main() -> int:
    """Run the benchmark and return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 and 90 days, once")
    is_quick = parser.parse_args().quick
    prepare()
    measured: dict[tuple[str, int, int], list[Measured]] = defaultdict(list)
    for job, is_first in _jobs(QUICK if is_quick else FULL):
        one = measure(job, verified=is_first)
        measured[job.contender, job.days, job.audits].append(one)
        line = f"{job.contender}, {job.days} days, {job.audits} audits: {one.wall:.2f} s, {one.peak_mb:.0f} MB"
        print(line, file=sys.stderr, flush=True)
    report = Report(
        results={key: medians(several) for key, several in measured.items()},
        imports=import_seconds(["dagster", "dagster_safe_backfill"], repetitions=3 if is_quick else 9),
        loaded=loaded_by("dagster_safe_backfill", WATCHED),
        audits=audit_seconds(),
        publications=publications(turns=3 if is_quick else 7),
        batches=batches(turns=1 if is_quick else 3),
        sameness=sameness(turns=5 if is_quick else 15),
        retention=retention(),
        command=command(turns=1 if is_quick else 5),
    )
    print(*report.tables(), sep="\n")
    print("\n### Aims\n")
    aims = list(report.aims())
    for text, found, is_met in aims:
        print(f"- {'PASS' if is_met else 'FAIL'} {text}: {found}")
    return 0 if all(is_met for _, _, is_met in aims) else 1


def _jobs(repetitions: Mapping[int, int]) -> Iterator[tuple[Job, bool]]:
    """Return what to measure, contenders side by side, and whether it is the first of its kind."""
    for days, times in repetitions.items():
        for turn in range(times):
            # Each turn begins with another contender, so that none always runs in the same one's wake.
            names = [*CONTENDERS]
            for name in [*names[turn:], *names[:turn]]:
                yield Job(contender=name, days=days), turn == 0
        yield Job(contender=SAFE["query"], days=days, audits=1), True
        yield Job(contender=TIGHT, days=days), True
    yield Job(contender=SAFE["query"], days=min(repetitions), audits=MANY_AUDITS), True


if __name__ == "__main__":
    sys.exit(main())
