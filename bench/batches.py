"""365 days of frames in one run at once, in one run of batches, and in a run of each: seconds and peak memory.

Each turn is on a fresh copy of the warehouse, and each run a process of its own. Runs of one partition are measured on
the first few, and the seconds of all are extrapolated. Run as `python -m bench.batches TURNS`; the result is JSON on
standard output.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from bench import data
from bench.contenders import BATCHED, LIVE_BY_BATCH, SAFE, Job

DAYS, SAMPLE = 365, 10
AT_ONCE, BY_PARTITION = f"{SAFE['frame']}, at once", f"{SAFE['frame']}, a run for each partition"
WAYS: dict[str, Sequence[Job]] = {
    AT_ONCE: [Job(contender=SAFE["frame"], days=DAYS)],
    BATCHED: [Job(contender=BATCHED, days=DAYS)],
    LIVE_BY_BATCH: [Job(contender=LIVE_BY_BATCH, days=DAYS)],
    BY_PARTITION: [Job(contender=SAFE["frame"], days=1, skipped=number) for number in range(SAMPLE)],
}
"""The runs of each way, one after the other."""


def main(turns: int) -> None:
    """Measure the ways in turns, and print the medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(turns):
        for name, jobs in WAYS.items():
            found[name].append(_measured(jobs))
    medians = {name: {of: median(turn[of] for turn in several) for of in several[0]} for name, several in found.items()}
    print(json.dumps(medians))


def _measured(jobs: Sequence[Job]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=data.FOLDER) as folder:
        database = Path(folder, "warehouse.duckdb")
        shutil.copyfile(data.PREPARED, database)
        runs = [_run(replace(job, database=str(database))) for job in jobs]
        days = sum(job.days for job in jobs)
        # In a process of its own, so that this one stays small: a child's peak begins with it.
        subprocess.run([sys.executable, "-m", "bench.data", "verify", str(database), str(days)], check=True)
        return {
            "wall": sum(run["wall"] for run in runs),
            "cpu": sum(run["cpu"] for run in runs),
            "peak_mb": max(run["peak_mb"] for run in runs),
            "days": days,
        }


def _run(job: Job) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as instance, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "bench.contenders", json.dumps(asdict(replace(job, instance=instance)))]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
        wall = time.perf_counter() - started
        if done.returncode:
            log.seek(0)
            raise SystemExit(log.read()[-5000:])
        return {**json.loads(done.stdout), "wall": wall}


if __name__ == "__main__":
    main(int(sys.argv[1]))
