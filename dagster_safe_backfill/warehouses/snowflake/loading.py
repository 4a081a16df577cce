"""Loading of computed rows into Snowflake: frames by Parquet, PUT and COPY INTO; queries as they were written."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from dagster_safe_backfill.errors import ConfigurationError, WarehouseError
from dagster_safe_backfill.model.tables import Column, Query, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.frames import FrameError, as_arrow, check_names, untyped_columns
from dagster_safe_backfill.warehouses.snowflake.dialect import without_collation
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT, shown
from dagster_safe_backfill.warehouses.snowflake.types import UNTYPED, base, of_arrow

if TYPE_CHECKING:
    import pyarrow as pa

_SOURCE = "_SB_SOURCE_"


class LoadedFrame:
    """A frame as a temporary table of the session.

    Attributes:
        table: The table.
        columns: The columns of the frame. A column that holds only NULL has the type `UNTYPED`.
    """

    def __init__(self, frame: object, *, schema: str) -> None:
        self._rows = _renamed(as_arrow(frame))
        # Only letters, digits and underscores, so that the name of the table's stage needs no quotes.
        self.table = TableRef(schema=schema, name=f"{_SOURCE}{uuid.uuid4().hex}")
        self._types = _types(self._rows)
        untyped = untyped_columns(self._rows)
        self.columns = tuple(
            Column(name=shown(name), type=UNTYPED if name in untyped else kind) for name, kind in self._types.items()
        )

    @contextmanager
    def loaded(
        self, execute: Callable[[str], object], remove: Callable[[str], object]
    ) -> Generator[exp.Table, None, None]:
        """Create and fill the table with `execute`, and drop it with `remove` at the end of the block."""
        name = _sql(terms.table(self.table))
        columns = ", ".join(f"{_sql(terms.column(column))} {kind}" for column, kind in self._types.items())
        execute(f"CREATE TEMPORARY TABLE {name} ({columns})")
        try:
            if self._rows.num_rows:
                self._copy(execute, name)
            yield terms.table(self.table)
        finally:
            # This drops the table's stage and the file in it, too.
            remove(f"DROP TABLE IF EXISTS {name}")

    def _copy(self, execute: Callable[[str], object], name: str) -> None:
        import pyarrow.parquet

        parquet: Any = pyarrow.parquet  # typed in part only
        schema = exp.to_identifier(self.table.schema.upper(), quoted=True).sql(dialect=DIALECT)
        # In quotes, because the schema's name may have a space.
        stage = _literal(f"@{schema}.%{self.table.name}")
        with tempfile.TemporaryDirectory(prefix="dagster-safe-backfill-") as folder:
            path = Path(folder) / "rows.parquet"
            parquet.write_table(self._rows, path)
            # No gzip, because Parquet compresses its columns itself.
            execute(f"PUT {file_literal(path)} {stage} AUTO_COMPRESS = FALSE")
        # Without USE_LOGICAL_TYPE, Snowflake reads a Parquet timestamp as the integer that it is stored as, and with
        # BINARY_AS_TEXT bytes as text. With the default of NULL_IF, the text \\N becomes NULL. Without
        # MATCH_BY_COLUMN_NAME, it loads a Parquet file only into a single VARIANT column.
        # https://docs.snowflake.com/en/sql-reference/sql/copy-into-table
        execute(
            f"COPY INTO {name} FROM {stage} FILE_FORMAT ="
            " (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE BINARY_AS_TEXT = FALSE NULL_IF = ())"
            " MATCH_BY_COLUMN_NAME = CASE_SENSITIVE ON_ERROR = ABORT_STATEMENT"
        )


def file_literal(path: PurePath) -> str:
    """Return a file's path as PUT takes it: as it is, not percent-encoded, in quotes.

    A backslash escapes in the quotes, so paths on Windows have slashes.
    Source: https://docs.snowflake.com/en/sql-reference/sql/put

    Raises:
        ConfigurationError: The connector expands `*`, `?` and `[` in a path, and where the account is on Google Cloud,
            it takes a quote for the path's end.
    """
    absolute = path.as_posix()
    if any(sign in absolute for sign in "*?['"):
        raise ConfigurationError(
            f"frames are written to {absolute}, and Snowflake's PUT can't take a path with *, ?, [ or '. Set TMPDIR to"
            " a folder without them."
        )
    return _literal(f"file://{absolute}")


def _literal(text: str) -> str:
    """Return a text in quotes, for commands that sqlglot doesn't generate."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _renamed(rows: pa.Table) -> pa.Table:
    """Return a frame with upper-case column names, and without categories and floats of 16 bits."""
    import pyarrow as pa

    names = [name.upper() for name in rows.column_names]
    check_names(names, of="the frame")
    columns: list[Any] = []
    for i in range(len(names)):
        column: Any = rows.column(i)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_float16(column.type):
            column = column.cast(pa.float32())
        columns.append(column)
    return pa.table(dict(zip(names, columns, strict=True)))


def _types(rows: pa.Table) -> dict[str, str]:
    found: dict[str, str] = {}
    fields: Sequence[Any] = list(rows.schema)
    for field in fields:
        kind = of_arrow(field.type)
        if kind is None:
            raise FrameError(f"Snowflake has no type for the column {field.name} of the type {field.type}.")
        found[field.name] = kind
    return found


def one_select(query: Query) -> str:
    """Return the query's text without its last semicolon if it is exactly one SELECT.

    Raises:
        ConfigurationError: The text is another statement, or several.
        WarehouseError: The text can't be parsed.
    """
    try:
        # sqlglot parses a comment after a semicolon as a statement of its own.
        parsed = sqlglot.parse(query.sql, dialect=DIALECT)
        found = [one for one in parsed if one is not None and not isinstance(one, exp.Semicolon)]
    except SqlglotError as error:
        raise WarehouseError(f"the query can't be parsed: {error}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        kinds = " and ".join(one.key.upper() for one in found)
        raise ConfigurationError(f"a Query is one SELECT, not {kinds or 'nothing'}: {query.sql!r}.")
    return _without_semicolon(query.sql)


def _without_semicolon(sql: str) -> str:
    tokens = sqlglot.tokenize(sql, read=DIALECT)
    if tokens[-1].token_type != TokenType.SEMICOLON:
        return sql.strip()
    last = next(token for token in reversed(tokens) if token.token_type != TokenType.SEMICOLON)
    return sql[: last.end + 1].strip()


def by_bytes(select: str, columns: Sequence[Column]) -> str:
    """Return a SELECT of the same rows whose texts have no collation.

    A comparison follows the collation of either side, and the connector doesn't tell those of a query's columns.
    """
    is_text = [base(column.type) == "VARCHAR" for column in columns]
    if not any(is_text):
        return select
    items: list[exp.Expr] = []
    for column, is_one in zip(columns, is_text, strict=True):
        value = terms.column(column.name)
        items.append(exp.alias_(without_collation(value), column.name, quoted=True) if is_one else value)
    listed = ", ".join(map(_sql, items))
    return f"SELECT {listed} FROM (\n{select}\n)"


def as_relation(select: str, name: str) -> exp.Table:
    """Return a relation that consists of the query's text, in parentheses."""
    alias = exp.TableAlias(this=exp.to_identifier(name, quoted=True))
    # On lines of its own: the text may end with a comment, which would hide the parenthesis.
    return exp.Table(this=exp.Var(this=f"(\n{select}\n)"), alias=alias)


def _sql(expression: exp.Expr) -> str:
    return expression.sql(dialect=DIALECT)
