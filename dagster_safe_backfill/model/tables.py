"""Tables, and what a user says about one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from operator import attrgetter
from typing import Literal

from dagster_safe_backfill.errors import ConfigurationError

ColumnType = Literal["date", "timestamp", "timestamptz"]
"""How a column keeps time: calendar days, wall-clock times of a known time zone, or instants."""

OnEmpty = Literal["refuse", "allow"]
OnOutside = Literal["refuse", "drop"]
OnSchemaChange = Literal["raise", "add_columns", "sync"]

SHADOW_INFIX = "__shadow_"
ARCHIVE_INFIX = "__archive_"
_LONGEST_WORD = 38
"""A UUID without hyphens, and the number of a batch."""
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRef:
    """A table's name: `schema.name`, as the user spells it.

    Attributes:
        schema: The schema's name.
        name: The table's own name.
        longest_name: The most bytes that the names of the table's shadows and archives may have.
    """

    schema: str
    name: str
    longest_name: int = field(default=255, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @classmethod
    def parse(cls, text: str, *, default_schema: str) -> TableRef:
        """Read `"table"` or `"schema.table"`.

        Raises:
            ConfigurationError: The text has another number of parts.
        """
        parts = text.split(".")
        if not all(parts) or len(parts) > 2:
            raise ConfigurationError(f'a table is named "table" or "schema.table", not "{text}"')
        return cls(schema=parts[0] if len(parts) == 2 else default_schema, name=parts[-1])

    @property
    def shadow_prefix(self) -> str:
        """What the names of all shadows of this table begin with, and those of no other table's."""
        return self._prefix(SHADOW_INFIX)

    def archive(self, publication_id: str) -> TableRef:
        """Return the name of the table that keeps what one publication replaced in this one."""
        return self._beside(ARCHIVE_INFIX, publication_id)

    def shadow(self, run_id: str, *, batch: int | None = None) -> TableRef:
        """Return the name of this table's shadow for one run, or for one of its batches; no two runs share one."""
        return self._beside(SHADOW_INFIX, run_id if batch is None else f"{run_id}_{batch}")

    def _beside(self, infix: str, text: str) -> TableRef:
        prefix = self._prefix(infix)
        # A UUID is shorter without its hyphens.
        word = re.sub(r"\W", "_", text.replace("-", ""))
        return replace(self, name=prefix + _shortened(word, self.longest_name - len(prefix.encode())))

    def _prefix(self, infix: str) -> str:
        # Whatever the word after it: so it is one prefix for all shadows.
        longest = self.longest_name - len(infix) - min(_LONGEST_WORD, self.longest_name // 3)
        return _shortened(self.name, longest) + infix


def _shortened(name: str, longest: int) -> str:
    """Return a name that is too long as its beginning and a digest of all of it; names that differ by case are one."""
    if len(name.encode()) <= longest:
        return name
    digest = sha256(name.casefold().encode()).hexdigest()[:_DIGITS]
    return name.encode()[: longest - _DIGITS - 1].decode(errors="ignore") + f"_{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column and its type, in the warehouse's own spelling."""

    name: str
    type: str


def names_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the names of columns, in their order."""
    return tuple(map(attrgetter("name"), columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """How an asset is kept in its live table.

    Attributes:
        table: The live table.
        partition_expr: The SQL expression that tells a row's partition, by dimension name;
            under None where the partitions have one dimension. Empty for unpartitioned assets.
        column_timezone: The zone of wall-clock columns; if None, that of the partitions definition.
        unique_key: The columns that identify a row; empty if there is no key.
        updated_at_column: A column that takes the time of the publication in rows that it changed.
        on_empty: Whether no rows at all are an error.
        on_outside: Whether rows outside the slice are an error, or are left out and counted.
        on_schema_change: Whether computed columns that aren't the table's are an error, are added to it, or (`sync`)
            become the table's, which then loses those that aren't computed and changes types that don't fit.
        column_defaults: The SQL expression of what the rows that are there get in a column that is added, by name.
        keep_latest: The column that tells which of the computed rows of one key is kept: the one with its largest
            value. None if no key may come twice.
    """

    table: TableRef
    partition_expr: Mapping[str | None, str] = field(default_factory=dict[str | None, str])
    column_timezone: str | None = None
    unique_key: tuple[str, ...] = ()
    updated_at_column: str | None = None
    on_empty: OnEmpty = "refuse"
    on_outside: OnOutside = "refuse"
    on_schema_change: OnSchemaChange = "raise"
    column_defaults: Mapping[str, str] = field(default_factory=dict[str, str])
    keep_latest: str | None = None


@dataclass(frozen=True, slots=True)
class KeepLatest:
    """Keep, of the computed rows of one key, the one with the largest value in `column`; see `keep_latest`."""

    column: str

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column.strip():  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            raise ConfigurationError(f"keep_latest is the name of a column, not {self.column!r}")


def keep_latest(column: str) -> KeepLatest:
    """Leave out computed rows whose unique key comes again with a larger value in `column`, and count them.

    NULL is the smallest value. Two rows of one key with the same largest value are an error, as nothing tells which
    one is right. For `on_duplicate`.
    """
    return KeepLatest(column)


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT that the warehouse runs itself, so that no row passes through Python.

    `sql` is one SELECT (or WITH … SELECT) in the warehouse's dialect. Its column names are matched to the
    table's; their order is free.

    Example:
        ```python
        @sb.wap_asset(partitions_def=days, partition_expr="day", unique_key=["day"])
        def daily_totals(partitions: sb.PartitionSlice) -> sb.Query:
            return sb.Query(f"SELECT day, sum(x) AS x FROM main.events WHERE {partitions.where()} GROUP BY day")
        ```
    """

    sql: str
