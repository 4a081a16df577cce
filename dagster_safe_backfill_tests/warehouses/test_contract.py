"""What `warehouses/base.py` promises, on every warehouse."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.warehouses.base import STATEMENTS, Connection, Warehouse
from dagster_safe_backfill_tests.conftest import Read

pytestmark = pytest.mark.every_warehouse

T = TableRef(schema="main", name="t")


def fill(connection: Connection, name: str = "t", *values: int) -> None:
    """Create a table with one column `a`."""
    rows = pa.table({"a": list(values) or [1, 2]})
    with connection.source(rows) as source:
        select = exp.select(terms.column("a")).from_(source)
        connection.run(staging.created_as(TableRef(schema="main", name=name), select))


def all_of(name: str) -> exp.Select:
    return exp.select("*").from_(terms.table(TableRef(schema="main", name=name)))


def added(value: int) -> exp.Update:
    changed = {"a": exp.Add(this=terms.column("a"), expression=terms.number(value))}
    return exp.update(terms.table(T), changed, where=exp.true())


@pytest.mark.differs("snowflake", reason="what a transaction makes is there before, for the next to fill")
def test_a_transaction_commits(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection, connection.transaction():
        fill(connection)
    assert read("SELECT a FROM t ORDER BY a") == [(1,), (2,)]


@pytest.mark.differs("snowflake", reason="what a transaction makes is there before, for the next to fill")
def test_a_transaction_that_raises_leaves_nothing(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        with pytest.raises(RuntimeError), connection.transaction():
            fill(connection, "made")
            connection.run(exp.delete(terms.table(T)))
            raise RuntimeError
        assert connection.columns(TableRef(schema="main", name="made")) is None
    assert read("SELECT count(*) FROM t") == [(2,)]


def test_a_statement_that_fails_undoes_the_whole_transaction(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        with pytest.raises(sb.WarehouseError), connection.transaction():
            connection.run(exp.delete(terms.table(T)))
            connection.run(all_of("no_such_table"))
        assert connection.run(all_of("t")) == [(1,), (2,)], "the session goes on"
    assert read("SELECT count(*) FROM t") == [(2,)]


def test_a_swallowed_failure_cannot_be_committed(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        with pytest.raises(sb.WarehouseError), connection.transaction():
            connection.run(exp.delete(terms.table(T)))
            with pytest.raises(sb.WarehouseError):
                connection.run(exp.select(exp.cast(terms.text("x"), exp.DataType.Type.INT)))
            connection.run(all_of("t"))
    assert read("SELECT count(*) FROM t") == [(2,)]


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "beside a writer of this process"])
def test_a_read_only_session_cannot_write(warehouse: Warehouse, is_joined: bool) -> None:
    with warehouse.connect() as connection:
        fill(connection)
    outer = warehouse.connect() if is_joined else warehouse.connect(read_only=True)
    with outer, warehouse.connect(read_only=True) as connection:
        with connection.transaction():
            assert connection.run(all_of("t")) == [(1,), (2,)]
        with pytest.raises(sb.WarehouseError), connection.transaction():
            connection.run(exp.delete(terms.table(T)))


@pytest.mark.differs("snowflake", reason="a frame's columns are Snowflake's unquoted ones: Zed is ZED")
def test_columns_come_in_order_without_regard_to_case(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        with connection.source(pa.table({"Zed": [1], "a b": ["x"], "it's": [1.5]})) as source:
            connection.run(staging.created_as(T, exp.select("*").from_(source)))
        found = connection.columns(TableRef(schema="MAIN", name="T"))
        assert [column.name for column in found or ()] == ["Zed", "a b", "it's"]
        assert connection.described(all_of("t")) == found
        assert connection.columns(TableRef(schema="main", name="none")) is None


FRAMES = [
    pd.DataFrame({"a": [1, None], "b": ["x", None]}, index=[5, 6]),
    pl.DataFrame({"a": [1.0, None], "b": ["x", None]}),
    pl.LazyFrame({"a": [1.0, None], "b": ["x", None]}),
    pa.table({"a": [1.0, None], "b": ["x", None]}),
    pytest.param(
        sb.Query("SELECT * FROM (VALUES (1.0::DOUBLE, 'x'), (NULL, NULL)) AS t (a, b);"),
        marks=pytest.mark.differs("snowflake", reason="a query is no view: where it is read its text stands, for ever"),
    ),
]


@pytest.mark.parametrize(
    "data", FRAMES, ids=lambda data: f"{type(data).__module__.split('.')[0]} {type(data).__name__}"
)
def test_a_source_is_readable_within_its_block(data: Any, warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        with connection.source(data) as source:
            assert connection.run(exp.select("*").from_(source)) == [(1.0, "x"), (None, None)]
        with pytest.raises(sb.WarehouseError):
            connection.run(exp.select("*").from_(source.copy()))
        with connection.source(data) as source:
            assert len(connection.run(exp.select("*").from_(source))) == 2


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "DROP TABLE t", "INSERT INTO t VALUES (3)", "-- nothing"])
def test_a_query_is_one_select(sql: str, warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        with pytest.raises(sb.ConfigurationError, match="one SELECT"), connection.source(sb.Query(sql)):
            pass
    assert read("SELECT count(*) FROM t") == [(2,)]


def test_rows_of_python_values_are_appended(warehouse: Warehouse, read: Read) -> None:
    moment = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    rows = [(1, "it's; DROP TABLE t", None, moment), (2, None, None, moment)]
    kinds = {"n": "BIGINT", "text": "TEXT", "none": "BIGINT", "moment": "TIMESTAMPTZ"}
    with warehouse.connect() as connection:
        casts = {name: terms.typed(exp.null(), kind, dialect=connection.dialect) for name, kind in kinds.items()}
        connection.run(staging.created_as(T, exp.select(*terms.named(casts)).where(exp.false())))
        connection.append(T, list(kinds), rows)
    assert read('SELECT n, text, "none", epoch(moment) FROM t ORDER BY n') == [
        (1, "it's; DROP TABLE t", None, moment.timestamp()),
        (2, None, None, moment.timestamp()),
    ]


@pytest.mark.parametrize("load_type", [pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.Table])
def test_rows_are_fetched_as_what_is_asked(load_type: type, warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        found = connection.fetch(all_of("t"), load_type)
        assert isinstance(found, load_type)
        with pytest.raises(sb.ConfigurationError, match="can't be loaded as dict"):
            connection.fetch(all_of("t"), dict)


@pytest.mark.parametrize(
    ("source", "target", "fit"),
    [
        ("BIGINT", "BIGINT", "same"),
        ("BIGINT", "INTEGER", "if_unchanged"),
        ("DOUBLE", "DECIMAL(10,2)", "if_unchanged"),
        ("TIMESTAMP_NS", "DATE", "if_unchanged"),
        ("TIMESTAMPTZ_NS", "TIMESTAMP WITH TIME ZONE", "if_unchanged"),
        ("VARCHAR", "ENUM('a', 'b')", "if_unchanged"),
        ('"NULL"', "BLOB", "if_unchanged"),
        ("VARCHAR", "BIGINT", "never"),
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "never"),
        ("BOOLEAN", "INTEGER", "never"),
    ],
)
@pytest.mark.only("duckdb", reason="of DuckDB's types; those of Snowflake are in snowflake/test_types.py")
def test_how_types_go_into_others(source: str, target: str, fit: str, warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        assert connection.fit(source=source, target=target) == fit


@pytest.mark.parametrize(
    ("source", "created", "keeps"),
    [
        ("DATE", "DATE", "date"),
        ("TIMESTAMP_NS", "TIMESTAMP_NS", "timestamp"),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE", "timestamptz"),
        ("TIMESTAMPTZ_NS", "TIMESTAMP WITH TIME ZONE", "other"),
        ("ENUM('a')", "VARCHAR", "text"),
        ("DECIMAL(10,2)", "DECIMAL(10,2)", "other"),
        ('"NULL"', None, "other"),
    ],
)
@pytest.mark.only("duckdb", reason="of DuckDB's types; those of Snowflake are in snowflake/test_types.py")
def test_what_types_become_and_keep(source: str, created: str | None, keeps: str, warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        assert connection.created_as(source) == created
        assert connection.keeps(source) == keeps


def test_a_scratch_table_is_the_sessions_own(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection, warehouse.connect() as other:
        scratch = connection.scratch("mine")
        connection.run(staging.created_as(scratch, exp.select(exp.alias_(terms.number(1), "a")), is_scratch=True))
        select = exp.select("*").from_(terms.table(scratch))
        assert connection.run(select) == [(1,)]
        with pytest.raises(sb.TableNotFoundError):
            other.run(select)


def test_two_writers_of_the_same_row_conflict(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as first, warehouse.connect() as second:
        fill(first, "t", 1)
        with first.transaction():
            first.run(added(1))
            with pytest.raises(sb.TransactionConflictError), second.transaction():
                second.run(added(10))
    assert read("SELECT a FROM t") == [(2,)]


def test_a_missing_table_has_an_error_of_its_own(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection, pytest.raises(sb.TableNotFoundError, match=r"(?i)no_such") as caught:
        connection.run(all_of("no_such"))
    assert caught.value.__cause__ is not None


@pytest.mark.only("duckdb", reason="a Snowflake database is made by its owner, and there before")
def test_a_missing_database_is_no_empty_one(warehouse: Warehouse) -> None:
    with pytest.raises(sb.TableNotFoundError, match="materialize"), warehouse.connect(read_only=True):
        pass


@pytest.mark.differs("snowflake", reason="all of its integers are NUMBER(38,0)")
def test_columns_are_typed_values(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        assert connection.columns(T) == (Column(name="a", type="BIGINT"),)


@pytest.mark.differs("snowflake", reason="a frame takes a table, PUT and COPY INTO to be read")
def test_every_statement_is_logged(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", STATEMENTS.name), warehouse.connect() as connection:
        fill(connection)
        connection.run(all_of("t"))
    assert [record.message.split()[0] for record in caplog.records if record.name == STATEMENTS.name] == [
        "CREATE",
        "SELECT",
    ]


def test_a_reader_waits_for_a_writer_of_this_process_to_close(warehouse: Warehouse) -> None:
    """A writer can't join this process's readers; it waits until they are closed."""
    with warehouse.connect() as connection:
        fill(connection)
    opened = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with warehouse.connect(read_only=True):
            opened.set()
            done.wait(0.3)

    reader = threading.Thread(target=hold)
    reader.start()
    opened.wait()
    with warehouse.connect() as connection:
        connection.run(exp.delete(terms.table(T)))
    done.set()
    reader.join()


def test_a_held_table_is_read_as_it_was_committed(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        with connection.transaction(), connection.hold(T) as committed:
            connection.run(exp.delete(terms.table(T)))
            assert committed.run(all_of("t")) == [(1,), (2,)]
            assert connection.run(all_of("t")) == []
    assert read("SELECT count(*) FROM t") == [(0,)]


@pytest.mark.differs("snowflake", reason="what a transaction makes is there before, for the next to fill")
def test_a_table_that_is_not_there_can_be_held(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        with connection.transaction(), connection.hold(T) as committed:
            assert committed.columns(T) is None
            fill(connection)
        assert connection.run(all_of("t")) == [(1,), (2,)]


def test_only_one_transaction_holds_a_table(warehouse: Warehouse) -> None:
    with warehouse.connect() as one, warehouse.connect() as other:
        fill(one)
        with one.transaction(), one.hold(T), pytest.raises(sb.TransactionConflictError), other.transaction():
            other.hold(T).__enter__()


def test_rows_that_differ_hash_apart(warehouse: Warehouse) -> None:
    values = [(1, "a"), (1, "b"), (2, "a"), (None, "a"), (1, None), (None, None), (0, ""), (None, "")]
    with warehouse.connect() as connection:
        rows = pa.table({"a": [a for a, _ in values], "b": [b for _, b in values]})
        row_hash = connection.row_hash([terms.column("a"), terms.column("b")])
        with connection.source(rows) as source:
            hashes = [row[0] for row in connection.run(exp.select(row_hash).from_(source))]
        assert len(set(hashes)) == len(values)
        assert all(isinstance(one, int) and one >= 0 for one in hashes)
        assert ":" not in connection.hash_algorithm


@pytest.mark.differs("snowflake", reason="the names of tables are in upper case, and are shown in lower")
def test_tables_are_found_by_their_prefix(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        for name in ("T__shadow_b", "t__shadow_a", "t", "tt__shadow_c"):
            fill(connection, name)
        assert [table.name for table in connection.tables("main", "t__shadow_")] == ["T__shadow_b", "t__shadow_a"]
        assert connection.tables("nowhere", "t") == ()


def test_columns_are_added_with_what_their_rows_have(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        added = {Column(name="it's", type="INTEGER"): terms.number(7), Column(name="c", type="VARCHAR"): None}
        connection.add_columns(T, added)
        assert [column.name for column in connection.columns(T) or ()] == ["a", "it's", "c"]
    assert read("FROM t ORDER BY a") == [(1, 7, None), (2, 7, None)]


def test_a_clone_takes_a_tables_place(warehouse: Warehouse, read: Read) -> None:
    aside = TableRef(schema="main", name="aside")
    with warehouse.connect() as connection:
        fill(connection)
        with connection.transaction(), connection.cloned(T, aside=aside):
            assert connection.run(all_of("t")) == []
            assert connection.run(all_of("aside")) == [(1,), (2,)]
            connection.reshape(T, dropped=[], retyped=[Column(name="a", type="VARCHAR")], added={})
        assert connection.columns(T) == (Column(name="a", type="VARCHAR"),)


def test_a_clone_that_breaks_leaves_the_table(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as connection:
        fill(connection)
        aside = TableRef(schema="main", name="aside")
        with pytest.raises(RuntimeError), connection.transaction(), connection.cloned(T, aside=aside):
            raise RuntimeError
        assert connection.tables("main", "aside") == ()
    assert read("FROM t ORDER BY a") == [(1,), (2,)]


def test_an_archive_is_put_back_and_kept(warehouse: Warehouse, read: Read) -> None:
    archive, aside = TableRef(schema="main", name="archive"), TableRef(schema="main", name="aside")
    with warehouse.connect() as connection:
        fill(connection)
        fill(connection, "archive", 5)
        with connection.transaction():
            connection.put_back(T, archive=archive, aside=aside)
    assert read("FROM t") == read("FROM archive") == [(5,)]
    assert read("FROM aside ORDER BY a") == [(1,), (2,)]
