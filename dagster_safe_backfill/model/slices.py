"""`PartitionSlice`, the partitions that one step processes, and `TableSlice`, these partitions of one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal
from zoneinfo import ZoneInfo

from dagster_safe_backfill.errors import EmptySliceError, SliceError
from dagster_safe_backfill.model.tables import ColumnType, TableRef, TableSpec

WHOLE_TABLE = "*"
"""The key that stands for the whole table of an asset without partitions."""

Keeps = ColumnType | Literal["text", "other"]
"""The kind of a partition column: how it keeps time, or that it keeps text or other values."""

WhereRenderer = Callable[["PartitionSlice", "str | Mapping[str, str] | None", "ColumnType | None"], str]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TimeWindow:
    """A half-open window of time, `start <= instant < end`; both ends are aware and converted to UTC.

    Raises:
        SliceError: An end has no time zone.
        EmptySliceError: `start` isn't earlier than `end`.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() is None or self.end.utcoffset() is None:
            raise SliceError(f"a time window needs aware datetimes, not {self.start} to {self.end}")
        # The way to set fields of a frozen dataclass that the dataclasses docs name.
        object.__setattr__(self, "start", self.start.astimezone(timezone.utc))
        object.__setattr__(self, "end", self.end.astimezone(timezone.utc))
        # Compared in UTC: Python compares two datetimes of one zone as wall-clock times, even where clocks are set
        # back.
        if self.start >= self.end:
            raise EmptySliceError(f"the time window from {self.start} to {self.end} is empty; it must end later")


def merged(windows: Iterable[TimeWindow]) -> tuple[TimeWindow, ...]:
    """Return the fewest windows that cover the same instants, in chronological order."""
    result: list[TimeWindow] = []
    # The partitions of a multi-partition repeat the windows of its time dimension.
    for window in sorted(windows):
        # Half-open windows that touch leave no instant between them.
        if result and window.start <= result[-1].end:
            last = result[-1]
            result[-1] = TimeWindow(start=last.start, end=max(last.end, window.end))
        else:
            result.append(window)
    return tuple(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeDimension:
    """The time windows of a slice: one for each key, in the order of the keys.

    Attributes:
        windows: The windows.
        timezone: The time zone of the partitions definition.
        name: The dimension's name in a multi-partition; None if the partitions have one dimension.
    """

    windows: tuple[TimeWindow, ...]
    timezone: str
    name: str | None = None

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDimension:
    """The values of a slice in a dimension without time: one for each key, in the order of the keys.

    Attributes:
        values: The values.
        name: See `TimeDimension`.
        known: All values that the partitions definition has in this dimension; empty if they aren't known.
    """

    values: tuple[str, ...]
    name: str | None = None
    # Not compared: slices of the same partitions are equal, whichever other partitions there are.
    known: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.values)


Dimension = TimeDimension | KeyDimension


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSlice:
    """The partitions that one step processes, and how they are recognised in a table.

    A slice has at least one partition, and is immutable. `keys`, `where` and `windows` are exact. `start` and `end`
    also span partitions that the partitions definition excludes.

    Attributes:
        keys: Dagster's partition keys, each once, in the order of the partitions definition.
        dimensions: One dimension or, for multi-partitions, two; each has one entry per key.
        every: All partitions of the asset, if rows may move between them. None otherwise.

    Raises:
        EmptySliceError: There is no key.
        SliceError: A key occurs twice, or a dimension has another number of entries than there are keys.

    Example:
        ```python
        @sb.wap_asset(partitions_def=days, partition_expr="day")
        def orders(partitions: sb.PartitionSlice) -> sb.Query:
            return sb.Query(f"SELECT * FROM raw.orders WHERE {partitions.where()}")
        ```
    """

    keys: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    # Not compared: slices of the same partitions are equal, whichever others there are, in whichever warehouse.
    every: PartitionSlice | None = field(default=None, repr=False, compare=False)
    _renderer: WhereRenderer | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise EmptySliceError("the slice has no partitions")
        # The rows of a repeated partition would be joined, and thus staged, twice.
        if len(set(self.keys)) != len(self.keys):
            raise SliceError(f"the slice names a partition twice: {self}")
        for dimension in self.dimensions:
            if len(dimension) != len(self.keys):
                raise SliceError("every dimension of a slice needs one entry per partition key")

    def __len__(self) -> int:
        return len(self.keys)

    def __str__(self) -> str:
        if len(self.keys) <= 3:
            return ", ".join(self.keys)
        return f"{len(self.keys)} partitions from {self.keys[0]} to {self.keys[-1]}"

    @property
    def windows(self) -> tuple[TimeWindow, ...]:
        """The time that the slice covers: half-open windows in UTC, in chronological order, adjacent ones merged.

        Raises:
            SliceError: The partitions are not time partitions.
        """
        return merged(self._time.windows)

    @property
    def start(self) -> datetime:
        """The first instant of the slice (inclusive), as an aware datetime in the partitions' time zone.

        Raises:
            SliceError: The partitions are not time partitions.
        """
        return self.windows[0].start.astimezone(ZoneInfo(self._time.timezone))

    @property
    def end(self) -> datetime:
        """The first instant after the slice (exclusive), as an aware datetime in the partitions' time zone.

        Raises:
            SliceError: The partitions are not time partitions.
        """
        return self.windows[-1].end.astimezone(ZoneInfo(self._time.timezone))

    @property
    def meanings(self) -> dict[str, str]:
        """A mapping from partition key to what the key stands for: windows of time with their time zone, or values."""
        texts: dict[str, str] = {}
        for position, key in enumerate(self.keys):
            parts: list[str] = []
            for dimension in self.dimensions:
                if isinstance(dimension, TimeDimension):
                    window = dimension.windows[position]
                    start, end = (f"{one:%Y-%m-%d %H:%M:%S}" for one in (window.start, window.end))
                    parts.append(f"{start} to {end} UTC in {dimension.timezone}")
                else:
                    parts.append(repr(dimension.values[position]))
            texts[key] = ", ".join(parts)
        return texts

    def where(
        self,
        column: str | Mapping[str, str] | None = None,
        *,
        column_type: ColumnType | None = None,
    ) -> str:
        """Return a SQL predicate, in the warehouse's dialect, that is true for exactly the rows of the slice.

        Adjacent time windows become one range. Excluded partitions are not matched.

        Args:
            column: A column or SQL expression; for multi-partitions a mapping from each dimension's name to one. If
                None, the asset's `partition_expr`.
            column_type: How a time column keeps time: `"date"` for days, `"timestamp"` for wall-clock times, or
                `"timestamptz"` for instants (TIMESTAMP WITH TIME ZONE). If None, it is `"date"` if every partition
                begins at midnight, else `"timestamp"`.

        Raises:
            SliceError: The slice was made without a warehouse, or the column can't distinguish its partitions.
        """
        if self._renderer is None:
            raise SliceError(
                "this slice belongs to no warehouse, so it can't write SQL. Use the slice that @wap_asset passes to"
                " your function."
            )
        return self._renderer(self, column, column_type)

    def bound_to(self, renderer: WhereRenderer) -> PartitionSlice:
        """Return a copy of the slice whose `where` calls `renderer`."""
        return replace(self, _renderer=renderer)

    def chosen(self, positions: Iterable[int]) -> PartitionSlice:
        """Return the slice of the keys at `positions`, counted from 0.

        Raises:
            EmptySliceError: There are no positions.
        """
        kept = tuple(positions)
        if kept == tuple(range(len(self.keys))):
            return self
        return replace(
            self,
            keys=tuple(self.keys[i] for i in kept),
            dimensions=tuple(_chosen(dimension, kept) for dimension in self.dimensions),
        )

    def only(self, keys: Iterable[str]) -> PartitionSlice:
        """Return the slice of those of its keys that are in `keys`, in the slice's order.

        Raises:
            EmptySliceError: The slice has none of them.
        """
        wanted = set(keys)
        return self.chosen(i for i, key in enumerate(self.keys) if key in wanted)

    def beside(self, keys: Iterable[str]) -> PartitionSlice:
        """Return the slice of its own keys, followed by those of `keys` that `every` has and it hasn't.

        The positions of its own keys stay the same.
        """
        others = set(keys) - set(self.keys)
        if self.every is None or others.isdisjoint(self.every.keys):
            return self
        found = self.every.only(others)
        return replace(
            self,
            keys=(*self.keys, *found.keys),
            dimensions=tuple(_joined(*pair) for pair in zip(self.dimensions, found.dimensions, strict=True)),
        )

    @property
    def _time(self) -> TimeDimension:
        for dimension in self.dimensions:
            if isinstance(dimension, TimeDimension):
                return dimension
        raise SliceError(f"the partitions {self} are not time partitions, so they have no start or end")


def _chosen(dimension: Dimension, positions: tuple[int, ...]) -> Dimension:
    if isinstance(dimension, TimeDimension):
        return replace(dimension, windows=tuple(dimension.windows[i] for i in positions))
    return replace(dimension, values=tuple(dimension.values[i] for i in positions))


def _joined(one: Dimension, other: Dimension) -> Dimension:
    if isinstance(one, TimeDimension) and isinstance(other, TimeDimension):
        return replace(one, windows=(*one.windows, *other.windows))
    assert isinstance(one, KeyDimension)
    assert isinstance(other, KeyDimension)
    return replace(one, values=(*one.values, *other.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionColumn:
    """An expression over a table's columns that gives a row's partition in one dimension.

    Attributes:
        name: The name of the expression in messages.
        sql: The expression, in the warehouse's SQL.
        type_name: The type of the expression, as the warehouse spells it.
        keeps: How the expression keeps time, or that it keeps text or other values.
        timezone: The time zone of its wall-clock times. If None, it is that of the partitions.
        collation: The collation of the texts that the expression reads. None if there is none, or if the expression
            sets one itself.
        dialect: The warehouse's `Dialect`, in which sql/ parses `sql` and `type_name` and joins rows with partitions.
            It is untyped because model/ may not import sql/.
    """

    name: str
    sql: str
    type_name: str
    keeps: Keeps
    timezone: str | None
    dialect: Any
    collation: str | None = None


PartitionColumns = Mapping[str | None, PartitionColumn]
"""A mapping from dimension name to partition column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSlice:
    """Some partitions of one table, and how they are recognised in its rows.

    Attributes:
        spec: The `TableSpec` of the table.
        partition_slice: The partitions; None for the whole table of an unpartitioned asset.
        columns: A mapping from dimension name to the column that gives a row's partition; empty without partitions.
        table: The live table.
        keys: The partition keys, in the order of the slice; `WHOLE_TABLE` alone for an unpartitioned asset.
    """

    spec: TableSpec
    partition_slice: PartitionSlice | None
    columns: PartitionColumns = field(default_factory=dict[str | None, PartitionColumn])
    table: TableRef = field(init=False)
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Set once, because loops over partitions read them.
        object.__setattr__(self, "table", self.spec.table)
        object.__setattr__(self, "keys", self.partition_slice.keys if self.partition_slice else (WHOLE_TABLE,))

    def __str__(self) -> str:
        return "the whole table" if self.partition_slice is None else str(self.partition_slice)

    def only(self, keys: Iterable[str]) -> TableSlice:
        """Return the slice of those of its keys that are in `keys`, in the slice's order.

        Raises:
            EmptySliceError: The slice has none of them.
            SliceError: The asset has no partitions.
        """
        if self.partition_slice is None:
            raise SliceError(f"{self.table} has no partitions, so some of them can't be selected")
        return replace(self, partition_slice=self.partition_slice.only(keys))
