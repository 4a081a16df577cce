"""Reads Snowflake's catalog of tables, and runs the statements that change their definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from dagster_safe_backfill.errors import StatementCancelledError, SwapError, TableNotFoundError, WarehouseError
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake.driver import Connection
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT, shown
from dagster_safe_backfill.warehouses.snowflake.types import base

_RETYPED = "_sb_retyped"
_UNQUOTED = ("NUMBER", "FLOAT", "BOOLEAN")


def columns_of(connection: Connection, table: TableRef) -> tuple[Column, ...] | None:
    """See `Tables.columns`."""
    # Not read from INFORMATION_SCHEMA, so that types are spelled like those of a SELECT: `fit` compares the two.
    try:
        return connection.described(f"SELECT * FROM {name_of(table)}")
    except TableNotFoundError:
        return None


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
    """The properties of a table in the catalog, without its columns."""

    comment: str
    is_transient: bool


def facts_of(connection: Connection, table: TableRef) -> Facts | None:
    """Return the properties of a table, or None if there is no such table."""
    rows = connection.execute(
        "SELECT COMMENT, IS_TRANSIENT FROM INFORMATION_SCHEMA.TABLES"
        f" WHERE TABLE_SCHEMA = {_text(table.schema.upper())} AND TABLE_NAME = {_text(table.name.upper())}"
    )
    return Facts(comment=rows[0][0] or "", is_transient=rows[0][1] == "YES") if rows else None


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
    except StatementCancelledError:
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
        except TableNotFoundError:
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
