"""What Snowflake's catalog says of tables, and the statements that change their definitions."""

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
_NEVER = 2**63 - 1
"""More than RANDOM() returns."""
_UNQUOTED = ("NUMBER", "FLOAT", "BOOLEAN")


def columns_of(connection: Connection, table: TableRef) -> tuple[Column, ...] | None:
    """See `Tables.columns`."""
    try:
        return connection.described(f"SELECT * FROM {name_of(table)}")
    except TableNotFoundError:
        return None


def named(connection: Connection, schema: str, prefix: str) -> tuple[TableRef, ...]:
    """See `Tables.list`."""
    rows = connection.execute(
        "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES"
        f" WHERE TABLE_SCHEMA = {_text(schema.upper())} AND STARTSWITH(TABLE_NAME, {_text(prefix.upper())})"
        " ORDER BY TABLE_NAME"
    )
    return tuple(TableRef(schema=schema, name=shown(name)) for (name,) in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the catalog says of a table, besides its columns."""

    comment: str
    is_transient: bool


def facts_of(connection: Connection, table: TableRef) -> Facts | None:
    """Return what the catalog says of a table, None if there is none."""
    rows = connection.execute(
        "SELECT COMMENT, IS_TRANSIENT FROM INFORMATION_SCHEMA.TABLES"
        f" WHERE TABLE_SCHEMA = {_text(table.schema.upper())} AND TABLE_NAME = {_text(table.name.upper())}"
    )
    return Facts(comment=rows[0][0] or "", is_transient=rows[0][1] == "YES") if rows else None


def reshape(connection: Connection, table: TableRef, *, dropped: Sequence[str], retyped: Sequence[Column]) -> None:
    """Drop columns of an empty table, and put those whose type changes at its end, as Snowflake changes few types.

    Raises:
        SwapError: The table can't be altered.
    """
    alter = f"ALTER TABLE {name_of(table)}"
    try:
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
            f"{table}: its columns can't change as the computed rows do: {error}", table=str(table)
        ) from error


def add_columns(connection: Connection, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
    """Add columns, with a constant for the rows that are there: Snowflake takes no other default."""
    for column, value in columns.items():
        default = "" if value is None else f" DEFAULT {_constant(connection, value, column)}"
        name = sql_of(terms.column(column.name))
        try:
            connection.execute(f"ALTER TABLE {name_of(table)} ADD COLUMN IF NOT EXISTS {name} {column.type}{default}")
        except TableNotFoundError:
            raise
        except WarehouseError as error:
            raise SwapError(f"{table} can't gain {column.name}: {error}", table=str(table)) from error


def _constant(connection: Connection, value: exp.Expr, column: Column) -> str:
    """Return what an expression comes to now, as a literal of a column's type."""
    text = exp.cast(terms.typed(value.copy(), column.type, dialect=DIALECT), exp.DataType.Type.TEXT)
    ((found,),) = connection.execute(sql_of(exp.select(text)))
    if found is None:
        return "NULL"
    if base(column.type) in _UNQUOTED:
        return str(found)
    literal = _text(str(found))
    return literal if base(column.type) == "VARCHAR" else f"{literal}::{column.type}"


def name_of(table: TableRef) -> str:
    """Return a table's name as it stands in a statement."""
    return sql_of(terms.table(table))


def schema_of(schema: str) -> str:
    """Return a schema's name as it stands in a statement."""
    return sql_of(exp.to_identifier(schema.upper(), quoted=True))


def sql_of(expression: exp.Expr) -> str:
    """Return an expression as text."""
    return expression.sql(dialect=DIALECT)


def _text(value: str) -> str:
    return sql_of(terms.text(value))


def locking(table: TableRef, column: str) -> exp.Update:
    """Return an UPDATE that changes no row, and locks the table all the same until its transaction ends."""
    value = terms.column(column)
    # Nothing that the compiler can tell to be false, as it would leave the statement, and so the lock, out.
    random = exp.GT(this=exp.func("RANDOM", dialect=DIALECT), expression=terms.number(_NEVER))
    never = exp.and_(exp.Is(this=value.copy(), expression=exp.Null()), random)
    return exp.update(terms.table(table), {column: value}, where=never)
