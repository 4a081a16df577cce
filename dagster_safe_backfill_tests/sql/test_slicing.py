"""Slices in SQL, run by DuckDB, against a plain-Python oracle."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.slices import (
    ColumnType,
    KeyDimension,
    PartitionColumn,
    PartitionColumns,
    PartitionSlice,
    TableSlice,
    TimeDimension,
    TimeWindow,
)
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.slicing import inside, positioned
from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect

UTC = timezone.utc
ZONES = ("UTC", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "America/Havana")
# Days around which the clocks of one of the zones change, forward or back.
NIGHTS = tuple(
    datetime.fromisoformat(day).replace(tzinfo=UTC)
    for day in ("2017-10-14", "2024-03-09", "2024-04-06", "2024-11-02", "2018-02-16")
)
TYPES = {"date": "DATE", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE"}


def column(name: str, keeps: Any, *, zone: str | None = None) -> PartitionColumn:
    return PartitionColumn(
        name=name,
        sql=f'"{name}"',
        type_name=TYPES.get(keeps, "VARCHAR"),
        keeps=keeps,
        timezone=zone,
        dialect=DuckDBDialect(),
    )


def hours(beginnings: Sequence[datetime], *, zone: str, name: str | None = None) -> TimeDimension:
    windows = tuple(TimeWindow(start=start, end=start + timedelta(hours=1)) for start in beginnings)
    return TimeDimension(windows=windows, timezone=zone, name=name)


def slice_of(*dimensions: TimeDimension | KeyDimension) -> PartitionSlice:
    count = len(dimensions[0])
    return PartitionSlice(keys=tuple(map(str, range(count))), dimensions=dimensions)


def table_slice(partition_slice: PartitionSlice, columns: PartitionColumns) -> TableSlice:
    spec = TableSpec(table=TableRef(schema="main", name="source"))
    return TableSlice(spec=spec, partition_slice=partition_slice, columns=columns)


def positions(
    connection: duckdb.DuckDBPyConnection, partition_slice: PartitionSlice, columns: PartitionColumns
) -> dict[int, int | None]:
    """Return each row's position, after seeing that the predicate holds for just the rows that have one."""
    rows = exp.select("*").from_("source")
    query = positioned(rows, [terms.column("n")], table_slice(partition_slice, columns))
    found = connection.execute(query.sql("duckdb")).fetchall()
    assert len(found) == len({n for n, _ in found}), "a row in two partitions"
    within = exp.select("n").from_("source").where(inside(table_slice(partition_slice, columns)))
    assert {n for (n,) in connection.execute(within.sql("duckdb")).fetchall()} == {n for n, p in found if p is not None}
    return dict(found)


instants = st.builds(
    lambda night, minutes: night + timedelta(minutes=minutes), st.sampled_from(NIGHTS), st.integers(-600, 2400)
)


@pytest.fixture(scope="module")
def connection() -> Any:
    with duckdb.connect() as connection:
        # A session in a far zone: nothing may depend on it.
        connection.execute("SET TimeZone = 'Pacific/Auckland'")
        yield connection


@given(
    beginnings=st.sets(
        st.builds(lambda n, h: n + timedelta(hours=h), st.sampled_from(NIGHTS), st.integers(-6, 40)),
        min_size=1,
        max_size=30,
    ),
    rows=st.lists(st.none() | instants, min_size=1, max_size=30),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_instants(connection: Any, beginnings: set[datetime], rows: list[datetime | None]) -> None:
    starts = sorted(beginnings)
    connection.execute("CREATE OR REPLACE TABLE source (n INTEGER, t TIMESTAMPTZ)")
    connection.executemany("INSERT INTO source VALUES (?, ?)", list(enumerate(rows)))
    found = positions(connection, slice_of(hours(starts, zone="UTC")), {None: column("t", "timestamptz")})
    for n, row in enumerate(rows):
        expected = [i for i, start in enumerate(starts) if row and start <= row < start + timedelta(hours=1)]
        assert found[n] == (expected[0] if expected else None)


@given(
    zone=st.sampled_from(ZONES),
    night=st.sampled_from(NIGHTS),
    first=st.integers(-6, 40),
    count=st.integers(1, 30),
    step=st.sampled_from([15, 30, 60, 24 * 60]),
    minutes=st.lists(st.integers(-600, 4000), min_size=1, max_size=40),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_wall_clock_times(
    connection: Any, zone: str, night: datetime, first: int, count: int, step: int, minutes: list[int]
) -> None:
    start = night + timedelta(hours=first)
    windows = tuple(
        TimeWindow(start=start + timedelta(minutes=step * i), end=start + timedelta(minutes=step * (i + 1)))
        for i in range(count)
    )
    partition_slice = slice_of(TimeDimension(windows=windows, timezone="UTC"))
    rows = [night + timedelta(minutes=minute) for minute in minutes]
    local = [row.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for row in rows]
    connection.execute("CREATE OR REPLACE TABLE source (n INTEGER, t TIMESTAMP)")
    connection.executemany("INSERT INTO source VALUES (?, ?)", list(enumerate(local)))
    columns = {None: column("t", "timestamp", zone=zone)}
    bounds = {bound for window in windows for bound in (window.start, window.end)}
    if not all(is_told_apart(bound, zone) for bound in bounds):
        with pytest.raises(sb.PartitionColumnError, match="occurs twice"):
            positions(connection, partition_slice, columns)
        return
    found = positions(connection, partition_slice, columns)
    for n, row in enumerate(rows):
        expected = [i for i, window in enumerate(windows) if window.start <= row < window.end]
        assert found[n] == (expected[0] if expected else None), (row, local[n])


def is_told_apart(bound: datetime, zone: str) -> bool:
    """Return whether some wall-clock time parts the instants before a bound from those after it.

    Brute force: every quarter of an hour within a day around it, which is finer than any of the zones' changes.
    """
    quarters = [bound + timedelta(minutes=15 * i) for i in range(-96, 96)]
    clock = [moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for moment in quarters]
    last_before = (bound - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return max(*clock[:96], last_before) < min(clock[96:])


@given(
    zone=st.sampled_from(ZONES),
    night=st.sampled_from(NIGHTS),
    days=st.sets(st.integers(-5, 20), min_size=1, max_size=15),
    rows=st.lists(st.none() | st.integers(-8, 25), min_size=1, max_size=30),
    keeps=st.sampled_from(["date", "timestamp", "timestamptz"]),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_local_days(
    connection: Any, zone: str, night: datetime, days: set[int], rows: list[int | None], keeps: ColumnType
) -> None:
    def midnight(offset: int) -> datetime:
        """Return the first instant of a local day, which where clocks skip midnight isn't 00:00."""
        day = night.date() + timedelta(days=offset)
        guess = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        while guess.astimezone(ZoneInfo(zone)).date() < day:
            guess += timedelta(minutes=30)
        return guess

    chosen = sorted(days)
    windows = tuple(TimeWindow(start=midnight(day), end=midnight(day + 1)) for day in chosen)
    values: list[Any] = [None if row is None else night.date() + timedelta(days=row) for row in rows]
    if keeps == "timestamp":
        values = [value and datetime(value.year, value.month, value.day) for value in values]  # noqa: DTZ001
    if keeps == "timestamptz":
        values = [None if row is None else midnight(row) for row in rows]
    connection.execute(f"CREATE OR REPLACE TABLE source (n INTEGER, t {TYPES[keeps]})")
    connection.executemany("INSERT INTO source VALUES (?, ?)", list(enumerate(values)))
    partition_slice = slice_of(TimeDimension(windows=windows, timezone=zone))
    found = positions(connection, partition_slice, {None: column("t", keeps)})
    assert found == {n: chosen.index(row) if row in days else None for n, row in enumerate(rows)}


@given(
    cells=st.sets(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "it's"])), min_size=1, max_size=18),
    rows=st.lists(
        st.tuples(st.none() | st.integers(-1, 6), st.none() | st.sampled_from(["a", "b", "it's", "z"])), min_size=1
    ),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_days_by_text(connection: Any, cells: set[tuple[int, str]], rows: list[tuple[int | None, str | None]]) -> None:
    first = datetime(2024, 1, 1, tzinfo=UTC)
    ordered = sorted(cells)
    windows = tuple(
        TimeWindow(start=first + timedelta(days=day), end=first + timedelta(days=day + 1)) for day, _ in ordered
    )
    partition_slice = slice_of(
        TimeDimension(windows=windows, timezone="UTC", name="day"),
        KeyDimension(values=tuple(text for _, text in ordered), name="region"),
    )
    values = [(n, None if d is None else first.date() + timedelta(days=d), text) for n, (d, text) in enumerate(rows)]
    connection.execute("CREATE OR REPLACE TABLE source (n INTEGER, d DATE, r VARCHAR)")
    connection.executemany("INSERT INTO source VALUES (?, ?, ?)", values)
    columns = {"day": column("d", "date"), "region": column("r", "text")}
    found = positions(connection, partition_slice, columns)
    assert found == {n: ordered.index(row) if row in cells else None for n, row in enumerate(rows)}


@given(cells=st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_texts_by_numbers(connection: Any, cells: set[tuple[str, int]]) -> None:
    """Keys are texts also where the column holds numbers."""
    ordered = sorted(cells)
    partition_slice = slice_of(
        KeyDimension(values=tuple(text for text, _ in ordered), name="x"),
        KeyDimension(values=tuple(str(number) for _, number in ordered), name="y"),
    )
    rows = [(text, number) for text in "abcd" for number in range(6)]
    connection.execute("CREATE OR REPLACE TABLE source (n INTEGER, x VARCHAR, y INTEGER)")
    connection.executemany("INSERT INTO source VALUES (?, ?, ?)", [(n, *row) for n, row in enumerate(rows)])
    numbers = PartitionColumn(
        name="y",
        sql="y",
        type_name="INTEGER",
        keeps="other",
        timezone=None,
        dialect=DuckDBDialect(),
    )
    found = positions(connection, partition_slice, {"x": column("x", "text"), "y": numbers})
    assert found == {n: ordered.index(row) if row in cells else None for n, row in enumerate(rows)}


def days_of_year(numbers: Sequence[int]) -> PartitionSlice:
    first = datetime(2000, 1, 1, tzinfo=UTC)
    windows = tuple(TimeWindow(start=first + timedelta(days=n), end=first + timedelta(days=n + 1)) for n in numbers)
    return slice_of(TimeDimension(windows=windows, timezone="UTC"))


@pytest.mark.parametrize(
    ("numbers", "terms_needed"),
    [(range(365), 1), ([0, 1, 2, 7, 8], 2), ([0, 2, 4], 3), ([5], 1)],
)
def test_a_predicate_has_as_few_terms_as_the_keys_allow(numbers: Sequence[int], terms_needed: int) -> None:
    predicate = inside(table_slice(days_of_year(numbers), {None: column("t", "date")}))
    assert len(list(predicate.find_all(exp.LT))) == terms_needed


def test_a_product_of_two_dimensions_is_one_term() -> None:
    first = datetime(2024, 1, 1, tzinfo=UTC)
    cells = [(day, region) for day in range(30) for region in "abc"]
    windows = tuple(TimeWindow(start=first + timedelta(days=d), end=first + timedelta(days=d + 1)) for d, _ in cells)
    partition_slice = slice_of(
        TimeDimension(windows=windows, timezone="UTC", name="d"),
        KeyDimension(values=tuple(region for _, region in cells), name="r"),
    )
    predicate = inside(table_slice(partition_slice, {"d": column("d", "date"), "r": column("r", "text")}))
    assert predicate.sql("duckdb") == (
        "(\"d\" >= CAST('2024-01-01' AS DATE) AND \"d\" < CAST('2024-01-31' AS DATE)) AND \"r\" IN ('a', 'b', 'c')"
    )


def test_two_thousand_ranges_are_no_trouble(connection: Any) -> None:
    partition_slice = days_of_year(range(0, 4000, 2))
    connection.execute(
        "CREATE OR REPLACE TABLE source AS SELECT n, DATE '2000-01-01' + n::INTEGER AS t FROM range(4000) AS r (n)"
    )
    found = positions(connection, partition_slice, {None: column("t", "date")})
    assert found == {n: None if n % 2 else n // 2 for n in range(4000)}


def test_text_in_a_time_dimension_is_refused() -> None:
    with pytest.raises(sb.PartitionColumnError, match="CAST"):
        inside(table_slice(days_of_year([0]), {None: column("t", "text")}))


def test_parts_of_days_are_refused_for_a_date() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    with pytest.raises(sb.PartitionColumnError, match="within a day"):
        inside(table_slice(slice_of(hours([noon], zone="UTC")), {None: column("t", "date")}))
