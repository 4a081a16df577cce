"""Writes and publications of random rows over random tables, against a plain dict."""

from __future__ import annotations

import logging
import math
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Strategy
from dagster_safe_backfill.model.slices import PartitionSlice, TimeDimension, TimeWindow
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

FIRST = date(2024, 1, 1)
SCHEMA = pa.schema({"day": pa.date32(), "id": pa.int64(), "value": pa.float64(), "note": pa.string()})
OP = Origin(run_id="op", publication_id="op")
LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)

Row = tuple[Any, ...]
Rows = dict[tuple[int, int], tuple[float | None, str | None]]
"""Rows by day and id."""

values = st.tuples(st.sampled_from([None, 0.0, -0.0, 1.5, math.nan]), st.sampled_from([None, "", "it's"]))
rows = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 4)), values, max_size=20)
chosen = st.sets(st.integers(0, 3), min_size=1)


def slice_of(days: Sequence[int]) -> PartitionSlice:
    start = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=timezone.utc)
    windows = tuple(TimeWindow(start=start + timedelta(days=n), end=start + timedelta(days=n + 1)) for n in days)
    return PartitionSlice(
        keys=tuple(str(FIRST + timedelta(days=n)) for n in days),
        dimensions=(TimeDimension(windows=windows, timezone="UTC"),),
    )


def frame(computed: Rows) -> pa.Table:
    found = [
        {"day": FIRST + timedelta(days=day), "id": i, "value": v, "note": t} for (day, i), (v, t) in computed.items()
    ]
    return pa.Table.from_pylist(found, SCHEMA)


def comparable(found: Sequence[Row]) -> Counter[str]:
    """Return rows as a bag, in which NaN equals NaN."""
    return Counter(map(repr, found))


def as_rows(model: Rows) -> list[Row]:
    return [(FIRST + timedelta(days=day), i, v, t) for (day, i), (v, t) in model.items()]


class Table:
    """A table `t` in a warehouse of its own, filled by hand."""

    def __init__(self, backend: Backend, *, stamped: bool) -> None:
        self._backend = backend
        self.warehouse = backend.warehouse
        self._stamped = stamped

    def fill(self, live: Sequence[Row]) -> None:
        rows = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in live], SCHEMA)
        self._backend.create("t", rows)
        if self._stamped:
            instant = self._backend.own(duckdb="TIMESTAMPTZ", snowflake="TIMESTAMP_TZ")
            self._backend.change(f"ALTER TABLE t ADD COLUMN updated_at {instant}")
            self._backend.change(f"UPDATE t SET updated_at = '{LONG_AGO}'")

    def read(self, columns: str = "day, id, value, note", where: str = "true") -> list[Row]:
        return self._backend.read(f"SELECT {columns} FROM t WHERE {where}")


def spec(*, key: tuple[str, ...] = ("day", "id"), stamped: bool = False) -> TableSpec:
    return TableSpec(
        table=TableRef(schema="main", name="t"),
        partition_expr={None: "day"},
        unique_key=key,
        updated_at_column="updated_at" if stamped else None,
        on_empty="allow",
    )


def expected_changes(live: Rows, computed: Rows, day: int) -> RowCounts:
    old = {key: repr(value) for key, value in live.items() if key[0] == day}
    new = {key: repr(value) for key, value in computed.items() if key[0] == day}
    both = old.keys() & new.keys()
    updated = sum(old[key] != new[key] for key in both)
    return RowCounts(
        staged=len(new),
        inserted=len(new) - len(both),
        updated=updated,
        deleted=len(old) - len(both),
        unchanged=len(both) - updated,
    )


def examples(count: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try a behaviour on so many examples, each on a warehouse of its own; on fewer where a statement takes long."""

    def decorated(behaviour: Callable[..., None]) -> Callable[..., None]:
        def test(backend: Backend) -> None:
            def one(**drawn: Any) -> None:
                with backend.another() as fresh:
                    behaviour(fresh, **drawn)

            most = min(count, backend.most_examples)
            settings(max_examples=most, deadline=None, derandomize=True)(given(**strategies)(one))()

        return test

    return decorated


@examples(50, live=rows, computed=rows, days=chosen, stamped=st.booleans())
def test_a_merge_is_what_a_dict_says(
    backend: Backend, live: Rows, computed: Rows, days: set[int], stamped: bool
) -> None:
    inside = {key: value for key, value in computed.items() if key[0] in days}
    model = {key: value for key, value in live.items() if key[0] not in days} | inside
    ordered = sorted(days)
    table = Table(backend, stamped=stamped)
    table.fill(as_rows(live))
    outside = f"day NOT IN ({', '.join(repr(str(FIRST + timedelta(days=n))) for n in ordered)})"
    before = table.read("*", outside)
    with table.warehouse.connect() as connection:
        found = store(
            connection, frame(inside), spec=spec(stamped=stamped), partition_slice=slice_of(ordered), origin=OP
        )
    assert comparable(table.read()) == comparable(as_rows(model))
    assert comparable(table.read("*", outside)) == comparable(before)
    assert list(found.values()) == [expected_changes(live, inside, day) for day in ordered]
    if stamped:
        untouched = {key for key in live if key in model and repr(live[key]) == repr(model[key])}
        old = {(day, i) for day, i, at in table.read("day, id, updated_at") if at == LONG_AGO}
        assert old == {(FIRST + timedelta(days=day), i) for day, i in untouched}
    with table.warehouse.connect() as connection:
        again = store(
            connection, frame(inside), spec=spec(stamped=stamped), partition_slice=slice_of(ordered), origin=OP
        )
    assert all(change.unchanged == change.staged and not change.deleted for change in again.values())


@examples(
    40,
    live=rows,
    spoil=st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 4)), max_size=6),
    computed=rows,
    days=chosen,
)
def test_a_merge_mends_a_table_with_broken_keys(
    backend: Backend, live: Rows, spoil: list[tuple[int, int | None]], computed: Rows, days: set[int]
) -> None:
    inside = {key: value for key, value in computed.items() if key[0] in days}
    rows_by_hand: list[Row] = [(FIRST + timedelta(days=day), i, 9.0, "by hand") for day, i in spoil]
    kept = [row for row in [*as_rows(live), *rows_by_hand] if (row[0] - FIRST).days not in days]
    table = Table(backend, stamped=False)
    table.fill([*as_rows(live), *rows_by_hand])
    with table.warehouse.connect() as connection:
        found = store(connection, frame(inside), spec=spec(), partition_slice=slice_of(sorted(days)), origin=OP)
    assert comparable(table.read()) == comparable([*kept, *as_rows(inside)])
    total = sum(found.values(), RowCounts())
    assert total.staged == total.inserted + total.updated + total.unchanged
    assert len(live) + len(spoil) - total.deleted + total.inserted == len(table.read())


@examples(30, live=rows, computed=rows, days=chosen)
def test_without_a_key_the_slice_is_replaced(backend: Backend, live: Rows, computed: Rows, days: set[int]) -> None:
    inside = {key: value for key, value in computed.items() if key[0] in days}
    model = {key: value for key, value in live.items() if key[0] not in days} | inside
    table = Table(backend, stamped=False)
    table.fill(as_rows(live))
    with table.warehouse.connect() as connection:
        found = store(connection, frame(inside), spec=spec(key=()), partition_slice=slice_of(sorted(days)), origin=OP)
    assert comparable(table.read()) == comparable(as_rows(model))
    assert sum(change.deleted for change in found.values()) == sum(key[0] in days for key in live)


def published(connection: Session, computed: Rows, days: Sequence[int], *, strategy: Strategy) -> None:
    origin = Origin(run_id="run", publication_id=str(uuid.uuid4()))
    staged = write(connection, frame(computed), spec=spec(), partition_slice=slice_of(days), origin=origin)
    audited = audit(connection, staged, [], origin=origin, gate="run")
    assert isinstance(audited, Audited)
    publish(connection, audited, rules=PUBLISH_BY_NAME[strategy](), origin=origin)


@examples(30, live=rows, computed=rows, days=chosen, strategy=st.sampled_from(["merge", "replace", "swap"]))
def test_every_strategy_publishes_the_same_rows(
    backend: Backend, live: Rows, computed: Rows, days: set[int], strategy: Strategy
) -> None:
    inside = {key: value for key, value in computed.items() if key[0] in days}
    model = {key: value for key, value in live.items() if key[0] not in days} | inside
    table = Table(backend, stamped=False)
    table.fill(as_rows(live))
    with table.warehouse.connect() as connection:
        published(connection, inside, sorted(days), strategy=strategy)
    assert comparable(table.read()) == comparable(as_rows(model))


def statements_for(count: int, backend: Backend, caplog: pytest.LogCaptureFixture) -> int:
    table = Table(backend, stamped=False)
    days = range(count)
    computed: Rows = {(day, i): (1.0, None) for day in days for i in range(2)}
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "dagster_safe_backfill.sql"), table.warehouse.connect() as connection:
        published(connection, computed, days, strategy="merge")
    return sum(record.name == "dagster_safe_backfill.sql" for record in caplog.records)


def test_statements_do_not_grow_with_the_partitions(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    counts: list[int] = []
    for count in (1, 30, 365):
        with backend.another() as fresh:
            counts.append(statements_for(count, fresh, caplog))
    assert len(set(counts)) == 1
    # On Snowflake, two ask for the table's policies, and two for a view of its name before the first publication.
    assert 0 < counts[0] <= int(backend.own(duckdb="40", snowflake="64")), counts
