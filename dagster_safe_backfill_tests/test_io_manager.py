"""`RangeDuckDBIOManager` beside `dagster_duckdb_pandas.DuckDBPandasIOManager`: the same tables, the same inputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from dagster_duckdb_pandas import DuckDBPandasIOManager

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.assets import DAYS, RANGE_END, RANGE_START, failure_of, run_key, run_range
from dagster_safe_backfill_tests.conftest import DuckDBBackend

BY_DAY = {"partition_expr": "day"}
REGIONS = dg.StaticPartitionsDefinition(["eu", "us"])
GRID = dg.MultiPartitionsDefinition({"day": DAYS, "region": REGIONS})
DYNAMIC = dg.DynamicPartitionsDefinition(name="dynamic")


def frame(days: list[str], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"day": pd.to_datetime(days), "n": range(len(days)), **columns})


def tables(path: str) -> dict[str, list[Any]]:
    """Return the contents of all tables in a file, by schema and name."""
    with duckdb.connect(path) as connection:
        names = connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
        return {
            f"{schema}.{name}": connection.execute(f'SELECT * FROM "{schema}"."{name}" ORDER BY ALL').fetchall()
            for schema, name in names
        }


class Pair:
    """Runs the same assets on both I/O managers and compares what came of it."""

    def __init__(self, folder: Path) -> None:
        self.paths = [str(folder / "ours.duckdb"), str(folder / "theirs.duckdb")]

    def run(self, make: Callable[[list[Any]], list[Any]], *, schema: str | None = "main", **options: Any) -> list[Any]:
        """Return what the assets that `make` builds appended to its argument, after a run on each."""
        options = {"tags": None, "partition_key": None, **options}
        seen: list[list[Any]] = []
        for path, manager in zip(self.paths, (sb.RangeDuckDBIOManager, DuckDBPandasIOManager), strict=True):
            loaded: list[Any] = []
            with dg.DagsterInstance.ephemeral() as instance:
                instance.add_dynamic_partitions("dynamic", ["x", "it's"])
                resources = {"io_manager": manager(database=path, schema=schema)}
                assert dg.materialize(make(loaded), instance=instance, resources=resources, **options).success
            seen.append(loaded)
        assert tables(self.paths[0]) == tables(self.paths[1])
        assert len(seen[0]) == len(seen[1])
        for ours, theirs in zip(*seen, strict=True):
            pd.testing.assert_frame_equal(
                ours.sort_values(list(ours)).reset_index(drop=True),
                theirs.sort_values(list(theirs)).reset_index(drop=True),
            )
        return seen[0]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "prefix", "schema", "expected"),
    [
        ({"schema": "by_metadata"}, ["by_key"], "by_manager", "by_metadata.a"),
        ({}, ["by_key"], "by_manager", "by_manager.a"),
        ({}, ["deep", "by_key"], None, "by_key.a"),
        ({}, [], None, "public.a"),
    ],
)
def test_the_schema_has_the_same_precedence(
    pair: Pair, metadata: dict[str, str], prefix: list[str], schema: str | None, expected: str
) -> None:
    def make(loaded: list[Any]) -> list[Any]:
        @dg.asset(key=[*prefix, "a"], metadata=metadata)
        def a() -> pd.DataFrame:
            return frame(["2024-01-01"])

        @dg.asset(ins={"a": dg.AssetIn(key=[*prefix, "a"])})
        def b(a: pd.DataFrame) -> None:
            loaded.append(a)

        return [a, b]

    assert len(pair.run(make, schema=schema)) == 1
    assert expected in tables(pair.paths[0])


def test_unpartitioned_assets_and_columns(pair: Pair) -> None:
    def make(loaded: list[Any]) -> list[Any]:
        @dg.asset
        def a() -> pd.DataFrame:
            return frame(["2024-01-01", "2024-01-02"], text=["x", None], number=[1.5, None])

        @dg.asset(ins={"a": dg.AssetIn(metadata={"columns": ["number", "n"]})})
        def b(a) -> None:  # no hint: pandas
            loaded.append(a)

        return [a, b]

    (loaded,) = pair.run(make)
    assert list(loaded) == ["number", "n"]
    pair.run(make)


def test_a_range_and_then_a_partition_again(pair: Pair) -> None:
    def make(loaded: list[Any]) -> list[Any]:
        @dg.asset(partitions_def=DAYS, metadata=BY_DAY, backfill_policy=sb.single_run())
        def a(context) -> pd.DataFrame:
            return frame(list(context.partition_keys) * 2)

        @dg.asset(partitions_def=DAYS, metadata=BY_DAY, backfill_policy=sb.single_run())
        def b(a: pd.DataFrame) -> pd.DataFrame:
            loaded.append(a)
            return a

        return [a, b]

    (loaded,) = pair.run(make, tags={RANGE_START: "2024-01-02", RANGE_END: "2024-01-05"})
    assert len(loaded) == 8
    pair.run(make, partition_key="2024-01-03")


@pytest.mark.parametrize(
    ("mapping", "days"),
    [
        (dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1), {2}),
        (dg.TimeWindowPartitionMapping(start_offset=-1), {2, 3}),
        (dg.AllPartitionMapping(), {1, 2, 3, 4}),
        (dg.SpecificPartitionsPartitionMapping(["2024-01-04"]), {4}),
    ],
)
def test_partition_mappings(pair: Pair, mapping: dg.PartitionMapping, days: set[int]) -> None:
    def upstream(loaded: list[Any]) -> list[Any]:
        @dg.asset(partitions_def=DAYS, metadata=BY_DAY, backfill_policy=sb.single_run())
        def a(context) -> pd.DataFrame:
            return frame(list(context.partition_keys))

        return [a]

    def downstream(loaded: list[Any]) -> list[Any]:
        spec = dg.AssetSpec("a", partitions_def=DAYS, metadata={**BY_DAY, "dagster/io_manager_key": "io_manager"})

        @dg.asset(partitions_def=DAYS, ins={"a": dg.AssetIn(partition_mapping=mapping)})
        def b(a: pd.DataFrame) -> None:
            loaded.append(a)

        return [spec, b]

    pair.run(upstream, tags={RANGE_START: "2024-01-01", RANGE_END: "2024-01-04"})
    (loaded,) = pair.run(downstream, partition_key="2024-01-03")
    assert {day.day for day in loaded["day"]} == days


def test_an_input_that_maps_to_no_partition_is_an_empty_frame(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    loaded: list[pd.DataFrame] = []
    before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True)

    @dg.asset(partitions_def=DAYS, metadata=BY_DAY)
    def a(context) -> pd.DataFrame:
        return frame([context.partition_key])

    @dg.asset(partitions_def=DAYS, ins={"a": dg.AssetIn(partition_mapping=before)})
    def b(a: pd.DataFrame) -> None:
        loaded.append(a)

    assert run_key([a, b], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    assert [list(found) for found in loaded] == [["day", "n"]]
    assert loaded[0].empty


def test_static_dynamic_and_multi_partitions(pair: Pair) -> None:
    def of(definition: Any, metadata: dict[str, Any]) -> Callable[[list[Any]], list[Any]]:
        def make(loaded: list[Any]) -> list[Any]:
            @dg.asset(partitions_def=definition, metadata=metadata, name=f"t_{len(metadata['name'])}")
            def a(context) -> pd.DataFrame:
                day, _, text = context.partition_key.rpartition("|")
                return frame([day or "2024-01-01"], region=[text])

            @dg.asset(partitions_def=definition, ins={"a": dg.AssetIn(key=a.key)})
            def b(a: pd.DataFrame) -> None:
                loaded.append(a)

            return [a, b]

        return make

    grid = of(GRID, {"name": "g", "partition_expr": {"day": "day", "region": "region"}})
    for key in ("2024-01-01|eu", "2024-01-01|us", "2024-01-02|us", "2024-01-01|us"):
        (loaded,) = pair.run(
            grid, partition_key=dg.MultiPartitionKey(dict(zip(("day", "region"), key.split("|"), strict=True)))
        )
        assert len(loaded) == 1
    static = of(REGIONS, {"name": "st", "partition_expr": "region"})
    dynamic = of(DYNAMIC, {"name": "dyn", "partition_expr": "region"})
    for make, key in ((static, "eu"), (static, "us"), (dynamic, "it's"), (dynamic, "x"), (dynamic, "it's")):
        (loaded,) = pair.run(make, partition_key=key)
        assert list(loaded["region"]) == [key]


def test_op_outputs(tmp_path: Path) -> None:
    @dg.op(out={"plain": dg.Out(), "named": dg.Out(metadata={"schema": "other", "table": "t"})})
    def produce():
        yield dg.Output(frame(["2024-01-01"]), "plain")
        yield dg.Output(frame(["2024-01-02"]), "named")

    @dg.op
    def consume(plain: pd.DataFrame, named: pd.DataFrame) -> None:
        assert list(plain["day"].dt.day) == [1]
        assert list(named["day"].dt.day) == [2]

    @dg.graph
    def both():
        consume(*produce())

    found = []
    for name, manager in (("ours", sb.RangeDuckDBIOManager), ("theirs", DuckDBPandasIOManager)):
        path = str(tmp_path / f"{name}.duckdb")
        job = both.to_job(resource_defs={"io_manager": manager(database=path, schema="s")})
        assert job.execute_in_process().success
        found.append(tables(path))
    assert found[0] == found[1]
    assert sorted(found[0]) == ["other.t", "s.plain"]


@pytest.mark.parametrize("hint", [pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.Table])
def test_a_hint_chooses_what_an_input_is_loaded_as(
    hint: type, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    loaded: list[Any] = []

    @dg.asset(partitions_def=DAYS, metadata=BY_DAY)
    def a() -> Any:
        return frame(["2024-01-01"])

    def b(a: Any) -> None:
        loaded.append(a)

    b.__annotations__["a"] = hint
    down = dg.asset(partitions_def=DAYS)(b)
    assert run_key([a, down], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    assert isinstance(loaded[0], hint)


@pytest.mark.parametrize(
    "rows",
    [
        pl.DataFrame({"n": [2, 1], "day": ["2024-01-01"] * 2}).with_columns(pl.col("day").str.to_datetime()),
        pl.LazyFrame({"n": [2, 1], "day": ["2024-01-01"] * 2}).with_columns(pl.col("day").str.to_datetime()),
        pa.table({"n": [2, 1], "day": pd.to_datetime(["2024-01-01"] * 2)}),
        pa.table({"n": [2, 1], "day": pd.to_datetime(["2024-01-01"] * 2)}).to_reader(),
        pd.DataFrame({"n": pd.array([2, 1], "Int64"), "day": pd.to_datetime(["2024-01-01"] * 2)}, index=[7, 9]),
        sb.Query("SELECT * FROM (VALUES (2, TIMESTAMP '2024-01-01'), (1, TIMESTAMP '2024-01-01')) t (n, day); -- end"),
        sb.Query("WITH t AS (SELECT unnest([1, 2]) AS n) SELECT n, TIMESTAMP '2024-01-01' AS day FROM t -- no end"),
    ],
    ids=lambda rows: f"{type(rows).__module__.split('.')[0]} {type(rows).__name__}",
)
def test_rows_of_any_kind_with_columns_in_any_order(
    rows: Any, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    with duckdb.connect(backend.path) as connection:
        connection.execute("CREATE TABLE a (day TIMESTAMP, n BIGINT)")

    @dg.asset(partitions_def=DAYS, metadata=BY_DAY)
    def a() -> Any:
        return rows

    assert run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT n, day::VARCHAR FROM a ORDER BY n") == [(n, "2024-01-01 00:00:00") for n in (1, 2)]


def test_pandas_peculiarities_keep_their_values(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def a() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "category": pd.Categorical(["x", None]),
                "instant": pd.to_datetime(["2024-07-01 12:00", None]).tz_localize("America/New_York"),
                "whole": pd.array([2**62 + 1, None], "Int64"),
                "flag": pd.array([True, None], "boolean"),
                "part": [0.1, float("nan")],
            },
            index=["i", "j"],
        )

    @dg.asset(key="a")
    def again() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "category": pd.Categorical(["new", "y"]),
                "flag": [True, False],
                "instant": None,
                "whole": [1, 2],
                "part": [1, 2],
            }
        )

    for asset in (a, again):
        assert dg.materialize([asset], instance=instance, resources={"io_manager": backend.io_manager}).success
        if asset is a:
            (first, second) = backend.read("SELECT category, epoch(instant), whole, flag, part FROM a")
            assert first == ("x", 1719849600.0, 2**62 + 1, True, 0.1)
            assert second[:4] == (None, None, None, None)
    assert backend.read("SELECT category, whole, part FROM a ORDER BY 1") == [("new", 1, 1.0), ("y", 2, 2.0)]


def test_a_write_that_breaks_in_the_middle_leaves_all_as_it_was(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    """A constraint of the live table breaks the INSERT, after the DELETE."""
    with duckdb.connect(backend.path) as connection:
        connection.execute("CREATE TABLE a (day TIMESTAMP, n BIGINT CHECK (n < 5))")
        connection.execute("INSERT INTO a VALUES ('2024-01-01', 1), ('2024-01-01', 2), ('2024-01-02', 3)")
    before = backend.read("SELECT * FROM a ORDER BY ALL")

    @dg.asset(partitions_def=DAYS, metadata=BY_DAY)
    def a() -> pd.DataFrame:
        return pd.DataFrame({"day": pd.to_datetime(["2024-01-01"] * 9), "n": range(9)})

    result = run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance)
    assert "CHECK constraint failed" in failure_of(result, "a")
    assert backend.read("SELECT * FROM a ORDER BY ALL") == before


_HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


def hold(path: str, how: str, seconds: float) -> subprocess.Popen[str]:
    """Let another process hold the file, and return once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, path, how, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@dg.asset
def one() -> pd.DataFrame:
    return frame(["2024-01-01"])


@dg.asset
def reader(one: pd.DataFrame) -> None:
    assert len(one) == 1


def test_a_locked_file_is_named_with_the_process_that_holds_it(backend: DuckDBBackend) -> None:
    impatient = sb.RangeDuckDBIOManager(database=backend.path, schema="main", lock_timeout=0.5)
    with hold(backend.path, "write", 60) as other:
        with pytest.raises(sb.WarehouseLockedError, match=rf"PID {other.pid}.*0.5 s of lock_timeout") as caught:
            dg.materialize([one], resources={"io_manager": impatient})
        other.kill()
    assert caught.value.pid == other.pid


def test_a_lock_that_ends_in_time_is_waited_for(backend: DuckDBBackend) -> None:
    with hold(backend.path, "write", 1):
        assert dg.materialize([one], resources={"io_manager": backend.io_manager}).success


def test_reads_go_on_beside_another_reader(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    resources = {"io_manager": backend.io_manager}
    assert dg.materialize([one], instance=instance, resources=resources).success
    with hold(backend.path, "read", 60) as other:
        assert dg.materialize([one, reader], instance=instance, resources=resources, selection="reader").success
        other.kill()


def test_reads_go_on_in_a_process_that_holds_the_file_for_writing(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    resources = {"io_manager": backend.io_manager}
    with duckdb.connect(backend.path):
        assert dg.materialize([one, reader], instance=instance, resources=resources).success


@pytest.mark.parametrize("works", [True, False])
def test_the_connection_is_closed_whatever_happens(
    works: bool, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def a() -> pd.DataFrame:
        return frame(["2024-01-01"]) if works else pd.DataFrame()

    dg.materialize([a], instance=instance, resources={"io_manager": backend.io_manager}, raise_on_error=False)
    with hold(backend.path, "write", 0):
        pass


def test_an_in_memory_database_is_refused() -> None:
    with pytest.raises(sb.ConfigurationError, match="name a file"):
        dg.materialize([one], resources={"io_manager": sb.RangeDuckDBIOManager(database=":memory:")})


def test_a_range_with_excluded_days_leaves_their_rows_alone(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    workdays = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01", exclusions=["0 0 * * 6", "0 0 * * 0"])
    with duckdb.connect(backend.path) as connection:
        connection.execute("CREATE TABLE a (day TIMESTAMP, n BIGINT)")
        connection.execute("INSERT INTO a VALUES ('2024-01-06', 100), ('2024-01-05', 200)")

    @dg.asset(partitions_def=workdays, metadata=BY_DAY, backfill_policy=sb.single_run())
    def a(context) -> pd.DataFrame:
        return frame(list(context.partition_keys))

    assert run_range([a], "2024-01-05", "2024-01-08", io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT n FROM a ORDER BY day") == [(0,), (100,), (1,)]
