"""Frames on their way into Snowflake, by Parquet, PUT and COPY INTO, and out of it; queries as they were written.

On the way out, each value comes back the same when it is written again. The connector makes Arrow of what Snowflake
sends: it cuts times to microseconds and forgets the offsets of TIMESTAMP_TZ without an error, and it gives integers the
narrowest type that holds the values at hand.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError

from dagster_safe_backfill.errors import ConfigurationError, ReadError, WarehouseError
from dagster_safe_backfill.model.tables import Column, Query, TableRef
from dagster_safe_backfill.redaction import foreign_text, masked, statement_text
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.frames import FrameError, as_arrow, check_names, untyped_columns
from dagster_safe_backfill.warehouses.frames.of_pandas import Kind
from dagster_safe_backfill.warehouses.snowflake.dialect import is_not_utc, offset_of, without_collation
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT, shown
from dagster_safe_backfill.warehouses.snowflake.types import UNTYPED, base, digits_of, of_arrow

if TYPE_CHECKING:
    import pyarrow as pa

_SOURCE = "_SB_SOURCE_"
_ROWS, _OFFSET = "_sb_rows", "_sb_offset_"
_MICROSECONDS = 6


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
        raise WarehouseError(f"the query can't be parsed: {foreign_text(error, statement=query.sql)}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        kinds = " and ".join(one.key.upper() for one in found)
        raise ConfigurationError(f"a Query is one SELECT, not {kinds or 'nothing'}: {statement_text(query.sql)!r}.")
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


@dataclass(frozen=True, slots=True)
class Reading:
    """How columns are read.

    Attributes:
        columns: The columns, with their types.
    """

    columns: Sequence[Column]

    @property
    def types(self) -> Mapping[str, str]:
        """A mapping from the name of each column to its type."""
        return {column.name: column.type for column in self.columns}

    def select(self, rows: exp.Query) -> exp.Query:
        """Return a SELECT of the same rows that loses nothing of their values."""
        offsets = [column for column in self.columns if _has_offset(column)]
        if not offsets and not any(map(_is_fine_time, self.columns)):
            return rows
        items: dict[str, exp.Expr] = {}
        for column in self.columns:
            value = terms.column(column.name)
            items[column.name] = _time_text(value) if _is_fine_time(column) else value
        for i, column in enumerate(offsets):
            offset = offset_of(terms.column(column.name))
            items[f"{_OFFSET}{i}"] = exp.Case().when(is_not_utc(offset), offset.copy())
        return exp.select(*terms.named(items)).from_(terms.subquery(rows.copy(), _ROWS))

    def exact(self, table: pa.Table) -> tuple[pa.Table, Mapping[str, Kind]]:
        """Return the rows with types that depend on the columns only, and what some values are, for `from_arrow`.

        Raises:
            ReadError: A TIMESTAMP_TZ has another offset than UTC's.
        """
        import pyarrow

        found: Any = pyarrow
        arrays: list[Any] = list(table.columns)
        names = table.column_names[: len(self.columns)]
        with_offset = [column for column in self.columns if _has_offset(column)]
        for column, offsets in zip(with_offset, arrays[len(names) :], strict=True):
            _check_offsets(column, offsets)
        made = [_array(array, column) for column, array in zip(self.columns, arrays, strict=False)]
        kinds: dict[str, Kind] = {}
        for name, column, array in zip(names, self.columns, made, strict=True):
            if base(column.type) == "NUMBER" and not digits_of(column.type)[1] and found.types.is_decimal(array.type):
                kinds[name] = "integer"
        return found.Table.from_arrays(made, names=names), kinds


def _has_offset(column: Column) -> bool:
    return base(column.type) == "TIMESTAMP_TZ"


def _is_fine_time(column: Column) -> bool:
    return base(column.type) == "TIME" and (digits_of(column.type) or (9,))[0] > _MICROSECONDS


def _time_text(value: exp.Expr) -> exp.Expr:
    return exp.func("TO_CHAR", value, terms.text("HH24:MI:SS.FF9"), dialect=DIALECT)


def _check_offsets(column: Column, offsets: Any) -> None:
    other = next((offset for offset in offsets.to_pylist() if offset is not None), None)
    if other is None:
        return
    shown = masked(other, column.name)
    raise ReadError(
        f"the column {column.name} ({column.type}) can't be read, because it has a time with the offset {shown}, and a"
        f" frame would keep only the instant. Read a view with CONVERT_TIMEZONE('UTC', {column.name}) instead, or cast"
        ' it to TIMESTAMP_LTZ there; or name the other columns in the metadata "columns" of the input.',
        column=column.name,
        type=column.type,
    )


def _array(array: Any, column: Column) -> Any:
    """Return a column's values in the type of Arrow that its type has, as far as it depends on the values."""
    import pyarrow

    found: Any = pyarrow
    wanted = _arrow_type(column)
    if not len(array):
        # Without rows, the connector has types of its own, such as int64 for decimals.
        return found.chunked_array([], type=wanted)
    kind = base(column.type)
    if _is_fine_time(column):
        nanoseconds = [None if text is None else _nanoseconds(text) for text in array.to_pylist()]
        return found.chunked_array([found.array(nanoseconds, type=found.int64()).cast(wanted)])
    if kind == "NUMBER" and found.types.is_decimal(array.type):
        # A number of more than 64 bits makes decimals of a column of integers.
        return array.cast(found.decimal128(*digits_of(column.type)))
    return array.cast(wanted) if kind in ("NUMBER", "TIME") else array


def _arrow_type(column: Column) -> Any:
    import pyarrow

    found: Any = pyarrow
    sizes = digits_of(column.type)
    fine = "ns" if not sizes or sizes[0] > _MICROSECONDS else "us"
    match base(column.type):
        case "NUMBER":
            return found.decimal128(*sizes) if sizes[1] else found.int64()
        case "TIME":
            return found.time64(fine)
        case "TIMESTAMP_NTZ":
            return found.timestamp(fine)
        case "TIMESTAMP_LTZ" | "TIMESTAMP_TZ":
            return found.timestamp(fine, tz="UTC")
        case other:
            named = {"FLOAT": "float64", "BOOLEAN": "bool_", "DATE": "date32", "BINARY": "binary"}
            return getattr(found, named.get(other, "string"))()


def _nanoseconds(text: str) -> int:
    clock, _, fraction = text.partition(".")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 10**9 + int(fraction.ljust(9, "0"))


def out_of_range(columns: Sequence[Column], error: OverflowError) -> ReadError:
    """Return the error about times that the connector can't convert: finer than microseconds, and centuries away."""
    fine = [column for column in columns if base(column.type).startswith("TIMESTAMP")]
    named = ", ".join(f"{column.name} ({column.type})" for column in fine)
    first = fine[0] if fine else Column(name="", type="")
    return ReadError(
        f"one of the columns {named} can't be read, because it has a time before 1677 or after 2262 beside nanoseconds,"
        " which 64 bits don't hold. Read a view that casts it to 6 digits, as in TIMESTAMP_NTZ(6), or name the other"
        f' columns in the metadata "columns" of the input: {foreign_text(error)}',
        column=first.name,
        type=first.type,
    )
