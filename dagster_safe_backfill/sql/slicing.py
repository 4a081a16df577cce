"""A slice in SQL: a predicate for its rows, and a map from each row to its partition.

Both compare a *partition column* (any expression over a table's columns) with bounds in the column's own
domain: calendar days for DATE, wall-clock times in its zone for TIMESTAMP, instants for TIMESTAMP WITH TIME ZONE,
and the text of the keys for anything else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlglot import exp
from typing_extensions import assert_never

from dagster_safe_backfill.errors import PartitionColumnError
from dagster_safe_backfill.model.slices import (
    KeyDimension,
    PartitionColumn,
    PartitionSlice,
    TableSlice,
    TimeDimension,
    merged,
)
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect

RESERVED = "_sb_"
"""How the names of the library's own columns and relations begin."""

PARTITION = "_sb_partition"
"""The column of a shadow that holds the position of the row's partition in the slice; NULL outside it."""

_ORDINAL, _KEY, _START, _END = "_sb_ordinal", "_sb_key", "_sb_start", "_sb_end"
ROWS = "_sb_rows"
"""The name under which `positioned` reads its source."""

_MAP = "_sb_map"

_TICK = timedelta(microseconds=1)


def expression(column: PartitionColumn) -> exp.Expr:
    """Return what is compared with the slice; to be copied before it is changed."""
    return terms.of_row(column.sql, dialect=column.dialect.name, option=column.name)


def inside(table_slice: TableSlice) -> exp.Expr:
    """Return the predicate that holds for the slice's rows, in as few terms as its keys allow.

    Raises:
        PartitionColumnError: A column can't tell the slice's bounds.
    """
    partition_slice, columns = table_slice.partition_slice, table_slice.columns
    if partition_slice is None:
        return exp.true()
    first, *others = partition_slice.dimensions
    if not others:
        return _one_dimension(first, columns[first.name], range(len(partition_slice)))
    (second,) = others
    return terms.any_of(
        terms.all_of(
            [
                _one_dimension(first, columns[first.name], firsts),
                _one_dimension(second, columns[second.name], seconds),
            ]
        )
        for firsts, seconds in _rectangles(partition_slice)
    )


def outside(predicate: exp.Expr) -> exp.Expr:
    """Return the predicate of the rows for which `inside` doesn't hold, or is NULL for want of a partition value."""
    return exp.not_(exp.Coalesce(this=exp.paren(predicate), expressions=[exp.false()]))


def _rectangles(partition_slice: PartitionSlice) -> Iterator[tuple[list[int], list[int]]]:
    """Cut the keys of two dimensions into products, as positions that stand for their values."""
    first, second = (_values(dimension) for dimension in partition_slice.dimensions)
    rows: dict[object, dict[object, int]] = defaultdict(dict)
    for position, value in enumerate(first):
        rows[value][second[position]] = position
    by_columns: dict[frozenset[object], list[dict[object, int]]] = defaultdict(list)
    for cells in rows.values():
        by_columns[frozenset(cells)].append(cells)
    for group in by_columns.values():
        yield [next(iter(cells.values())) for cells in group], list(group[0].values())


def _values(dimension: TimeDimension | KeyDimension) -> Sequence[object]:
    return dimension.windows if isinstance(dimension, TimeDimension) else dimension.values


def _one_dimension(
    dimension: TimeDimension | KeyDimension, column: PartitionColumn, positions: Sequence[int]
) -> exp.Expr:
    value = expression(column)
    if isinstance(dimension, KeyDimension):
        keys = dict.fromkeys(dimension.values[i] for i in positions)
        return terms.is_in(value, [_in_domain(terms.text(key), column) for key in keys])
    conditions: list[exp.Expr] = []
    for window in merged(map(dimension.windows.__getitem__, positions)):
        start = _in_domain(terms.text(_bound(window.start, column, dimension)), column)
        end = _in_domain(terms.text(_bound(window.end, column, dimension)), column)
        is_late = exp.GTE(this=value.copy(), expression=start)
        conditions.append(exp.and_(is_late, exp.LT(this=value.copy(), expression=end)))
    return terms.any_of(conditions)


def positioned(rows: exp.Query, items: Sequence[exp.Expr], table_slice: TableSlice) -> exp.Select:
    """Return a SELECT of `items` from `rows`, and of each row's position in the slice as `PARTITION`.

    Rows outside the slice have NULL there; without a slice all are at 0. Consecutive days of a DATE column are counted,
    without a join. Keys, and other days of a DATE column, are found by equality; other times by an ASOF join, which
    takes one pass over sorted windows however irregular they are (cron, months, DST nights, excluded days).

    Raises:
        PartitionColumnError: A column can't tell the slice's partitions apart.
    """
    source = terms.subquery(rows, ROWS)
    if table_slice.partition_slice is None:
        return exp.select(*items, *terms.named({PARTITION: terms.number(0)})).from_(source)
    dimensions = table_slice.partition_slice.dimensions
    marks = [_mark(i, one, table_slice.columns[one.name]) for i, one in enumerate(dimensions)]
    if len(marks) == 1 and marks[0].counts_days:
        return exp.select(*items, *terms.named({PARTITION: marks[0].days_since_first()})).from_(source)
    dialect: Dialect = marks[0].column.dialect
    join, position = dialect.join_partitions(
        _partition_map(marks),
        matches=[mark.is_match() for mark in marks],
        ends=[mark.is_before_end() for mark in marks if mark.is_window],
        position=terms.column(_ORDINAL, of=_MAP),
    )
    return exp.select(*items, *terms.named({PARTITION: position})).from_(source).join(join)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What tells each partition in one dimension: a value to equal, or the two bounds of a window.

    Attributes:
        column: The partition column.
        texts: For each name of a map's column, its value in each partition, as text.
        counts_days: Whether each partition is the day after the one before, in a DATE column.
    """

    column: PartitionColumn
    texts: Mapping[str, Sequence[str]]
    counts_days: bool = False

    @property
    def is_window(self) -> bool:
        return len(self.texts) > 1

    def days_since_first(self) -> exp.Expr:
        (days,) = self.texts.values()
        first = _in_domain(terms.text(days[0]), self.column)
        last = _in_domain(terms.text(days[-1]), self.column)
        here = self._here()
        count = exp.DateDiff(this=here, expression=first.copy(), unit=exp.var("DAY"))
        is_inside = exp.and_(exp.GTE(this=here.copy(), expression=first), exp.LTE(this=here.copy(), expression=last))
        return exp.Case().when(is_inside, count)

    def is_match(self) -> exp.Expr:
        operator = exp.GTE if self.is_window else exp.EQ
        return operator(this=self._here(), expression=terms.column(next(iter(self.texts)), of=_MAP))

    def is_before_end(self) -> exp.Expr:
        return exp.LT(this=self._here(), expression=terms.column([*self.texts][-1], of=_MAP))

    def _here(self) -> exp.Expr:
        return terms.qualified(expression(self.column), ROWS)


def _mark(place: int, dimension: TimeDimension | KeyDimension, column: PartitionColumn) -> _Mark:
    if isinstance(dimension, KeyDimension):
        return _Mark(column=column, texts={f"{_KEY}{place}": dimension.values})
    starts: list[str] = []
    ends: list[str] = []
    for window in dimension.windows:
        starts.append(_bound(window.start, column, dimension))
        ends.append(_bound(window.end, column, dimension))
    if column.keeps == "date" and all(map(_is_one_day, starts, ends)):
        return _Mark(column=column, texts={f"{_KEY}{place}": starts}, counts_days=starts[1:] == ends[:-1])
    return _Mark(column=column, texts={f"{_START}{place}": starts, f"{_END}{place}": ends})


def distinct_keys(dimension: KeyDimension, column: PartitionColumn) -> exp.Select:
    """Return how many values the keys of a dimension are to the column: fewer, if it can't tell some apart."""
    tuples = [exp.Tuple(expressions=[terms.text(key)]) for key in dict.fromkeys(dimension.values)]
    value = _in_domain(terms.column(_KEY), column)
    count = exp.Count(this=exp.Distinct(expressions=[value]))
    parts = _values_of(tuples, [_KEY])
    if len(parts) == 1:
        return exp.select(count).from_(parts[0])
    keys = exp.union(*(exp.select(terms.column(_KEY)).from_(part) for part in parts), distinct=False)
    return exp.select(count).from_(terms.subquery(keys, _MAP))


def _is_one_day(start: str, end: str) -> bool:
    return date.fromisoformat(end) - date.fromisoformat(start) == timedelta(days=1)


def _partition_map(marks: Sequence[_Mark]) -> exp.Expr:
    """Return the slice as a relation: a row a partition, typed like the partition columns."""
    items: dict[str, exp.Expr] = {_ORDINAL: terms.column(_ORDINAL)}
    for mark in marks:
        items |= {name: _in_domain(terms.column(name), mark.column) for name in mark.texts}
    texts = [values for mark in marks for values in mark.texts.values()]
    rows = [
        exp.Tuple(expressions=[terms.number(position), *map(terms.text, row)])
        for position, row in enumerate(zip(*texts, strict=True))
    ]
    parts = [
        exp.select(*terms.named({name: item.copy() for name, item in items.items()})).from_(part)
        for part in _values_of(rows, items)
    ]
    return terms.subquery(exp.union(*parts, distinct=False) if len(parts) > 1 else parts[0], _MAP)


def _values_of(rows: Sequence[exp.Tuple], names: Iterable[str]) -> list[exp.Values]:
    """Return rows as relations, each of as many as one list may hold."""
    columns = [exp.to_identifier(name, quoted=True) for name in names]
    alias = exp.TableAlias(this=exp.to_identifier(_MAP, quoted=True), columns=columns)
    size = terms.LONGEST_LIST
    return [exp.Values(expressions=[*rows[i : i + size]], alias=alias.copy()) for i in range(0, len(rows), size)]


def _in_domain(value: exp.Expr, column: PartitionColumn) -> exp.Expr:
    """Return `value`, a text, cast to what the partition column is compared with."""
    match column.keeps:
        case "date":
            return exp.cast(value, exp.DataType.Type.DATE)
        case "timestamp":
            return exp.cast(value, exp.DataType.Type.TIMESTAMP)
        case "timestamptz":
            return exp.cast(value, exp.DataType.Type.TIMESTAMPTZ)
        case "text":
            return value
        case "other":
            return terms.typed(value, column.type_name, dialect=column.dialect.name)
        case _:
            assert_never(column.keeps)


def _bound(instant: datetime, column: PartitionColumn, dimension: TimeDimension) -> str:
    """Return an instant as text in the column's domain."""
    match column.keeps:
        case "date":
            return _day(instant, column, ZoneInfo(dimension.timezone)).isoformat()
        case "timestamp":
            zone = ZoneInfo(column.timezone or dimension.timezone)
            return _wall_clock(instant, column, zone).isoformat(sep=" ")
        case "timestamptz":
            return instant.isoformat(sep=" ")
        case "text" | "other":
            raise PartitionColumnError(
                f"{column.name}: the partitions are cut by time, but the partition column is {column.type_name};"
                " give a partition_expr that returns a date or a timestamp, for instance CAST(day AS DATE)"
            )
        case _:
            assert_never(column.keeps)


def _day(instant: datetime, column: PartitionColumn, zone: ZoneInfo) -> date:
    here = instant.astimezone(zone)
    if (instant - _TICK).astimezone(zone).date() == here.date():
        raise PartitionColumnError(
            f"{column.name}: a DATE column can't tell partitions that are cut at {here.isoformat()},"
            " within a day; give a partition_expr that returns a timestamp"
        )
    return here.date()


def _wall_clock(instant: datetime, column: PartitionColumn, zone: ZoneInfo) -> datetime:
    """Return the wall-clock time that parts the instants before `instant` from the others.

    In a gap (clocks go forward) that is the gap's first moment, so that days stored as midnights that the
    clocks skipped still belong to their day. See PEP 495 for ambiguous times.
    """
    before = (instant - _TICK).astimezone(zone)
    here = instant.astimezone(zone)
    if _is_repeated(here) and (here.fold == 1 or _is_repeated(before)):
        raise PartitionColumnError(
            f"{column.name}: wall-clock times of {zone.key} can't tell partitions that are cut at {here.isoformat()}:"
            " that hour comes twice; keep the column in UTC (column_timezone), or as TIMESTAMP WITH TIME ZONE"
        )
    return before.replace(tzinfo=None) + _TICK


def _is_repeated(moment: datetime) -> bool:
    return moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
