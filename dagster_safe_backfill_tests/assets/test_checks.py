"""`build_audit_checks`: audits of the live table, executed at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, Source, events, run_range

pytestmark = pytest.mark.every_warehouse

AUDITS = [sb.unique(), sb.not_null("value"), sb.expression("value > 0", name="positive", severity="WARN")]


def executed(
    checks: dg.AssetChecksDefinition,
    *,
    io_manager: object,
    instance: dg.DagsterInstance,
    only: Sequence[str] | None = None,
) -> dict[str, dg.AssetCheckEvaluation]:
    """Execute checks without their asset, as the Checks tab does, and return what they say."""
    keys = [key for key in checks.check_keys if only is None or key.name in only]
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*keys))
    asset = events(Source(), audits=[])
    defs = dg.Definitions(assets=[asset], asset_checks=[checks], jobs=[job], resources={"io_manager": io_manager})
    result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


@pytest.fixture
def live(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> dg.AssetsDefinition:
    """Return an asset with six live days."""
    asset = events(Source(), audits=[])
    assert run_range([asset], "2024-01-01", "2024-01-06", io_manager=io_manager, instance=instance).success
    return asset


def test_live_passes_and_then_fails_where_it_was_spoiled_by_hand(
    live: dg.AssetsDefinition, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    checks = sb.build_audit_checks(live, AUDITS)
    found = executed(checks, io_manager=io_manager, instance=instance)
    assert set(found) == {"live_unique_key", "live_not_null_value", "live_positive"}
    assert all(check.passed for check in found.values())
    assert found["live_positive"].description == f"passed for {len(DAYS.get_partition_keys())} partitions"
    read("UPDATE events SET value = NULL WHERE day = '2024-01-02' AND id = 0")
    read("UPDATE events SET value = -1 WHERE day = '2024-01-03' AND id < 2")
    read("INSERT INTO events SELECT * FROM events WHERE day = '2024-01-05'")
    before = read("SELECT * FROM events ORDER BY ALL")
    found = executed(checks, io_manager=io_manager, instance=instance)
    failed = {name: check.metadata["failed_partition_keys"].value for name, check in found.items()}
    assert failed == {
        "live_unique_key": ["2024-01-05"],
        "live_not_null_value": ["2024-01-02"],
        "live_positive": ["2024-01-03"],
    }
    assert [found[name].metadata["failed_rows"].value for name in sorted(found)] == [1, 2, 6]
    assert found["live_positive"].severity == dg.AssetCheckSeverity.WARN
    assert read("SELECT * FROM events ORDER BY ALL") == before
    assert not read("SELECT view_name FROM duckdb_views() WHERE view_name LIKE '_sb%'")


def test_one_check_can_be_executed_alone(
    live: dg.AssetsDefinition, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    checks = sb.build_audit_checks(live, AUDITS)
    found = executed(checks, io_manager=io_manager, instance=instance, only=["live_positive"])
    assert set(found) == {"live_positive"}


def test_only_the_newest_partitions_are_looked_at_if_asked(
    live: dg.AssetsDefinition, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    last = len(DAYS.get_partition_keys()) - 4  # from 2024-01-05 on
    checks = sb.build_audit_checks(live, [sb.not_null("value"), sb.unique("id")], last=last)
    read("UPDATE events SET value = NULL WHERE day = '2024-01-02'")
    found = executed(checks, io_manager=io_manager, instance=instance)
    assert found["live_not_null_value"].passed
    assert found["live_unique_id"].metadata["failed_partition_keys"].value == ["2024-01-05", "2024-01-06"]


def test_checks_stand_beside_those_that_gate_the_asset_and_run_on_a_schedule(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(Source(), audits=AUDITS)
    checks = sb.build_audit_checks(asset, AUDITS)
    job = dg.define_asset_job("audits", selection=dg.AssetSelection.checks(checks))
    schedule = dg.ScheduleDefinition(name="nightly", cron_schedule="0 6 * * *", job=job)
    defs = dg.Definitions(
        assets=[asset], asset_checks=[checks], schedules=[schedule], resources={"io_manager": io_manager}
    )
    dg.Definitions.validate_loadable(defs)
    assert run_range([asset], "2024-01-01", "2024-01-02", io_manager=io_manager, instance=instance).success
    result = defs.resolve_job_def("audits").execute_in_process(instance=instance)
    assert result.success
    assert len(result.get_asset_check_evaluations()) == 3


def test_a_table_that_is_not_there_is_an_error(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
    checks = sb.build_audit_checks(events(Source(), audits=[]), AUDITS)
    with pytest.raises(sb.TableNotFoundError, match=r"main\.events"):
        executed(checks, io_manager=io_manager, instance=instance)


def test_unpartitioned_assets_are_audited_whole(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
    @dg.asset(metadata={"unique_key": ["id"]})
    def shops() -> pd.DataFrame:
        return pd.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None]})

    checks = sb.build_audit_checks(shops, [sb.unique(), sb.not_null("name"), sb.row_count_between(1)])
    assert dg.materialize([shops], resources={"io_manager": io_manager}, instance=instance).success
    defs = dg.Definitions(assets=[shops], asset_checks=[checks], resources={"io_manager": io_manager})
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[shops.key])
    found = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert found == {"live_unique_key": True, "live_not_null_name": False, "live_row_count_between": True}


@pytest.mark.parametrize(
    ("audits", "says"),
    [
        ([], "at least one audit"),
        ([sb.row_count_drift(max_change=0.1)], "row_count_drift compares a shadow with live"),
        ([sb.unique(), sb.compare()], "compare compares a shadow with live"),
        ([sb.not_null("a"), sb.not_null("a")], "several audits are named not_null_a"),
        ([sb.failing_rows("SELECT * FROM batch JOIN Live USING (id)", name="own")], "own compares a shadow with live"),
    ],
)
def test_audits_that_make_no_sense_there_are_refused(audits: list[Any], says: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=says):
        sb.build_audit_checks(events(Source()), audits)


def test_partitions_without_one_order_have_no_last_ones() -> None:
    asset = events(Source())
    for last in (0, -1):
        with pytest.raises(sb.ConfigurationError, match="at least 1"):
            sb.build_audit_checks(asset, AUDITS, last=last)
    grid = dg.MultiPartitionsDefinition({"day": DAYS, "shop": dg.StaticPartitionsDefinition(["a", "b"])})

    @sb.wap_asset(partitions_def=grid, partition_expr={"day": "day", "shop": "shop"})
    def sales() -> None: ...

    with pytest.raises(sb.ConfigurationError, match="two dimensions"):
        sb.build_audit_checks(sales, [sb.not_null("value")], last=3)
    with pytest.raises(sb.ConfigurationError, match="needs a unique_key"):
        sb.build_audit_checks(sales, [sb.unique()])


@pytest.mark.only("duckdb", reason="the eyes of the test read DuckDB's SQL only")
def test_the_sql_of_a_live_check_runs(
    live: dg.AssetsDefinition, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    checks = sb.build_audit_checks(live, [sb.expression("id < 2", name="few"), sb.unique("id")])
    found = executed(checks, io_manager=io_manager, instance=instance)
    for name, rows in (("live_few", 6), ("live_unique_id", 18)):
        sql = str(found[name].metadata["failing_rows_sql"].value).removeprefix("```sql\n").removesuffix("\n```")
        assert len(read(sql)) == rows == found[name].metadata["failed_rows"].value
