"""Tables: their names and columns, and how an asset is kept in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from operator import attrgetter
from typing import Any, Literal

from dagster_safe_backfill.errors import ConfigurationError

ColumnType = Literal["date", "timestamp", "timestamptz"]
"""How a column keeps time: as calendar days, as wall-clock times of a known time zone, or as instants."""

OnEmpty = Literal["refuse", "allow"]
OnOutside = Literal["refuse", "drop"]
OnMissingColumn = Literal["refuse", "fill"]
OnSchemaChange = Literal["raise", "add_columns", "sync"]
OnMovedKey = Literal["raise", "move"]
Loss = Literal["streams", "owner"]
"""Something of a table that a swap may lose, if it is allowed to. See `Swap.may_lose`."""

SHADOW_INFIX = "__shadow_"
ARCHIVE_INFIX = "__archive_"
LOCK_INFIX = "__lock"
_LONGEST_WORD = 38
"""The length of a UUID without hyphens and the number of a batch."""
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRef:
    """The name of a table, `schema.name`, as the user spells it.

    Attributes:
        schema: The schema's name.
        name: The table's name within the schema.
        longest_name: The maximum length of the names of the table's shadows and archives, in bytes.
        database: The name or path of the database, for Dagster's events; empty if it isn't known.
        storage_kind: The kind of the database, as Dagster's UI names it; empty if it isn't known.
        wap_schema: The schema of the table's shadows, archives, ledger and lock. None if it is the table's own.
    """

    schema: str
    name: str
    # Not compared: a name that was read from the ledger doesn't have the warehouse's limit.
    longest_name: int = field(default=255, compare=False, repr=False)
    database: str = field(default="", compare=False, repr=False)
    storage_kind: str = field(default="", compare=False, repr=False)
    wap_schema: str | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def full_name(self) -> str:
        """The name with that of the database: `database.schema.name`."""
        return f"{self.database}.{self}" if self.database else str(self)

    @classmethod
    def parse(cls, text: str, *, default_schema: str) -> TableRef:
        """Parse `"table"` or `"schema.table"`.

        Raises:
            ConfigurationError: The text has more than two parts, or an empty one.
        """
        parts = text.split(".")
        if not all(parts) or len(parts) > 2:
            raise ConfigurationError(f'a table\'s name must have the form "table" or "schema.table", not "{text}"')
        return cls(schema=parts[0] if len(parts) == 2 else default_schema, name=parts[-1])

    @property
    def schema_beside(self) -> str:
        """The schema of the table's shadows, archives, ledger and lock."""
        return self.wap_schema or self.schema

    @property
    def schemas(self) -> tuple[str, ...]:
        """The schemas that a write needs: the table's own, and `wap_schema` if there is one."""
        return (self.schema,) if self.wap_schema is None else (self.schema, self.wap_schema)

    @property
    def shadow_prefix(self) -> str:
        """The prefix of the names of this table's shadows; shadows of other tables have other prefixes."""
        return self._beside(SHADOW_INFIX, "").name

    def archive(self, publication_id: str) -> TableRef:
        """Return the name of the archive that keeps the rows that one publication replaced in this table."""
        return self._beside(ARCHIVE_INFIX, publication_id)

    def aside(self, publication_id: str) -> TableRef:
        """Return the name of the archive of a publication that swaps the table.

        It is the old table, which stays in its schema: DuckDB can't move a table to another schema, and the readers of
        its schema could read it before. Without a `wap_schema`, it is the name that `archive` returns.
        """
        return replace(self, wap_schema=None).archive(publication_id)

    def archives(self, publication_id: str) -> tuple[TableRef, ...]:
        """Return the names that a publication's archive may have: `archive` and, if it is another one, `aside`."""
        return tuple(dict.fromkeys((self.archive(publication_id), self.aside(publication_id))))

    def archive_named(self, name: str) -> TableRef:
        """Return the archive with a name that the ledger holds; the name shows whether it is in the `wap_schema`."""
        prefix = self._beside(ARCHIVE_INFIX, "").name
        is_beside = name.casefold().startswith(prefix.casefold())
        return TableRef(schema=self.schema_beside if is_beside else self.schema, name=name)

    def shadow_named(self, text: str) -> TableRef:
        """Return the shadow that the ledger names as `schema.name`; it may be older than the `wap_schema`."""
        # Not split at the dot: the name of a schema or table may contain one.
        for schema in dict.fromkeys((self.schema_beside, self.schema)):
            if text.casefold().startswith(f"{schema.casefold()}."):
                return TableRef(schema=schema, name=text[len(schema) + 1 :])
        return TableRef(schema=self.schema_beside, name=text.partition(".")[2])

    def shadow(self, run_id: str, *, batch: int | None = None) -> TableRef:
        """Return the name of this table's shadow for a run, or for one of its batches; every run has its own."""
        return self._beside(SHADOW_INFIX, run_id if batch is None else f"{run_id}_{batch}")

    @property
    def lock(self) -> TableRef:
        """The name of the table whose row a transaction changes to hold this table, where it takes one."""
        return self._beside(LOCK_INFIX, "")

    def _beside(self, infix: str, text: str) -> TableRef:
        # Does not depend on the length of the word that follows, so that all shadows have the same prefix.
        longest = self.longest_name - len(infix) - min(_LONGEST_WORD, self.longest_name // 3)
        prefix = _shortened(self._name_beside, longest) + infix
        # A UUID is shorter without its hyphens.
        word = re.sub(r"\W", "_", text.replace("-", ""))
        name = prefix + _shortened(word, self.longest_name - len(prefix.encode()))
        return replace(self, schema=self.schema_beside, name=name, wap_schema=None)

    @property
    def _name_beside(self) -> str:
        """The table's name; in a `wap_schema`, which tables of several schemas may share, with that of its schema."""
        if self.wap_schema is None:
            return self.name
        name = f"{self.schema}__{self.name}"
        # `a__b` and `c` would have the same name as `a` and `b__c`.
        is_clear = name.count("__") == 1 and "___" not in name
        return name if is_clear else f"{name}_{_digest(f'{len(self.schema)}.{name}')}"


def _shortened(name: str, longest: int) -> str:
    """Return `name`, or its beginning and a digest of it if it is longer than `longest` bytes.

    The digest ignores case: names that differ only by case belong to the same table.
    """
    if len(name.encode()) <= longest:
        return name
    # The cut may split a character of several bytes, of which "ignore" drops the rest.
    return name.encode()[: longest - _DIGITS - 1].decode(errors="ignore") + f"_{_digest(name)}"


def _digest(name: str) -> str:
    # DuckDB ignores the case of identifiers, even of quoted ones (its docs, "Keywords and Identifiers").
    return sha256(name.casefold().encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The name and type of a table's column, as the warehouse spells them.

    Columns with the same name and type are equal, whatever the table says about their values.

    Attributes:
        name: The column's name.
        type: The column's type.
        collation: The collation of the column's texts, as far as the warehouse shows it; None if texts are compared by
            their bytes.
        default: The SQL expression of the value that an inserted row gets if it names none; None if that is NULL.
        is_nullable: False if the table doesn't accept NULL in the column.
    """

    name: str
    type: str
    collation: str | None = field(default=None, compare=False)
    default: str | None = field(default=None, compare=False, repr=False)
    is_nullable: bool = field(default=True, compare=False, repr=False)


def names_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the names of the columns, in the same order."""
    return tuple(map(attrgetter("name"), columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """How an asset is kept in its live table.

    Attributes:
        table: The live table.
        partition_expr: See `AssetOptions.partition_expr`.
        column_timezone: See `TableOptions.column_timezone`.
        unique_key: See `AssetOptions.unique_key`.
        updated_at_column: See `TableOptions.updated_at_column`.
        on_empty: See `TableOptions.on_empty`.
        on_outside: See `TableOptions.on_outside`.
        on_missing_column: See `TableOptions.on_missing_column`.
        on_schema_change: See `Swap.on_schema_change`.
        on_moved_key: See `Merge.on_moved_key`.
        column_defaults: See `Merge.column_defaults`.
        keep_latest: The column whose largest value selects the row of a key that is kept. None if duplicates are an
            error.
        may_lose: See `Swap.may_lose`.
    """

    table: TableRef
    partition_expr: Mapping[str | None, str] = field(default_factory=dict[str | None, str])
    column_timezone: str | None = None
    unique_key: tuple[str, ...] = ()
    updated_at_column: str | None = None
    on_empty: OnEmpty = "refuse"
    on_outside: OnOutside = "refuse"
    on_missing_column: OnMissingColumn = "refuse"
    on_schema_change: OnSchemaChange = "raise"
    on_moved_key: OnMovedKey = "raise"
    column_defaults: Mapping[str, str] = field(default_factory=dict[str, str])
    keep_latest: str | None = None
    may_lose: tuple[Loss, ...] = ()

    @property
    def rules(self) -> str:
        """A text that changes with each option that shapes the table's rows, and not with the table's name."""
        rules: list[str] = []
        for one in fields(self):
            value: Any = getattr(self, one.name)
            if one.name not in ("table", "may_lose"):
                # The order of a mapping doesn't count.
                rules.append(f"{one.name}={sorted(value.items(), key=repr) if hasattr(value, 'items') else value!r}")
        return ", ".join(rules)


@dataclass(frozen=True, slots=True)
class KeepLatest:
    """A choice for `on_duplicate`: keep the computed row with the largest value in `column`. See `keep_latest`.

    Raises:
        ConfigurationError: The column isn't a text, or is blank.
    """

    column: str

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column.strip():  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            raise ConfigurationError(f"keep_latest must be the name of a column, not {self.column!r}")


def keep_latest(column: str) -> KeepLatest:
    """Keep, for each unique key, the computed row with the largest value in `column`; count the others.

    NULL is smaller than any value. If two rows of a key share the largest value, the write fails with
    `KeyViolationError`, because neither row is the latest. Pass the result to `TableOptions(on_duplicate=…)`.

    Raises:
        ConfigurationError: The column isn't a text, or is blank.

    Example:
        ```python
        table = sb.TableOptions(on_duplicate=sb.keep_latest("ingested_at"))
        ```
    """
    return KeepLatest(column)


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT statement that the warehouse runs; its rows don't pass through Python.

    Columns are matched to the table's by name; their order doesn't matter.

    Attributes:
        sql: One SELECT, or WITH … SELECT, in the warehouse's dialect.

    Example:
        ```python
        @sb.wap_asset(partitions_def=days, partition_expr="day", unique_key=["day"])
        def daily_totals(partitions: sb.PartitionSlice) -> sb.Query:
            return sb.Query(f"SELECT day, sum(x) AS x FROM main.events WHERE {partitions.where()} GROUP BY day")
        ```
    """

    # Its text may hold a secret.
    sql: str = field(repr=False)
