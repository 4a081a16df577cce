"""Each measurement is a fresh process on a fresh copy of the warehouse.

Dagster's SQLite instance is in the folder for temporary files. Its many small commits are the noisiest part, so
with TMPDIR on a memory disk the ratios are steadier, and stricter, as all that every contender pays shrinks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from bench import data
from bench.command import Command
from bench.contenders import NO_OP, Job

Publications = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Medians by case, contender, step and quantity; see `bench.publications`."""

Batches = Mapping[str, Mapping[str, float]]
"""Medians by way and quantity; see `bench.batches`."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process took.

    Attributes:
        wall: Seconds of the whole process.
        seconds: Seconds of the run in it, without imports and definitions.
        cpu: Seconds of all cores that the process used; steadier than wall on a busy machine.
        peak_mb: The most memory it held.
        statements: SQL statements that the library logged.
        events: Entries of the run's event log.
    """

    wall: float
    seconds: float
    cpu: float
    peak_mb: float
    statements: int
    events: int


def prepare() -> None:
    """Make the workload, in a process of its own so that this one stays small: a child's peak begins with it."""
    _python("-m", "bench.data", "prepare")


def measure(job: Job, *, verified: bool) -> Measured:
    """Run one job on a fresh copy of the warehouse; if asked, check afterwards what it wrote."""
    with tempfile.TemporaryDirectory(dir=data.FOLDER) as folder, tempfile.TemporaryDirectory() as instance:
        database = Path(folder, "warehouse.duckdb")
        shutil.copyfile(data.PREPARED, database)
        os.sync()
        job = replace(job, database=str(database), instance=instance)
        started = time.perf_counter()
        result = json.loads(_python("-m", "bench.contenders", json.dumps(asdict(job))))
        wall = time.perf_counter() - started
        if verified and job.contender != NO_OP:
            _python("-m", "bench.data", "verify", job.database, str(job.days))
        return Measured(wall=wall, events=_events(Path(instance)), **result)


def medians(measured: Sequence[Measured]) -> Measured:
    """Return the medians of times and of the memory."""
    return replace(
        measured[-1],
        wall=median(one.wall for one in measured),
        seconds=median(one.seconds for one in measured),
        cpu=median(one.cpu for one in measured),
        peak_mb=median(one.peak_mb for one in measured),
    )


def import_seconds(modules: Sequence[str], *, repetitions: int) -> dict[str, float]:
    """Return the median seconds that each import takes, by `-X importtime`."""
    taken: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(repetitions):
        for module in modules:
            log = _python("-X", "importtime", "-c", f"import {module}", stream="stderr")
            (micros,) = re.findall(rf"\| +(\d+) \| {module}$", log, re.MULTILINE)
            taken[module].append(int(micros) / 1e6)
    return {module: median(seconds) for module, seconds in taken.items()}


def loaded_by(module: str, candidates: Iterable[str]) -> list[str]:
    """Return which of the candidates are loaded after importing a module."""
    # A package of Snowflake's makes its empty namespace whenever Python starts.
    code = f"import sys; before = {{*sys.modules}}; import {module}; found = {{*sys.modules}} - before"
    code += f"; print(*[name for name in {list(candidates)} if any(m.split('.')[0] == name for m in found)])"
    return _python("-c", code).split()


def audit_seconds() -> dict[str, float]:
    """Return what `bench.audits` measured."""
    return json.loads(_python("-m", "bench.audits").splitlines()[-1])


def publications(*, turns: int) -> Publications:
    """Return what `bench.publications` measured."""
    return json.loads(_python("-m", "bench.publications", str(turns)).splitlines()[-1])


def sameness(*, turns: int) -> dict[str, dict[str, float]]:
    """Return what `bench.sameness` measured."""
    return json.loads(_python("-m", "bench.sameness", str(turns)).splitlines()[-1])


def retention() -> dict[str, dict[str, float]]:
    """Return what `bench.retention` measured."""
    return json.loads(_python("-m", "bench.retention").splitlines()[-1])


def batches(*, turns: int) -> Batches:
    """Return what `bench.batches` measured."""
    return json.loads(_python("-m", "bench.batches", str(turns)).splitlines()[-1])


def command(*, turns: int) -> Command:
    """Return what `bench.command` measured."""
    return json.loads(_python("-m", "bench.command", str(turns)).splitlines()[-1])


def _python(*arguments: str, stream: str = "stdout") -> str:
    # Dagster's log goes to a file: reading a pipe would keep this process busy beside the measured one.
    with tempfile.TemporaryFile("w+") as stderr:
        done = subprocess.run(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )
        stderr.seek(0)
        log = stderr.read()
    if done.returncode:
        raise SystemExit(f"{log[-5000:]}\npython {' '.join(arguments)} ended with {done.returncode}")
    return log if stream == "stderr" else done.stdout


def _events(instance: Path) -> int:
    """Count the log of the instance's only run, in Dagster's SQLite files."""
    count = 0
    for path in instance.glob("history/runs/*.db"):
        with closing(sqlite3.connect(path)) as log:
            if path.stem != "index":
                count += log.execute("SELECT count(*) FROM event_logs").fetchone()[0]
    return count
