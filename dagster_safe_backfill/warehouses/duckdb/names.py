"""The names of DuckDB's tables, schemas and columns in statements."""

from __future__ import annotations

import re

from sqlglot import exp

from dagster_safe_backfill.model.tables import TableRef

TEMPORARY = "temp"
"""DuckDB's name for the database of a session's temporary tables, which can't be the name of a schema as well."""

_IDENTIFIER = r'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_DEFINED = re.compile(
    rf"^(CREATE (?:TABLE|(?:UNIQUE )?INDEX {_IDENTIFIER} ON) )(?:{_IDENTIFIER}\.)?{_IDENTIFIER}(?=[\s(])", re.IGNORECASE
)
"""The beginning of a definition in DuckDB's catalog, up to the table's name."""


class Names:
    """How the tables of one database are named in statements.

    DuckDB refuses `nyc.trips` if both the database and a schema are named `nyc`: it could be the schema's table, or a
    table of the database's default schema.

    Args:
        database: DuckDB's name for the database, which it takes from the name of the file.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._ambiguous = {database.casefold(), "system"}

    def of(self, table: TableRef) -> str:
        """Return a table's name, quoted for a statement."""
        name = f"{quoted(table.schema)}.{quoted(table.name)}" if table.schema else quoted(table.name)
        return f"{quoted(self._database)}.{name}" if self._is_ambiguous(table.schema) else name

    def full(self, table: TableRef) -> str:
        """Return a table's name with its database, quoted, which no temporary table can have."""
        return f"{quoted(self._database)}.{quoted(table.schema)}.{quoted(table.name)}"

    def schema(self, schema: str) -> str:
        """Return a schema's name, quoted for a statement."""
        return f"{quoted(self._database)}.{quoted(schema)}" if self._is_ambiguous(schema) else quoted(schema)

    def sql(self, expression: exp.Expr) -> str:
        """Return an expression as DuckDB's SQL."""
        text = expression.sql(dialect="duckdb")
        folded = text.casefold().replace('"', "")
        # Most statements name no such schema, and need not be searched for tables.
        if not any(f"{name}." in folded for name in self._ambiguous):
            return text
        qualified = expression.copy()
        for table in qualified.find_all(exp.Table):
            if not table.catalog and self._is_ambiguous(table.db):
                table.set("catalog", exp.to_identifier(self._database, quoted=True))
        return qualified.sql(dialect="duckdb")

    def definition(self, sql: str, table: TableRef) -> str:
        """Return the definition of a table or index, as DuckDB's catalog spells it, with the table's full name."""
        if not self._is_ambiguous(table.schema):
            return sql
        return _DEFINED.sub(lambda found: found.group(1) + self.of(table), sql, count=1)

    def _is_ambiguous(self, schema: str) -> bool:
        return schema.casefold() in self._ambiguous


def quoted(name: str) -> str:
    """Return the name of a column or another object, quoted for a statement."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
