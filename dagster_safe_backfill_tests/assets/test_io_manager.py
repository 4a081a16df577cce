"""`RangeDuckDBIOManager` beside `dagster_duckdb_pandas.DuckDBPandasIOManager`: the same tables, the same inputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timezone
from functools import partial
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
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import (
    DAYS,
    RANGE_END,
    RANGE_START,
    failure_of,
    metadata_by_partition,
    run_key,
    run_range,
)
from dagster_safe_backfill_tests.harness.backends import Backend, DuckDBBackend

pytestmark = pytest.mark.every_warehouse
OF_ITS_FILE = pytest.mark.only("duckdb", reason="of DuckDB's file and who holds it; Snowflake has none")
CONSTRAINED = pytest.mark.only("duckdb", reason="of keys and checks, which Snowflake has not or does not enforce")

LEDGER = "_safe_backfill_ledger"
BY_DAY = {"partition_expr": "day"}
REGIONS = dg.StaticPartitionsDefinition(["eu", "us"])
GRID = dg.MultiPartitionsDefinition({"day": DAYS, "region": REGIONS})
BY_GRID = {"partition_expr": {"day": "day", "region": "region"}}
DYNAMIC = dg.DynamicPartitionsDefinition(name="dynamic")


def frame(days: list[str], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"day": pd.to_datetime(days), "n": range(len(days)), **columns})


def tables(path: str) -> dict[str, list[Any]]:
    """Return the contents of all tables in a file but the ledger, by schema and name."""
    with duckdb.connect(path) as connection:
        names = connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
        return {
            f"{schema}.{name}": connection.execute(f'SELECT * FROM "{schema}"."{name}" ORDER BY ALL').fetchall()
            for schema, name in names
            if name != LEDGER
        }


def with_none(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with None for what is missing among objects, as which DuckDB 2.0 has NA and earlier ones None."""
    objects = [name for name, kind in frame.dtypes.items() if kind.name == "object"]
    return frame.assign(**{name: [None if one is pd.NA else one for one in frame[name]] for name in objects})


class Pair:
    """Runs the same assets on both I/O managers and compares what came of it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.paths = [str(folder / "ours.duckdb"), str(folder / "theirs.duckdb")]
        self._instance = instance
        instance.add_dynamic_partitions("dynamic", ["x", "it's"])

    def run(self, make: Callable[[list[Any]], list[Any]], *, schema: str | None = "main", **options: Any) -> list[Any]:
        """Return what the assets that `make` builds appended to its argument, after a run on each."""
        options = {"tags": None, "partition_key": None, **options}
        seen: list[list[Any]] = []
        for path, manager in zip(self.paths, (sb.RangeDuckDBIOManager, DuckDBPandasIOManager), strict=True):
            loaded: list[Any] = []
            resources = {"io_manager": manager(database=path, schema=schema)}
            assert dg.materialize(make(loaded), instance=self._instance, resources=resources, **options).success
            seen.append(loaded)
        assert tables(self.paths[0]) == tables(self.paths[1])
        assert len(seen[0]) == len(seen[1])
        for ours, theirs in zip(*seen, strict=True):
            pd.testing.assert_frame_equal(
                with_none(ours.sort_values(list(ours)).reset_index(drop=True)),
                with_none(theirs.sort_values(list(theirs)).reset_index(drop=True)),
            )
        return seen[0]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """One for all, as only the warehouse is looked at, and a new one takes longer than a run."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def pair(tmp_path: Path, instance: dg.DagsterInstance) -> Pair:
    return Pair(tmp_path, instance)


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


def test_every_kind_of_column(pair: Pair) -> None:
    def make(loaded: list[Any]) -> list[Any]:
        @dg.asset
        def a() -> pd.DataFrame:
            moment = pd.Series(pd.to_datetime(["2024-07-01 12:00", None]))
            return pd.DataFrame(
                {
                    "date": [date(2024, 1, 1), None],
                    "time": [time(5, 6), None],
                    "moment": moment,
                    "micros": moment.astype("datetime64[us]"),
                    "instant": moment.dt.tz_localize("America/New_York"),
                    "lasting": [pd.Timedelta("1h"), None],
                    "small": pd.Series([1, 255], dtype="uint8"),
                    "whole": pd.array([2**62 + 1, None], "Int64"),
                    "flag": [True, None],
                    "text": pd.array(["it's", None], "string"),
                    "part": [float("inf"), float("nan")],
                },
                index=pd.Index([7, 9]),
            )

        @dg.asset
        def b(a: pd.DataFrame) -> None:
            loaded.append(a)

        return [a, b]

    (loaded,) = pair.run(make)
    assert len(loaded.columns) == 11


def test_outputs_of_every_kind(pair: Pair) -> None:
    """Several of one asset, wrapped ones, a graph's, and none at all."""

    def make(loaded: list[Any]) -> list[Any]:
        @dg.multi_asset(outs={"p": dg.AssetOut(metadata=BY_DAY), "q": dg.AssetOut(metadata=BY_DAY)})
        def several():
            return frame(["2024-01-01"]), frame(["2024-01-02"])

        @dg.asset
        def wrapped():
            return dg.Output(frame(["2024-01-03"]), metadata={"k": 1})

        @dg.asset
        def result():
            return dg.MaterializeResult(value=frame(["2024-01-04"]))

        @dg.op
        def inner():
            return frame(["2024-01-05"])

        @dg.graph_asset
        def graph():
            return inner()

        @dg.asset
        def nothing() -> None:
            return None

        @dg.asset(deps=[nothing])
        def b(p, q, wrapped, result, graph) -> None:
            loaded.extend([p, q, wrapped, result, graph])

        return [several, wrapped, result, graph, nothing, b]

    loaded = pair.run(make)
    assert [found["day"].dt.day.item() for found in loaded] == [1, 2, 3, 4, 5]
    assert "main.nothing" not in tables(pair.paths[0])


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


def test_an_unpartitioned_asset_reads_every_partition(pair: Pair) -> None:
    def upstream(loaded: list[Any]) -> list[Any]:
        @dg.asset(partitions_def=DAYS, metadata=BY_DAY, backfill_policy=sb.single_run())
        def a(context) -> pd.DataFrame:
            return frame(list(context.partition_keys))

        return [a]

    def downstream(loaded: list[Any]) -> list[Any]:
        spec = dg.AssetSpec("a", partitions_def=DAYS, metadata={**BY_DAY, "dagster/io_manager_key": "io_manager"})

        @dg.asset
        def b(a: pd.DataFrame) -> None:
            loaded.append(a)

        return [spec, b]

    pair.run(upstream, tags={RANGE_START: "2024-01-01", RANGE_END: "2024-01-03"})
    (loaded,) = pair.run(downstream)
    assert {day.day for day in loaded["day"]} == {1, 2, 3}


def test_an_asset_that_reads_its_own_past_can_begin(pair: Pair) -> None:
    """Its first partition reads no partition of a table that isn't there yet."""
    yesterday = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    def make(loaded: list[Any]) -> list[Any]:
        @dg.asset(partitions_def=DAYS, metadata=BY_DAY, ins={"a": dg.AssetIn(partition_mapping=yesterday)})
        def a(context, a: pd.DataFrame) -> pd.DataFrame:
            loaded.append(a.reset_index(drop=True))
            return frame([context.partition_key])

        return [a]

    (first,) = pair.run(make, partition_key="2024-01-01")
    assert first.empty
    (second,) = pair.run(make, partition_key="2024-01-02")
    assert list(second["day"].dt.day) == [1]


def test_an_input_that_maps_to_no_partition_is_an_empty_frame(backend: Backend, instance: dg.DagsterInstance) -> None:
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


def grid_frame(context: Any) -> pd.DataFrame:
    keys = [key.keys_by_dimension for key in context.partition_keys]
    return frame([key["day"] for key in keys], region=[key["region"] for key in keys])


def test_a_range_along_one_dimension_is_the_same(pair: Pair) -> None:
    def make(loaded: list[Any]) -> list[Any]:
        @dg.asset(partitions_def=GRID, metadata=BY_GRID, backfill_policy=sb.single_run())
        def a(context) -> pd.DataFrame:
            return grid_frame(context)

        return [a]

    for _ in range(2):
        pair.run(make, tags={RANGE_START: "2024-01-01|eu", RANGE_END: "2024-01-03|eu"})
    assert len(tables(pair.paths[0])["main.a"]) == 3


def test_a_rectangle_of_two_dimensions_leaves_the_rest_alone(backend: Backend, instance: dg.DagsterInstance) -> None:
    """Dagster's own I/O manager can't write more than one row of the rectangle."""
    loaded: list[pd.DataFrame] = []
    backend.change(
        "CREATE TABLE a (day TIMESTAMP, n BIGINT, region VARCHAR)",
        "INSERT INTO a VALUES ('2024-01-02', 100, 'us'), ('2024-01-03', 200, 'eu')",
    )

    @dg.asset(partitions_def=GRID, metadata=BY_GRID, backfill_policy=sb.single_run())
    def a(context) -> pd.DataFrame:
        return grid_frame(context)

    @dg.asset(partitions_def=DAYS)
    def b(a: pd.DataFrame) -> None:
        loaded.append(a)

    spec = dg.AssetSpec("a", partitions_def=GRID, metadata={**BY_GRID, "dagster/io_manager_key": "io_manager"})
    first, last = "2024-01-01|eu", "2024-01-02|us"
    assert run_range([a], first, last, io_manager=backend.io_manager, instance=instance).success
    assert run_key([spec, b], "2024-01-02", io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT region, day::DATE::VARCHAR FROM a WHERE n < 100 ORDER BY ALL") == [
        *(("eu", f"2024-01-0{day}") for day in (1, 2)),
        *(("us", f"2024-01-0{day}") for day in (1, 2)),
    ]
    assert backend.read("SELECT n FROM a WHERE n >= 100") == [(200,)], "what was live in the rectangle is replaced"
    assert set(loaded[0]["region"]) == {"eu", "us"}
    assert set(loaded[0]["day"].dt.day) == {2}


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
def test_a_hint_chooses_what_an_input_is_loaded_as(hint: type, backend: Backend, instance: dg.DagsterInstance) -> None:
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
        # Made for each test, as it is read but once.
        pytest.param(
            partial(pa.table({"n": [2, 1], "day": pd.to_datetime(["2024-01-01"] * 2)}).to_reader),
            id="pyarrow RecordBatchReader",
        ),
        pa.table({"n": [2, 1], "day": pa.array([date(2024, 1, 1)] * 2, pa.date32())}),
        pa.record_batch({"n": [2, 1], "day": pa.array([date(2024, 1, 1)] * 2, pa.date64())}),
        pd.DataFrame({"n": pd.array([2, 1], "Int64"), "day": pd.to_datetime(["2024-01-01"] * 2)}, index=[7, 9]),
        sb.Query("SELECT * FROM (VALUES (2, TIMESTAMP '2024-01-01'), (1, TIMESTAMP '2024-01-01')) t (n, day); -- end"),
        pytest.param(
            sb.Query("WITH t AS (SELECT unnest([1, 2]) AS n) SELECT n, TIMESTAMP '2024-01-01' AS day FROM t -- no end"),
            marks=pytest.mark.only("duckdb", reason="the literal of a list is DuckDB's"),
        ),
        sb.Query(
            "WITH t AS (SELECT 1 AS n UNION ALL SELECT 2) SELECT n, TIMESTAMP '2024-01-01' AS day FROM t -- no end"
        ),
    ],
    ids=lambda rows: f"{type(rows).__module__.split('.')[0]} {type(rows).__name__}",
)
def test_rows_of_any_kind_with_columns_in_any_order(rows: Any, backend: Backend, instance: dg.DagsterInstance) -> None:
    backend.change("CREATE TABLE a (day TIMESTAMP, n BIGINT)")

    @dg.asset(partitions_def=DAYS, metadata=BY_DAY)
    def a() -> Any:
        return rows() if isinstance(rows, partial) else rows

    assert run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT n, day::VARCHAR FROM a ORDER BY n") == [(n, "2024-01-01 00:00:00") for n in (1, 2)]


def test_pandas_peculiarities_keep_their_values(backend: Backend, instance: dg.DagsterInstance) -> None:
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


class Frame(pd.DataFrame):
    """A user's own kind of frame."""


def test_the_index_is_no_column_of_a_subclass_either(backend: Backend, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def a() -> Any:
        return Frame({"n": [1, 2]}, index=[7, 9])

    assert dg.materialize([a], instance=instance, resources={"io_manager": backend.io_manager}).success
    assert backend.read("SELECT * FROM a ORDER BY ALL") == [(1,), (2,)]


LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
KEYED = {**BY_DAY, "unique_key": ["day", "n"]}


def keyed(values: dict[int, float | None]) -> pd.DataFrame:
    return pd.DataFrame({"day": pd.Timestamp("2024-01-01"), "n": list(values), "value": list(values.values())})


@pytest.mark.parametrize(
    ("computed", "touched", "changes"),
    [
        ({1: 1.0, 2: 2.0, 3: 3.0, 4: None}, set(), (0, 0, 0, 4)),
        ({4: None, 3: 3.0, 2: 9.0, 1: 1.0}, {2}, (0, 1, 0, 3)),
        ({1: 9.0, 2: 9.0, 3: None, 4: None}, {1, 2, 3}, (0, 3, 0, 1)),
        ({1: 1.0, 3: 3.0, 4: 0.0, 5: 5.0}, {4, 5}, (1, 1, 1, 2)),
        ({4: None}, set(), (0, 0, 3, 1)),
    ],
    ids=["none", "one", "most", "one of each", "all but one gone"],
)
@pytest.mark.parametrize("stamp", [{}, {"updated_at_column": "updated_at"}], ids=["unstamped", "stamped"])
def test_a_merge_touches_what_differs(
    stamp: dict[str, str],
    computed: dict[int, float | None],
    touched: set[int],
    changes: tuple[int, ...],
    backend: Backend,
    instance: dg.DagsterInstance,
) -> None:
    values: list[dict[int, float | None]] = [{1: 1.0, 2: 2.0, 3: 3.0, 4: None}, computed]

    @dg.asset(partitions_def=DAYS, metadata={**KEYED, **stamp})
    def a() -> pd.DataFrame:
        return keyed(values.pop(0))

    assert run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    if stamp:
        backend.change(f"UPDATE a SET updated_at = '{LONG_AGO}'")
    result = run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance)
    numbers = metadata_by_partition(result, "a")["2024-01-01"]
    assert dict(backend.read("SELECT n, value FROM a")) == computed
    assert tuple(numbers[f"rows_{change}"] for change in ("inserted", "updated", "deleted", "unchanged")) == changes
    if stamp:
        assert {n for (n,) in backend.read(f"SELECT n FROM a WHERE updated_at > '{LONG_AGO}'")} == touched


def test_a_merge_leaves_the_rows_that_did_not_change_in_place(backend: Backend, instance: dg.DagsterInstance) -> None:
    computed = {n: float(n) for n in range(9)}

    @dg.asset(partitions_def=DAYS, metadata=KEYED)
    def a() -> pd.DataFrame:
        return keyed(dict(computed))

    assert run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    before = backend.read("SELECT rowid, n FROM a ORDER BY n")
    computed[3] = 99.0
    assert run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT rowid, n FROM a ORDER BY n") == before
    assert backend.read("SELECT value FROM a WHERE n = 3") == [(99.0,)]


@CONSTRAINED
@pytest.mark.parametrize("metadata", [BY_DAY, KEYED], ids=["replaced", "merged"])
@pytest.mark.parametrize("constraint", ["PRIMARY KEY (day, n)", "UNIQUE (n)"])
def test_a_table_with_constraints_is_written_again(
    constraint: str, metadata: dict[str, Any], backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    backend.read(f"CREATE TABLE a (day TIMESTAMP NOT NULL, n BIGINT, value DOUBLE, {constraint})")
    backend.read("INSERT INTO a VALUES ('2024-01-01', 1, 0), ('2024-01-01', 7, 0), ('2024-01-02', 9, 0)")
    computed: dict[int, float | None] = {1: 1.0, 2: 2.0}

    @dg.asset(partitions_def=DAYS, metadata=metadata)
    def a() -> pd.DataFrame:
        return keyed(computed)

    for _ in range(2):
        assert run_key([a], "2024-01-01", io_manager=backend.io_manager, instance=instance).success
        assert dict(backend.read("SELECT n, value FROM a")) == {**computed, 9: 0.0}


@CONSTRAINED
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


@OF_ITS_FILE
def test_a_locked_file_is_named_with_the_process_that_holds_it(backend: DuckDBBackend) -> None:
    impatient = sb.RangeDuckDBIOManager(database=backend.path, schema="main", lock_timeout=0.5)
    with hold(backend.path, "write", 60) as other:
        with pytest.raises(sb.WarehouseLockedError, match=rf"PID {other.pid}.*0.5 s of lock_timeout") as caught:
            dg.materialize([one], resources={"io_manager": impatient})
        other.kill()
    assert caught.value.pid == other.pid


@OF_ITS_FILE
def test_a_lock_that_ends_in_time_is_waited_for(backend: DuckDBBackend) -> None:
    with hold(backend.path, "write", 1):
        assert dg.materialize([one], resources={"io_manager": backend.io_manager}).success


@OF_ITS_FILE
@pytest.mark.cold
def test_a_reader_of_this_process_is_named_too(backend: DuckDBBackend) -> None:
    backend.read("CREATE TABLE t (a INTEGER)")
    impatient = sb.RangeDuckDBIOManager(database=backend.path, schema="main", lock_timeout=0.2)
    with (
        duckdb.connect(backend.path, read_only=True),
        pytest.raises(sb.WarehouseLockedError, match="this process") as caught,
    ):
        dg.materialize([one], resources={"io_manager": impatient})
    assert caught.value.pid is None
    assert caught.value.database == backend.path


@OF_ITS_FILE
def test_reads_go_on_beside_another_reader(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    resources = {"io_manager": backend.io_manager}
    assert dg.materialize([one], instance=instance, resources=resources).success
    with hold(backend.path, "read", 60) as other:
        assert dg.materialize([one, reader], instance=instance, resources=resources, selection="reader").success
        other.kill()


@OF_ITS_FILE
def test_reads_go_on_in_a_process_that_holds_the_file_for_writing(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    resources = {"io_manager": backend.io_manager}
    with duckdb.connect(backend.path):
        assert dg.materialize([one, reader], instance=instance, resources=resources).success


@OF_ITS_FILE
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


def test_a_table_that_is_not_there_is_named(backend: Backend) -> None:
    for _ in range(2):
        with pytest.raises(sb.TableNotFoundError, match="Materialize"):
            dg.materialize([one, reader], resources={"io_manager": backend.io_manager}, selection="reader")
        backend.change("CREATE TABLE IF NOT EXISTS other (a INTEGER)")


@OF_ITS_FILE
def test_values_are_loaded_outside_of_runs(
    backend: DuckDBBackend, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE", backend.path)

    @dg.asset(partitions_def=DAYS, metadata=BY_DAY)
    def a(context) -> pd.DataFrame:
        return frame([context.partition_key])

    manager = sb.RangeDuckDBIOManager(database=dg.EnvVar("WAREHOUSE"), schema="main")
    defs = dg.Definitions(assets=[a], resources={"io_manager": manager})
    job = defs.resolve_implicit_global_asset_job_def()
    for key in ("2024-01-01", "2024-01-02"):
        assert job.execute_in_process(partition_key=key, instance=instance).success
    loaded = defs.load_asset_value("a", partition_key="2024-01-02", instance=instance)
    assert list(loaded["day"].dt.day) == [2]
    loaded = defs.load_asset_value("a", partition_key="2024-01-01", python_type=pl.DataFrame, instance=instance)
    assert isinstance(loaded, pl.DataFrame)
    assert loaded["day"].dt.day().to_list() == [1]


def test_an_in_memory_database_is_refused() -> None:
    with pytest.raises(sb.ConfigurationError, match="Give the path of a file"):
        dg.materialize([one], resources={"io_manager": sb.RangeDuckDBIOManager(database=":memory:")})


def test_a_range_with_excluded_days_leaves_their_rows_alone(backend: Backend, instance: dg.DagsterInstance) -> None:
    workdays = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01", exclusions=["0 0 * * 6", "0 0 * * 0"])
    backend.change(
        "CREATE TABLE a (day TIMESTAMP, n BIGINT)",
        "INSERT INTO a VALUES ('2024-01-06', 100), ('2024-01-05', 200)",
    )

    @dg.asset(partitions_def=workdays, metadata=BY_DAY, backfill_policy=sb.single_run())
    def a(context) -> pd.DataFrame:
        return frame(list(context.partition_keys))

    assert run_range([a], "2024-01-05", "2024-01-08", io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT n FROM a ORDER BY day") == [(0,), (100,), (1,)]


def test_a_plain_asset_gains_columns_and_keeps_the_latest_of_a_key(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    frames = [
        pd.DataFrame({"day": pd.to_datetime(["2024-01-01"] * 2), "id": [1, 2], "seen": [1, 1]}),
        pd.DataFrame(
            {"day": pd.to_datetime(["2024-01-02"] * 3), "id": [1, 1, 2], "seen": [1, 2, 1], "extra": [5, 6, 7]}
        ),
    ]

    @dg.asset(
        partitions_def=DAYS,
        metadata={
            "partition_expr": "day",
            "unique_key": ["day", "id"],
            "on_schema_change": "add_columns",
            "column_defaults": {"extra": "0"},
            "keep_latest": "seen",
        },
    )
    def seen() -> pd.DataFrame:
        return frames.pop(0)

    for key in ("2024-01-01", "2024-01-02"):
        assert run_key([seen], key, io_manager=io_manager, instance=instance).success
    assert read("SELECT id, seen, extra FROM seen ORDER BY day, id") == [(1, 1, 0), (2, 1, 0), (1, 2, 6), (2, 1, 7)]


def test_a_plain_asset_can_not_reshape_its_table(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day", "on_schema_change": "sync"})
    def seen() -> pd.DataFrame:
        return pd.DataFrame({"day": pd.to_datetime(["2024-01-01"])})

    result = run_key([seen], "2024-01-01", io_manager=io_manager, instance=instance)
    assert 'only @wap_asset(publish="swap") does' in failure_of(result, "seen")
