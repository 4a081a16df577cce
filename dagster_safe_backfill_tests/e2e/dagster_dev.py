"""`dagster dev` on ports and folders of its own, and what its GraphQL tells."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STARTUP = Path(__file__).parent / "startup"
_CONFIG = """
telemetry: {enabled: false}
nux: {enabled: false}
run_coordinator:
  module: dagster
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
"""


def environment_of(folder: Path) -> dict[str, str]:
    """Return the environment in which the example's home and warehouse are in a folder."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(folder / "home"),
        "SAFE_BACKFILL_DUCKDB": str(folder / "warehouse.duckdb"),
        "SPOILED": str(folder / "spoiled"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def home_in(folder: Path) -> Path:
    """Return Dagster's home in a folder; make it if it isn't there."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(_CONFIG)
    return home


@contextmanager
def served(folder: Path, arguments: Sequence[str] = ()) -> Iterator[str]:
    """Run `dagster dev` in a process group that ends with the block; without arguments, on the project's workspace."""
    home_in(folder)
    address = f"http://127.0.0.1:{_free_port()}"
    with (folder / "dev.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-p", address.rpartition(":")[2], *arguments],
            cwd=ROOT,
            env={**environment_of(folder), "PYTHONPATH": _path()},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(f"{address}/server_info")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _path() -> str:
    """Return where Python looks first, with what it is to run before all."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_STARTUP), *([given] if given else [])])


def newest_run(address: str) -> str:
    """Return the id of the run that was launched last."""
    query = {"query": "{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }"}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/graphql", json.dumps(query).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["data"]["runsOrError"]["results"][0]["runId"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"nothing answers at {url}")
