"""What DuckDB's catalog says of tables, and the statements that change their definitions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.errors import StatementCancelledError, SwapError, WarehouseError
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Row

Execute = Callable[[str, Mapping[str, Any] | None], list[Row]]

_DIALECT = "duckdb"
_IS_TABLE = (
    "database_name = current_database() AND lower(schema_name) = lower($schema) AND lower(table_name) = lower($name)"
)


class DuckDBTables:
    """The definitions of a session's tables.

    Args:
        execute: Runs a statement with named parameters, and returns its rows.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Connection.columns`."""
        rows = self._execute(
            f"SELECT column_name, data_type FROM duckdb_columns() WHERE {_IS_TABLE} ORDER BY column_index",
            _parameters(table),
        )
        return tuple(Column(name=name, type=type_) for name, type_ in rows) or None

    def named(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Connection.tables`."""
        rows = self._execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()"
            " AND lower(schema_name) = lower($schema) AND starts_with(lower(table_name), lower($prefix))"
            " ORDER BY table_name",
            {"schema": schema, "prefix": prefix},
        )
        return tuple(TableRef(schema=schema_name, name=name) for schema_name, name in rows)

    def hold(self, table: TableRef) -> None:
        """Give a table the comment that it has: a change of its definition, which keeps other transactions off it.

        Since DuckDB 2.0, whoever writes to a table whose definition another transaction changes fails; before,
        that holds just for changes of definitions, so that publications keep each other off.
        """
        found = self._execute(f"SELECT comment FROM duckdb_tables() WHERE {_IS_TABLE}", _parameters(table))
        if found:
            self._comment("TABLE", _sql(terms.table(table)), found[0][0])

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Connection.add_columns`."""
        with self._without_indexes(table, to=f"gain {', '.join(column.name for column in columns)}"):
            for column, value in columns.items():
                default = "" if value is None else f" DEFAULT ({_sql(value)})"
                name = _sql(terms.column(column.name))
                self._execute(f"ALTER TABLE {_sql(terms.table(table))} ADD COLUMN {name} {column.type}{default}", None)

    def reshape(self, table: TableRef, *, dropped: Sequence[str], retyped: Sequence[Column]) -> None:
        """Drop columns, and change the types of others."""
        alter = f"ALTER TABLE {_sql(terms.table(table))}"
        try:
            for name in dropped:
                self._execute(f"{alter} DROP COLUMN {_sql(terms.column(name))}", None)
            for column in retyped:
                self._execute(f"{alter} ALTER COLUMN {_sql(terms.column(column.name))} TYPE {column.type}", None)
        except StatementCancelledError:
            raise
        except WarehouseError as error:
            raise SwapError(
                f"{table}: its columns can't change as the computed rows do: {error}", table=str(table)
            ) from error

    @contextmanager
    def cloned(self, table: TableRef, *, aside: TableRef) -> Generator[None, None, None]:
        """See `Connection.cloned`."""
        self._check_clone(table)
        ((definition, comment),) = self._execute(
            f"SELECT sql, comment FROM duckdb_tables() WHERE {_IS_TABLE}", _parameters(table)
        )
        comments = self._execute(
            f"SELECT column_name, comment FROM duckdb_columns() WHERE {_IS_TABLE} AND comment IS NOT NULL",
            _parameters(table),
        )
        name = _sql(terms.table(table))
        with self._without_indexes(table, to="be renamed"):
            self._rename(table, aside)
            # The catalog's own text says all of it: keys, checks, defaults, collations, generated columns.
            self._execute(definition, None)
            self._comment("TABLE", name, comment)
            for column, text in comments:
                self._comment("COLUMN", f"{name}.{_sql(terms.column(column))}", text)
            yield

    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """See `Connection.put_back`."""
        self._check_clone(table)
        with self._without_indexes(table, to="be renamed"):
            self._rename(table, aside)
            # Under its old name the catalog's own text of it is that of the table that it becomes.
            self._rename(archive, table)
            with self.cloned(table, aside=archive):
                names = ", ".join(_sql(terms.column(column.name)) for column in self.columns(table) or ())
                rows = f"SELECT {names} FROM {_sql(terms.table(archive))}"
                self._execute(f"INSERT INTO {_sql(terms.table(table))} ({names}) {rows}", None)

    def _rename(self, table: TableRef, to: TableRef) -> None:
        self._execute(f"ALTER TABLE {_sql(terms.table(table))} RENAME TO {_sql(terms.relation(to.name))}", None)

    def _check_clone(self, table: TableRef) -> None:
        keys = "SELECT schema_name || '.' || table_name, constraint_text FROM duckdb_constraints() WHERE"
        keys += " database_name = current_database() AND constraint_type = 'FOREIGN KEY'"
        own = self._execute(f"{keys} AND {_IS_TABLE}", _parameters(table))
        if own:
            raise SwapError(
                f"{table} can't be swapped: it has a foreign key ({own[0][1]}), and its archive would go on holding the"
                ' rows that it refers to; publish by "merge" or "replace"',
                table=str(table),
            )
        parents = self._execute(
            f"{keys} AND lower(schema_name) = lower($schema) AND lower(referenced_table) = lower($name)",
            _parameters(table),
        )
        if parents:
            raise SwapError(
                f"{table} can't be swapped: the foreign key of {parents[0][0]} ({parents[0][1]}) refers to it;"
                ' publish by "merge" or "replace"',
                table=str(table),
            )

    @contextmanager
    def _without_indexes(self, table: TableRef, *, to: str) -> Generator[None, None, None]:
        """Drop a table's secondary indexes, as DuckDB alters no table that has some; create them anew at the end."""
        indexes = self._execute(
            f"SELECT index_name, sql FROM duckdb_indexes() WHERE {_IS_TABLE} AND sql IS NOT NULL", _parameters(table)
        )
        for name, _ in indexes:
            self._execute(f"DROP INDEX {_sql(terms.table(TableRef(schema=table.schema, name=name)))}", None)
        try:
            yield
            for _, definition in indexes:
                self._execute(definition, None)
        except WarehouseError as error:
            # Before 2.0, an index that was dropped is still in the way of one of its name, if the table was altered.
            is_index = any(f"name {name} already exists" in str(error) for name, _ in indexes)
            if not is_index and "Dependency Error" not in str(error):
                raise
            why = "its secondary indexes are in the way; drop them before" if is_index else "something depends on it"
            raise SwapError(f"{table} can't {to}, as {why}: {error}", table=str(table)) from error

    def _comment(self, kind: str, name: str, text: str | None) -> None:
        literal = "NULL" if text is None else _sql(terms.text(text))
        self._execute(f"COMMENT ON {kind} {name} IS {literal}", None)


def _parameters(table: TableRef) -> Mapping[str, Any]:
    return {"schema": table.schema, "name": table.name}


def _sql(expression: exp.Expr) -> str:
    return expression.sql(dialect=_DIALECT)
