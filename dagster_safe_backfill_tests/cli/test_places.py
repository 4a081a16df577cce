"""The ways to name the code: -m, -f, -w, several locations; and code that prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal

ROOT = Path(__file__).parents[2]
_OTHER = """
import dagster as dg
print("printed on import")
@dg.asset
def other(): ...
defs = dg.Definitions([other])
"""


@pytest.fixture
def other(tmp_path: Path) -> Path:
    file = tmp_path / "other.py"
    file.write_text(_OTHER)
    return file


def _called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from dagster_safe_backfill.cli.main import main; main()"
    # The workspace's own paths are from its folder; the project's module is found from the root.
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env)


def test_a_file_that_prints(offline: Terminal, other: Path) -> None:
    done = _called(offline.folder, "plan", "other", "--dry-run", "--json", "-f", str(other))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["data"]["plan"]["launched"] == ["other"]


def test_a_workspace_of_several_locations(offline: Terminal, other: Path) -> None:
    workspace = offline.folder / "workspace.yaml"
    workspace.write_text(json.dumps({"load_from": [{"python_file": str(other)}, {"python_module": PROJECT}]}))
    # A workspace.yaml in the working directory needs no name, as for Dagster's own command.
    for named in ((), ("-w", "workspace.yaml")):
        done = _called(offline.folder, "plan", "sales", "--last", "2", "--dry-run", "--json", *named)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["data"]["plan"]["assets"][0]["table"] == "shop.sales"


def test_the_code_beside_a_url(online: Terminal) -> None:
    told = online("plan", "sales", "--last", "1", "--dry-run", "--json", place=(*online.place, "-m", PROJECT))
    assert told.data["plan"]["assets"][0]["code"] == "code_version 1"
    told = online("plan", "sales", "--last", "1", "--dry-run", "--json")
    assert told.data["plan"]["assets"][0]["table"] is None
