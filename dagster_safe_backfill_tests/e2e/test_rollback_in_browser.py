"""The mini challenge in the UI: four days mended, rolled back and rolled forward, while another process reads."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page, expect

from dagster_safe_backfill_tests.e2e.dagster_dev import ROOT, environment_of, home_in, served
from dagster_safe_backfill_tests.e2e.dialogs import backfill, launch, metadata, prepare
from dagster_safe_backfill_tests.harness.shop import FOUR, ITEMS, ROWS_OF_FOUR, WEEK, Shop
from example_project import orders as shop_assets

JOB = "rollback_fact_order_items"
LAST = FOUR[1]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The shop that `served` will show, in which four of eight days have the bug."""
    with dg.DagsterInstance.local_temp(str(home_in(tmp_path))) as instance:
        shop = Shop(tmp_path, instance)
        shop.deliver(shop_assets.order_items)
        assert shop.items(*WEEK, doubled=True).success
    return shop


@pytest.fixture
def dashboard(shop: Shop, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that reads the table all along."""
    with (tmp_path / "dashboard.log").open("w") as log:
        reader = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "example_project.dashboard", "10"],
            cwd=ROOT,
            env=environment_of(tmp_path),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield reader
    reader.kill()
    reader.wait()


def test_a_repair_is_rolled_back_and_forward_from_the_ui(
    shop: Shop, dashboard: subprocess.Popen[bytes], page: Page, tmp_path: Path
) -> None:
    buggy = shop.read(ITEMS)
    with served(tmp_path) as address:
        backfill(address, page, "fact_order_items", f"[{FOUR[0]}...{LAST}]", count=4)
        expect(page.get_by_text("Materialized (8)")).to_be_visible()
        _look_at_the_repair(address, page, tmp_path)
        repair = metadata(address, page, "fact_order_items", LAST)["publication_id"]
        mended = shop.read(ITEMS)
        assert mended != buggy

        prepare(address, page, JOB, f"publication_id: {repair}\ndry_run: true")
        page.screenshot(path=tmp_path / "launchpad.png")
        launch(page)
        would = "4 partitions: 0 rows inserted, 1,511 updated, 0 deleted, 0 unchanged; nothing was changed"
        expect(page.get_by_text(f"rolling back {repair} would change {would}")).to_be_visible()
        page.screenshot(path=tmp_path / "dry_run.png")
        assert shop.read(ITEMS) == mended

        back = _roll_back(address, page, repair, screenshots=(tmp_path / "rolled_back.png", tmp_path / "events.png"))
        assert shop.read(ITEMS) == buggy
        _roll_back(address, page, back, screenshots=(tmp_path / "rolled_forward.png", tmp_path / "events_forward.png"))
        assert shop.read(ITEMS) == mended
        assert "rollback_of" not in metadata(address, page, "fact_order_items", WEEK[0])
    assert _shown(dashboard, tmp_path / "dashboard.log") == _expected(dict(_totals(shop)))


def _look_at_the_repair(address: str, page: Page, tmp_path: Path) -> None:
    """Look at the checks, and at the report on the last day's materialization."""
    page.goto(f"{address}/assets/fact_order_items?view=checks&checkDetail=compare")
    expect(page.get_by_text("0 rows added, 0 removed, 1,511 changed (quantity in 1,511)")).to_be_visible()
    shown = page.inner_text("body")
    warned = ("total_drift_quantity", "median_drift_quantity", "p95_drift_quantity")
    for check in shop_assets.fact_order_items.check_specs:
        outcome = "Failed" if check.name in warned else "Succeeded"
        assert re.search(rf"{check.name}\s+{outcome}", shown), check.name
    page.screenshot(path=tmp_path / "checks.png")

    page.goto(f"{address}/assets/fact_order_items?view=events")
    expect(page.get_by_role("cell", name="number of distinct values of order_id, live")).to_be_visible()
    cells = [" ".join(row.split()) for row in page.get_by_role("row").all_inner_texts()]
    warnings = "; ".join(warned)
    assert f"{FOUR[0]} warned {warnings} 416 416 0 1,039 2,078 206 206 2.5 5 4 8" in cells
    assert f"{LAST} warned {warnings} 355 355 0 905 1,810 182 182 3 6 4 8" in cells
    page.screenshot(path=tmp_path / "report.png")
    page.get_by_role("cell", name="4", exact=True).last.scroll_into_view_if_needed()
    page.get_by_role("cell", name="percentile 0.95 of quantity, live").scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "report_scrolled.png")


def _roll_back(address: str, page: Page, publication_id: str, *, screenshots: tuple[Path, Path]) -> str:
    """Undo a publication, look at the partitions' newest materializations, and return the rollback's own id."""
    prepare(address, page, JOB, f"publication_id: {publication_id}")
    run_id = launch(page)
    for key in FOUR:
        found = metadata(address, page, "fact_order_items", key)
        assert (found["rollback_of"], found["publication_id"]) == (publication_id, run_id)
        assert (found["rows_updated"], found["rows_unchanged"]) == (str(ROWS_OF_FOUR[key]), "0")
    expect(page.get_by_text("Materialized (8)")).to_be_visible()
    page.screenshot(path=screenshots[0])
    page.goto(f"{address}/assets/fact_order_items?view=events")
    expect(page.get_by_text(f"Rollback of {publication_id}")).to_be_visible()
    page.screenshot(path=screenshots[1])
    return run_id


def _shown(dashboard: subprocess.Popen[bytes], log: Path) -> list[str]:
    """End the reader, and return what it printed, but for the times."""
    dashboard.send_signal(signal.SIGINT)
    assert dashboard.wait(timeout=60) == 0
    printed = log.read_text()
    *lines, last = printed.splitlines()
    assert int(re.findall(r"read ([\d,]+) times", last)[0].replace(",", "")) > 100, printed
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines]


def _totals(shop: Shop) -> list[tuple[str, int]]:
    sums = "SELECT order_date::VARCHAR, sum(quantity)::BIGINT FROM shop.fact_order_items GROUP BY ALL ORDER BY ALL"
    return [(day, total) for day, total in shop.read(sums)]


def _expected(mended: dict[str, int]) -> list[str]:
    """Return what a reader prints who saw the four days doubled, mended, doubled, mended, and nothing else."""
    doubled = {day: total * (2 if day in ROWS_OF_FOUR else 1) for day, total in mended.items()}
    lines: list[str] = []
    before: dict[str, int] = {}
    for after in (doubled, mended, doubled, mended):
        lines.append(f"total {sum(after.values()):,} of 8 days")
        lines += [
            f"    {day}  {before.get(day, 0):>6,} -> {total:>6,}"
            for day, total in after.items()
            if before.get(day) != total
        ]
        before = after
    return lines
