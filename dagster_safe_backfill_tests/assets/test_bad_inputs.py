"""Every bad input has its own error, which names table and finding, and leaves the live table as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_key, run_range
from dagster_safe_backfill_tests.harness.backends import DuckDBBackend

DAY = "2024-01-02"
LIVE = "SELECT rowid, * FROM events ORDER BY rowid"


def good() -> pd.DataFrame:
    """Return three rows of the day, as the live table's columns want them."""
    return pd.DataFrame({"day": pd.to_datetime([DAY] * 3).as_unit("us"), "id": [1, 2, 3], "value": [1.0, 2.0, 3.0]})


@dataclass(frozen=True)
class Case:
    """What is computed, how the asset is declared, and what must come of it."""

    name: str
    rows: Callable[[], object]
    error: type[sb.SafeBackfillError]
    says: str
    options: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("extra column", lambda: good().assign(more=1), sb.SchemaMismatchError, "more is not in the table"),
    Case("missing column", lambda: good().drop(columns="value"), sb.SchemaMismatchError, "value is missing"),
    Case(
        "renamed column", lambda: good().rename(columns={"value": "v"}), sb.SchemaMismatchError, "v is not in the table"
    ),
    Case("the library's column", lambda: good().assign(_sb_partition=0), sb.SchemaMismatchError, "begins with _sb_"),
    Case(
        "no column for the time of the write",
        good,
        sb.SchemaMismatchError,
        "changed, the updated_at_column, is not in the table",
        {"updated_at_column": "changed"},
    ),
    Case("text for a number", lambda: good().assign(value="x"), sb.SchemaMismatchError, "value is VARCHAR, but DOUBLE"),
    Case("number for a time", lambda: good().assign(day=1), sb.SchemaMismatchError, "day is BIGINT, but TIMESTAMP"),
    Case("fraction for an integer", lambda: good().assign(id=[1.5, 2, 3]), sb.SchemaMismatchError, "1 values of id"),
    Case("a number too large", lambda: good().assign(id=[1e30, 2, 3]), sb.SchemaMismatchError, "1 values of id"),
    Case(
        "nanoseconds for microseconds",
        lambda: good().assign(day=pd.to_datetime([f"{DAY} 00:00:00.000000001"] * 3)),
        sb.SchemaMismatchError,
        "3 values of day",
    ),
    Case("no rows and no columns", pd.DataFrame, sb.EmptyFrameError, 'set on_empty="allow"'),
    Case("no rows", lambda: good()[:0], sb.EmptyFrameError, f"no rows were computed for {DAY}"),
    Case(
        "rows of another day",
        lambda: good().assign(day=pd.to_datetime(["2024-01-03", DAY, DAY]).as_unit("us")),
        sb.RowsOutsideSliceError,
        "1 of the computed rows belong to none of 2024-01-02 by day (found 2024-01-03 00:00:00)",
    ),
    Case(
        "rows of no day",
        lambda: good().assign(day=pd.to_datetime([None, DAY, DAY]).as_unit("us")),
        sb.RowsOutsideSliceError,
        "1 of the computed rows",
    ),
    Case("NULL key", lambda: good().assign(id=[None, 2, 3]), sb.KeyViolationError, "1 of the computed rows"),
    Case("duplicate key", lambda: good().assign(id=[2, 2, 3]), sb.KeyViolationError, "2 of the computed rows"),
    Case(
        "key of another day's live row",
        good,
        sb.KeyViolationError,
        "3 of the computed rows",
        {"unique_key": ["id"]},
    ),
    Case("duplicate column", lambda: pd.concat([good(), good()[["id"]]], axis=1), sb.SchemaMismatchError, "id"),
    Case(
        "texts and numbers in a column",
        lambda: good().assign(value=[1, "x", 2.0]),
        sb.SchemaMismatchError,
        "can't be read as an Arrow table",
    ),
    Case("no frame", lambda: 5, sb.ConfigurationError, "a int is neither a frame"),
    Case("a column of a frame", lambda: good()["id"], sb.ConfigurationError, "a Series is neither a frame"),
    Case("None", lambda: None, sb.ConfigurationError, "None"),
    Case("complex numbers", lambda: good().assign(value=1j), sb.SchemaMismatchError, "value"),
    Case("an integer of 70 bits", lambda: good().assign(id=[2**70, 2, 3]), sb.SchemaMismatchError, "1 values of id"),
    Case(
        "a sparse column",
        lambda: good().assign(id=pd.arrays.SparseArray([0, 1, 0])),
        sb.SchemaMismatchError,
        "id",
    ),
    Case(
        "objects of Python in a polars frame",
        lambda: pl.from_pandas(good()).with_columns(pl.Series("value", [object()] * 3, dtype=pl.Object)),
        sb.SchemaMismatchError,
        "value holds Python objects",
    ),
    Case(
        "a type that the warehouse lacks",
        lambda: pa.table({**good(), "value": pa.array(np.ones(3, dtype="float16"))}),
        sb.SchemaMismatchError,
        "value",
    ),
    Case(
        "missing partition column",
        good,
        sb.PartitionColumnError,
        "partition_expr names no_such_day, which the table doesn't have. Its columns are day, id, value",
        {"partition_expr": "no_such_day"},
    ),
    Case(
        "partition expression of another type",
        good,
        sb.PartitionColumnError,
        "the partition column is BIGINT",
        {"partition_expr": "id"},
    ),
    Case(
        "partition expression that is more",
        good,
        sb.ConfigurationError,
        "partition_expr is not one SQL expression",
        {"partition_expr": "day; DROP TABLE events"},
    ),
    Case(
        "partition expression that is two",
        good,
        sb.ConfigurationError,
        "partition_expr is not one SQL expression: 'day, id'",
        {"partition_expr": "day, id"},
    ),
    Case(
        "partition expression that closes a bracket",
        good,
        sb.ConfigurationError,
        "partition_expr is not a SQL expression",
        {"partition_expr": "day) OR (1 = 1"},
    ),
    Case(
        "partition expression of every column",
        good,
        sb.ConfigurationError,
        "partition_expr is not one SQL expression",
        {"partition_expr": "*"},
    ),
    Case(
        "partition expression over many rows",
        good,
        sb.WarehouseError,
        "aggregates",
        {"partition_expr": "max(day)"},
    ),
    Case("no such time zone", good, sb.ConfigurationError, "Mars/One", {"column_timezone": "Mars/One"}),
    Case(
        "key of a missing column",
        good,
        sb.ConfigurationError,
        "unique_key names nope, which the table doesn't have",
        {"unique_key": ["nope"]},
    ),
    Case("two statements", lambda: sb.Query("SELECT 1; DROP TABLE events"), sb.ConfigurationError, "SELECT and DROP"),
    Case("no select", lambda: sb.Query("DROP TABLE events"), sb.ConfigurationError, "not DROP"),
    Case("no statement", lambda: sb.Query("-- none"), sb.ConfigurationError, "not nothing"),
    Case("no text", lambda: sb.Query(" "), sb.ConfigurationError, "not nothing"),
    Case("no SQL", lambda: sb.Query("SELEC 1"), sb.WarehouseError, "SELEC"),
    Case(
        "a query that deletes within",
        lambda: sb.Query("WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone"),
        sb.WarehouseError,
        "DELETE",
    ),
    Case(
        "a query that breaks at a row",
        lambda: sb.Query("SELECT day, CAST(concat('x', id) AS BIGINT) AS id, value FROM events"),
        sb.WarehouseError,
        "Could not convert string 'x",
    ),
    Case("query of a missing table", lambda: sb.Query("SELECT * FROM nope"), sb.TableNotFoundError, "nope"),
]


def plain_asset(case: Case) -> dg.AssetsDefinition:
    metadata = {"partition_expr": "day", "unique_key": ["day", "id"], **case.options}

    @dg.asset(partitions_def=DAYS, metadata=metadata)
    def events() -> Any:
        return case.rows()

    return events


def wap_asset(case: Case) -> dg.AssetsDefinition:
    options: dict[str, Any] = {"partition_expr": "day", "unique_key": ["day", "id"], **case.options}
    of_table = {name: options.pop(name) for name in [*options] if name not in ("partition_expr", "unique_key")}

    @sb.wap_asset(partitions_def=DAYS, table=sb.TableOptions(**of_table), **options)
    def events() -> Any:
        return case.rows()

    return events


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """One for all, as only the warehouse is looked at, and a new one takes longer than a run."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def filled(backend: DuckDBBackend) -> DuckDBBackend:
    """Return a backend whose live table holds three days."""
    backend.read("CREATE TABLE events (day TIMESTAMP, id BIGINT, value DOUBLE)")
    backend.read(
        "INSERT INTO events SELECT make_timestamp(2024, 1, d, 0, 0, 0), i, i FROM range(1, 4) d (d), range(1, 4) i (i)"
    )
    return backend


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it, the first cause last."""
    return [error, *(chain(error.__cause__) if error.__cause__ else [])]


def errors_of(
    make: Callable[[Case], dg.AssetsDefinition], case: Case, *, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> dict[type[BaseException], str]:
    """Return the messages of all errors that the definition or a run of the day ends in, by their exact class."""
    try:
        run_key([make(case)], DAY, io_manager=backend.io_manager, instance=instance, raise_on_error=True)
    except Exception as error:
        return {type(found): str(found) for found in chain(error)}
    return {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_is_refused_before_anything_is_deleted(
    case: Case, filled: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    before = filled.read(LIVE)
    errors = errors_of(plain_asset, case, backend=filled, instance=instance)
    assert filled.read(LIVE) == before
    assert case.error in errors, errors
    assert case.says in errors[case.error]
    assert "main.events" in errors[case.error]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wap_asset_refuses_it_too(case: Case, filled: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    before = filled.read(LIVE)
    # What is wrong with a key is the audit unique()'s to say.
    by_audit = case.error is sb.KeyViolationError
    error, says = (sb.AuditFailedError, "unique_key") if by_audit else (case.error, case.says)
    errors = errors_of(wap_asset, case, backend=filled, instance=instance)
    assert filled.read(LIVE) == before
    assert error in errors, errors
    assert says in errors[error]
    if not by_audit:
        assert not filled.read("SELECT * FROM information_schema.tables WHERE table_name LIKE '%shadow%'")


ALTERATIONS = {
    "ALTER TABLE events DROP COLUMN value": "value is not in the table",
    "ALTER TABLE events ADD COLUMN extra INTEGER": "extra is missing",
    "ALTER TABLE events RENAME COLUMN value TO worth": "worth is missing",
    "ALTER TABLE events ALTER COLUMN value TYPE VARCHAR": "value is DOUBLE, but VARCHAR in the table",
}


@pytest.mark.parametrize(("alteration", "says"), ALTERATIONS.items(), ids=ALTERATIONS)
@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_a_table_changed_by_hand_is_not_written(
    make: Callable[[Case], dg.AssetsDefinition],
    alteration: str,
    says: str,
    filled: DuckDBBackend,
    instance: dg.DagsterInstance,
) -> None:
    filled.read(alteration)
    before = filled.read(LIVE)
    case = Case("good", good, sb.SchemaMismatchError, says)
    result = run_key([make(case)], DAY, io_manager=filled.io_manager, instance=instance)
    assert says in failure_of(result, "events")
    assert filled.read(LIVE) == before


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
@pytest.mark.parametrize("rows", [pd.DataFrame, lambda: good()[:0]], ids=["no columns", "columns"])
def test_an_empty_frame_empties_the_slice_where_that_is_allowed(
    make: Callable[[Case], dg.AssetsDefinition],
    rows: Callable[[], pd.DataFrame],
    filled: DuckDBBackend,
    instance: dg.DagsterInstance,
) -> None:
    case = Case("empty", rows, sb.EmptyFrameError, "", {"on_empty": "allow"})
    assert run_key([make(case)], DAY, io_manager=filled.io_manager, instance=instance).success
    assert filled.read("SELECT strftime(day, '%d'), count(*) FROM events GROUP BY 1 ORDER BY 1") == [
        ("01", 3),
        ("03", 3),
    ]


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_a_frame_without_columns_makes_no_table(
    make: Callable[[Case], dg.AssetsDefinition], backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    case = Case("empty", pd.DataFrame, sb.EmptyFrameError, "", {"on_empty": "allow"})
    result = run_key([make(case)], DAY, io_manager=backend.io_manager, instance=instance)
    assert "the table doesn't exist yet, so its columns aren't known" in failure_of(result, "events")


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_a_field_of_a_struct_tells_the_partition(
    make: Callable[[Case], dg.AssetsDefinition], backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    def rows() -> sb.Query:
        return sb.Query(f"SELECT i AS id, {{day: DATE '{DAY}', i: i}} AS payload FROM range(3) r (i)")

    case = Case("struct", rows, sb.PartitionColumnError, "", {"partition_expr": "payload.day", "unique_key": ["id"]})
    for _ in range(2):
        assert run_key([make(case)], DAY, io_manager=backend.io_manager, instance=instance).success
    assert backend.read("SELECT count(*), min(payload.day) FROM events") == [(3, date(2024, 1, 2))]


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_texts_go_into_columns_of_json_and_uuids_if_they_are_such(
    make: Callable[[Case], dg.AssetsDefinition], backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    backend.read("CREATE TABLE events (day DATE, id UUID, body JSON)")
    ids = ["00000000-0000-0000-0000-00000000000a", "not one"]

    def rows() -> pd.DataFrame:
        return pd.DataFrame({"day": [date(2024, 1, 2)], "id": ids[:1], "body": ['{"a": 1}']})

    case = Case(
        "texts", rows, sb.SchemaMismatchError, "1 values of id (VARCHAR) don't fit UUID", {"unique_key": ["id"]}
    )
    assert run_key([make(case)], DAY, io_manager=backend.io_manager, instance=instance).success
    ids.pop(0)
    assert case.says in failure_of(
        run_key([make(case)], DAY, io_manager=backend.io_manager, instance=instance), "events"
    )
    assert backend.read("SELECT CAST(id AS TEXT), body FROM events") == [
        ("00000000-0000-0000-0000-00000000000a", '{"a": 1}')
    ]


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_rows_outside_the_slice_are_left_out_where_that_is_asked(
    make: Callable[[Case], dg.AssetsDefinition], filled: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    def rows() -> pd.DataFrame:
        return good().assign(day=pd.to_datetime(["2024-01-03", DAY, None]).as_unit("us"), value=9.0)

    case = Case("outside", rows, sb.RowsOutsideSliceError, "", {"on_outside": "drop"})
    assert run_key([make(case)], DAY, io_manager=filled.io_manager, instance=instance).success
    assert filled.read("SELECT count(*), count(*) FILTER (value = 9) FROM events") == [(3 + 1 + 3, 1)]


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_a_new_table_needs_to_know_its_types(
    make: Callable[[Case], dg.AssetsDefinition], backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    case = Case("untyped", lambda: good().assign(value=None), sb.SchemaMismatchError, "value has only NULL values")
    result = run_key([make(case)], DAY, io_manager=backend.io_manager, instance=instance)
    assert case.says in failure_of(result, "events")


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_a_column_of_only_nulls_fits_a_table_of_any_type(
    make: Callable[[Case], dg.AssetsDefinition], filled: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    case = Case("nulls", lambda: good().assign(value=None), sb.SchemaMismatchError, "")
    assert run_key([make(case)], DAY, io_manager=filled.io_manager, instance=instance).success
    assert filled.read("SELECT count(value) FROM events") == [(6,)]


def test_keys_and_columns_with_quotes_are_only_names(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    keys = ["it's", 'say "hi"', "a; DROP TABLE events", "ünï—code"]

    @sb.wap_asset(
        partitions_def=dg.StaticPartitionsDefinition(keys),
        partition_expr='"the ""key"""',
        unique_key=['the "key"'],
        audits=[sb.not_null('the "key"')],
        backfill_policy=sb.single_run(),
        key="odd 'table'".replace(" ", "_").replace("'", ""),
    )
    def odd(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return pd.DataFrame({'the "key"': list(partitions.keys), "n": 1})

    for _ in range(2):
        result = run_range([odd], keys[0], keys[-1], io_manager=backend.io_manager, instance=instance)
        assert result.success
    assert run_key([odd], keys[2], io_manager=backend.io_manager, instance=instance).success
    assert {key for (key,) in backend.read('SELECT "the ""key""" FROM odd_table')} == set(keys)


@pytest.mark.parametrize(
    ("definition", "key", "rows", "says"),
    [
        (
            dg.HourlyPartitionsDefinition("2024-01-01-00:00"),
            "2024-01-01-05:00",
            pa.table({"day": pa.array([date(2024, 1, 1)])}),
            "a partition starts or ends within a day, at 2024-01-01T05:00:00",
        ),
        (
            dg.HourlyPartitionsDefinition("2024-11-01-00:00", timezone="America/New_York"),
            "2024-11-03-01:00",
            pd.DataFrame({"day": pd.to_datetime(["2024-11-03 01:30"])}),
            "in an hour that occurs twice in",
        ),
    ],
    ids=["hours of a DATE", "wall-clock times of a DST night"],
)
def test_a_column_that_cannot_tell_the_partitions_is_refused(
    definition: Any, key: str, rows: Any, says: str, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=definition, metadata={"partition_expr": "day"})
    def events() -> Any:
        return rows

    result = run_key([events], key, io_manager=backend.io_manager, instance=instance)
    assert says in failure_of(result, "events")
    assert not backend.read("SELECT * FROM information_schema.tables WHERE table_name = 'events'")


@pytest.mark.parametrize("make", [plain_asset, wap_asset])
def test_a_reversed_range_is_an_error_before_any_work(
    make: Callable[[Case], dg.AssetsDefinition], filled: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    before = filled.read(LIVE)
    calls: list[int] = []
    case = Case("counted", lambda: calls.append(1) or good(), sb.EmptySliceError, "put the earlier key first")
    result = run_range([make(case)], "2024-01-09", "2024-01-02", io_manager=filled.io_manager, instance=instance)
    assert case.says in failure_of(result, "events")
    assert filled.read(LIVE) == before
    assert calls == ([] if make is wap_asset else [1]), "a plain asset's function runs before its I/O manager does"


def test_a_slice_needs_a_partition_expr(filled: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    before = filled.read(LIVE)
    case = Case("none", good, sb.ConfigurationError, "no partition_expr", {"partition_expr": None})
    result = run_key([plain_asset(case)], DAY, io_manager=filled.io_manager, instance=instance)
    assert "main.events: the asset has partitions, but no partition_expr" in failure_of(result, "events")
    assert filled.read(LIVE) == before


@pytest.mark.parametrize("expr", [{"day": "day"}, "day"], ids=["for one of two", "for none in particular"])
def test_each_dimension_needs_a_partition_expr(expr: Any, filled: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    before = filled.read(LIVE)
    regions = dg.StaticPartitionsDefinition(["eu", "us"])

    @dg.asset(
        partitions_def=dg.MultiPartitionsDefinition({"day": DAYS, "region": regions}), metadata={"partition_expr": expr}
    )
    def events() -> pd.DataFrame:
        return good()

    result = run_key([events], f"{DAY}|eu", io_manager=filled.io_manager, instance=instance)
    assert "main.events: the asset has partitions, but no partition_expr for its dimension" in failure_of(
        result, "events"
    )
    assert filled.read(LIVE) == before


LOSSES: list[tuple[str, Any]] = [
    ("TINYINT", 300),
    ("UBIGINT", -1),
    ("UHUGEINT", 1.5),
    ("BIGINT", float("nan")),
    ("DOUBLE", 2**53 + 1),
    ("FLOAT", 0.1),
    ("DECIMAL(10,2)", 1.005),
    ("DATE", datetime.fromisoformat("2024-01-02T05:00")),
    ("TIMESTAMP_S", datetime.fromisoformat("2024-01-02T00:00:00.000001")),
    ("TIMESTAMP_NS", datetime.fromisoformat("3000-01-01T00:00")),
    ("ENUM('p', 'q')", "r"),
]


@pytest.mark.parametrize(("kind", "value"), LOSSES, ids=[kind for kind, _ in LOSSES])
def test_no_value_is_changed_to_fit(
    kind: str, value: object, backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    backend.read(f"CREATE TABLE events (x {kind})")

    @dg.asset
    def events() -> pa.Table:
        return pa.table({"x": [value]})

    with pytest.raises(sb.SchemaMismatchError, match=r"main\.events: (1 )?values of x .*don't fit"):
        dg.materialize([events], instance=instance, resources={"io_manager": backend.io_manager})
    assert backend.read(LIVE) == []


@pytest.mark.parametrize(
    "rows",
    [
        lambda: good().rename(columns={"value": "ID"}),
        lambda: sb.Query(f"SELECT TIMESTAMP '{DAY}' AS day, 1 AS id, 2 AS id"),
        lambda: good().assign(value=[[], [], []]),
        lambda: good().assign(value=[{"a": None}] * 3),
    ],
    ids=["names that differ by case", "a query with a name twice", "empty lists", "structs of nothing"],
)
def test_a_new_table_is_not_made_of_what_it_could_not_take_again(
    rows: Callable[[], object], backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    """Silently renamed columns, and columns of no type, are mistakes that stay."""
    case = Case("new", rows, sb.SchemaMismatchError, "")
    errors = errors_of(plain_asset, case, backend=backend, instance=instance)
    assert "main.events" in errors.get(sb.SchemaMismatchError, ""), errors
    assert not backend.read("SELECT * FROM information_schema.tables WHERE table_name = 'events'")


def test_empty_lists_fit_a_column_of_lists(backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    """They say no more about the type than NULL does."""
    backend.read("CREATE TABLE events (x BIGINT[])")

    @dg.asset
    def events() -> pd.DataFrame:
        return pd.DataFrame({"x": [[], None]})

    assert dg.materialize([events], instance=instance, resources={"io_manager": backend.io_manager}).success
    assert backend.read("SELECT x FROM events ORDER BY x NULLS LAST") == [([],), (None,)]


def test_keys_that_the_column_cannot_tell_apart_write_no_row_twice(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    keys = dg.StaticPartitionsDefinition(["1", "01"])

    @dg.asset(partitions_def=keys, metadata={"partition_expr": "n"}, backfill_policy=sb.single_run())
    def events() -> pd.DataFrame:
        return pd.DataFrame({"n": [1], "value": ["only once"]})

    result = run_range([events], "1", "01", io_manager=backend.io_manager, instance=instance)
    assert "n" in failure_of(result, "events")
    assert not backend.read("SELECT * FROM information_schema.tables WHERE table_name = 'events'")


@pytest.mark.parametrize("key", ["it's", 'say "hi"', "a; DROP TABLE odd"], ids=["'", '"', ";"])
def test_a_plain_asset_takes_odd_keys_too(key: str, backend: DuckDBBackend, instance: dg.DagsterInstance) -> None:
    keys = dg.StaticPartitionsDefinition([key, "other"])
    metadata = {"partition_expr": '"the ""key"""', "unique_key": 'the "key"'}
    loaded: list[pd.DataFrame] = []

    @dg.asset(partitions_def=keys, metadata=metadata)
    def odd(context) -> pd.DataFrame:
        return pd.DataFrame({'the "key"': [context.partition_key], "it's": 1})

    @dg.asset(partitions_def=keys)
    def reader(odd: pd.DataFrame) -> None:
        loaded.append(odd)

    for chosen in ("other", key, key):
        assert run_key([odd, reader], chosen, io_manager=backend.io_manager, instance=instance).success
    assert sorted(backend.read("SELECT * FROM odd")) == sorted([("other", 1), (key, 1)])
    assert [list(found['the "key"']) for found in loaded] == [["other"], [key], [key]]


@pytest.mark.parametrize(
    "expression", ["now()", "random()", "'2024-01-01'", "CURRENT_DATE", "DATE '2024-01-01' + 1", "1"]
)
@pytest.mark.parametrize("is_staged", [False, True], ids=["wap_asset", "staged"])
def test_a_partition_expression_that_names_no_column_is_refused_before_anything_is_computed(
    backend: DuckDBBackend, instance: dg.DagsterInstance, expression: str, is_staged: bool
) -> None:
    calls: list[object] = []

    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        calls.append(partitions)
        return good()

    options: dict[str, Any] = {"partitions_def": DAYS, "partition_expr": expression}
    asset = sb.build_staged_wap_assets(events, **options).shadow if is_staged else sb.wap_asset(**options)(events)
    result = run_key([asset], DAY, io_manager=backend.io_manager, instance=instance)
    assert not result.success
    message = failure_of(result, asset.op.name)
    assert f"main.events: partition_expr {expression} names no column" in message
    assert 'partition_expr="a_column"' in message
    assert calls == []


def test_a_partition_expression_of_a_dimension_that_names_no_column_is_refused(
    backend: DuckDBBackend, instance: dg.DagsterInstance
) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "shop": dg.StaticPartitionsDefinition(["a"])})

    @sb.wap_asset(partitions_def=both, partition_expr={"day": "day", "shop": "'a'"})
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return good()

    key = dg.MultiPartitionKey({"day": DAY, "shop": "a"})
    result = run_key([events], key, io_manager=backend.io_manager, instance=instance)
    assert "partition_expr 'a' names no column" in failure_of(result, "events")


@pytest.mark.parametrize("expression", ["day", '"day"', "date_trunc('day', day)", "CAST(day AS DATE)"])
def test_a_partition_expression_that_names_a_column_is_accepted(
    backend: DuckDBBackend, instance: dg.DagsterInstance, expression: str
) -> None:
    @sb.wap_asset(partitions_def=DAYS, partition_expr=expression)
    def events(partitions: sb.PartitionSlice) -> pd.DataFrame:
        return good()

    assert run_key([events], DAY, io_manager=backend.io_manager, instance=instance).success
