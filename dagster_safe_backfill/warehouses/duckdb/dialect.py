"""DuckDB's SQL: hashes, types, the values that a cast loses, ASOF joins, and the names of tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.model.slices import ColumnType
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql.dialect import Dialect, Fit
from dagster_safe_backfill.warehouses.duckdb.types import (
    INSTANT,
    INSTANT_NS,
    TEXTS,
    UNTYPED,
    WALL_CLOCKS,
    fits,
    is_cast_back,
    parsed,
)

TEMPORARY = "temp"
"""DuckDB's name for the database of a session's temporary tables, which can't be the name of a schema as well."""

_IDENTIFIER = r'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_DEFINED = re.compile(
    rf"^(CREATE (?:TABLE|(?:UNIQUE )?INDEX {_IDENTIFIER} ON) )(?:{_IDENTIFIER}\.)?{_IDENTIFIER}(?=[\s(])", re.IGNORECASE
)
"""The beginning of a definition in DuckDB's catalog, up to the table's name."""


class DuckDBDialect(Dialect):
    """The SQL of DuckDB 1.4 and later."""

    name = "duckdb"
    # DuckDB itself has no limit, but EXPORT DATABASE writes one file per table, and file systems limit file names.
    longest_name = 240
    widest_integer = "HUGEINT"

    @property
    def hash_algorithm(self) -> str:
        """See `Dialect.hash_algorithm`. DuckDB's hashes may change with its version."""
        import duckdb

        return f"duckdb-{duckdb.__version__}"

    def row_hash(self, values: Sequence[exp.Expr]) -> exp.Expr:
        """See `Dialect.row_hash`."""
        return exp.func("hash", *values, dialect=self.name)

    def fit(self, *, source: str, target: str) -> Fit:
        """See `Dialect.fit`."""
        if source == target:
            return "same"
        # `in`, because a list or a struct of NULLs has a nested type, such as "NULL"[].
        if UNTYPED in source:
            return "if_unchanged"
        return "if_unchanged" if fits(parsed(source), parsed(target)) else "never"

    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """See `Dialect.is_lost`. DuckDB's TRY_CAST accepts values of any type."""
        kept = self._tried(value, target)
        if UNTYPED not in source and is_cast_back(target):
            # DuckDB compares an integer with a float as floats, so 2**53 + 1 would equal the float nearest to it.
            kept = self._tried(kept, source)
        # A value that can't be cast is not compared: DuckDB would cast it again for the comparison, and raise.
        is_given = exp.not_(exp.Is(this=value.copy(), expression=exp.Null()))
        is_changed = exp.NullSafeNEQ(this=kept.copy(), expression=value.copy())
        is_refused = exp.Is(this=kept, expression=exp.Null())
        return exp.Case().when(is_refused, is_given).else_(is_changed)

    def _tried(self, value: exp.Expr, type_name: str) -> exp.TryCast:
        return exp.TryCast(this=value, to=exp.DataType.build(type_name, dialect=self.name, udt=True))

    def created_as(self, source: str) -> str | None:
        """See `Dialect.created_as`. Frames have no ENUM, so one is that of a query and stays one."""
        if UNTYPED in source:
            return None
        return INSTANT if source == INSTANT_NS else source

    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """See `Dialect.keeps`."""
        base = parsed(type_name).name
        if base == "DATE":
            return "date"
        if base in WALL_CLOCKS:
            return "timestamp"
        if base == INSTANT:
            return "timestamptz"
        return "text" if base in TEXTS else "other"

    def join_partitions(
        self, partitions: exp.Expr, *, matches: Sequence[exp.Expr], ends: Sequence[exp.Expr], position: exp.Expr
    ) -> tuple[exp.Join, exp.Expr]:
        """See `Dialect.join_partitions`. An ASOF join takes one pass over sorted windows."""
        # An ASOF join allows only one inequality, so two dimensions of windows need a range join.
        if len(ends) != 1:
            return super().join_partitions(partitions, matches=matches, ends=ends, position=position)
        # ASOF finds the last window that starts before the row. The row may still be after its end, in a gap.
        join = exp.Join(this=partitions, method="ASOF", side="LEFT", on=exp.and_(*matches))
        return join, exp.Case().when(ends[0], position)


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
