"""What `Session` and `Warehouse` promise, on every warehouse."""

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
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.sameness import Sameness
from dagster_safe_backfill.warehouses.base import STATEMENTS, Warehouse
from dagster_safe_backfill.warehouses.frames import FrameError, NoColumnsError
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.warehouses.contract import (
    T,
    added,
    all_of,
    endless,
    fill,
    inserted,
    numbers,
    rows_of_table,
)

pytestmark = pytest.mark.every_warehouse


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
    with pytest.raises(sb.TableNotFoundError, match="Materialize an asset first"), warehouse.connect(read_only=True):
        pass


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
            on=Sameness().same(["a"], left="l", right="s"),
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


def test_a_session_is_closed_whatever_happens_in_it(warehouse: Warehouse) -> None:
    with pytest.raises(RuntimeError), warehouse.connect() as session:
        assert session.dialect is warehouse.dialect
        raise RuntimeError
    with pytest.raises((sb.WarehouseError, sb.WarehouseUnavailableError)):
        session.query(numbers(1))
