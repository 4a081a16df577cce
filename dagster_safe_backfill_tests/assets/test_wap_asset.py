"""`@wap_asset`: write, audit, publish, and what Dagster then shows."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import (
    DAYS,
    Source,
    events,
    failure_of,
    green,
    metadata_by_partition,
    run_key,
    run_range,
)
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

TEN = ("2024-01-01", "2024-01-10")
NUMBERS = ("rows_staged", "rows_inserted", "rows_updated", "rows_deleted", "rows_unchanged")


class Scale(dg.ConfigurableResource):
    factor: int


class Settings(dg.Config):
    offset: int = 1


class Runs:
    """Runs assets on one instance and one warehouse."""

    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
        self._on: dict[str, Any] = {"io_manager": io_manager, "instance": instance}
        self.instance = instance

    def range(self, first: str, last: str, *assets: dg.AssetsDefinition, **options: Any) -> Any:
        return run_range(assets, first, last, **self._on, **options)

    def key(self, key: str, *assets: dg.AssetsDefinition, **options: Any) -> Any:
        return run_key(assets, key, **self._on, **options)


@pytest.fixture
def runs(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Runs:
    return Runs(io_manager, instance)


@dg.asset(
    partitions_def=DAYS,
    metadata={"partition_expr": "day"},
    backfill_policy=sb.single_run(),
)
def totals(events: pd.DataFrame) -> pd.DataFrame:
    return events.groupby("day", as_index=False)["value"].sum()


def numbers(metadata: dict[str, Any]) -> tuple[int, ...]:
    return tuple(metadata[name] for name in NUMBERS)


def shadows(read: Read) -> list[str]:
    found = read("SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%shadow%'")
    return [name for (name,) in found]


def test_a_range_is_published_and_each_partition_has_its_numbers(runs: Runs, read: Read) -> None:
    source = Source()
    result = runs.range(*TEN, events(source), totals)
    assert result.success
    assert source.calls == [tuple(DAYS.get_partition_keys()[:10])]
    found = metadata_by_partition(result, "events")
    assert sorted(found) == DAYS.get_partition_keys()[:10]
    assert {numbers(metadata) for metadata in found.values()} == {(3, 3, 0, 0, 0)}
    assert all(metadata["seconds"] > 0 for metadata in found.values())
    assert read("SELECT count(*), count(DISTINCT day), sum(value) FROM events") == [(30, 10, 60)]
    assert read("SELECT count(*), sum(value) FROM totals") == [(10, 60)]
    assert shadows(read) == []


def test_again_is_harmless(runs: Runs, read: Read) -> None:
    asset = events(Source(), table=sb.TableOptions(updated_at_column="updated_at"))
    runs.range(*TEN, asset)
    before = read("SELECT * FROM events ORDER BY ALL")
    result = runs.range(*TEN, asset)
    found = metadata_by_partition(result, "events")
    assert {numbers(metadata) for metadata in found.values()} == {(3, 0, 0, 0, 3)}
    assert read("SELECT * FROM events ORDER BY ALL") == before


def test_only_what_differs_is_touched(runs: Runs, read: Read) -> None:
    source = Source()
    asset = events(source, table=sb.TableOptions(updated_at_column="updated_at"))
    runs.range(*TEN, asset)
    before = dict(read("SELECT (day, id), updated_at FROM events"))
    source.spoiled[("2024-01-03", 1)] = 99.0
    found = metadata_by_partition(runs.range(*TEN, asset), "events")
    assert numbers(found["2024-01-03"]) == (3, 0, 1, 0, 2)
    assert numbers(found["2024-01-04"]) == (3, 0, 0, 0, 3)
    after = dict(read("SELECT (day, id), updated_at FROM events"))
    moved = [key for key in before if after[key] != before[key]]
    assert len(moved) == 1
    assert after[moved[0]] > before[moved[0]]


def test_rows_that_are_gone_are_deleted(runs: Runs, read: Read) -> None:
    source = Source()
    asset = events(source)
    runs.range(*TEN, asset)
    source.rows_per_day = 2
    found = metadata_by_partition(runs.range("2024-01-02", "2024-01-02", asset), "events")
    assert numbers(found["2024-01-02"]) == (2, 0, 0, 1, 2)
    assert read("SELECT count(*) FROM events") == [(29,)]


def test_one_bad_day_of_ten_publishes_nothing(runs: Runs, read: Read) -> None:
    source = Source()
    asset = events(source)
    runs.range("2024-01-01", "2024-01-05", asset, totals)
    before = read("SELECT * FROM events ORDER BY ALL"), read("SELECT * FROM totals ORDER BY ALL")
    source.spoiled = {("2024-01-07", 0): -1.0, ("2024-01-01", 2): 50.0}
    result = runs.range(*TEN, asset, totals)
    assert not result.success
    assert green(runs.instance, "events") == set(DAYS.get_partition_keys()[:5])
    assert green(runs.instance, "totals") == set(DAYS.get_partition_keys()[:5])
    assert (read("SELECT * FROM events ORDER BY ALL"), read("SELECT * FROM totals ORDER BY ALL")) == before
    message = failure_of(result, "events")
    assert "positive: 1 row failed in 1 of 10 partitions (2024-01-07)" in message
    (shadow,) = shadows(read)
    assert shadow in message
    assert read(f'SELECT id FROM "{shadow}" WHERE value < 0') == [(0,)]
    source.spoiled = {}
    assert runs.range(*TEN, asset, totals).success
    assert green(runs.instance, "events") == set(DAYS.get_partition_keys()[:10])
    assert read("SELECT count(*) FROM events") == [(30,)]


def test_the_failure_names_audits_partitions_and_counts(runs: Runs) -> None:
    source = Source(spoiled={("2024-01-02", 0): None, ("2024-01-03", 0): -1, ("2024-01-03", 1): -2})
    with pytest.raises(dg.Failure) as caught:
        runs.range(*TEN, events(source), raise_on_error=True)
    error = caught.value.__cause__
    assert isinstance(error, sb.AuditFailedError)
    assert error.failures == (
        ("not_null_value", ("2024-01-02",), 1),
        ("positive", ("2024-01-03",), 2),
    )
    assert error.table == "main.events"
    assert caught.value.allow_retries is False


def test_a_warning_is_shown_and_does_not_block(runs: Runs, read: Read) -> None:
    source = Source(spoiled={("2024-01-02", 0): -1.0})
    asset = events(source, audits=[sb.expression("value > 0", name="positive", severity="WARN")])
    result = runs.range(*TEN, asset)
    assert result.success
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "positive"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert read("SELECT count(*) FROM events WHERE value < 0") == [(1,)]


def test_an_audit_that_cannot_be_measured_blocks(runs: Runs, read: Read) -> None:
    asset = events(Source(), audits=[sb.not_null("value"), sb.expression("no_such_column > 0", name="broken")])
    result = runs.range(*TEN, asset)
    assert not result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["not_null_value"].passed
    assert not checks["broken"].passed
    assert "no_such_column" in str(checks["broken"].description)
    assert "not measured" in failure_of(result, "events")
    assert read("SELECT count(*) FROM information_schema.tables WHERE table_name = 'events'") == [(0,)]


@pytest.mark.parametrize(
    ("audit", "spoiled", "failed"),
    [
        (sb.unique("value"), {("2024-01-02", 0): 7.0, ("2024-01-03", 0): 7.0}, ["2024-01-02", "2024-01-03"]),
        (sb.not_null("value"), {("2024-01-02", 1): None}, ["2024-01-02"]),
        (sb.expression("value < 100"), {("2024-01-04", 1): 100.0}, ["2024-01-04"]),
        (sb.references("value", table="known", column="v"), {("2024-01-04", 1): 77.0}, ["2024-01-04"]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_audit_fails_at_just_the_spoiled_partitions(
    runs: Runs, backend: Backend, audit: sb.Audit, spoiled: dict[Any, Any], failed: list[str]
) -> None:
    backend.create("known", pa.table({"v": [1.0, 2.0, 3.0]}))
    clean = {(key, i): 1000.0 * n + i for n, key in enumerate(DAYS.get_partition_keys()[:5]) for i in range(3)}
    base = clean if audit.name == "unique_value" else {}
    good = runs.range("2024-01-01", "2024-01-05", events(Source(spoiled=base), audits=[audit]))
    assert good.success, failure_of(good, "events")
    bad = runs.range("2024-01-01", "2024-01-05", events(Source(spoiled={**base, **spoiled}), audits=[audit]))
    assert not bad.success
    (check,) = [e for e in bad.get_asset_check_evaluations() if e.check_name == audit.name]
    assert check.metadata["failed_partition_keys"].value == failed


def test_row_count_drift_compares_each_partition_with_live(runs: Runs) -> None:
    source = Source(rows_per_day=10)
    asset = events(source, audits=[sb.row_count_drift(max_change=0.1)])
    assert runs.range("2024-01-01", "2024-01-03", asset).success
    source.rows_per_day = 9
    assert runs.range("2024-01-01", "2024-01-04", asset).success, "a tenth is allowed, and a new day is new"
    source.rows_per_day = 8
    result = runs.range("2024-01-01", "2024-01-04", asset)
    assert not result.success
    assert "failed in 4 of 4 partitions" in failure_of(result, "events")


def test_the_unique_key_is_always_audited(runs: Runs) -> None:
    source = Source()

    @sb.wap_asset(partitions_def=DAYS, partition_expr="day", unique_key=["day", "id"])
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return pd.concat([source.frame(partitions.keys)] * 2)

    result = runs.key("2024-01-01", events)
    assert "unique_key: 6 rows failed in 1 of 1 partition (2024-01-01)" in failure_of(result, "events")


def test_a_key_of_a_live_row_outside_the_slice_is_refused(runs: Runs, read: Read) -> None:
    asset = events(Source(), unique_key=["id"], audits=[])
    assert runs.key("2024-01-01", asset).success
    result = runs.key("2024-01-02", asset)
    assert "unique_key: 3 rows failed" in failure_of(result, "events")
    assert read("SELECT count(*) FROM events") == [(3,)]


def test_other_columns_than_the_key_are_unique_against_live_too(runs: Runs, read: Read) -> None:
    """Also where the partition column is part of the key, and so rules out the same for the key itself."""
    asset = events(Source(), audits=[sb.unique("value")])
    assert runs.key("2024-01-01", asset).success
    result = runs.key("2024-01-02", asset)
    assert "unique_value: 3 rows failed" in failure_of(result, "events")
    assert "unique_key" not in failure_of(result, "events")
    assert runs.key("2024-01-01", asset).success


def test_partitions_outside_the_slice_stay_as_they_are(runs: Runs, read: Read) -> None:
    asset = events(Source())
    runs.range(*TEN, asset)
    outside = "SELECT * FROM events WHERE day NOT BETWEEN '2024-01-04' AND '2024-01-06' ORDER BY ALL"
    before = read(outside)
    runs.range("2024-01-04", "2024-01-06", events(Source(rows_per_day=5)))
    assert read(outside) == before
    assert read("SELECT count(*) FROM events") == [(7 * 3 + 3 * 5,)]


def test_replace_without_a_key(runs: Runs, read: Read) -> None:
    asset = events(Source(), unique_key=(), audits=[])
    runs.range(*TEN, asset)
    found = metadata_by_partition(runs.range(*TEN, asset), "events")
    assert {numbers(metadata) for metadata in found.values()} == {(3, 3, 0, 3, 0)}
    assert read("SELECT count(*) FROM events") == [(30,)]


@pytest.mark.parametrize("convert", [pl.from_pandas, pa.Table.from_pandas, lambda frame: frame])
def test_frames_of_any_library(runs: Runs, read: Read, convert: Any) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr="day")
    def events(partitions: sb.PartitionSlice) -> Any:
        return convert(Source().frame(partitions.keys))

    assert runs.key("2024-01-01", events).success
    assert read("SELECT day, id, value FROM events ORDER BY id")[2][1:] == (2, 3.0)


def test_a_query_runs_in_the_warehouse_over_an_upstream_table(runs: Runs, read: Read) -> None:
    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["day"],
        deps=["events"],
        backfill_policy=sb.single_run(),
    )
    def sums(partitions: sb.PartitionSlice) -> sb.Query:
        return sb.Query(f"SELECT sum(value) AS value, day FROM events WHERE {partitions.where()} GROUP BY day")

    assert runs.range(*TEN, events(Source()), sums).success
    assert read("SELECT count(*), sum(value) FROM sums") == [(10, 60)]


def test_the_function_gets_what_an_asset_gets(runs: Runs, read: Read) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr="day", backfill_policy=sb.single_run())
    def scaled(
        context: dg.AssetExecutionContext,
        config: Settings,
        events: pl.DataFrame,
        scale: Scale,
        slice_: sb.PartitionSlice,
    ) -> pl.DataFrame:
        assert tuple(context.partition_keys) == slice_.keys
        return events.with_columns(value=pl.col("value") * scale.factor + config.offset)

    io_manager = runs._on["io_manager"]
    result = dg.materialize(
        [events(Source()), scaled],
        instance=runs.instance,
        resources={"io_manager": io_manager, "scale": Scale(factor=10)},
        tags={
            "dagster/asset_partition_range_start": "2024-01-01",
            "dagster/asset_partition_range_end": "2024-01-02",
        },
    )
    assert result.success
    assert read("SELECT min(value), max(value), count(*) FROM scaled") == [(11, 31, 6)]


def test_required_resource_keys_and_an_io_manager_of_another_name(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        required_resource_keys={"rows"},
        io_manager_key="warehouse",
        key=["deep", "events"],
        table=sb.TableOptions(schema="other"),
        group_name="g",
        owners=["team:data"],
        tags={"a": "b"},
        code_version="7",
        kinds={"duckdb"},
        pool="warehouse",
        metadata={"mine": 1},
    )
    def ignored(context: dg.AssetExecutionContext) -> pd.DataFrame:
        """Doc."""
        return Source(rows_per_day=context.resources.rows).frame(context.partition_keys)

    spec = ignored.specs_by_key[dg.AssetKey(["deep", "events"])]
    assert (spec.group_name, spec.owners, spec.code_version) == ("g", ["team:data"], "7")
    assert (spec.description, spec.metadata["mine"], spec.kinds) == ("Doc.", 1, {"duckdb"})
    result = dg.materialize(
        [ignored],
        instance=instance,
        resources={"warehouse": io_manager, "rows": 4},
        partition_key="2024-01-01",
    )
    assert result.success
    assert read("SELECT count(*) FROM other.events") == [(4,)]


def test_the_ledger_tells_what_happened(runs: Runs, read: Read) -> None:
    source = Source()
    asset = events(source, code_version="v1")
    good = runs.range("2024-01-01", "2024-01-02", asset)
    source.spoiled = {("2024-01-02", 0): -1.0}
    bad = runs.key("2024-01-02", asset)
    rows = read(
        "SELECT event, partition_key, run_id, code_version, rows_staged, rows_inserted, failed_audits"
        " FROM _safe_backfill_ledger WHERE event <> 'intended' ORDER BY recorded_at, partition_key"
    )
    assert rows == [
        ("staged", "2024-01-01", good.run_id, "v1", 3, None, None),
        ("staged", "2024-01-02", good.run_id, "v1", 3, None, None),
        ("audited", "2024-01-01", good.run_id, "v1", 3, None, None),
        ("audited", "2024-01-02", good.run_id, "v1", 3, None, None),
        ("published", "2024-01-01", good.run_id, "v1", 3, 3, None),
        ("published", "2024-01-02", good.run_id, "v1", 3, 3, None),
        ("staged", "2024-01-02", bad.run_id, "v1", 3, None, None),
        ("rejected", "2024-01-02", bad.run_id, "v1", 3, None, "positive"),
    ]


def test_a_retry_within_a_run_replaces_its_own_shadow(runs: Runs, read: Read) -> None:
    attempts: list[int] = []

    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        unique_key=["day", "id"],
        retry_policy=dg.RetryPolicy(max_retries=1),
    )
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("a passing fault")
        return Source().frame(partitions.keys)

    assert runs.key("2024-01-01", events).success
    assert len(attempts) == 2
    assert shadows(read) == []


def test_a_failed_audit_is_not_retried(runs: Runs) -> None:
    source = Source(spoiled={("2024-01-01", 0): -1.0})
    asset = events(source, retry_policy=dg.RetryPolicy(max_retries=3))
    assert not runs.key("2024-01-01", asset).success
    assert len(source.calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unique_key": (), "audits": [sb.unique()]}, "needs a unique_key"),
        ({"unique_key": (), "audits": [], "publish": "merge"}, "needs a unique_key"),
        ({"audits": [sb.unique(severity="WARN")]}, "severity ERROR"),
        ({"audits": [sb.not_null("a"), sb.not_null("a")]}, "several audits are named not_null_a"),
        ({"key": "a", "name": "b"}, "not both"),
    ],
)
def test_definitions_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=message):
        events(Source(), **options)


def test_functions_that_yield_are_refused() -> None:
    with pytest.raises(sb.ConfigurationError, match="not yield or await"):

        @sb.wap_asset(partitions_def=DAYS, partition_expr="day")
        def events() -> Any:
            yield pd.DataFrame()


def test_an_io_manager_without_a_warehouse_is_refused(instance: dg.DagsterInstance) -> None:
    result = run_key([events(Source())], "2024-01-01", io_manager=dg.mem_io_manager, instance=instance)
    assert "such as RangeDuckDBIOManager(database=…)" in failure_of(result, "events")


def test_a_users_own_metadata_of_a_partition_is_kept(runs: Runs) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr="day", unique_key=["day", "id"], backfill_policy=sb.single_run())
    def events(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
        context.add_asset_metadata({"mine": 7}, partition_key=partitions.keys[0])
        context.add_asset_metadata({"everywhere": 8})
        return Source().frame(partitions.keys)

    found = metadata_by_partition(runs.range("2024-01-01", "2024-01-02", events), "events")
    assert {key: values.get("mine") for key, values in found.items()} == {"2024-01-01": 7, "2024-01-02": None}
    assert {values["everywhere"] for values in found.values()} == {8}
    assert {numbers(values) for values in found.values()} == {(3, 3, 0, 0, 0)}


HOURS = dg.HourlyPartitionsDefinition("2024-11-02-00:00", end_date="2024-11-05-00:00", timezone="America/New_York")


@pytest.mark.parametrize(
    ("definition", "duckdb", "snowflake"),
    [
        (
            DAYS,
            ("strptime(label, '%Y%m%d')", "strftime(h, '%Y%m%d') AS label"),
            ("TO_DATE(label, 'YYYYMMDD')", "TO_CHAR(h, 'YYYYMMDD') AS label"),
        ),
        (
            DAYS,
            ("CAST(label AS DATE)", "strftime(h, '%Y-%m-%d') AS label"),
            ("CAST(label AS DATE)", "TO_CHAR(h, 'YYYY-MM-DD') AS label"),
        ),
        (HOURS, ("h", "h AT TIME ZONE 'UTC' AS h"), ("h", "h::TIMESTAMP_LTZ AS h")),
        (
            HOURS,
            ("to_timestamp(seconds)", "epoch(h)::BIGINT AS seconds"),
            ("TO_TIMESTAMP_LTZ(seconds)", "DATEDIFF(second, TIMESTAMP '1970-01-01', h) AS seconds"),
        ),
    ],
    ids=["text of a format", "text of a date", "instants on a DST night", "seconds"],
)
def test_a_partition_expression_may_be_any_sql(
    definition: dg.TimeWindowPartitionsDefinition,
    duckdb: tuple[str, str],
    snowflake: tuple[str, str],
    backend: Backend,
    runs: Runs,
    read: Read,
) -> None:
    """Each hour from 2024-01-01 or 2024-11-02 on, as UTC, is a row; a day or an hour of it is published twice."""
    first = "2024-01-01" if definition is DAYS else "2024-11-02"
    backend.create("numbers", pa.table({"n": range(100)}))
    hour = backend.own(
        duckdb=f"TIMESTAMP '{first}' + to_hours(n::INTEGER)", snowflake=f"DATEADD(hour, n, TIMESTAMP '{first}')"
    )
    expression, select = (backend.own(duckdb=d, snowflake=s) for d, s in zip(duckdb, snowflake, strict=True))

    @sb.wap_asset(partitions_def=definition, partition_expr=expression, table=sb.TableOptions(on_outside="drop"))
    def events() -> sb.Query:
        return sb.Query(f"SELECT {select} FROM (SELECT {hour} AS h FROM numbers) AS hours")

    keys = definition.get_partition_keys()
    chosen = keys[1:3] if definition is DAYS else [key for key in keys if key.startswith("2024-11-03-01")]
    assert len(chosen) == 2
    for key in [*chosen, *chosen]:
        assert runs.key(key, events).success
    assert read("SELECT count(*) FROM events") == [(48 if definition is DAYS else 2,)]
