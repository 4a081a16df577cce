"""The handbook's first example: a column added to seven days of events; and a month that is killed and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START, failure_of, green, metadata_by_partition
from dagster_safe_backfill_tests.harness.backfills import OpenBackfill
from dagster_safe_backfill_tests.harness.shop import Shop
from example_project import events as web
from example_project import killed
from example_project import orders as shop_assets
from example_project.definitions import defs

DAYS = web.DAYS.get_partition_keys()
STAGED = web.staged
OLD_COLUMNS = "event_id, session_id, user_id, event_date, event_time, page"
OLD = f"SELECT {OLD_COLUMNS} FROM {{}} ORDER BY event_id"
LENGTHS = """
    SELECT event_id, date_diff('second', began, ended)
    FROM staging.events
    JOIN (SELECT session_id, min(event_time) AS began, max(event_time) AS ended FROM staging.events GROUP BY ALL)
        USING (session_id)
    ORDER BY event_id"""


class Site:
    """The web site's assets on a warehouse of their own."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.database = str(folder / "warehouse.duckdb")
        self.instance = instance

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.database) as connection:
            return connection.execute(sql).fetchall()

    def columns(self, table: str) -> list[str]:
        return [row[0] for row in self.sql(f"DESCRIBE {table}")]

    def run(self, *assets: dg.AssetsDefinition, days: list[str] | None = None, old: bool = False) -> Any:
        io_manager = sb.RangeDuckDBIOManager(database=self.database, schema="nyc")
        is_shadow = STAGED.shadow in assets
        return dg.materialize(
            [web.staging_events, *STAGED, web.daily_traffic],
            selection=list(assets),
            tags={RANGE_START: days[0], RANGE_END: days[-1]} if days else {},
            run_config={"ops": {"events__shadow": {"config": {"with_session_length": not old}}}} if is_shadow else {},
            resources={"io_manager": io_manager},
            instance=self.instance,
            raise_on_error=False,
        )

    def backfill(self, *, old: bool = False) -> tuple[Any, Any]:
        """Stage the days, audit them together, and publish them; return the last two results."""
        assert self.run(STAGED.shadow, days=DAYS, old=old).success
        audited = self.run(STAGED.audit)
        assert audited.success
        published = self.run(STAGED.published, days=DAYS)
        assert published.success
        return audited, published


@pytest.fixture
def site(tmp_path: Path, instance: dg.DagsterInstance) -> Site:
    """A site whose live events lack the column."""
    site = Site(tmp_path, instance)
    assert site.run(web.staging_events).success
    site.backfill(old=True)
    return site


def test_the_column_is_staged_by_day_compared_and_swapped_in(site: Site) -> None:
    before = site.sql(OLD.format("web.events"))
    assert "session_length_sec" not in site.columns("web.events")
    for day in DAYS:
        assert site.run(STAGED.shadow, days=[day]).success
    assert "session_length_sec" not in site.columns("web.events")
    assert green(site.instance, "events__shadow") == set(DAYS)

    audited = site.run(STAGED.audit)
    assert audited.success
    checks = {check.check_name: check for check in audited.get_asset_check_evaluations()}
    warned = {name for name, check in checks.items() if not check.passed}
    assert warned == {"median_drift_session_length_sec"}, "live has nothing to compare the new column with"
    (report,) = audited.asset_materializations_for_node("events__audit")
    rows = [record.data for record in report.metadata["report"].records]
    assert [row["partition"] for row in rows] == DAYS
    assert [row["median of session_length_sec, live"] for row in rows] == ["NULL"] * 7
    assert all(100 < float(row["median of session_length_sec, shadow"]) < 2_000 for row in rows)
    assert checks["compare"].metadata["changed"].value == len(before) == 22_505
    assert "session_length_sec" not in site.columns("web.events")

    published = metadata_by_partition(site.run(STAGED.published, days=DAYS), "events")
    assert sum(row["rows_updated"] for row in published.values()) == 22_505
    assert site.sql(OLD.format("web.events")) == before
    assert site.sql("SELECT event_id, session_length_sec FROM web.events ORDER BY event_id") == site.sql(LENGTHS)
    (archive,) = {row["archive"] for row in published.values()}
    assert site.sql(OLD.format(archive)) == before
    tables = {row[0] for row in site.sql("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'web'")}
    assert tables == {"events", archive.partition(".")[2], "_safe_backfill_ledger"}


def test_some_sessions_go_on_over_midnight(site: Site) -> None:
    ((count,),) = site.sql(
        "SELECT count(*) FROM (SELECT session_id FROM staging.events GROUP BY ALL"
        " HAVING count(DISTINCT CAST(event_time AS DATE)) > 1)"
    )
    assert count == 19


def test_again_changes_nothing(site: Site) -> None:
    site.backfill()
    before = site.sql("FROM web.events ORDER BY ALL")
    audited, published = site.backfill()
    numbers = metadata_by_partition(published, "events").values()
    assert sum(row["rows_unchanged"] for row in numbers) == sum(row["rows_staged"] for row in numbers) == 22_505
    assert site.sql("FROM web.events ORDER BY ALL") == before
    assert all(check.passed for check in audited.get_asset_check_evaluations())


def test_lost_rows_are_stopped_before_anything_is_published(site: Site) -> None:
    site.sql(f"DELETE FROM staging.events WHERE event_id % 10 = 3 AND CAST(event_time AS DATE) = '{DAYS[2]}'")
    before = site.sql("FROM web.events ORDER BY ALL")
    result = site.run(STAGED.shadow, days=DAYS)
    message = failure_of(result, "events__shadow")
    assert "2 of 5 audits block it (row_count_drift: " in message
    assert f"1 of 7 partitions ({DAYS[2]})" in message
    assert site.sql("FROM web.events ORDER BY ALL") == before


def test_it_can_be_undone(site: Site) -> None:
    before = site.sql("FROM web.events ORDER BY ALL")
    site.backfill()
    result = defs.resolve_job_def("rollback_events").execute_in_process(
        run_config={"resources": {"io_manager": {"config": {"database": site.database}}}}, instance=site.instance
    )
    assert result.success
    found = site.sql(f"SELECT {OLD_COLUMNS}, updated_at FROM web.events ORDER BY ALL")
    assert found == before


def test_what_reads_the_events_waits_until_they_are_published(site: Site) -> None:
    assert site.run(web.daily_traffic).success
    assets = [web.staging_events, *STAGED, web.daily_traffic]
    ticks = requests(assets, site.instance)
    assert next(ticks) == 0
    backfill = OpenBackfill(site.instance, assets, {"events__shadow": DAYS, "events__audit": None, "events": DAYS})
    site.backfill()
    assert next(ticks) == 0, "the daemon has not seen yet that all is published"
    backfill.end()
    assert [next(ticks), next(ticks)] == [1, 0]
    assert site.run(web.daily_traffic).success
    assert [row[0] for row in site.sql("SELECT event_date FROM web.daily_traffic ORDER BY 1")] == [
        date.fromisoformat(day) for day in DAYS
    ]


def requests(assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> Iterator[int]:
    """Yield, at each tick of the automation, how often the reader is asked for."""
    cursor: Any = None
    while True:
        found = dg.evaluate_automation_conditions(dg.Definitions(assets=assets), instance, cursor=cursor)
        cursor = found.cursor
        yield len(found.get_requested_partitions(web.daily_traffic.key))


def test_the_three_share_the_pool_and_a_run_stages_a_day() -> None:
    assert {asset.op.pool for asset in STAGED} == {"warehouse"}
    policy = STAGED.shadow.backfill_policy
    assert policy is not None
    assert policy.max_partitions_per_run == 1


def test_a_month_that_is_killed_is_resumed(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path, instance)
    shop.deliver(shop_assets.orders)
    monkeypatch.setenv("SAFE_BACKFILL_DUCKDB", shop.database)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    killed.backfill_month(home, kill_at="batch 5 of 16")
    assert shop.sql("SELECT 1 FROM duckdb_tables() WHERE table_name = 'sku_revenue'") == []
    ((kept,),) = shop.sql("SELECT count(*) FROM shop._safe_backfill_ledger WHERE event = 'audited'")
    assert 10 <= kept < 31

    resumed = killed.backfill_month(home, again=killed.report_killed(home))
    assert resumed[0].startswith(f"reusing {kept} partitions that run ")
    before, after = killed.computed().values()
    assert before - kept in (0, 1, 2), "at most the batch that was under way is computed twice"
    assert after == 31 - kept
    expected = """
        SELECT order_date, sku, count(*), sum(revenue) FROM staging.orders
        WHERE order_date < '2024-02-01' GROUP BY ALL ORDER BY ALL"""
    assert shop.sql("SELECT * FROM shop.sku_revenue ORDER BY ALL") == shop.sql(expected)
    assert shop.sql(
        "SELECT count(DISTINCT publication_id) FROM shop._safe_backfill_ledger WHERE event = 'published'"
    ) == [(1,)]
