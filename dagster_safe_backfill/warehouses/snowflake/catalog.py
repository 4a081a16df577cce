"""Reads Snowflake's catalog of tables, and runs the statements that change their definitions."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    OutOfResourcesError,
    StatementCancelledError,
    SwapError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import not_a_table
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, check_case
from dagster_safe_backfill.warehouses.snowflake.errors import EXISTS, is_numbered
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT, shown
from dagster_safe_backfill.warehouses.snowflake.types import base, described

_LOG = logging.getLogger(__name__)

_IDENTITY = re.compile(r"(IDENTITY|AUTOINCREMENT)\b", re.IGNORECASE)
_OTHER_KINDS = {
    "is_dynamic": "dynamic table",
    "is_iceberg": "Iceberg table",
    "is_hybrid": "hybrid table",
    "is_external": "external table",
    "is_event": "event table",
}
"""The columns of SHOW TABLES that mark tables of other kinds."""
_LOOKS = 3
_UNFILLED = "dagster_safe_backfill_unfilled"
"""In a table's comment, the columns that were added to it and aren't filled yet. See `add_columns`."""


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
        rows = connection.shown(sql)
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
    rows = _shown(connection, "TERSE TABLES", schema, prefix.upper())
    return tuple(TableRef(schema=schema, name=shown(row["name"])) for row in rows)


def shown_table(connection: Connection, table: TableRef) -> dict[str, Any] | None:
    """Return a table's row of SHOW TABLES, or None if there is no such table."""
    name = table.name.upper()
    rows = [row for row in _shown(connection, "TABLES", table.schema, name) if row["name"] == name]
    # A temporary table hides another one of its name.
    return min(rows, key=lambda row: row["kind"] != "TEMPORARY", default=None)


def _shown(connection: Connection, what: str, schema: str, prefix: str) -> list[dict[str, Any]]:
    """Return the rows of SHOW for names that begin with a prefix; none if there is no such schema."""
    # Unlike INFORMATION_SCHEMA, SHOW needs no virtual warehouse. Unlike STARTS WITH, LIKE has wildcards, which names
    # contain, and ignores case. https://docs.snowflake.com/en/sql-reference/sql/show-tables
    try:
        rows = connection.shown(f"SHOW {what} IN SCHEMA {schema_of(schema)} STARTS WITH {_text(prefix)}")
    except TableNotFoundError:
        return []
    return sorted(rows, key=lambda row: row["name"])


def in_any_schema(connection: Connection, name: str) -> tuple[TableRef, ...]:
    """See `Tables.find`."""
    where = f"TABLE_NAME = {_text(name.upper())}"
    rows = connection.execute(f"SELECT TABLE_SCHEMA FROM INFORMATION_SCHEMA.TABLES WHERE {where} ORDER BY TABLE_SCHEMA")
    return tuple(TableRef(schema=shown(schema), name=name) for (schema,) in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The properties of a table in the catalog, without its columns.

    Attributes:
        comment: The comment.
        is_transient: True if the table has no fail-safe.
        kind: What the name stands for if that isn't a table that rows can be written to, such as "view".
        owner: The role that owns the table, if the catalog shows it.
    """

    comment: str
    is_transient: bool
    kind: str | None = None
    owner: str | None = None

    def check_writable(self, table: TableRef) -> None:
        """Refuse what isn't a table.

        Raises:
            ConfigurationError: It is a view, or another kind that rows can't be written to.
        """
        if self.kind is not None:
            raise not_a_table(table, self.kind)


def facts_of(connection: Connection, table: TableRef) -> Facts | None:
    """Return the properties of a table, or None if there is no such table."""
    row = shown_table(connection, table)
    if row is not None:
        # Which columns there are depends on the release: `is_dynamic` was added later than others.
        kind = next((kind for column, kind in _OTHER_KINDS.items() if row.get(column) in ("YES", "Y")), None)
        is_transient = row["kind"] == "TRANSIENT"
        return Facts(comment=row["comment"] or "", is_transient=is_transient, kind=kind, owner=row.get("owner"))
    for row in _shown(connection, "VIEWS", table.schema, table.name.upper()):
        if row["name"] == table.name.upper():
            kind = "materialized view" if row.get("is_materialized") in ("true", True) else "view"
            return Facts(comment=row["comment"] or "", is_transient=False, kind=kind)
    return None


def check_seen(connection: Connection, table: TableRef, facts: Facts) -> None:
    """Refuse a table of which the role may not see all: it would write what it sees, and copies would be unprotected.

    Snowflake shows all policies of a table to its owner. To others it may show none. Then the columns' policies and the
    number of rows decide.

    Raises:
        ConfigurationError: The table has a policy, or more rows than the role sees.
    """
    found = _policies(connection, table)
    if not found and facts.owner == connection.role:
        return
    found = found or [
        f"the masking policy {row['policy name']} of the column {shown(row['name'])}"
        for row in _described(connection, table) or ()
        if row.get("policy name")
    ]
    if found:
        raise ConfigurationError(
            f"{table} has {', '.join(found)}. The role {connection.role} may not see the table as it is. A publication"
            " or a rollback would write what the role sees, and shadows and archives would show others what the policy"
            " hides. So nothing was written. Take the policy off the table, and set it on a view for its readers."
        )
    _check_rows(connection, table)
    _LOG.info(
        "the role %s doesn't own %s, so Snowflake may not show it all policies. It sees all rows. Whether a tag masks"
        " columns isn't known",
        connection.role,
        table,
    )


def _policies(connection: Connection, table: TableRef) -> list[str]:
    """Return the table's policies that the role may see, in words."""
    # https://docs.snowflake.com/en/sql-reference/functions/policy_references
    of = f"REF_ENTITY_NAME => {_text(name_of(table))}, REF_ENTITY_DOMAIN => 'TABLE'"
    try:
        rows = connection.shown(f"SELECT * FROM TABLE(INFORMATION_SCHEMA.POLICY_REFERENCES({of}))")
    except (TransactionConflictError, StatementCancelledError, OutOfResourcesError, WarehouseUnavailableError):
        raise
    except WarehouseError as error:
        _LOG.debug("%s", error)
        return []
    return list(map(_policy, rows))


def _policy(row: Mapping[str, Any]) -> str:
    kind = str(row["policy_kind"]).replace("_", " ").lower()
    column = f" of the column {shown(row['ref_column_name'])}" if row.get("ref_column_name") else ""
    tag = f", by the tag {row['tag_name']}" if row.get("tag_name") else ""
    return f"the {kind} {row['policy_name']}{column}{tag}"


def _check_rows(connection: Connection, table: TableRef) -> None:
    there = visible = 0
    for _ in range(_LOOKS):
        # A row access policy hides rows from COUNT(*), and not from the catalog.
        found = connection.execute(
            f"SELECT ROW_COUNT, (SELECT COUNT(*) FROM {name_of(table)}) AS SEEN FROM INFORMATION_SCHEMA.TABLES"
            f" WHERE TABLE_SCHEMA = {_text(table.schema.upper())} AND TABLE_NAME = {_text(table.name.upper())}"
        )
        there, visible = found[0] if found else (None, 0)
        if there is None or visible >= there:
            return
    raise ConfigurationError(
        f"{table}: the role {connection.role} sees {visible:,} of the {there:,} rows, so the table has a row access"
        " policy. A publication would leave or double the rows that the role doesn't see, so nothing was written. Take"
        " the policy off the table, and set it on a view for its readers."
    )


def add_columns(
    connection: Connection, table: TableRef, columns: Mapping[Column, exp.Expr | None], *, is_clone: bool = False
) -> None:
    """Add the columns that the table doesn't have, and fill them in existing rows.

    A DEFAULT does that without a scan, but Snowflake takes only a literal there. Where a type has no literal, the rows
    are updated. In between, the table's comment says which columns aren't filled yet: if the session is lost, `filled`
    completes them.

    Args:
        connection: A connection that commits each statement.
        table: The table.
        columns: A mapping from column to the value for existing rows, or None.
        is_clone: True if the table is dropped after a crash, so that it needs no mark.
    """
    there = {column.name for column in columns_of(connection, table) or ()}
    missing = {column: value for column, value in columns.items() if column.name not in there}
    literals, updates = _divided(connection, missing)
    facts = facts_of(connection, table) if updates and not is_clone else None
    if facts is not None:
        connection.execute(commented(table, json.dumps({_UNFILLED: updates, "comment": facts.comment})))
    for column in missing:
        # Not IF NOT EXISTS: it excludes DEFAULT. https://docs.snowflake.com/en/sql-reference/sql/alter-table
        default = f" DEFAULT {literals[column.name]}" if column.name in literals else ""
        _add_column(connection, table, column, default)
    for name, sql in updates.items():
        _fill(connection, table, name, sql)
    if facts is not None:
        connection.execute(commented(table, facts.comment))


def _divided(
    connection: Connection, columns: Mapping[Column, exp.Expr | None]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return two mappings from column name: to a literal for DEFAULT, and to the SQL of a value for an UPDATE."""
    literals: dict[str, str] = {}
    updates: dict[str, str] = {}
    for column, value in columns.items():
        if value is None:
            continue
        literal = _literal(connection, value, column)
        if literal is None:
            sql = sql_of(terms.typed(value.copy(), column.type, dialect=DIALECT))
            # Compiled alone, so that it can't name a column: it is one value for all rows.
            connection.described(f"SELECT {sql}")
            updates[column.name] = sql
        else:
            literals[column.name] = literal
    return literals, updates


def _add_column(connection: Connection, table: TableRef, column: Column, default: str) -> None:
    name = sql_of(terms.column(column.name))
    try:
        connection.execute(f"ALTER TABLE {name_of(table)} ADD COLUMN {name} {column.type}{default}")
    except (
        TableNotFoundError,
        TransactionConflictError,
        StatementCancelledError,
        OutOfResourcesError,
        WarehouseUnavailableError,
    ):
        raise
    except WarehouseError as error:
        if is_numbered(error, EXISTS):
            raise TransactionConflictError(f"another session added {column.name} to {table}") from error
        raise SwapError(f"{table} can't gain {column.name}: {error}", table=str(table)) from error


def _fill(connection: Connection, table: TableRef, name: str, sql: str) -> None:
    column = terms.column(name)
    value = terms.parsed(sql, dialect=DIALECT, option=f"{table}: the value of {name}")
    # What others wrote there in the meantime stays.
    is_empty = exp.Is(this=column.copy(), expression=exp.Null())
    connection.execute(sql_of(_updated(table, column, value, where=is_empty)))


def filled(connection: Connection, table: TableRef, facts: Facts) -> str | None:
    """Fill the columns that a lost session added and did not fill; return what was done, or None."""
    try:
        mark = json.loads(facts.comment)
    except ValueError:
        return None
    if not isinstance(mark, dict) or _UNFILLED not in mark:
        return None
    found = cast("dict[str, Any]", mark)
    # The session may have been lost before it added them. Then the next publication adds them.
    there = {column.name for column in columns_of(connection, table) or ()}
    names = [name for name in found[_UNFILLED] if name in there]
    for name in names:
        _fill(connection, table, name, found[_UNFILLED][name])
    connection.execute(commented(table, found["comment"]))
    return f"its columns {', '.join(names)} were added by a session that was lost, and are filled" if names else None


def _literal(connection: Connection, value: exp.Expr, column: Column) -> str | None:
    """Return a value as a literal of the column's type, or None if the type has no exact literal."""
    kind = base(column.type)
    # A float's text has fewer digits than the float.
    if kind == "FLOAT":
        number = value.this if isinstance(value, exp.Neg) else value
        return sql_of(value) if isinstance(number, exp.Literal) and not number.is_string else None
    if kind not in ("NUMBER", "BOOLEAN", "VARCHAR"):
        return None
    # Cast to text in Snowflake, so that no value is changed by Python's types.
    text = exp.cast(terms.typed(value.copy(), column.type, dialect=DIALECT), exp.DataType.Type.TEXT)
    ((found,),) = connection.execute(sql_of(exp.select(text)))
    if found is None:
        return "NULL"
    return _text(str(found)) if kind == "VARCHAR" else str(found)


def commented(table: TableRef, comment: str) -> str:
    """Return the statement that sets a table's comment."""
    return f"COMMENT ON TABLE {name_of(table)} IS {_text(comment)}"


def has_schema(connection: Connection, schema: str) -> bool:
    """Return True if a schema exists and the role may see it."""
    # LIKE has wildcards, and ignores case.
    rows = connection.shown(f"SHOW TERSE SCHEMAS LIKE {_text(schema.upper())}")
    return any(row["name"] == schema.upper() for row in rows)


def create_schema(connection: Connection, schema: str) -> None:
    """Create a schema if it doesn't exist, which makes it the connection's current one.

    Raises:
        WarehouseError: The role isn't allowed to.
    """
    try:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema_of(schema)}")
    except WarehouseUnavailableError:
        raise
    except WarehouseError as error:
        name = schema_of(schema)
        raise WarehouseError(
            f"the schema {name} doesn't exist, or the role isn't allowed to see it, and the role can't create it. Grant"
            f" USAGE on the schema to the role, or CREATE SCHEMA on the database: {error}"
        ) from error


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


def _updated(table: TableRef, column: exp.Column, value: exp.Expr, *, where: exp.Expr) -> exp.Update:
    # Not exp.update(), which parses the names of columns as SQL, so that `order` or `my col` would break it.
    return exp.Update(this=terms.table(table), expressions=[column.eq(value)], where=exp.Where(this=where))
