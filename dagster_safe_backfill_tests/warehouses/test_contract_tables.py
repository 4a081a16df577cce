"""What `Tables` promises, on every warehouse."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import datetime, timezone
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Warehouse
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.warehouses.contract import (
    ASIDE,
    VARCHAR,
    T,
    added,
    all_of,
    fill,
    inserted,
    numbers,
    rows_of_table,
)

pytestmark = pytest.mark.every_warehouse

IS_BEFORE_2 = duckdb.__version__.startswith("1.")
"""DuckDB 1.x, which Python 3.10 gets."""


@pytest.mark.differs("snowflake", reason="a frame's columns are Snowflake's unquoted ones: Zed is ZED")
def test_columns_come_in_order_without_regard_to_case(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        with session.load(pa.table({"Zed": [1], "a b": ["x"], "it's": [1.5]})) as source:
            session.tables.create(T, exp.select("*").from_(source), kind="live")
        found = session.tables.columns(TableRef(schema="MAIN", name="T"))
        assert [column.name for column in found or ()] == ["Zed", "a b", "it's"]
        assert session.describe(all_of("t")) == found
        assert session.tables.columns(TableRef(schema="main", name="none")) is None


@pytest.mark.differs("snowflake", reason="all of its integers are NUMBER(38,0)")
def test_columns_are_typed_values(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        fill(session)
        assert session.tables.columns(T) == (Column(name="a", type="BIGINT"),)


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


@pytest.mark.differs("snowflake", reason="the names of tables are in upper case, and are shown in lower")
def test_tables_are_found_by_their_prefix(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        for name in ("T__shadow_b", "t__shadow_a", "t", "tt__shadow_c"):
            fill(session, name)
        assert [table.name for table in session.tables.list("main", "t__shadow_")] == ["T__shadow_b", "t__shadow_a"]
        assert session.tables.list("nowhere", "t") == ()


def test_tables_of_one_name_are_found_in_all_schemas(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        for schema in ("a", "b"):
            session.tables.ensure_schema(schema)
            session.tables.ensure_table(TableRef(schema=schema, name="Here"), {"x": "BIGINT"})
        session.tables.ensure_table(TableRef(schema="b", name="here_not"), {"x": "BIGINT"})
        assert [(table.schema, table.name.lower()) for table in session.tables.find("here")] == [
            ("a", "here"),
            ("b", "here"),
        ]
        assert session.tables.find("nowhere") == ()


def test_columns_are_added_with_what_their_rows_have(warehouse: Warehouse, read: Read) -> None:
    with warehouse.connect() as session:
        fill(session)
        added = {Column(name="it's", type="INTEGER"): terms.number(7), Column(name="c", type="VARCHAR"): None}
        session.tables.add_columns(T, added)
        assert [column.name for column in session.tables.columns(T) or ()] == ["a", "it's", "c"]
    assert read("FROM t ORDER BY a") == [(1, 7, None), (2, 7, None)]


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


@pytest.mark.xfail(IS_BEFORE_2, strict=True, reason="DuckDB 1.x only notices changed definitions")
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
        assert session.tables.interrupted(T) is None


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


@pytest.mark.xfail(IS_BEFORE_2, strict=True, reason="DuckDB 1.x alters no table in a transaction that changed its rows")
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
