"""Backfills from the UI: one that is published, and one that is rejected, with what the UI says of each."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dagster_safe_backfill.pictures import WIDTH
from example_project.definitions import flights

ROOT = Path(__file__).parents[2]
RANGE = "[2013-01-01...2013-01-10]"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PATIENCE_MS = 100_000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Run `dagster dev` on the project's own workspace."""
    with _served(tmp_path, []) as address:
        yield address


@contextmanager
def _served(tmp_path: Path, arguments: Sequence[str]) -> Iterator[str]:
    """Run `dagster dev` in a process group that ends with the block."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    address = f"http://127.0.0.1:{_free_port()}"
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "SAFE_BACKFILL_DUCKDB": str(tmp_path / "warehouse.duckdb"),
        "SPOILED": str(tmp_path / "spoiled"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (tmp_path / "dev.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-p", address.rpartition(":")[2], *arguments],
            cwd=ROOT,
            env=environment,
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


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a chromium for this test")
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS) as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(_PATIENCE_MS)
        expect.set_options(timeout=_PATIENCE_MS)
        yield page
        page.screenshot(path=tmp_path / "last.png")


def test_a_range_is_backfilled_from_the_ui(address: str, page: Page, tmp_path: Path) -> None:
    for asset in ("airlines", "airports", "planes"):
        page.goto(f"{address}/assets/{asset}?view=events")
        page.get_by_role("button", name="Materialize").first.click()
        expect(page.get_by_text(re.compile("Launched run")).first).to_be_visible()
    _wait_for_tables(tmp_path / "warehouse.duckdb", 3)

    _backfill(address, page, "flights", RANGE)
    expect(page.get_by_text("Materialized (10)")).to_be_visible()
    expect(page.get_by_text("Failed (0)")).to_be_visible()
    page.screenshot(path=tmp_path / "partitions.png")

    page.goto(f"{address}/assets/flights?view=checks")
    expect(page.get_by_text("passed for 10 partitions")).to_be_visible()
    shown = page.inner_text("body")
    page.screenshot(path=tmp_path / "checks.png")
    for check in flights.check_specs:
        outcome = (
            "Failed" if check.name in ("references_dest_nyc_airports", "references_tailnum_nyc_planes") else "Succeeded"
        )
        assert re.search(rf"{check.name}\s+{outcome}", shown), check.name

    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.execute("SELECT count(*), count(DISTINCT flight_date) FROM nyc.flights").fetchone()
    assert found == (8832, 10)


def _backfill(address: str, page: Page, asset: str, keys: str) -> None:
    page.goto(f"{address}/assets/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").first.fill(keys)
    dialog.get_by_role("textbox").first.press("Enter")
    expect(dialog.get_by_text("10 partitions")).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()


def test_a_rejected_backfill_is_explained(page: Page, tmp_path: Path) -> None:
    with _served(tmp_path, ["-m", "dagster_safe_backfill_tests.e2e.sales"]) as address:
        _backfill(address, page, "sales", "[2024-01-01...2024-01-10]")
        expect(page.get_by_text("Materialized (10)")).to_be_visible()
        (tmp_path / "spoiled").touch()
        _backfill(address, page, "sales", "[2024-01-01...2024-01-10]")

        page.goto(f"{address}/assets/sales?view=checks&checkDetail=in_range_amount")
        expect(page.get_by_text("20 rows failed in 1 of 10 partitions (2024-01-05)")).to_be_visible()
        expect(page.get_by_role("cell", name="***").first).to_be_visible()
        page.screenshot(path=tmp_path / "check.png")

        page.goto(f"{address}/runs/{_newest_run(address)}?logs=type:STEP_FAILURE")
        page.get_by_text("View full message").first.click()
        report = page.get_by_role("dialog").first
        shown = [" ".join(row.split()) for row in report.get_by_role("row").all_inner_texts()]
        assert "2024-01-04 passed 20 20 0" in shown
        assert "2024-01-05 blocked in_range_amount (20 rows) 20 20 0" in shown
        assert "2024-01-08 blocked row_count_drift 10 20 -10" in shown
        page.screenshot(path=tmp_path / "report.png")
        report.get_by_text("[Show Markdown]").last.click()
        picture = page.get_by_role("img", name="rows by partition")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") == WIDTH
        page.screenshot(path=tmp_path / "picture.png")


def _newest_run(address: str) -> str:
    query = {"query": "{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }"}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/graphql", json.dumps(query).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["data"]["runsOrError"]["results"][0]["runId"]


def _wait_for_tables(database: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if _tables(database) == count:
            return
        time.sleep(1)
    raise TimeoutError(f"{_tables(database)} tables in {database}, and not {count}")


def _tables(database: Path) -> int:
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            rows = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
    except duckdb.IOException:  # not there yet, or being written
        return -1
    return len(rows)
