"""`PartitionSlice`: the partitions that one step works on; `TableSlice`: those partitions of one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal
from zoneinfo import ZoneInfo

from dagster_safe_backfill.errors import EmptySliceError, SliceError
from dagster_safe_backfill.model.tables import ColumnType, TableRef, TableSpec

WHOLE_TABLE = "*"
"""Stands for the key of an asset without partitions."""

Keeps = ColumnType | Literal["text", "other"]
"""How a column keeps time, or that it keeps none."""

WhereRenderer = Callable[["PartitionSlice", "str | Mapping[str, str] | None", "ColumnType | None"], str]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TimeWindow:
    """A half-open window of time: `start <= instant < end`, both aware and in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() is None or self.end.utcoffset() is None:
            raise SliceError(f"a time window needs aware datetimes, not {self.start} to {self.end}")
        object.__setattr__(self, "start", self.start.astimezone(timezone.utc))
        object.__setattr__(self, "end", self.end.astimezone(timezone.utc))
        if self.start >= self.end:
            raise EmptySliceError(f"the time window from {self.start} to {self.end} holds no time")


def merged(windows: Iterable[TimeWindow]) -> tuple[TimeWindow, ...]:
    """Return the fewest windows that cover the same instants, in order of time."""
    result: list[TimeWindow] = []
    for window in sorted(windows):
        if result and window.start <= result[-1].end:
            last = result[-1]
            result[-1] = TimeWindow(start=last.start, end=max(last.end, window.end))
        else:
            result.append(window)
    return tuple(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeDimension:
    """One window for each key of the slice, in the keys' order.

    `timezone` is the one in which the partitions are cut; `name` is the dimension's in a multi-partition.
    """

    windows: tuple[TimeWindow, ...]
    timezone: str
    name: str | None = None

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDimension:
    """One value for each key of the slice, in the keys' order; `name` as in `TimeDimension`."""

    values: tuple[str, ...]
    name: str | None = None

    def __len__(self) -> int:
        return len(self.values)


Dimension = TimeDimension | KeyDimension


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSlice:
    """The partitions that one step works on, and how they are recognised in a table. Never empty.

    The keys are the truth: `start` and `end` also span partitions that the definition excludes,
    `where` and `windows` leave them out.

    Attributes:
        keys: Dagster's partition keys, distinct, in the order of the partitions definition.
        dimensions: One or, for multi-partitions, two; each has one entry a key.
    """

    keys: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    _renderer: WhereRenderer | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise EmptySliceError("the slice holds no partition")
        if len(set(self.keys)) != len(self.keys):
            raise SliceError(f"the slice names a partition twice: {self}")
        for dimension in self.dimensions:
            if len(dimension) != len(self.keys):
                raise SliceError("every dimension of a slice needs one entry a partition key")

    def __len__(self) -> int:
        return len(self.keys)

    def __str__(self) -> str:
        if len(self.keys) <= 3:
            return ", ".join(self.keys)
        return f"{len(self.keys)} partitions from {self.keys[0]} to {self.keys[-1]}"

    @property
    def windows(self) -> tuple[TimeWindow, ...]:
        """The instants of the slice: half-open UTC windows, adjacent ones merged, in order.

        Raises:
            SliceError: The partitions are not cut by time.
        """
        return merged(self._time.windows)

    @property
    def start(self) -> datetime:
        """The first instant of the slice, aware, in the partitions' time zone.

        Raises:
            SliceError: The partitions are not cut by time.
        """
        return self.windows[0].start.astimezone(ZoneInfo(self._time.timezone))

    @property
    def end(self) -> datetime:
        """The first instant after the slice (exclusive), aware, in the partitions' time zone.

        Raises:
            SliceError: The partitions are not cut by time.
        """
        return self.windows[-1].end.astimezone(ZoneInfo(self._time.timezone))

    def where(
        self,
        column: str | Mapping[str, str] | None = None,
        *,
        column_type: ColumnType | None = None,
    ) -> str:
        """Return a SQL predicate, in the warehouse's dialect, that holds for just the rows of the slice.

        It has as few terms as the keys allow: adjacent windows are one, excluded partitions stay out.

        Args:
            column: A column or SQL expression; for multi-partitions one for each dimension's name.
                If None, the asset's own `partition_expr`.
            column_type: What a time column holds. If None, days where every partition begins at midnight,
                else wall-clock times; for instants (TIMESTAMP WITH TIME ZONE) say `"timestamptz"`.

        Raises:
            SliceError: The slice was made without a warehouse, or the column can't tell its partitions.
        """
        if self._renderer is None:
            raise SliceError(
                "this slice knows no warehouse, so it can't write SQL; take the one that"
                " @wap_asset passes to your function"
            )
        return self._renderer(self, column, column_type)

    def bound_to(self, renderer: WhereRenderer) -> PartitionSlice:
        """Return the same slice, whose `where` is written by `renderer`."""
        return replace(self, _renderer=renderer)

    def chosen(self, positions: Iterable[int]) -> PartitionSlice:
        """Return the slice of the keys at `positions`.

        Raises:
            EmptySliceError: There are none.
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
        """Return the slice of some of its keys, in its order.

        Raises:
            EmptySliceError: It has none of them.
        """
        wanted = set(keys)
        return self.chosen(i for i, key in enumerate(self.keys) if key in wanted)

    @property
    def _time(self) -> TimeDimension:
        for dimension in self.dimensions:
            if isinstance(dimension, TimeDimension):
                return dimension
        raise SliceError(f"the partitions {self} are not cut by time, so they have no start or end")


def _chosen(dimension: Dimension, positions: tuple[int, ...]) -> Dimension:
    if isinstance(dimension, TimeDimension):
        return replace(dimension, windows=tuple(dimension.windows[i] for i in positions))
    return replace(dimension, values=tuple(dimension.values[i] for i in positions))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionColumn:
    """An expression over a table's columns that tells a row's partition in one dimension.

    Attributes:
        name: What messages call it.
        sql: The expression, in the warehouse's SQL.
        type_name: Its type, as the warehouse spells it.
        keeps: How it keeps time.
        timezone: The zone of its wall-clock times; if None, that of the partitions.
        dialect: The warehouse's `Dialect`, which only sql/ knows: in it `sql` and `type_name` are read, and by it rows
            are joined with partitions.
    """

    name: str
    sql: str
    type_name: str
    keeps: Keeps
    timezone: str | None
    dialect: Any


PartitionColumns = Mapping[str | None, PartitionColumn]
"""A partition column for each dimension's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSlice:
    """Some partitions of one table, and how they are recognised in its rows.

    Attributes:
        spec: How the table is kept.
        partition_slice: The partitions; None for an unpartitioned asset, of which it is the whole table.
        columns: What tells a row's partition, by dimension name; empty without partitions.
        table: The live table.
        keys: The partition keys, at their positions in the slice; `WHOLE_TABLE` for an unpartitioned asset.
    """

    spec: TableSpec
    partition_slice: PartitionSlice | None
    columns: PartitionColumns = field(default_factory=dict[str | None, PartitionColumn])
    table: TableRef = field(init=False)
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self.spec.table)
        object.__setattr__(self, "keys", self.partition_slice.keys if self.partition_slice else (WHOLE_TABLE,))

    def __str__(self) -> str:
        return "the whole table" if self.partition_slice is None else str(self.partition_slice)

    def only(self, keys: Iterable[str]) -> TableSlice:
        """Return the slice of some of its keys, in its order.

        Raises:
            EmptySliceError: It has none of them.
            SliceError: The asset has no partitions.
        """
        if self.partition_slice is None:
            raise SliceError(f"{self.table} has no partitions, so it can't be published or rolled back by them")
        return replace(self, partition_slice=self.partition_slice.only(keys))
