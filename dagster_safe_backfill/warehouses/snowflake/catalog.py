"""Reads Snowflake's catalog of tables, and runs the statements that change their definitions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    OutOfResourcesError,
    StatementCancelledError,
    SwapError,
    TableNotFoundError,
    WarehouseError,
)
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, check_case
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT, shown
from dagster_safe_backfill.warehouses.snowflake.types import base, described

_RETYPED = "_sb_retyped"
_NEVER = 2**63 - 1
"""The largest signed integer of 64 bits. RANDOM() returns no larger number."""
_UNQUOTED = ("NUMBER", "FLOAT", "BOOLEAN")
_IDENTITY = re.compile(r"(IDENTITY|AUTOINCREMENT)\b", re.IGNORECASE)
_TABLE_TYPES = ("BASE TABLE", "TEMPORARY TABLE", "LOCAL TEMPORARY")
"""The values of TABLE_TYPE for tables that rows can be written to."""


def columns_of(connection: Connection, table: TableRef) -> tuple[Column, ...] | None:
    """See `Tables.columns`."""
    rows = _described(connection, table)
    return None if rows is None else tuple(_column(row) for row in rows if not _is_virtual(row))


def virtual_columns(connection: Connection, table: TableRef) -> tuple[str, ...]:
    """See `Tables.generated`."""
    return tuple(shown(row["name"]) for row in _described(connection, table) or () if _is_virtual(row))


def _described(connection: Connection, table: TableRef) -> list[dict[str, Any]] | None:
    # Not INFORMATION_SCHEMA.COLUMNS, which shows neither collations nor the expressions of virtual columns.
    # https://docs.snowflake.com/en/sql-reference/info-schema/columns
    sql = f"DESCRIBE TABLE {name_of(table)}"
    try:
        rows = connection.named(sql)
    except TableNotFoundError:
        return None
    check_case([row["name"] for row in rows], sql)
    return rows


def _column(row: Mapping[str, Any]) -> Column:
    type_name, collation = described(row["type"])
    default: str | None = row.get("default")
    if default is not None and _IDENTITY.match(default):
        # The text of an identity isn't an expression. This one is, and isn't constant.
        default = "IDENTITY"
    return Column(
        name=shown(row["name"]),
        type=type_name,
        collation=collation,
        default=default,
        is_nullable=row.get("null?") != "N",
    )


def _is_virtual(row: Mapping[str, Any]) -> bool:
    return bool(row.get("expression")) or str(row.get("kind")).startswith("VIRTUAL")


def named(connection: Connection, schema: str, prefix: str) -> tuple[TableRef, ...]:
    """See `Tables.list`."""
    # Not LIKE: the names hold underscores, which match any character there.
    rows = connection.execute(
        "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES"
        f" WHERE TABLE_SCHEMA = {_text(schema.upper())} AND STARTSWITH(TABLE_NAME, {_text(prefix.upper())})"
        " ORDER BY TABLE_NAME"
    )
    return tuple(TableRef(schema=schema, name=shown(name)) for (name,) in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The properties of a table in the catalog, without its columns.

    Attributes:
        comment: The comment.
        is_transient: True if the table has no fail-safe.
        kind: What the name stands for if that isn't a table that rows can be written to, such as "view".
    """

    comment: str
    is_transient: bool
    kind: str | None = None

    def check_writable(self, table: TableRef) -> None:
        """See `Tables.check_writable`."""
        if self.kind is not None:
            raise ConfigurationError(
                f"{table} is {'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}, and an asset's rows need a table,"
                f" so nothing was written. Rename or drop the {self.kind}, or give the asset another name or schema."
            )


def facts_of(connection: Connection, table: TableRef) -> Facts | None:
    """Return the properties of a table, or None if there is no such table."""
    # All columns, because which there are depends on the release: IS_DYNAMIC was added later than others.
    rows = connection.named(
        "SELECT * FROM INFORMATION_SCHEMA.TABLES"
        f" WHERE TABLE_SCHEMA = {_text(table.schema.upper())} AND TABLE_NAME = {_text(table.name.upper())}"
    )
    if not rows:
        return None
    (row,) = rows
    return Facts(comment=row["COMMENT"] or "", is_transient=row["IS_TRANSIENT"] == "YES", kind=_kind(row))


def _kind(row: Mapping[str, Any]) -> str | None:
    kind = "DYNAMIC TABLE" if row.get("IS_DYNAMIC") == "YES" else str(row["TABLE_TYPE"])
    return None if kind in _TABLE_TYPES else kind.lower()


def reshape(connection: Connection, table: TableRef, *, dropped: Sequence[str], retyped: Sequence[Column]) -> None:
    """Drop columns of an empty table, and replace columns whose type changes by new ones at the end of the table.

    Raises:
        SwapError: The table can't be altered.
    """
    alter = f"ALTER TABLE {name_of(table)}"
    try:
        # ALTER COLUMN only lengthens a VARCHAR or changes the precision of a NUMBER, so the column is replaced.
        # https://docs.snowflake.com/en/sql-reference/sql/alter-table-column
        for column in retyped:
            name, aside = sql_of(terms.column(column.name)), sql_of(terms.column(_RETYPED))
            connection.execute(f"{alter} ADD COLUMN {aside} {column.type}")
            connection.execute(f"{alter} DROP COLUMN {name}")
            connection.execute(f"{alter} RENAME COLUMN {aside} TO {name}")
        for name in dropped:
            connection.execute(f"{alter} DROP COLUMN {sql_of(terms.column(name))}")
    except (StatementCancelledError, OutOfResourcesError):
        raise
    except WarehouseError as error:
        raise SwapError(
            f"{table}: its columns can't be changed to those of the computed rows: {error}", table=str(table)
        ) from error


def add_columns(connection: Connection, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
    """Add columns, with a constant for existing rows: Snowflake allows no other default in ADD COLUMN."""
    for column, value in columns.items():
        default = "" if value is None else f" DEFAULT {_constant(connection, value, column)}"
        name = sql_of(terms.column(column.name))
        try:
            # IF NOT EXISTS: DDL isn't undone with a transaction, so an earlier attempt may have added the column.
            connection.execute(f"ALTER TABLE {name_of(table)} ADD COLUMN IF NOT EXISTS {name} {column.type}{default}")
        except (TableNotFoundError, StatementCancelledError, OutOfResourcesError):
            raise
        except WarehouseError as error:
            raise SwapError(f"{table} can't gain {column.name}: {error}", table=str(table)) from error


def _constant(connection: Connection, value: exp.Expr, column: Column) -> str:
    """Evaluate an expression, and return its value as a literal of the column's type."""
    # Cast to text in Snowflake, so that no value is changed by Python's types.
    text = exp.cast(terms.typed(value.copy(), column.type, dialect=DIALECT), exp.DataType.Type.TEXT)
    ((found,),) = connection.execute(sql_of(exp.select(text)))
    if found is None:
        return "NULL"
    if base(column.type) in _UNQUOTED:
        return str(found)
    literal = _text(str(found))
    return literal if base(column.type) == "VARCHAR" else f"{literal}::{column.type}"


def name_of(table: TableRef) -> str:
    """Return a table's name, quoted for a statement."""
    return sql_of(terms.table(table))


def schema_of(schema: str) -> str:
    """Return a schema's name, quoted for a statement."""
    return sql_of(exp.to_identifier(schema.upper(), quoted=True))


def sql_of(expression: exp.Expr) -> str:
    """Return an expression as text."""
    return expression.sql(dialect=DIALECT)


def _text(value: str) -> str:
    return sql_of(terms.text(value))


def locking(table: TableRef, column: str) -> exp.Update:
    """Return an UPDATE that changes no row, but locks the table until its transaction ends."""
    value = terms.column(column)
    # With a condition that is false for the compiler, such as FALSE, it might skip the table and so the lock. Only
    # warehouses/snowflake/test_live.py can show that this condition does lock.
    random = exp.GT(this=exp.func("RANDOM", dialect=DIALECT), expression=terms.number(_NEVER))
    never = exp.and_(exp.Is(this=value.copy(), expression=exp.Null()), random)
    return exp.update(terms.table(table), {column: value}, where=never)
