"""The command `safe-backfill`: seconds of a whole call, side by side with what Dagster's own command takes.

A `dagster dev` runs on a fresh instance, and two backfills have ended there: of 365 and of 2,407 partitions. Each call
is a process of its own, and each turn begins with another. Of calls by URL, the seconds that the webserver took to
answer are measured, too. Run as `python -m bench.command TURNS`; the result is JSON on standard output.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

YEAR, LONG = 365, 2407
"""The numbers of days of the two assets of `bench.commanded`."""
IMPORT, LIST, VALIDATE = "import dagster", "dagster asset list", "dagster definitions validate"
HELP = "--help"
BY_URL, BY_CODE = "by url", "by code"
_MODULE = ("-m", "bench.commanded")
_CALL = """
import json, sys, time
from dagster_safe_backfill.cli.api import transport
waited, ask = [0.0], transport._OPENER.open
def timed(*arguments, **settings):
    began = time.perf_counter()
    try:
        return ask(*arguments, **settings)
    finally:
        waited[0] += time.perf_counter() - began
transport._OPENER.open = timed
from dagster_safe_backfill.cli.main import run
code = run(sys.argv[1:])
loaded = [one for one in ("dagster", "rich", "duckdb") if one in sys.modules]
print(json.dumps({"code": code, "waited": waited[0], "loaded": loaded}), file=sys.stderr)
"""
"""A call of the command that tells, as the last line on stderr, for how long it waited, and what it imported."""
_CONFIG = "telemetry: {enabled: false}\nnux: {enabled: false}\n"

Command = Mapping[str, Mapping[str, float]]
"""By call: the medians of its `seconds` and of those that it `waited`, and 1 for each library that it loaded."""


def main() -> None:
    """Measure, and print the medians."""
    turns = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DAGSTER_HOME": folder, "BENCH_WAREHOUSE": f"{folder}/warehouse.duckdb"}
        Path(folder, "dagster.yaml").write_text(_CONFIG)
        with _served(Path(folder)) as url:
            calls = _calls(url, {name: _launched(url, name) for name in ("year", "long")})
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
            names = [*calls]
            for turn in range(turns):
                first = turn % len(names)
                for name in [*names[first:], *names[:first]]:
                    taken[name].append(_measured(calls[name]))
    quantities = {name: {quantity for one in several for quantity in one} for name, several in taken.items()}
    print(json.dumps({
        name: {quantity: median(one.get(quantity, 0.0) for one in several) for quantity in quantities[name]}
        for name, several in taken.items()
    }))  # fmt: skip


def _calls(url: str, ids: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the calls, as what Python is given."""
    command = ["-c", _CALL]
    calls = {
        IMPORT: ["-c", "import dagster"],
        LIST: ["-m", "dagster", "asset", "list", *_MODULE],
        VALIDATE: ["-m", "dagster", "definitions", "validate", *_MODULE],
        HELP: [*command, "--help"],
        f"list, {BY_URL}": [*command, "list", "--url", url],
    }
    for name, count in (("year", YEAR), ("long", LONG)):
        plan = [*command, "plan", name, "--all", "--dry-run"]
        calls |= {
            f"status of {count:,}, {BY_URL}": [*command, "status", ids[name], "--url", url],
            f"plan of {count:,}, {BY_URL}": [*plan, "--url", url],
            f"plan of {count:,}, {BY_CODE}": [*plan, *_MODULE],
        }
    return calls


def _measured(arguments: Sequence[str]) -> dict[str, float]:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    taken = {"seconds": time.perf_counter() - began}
    if done.returncode:
        raise SystemExit(f"{done.stderr[-5000:]}\npython {' '.join(arguments)} ended with {done.returncode}")
    if _CALL in arguments:
        told = json.loads(done.stderr.splitlines()[-1])
        if told["code"]:
            raise SystemExit(f"{done.stderr[-5000:]}\nsafe-backfill {arguments[2:]} ended with {told['code']}")
        taken |= {"waited": told["waited"], **dict.fromkeys(told["loaded"], 1.0)}
    return taken


def _launched(url: str, asset: str) -> str:
    """Backfill all of an asset, and return the backfill's id."""
    call = [sys.executable, "-c", _CALL, "launch", asset, "--all", "--yes", "--watch", "--url", url, "--json"]
    # The plan is saved where the call is made.
    folder, path = os.environ["DAGSTER_HOME"], {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=os.environ | path)
    return json.loads(done.stdout)["data"]["backfill_id"]


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagster", "dev", "-p", str(port), *_MODULE]
    with (folder / "dev.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/server_info")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"nothing answers at {url}")


if __name__ == "__main__":
    main()
