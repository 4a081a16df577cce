"""What `warehouses/base.py` promises, on every warehouse."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import datetime, timezone
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.slices import PartitionSlice, TimeDimension, TimeWindow
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import PartitionColumn, positioned
from dagster_safe_backfill.warehouses.base import STATEMENTS, Session, Warehouse
from dagster_safe_backfill.warehouses.frames import FrameError, NoColumnsError
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

T = TableRef(schema="main", name="t")


def fill(session: Session, name: str = "t", *values: int) -> None:
    """Create a table with one column `a`."""
    rows = pa.table({"a": list(values) or [1, 2]})
    with session.load(rows) as source:
        select = exp.select(terms.column("a")).from_(source)
        session.tables.create(TableRef(schema="main", name=name), select, kind="live")


def all_of(name: str) -> exp.Select:
    return exp.select("*").from_(terms.table(TableRef(schema="main", name=name)))


def added(value: int) -> exp.Update:
    changed = {"a": exp.Add(this=terms.column("a"), expression=terms.number(value))}
    return exp.update(terms.table(T), changed, where=exp.true())


@pytest.mark.differs("snowflake", reason="what a transaction makes is there before, for the next to fill")
def test_a_transaction_commits(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session, session.transaction():
        fill(session)
    assert read("SELECT a FROM t ORDER BY a") == [(1,), (2,)]


@pytest.mark.differs("snowflake", reason="what a transaction makes is there before, for the next to fill")
def test_a_transaction_that_raises_leaves_nothing(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(RuntimeError), session.transaction():
            fill(session, "made")
            session.execute(exp.delete(terms.table(T)))
            raise RuntimeError
        assert session.tables.columns(TableRef(schema="main", name="made")) is None
    assert read("SELECT count(*) FROM t") == [(2,)]


def test_a_statement_that_fails_undoes_the_whole_transaction(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(sb.WarehouseError), session.transaction():
            session.execute(exp.delete(terms.table(T)))
            session.query(all_of("no_such_table"))
        assert session.query(all_of("t")) == [(1,), (2,)], "the session goes on"
    assert read("SELECT count(*) FROM t") == [(2,)]


def test_a_swallowed_failure_cannot_be_committed(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(sb.WarehouseError), session.transaction():
            session.execute(exp.delete(terms.table(T)))
            with pytest.raises(sb.WarehouseError):
                session.query(exp.select(exp.cast(terms.text("x"), exp.DataType.Type.INT)))
            session.query(all_of("t"))
    assert read("SELECT count(*) FROM t") == [(2,)]


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "beside a writer of this process"])
def test_a_read_only_session_cannot_write(warehouse: Warehouse, is_joined: bool) -> None:
    with warehouse.connect() as session:
        fill(session)
    outer = warehouse.connect() if is_joined else warehouse.connect(read_only=True)
    with outer, warehouse.connect(read_only=True) as session:
        with session.transaction():
            assert session.query(all_of("t")) == [(1,), (2,)]
        with pytest.raises(sb.WarehouseError), session.transaction():
            session.execute(exp.delete(terms.table(T)))


@pytest.mark.differs("snowflake", reason="a frame's columns are Snowflake's unquoted ones: Zed is ZED")
def test_columns_come_in_order_without_regard_to_case(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        with session.load(pa.table({"Zed": [1], "a b": ["x"], "it's": [1.5]})) as source:
            session.tables.create(T, exp.select("*").from_(source), kind="live")
        found = session.tables.columns(TableRef(schema="MAIN", name="T"))
        assert [column.name for column in found or ()] == ["Zed", "a b", "it's"]
        assert session.describe(all_of("t")) == found
        assert session.tables.columns(TableRef(schema="main", name="none")) is None


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
    with warehouse.connect() as session:
        with session.load(data) as source:
            assert session.query(exp.select("*").from_(source)) == [(1.0, "x"), (None, None)]
        with pytest.raises(sb.WarehouseError):
            session.query(exp.select("*").from_(source.copy()))
        with session.load(data) as source:
            assert len(session.query(exp.select("*").from_(source))) == 2


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "DROP TABLE t", "INSERT INTO t VALUES (3)", "-- nothing"])
def test_a_query_is_one_select(sql: str, warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(sb.ConfigurationError, match="one SELECT"), session.load(sb.Query(sql)):
            pass
    assert read("SELECT count(*) FROM t") == [(2,)]


def test_rows_of_python_values_are_appended(warehouse: Warehouse, read: Read) -> None:
    moment = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    rows = [(1, "it's; DROP TABLE t", None, moment), (2, None, None, moment)]
    kinds = {"n": "BIGINT", "text": "TEXT", "none": "BIGINT", "moment": "TIMESTAMPTZ"}
    with warehouse.connect() as session:
        casts = {name: terms.typed(exp.null(), kind, dialect=session.dialect.name) for name, kind in kinds.items()}
        session.tables.create(T, exp.select(*terms.named(casts)).where(exp.false()), kind="live")
        session.append(T, list(kinds), rows)
    assert read('SELECT n, text, "none", epoch(moment) FROM t ORDER BY n') == [
        (1, "it's; DROP TABLE t", None, moment.timestamp()),
        (2, None, None, moment.timestamp()),
    ]


@pytest.mark.parametrize("load_type", [pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.Table])
def test_rows_are_fetched_as_what_is_asked(load_type: type, warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        found = session.fetch(all_of("t"), load_type)
        assert isinstance(found, load_type)
        with pytest.raises(sb.ConfigurationError, match="can't be loaded as dict"):
            session.fetch(all_of("t"), dict)


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
    with warehouse.connect() as session:
        assert session.dialect.fit(source=source, target=target) == fit


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
    with warehouse.connect() as session:
        assert session.dialect.created_as(source) == created
        assert session.dialect.keeps(source) == keeps


def test_a_scratch_table_is_the_sessions_own(warehouse: Warehouse) -> None:
    with warehouse.connect() as session, warehouse.connect() as other:
        scratch = session.scratch("mine")
        session.tables.create(scratch, exp.select(exp.alias_(terms.number(1), "a")), kind="scratch")
        select = exp.select("*").from_(terms.table(scratch))
        assert session.query(select) == [(1,)]
        with pytest.raises(sb.TableNotFoundError):
            other.query(select)


def test_two_writers_of_the_same_row_conflict(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as first, warehouse.connect() as second:
        fill(first, "t", 1)
        with first.transaction():
            first.execute(added(1))
            with pytest.raises(sb.TransactionConflictError), second.transaction():
                second.execute(added(10))
    assert read("SELECT a FROM t") == [(2,)]


def test_a_missing_table_has_an_error_of_its_own(warehouse: Warehouse) -> None:
    with warehouse.connect() as session, pytest.raises(sb.TableNotFoundError, match=r"(?i)no_such") as caught:
        session.query(all_of("no_such"))
    assert caught.value.__cause__ is not None


@pytest.mark.only("duckdb", reason="a Snowflake database is made by its owner, and there before")
def test_a_missing_database_is_no_empty_one(warehouse: Warehouse) -> None:
    with pytest.raises(sb.TableNotFoundError, match="materialize"), warehouse.connect(read_only=True):
        pass


@pytest.mark.differs("snowflake", reason="all of its integers are NUMBER(38,0)")
def test_columns_are_typed_values(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        assert session.tables.columns(T) == (Column(name="a", type="BIGINT"),)


@pytest.mark.differs("snowflake", reason="a frame takes a table, PUT and COPY INTO to be read")
def test_every_statement_is_logged(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", STATEMENTS.name), warehouse.connect() as session:
        fill(session)
        session.query(all_of("t"))
    assert [record.message.split()[0] for record in caplog.records if record.name == STATEMENTS.name] == [
        "CREATE",
        "SELECT",
    ]


def test_a_reader_waits_for_a_writer_of_this_process_to_close(warehouse: Warehouse) -> None:
    """A writer can't join this process's readers; it waits until they are closed."""
    with warehouse.connect() as session:
        fill(session)
    opened = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with warehouse.connect(read_only=True):
            opened.set()
            done.wait(0.3)

    reader = threading.Thread(target=hold)
    reader.start()
    opened.wait()
    with warehouse.connect() as session:
        session.execute(exp.delete(terms.table(T)))
    done.set()
    reader.join()


def test_a_held_table_is_read_as_it_was_committed(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with session.transaction(), session.tables.hold(T) as committed:
            session.execute(exp.delete(terms.table(T)))
            assert committed.query(all_of("t")) == [(1,), (2,)]
            assert session.query(all_of("t")) == []
    assert read("SELECT count(*) FROM t") == [(0,)]


@pytest.mark.differs("snowflake", reason="what a transaction makes is there before, for the next to fill")
def test_a_table_that_is_not_there_can_be_held(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        with session.transaction(), session.tables.hold(T) as committed:
            assert committed.tables.columns(T) is None
            fill(session)
        assert session.query(all_of("t")) == [(1,), (2,)]


def test_only_one_transaction_holds_a_table(warehouse: Warehouse) -> None:
    with warehouse.connect() as one, warehouse.connect() as other:
        fill(one)
        with one.transaction(), one.tables.hold(T), pytest.raises(sb.TransactionConflictError), other.transaction():
            other.tables.hold(T).__enter__()


def test_rows_that_differ_hash_apart(warehouse: Warehouse) -> None:
    values = [(1, "a"), (1, "b"), (2, "a"), (None, "a"), (1, None), (None, None), (0, ""), (None, "")]
    with warehouse.connect() as session:
        rows = pa.table({"a": [a for a, _ in values], "b": [b for _, b in values]})
        row_hash = session.dialect.row_hash([terms.column("a"), terms.column("b")])
        with session.load(rows) as source:
            hashes = [row[0] for row in session.query(exp.select(row_hash).from_(source))]
        assert len(set(hashes)) == len(values)
        assert all(isinstance(one, int) and one >= 0 for one in hashes)
        assert ":" not in session.dialect.hash_algorithm


@pytest.mark.differs("snowflake", reason="the names of tables are in upper case, and are shown in lower")
def test_tables_are_found_by_their_prefix(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        for name in ("T__shadow_b", "t__shadow_a", "t", "tt__shadow_c"):
            fill(session, name)
        assert [table.name for table in session.tables.list("main", "t__shadow_")] == ["T__shadow_b", "t__shadow_a"]
        assert session.tables.list("nowhere", "t") == ()


def test_columns_are_added_with_what_their_rows_have(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        added = {Column(name="it's", type="INTEGER"): terms.number(7), Column(name="c", type="VARCHAR"): None}
        session.tables.add_columns(T, added)
        assert [column.name for column in session.tables.columns(T) or ()] == ["a", "it's", "c"]
    assert read("FROM t ORDER BY a") == [(1, 7, None), (2, 7, None)]


ASIDE = TableRef(schema="main", name="aside")
VARCHAR = Column(name="a", type="VARCHAR")


def inserted(table: TableRef, *values: int) -> exp.Insert:
    rows = exp.union(*(numbers(value) for value in values), distinct=False) if len(values) > 1 else numbers(*values)
    return exp.Insert(
        this=exp.Schema(this=terms.table(table), expressions=[exp.to_identifier("a", quoted=True)]), expression=rows
    )


def numbers(value: int) -> exp.Select:
    return exp.select(*terms.named({"a": terms.number(value)}))


def test_a_clone_takes_a_tables_place(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        with session.transaction(), session.tables.replace(T, aside=ASIDE) as new:
            assert session.query(rows_of_table(new.clone)) == []
            assert session.query(rows_of_table(new.old)) == [(1,), (2,)]
            session.tables.reshape(new.clone, dropped=[], retyped=[VARCHAR], added={})
        assert session.tables.columns(T) == (VARCHAR,)
        assert session.query(all_of("aside")) == [(1,), (2,)]


def test_a_clone_has_the_rows_that_are_kept_and_gets_others(warehouse: Warehouse, read: Read) -> None:
    kept = exp.GT(this=terms.column("a"), expression=terms.number(1))
    with warehouse.connect() as session:
        fill(session)
        with session.transaction(), session.tables.replace(T, aside=ASIDE, kept=kept) as new:
            session.execute(inserted(new.clone, 7))
            assert session.query(all_of("t" if new.old == T else "aside")) == [(1,), (2,)], "the old table is as it was"
    assert read("FROM t ORDER BY a") == [(2,), (7,)]
    assert read("FROM aside ORDER BY a") == [(1,), (2,)]


def test_a_clone_is_defined_as_the_table_was(warehouse: Warehouse, backend: Backend) -> None:
    backend.change("CREATE TABLE t (a INT NOT NULL DEFAULT 5, b INT)", "COMMENT ON TABLE t IS 'it''s mine'")
    with warehouse.connect() as session:
        before = session.tables.columns(T)
        with session.transaction(), session.tables.replace(T, aside=ASIDE):
            pass
        assert session.tables.columns(T) == before
    assert backend.read("SELECT comment FROM duckdb_tables() WHERE table_name = 't'") == [("it's mine",)]
    backend.change(
        "INSERT INTO t (b) VALUES (1)" if backend.own(duckdb="x", snowflake="") else 'INSERT INTO t ("B") VALUES (1)'
    )
    assert backend.read("FROM t") == [(5, 1)]


def test_a_clone_that_breaks_leaves_the_table(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(RuntimeError), session.transaction(), session.tables.replace(T, aside=ASIDE):
            raise RuntimeError
        assert session.tables.list("main", "aside") == ()
    assert read("FROM t ORDER BY a") == [(1,), (2,)]


def test_a_swap_that_is_not_committed_leaves_the_table(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(RuntimeError), session.transaction():
            with session.tables.replace(T, aside=ASIDE) as new:
                session.execute(inserted(new.clone, 7))
            raise RuntimeError
        assert session.tables.list("main", "aside") == ()
    assert read("FROM t ORDER BY a") == [(1,), (2,)]


def test_a_table_that_another_changes_meanwhile_is_not_replaced(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session, warehouse.connect() as other:
        fill(session)
        with pytest.raises(sb.TransactionConflictError):
            with session.transaction(), session.tables.replace(T, aside=ASIDE):
                other.execute(added(10))
            pytest.fail("what the other changed is lost")
    assert read("FROM t ORDER BY a") in ([(1,), (2,)], [(11,), (12,)])


def test_an_archive_is_put_back_and_kept(warehouse: Warehouse, read: Read) -> None:
    archive = TableRef(schema="main", name="archive")
    with warehouse.connect() as session:
        fill(session)
        fill(session, "archive", 5)
        with session.transaction():
            session.tables.put_back(T, archive=archive, aside=ASIDE)
    assert read("FROM t") == read("FROM archive") == [(5,)]
    assert read("FROM aside ORDER BY a") == [(1,), (2,)]


def test_where_nothing_is_half_done_nothing_is_recovered(warehouse: Warehouse) -> None:
    def is_recorded(aside: TableRef) -> bool:
        raise AssertionError(f"nobody put {aside} aside")

    with warehouse.connect() as session:
        assert session.tables.recover(T, is_recorded=is_recorded) is None
        fill(session)
        assert session.tables.recover(T, is_recorded=is_recorded) is None


def test_what_is_recorded_first_is_committed_before_the_tables_are_made(warehouse: Warehouse, read: Read) -> None:
    """Either the record is kept though the transaction after it fails, or nothing is recorded and nothing left."""
    with warehouse.connect() as session:
        fill(session)
        recorded: list[int] = []

        def record() -> None:
            session.execute(inserted(T, 7))
            recorded.append(7)

        session.tables.record_first(record)
        with pytest.raises(RuntimeError), session.transaction():
            session.tables.create(ASIDE, numbers(1), kind="shadow")
            raise RuntimeError
        assert session.tables.columns(ASIDE) is None
    assert [a for (a,) in read("FROM t ORDER BY a")] == [1, 2, *recorded]


def test_more_rows_in_a_held_table_are_others_if_those_can_insert(warehouse: Warehouse) -> None:
    with warehouse.connect() as session, warehouse.connect() as other:
        fill(session)
        with session.transaction():
            with session.tables.hold(T):
                pass
            with suppress(sb.TransactionConflictError):
                other.execute(inserted(T, 7))
            is_seen = len(session.query(all_of("t"))) == 3
            with pytest.raises(sb.TransactionConflictError) if is_seen else nullcontext():
                session.tables.explain_more_rows(T, partitions="2024-01-01")


# Tables that are made, filled and dropped


def rows_of_table(table: TableRef) -> exp.Select:
    return exp.select("*").from_(terms.table(table))


def test_a_schema_is_made_once(warehouse: Warehouse) -> None:
    there = TableRef(schema="there", name="t")
    with warehouse.connect() as session:
        for _ in range(2):
            session.tables.ensure_schema("there")
        session.tables.create(there, numbers(1), kind="live")
        assert session.query(rows_of_table(there)) == [(1,)]
        assert session.tables.list("there", "t") == (there,)


def test_a_table_is_made_once_and_gets_the_columns_that_it_lacks(warehouse: Warehouse) -> None:
    moment = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    with warehouse.connect() as session:
        session.tables.ensure_table(T, {"n": "BIGINT"})
        session.append(T, ["n"], [(1,)])
        for _ in range(2):
            session.tables.ensure_table(T, {"n": "BIGINT", "it's": "TEXT", "moment": "TIMESTAMPTZ"})
        session.append(T, ["n", "it's", "moment"], [(2, "x", moment)])
        assert session.query(rows_of_table(T).order_by(terms.column("n"))) == [(1, None, None), (2, "x", moment)]


@pytest.mark.parametrize("kind", ["live", "shadow"])
def test_a_table_that_is_there_is_not_made_again(kind: Any, warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(sb.WarehouseError):
            session.tables.create(T, numbers(7), kind=kind)
        assert session.query(all_of("t")) == [(1,), (2,)]


def test_a_shadow_that_is_not_committed_is_not_there(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        with pytest.raises(RuntimeError), session.transaction():
            session.tables.create(ASIDE, numbers(1), kind="shadow")
            assert session.query(rows_of_table(ASIDE)) == [(1,)]
            raise RuntimeError
        assert session.tables.columns(ASIDE) is None


def test_a_dropped_name_is_free_at_once_and_a_drop_is_undone(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        session.tables.drop(T)
        fill(session)
        with pytest.raises(RuntimeError), session.transaction():
            session.tables.drop(T)
            raise RuntimeError
        assert session.query(all_of("t")) == [(1,), (2,)]
        with session.transaction():
            session.tables.drop(T)
            session.tables.create(T, numbers(7), kind="shadow")
        assert session.query(all_of("t")) == [(7,)]
        with session.transaction():
            session.tables.drop(T)
        assert session.tables.columns(T) is None


def test_a_live_table_is_made_and_filled_in_one_attempt(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:

        def work() -> str:
            with session.tables.hold(T) as committed:
                is_there = committed.tables.columns(T) is not None
            if is_there:
                session.execute(inserted(T, 7))
            else:
                session.tables.create(T, numbers(7), kind="live")
            return "done"

        assert session.attempt(work) == "done"
    assert read("FROM t") == [(7,)]


def test_no_rows_are_copied_and_then_many(warehouse: Warehouse, read: Read) -> None:
    none = numbers(1).where(exp.false())
    many = rows_of_table(ASIDE)
    with warehouse.connect() as session:
        fill(session, "aside", *range(5000))
        with session.transaction():
            session.tables.create(T, none.copy(), kind="shadow")
            session.tables.copy(none, into=T, columns=["a"])
            session.tables.copy(many, into=T, columns=["a"])
        assert session.query(exp.select(exp.Count(this=exp.Star())).from_(terms.table(T))) == [(5000,)]
    assert read("SELECT count(*) FROM t") == [(5000,)]


def test_an_archive_has_the_rows_and_is_undone_with_its_transaction(warehouse: Warehouse, read: Read) -> None:
    archive = TableRef(schema="main", name="archive")
    rows = exp.select(terms.column("a")).from_(terms.table(T)).where(terms.column("a").eq(1))
    with warehouse.connect() as session:
        fill(session)
        with pytest.raises(RuntimeError), session.transaction():
            session.tables.archive(T, archive, rows)
            raise RuntimeError
        assert session.tables.columns(archive) is None
        with session.transaction():
            session.tables.archive(T, archive, rows)
            session.execute(exp.delete(terms.table(T)))
        assert session.tables.columns(archive) == session.tables.columns(T)
    assert (1,) in read("FROM archive")
    assert read("FROM t") == []


@pytest.mark.differs("snowflake", reason="its caller has looked before `record_first`: it's what an earlier try left")
def test_an_archive_is_not_overwritten(warehouse: Warehouse, read: Read) -> None:
    archive = TableRef(schema="main", name="archive")
    with warehouse.connect() as session:
        fill(session)
        fill(session, "archive", 5)
        with pytest.raises(sb.WarehouseError):
            session.tables.archive(T, archive, rows_of_table(T))
    assert read("FROM archive") == [(5,)]


def test_columns_are_dropped_retyped_and_added(warehouse: Warehouse, backend: Backend) -> None:
    backend.change("CREATE TABLE t (a INT, b INT, c INT)")
    with warehouse.connect() as session:
        new = Column(name="d", type="VARCHAR")
        session.tables.reshape(T, dropped=["b"], retyped=[VARCHAR], added={new: None})
        assert {*(session.tables.columns(T) or ())} >= {VARCHAR, new}
        assert sorted(column.name for column in session.tables.columns(T) or ()) == ["a", "c", "d"]


def test_columns_are_added_in_an_attempt_that_has_changed_something(warehouse: Warehouse, read: Read) -> None:
    new = Column(name="b", type="VARCHAR")
    with warehouse.connect() as session:
        fill(session)

        def work() -> None:
            session.execute(added(10))
            if new not in (session.tables.columns(T) or ()):
                session.tables.add_columns(T, {new: terms.text("x")})

        session.attempt(work)
    assert read("FROM t ORDER BY a") == [(11, "x"), (12, "x")]


# Names


@pytest.mark.parametrize("length", [240, None], ids=["240", "the longest"])
def test_long_names_have_shadows_and_archives_that_are_found(length: int | None, warehouse: Warehouse) -> None:
    longest = warehouse.dialect.longest_name
    table = TableRef(schema="main", name="x" * min(length or longest, longest), longest_name=longest)
    run_id = "0c0ffee0-1234-4321-abcd-0123456789ab"
    beside = [table.shadow(run_id), *(table.shadow(run_id, batch=n) for n in (1, 12345)), table.archive(run_id)]
    assert len({one.name for one in beside}) == 4
    with warehouse.connect() as session:
        for one in (table, *beside):
            session.tables.create(one, numbers(1), kind="shadow")
        assert {*session.tables.list("main", table.shadow_prefix)} == {*beside[:3]}
        assert session.query(rows_of_table(table)) == [(1,)]
        for one in (table, *beside):
            session.tables.drop(one)
        assert session.tables.list("main", "x") == ()


# Rows in, rows out


def test_changes_tell_how_many_rows_they_changed(warehouse: Warehouse, read: Read) -> None:
    above = exp.GT(this=terms.column("a"), expression=terms.number(2))
    with warehouse.connect() as session:
        fill(session)
        assert session.execute(inserted(T, 3, 4, 5)) == 3
        assert session.execute(exp.update(terms.table(T), {"a": terms.number(9)}, where=terms.column("a").eq(1))) == 1
        assert session.execute(exp.delete(terms.table(T), where=above)) == 4
        assert session.execute(exp.delete(terms.table(T), where=above.copy())) == 0
        source = exp.union(numbers(2), numbers(7), distinct=False)
        merge = exp.Merge(
            this=terms.table(T, alias="l"),
            using=terms.subquery(source, "s"),
            on=terms.same(["a"], left="l", right="s"),
            whens=exp.Whens(
                expressions=[
                    exp.When(matched=True, then=exp.Update(expressions=[terms.column("a").eq(terms.number(20))])),
                    exp.When(
                        matched=False,
                        then=exp.Insert(
                            this=exp.Tuple(expressions=[terms.column("a")]),
                            expression=exp.Tuple(expressions=[terms.column("a", of="s")]),
                        ),
                    ),
                ]
            ),
        )
        assert session.execute(merge) == 2
    assert read("FROM t ORDER BY a") == [(7,), (20,)]


def test_rows_are_of_plain_values(warehouse: Warehouse) -> None:
    moment = "2024-01-01 12:00:00+02:00"
    items = {
        "n": exp.Count(this=exp.Star()),
        "total": exp.Sum(this=terms.column("a")),
        "moment": exp.Max(this=exp.cast(terms.text(moment), exp.DataType.Type.TIMESTAMPTZ)),
    }
    with warehouse.connect() as session:
        fill(session)
        (found,) = session.query(exp.select(*terms.named(items)).from_(terms.table(T)))
    assert found == (2, 3, datetime.fromisoformat(moment))
    assert [type(value) for value in found[:2]] == [int, int]
    assert found[2].tzinfo is not None


def test_a_select_is_described_and_not_run(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session, "t", *range(3000))
        items = {"total": exp.Sum(this=terms.column("a", of="x"))}
        assert [column.name for column in session.describe(endless(items))] == ["total"]


def endless(items: Mapping[str, exp.Expr]) -> exp.Select:
    """Return a SELECT that takes minutes, over a table of 3,000 rows."""
    select = exp.select(*terms.named(items)).from_(terms.table(T, alias="x"))
    for alias in ("y", "z"):
        on = exp.NEQ(
            this=terms.column("a", of="x"),
            expression=exp.Add(this=terms.column("a", of=alias), expression=terms.number(1)),
        )
        select = select.join(exp.Join(this=terms.table(T, alias=alias), on=on))
    return select


def test_a_statement_is_stopped_and_its_transaction_undone(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session, "t", *range(3000))
        session.cancel()
        done = threading.Event()

        def cancel() -> None:
            while not done.wait(0.3):
                session.cancel()

        thread = threading.Thread(target=cancel)
        with pytest.raises(sb.StatementCancelledError), session.transaction():
            session.execute(exp.delete(terms.table(T), where=terms.column("a").eq(1)))
            thread.start()
            session.query(endless({"total": exp.Sum(this=terms.column("a", of="x"))}))
        done.set()
        thread.join()
        assert session.query(numbers(1)) == [(1,)], "the session goes on"
    assert read("SELECT count(*) FROM t") == [(3000,)]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (pa.table([[1], [2]], ["a", "A"]), FrameError),
        (pa.table({}), NoColumnsError),
        (sb.Query("SELECT 1 AS a, 2 AS a"), FrameError),
        (5, sb.ConfigurationError),
    ],
    ids=["a name twice", "no columns", "a query with a name twice", "no frame"],
)
def test_what_cannot_be_loaded_is_refused(data: Any, error: type[Exception], warehouse: Warehouse) -> None:
    with warehouse.connect() as session, pytest.raises(error), session.load(data):
        pass


def test_a_scratch_table_ends_with_its_session(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        scratch = session.scratch("mine")
        session.tables.create(scratch, numbers(1), kind="scratch")
    with warehouse.connect() as session, pytest.raises(sb.TableNotFoundError):
        session.query(rows_of_table(scratch))


@pytest.mark.parametrize("kind", ["rows", "view"])
def test_derived_rows_are_read_until_they_are_forgotten(kind: Any, warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        with session.transaction():
            session.execute(added(10))
            for _ in range(2):
                derived = session.derive("mine", all_of("t"), kind=kind)
                assert sorted(session.query(exp.select("*").from_(terms.rows(derived)))) == [(11,), (12,)]
                session.forget(derived)
            derived = session.derive("mine", all_of("t"), kind=kind)
            session.execute(added(100))
            found = sorted(session.query(exp.select("*").from_(terms.rows(derived))))
            session.forget(derived)
        assert found in ([[(111,), (112,)]] if kind == "view" else [[(11,), (12,)], [(111,), (112,)]])


# Attempts


def test_an_attempt_is_made_anew_while_others_are_in_the_way(warehouse: Warehouse, read: Read) -> None:
    tries: list[int] = []
    with warehouse.connect() as session:
        fill(session)

        def work() -> int:
            tries.append(session.execute(added(10)))
            if len(tries) < 3:
                raise sb.TransactionConflictError("another one was first")
            return 5

        assert session.attempt(work) == 5
    assert tries == [2, 2, 2]
    assert read("FROM t ORDER BY a") == [(11,), (12,)]


def test_an_attempt_gives_up_in_the_end(warehouse: Warehouse) -> None:
    tries: list[int] = []
    with warehouse.connect() as session:
        session.conflict_timeout = 0.1

        def work() -> None:
            tries.append(1)
            raise sb.TransactionConflictError("another one was first")

        with pytest.raises(sb.TransactionConflictError):
            session.attempt(work)
    assert len(tries) > 1


# What the dialect says


def test_equal_rows_hash_alike_everywhere_and_hashes_add_up(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session, "t", *range(300))
        row_hash = session.dialect.row_hash([terms.column("a"), terms.text("x")])
        hashes = exp.select(row_hash).from_(terms.table(T)).order_by(terms.column("a"))
        here = session.query(hashes)
        assert session.query(exp.select(exp.Sum(this=row_hash.copy())).from_(terms.table(T))) == [
            (sum(one for (one,) in here),)
        ]
    with warehouse.connect() as session:
        assert session.query(hashes) == here


def test_the_widest_integer_holds_any_difference(warehouse: Warehouse) -> None:
    ends = 2**63 - 1, -(2**63 - 1)
    with warehouse.connect() as session:
        kind = session.dialect.widest_integer
        one, other = (terms.typed(terms.text(str(end)), kind, dialect=session.dialect.name) for end in ends)
        assert session.query(exp.select(exp.Sub(this=one, expression=other))) == [(2**64 - 2,)]


def test_a_list_may_be_long_and_a_select_wide(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        listed = terms.is_in(terms.column("a"), map(terms.number, range(2, terms.LONGEST_LIST + 2)))
        assert session.query(all_of("t").where(listed)) == [(2,)]
        counts = [exp.Count(this=exp.Star()) for _ in range(session.dialect.aggregates_at_once)]
        named = terms.named({f"n{i}": one for i, one in enumerate(counts)})
        assert session.query(exp.select(*named).from_(terms.table(T))) == [(2,) * len(counts)]


KINDS = {"date": "DATE", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMPTZ", "text": "TEXT", "other": "BIGINT"}


def test_types_keep_time_as_they_say_and_can_be_made_columns_of(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        items = {name: exp.cast(exp.null(), exp.DataType.build(kind)) for name, kind in KINDS.items()}
        select = exp.select(*terms.named(items))
        described = session.describe(select)
        assert {column.name: session.dialect.keeps(column.type) for column in described} == {
            name: name for name in KINDS
        }
        assert all(session.dialect.fit(source=one.type, target=one.type) == "same" for one in described)
        assert all(session.dialect.is_type(one.type, KINDS[one.name]) for one in described)
        assert not session.dialect.is_type(described[0].type, described[4].type)
        created = {one.name: session.dialect.created_as(one.type) for one in described}
        session.tables.create(T, select.where(exp.false()), kind="live")
        session.tables.add_columns(
            T, {Column(name=f"{name}2", type=kind or ""): None for name, kind in created.items()}
        )
        added = {column.name: column.type for column in session.tables.columns(T) or ()}
        assert {name: added[f"{name}2"] for name in KINDS} == created


def test_a_column_of_nothing_but_null_tells_no_type(warehouse: Warehouse) -> None:
    with warehouse.connect() as session, session.load(pa.table({"a": pa.nulls(2), "b": [1, 2]})) as source:
        none, known = session.describe(exp.select("*").from_(source))
        assert session.dialect.created_as(none.type) is None
        assert session.dialect.created_as(known.type) is not None
        assert session.dialect.fit(source=none.type, target=known.type) == "if_unchanged"


LOST = [
    ([1.0, 1.5, None], "BIGINT", 1),
    ([1, 2**40], "INTEGER", 1),
    ([2**53 + 1, 2**53], "DOUBLE", 1),
    (["x", "y"], "TEXT", 0),
    ([datetime.fromisoformat("2024-01-01T00:00"), datetime.fromisoformat("2024-01-01T05:00")], "DATE", 1),
]


@pytest.mark.parametrize(
    ("values", "target", "lost"), LOST, ids=lambda value: value if isinstance(value, str) else None
)
def test_what_a_cast_loses_is_told_before(
    values: list[Any], target: str, lost: int, warehouse: Warehouse, backend: Backend
) -> None:
    kind = backend.own(
        duckdb=target,
        snowflake={"INTEGER": "NUMBER(9,0)", "DOUBLE": "FLOAT", "BIGINT": "NUMBER(38,0)", "TEXT": "VARCHAR"}.get(
            target, target
        ),
    )
    with warehouse.connect() as session, session.load(pa.table({"a": values})) as source:
        (column,) = session.describe(exp.select("*").from_(source))
        if session.dialect.fit(source=column.type, target=kind) == "same":
            assert not lost
            return
        is_lost = session.dialect.is_lost(terms.column("a"), source=column.type, target=kind)
        assert session.query(exp.select(terms.count_where(is_lost)).from_(source)) == [(lost,)]


def test_texts_do_not_go_into_numbers(warehouse: Warehouse) -> None:
    with warehouse.connect() as session, session.load(pa.table({"a": ["x"], "b": [1]})) as source:
        text, number = session.describe(exp.select("*").from_(source))
        assert session.dialect.fit(source=text.type, target=number.type) == "never"


@pytest.mark.parametrize("zones", [1, 2], ids=["one dimension", "two"])
def test_rows_find_their_windows(zones: int, warehouse: Warehouse) -> None:
    """Windows with a gap between them, and a row at each bound."""
    hours = [datetime(2024, 1, 1, hour, tzinfo=timezone.utc) for hour in range(6)]
    windows = tuple(TimeWindow(start=hours[n], end=hours[n + 1]) for n in (0, 1, 3))
    names = ("x", "y")[:zones]
    dimensions = tuple(
        TimeDimension(windows=windows, timezone="UTC", name=name if zones > 1 else None) for name in names
    )
    partitions = PartitionSlice(keys=("a", "b", "c"), dimensions=dimensions)
    rows = pa.table({name: [hour.replace(tzinfo=None) for hour in hours] for name in names})
    with warehouse.connect() as session:
        with session.load(rows) as source:
            session.tables.create(T, exp.select("*").from_(source), kind="live")
        kinds = {column.name: column.type for column in session.tables.columns(T) or ()}
        columns = {
            dimension.name: PartitionColumn(
                name=name,
                expression=terms.column(name),
                type_name=kinds[name],
                keeps=session.dialect.keeps(kinds[name]),
                timezone="UTC",
                dialect=session.dialect,
            )
            for name, dimension in zip(names, dimensions, strict=True)
        }
        select = positioned(rows_of_table(T), [terms.column("x")], partition_slice=partitions, columns=columns)
        found = {moment.hour: position for moment, position in session.query(select)}
    assert found == {0: 0, 1: 1, 2: None, 3: 2, 4: None, 5: None}


def test_a_session_is_closed_whatever_happens_in_it(warehouse: Warehouse) -> None:
    with pytest.raises(RuntimeError), warehouse.connect() as session:
        assert session.dialect is warehouse.dialect
        raise RuntimeError
    with pytest.raises((sb.WarehouseError, sb.WarehouseUnavailableError)):
        session.query(numbers(1))
