"""Schemas that are named like their file, and what is said if DuckDB has no room: by the library, with what to do."""

from __future__ import annotations

import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Strategy
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_range
from dagster_safe_backfill_tests.harness.publications import STRATEGIES

FIRST, LAST = "2024-01-01", "2024-01-03"


def trips(value: list[float], **options: Any) -> dg.AssetsDefinition:
    """Return an asset whose rows have the value that is in the list when they are computed."""

    @sb.wap_asset(partitions_def=DAYS, partition_expr="day", code_version="1", **options)
    def trips(partitions: sb.PartitionSlice) -> pd.DataFrame:
        days = pd.to_datetime([key for key in partitions.keys for _ in range(2)]).as_unit("us")
        return pd.DataFrame({"day": days, "id": [0, 1] * len(partitions.keys), "value": value[0]})

    return trips


def rows_of(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("file", "schema"),
    [("nyc.duckdb", "nyc"), ("NYC.duckdb", "nyc"), ("2024 taxi.db", "2024 taxi"), ("w.duckdb", "system")],
)
def test_a_schema_may_have_the_name_of_its_file(tmp_path: Path, strategy: Strategy, file: str, schema: str) -> None:
    path, value = tmp_path / file, [1.0]
    name = f'"{path.stem}"."{schema}"'
    with duckdb.connect(str(path)) as connection:
        # With an index, a comment and a column that the asset adds, so that each kind of statement is tried.
        connection.execute(f"CREATE SCHEMA {name}")
        connection.execute(f"CREATE TABLE {name}.trips (day TIMESTAMP, id BIGINT, old VARCHAR DEFAULT 'x')")
        connection.execute(f"CREATE INDEX by_id ON {name}.trips (id)")
        connection.execute(f"COMMENT ON TABLE {name}.trips IS 'mine'; COMMENT ON COLUMN {name}.trips.id IS 'the key'")
    publish = PUBLISH_BY_NAME[strategy](on_schema_change="add_columns", column_defaults={"value": "0.5"})
    audits = [sb.unique("id", "day"), sb.references("id", table=f"{schema}.trips", column="id", severity="WARN")]
    audits = [*audits, sb.compare(), sb.row_count_drift(max_change=9, severity="WARN")] if " " not in schema else []
    asset = trips(value, unique_key=["day", "id"], publish=publish, audits=audits)
    io_manager = sb.RangeDuckDBIOManager(database=str(path), schema=schema)
    instance = dg.DagsterInstance.ephemeral()
    assert run_range([asset], FIRST, LAST, io_manager=io_manager, instance=instance).success
    after = rows_of(path, f"FROM {name}.trips ORDER BY ALL")
    assert len(after) == 6
    value[0] = 2.0
    again = run_range([asset], FIRST, FIRST, io_manager=io_manager, instance=instance)
    assert again.success
    assert rows_of(path, f"SELECT value FROM {name}.trips ORDER BY ALL") == [(1.0,)] * 4 + [(2.0,)] * 2
    job = sb.build_rollback_job(asset)
    back = job.execute_in_process(resources={"io_manager": io_manager}, instance=instance)
    assert back.success
    assert rows_of(path, f"FROM {name}.trips ORDER BY ALL") == after
    assert rows_of(path, "SELECT comment FROM duckdb_tables() WHERE table_name = 'trips'") == [("mine",)]
    assert rows_of(path, "SELECT count(*) FROM duckdb_indexes()") == [(1,)]
    schedule = sb.build_retention_schedule([asset])
    assert schedule.job.execute_in_process(resources={"io_manager": io_manager}, instance=instance).success


def test_plain_assets_and_inputs_may_be_in_such_a_schema(tmp_path: Path) -> None:
    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day", "unique_key": ["day"]})
    def raw(context) -> pd.DataFrame:
        return pd.DataFrame({"day": pd.to_datetime([*context.partition_keys]).as_unit("us"), "value": 1.0})

    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day"})
    def clean(raw: pd.DataFrame) -> pd.DataFrame:
        return raw

    path = tmp_path / "nyc.duckdb"
    resources = {"io_manager": sb.RangeDuckDBIOManager(database=str(path), schema="nyc")}
    for _ in range(2):
        assert dg.materialize([raw, clean], partition_key=FIRST, resources=resources).success
    assert rows_of(path, "SELECT value FROM nyc.nyc.clean") == [(1.0,)]


def test_what_is_ambiguous_in_a_query_is_said_with_what_to_write(tmp_path: Path) -> None:
    @dg.asset
    def total() -> sb.Query:
        return sb.Query("SELECT count(*) AS n FROM nyc.trips")

    path = tmp_path / "nyc.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA nyc; CREATE TABLE nyc.nyc.trips (a INT)")
    resources = {"io_manager": sb.RangeDuckDBIOManager(database=str(path), schema="nyc")}
    with pytest.raises(sb.WarehouseError, match=r"nyc\.total: .*name the database as well, as in nyc\.nyc\.trips"):
        dg.materialize([total], resources=resources)


def test_a_schema_can_not_have_the_name_of_temporary_tables(tmp_path: Path) -> None:
    resources = {"io_manager": sb.RangeDuckDBIOManager(database=str(tmp_path / "w.duckdb"), schema="temp")}

    @dg.asset
    def numbers() -> pd.DataFrame:
        return pd.DataFrame({"n": [1]})

    with pytest.raises(sb.ConfigurationError, match="can't be named temp"):
        dg.materialize([numbers], resources=resources)


# 12: no room


LARGE = sb.Query(
    "SELECT DATE '2024-01-01' AS day, i AS id, repeat('x', 100) || hash(i) || hash(i + 1) AS note"
    " FROM range({rows}) r(i) ORDER BY note"
)


def large(strategy: Strategy, rows: int, *audits: sb.Audit) -> dg.AssetsDefinition:
    @sb.wap_asset(
        partitions_def=DAYS,
        partition_expr="day",
        code_version="1",
        unique_key=["day", "id"],
        publish=strategy,
        audits=audits,
    )
    def large(partitions: sb.PartitionSlice) -> sb.Query:
        return sb.Query(LARGE.sql.format(rows=rows))

    return large


def small(path: Path) -> None:
    """Make the table with a row, which has to stay."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA sales; CREATE TABLE sales.large (day DATE, id BIGINT, note VARCHAR)")
        connection.execute("INSERT INTO sales.large VALUES ('2024-01-01', 0, 'old')")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"temp_directory": "", "memory_limit": "40MB"}, "more memory than DuckDB may use.*raise memory_limit"),
        ({"temp_directory": "{tmp}/a_file/x", "memory_limit": "40MB"}, "folder for .*temporary files.*temp_directory"),
        pytest.param(
            {"temp_directory": "{tmp}/t", "memory_limit": "40MB", "max_temp_directory_size": "5MB"},
            "(no room on the disk|more memory).*max_temp_directory_size",
            marks=pytest.mark.xfail(
                condition=duckdb.__version__.startswith("1."),
                strict=True,
                reason="DuckDB 1.x goes on beyond max_temp_directory_size, and the statement succeeds",
            ),
        ),
    ],
    ids=["memory", "no folder", "full folder"],
)
def test_a_statement_without_room_says_what_to_change(
    tmp_path: Path, strategy: Strategy, config: dict[str, str], reason: str
) -> None:
    path = tmp_path / "w.duckdb"
    (tmp_path / "a_file").touch()
    small(path)
    settings = {name: value.format(tmp=tmp_path) for name, value in config.items()} | {"threads": "1"}
    io_manager = sb.RangeDuckDBIOManager(database=str(path), schema="sales", connection_config=settings)
    instance = dg.DagsterInstance.ephemeral()
    result = run_range([large(strategy, 1_000_000)], FIRST, FIRST, io_manager=io_manager, instance=instance)
    message = failure_of(result, "large")
    assert re.search(rf"(?s)sales\.large: .*{reason}", message), message
    assert "The live table is as it was" in message
    assert "OutOfResourcesError" in message
    assert rows_of(path, "FROM sales.large")[0][1:] == (0, "old")
    # With room, the same run works.
    enough = sb.RangeDuckDBIOManager(database=str(path), schema="sales")
    assert run_range([large(strategy, 10)], FIRST, FIRST, io_manager=enough, instance=instance).success
    assert rows_of(path, "SELECT count(*) FROM sales.large") == [(10,)]


LONG = "SELECT list(i ORDER BY -i) FROM range(20000000) AS r(i)"
"""A SELECT that needs more memory than 60 MB."""


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "audit",
    [
        sb.failing_rows(f"SELECT * FROM batch WHERE id IN (SELECT len(({LONG})) + 1)", name="none"),
        sb.aggregate_between(f"max(id + (SELECT len(({LONG}))))", 0),
    ],
    ids=["failing rows", "aggregate"],
)
def test_an_audit_without_room_blocks_and_says_what_to_change(
    tmp_path: Path, strategy: Strategy, audit: sb.Audit
) -> None:
    path = tmp_path / "w.duckdb"
    small(path)
    before = rows_of(path, "FROM sales.large")
    config = {"temp_directory": "", "memory_limit": "60MB", "threads": "1"}
    io_manager = sb.RangeDuckDBIOManager(database=str(path), schema="sales", connection_config=config)
    instance = dg.DagsterInstance.ephemeral()
    result = run_range([large(strategy, 10, audit)], FIRST, FIRST, io_manager=io_manager, instance=instance)
    message = failure_of(result, "large")
    assert "nothing was published, because 1 of 2 audits block it" in message
    assert re.search(r"needs more memory than DuckDB may use\. .*raise memory_limit", message), message
    assert rows_of(path, "FROM sales.large") == before


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let every write beyond a size of a file fail, as on a disk that is full."""
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_full_disk_leaves_the_live_table_as_it_was(tmp_path: Path, strategy: Strategy) -> None:
    path = tmp_path / "w.duckdb"
    small(path)
    io_manager = sb.RangeDuckDBIOManager(database=str(path), schema="sales")
    instance = dg.DagsterInstance.ephemeral()
    with no_file_over(4_000_000):
        result = run_range([large(strategy, 300_000)], FIRST, FIRST, io_manager=io_manager, instance=instance)
    message = failure_of(result, "large")
    assert "sales.large: " in message
    assert "no room on the disk" in message, message
    assert "Free space on it" in message
    assert rows_of(path, "FROM sales.large")[0][1:] == (0, "old")
    assert run_range([large(strategy, 10)], FIRST, FIRST, io_manager=io_manager, instance=instance).success
    assert rows_of(path, "SELECT count(*) FROM sales.large") == [(10,)]
