"""DuckDB's tables: lists and describes them, and changes their definitions as part of the transaction."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    SwapError,
    WarehouseError,
)
from dagster_safe_backfill.model.tables import Column, Loss, TableRef, names_of
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Replacement, Row, Session, TableKind, Tables, not_a_table, reshaping
from dagster_safe_backfill.warehouses.duckdb.definitions import collations_of, generated_of
from dagster_safe_backfill.warehouses.duckdb.names import TEMPORARY, Names, quoted

Execute = Callable[[str, Sequence[Any]], list[Row]]

# Statements ignore the case of a name, but the catalog's functions return it as a text with its case. They also list
# the tables of `temp` and of attached databases.
_IS_TABLE = "database_name = current_database() AND lower(schema_name) = lower($1) AND lower(table_name) = lower($2)"

_DEFINITION = f"SELECT sql FROM duckdb_tables() WHERE {_IS_TABLE}"
_VIEWS = (
    "SELECT sql FROM duckdb_views() WHERE database_name = current_database()"
    " AND lower(schema_name) = lower($1) AND lower(view_name) = lower($2)"
)
_KEYS = (
    "SELECT schema_name || '.' || table_name, constraint_text FROM duckdb_constraints()"
    " WHERE database_name = current_database() AND constraint_type = 'FOREIGN KEY'"
)


class DuckDBTables(Tables):
    """The tables of a session.

    Args:
        execute: Runs a statement with parameters and returns its rows.
        beside: Opens a second session for a block, outside this session's transaction.
        names: Names tables in statements.
    """

    def __init__(self, execute: Execute, beside: Callable[[], AbstractContextManager[Session]], names: Names) -> None:
        self._execute = execute
        self._beside = beside
        self._names = names
        self._known: dict[TableRef, tuple[Column, ...] | None] | None = None

    @contextmanager
    def unchanging(self) -> Generator[None, None, None]:
        """Look up each table once in a transaction, in which only its own statements change the definitions it sees."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Tables.columns`."""
        found = self._looked_up(table)
        if found is None and self._view(table) is not None:
            return _listed(self._execute(f"DESCRIBE {self._names.full(table)}", ()), definition="")
        return found

    def writable_columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """See `Tables.writable_columns`."""
        found = self._looked_up(table)
        if found is None:
            self._check_not_a_view(table)
        return found

    def _looked_up(self, table: TableRef) -> tuple[Column, ...] | None:
        """Return what `_described` does, or what it returned before in this transaction."""
        if self._known is None:
            return self._described(table)
        folded = _folded(table)
        if folded not in self._known:
            self._known[folded] = self._described(table)
        return self._known[folded]

    def _define(self, statement: str, *tables: TableRef) -> None:
        """Run a statement that changes the definitions of tables."""
        self._execute(statement, ())
        if self._known is not None:
            for table in tables:
                self._known.pop(_folded(table), None)

    def _described(self, table: TableRef) -> tuple[Column, ...] | None:
        """Return the columns of a table, but not of a view."""
        # `duckdb_columns()` reads all views of all catalogs, and takes four times as long as these two.
        definition = self._definition(table)
        if definition is None:
            return None
        # After the look for the table: DESCRIBE of a missing one would abort the transaction.
        return _listed(self._execute(f"DESCRIBE {self._names.full(table)}", ()), definition=definition)

    def _definition(self, table: TableRef) -> str | None:
        """Return the catalog's CREATE TABLE text, or None if there is no such table."""
        rows = self._execute(_DEFINITION, (table.schema, table.name))
        return rows[0][0] if rows else None

    def _view(self, table: TableRef) -> str | None:
        """Return the catalog's CREATE VIEW text, or None if there is no such view."""
        rows = self._execute(_VIEWS, (table.schema, table.name))
        return rows[0][0] if rows else None

    def _check_not_a_view(self, table: TableRef) -> None:
        view = self._view(table)
        if view is not None:
            raise not_a_table(table, "view", shown=f" ({view.strip().removesuffix(';')[:200]})")

    def generated(self, table: TableRef) -> tuple[str, ...]:
        """See `Tables.generated`."""
        return generated_of(self._definition(table) or "")

    def is_referenced(self, table: TableRef) -> bool:
        """See `Tables.is_referenced`."""
        return bool(self._references(table))

    def _references(self, table: TableRef) -> Sequence[Row]:
        """Return `(table, constraint)` for each foreign key of another table that refers to the table."""
        return self._execute(
            f"{_KEYS} AND lower(schema_name) = lower($1) AND lower(referenced_table) = lower($2)",
            (table.schema, table.name),
        )

    def list(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """See `Tables.list`."""
        # Not LIKE: the names hold underscores, which match any character there.
        rows = self._execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()"
            " AND lower(schema_name) = lower($1) AND starts_with(lower(table_name), lower($2))"
            " ORDER BY table_name",
            (schema, prefix),
        )
        return _tables(rows)

    def find(self, name: str) -> tuple[TableRef, ...]:
        """See `Tables.find`."""
        rows = self._execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()"
            " AND lower(table_name) = lower($1) ORDER BY schema_name",
            (name,),
        )
        return _tables(rows)

    def ensure_schema(self, schema: str) -> None:
        """See `Tables.ensure_schema`."""
        if schema.casefold() == TEMPORARY:
            raise ConfigurationError(
                f"the schema can't be named {schema}, because that is DuckDB's name for the temporary tables of a"
                " session. Set another schema for the I/O manager or the asset."
            )
        self._execute(f"CREATE SCHEMA IF NOT EXISTS {self._names.schema(schema)}", ())

    def ensure_table(self, table: TableRef, columns: Mapping[str, str]) -> None:
        """See `Tables.ensure_table`."""
        known = self.columns(table)
        names = {*map(str.casefold, names_of(known or ()))}
        missing = [f"{quoted(name)} {kind}" for name, kind in columns.items() if name.casefold() not in names]
        if known is None:
            self._define(f"CREATE TABLE IF NOT EXISTS {self._names.of(table)} ({', '.join(missing)})", table)
            return
        for column in missing:
            self._define(f"ALTER TABLE {self._names.of(table)} ADD COLUMN {column}", table)

    def create(self, table: TableRef, rows: exp.Query, *, kind: TableKind) -> None:
        """See `Tables.create`."""
        temporary = "TEMPORARY " if kind == "scratch" else ""
        self._define(f"CREATE {temporary}TABLE {self._names.of(table)} AS {self._names.sql(rows)}", table)

    def copy(self, rows: exp.Select, *, into: TableRef, columns: Sequence[str]) -> None:
        """See `Tables.copy`."""
        # After an INSERT of no rows and one of many in the same transaction, DuckDB 2.0.0 finds no rows in the table
        # until the file is opened again. So an INSERT without rows is left out.
        if self._execute(f"SELECT 1 FROM ({self._names.sql(rows)}) LIMIT 1", ()):
            self._execute(
                f"INSERT INTO {self._names.of(into)} ({', '.join(map(quoted, columns))}) {self._names.sql(rows)}", ()
            )

    def drop(self, table: TableRef) -> None:
        """See `Tables.drop`."""
        self._define(f"DROP TABLE IF EXISTS {self._names.of(table)}", table)

    def archive(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:  # noqa: ARG002 - the rows name it
        """See `Tables.archive`."""
        self._define(f"CREATE TABLE {self._names.of(archive)} AS {self._names.sql(rows)}", archive)

    @contextmanager
    def hold(self, table: TableRef, *, run_id: str = "") -> Generator[Session, None, None]:  # noqa: ARG002 - no run is named
        """See `Tables.hold`. A table is held by a statement that sets its comment to the comment that it has.

        Since DuckDB 2.0, a write to a table fails if another transaction changed the table's definition. Before, only a
        second change of the definition fails, so publications exclude each other, but not other writers.
        """
        # Of all changes of a definition this is the cheapest, and unlike ALTER it works with indexes and foreign keys.
        found = self._execute(f"SELECT comment FROM duckdb_tables() WHERE {_IS_TABLE}", (table.schema, table.name))
        if found:
            self._comment("TABLE", self._names.of(table), found[0][0])
        else:
            self._check_not_a_view(table)
        # A transaction of DuckDB sees what was committed when it began, and others may have committed since.
        with self._beside() as committed:
            yield committed

    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """See `Tables.add_columns`."""
        with self._without_indexes(table, to=f"gain {', '.join(column.name for column in columns)}"):
            for column, value in columns.items():
                default = "" if value is None else f" DEFAULT ({value.sql('duckdb')})"
                name = quoted(column.name)
                self._define(f"ALTER TABLE {self._names.of(table)} ADD COLUMN {name} {column.type}{default}", table)

    def reshape(
        self,
        table: TableRef,
        *,
        dropped: Sequence[str],
        retyped: Sequence[Column],
        added: Mapping[Column, exp.Expr | None],
    ) -> None:
        """See `Tables.reshape`."""
        alter = f"ALTER TABLE {self._names.of(table)}"
        with reshaping(table):
            for name in dropped:
                self._define(f"{alter} DROP COLUMN {quoted(name)}", table)
            for column in retyped:
                self._define(f"{alter} ALTER COLUMN {quoted(column.name)} TYPE {column.type}", table)
        self.add_columns(table, added)

    @contextmanager
    def replace(
        self,
        table: TableRef,
        *,
        aside: TableRef,
        kept: exp.Expr | None = None,
        may_lose: Sequence[Loss] = (),  # noqa: ARG002 - there are neither streams nor owners
    ) -> Generator[Replacement, None, None]:
        """See `Tables.replace`. The clone has the table's name from the start of the block."""
        columns = () if kept is None else tuple(column.name for column in self.columns(table) or ())
        with self._cloned(table, aside=aside):
            if kept is not None:
                rows = exp.select(*map(terms.column, columns)).from_(terms.table(aside)).where(kept.copy())
                self.copy(rows, into=table, columns=columns)
            yield Replacement(clone=table, old=aside)

    @contextmanager
    def _cloned(self, table: TableRef, *, aside: TableRef) -> Generator[None, None, None]:
        self._check_clone(table)
        ((definition, comment),) = self._execute(
            f"SELECT sql, comment FROM duckdb_tables() WHERE {_IS_TABLE}", (table.schema, table.name)
        )
        comments = self._execute(
            f"SELECT column_name, comment FROM duckdb_columns() WHERE {_IS_TABLE} AND comment IS NOT NULL",
            (table.schema, table.name),
        )
        self._read_indexes(table)
        with self._without_indexes(table, to="be renamed"):
            self._rename(table, aside)
            # The catalog's CREATE TABLE text has the keys, checks, defaults, collations and generated columns, which
            # CREATE TABLE AS would lose. It contains the table's name, so the old table is renamed first.
            self._define(self._names.definition(definition, table), table)
            # The catalog's text doesn't contain comments.
            self._comment("TABLE", self._names.of(table), comment)
            for column, text in comments:
                self._comment("COLUMN", f"{self._names.of(table)}.{quoted(column)}", text)
            yield

    def put_back(
        self,
        table: TableRef,
        *,
        archive: TableRef,
        aside: TableRef,
        may_lose: Sequence[Loss] = (),  # noqa: ARG002 - there are neither streams nor owners
    ) -> None:
        """See `Tables.put_back`."""
        self._check_clone(table)
        self._read_indexes(table)
        with self._without_indexes(table, to="be renamed"):
            self._rename(table, aside)
            # `_cloned` runs the catalog's CREATE TABLE text, which contains the table's name at that moment.
            self._rename(archive, table)
            with self._cloned(table, aside=archive):
                names = ", ".join(quoted(column.name) for column in self.columns(table) or ())
                self._execute(
                    f"INSERT INTO {self._names.of(table)} ({names}) SELECT {names} FROM {self._names.of(archive)}", ()
                )

    def _read_indexes(self, table: TableRef) -> None:
        # DuckDB reads the indexes of a file that was just opened only when it changes their table. After the table was
        # renamed it can't read them any more, and statements fail with `Referenced table "t" not found!`, even if the
        # indexes were dropped.
        self._execute(f"DELETE FROM {self._names.of(table)} WHERE false", ())

    def _rename(self, table: TableRef, to: TableRef) -> None:
        self._define(f"ALTER TABLE {self._names.of(table)} RENAME TO {quoted(to.name)}", table, to)

    def _check_clone(self, table: TableRef) -> None:
        own = self._execute(f"{_KEYS} AND {_IS_TABLE}", (table.schema, table.name))
        if own:
            raise SwapError(
                f"{table} can't be swapped: it has a foreign key ({own[0][1]}), and its archive would refer to the same"
                ' rows, so that they could not be deleted. Publish by "merge" or "replace".',
                table=str(table),
            )
        parents = self._references(table)
        if parents:
            raise SwapError(
                f"{table} can't be swapped: the foreign key of {parents[0][0]} ({parents[0][1]}) refers to it, and"
                ' nothing was changed. Publish by "merge", which changes rows in place.',
                table=str(table),
            )

    @contextmanager
    def _without_indexes(self, table: TableRef, *, to: str) -> Generator[None, None, None]:
        """Drop a table's secondary indexes and create them again at the end of the block.

        DuckDB refuses to rename a table that has secondary indexes, or to drop or retype its columns.
        """
        # The indexes of PRIMARY KEY and UNIQUE are part of the table and have no SQL.
        indexes = self._execute(
            f"SELECT index_name, sql FROM duckdb_indexes() WHERE {_IS_TABLE} AND sql IS NOT NULL",
            (table.schema, table.name),
        )
        for name, _ in indexes:
            self._execute(f"DROP INDEX {self._names.of(TableRef(schema=table.schema, name=name))}", ())
        try:
            yield
            for _, definition in indexes:
                self._execute(self._names.definition(definition, table), ())
        except WarehouseError as error:
            # DuckDB before 2.0 refuses to create an index under a name that the transaction dropped, if the table was
            # altered in between.
            said = str(error.__cause__)
            is_index = any(f"name {name} already exists" in said for name, _ in indexes)
            if not is_index and "Dependency Error" not in said:
                raise
            why = "its secondary indexes are in the way; drop them before" if is_index else "something depends on it"
            raise SwapError(f"{table} can't {to}, because {why}: {error}", table=str(table)) from error

    def _comment(self, kind: str, name: str, text: str | None) -> None:
        literal = "NULL" if text is None else terms.text(text).sql("duckdb")
        self._execute(f"COMMENT ON {kind} {name} IS {literal}", ())


def _tables(rows: Sequence[Row]) -> tuple[TableRef, ...]:
    tables: Sequence[TableRef] = [TableRef(schema=schema, name=name) for schema, name in rows]
    return tuple(tables)


def _folded(table: TableRef) -> TableRef:
    return TableRef(schema=table.schema.casefold(), name=table.name.casefold())


def _listed(described: Sequence[Row], *, definition: str) -> tuple[Column, ...]:
    """Return the columns that DESCRIBE found, without the generated ones."""
    collations = collations_of(definition) if " COLLATE " in definition else {}
    generated = generated_of(definition) if " GENERATED " in definition else ()
    return tuple(
        Column(name=name, type=kind, collation=collations.get(name), default=default, is_nullable=null == "YES")
        for name, kind, null, _, default, _ in described
        if name not in generated
    )
