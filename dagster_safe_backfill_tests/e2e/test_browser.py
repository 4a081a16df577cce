"""Backfills from the UI: one that is published, and one that is rejected, with what the UI says of each."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
from playwright.sync_api import Page, expect

from dagster_safe_backfill.reports.chart import WIDTH
from dagster_safe_backfill_tests.e2e.dagster_dev import newest_run, served
from dagster_safe_backfill_tests.e2e.dialogs import backfill
from example_project.definitions import flights

RANGE = "[2013-01-01...2013-01-10]"


def test_a_range_is_backfilled_from_the_ui(address: str, page: Page, tmp_path: Path) -> None:
    for asset in ("airlines", "airports", "planes"):
        page.goto(f"{address}/assets/{asset}?view=events")
        page.get_by_role("button", name="Materialize").first.click()
        expect(page.get_by_text(re.compile("Launched run")).first).to_be_visible()
        # Dagster asks for a confirmation if an upstream asset isn't materialized.
        page.goto(f"{address}/runs/{newest_run(address)}")
        expect(page.get_by_text("Success", exact=True)).to_be_visible()

    backfill(address, page, "flights", RANGE, count=10)
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


def test_a_rejected_backfill_is_explained(page: Page, tmp_path: Path) -> None:
    with served(tmp_path, ["-m", "dagster_safe_backfill_tests.e2e.sales"]) as address:
        backfill(address, page, "sales", "[2024-01-01...2024-01-10]", count=10)
        expect(page.get_by_text("Materialized (10)")).to_be_visible()
        (tmp_path / "spoiled").touch()
        backfill(address, page, "sales", "[2024-01-01...2024-01-10]", count=10)

        page.goto(f"{address}/assets/sales?view=checks&checkDetail=in_range_amount")
        expect(page.get_by_text("20 rows failed in 1 of 10 partitions (2024-01-05)")).to_be_visible()
        expect(page.get_by_role("cell", name="***").first).to_be_visible()
        page.screenshot(path=tmp_path / "check.png")

        page.goto(f"{address}/runs/{newest_run(address)}?logs=type:STEP_FAILURE")
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
