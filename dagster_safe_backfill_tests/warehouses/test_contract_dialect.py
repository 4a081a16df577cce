"""What `Dialect` promises, on every warehouse."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pytest
from sqlglot import exp

from dagster_safe_backfill.model.slices import PartitionColumn, PartitionSlice, TableSlice, TimeDimension, TimeWindow
from dagster_safe_backfill.model.tables import Column, TableRef, TableSpec
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.fingerprints import known_hash
from dagster_safe_backfill.sql.slicing import positioned
from dagster_safe_backfill.warehouses.base import Warehouse
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.warehouses.contract import (
    T,
    all_of,
    fill,
    numbers,
    rows_of_table,
)

pytestmark = pytest.mark.every_warehouse


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
        ("ENUM('a')", "ENUM('a')", "text"),
        ("DECIMAL(10,2)", "DECIMAL(10,2)", "other"),
        ('"NULL"', None, "other"),
    ],
)
@pytest.mark.only("duckdb", reason="of DuckDB's types; those of Snowflake are in snowflake/test_types.py")
def test_what_types_become_and_keep(source: str, created: str | None, keeps: str, warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        assert session.dialect.created_as(source) == created
        assert session.dialect.keeps(source) == keeps


def test_rows_that_differ_hash_apart(warehouse: Warehouse) -> None:
    values = [(1, "a"), (1, "b"), (2, "a"), (None, "a"), (1, None), (None, None), (0, ""), (None, "")]
    with warehouse.connect() as session:
        rows = pa.table({"a": [a for a, _ in values], "b": [b for _, b in values]})
        row_hash = session.dialect.row_hash([terms.column("a"), terms.column("b")])
        with session.load(rows) as source:
            hashes = [row[0] for row in session.query(exp.select(row_hash).from_(source))]
        assert len(set(hashes)) == len(values)
        assert all(isinstance(one, int) and one >= 0 for one in hashes)


def test_the_known_values_hash_alike_in_every_session(warehouse: Warehouse) -> None:
    select = exp.select(known_hash(warehouse.dialect))
    found: list[int] = []
    for _ in range(2):
        with warehouse.connect() as session:
            ((known,),) = session.query(select)
            found.append(known)
    assert found[0] == found[1] >= 0
    others = [exp.Literal.number(2), *map(exp.var, warehouse.dialect.known_values[1:])]
    with warehouse.connect() as session:
        ((other,),) = session.query(exp.select(warehouse.dialect.row_hash(others)))
    assert other != found[0]


@pytest.mark.only("duckdb", reason="Snowflake has one version, and the emulator another hash")
def test_the_hash_of_duckdb_is_the_one_that_ledgers_of_format_1_and_2_have(warehouse: Warehouse) -> None:
    with warehouse.connect() as session:
        ((known,),) = session.query(exp.select(known_hash(warehouse.dialect)))
    assert f"duckdb-{known:x}" == "duckdb-cd8b2ff7722b9471"


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
                sql=name,
                type_name=kinds[name],
                keeps=session.dialect.keeps(kinds[name]),
                timezone="UTC",
                dialect=session.dialect,
            )
            for name, dimension in zip(names, dimensions, strict=True)
        }
        spec = TableSpec(
            table=T, partition_expr={dimension.name: name for name, dimension in zip(names, dimensions, strict=True)}
        )
        table_slice = TableSlice(spec=spec, partition_slice=partitions, columns=columns)
        select = positioned(rows_of_table(T), [terms.column("x")], table_slice)
        found = {moment.hour: position for moment, position in session.query(select)}
    assert found == {0: 0, 1: 1, 2: None, 3: 2, 4: None, 5: None}
