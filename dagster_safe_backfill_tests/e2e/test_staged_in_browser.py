"""A staged backfill from the UI: stage, look at the report, and say yes."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
from playwright.sync_api import Page, expect

from dagster_safe_backfill_tests.e2e.dagster_dev import newest_run, served
from dagster_safe_backfill_tests.e2e.dialogs import backfill, metadata

RANGE = "[2024-01-01...2024-01-05]"


def test_a_person_stages_looks_and_says_yes(page: Page, tmp_path: Path) -> None:
    with served(tmp_path, ["-m", "dagster_safe_backfill_tests.e2e.sales"]) as address:
        backfill(address, page, "takings__shadow", RANGE, count=5)
        expect(page.get_by_text("Materialized (5)")).to_be_visible()
        assert _tables(tmp_path) == {"_safe_backfill_ledger", "takings__shadow"}

        page.goto(f"{address}/assets/takings__audit?view=events")
        page.get_by_role("button", name="Materialize").first.click()
        expect(page.get_by_text(re.compile("Launched run")).first).to_be_visible()
        page.goto(f"{address}/runs/{newest_run(address)}")
        expect(page.get_by_text("Success", exact=True)).to_be_visible()
        page.goto(f"{address}/assets/takings__audit?view=events")
        expect(page.get_by_role("cell", name="2024-01-05", exact=True)).to_be_visible()
        shown = [" ".join(row.split()) for row in page.get_by_role("row").all_inner_texts()]
        page.screenshot(path=tmp_path / "report.png")
        assert [row for row in shown if row.startswith("2024")] == [
            f"2024-01-0{day} passed 1 0 1" for day in range(1, 6)
        ]
        page.goto(f"{address}/assets/takings__audit?view=checks")
        expect(page.get_by_text("passed for 5 partitions").first).to_be_visible()
        page.screenshot(path=tmp_path / "checks.png")
        assert _tables(tmp_path) == {"_safe_backfill_ledger", "takings__shadow"}

        backfill(address, page, "takings", RANGE, count=5)
        expect(page.get_by_text("Materialized (5)")).to_be_visible()
        page.screenshot(path=tmp_path / "published.png")
        assert metadata(address, page, "takings", "2024-01-03")["rows_inserted"] == "1"
        assert _tables(tmp_path) == {"_safe_backfill_ledger", "takings"}


def _tables(folder: Path) -> set[str]:
    """Return the tables there are; the shadows of all runs as one."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return {re.sub("__shadow_.*", "__shadow", name) for (name,) in rows}
