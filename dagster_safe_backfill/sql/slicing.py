"""A slice in SQL: a predicate for its rows, and the position of each row's partition.

Both compare a *partition column* (any expression over a table's columns) with the limits of the partitions, written in
the column's own type: calendar days for DATE, wall-clock times in the column's zone for TIMESTAMP, instants for
TIMESTAMP WITH TIME ZONE, and the partition keys for any other type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
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
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.dialect import Dialect

RESERVED = "_sb_"
"""The prefix of the names of the library's own columns and relations."""

PARTITION = "_sb_partition"
"""A shadow's column that holds the position of the row's partition in the slice. NULL for rows outside the slice."""

_ORDINAL, _KEY, _START, _END = "_sb_ordinal", "_sb_key", "_sb_start", "_sb_end"
_VALUE, _UNFIT = "_sb_value", "_sb_unfit"
ROWS = "_sb_rows"
"""The alias under which `positioned` reads its source."""

_MAP = "_sb_map"

# The smallest step of Python's datetimes.
_TICK = timedelta(microseconds=1)
_DAY = timedelta(days=1)


def expression(column: PartitionColumn) -> exp.Expr:
    """Return a partition column's parsed expression. It is cached, so copy it before you change it."""
    return terms.of_row(column.sql, dialect=column.dialect.name, option=column.name)


def shown_value(value: Any, column: PartitionColumn) -> Any:
    """Return a value of a partition column, masked unless all columns that its expression reads may be shown."""
    return terms.masked_value(value, column.sql, dialect=column.dialect.name)


def identify_partitions(names: Sequence[str], table_slice: TableSlice) -> bool:
    """Return True if rows with equal values in `names` are in the same partition.

    Then no row has the values of a row of another partition, so other partitions need no scan.
    """
    own = {*map(str.casefold, names)}
    for column in table_slice.columns.values():
        value = expression(column)
        if not isinstance(value, exp.Column) or value.name.casefold() not in own:
            return False
    return bool(table_slice.columns)


def inside(table_slice: TableSlice) -> exp.Expr:
    """Return a predicate that is true for the rows of the slice. Adjacent partitions share one term.

    Raises:
        PartitionColumnError: The values of a column don't identify the partition of a row.
    """
    partition_slice, columns = table_slice.partition_slice, table_slice.columns
    if partition_slice is None:
        return exp.true()
    # The limits are literals: Snowflake doesn't skip micro-partitions by the result of a subquery (docs/snowflake.md).
    first, *others = partition_slice.dimensions
    if not others:
        return _one_dimension(first, columns[first.name], range(len(partition_slice.keys)))
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
    """Return a predicate that is true for all other rows, also for those whose partition value is NULL."""
    return exp.not_(exp.Coalesce(this=exp.paren(predicate), expressions=[exp.false()]))


def _rectangles(partition_slice: PartitionSlice) -> Iterator[tuple[list[int], list[int]]]:
    """Split the keys of two dimensions into products of values, each given as a list of positions per dimension."""
    first, second = (_values(dimension) for dimension in partition_slice.dimensions)
    rows: dict[object, dict[object, int]] = defaultdict(dict)
    for position, value in enumerate(first):
        rows[value][second[position]] = position
    by_columns: dict[frozenset[object], list[dict[object, int]]] = defaultdict(list)
    # Rows with the same columns form one product, so a rectangle of keys takes one term instead of one for each key.
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
        here = _forms(value, column)
        listed = [_forms(_in_domain(terms.text(key), column), column) for key in keys]
        if len(here) > 1:
            return terms.any_of(terms.equal(here, forms) for forms in listed)
        return terms.is_in(here[0], [form for (form,) in listed])
    conditions: list[exp.Expr] = []
    for window in merged(map(dimension.windows.__getitem__, positions)):
        start = _in_domain(terms.text(_bound(window.start, column, dimension)), column)
        end = _in_domain(terms.text(_bound(window.end, column, dimension)), column)
        is_late = exp.GTE(this=value.copy(), expression=start)
        conditions.append(exp.and_(is_late, exp.LT(this=value.copy(), expression=end)))
    return terms.any_of(conditions)


def positioned(rows: exp.Query, items: Sequence[exp.Expr], table_slice: TableSlice) -> exp.Select:
    """Return a SELECT of `items` from `rows` with the column `PARTITION`: the position of the row's partition.

    The position is NULL for rows outside the slice, and 0 for all rows of an unpartitioned table.

    Raises:
        PartitionColumnError: The values of a column don't identify the partition of a row.
    """
    source = terms.subquery(rows, ROWS)
    if table_slice.partition_slice is None:
        return exp.select(*items, *terms.named({PARTITION: terms.number(0)})).from_(source, copy=False)
    marks: list[_Mark] = []
    for place, dimension in enumerate(table_slice.partition_slice.dimensions):
        marks.append(_mark(place, dimension, table_slice.columns[dimension.name]))
    if len(marks) == 1 and marks[0].counts_days:
        # Consecutive days need no join: the position is a difference of dates.
        return exp.select(*items, *terms.named({PARTITION: marks[0].days_since_first()})).from_(source, copy=False)
    # Values are joined by equality. Windows may be irregular (cron, months, DST nights, excluded days), so a dialect
    # may join them with ASOF, which takes one pass over sorted windows.
    dialect: Dialect = marks[0].column.dialect
    join, position = dialect.join_partitions(
        _partition_map(marks),
        matches=[mark.is_match() for mark in marks],
        ends=[mark.is_before_end() for mark in marks if mark.is_window],
        position=terms.column(_ORDINAL, of=_MAP),
    )
    return exp.select(*items, *terms.named({PARTITION: position})).from_(source, copy=False).join(join, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """How rows are matched with partitions in one dimension: by a value, or by the start and the end of a window.

    Attributes:
        column: The partition column.
        here: The column's expression, bound to the rows.
        texts: By column name of the relation of partitions, the value of each partition as text.
        counts_days: True if the column is a DATE and each partition is the day after the previous one.
    """

    column: PartitionColumn
    here: exp.Expr
    texts: Mapping[str, Sequence[str]]
    counts_days: bool = False

    @property
    def is_window(self) -> bool:
        return len(self.texts) > 1

    def days_since_first(self) -> exp.Expr:
        (days,) = self.texts.values()
        # Without the limits, a row before or after the slice would get a position that no partition has.
        first = _in_domain(terms.text(days[0]), self.column)
        last = _in_domain(terms.text(days[-1]), self.column)
        here = self.here
        count = exp.DateDiff(this=here.copy(), expression=first.copy(), unit=exp.var("DAY"))
        is_inside = exp.and_(exp.GTE(this=here.copy(), expression=first), exp.LTE(this=here.copy(), expression=last))
        return exp.Case().when(is_inside, count)

    def is_match(self) -> exp.Expr:
        there = terms.column(next(iter(self.texts)), of=_MAP)
        if self.is_window:
            return exp.GTE(this=self.here.copy(), expression=there)
        return terms.equal(_forms(self.here, self.column), _forms(there, self.column))

    def is_before_end(self) -> exp.Expr:
        return exp.LT(this=self.here.copy(), expression=terms.column([*self.texts][-1], of=_MAP))


def _mark(place: int, dimension: TimeDimension | KeyDimension, column: PartitionColumn) -> _Mark:
    here = terms.qualified(expression(column), ROWS)
    if isinstance(dimension, KeyDimension):
        return _Mark(column=column, here=here, texts={f"{_KEY}{place}": dimension.values})
    starts: list[str] = []
    ends: list[str] = []
    are_days = column.keeps == "date"
    for window in dimension.windows:
        start, end = _bound(window.start, column, dimension), _bound(window.end, column, dimension)
        starts.append(start)
        ends.append(end)
        are_days = are_days and date.fromisoformat(end) - date.fromisoformat(start) == _DAY
    if are_days:
        is_consecutive = starts[1:] == ends[:-1]
        return _Mark(column=column, here=here, texts={f"{_KEY}{place}": starts}, counts_days=is_consecutive)
    return _Mark(column=column, here=here, texts={f"{_START}{place}": starts, f"{_END}{place}": ends})


def ambiguous_keys(dimensions: Sequence[tuple[KeyDimension, PartitionColumn]], rows: exp.Select) -> exp.Query:
    """Return the keys that don't stand for exactly one value of their column each.

    A row has the position of the dimension, the first and the last of the keys that are one value (in the column's type
    and collation), and the key itself if its column can't hold it unchanged, or NULL.

    Args:
        dimensions: Dimensions with their partition columns.
        rows: Rows of the table, from which texts get their collation.
    """
    parts: list[exp.Select] = []
    for place, (dimension, column) in enumerate(dimensions):
        key, value, unfit = terms.column(_KEY), terms.column(_VALUE), terms.column(_UNFIT)
        of_group = {"place": terms.number(place), "first": exp.Min(this=key), "last": exp.Max(this=key.copy())}
        select = exp.select(*terms.named(of_group), exp.alias_(exp.Max(this=unfit), "unfit", quoted=True))
        same = _forms(value, column)
        is_shared = exp.GT(this=exp.Count(this=exp.Star()), expression=terms.number(1))
        is_unfit = exp.not_(exp.Is(this=exp.Max(this=unfit.copy()), expression=exp.Null()))
        select = select.from_(terms.subquery(_values_of_keys(dimension, column, rows), ROWS))
        parts.append(select.group_by(*same, unfit.copy()).having(exp.or_(is_shared, is_unfit)))
    return exp.union(*parts, distinct=False) if len(parts) > 1 else parts[0]


def _values_of_keys(dimension: KeyDimension, column: PartitionColumn, rows: exp.Select) -> exp.Select:
    """Return each known key with its value in the column's type, and the key again if the type changes it."""
    tuples = [exp.Tuple(expressions=[terms.text(key)]) for key in dict.fromkeys((*dimension.values, *dimension.known))]
    parts = _values_of(tuples, [_KEY])
    if len(parts) == 1:
        keys: exp.Expr = parts[0]
    else:
        each = [exp.select(terms.column(_KEY)).from_(part) for part in parts]
        keys = terms.subquery(exp.union(*each, distinct=False), _MAP)
    key = terms.column(_KEY, of=_MAP)
    if column.keeps == "text":
        # COALESCE has the collation of the column, even though no row is read: "a" may equal "A".
        of_rows = exp.select(exp.alias_(expression(column).copy(), _VALUE, quoted=True))
        of_rows = of_rows.from_(terms.subquery(rows.copy(), ROWS)).where(exp.false())
        value = exp.Coalesce(this=terms.column(_VALUE, of=ROWS), expressions=[key.copy()])
        items = {_KEY: key, _VALUE: value, _UNFIT: exp.cast(exp.null(), exp.DataType.Type.TEXT)}
        return (
            exp.select(*terms.named(items)).from_(keys).join(terms.subquery(of_rows, ROWS), on="TRUE", join_type="left")
        )
    value = _tried(key, column)
    is_changed = exp.Is(this=value.copy(), expression=exp.Null())
    # Casts to integers round, and casts to dates drop the time, so the key is compared in a type that does neither.
    wider = "TIMESTAMP" if column.keeps == "date" else "DOUBLE" if _is_number(column) else None
    if wider is not None:
        exact = column.dialect.tried(key.copy(), exp.DataType.build(wider))
        is_changed = exp.or_(is_changed, exp.NEQ(this=exact, expression=exp.cast(value.copy(), wider)))
    items = {_KEY: key, _VALUE: value, _UNFIT: exp.Case().when(is_changed, key.copy())}
    return exp.select(*terms.named(items)).from_(keys)


def _forms(value: exp.Expr, column: PartitionColumn) -> Sequence[exp.Expr]:
    """Return a value of a partition column in forms that are all equal only for identical values."""
    dialect: Dialect = column.dialect
    of = Column(name=column.name, type=column.type_name, collation=column.collation)
    return [form.copy() for form in dialect.exact(value.copy(), of)]


def _tried(value: exp.Expr, column: PartitionColumn) -> exp.Expr:
    """Return `value`, a text, cast as by `_in_domain`; NULL if it is no value of the type."""
    cast = _in_domain(value.copy(), column)
    return column.dialect.tried(cast.this, cast.args["to"]) if isinstance(cast, exp.Cast) else cast


def _is_number(column: PartitionColumn) -> bool:
    found = terms.data_type(column.type_name, dialect=column.dialect.name)
    return column.keeps == "other" and found.this in exp.DataType.NUMERIC_TYPES


def _partition_map(marks: Sequence[_Mark]) -> exp.Expr:
    """Return the partitions as a relation: one row for each, with the types of the partition columns."""
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
    """Return rows as VALUES relations with at most `terms.LONGEST_LIST` rows each."""
    columns = [exp.to_identifier(name, quoted=True) for name in names]
    alias = exp.TableAlias(this=exp.to_identifier(_MAP, quoted=True), columns=columns)
    size = terms.LONGEST_LIST
    return [exp.Values(expressions=[*rows[i : i + size]], alias=alias.copy()) for i in range(0, len(rows), size)]


def _in_domain(value: exp.Expr, column: PartitionColumn) -> exp.Expr:
    """Return `value`, a text, cast to the type with which the partition column is compared."""
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
    """Return an instant as the text of a value of the column's type.

    Raises:
        PartitionColumnError: The column has no value that separates the instants before this one from the others.
    """
    match column.keeps:
        case "date":
            here = instant.astimezone(ZoneInfo(dimension.timezone))
            # Not a test for midnight: where the clocks skip midnight, the first moment of a day is 01:00.
            if (instant - _TICK).astimezone(here.tzinfo).date() == here.date():
                raise PartitionColumnError(
                    f"{column.name}: a partition starts or ends within a day, at {here.isoformat()}, and the partition"
                    " column is a DATE. Give a partition_expr that returns a timestamp."
                )
            return here.date().isoformat()
        case "timestamp":
            zone = ZoneInfo(column.timezone or dimension.timezone)
            return _wall_clock(instant, column, zone).isoformat(sep=" ")
        case "timestamptz":
            # The text has an offset, so the session's time zone doesn't change its meaning.
            return instant.isoformat(sep=" ")
        case "text" | "other":
            raise PartitionColumnError(
                f"{column.name}: the partitions are time windows, but the partition column is {column.type_name}."
                " Give a partition_expr that returns a date or a timestamp, for instance CAST(day AS DATE)."
            )
        case _:
            assert_never(column.keeps)


def _wall_clock(instant: datetime, column: PartitionColumn, zone: ZoneInfo) -> datetime:
    """Return the wall-clock time that separates the instants before `instant` from the others.

    In a gap (clocks go forward) that is the first moment of the gap, so a day that is stored as a midnight that the
    clocks skipped belongs to its own partition.
    """
    before = (instant - _TICK).astimezone(zone)
    here = instant.astimezone(zone)
    # PEP 495: fold is 1 in the second of two hours with the same wall-clock times.
    if _is_repeated(here) and (here.fold == 1 or _is_repeated(before)):
        raise PartitionColumnError(
            f"{column.name}: a partition starts or ends at {here.isoformat()}, in an hour that occurs twice in"
            f" {zone.key}, so its wall-clock times don't identify the partition. Store the column in UTC"
            ' (TableOptions(column_timezone="UTC")), or as TIMESTAMP WITH TIME ZONE.'
        )
    return before.replace(tzinfo=None) + _TICK


def _is_repeated(moment: datetime) -> bool:
    return moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
