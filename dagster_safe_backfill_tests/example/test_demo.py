"""The README's first command, but for the set-up: the main job, from nothing to its last table, and again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_runs_and_again(tmp_path: Path) -> None:
    environment = {**os.environ, "SAFE_BACKFILL_DUCKDB": str(tmp_path / "w.duckdb")}
    code = f"import pathlib, example_project.demo as demo; demo.HOME = pathlib.Path({str(tmp_path)!r}); demo.main()"
    for inserted, unchanged in (("27,004", "0"), ("0", "27,004")):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (line,) = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["nyc.flights"]]
        assert line == ["nyc.flights", "31", "27,004", inserted, "0", "0", unchanged]
        assert "a warning" in done.stdout
