"""No value is altered on its way in or out, and nothing is refused without need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from dagster_duckdb_pandas import DuckDBPandasIOManager

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, metadata_by_partition, run_key, run_range
from dagster_safe_backfill_tests.harness.backends import DuckDBBackend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES

DAY = "2024-01-02"
NOON = datetime(2024, 1, 2, 12)  # noqa: DTZ001 - the point
UTC_NOON = NOON.replace(tzinfo=timezone.utc)
NANO = "2024-01-02 00:00:00.000000001"


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def written(backend: DuckDBBackend, data: object, **metadata: Any) -> None:
    """Write data to the table `x` by a plain asset."""

    @dg.asset(metadata=metadata)
    def x() -> Any:
        return data

    dg.materialize([x], resources={"io_manager": backend.io_manager})


# --- Point 5: what pandas, numpy, polars and pyarrow hold that the column can't ---


def column(*values: object) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(values, dtype=object)})


MIXED: list[tuple[str, list[object], tuple[str, str]]] = [
    ("dates and timestamps", [date(2024, 1, 1), NOON], ("a date", "a timestamp without a time zone")),
    ("naive and aware", [NOON, UTC_NOON], ("a timestamp without a time zone", "a timestamp with a time zone")),
    ("dates and aware", [date(2024, 1, 1), UTC_NOON], ("a date", "a timestamp with a time zone")),
    ("dates and pandas", [date(2024, 1, 1), pd.Timestamp(NOON)], ("a date", "a timestamp without a time zone")),
    ("dates and numpy", [date(2024, 1, 1), np.datetime64(NOON)], ("a date", "a timestamp without a time zone")),
    ("texts and bytes", ["a", b"a"], ("a text", "bytes")),
    ("booleans and numbers", [True, 2], ("a boolean", "an integer")),
    ("numbers and texts", [1, "1"], ("an integer", "a text")),
    ("decimals and floats", [Decimal(1), 1.5], ("a decimal", "a float")),
    ("times and timestamps", [time(1), NOON], ("a time", "a timestamp without a time zone")),
    ("lists and dictionaries", [[1], {"a": 1}], ("a list", "a dictionary")),
    ("dates and timestamps in lists", [[date(2024, 1, 1)], [NOON]], ("a date", "a timestamp without a time zone")),
    (
        "dates and timestamps in dictionaries",
        [{"a": date(2024, 1, 1)}, {"a": NOON}],
        ("a date", "a timestamp without a time zone"),
    ),
]


@pytest.mark.parametrize("is_reversed", [False, True], ids=["", "reversed"])
@pytest.mark.parametrize(("values", "kinds"), [case[1:] for case in MIXED], ids=[case[0] for case in MIXED])
def test_values_without_a_common_type_are_refused_with_both_rows(
    values: list[Any], kinds: tuple[str, str], is_reversed: bool, backend: DuckDBBackend
) -> None:
    # In rows that aren't neighbours, with missing values between.
    frame = column(None, values[0], values[0], np.nan, values[1])
    first, second = kinds
    if is_reversed:
        frame = frame[::-1]
        second, first = kinds
    rows = (0, 2) if is_reversed else (1, 4)
    with pytest.raises(sb.SchemaMismatchError) as caught:
        written(backend, frame)
    message = str(caught.value)
    assert "main.x: the column x can't be read as an Arrow table" in message
    assert f"{first} in row {rows[0]} " in message
    assert f"{second} in row {rows[1]} " in message
    assert not backend.read("SELECT * FROM information_schema.tables WHERE table_name = 'x'")


REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("pandas durations", lambda: pd.DataFrame({"x": pd.to_timedelta([1_000, 1], "ns")}), "in row 1 (1 nanoseconds)"),
    ("durations among objects", lambda: column(timedelta(1), pd.Timedelta(1, "ns")), "in row 1 (1 nanoseconds)"),
    ("polars durations", lambda: pl.DataFrame({"x": pl.Series([1_001], dtype=pl.Duration("ns"))}), "row 0 (1001 nanos"),
    ("durations in lists", lambda: pa.table({"x": pa.array([[1]], pa.list_(pa.duration("ns")))}), "finer than a micro"),
    (
        "intervals of nanoseconds",
        lambda: pa.table({"x": pa.array([pa.MonthDayNano([1, 0, 1])])}),
        "finer than a microsecond",
    ),
    ("long durations", lambda: pa.table({"x": pa.array([2**62], pa.duration("s"))}), "more than 292,000 years"),
    ("periods", lambda: pd.DataFrame({"x": pd.period_range("2024-01", periods=2, freq="M")}), "period[M]"),
    (
        "periods as categories",
        lambda: pd.DataFrame({"x": pd.Categorical(pd.period_range("2024", periods=2))}),
        "period[",
    ),
    ("a period among objects", lambda: column(None, pd.Period("2024-01")), "a period in row 1"),
    ("intervals of numbers", lambda: pd.DataFrame({"x": pd.interval_range(0, 2)}), "interval[int64, right]"),
    ("times with a zone", lambda: column(time(1, tzinfo=timezone.utc)), "a time with a time zone in row 0"),
    (
        "extension types",
        lambda: pa.table({"x": pa.array(pd.period_range("2024", periods=1))}),
        "which no warehouse keeps",
    ),
    ("keys of dictionaries", lambda: column({1: 2}), "whose key 1 is a int"),
    ("decimals of too many digits", lambda: column(Decimal("1e-20"), Decimal("1e30")), "in row 1 (1E+30)"),
    ("integers of too many digits", lambda: column(1, 10**40), "needs more than 38 digits"),
    (
        "dictionaries with other keys",
        lambda: column({"a": 1}, None, {"a": 1, "b": 2}),
        "in rows 0 and 2: that in row 0 has no 'b'",
    ),
    (
        "dictionaries with fewer keys",
        lambda: column({"a": 1, "b": 2}, {"b": 2}),
        "in rows 0 and 1: that in row 1 has no 'a'",
    ),
    ("an empty dictionary", lambda: column({"a": 1}, {}), "that in row 1 has no 'a'"),
    ("other keys in lists", lambda: column([{"a": 1}], [{"b": 2}]), "different keys in rows 0 and 1"),
    ("a number as a label", lambda: pd.DataFrame({"x": [1], 7: [2]}), "column 2 of the frame has the label 7, a int"),
    ("None as a label", lambda: pd.DataFrame({None: [1]}), "column 1 of the frame has the label None, a NoneType"),
    ("a tuple as a label", lambda: pd.DataFrame({("a", "b"): [1]}), "has the label ('a', 'b'), a tuple"),
    ("a day as a label", lambda: pd.DataFrame({date(2024, 1, 2): [1]}), "a date"),
    ("a column without a name", lambda: pd.DataFrame({"x": [1], "": [2]}), "column 2 of the frame has an empty name"),
    ("a column without a name, of polars", lambda: pl.DataFrame({"": [2]}), "column 1 of the frame has an empty name"),
]


@pytest.mark.parametrize(("make", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_no_column_can_hold_is_refused_by_name(
    make: Callable[[], object], says: str, backend: DuckDBBackend
) -> None:
    with pytest.raises(sb.SchemaMismatchError, match=r"main\.x: ") as caught:
        written(backend, make())
    assert says in str(caught.value)
    assert "column" in str(caught.value)
    assert not backend.read("SELECT * FROM information_schema.tables WHERE table_name = 'x'")


def _masked(values: list[Any]) -> Any:
    """Return two values, of which the second one is masked."""
    return np.ma.masked_array(values, [False, True])


KEPT: list[tuple[str, Callable[[], object], str, list[object]]] = [
    ("nanoseconds among objects", lambda: column(NOON, pd.Timestamp(NANO)), "TIMESTAMP_NS", [f"{NOON}", NANO]),
    ("masked arrays", lambda: column(_masked([1, 2]), [3, None]), "BIGINT[]", ["[1, NULL]", "[3, NULL]"]),
    ("masked times", lambda: column(_masked([np.datetime64(NOON)] * 2)), "TIMESTAMP[]", [f"['{NOON}', NULL]"]),
    ("arrays of numpy", lambda: column(np.array([1, 2], dtype="int32")), "INTEGER[]", ["[1, 2]"]),
    ("masked", lambda: pd.DataFrame({"x": pd.array([2**60 + 1, None], "Int64")}), "BIGINT", [f"{2**60 + 1}", None]),
    ("UUIDs in lists", lambda: column([UUID(int=1)]), "VARCHAR[]", ["[00000000-0000-0000-0000-000000000001]"]),
    ("large integers", lambda: column(2**70, None), "DECIMAL(38,0)", [str(2**70), None]),
    ("unsigned integers", lambda: column(2**64 - 1, None), "UBIGINT", [str(2**64 - 1), None]),
    ("decimals", lambda: column(Decimal("1.10"), Decimal("22.5")), "DECIMAL(38,2)", ["1.10", "22.50"]),
    ("categories of dates", lambda: pd.DataFrame({"x": pd.Categorical([date(2024, 1, 2)])}), "DATE", [DAY]),
    ("categories of polars", lambda: pl.DataFrame({"x": ["b", None]}, {"x": pl.Categorical}), "VARCHAR", ["b", None]),
    ("whole microseconds", lambda: pd.DataFrame({"x": pd.to_timedelta(["1us"])}), "INTERVAL", ["00:00:00.000001"]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "values"), [case[1:] for case in KEPT], ids=[case[0] for case in KEPT])
def test_what_a_column_can_hold_is_kept(
    make: Callable[[], object], kind: str, values: list[object], backend: DuckDBBackend
) -> None:
    for _ in range(2):
        written(backend, make())
        assert backend.read("SELECT CAST(x AS VARCHAR), typeof(x) FROM x") == [(value, kind) for value in values]


# --- Point 6: a named index ---


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a"], name="shop"),
        pd.RangeIndex(1, name="shop"),
        pd.MultiIndex.from_tuples([("a", 1)], names=["shop", None]),
    ],
    ids=["texts", "a range", "one level of two"],
)
def test_a_named_index_is_refused(index: pd.Index[Any], backend: DuckDBBackend) -> None:
    with pytest.raises(sb.SchemaMismatchError, match=r"main\.x: the frame has shop in its index.*reset_index\(\)"):
        written(backend, pd.DataFrame({"x": [1]}, index=index))


def test_an_index_that_is_also_a_column_is_dropped_by_the_user(backend: DuckDBBackend) -> None:
    frame = pd.DataFrame({"shop": ["a"]}).set_index("shop", drop=False)
    with pytest.raises(sb.SchemaMismatchError, match=r"reset_index\(drop=True\)"):
        written(backend, frame)
    written(backend, frame.reset_index(drop=True))
    assert backend.read("SELECT * FROM x") == [("a",)]


def test_a_nameless_index_is_left_out(backend: DuckDBBackend) -> None:
    written(backend, pd.DataFrame({"x": [1, 2]}, index=[7, 8]))
    assert backend.read("SELECT * FROM x") == [(1,), (2,)]


# --- Point 11 and 13: types that differ, where no value does ---

FITS: list[tuple[str, Callable[[], object], str, object]] = [
    ("INTEGER[]", lambda: column([1, 2]), "[1, 2]", [2**40]),
    ("INTEGER[2]", lambda: column([1, 2]), "[1, 2]", [1, 2, 3]),
    ("STRUCT(a INTEGER)", lambda: column({"a": 1}), "{'a': 1}", {"a": 2**40}),
    ("STRUCT(a STRUCT(b TINYINT)[])", lambda: column({"a": [{"b": 1}]}), "{'a': [{'b': 1}]}", {"a": [{"b": 300}]}),
    ("DATE[]", lambda: column([np.datetime64(DAY, "us")]), "[2024-01-02]", [np.datetime64(NOON, "us")]),
    ("DECIMAL(4,2)[]", lambda: column([Decimal("1.5")]), "[1.50]", [Decimal("1.555")]),
    ("HUGEINT", lambda: column(2**70), str(2**70), None),
    ("TIME", lambda: pl.DataFrame({"x": [time(1, 2, 3, 4)]}), "01:02:03.000004", None),
    ("TIME[]", lambda: pl.DataFrame({"x": [[time(1)]]}), "['01:00:00']", None),
    ("BIT", lambda: column("0101"), "0101", "012"),
    ("TIMETZ", lambda: column("12:00:00+02"), "12:00:00+02", "noon"),
]


@pytest.mark.parametrize(("kind", "make", "shown", "other"), FITS, ids=[case[0] for case in FITS])
def test_values_go_into_another_type_that_holds_them(
    kind: str, make: Callable[[], object], shown: str, other: object, backend: DuckDBBackend
) -> None:
    backend.change(f"CREATE TABLE x (x {kind})")
    for _ in range(2):
        written(backend, make())
        assert backend.read("SELECT CAST(x AS VARCHAR) FROM x") == [(shown,)]
    if other is not None:
        with pytest.raises(sb.SchemaMismatchError, match=r"main\.x: 1 values of x .* don't fit .*for example"):
            written(backend, column(other))
        assert backend.read("SELECT CAST(x AS VARCHAR) FROM x") == [(shown,)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("STRUCT(a INTEGER, b INTEGER)", {"a": 1}), ("STRUCT(a INTEGER)", {"a": 1, "b": 2}), ("INTEGER[]", {"a": 1})],
)
def test_a_struct_of_other_fields_is_refused(kind: str, value: object, backend: DuckDBBackend) -> None:
    backend.change(f"CREATE TABLE x (x {kind})")
    with pytest.raises(sb.SchemaMismatchError, match=r"main\.x: .*x is STRUCT.*, but"):
        written(backend, column(value))


def test_a_time_of_nanoseconds_does_not_fit_one_of_microseconds(backend: DuckDBBackend) -> None:
    backend.change("CREATE TABLE x (x TIME)")
    with pytest.raises(sb.SchemaMismatchError, match="1 values of x"):
        written(backend, pl.DataFrame({"x": pl.Series([1], dtype=pl.Time)}))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"n": [], "moment": [], "items": []}),
        pd.DataFrame({"n": [1.5], "moment": ["x"], "items": [1]})[:0],
        pl.DataFrame({"n": [], "moment": [], "items": []}),
        pl.DataFrame({"n": ["x"], "MOMENT": [1], "items": [True]}).clear(),
    ],
    ids=["pandas", "other types", "polars", "other types, of polars"],
)
def test_an_empty_frame_has_no_types_to_differ(frame: Any, backend: DuckDBBackend) -> None:
    backend.change(
        "CREATE TABLE x (n INTEGER, moment TIMESTAMP, items INTEGER[])", "INSERT INTO x VALUES (1, now(), [1])"
    )
    written(backend, frame, on_empty="allow")
    assert backend.read("SELECT * FROM x") == []
    with pytest.raises(sb.SchemaMismatchError, match="moment is missing"):
        written(backend, frame[["n", "items"]], on_empty="allow")


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"n": ["x"]})[:0], pl.DataFrame({"n": [b"x"]}).clear(), sb.Query("SELECT 'x' AS n LIMIT 0")]
)
def test_an_empty_frame_that_is_refused_is_refused_for_its_rows(frame: object, backend: DuckDBBackend) -> None:
    backend.change("CREATE TABLE x (n INTEGER, m DATE)", "INSERT INTO x VALUES (1, NULL)")
    with pytest.raises(sb.EmptyFrameError, match=r"main\.x: no rows were computed"):
        written(backend, frame)
    assert backend.read("SELECT * FROM x") == [(1, None)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BIGINT", pa.array([1.0, -0.0])),
        ("DECIMAL(9,2)", pa.array([1.5, -0.0])),
        ("UTINYINT", pa.array([-0.0, 1.0], pa.float32())),
        ("BIGINT[]", pa.array([[1.0], [0.0, -0.0]])),
        ("STRUCT(a BIGINT)", pa.array([{"a": 1.0}, {"a": -0.0}])),
    ],
)
def test_a_negative_zero_does_not_become_another_zero(kind: str, values: Any, backend: DuckDBBackend) -> None:
    backend.change(f"CREATE TABLE x (n {kind})")
    with pytest.raises(sb.SchemaMismatchError, match=r"1 values of n .* don't fit .* -0\.0"):
        written(backend, pa.table({"n": values}))
    assert backend.read("SELECT * FROM x") == []


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
def test_a_negative_zero_goes_into_another_float(kind: str, backend: DuckDBBackend) -> None:
    backend.change(f"CREATE TABLE x (n {kind})")
    for values in (pa.array([-0.0, 0.5]), pa.array([-0.0, 0.5], pa.float32())):
        written(backend, pa.table({"n": values}))
        assert backend.read("SELECT n, signbit(n) FROM x ORDER BY n") == [(-0.0, True), (0.5, False)]


def test_the_types_of_a_query_stay(backend: DuckDBBackend) -> None:
    query = sb.Query("SELECT 'a'::ENUM('b', 'a') AS e, TIMESTAMP_S '2024-01-02' AS s, 1.5::DECIMAL(4,2) AS d")
    for _ in range(2):
        written(backend, query)
    kinds = ("ENUM('b', 'a')", "TIMESTAMP_S", "DECIMAL(4,2)")
    assert backend.read("SELECT typeof(e), typeof(s), typeof(d) FROM x") == [kinds]


def test_instants_of_nanoseconds_are_told_with_partition_and_example(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    instants = [pd.Timestamp(DAY, tz="UTC")]

    @sb.wap_asset(partitions_def=DAYS, partition_expr="day")
    def x() -> pd.DataFrame:
        return pd.DataFrame({"day": [date(2024, 1, 2)], "instant": instants})

    instants[0] = pd.Timestamp(NANO, tz="UTC")
    message = failure_of(run_key([x], DAY, io_manager=backend.io_manager, instance=instance), "x")
    if duckdb.__version__.startswith("1."):
        # These versions have no type for such times, so the frame is refused before they see it.
        expected = ["main.x: the column instant has a time with a time zone in row 0 (", "Round it"]
    else:
        expected = [
            "main.x: 1 values of instant (TIMESTAMPTZ_NS) don't fit TIMESTAMP WITH TIME ZONE unchanged",
            "for example instant: 2024-01-02 00:00:00.000000001+00 where day is 2024-01-02",
            "round or convert them",
        ]
    assert [text for text in expected if text not in message] == []
    instants[0] = pd.Timestamp(NOON, tz="UTC")
    assert run_key([x], DAY, io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT typeof(instant), epoch_us(instant) FROM x") == [
        ("TIMESTAMP WITH TIME ZONE", int(UTC_NOON.timestamp()) * 10**6)
    ]


# --- Point 14: new tables ---


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "list of polars", "struct of pyarrow"])
def test_a_new_column_takes_finer_times_later(unit: Any, library: str, backend: DuckDBBackend) -> None:
    def frame(moment: datetime, unit: Any) -> Any:
        times = pa.array([moment], pa.timestamp(unit))
        match library:
            case "pandas":
                return pd.DataFrame({"x": pd.Series([moment]).astype(f"datetime64[{unit}]")})
            case "polars":
                kind = pl.Datetime("us" if unit == "s" else unit)
                return pl.DataFrame({"x": pl.Series([moment], dtype=kind)})
            case "list of polars":
                return pl.DataFrame({"x": [[moment]]}, schema={"x": pl.List(pl.Datetime("ms"))})
            case "pyarrow":
                return pa.table({"x": times})
            case _:
                return pa.table({"x": pa.StructArray.from_arrays([times], ["at"])})

    written(backend, frame(NOON, unit))
    finer = NOON.replace(microsecond=1)
    fine = pl.DataFrame({"x": [[finer]]}) if library.startswith("list") else frame(finer, "us")
    written(backend, fine)
    ((shown, kind),) = backend.read("SELECT CAST(x AS VARCHAR), typeof(x) FROM x")
    assert "12:00:00.000001" in shown
    assert "TIMESTAMP_" not in kind


def test_times_that_microseconds_cannot_reach_stay_as_they_are(backend: DuckDBBackend) -> None:
    far = pa.table({"x": pa.array([10**13], pa.timestamp("s"))})
    written(backend, far)
    assert backend.read("SELECT typeof(x) FROM x") == [("TIMESTAMP_S",)]


# --- Point 2, end to end: the identity, by each strategy, again and back ---

EVERY = """
    DATE '2024-01-02' AS day, i AS id, CASE WHEN i = 1 THEN 9007199254740993 END AS whole,
    CASE WHEN i = 1 THEN 1234567890123456.78::DECIMAL(18,2) END AS exact, [i, NULL] AS items,
    [TIMESTAMP '2024-01-02 12:00:00', NULL] AS times, CASE WHEN i = 1 THEN 'nan'::DOUBLE END AS part,
    {'a': i, 'b': NULL::VARCHAR} AS pair, MAP {'k': i} AS named, TIME_NS '12:00:00.000000001' AS at,
    NULL::TIMESTAMP_S AS second, '0101'::BIT AS flags
"""
SHOWN = "SELECT COLUMNS(*)::VARCHAR FROM {} ORDER BY id"


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.Table], ids=["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_identity_changes_nothing(
    strategy: Strategy, library: type, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    for name in ("source", "x"):
        backend.change(
            f"CREATE TABLE {name} AS SELECT {EVERY} FROM range(1, 4)::INTEGER r (i)".replace("::INTEGER", "")
        )
    backend.change(
        "UPDATE x SET exact = 1, items = [7], named = MAP {'l': 1} WHERE id < 3", "DELETE FROM x WHERE id = 3"
    )
    before = backend.read(SHOWN.format("x"))

    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day"})
    def source() -> None: ...

    def identity(source: Any) -> Any:
        return source

    identity.__annotations__["source"] = library
    key: dict[str, Any] = {} if strategy == "replace" else {"unique_key": ["day", "id"]}
    x = sb.wap_asset(partitions_def=DAYS, partition_expr="day", publish=strategy, name="x", **key)(identity)
    resources = {"io_manager": backend.io_manager}
    publications: list[str] = []
    for n in range(2):
        result = dg.materialize([source, x], selection=[x], partition_key=DAY, instance=instance, resources=resources)
        assert result.success
        assert backend.read(SHOWN.format("x")) == backend.read(SHOWN.format("source"))
        told = metadata_by_partition(result, "x")[DAY]
        publications.append(told["publication_id"])
        if n and strategy != "replace":
            assert (told["rows_updated"], told["rows_inserted"], told["rows_deleted"]) == (0, 0, 0)
    for publication in reversed(publications):
        config = {"ops": {"rollback_x_op": {"config": {"publication_id": publication}}}}
        job = sb.build_rollback_job(x)
        assert job.execute_in_process(run_config=config, resources=resources, instance=instance).success
    assert backend.read(SHOWN.format("x")) == before


# --- Point 13: in place of Dagster's own I/O manager, on its files ---


def every_kind() -> pd.DataFrame:
    """Return what a pandas frame may hold, two rows each."""
    moment = pd.Series(pd.to_datetime(["2024-07-01 12:00", None]))
    return pd.DataFrame(
        {
            "whole": [1, 2],
            "small": pd.Series([1, 255], dtype="uint8"),
            "nullable": pd.array([2**62 + 1, None], "Int64"),
            "part": [1.5, None],
            "single": pd.Series([1.5, 0.1], dtype="float32"),
            "flag": [True, False],
            "flags": pd.array([True, None], "boolean"),
            "text": ["it's", None],
            "string": pd.array(["a", None], "string"),
            "arrow": pd.array(["a", None], "string[pyarrow]"),
            "category": pd.Categorical(["a", None]),
            "bytes": [b"a", None],
            "moment": moment,
            "second": moment.astype("datetime64[s]"),
            "milli": moment.astype("datetime64[ms]"),
            "micro": moment.astype("datetime64[us]"),
            "instant": moment.dt.tz_localize("America/New_York"),
            "instant_us": moment.dt.tz_localize("UTC").astype("datetime64[us, UTC]"),
            "lasting": pd.to_timedelta(["1h", None]),
            "date": [date(2024, 1, 1), None],
            "time": [time(5, 6), None],
            "datetime": pd.Series([NOON, None], dtype=object),
            "exact": [Decimal("1.10"), Decimal("22.5")],
            "uuid": [UUID(int=1), None],
            "list": [[1, 2], None],
            "texts": [["a"], []],
            "lists": [[[1]], [[2, 3]]],
            "array": [np.array([1.5, 2.5]), None],
            "dictionary": [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
            "nested": [{"a": [1]}, {"a": [2]}],
        }
    )


@pytest.mark.parametrize("name", [*every_kind()])
def test_a_column_of_dagsters_files_goes_on(name: str, backend: DuckDBBackend) -> None:
    """The same frame, and then what was read of it, into the table that their I/O manager made."""

    @dg.asset
    def x() -> pd.DataFrame:
        return every_kind()[[name]].assign(i=[1, 2])

    @dg.asset
    def y(x: pd.DataFrame) -> None:
        frames.append(x)

    @dg.asset(name="x")
    def again() -> pd.DataFrame:
        return frames[0]

    frames: list[pd.DataFrame] = []
    assert dg.materialize(
        [x], resources={"io_manager": DuckDBPandasIOManager(database=backend.path, schema="main")}
    ).success
    theirs = backend.read("SELECT COLUMNS(*)::VARCHAR, typeof(COLUMNS(*)) FROM x ORDER BY i")
    for assets in ([x, y], [again]):
        assert dg.materialize(assets, resources={"io_manager": backend.io_manager}).success
        assert backend.read("SELECT COLUMNS(*)::VARCHAR, typeof(COLUMNS(*)) FROM x ORDER BY i") == theirs


@pytest.mark.parametrize("key", [None, "2022-01-01"], ids=["whole", "partition"])
def test_the_metadata_of_dagsters_io_manager_is_on_our_events(key: str | None, tmp_path: Path) -> None:
    days = dg.DailyPartitionsDefinition("2022-01-01") if key else None

    @dg.asset(partitions_def=days, metadata={"partition_expr": "day"} if key else {})
    def x() -> pd.DataFrame:
        return pd.DataFrame({"day": pd.to_datetime(["2022-01-01"]), "n": [1]})

    told: list[dict[str, Any]] = []
    for name, manager in (("ours", sb.RangeDuckDBIOManager), ("theirs", DuckDBPandasIOManager)):
        path = str(tmp_path / f"{name}.duckdb")
        resources = {"io_manager": manager(database=path, schema="s")}
        result = dg.materialize([x], resources=resources, partition_key=key)
        (event,) = result.asset_materializations_for_node("x")
        told.append({one: value.value for one, value in event.metadata.items()})
        assert told[-1]["dagster/table_name"] == f"{path}.s.x"
        with duckdb.connect(path) as connection:
            assert connection.execute(told[-1]["Query"]).fetchall() == [(datetime.fromisoformat("2022-01-01"), 1)]
    ours, theirs = told
    assert set(theirs) <= set(ours)
    for one in set(theirs) - {"dagster/table_name", "Query"}:
        assert ours[one] == theirs[one], one


@pytest.mark.parametrize(
    "frame",
    [pl.DataFrame({"n": [1]}), pl.LazyFrame({"n": [1]}), pa.table({"n": [1]})],
    ids=["polars", "lazy", "pyarrow"],
)
def test_the_columns_of_any_frame_are_on_the_event(frame: Any, backend: DuckDBBackend) -> None:
    @dg.asset
    def x() -> Any:
        return frame

    result = dg.materialize([x], resources={"io_manager": backend.io_manager})
    (event,) = result.asset_materializations_for_node("x")
    schema = event.metadata["dataframe_columns"].value
    assert isinstance(schema, dg.TableSchema)
    assert [(one.name, one.type.lower()) for one in schema.columns] == [("n", "int64")]


def test_a_wap_assets_events_name_the_database(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr="day")
    def x() -> pd.DataFrame:
        return pd.DataFrame({"day": [date(2024, 1, 2)]})

    result = run_key([x], DAY, io_manager=backend.io_manager, instance=instance)
    told = metadata_by_partition(result, "x")[DAY]
    assert told["dagster/table_name"] == f"{backend.path}.main.x"
    assert told["dagster/storage_kind"] == "duckdb"


@pytest.mark.parametrize("batches", [None, sb.Batches(size=2, publish_each=True)], ids=["one", "batches"])
def test_the_columns_and_the_query_are_on_a_wap_assets_last_event(
    batches: sb.Batches | None, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    @sb.wap_asset(
        partitions_def=DAYS, partition_expr="day", backfill_policy=sb.single_run(), batches=batches or sb.Batches()
    )
    def x(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return pd.DataFrame({"day": [date.fromisoformat(key) for key in partitions.keys], "n": 1})

    keys = DAYS.get_partition_keys()[:4]
    told = metadata_by_partition(
        run_range([x], keys[0], keys[3], io_manager=backend.io_manager, instance=instance), "x"
    )
    ends = [keys[1], keys[3]] if batches else [keys[3]]
    assert [key for key in keys if "Query" in told[key]] == ends
    assert [key for key in keys if "dataframe_columns" in told[key]] == ends
    schema = told[keys[3]]["dataframe_columns"]
    assert [(one.name, one.type) for one in schema.columns] == [("day", "object"), ("n", "int64")]
    read = [row for key in ends for row in backend.read(told[key]["Query"])]
    assert sorted(read) == [(date.fromisoformat(key), 1) for key in keys]


def test_a_query_has_no_frame_on_its_event(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr="day")
    def x() -> sb.Query:
        return sb.Query(f"SELECT DATE '{DAY}' AS day")

    told = metadata_by_partition(run_key([x], DAY, io_manager=backend.io_manager, instance=instance), "x")[DAY]
    assert backend.read(told["Query"]) == [(date.fromisoformat(DAY),)]
    assert "dataframe_columns" not in told
