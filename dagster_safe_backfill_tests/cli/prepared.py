"""A warehouse with something in it, made without a daemon, and a process that holds it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal

CODE = ("-m", PROJECT)


def materialize(terminal: Terminal, name: str, first: str, last: str | None = None) -> str:
    """Materialize a range of an asset in this process, on the terminal's instance, and return the run's id."""
    # As each run has it: the project's code may have been told otherwise.
    sys.modules.pop(PROJECT, None)
    project: Any = importlib.import_module(PROJECT)
    asset = project.defs.get_assets_def(dg.AssetKey(name))
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
    if asset.partitions_def is None:
        tags = {}
    with dg.DagsterInstance.get() as instance:
        done = dg.materialize(
            [asset], resources=project.defs.resources, instance=instance, tags=tags, raise_on_error=False
        )
    return done.run_id


_HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@contextmanager
def held(terminal: Terminal) -> Iterator[int]:
    """Let another process hold the warehouse's file, as a run does that writes; its PID is what is yielded."""
    path = str(terminal.folder / "warehouse.duckdb")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.communicate()
