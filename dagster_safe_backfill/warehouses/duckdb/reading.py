"""How the rows of a SELECT are read as a frame, so that each value comes back the same when it is written again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagster_safe_backfill.errors import ReadError
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.redaction import masked
from dagster_safe_backfill.warehouses.duckdb.tables import quoted
from dagster_safe_backfill.warehouses.duckdb.types import READ_AS_TEXT, Type, parsed
from dagster_safe_backfill.warehouses.frames.conversion import unreadable
from dagster_safe_backfill.warehouses.frames.errors import UnreadableError
from dagster_safe_backfill.warehouses.frames.of_pandas import Kind

_KINDS: Mapping[str, Kind] = {"UUID": "uuid", "HUGEINT": "integer", "UHUGEINT": "integer", "ENUM": "enum"}
_UNREADABLE = {"pandas": ("UNION", "VARIANT"), "polars": ("UNION",), "pyarrow": ()}
"""The types that a library has no type for."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How columns are read as a frame of one library.

    Attributes:
        types: A mapping from the name of each column to its type.
        kinds: What the values of some columns are, for `from_arrow`.
        as_text: A mapping from the name of each column that is read as text to the type that it is cast to.
        checks: A mapping from column to a condition that is true for a value that Arrow would change.
    """

    types: Mapping[str, str]
    kinds: Mapping[str, Kind]
    as_text: Mapping[str, str]
    checks: Mapping[Column, str]

    def sql(self, select: str) -> str:
        """Return a SELECT of the same rows, in types that Arrow has."""
        if not self.as_text:
            return select
        casts = [f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in self.as_text.items()]
        return f"SELECT * REPLACE ({', '.join(casts)}) FROM ({select})"

    def check_sql(self, select: str) -> str:
        """Return a SELECT of one row with the largest value of each column of `checks` for which its check is true."""
        found = [f"any_value(CAST({quoted(one.name)} AS VARCHAR)) FILTER ({sql})" for one, sql in self.checks.items()]
        return f"SELECT {', '.join(found)} FROM ({select})"


def reading(columns: Sequence[Column], library: str) -> Reading:
    """Return how columns are read as a frame of a library.

    Raises:
        ReadError: The library has no type for a column.
    """
    kinds: dict[str, Kind] = {}
    as_text: dict[str, str] = {}
    checks: dict[Column, str] = {}
    # Nobody can do anything with the bytes of a BIGNUM, and pandas would forget that they are one.
    texts = (*READ_AS_TEXT, "BIGNUM") if library == "pandas" else READ_AS_TEXT
    for column in columns:
        kind = parsed(column.type)
        _check_readable(column, kind, library)
        if kind.holds(*texts):
            as_text[column.name] = kind.with_text(*texts)
        if kind.name in _KINDS:
            kinds[column.name] = _KINDS[kind.name]
        name = quoted(column.name)
        if kind.name == "UHUGEINT":
            checks[column] = f"{name} >= 170141183460469231731687303715884105728"
        elif kind.holds("INTERVAL"):
            # Arrow counts nanoseconds, of which 64 bits hold 292 years. DuckDB doesn't notice more than that.
            checks[column] = rf"regexp_matches(CAST({name} AS VARCHAR), '\d{{7,}}:\d\d:\d\d')"
    types = {column.name: column.type for column in columns}
    return Reading(types, kinds, as_text, checks)


def _check_readable(column: Column, kind: Type, library: str) -> None:
    if kind.holds(*_UNREADABLE.get(library, ())):
        raise unreadable(UnreadableError(column.name, library, "no type for it"), column.type)
    if kind.fields and kind.holds("UHUGEINT"):
        raise ReadError(
            f"the column {column.name} ({column.type}) can't be read, because Arrow has no type for integers of 128"
            " bits without a sign. Cast it, for example to DECIMAL(38,0), in a view, and read that.",
            column=column.name,
            type=column.type,
        )


def too_large(column: Column, value: str) -> ReadError:
    """Return the error about a value that Arrow would change."""
    return ReadError(
        f"the column {column.name} ({column.type}) can't be read, because Arrow has no type that holds"
        f" {masked(value, column.name)}. Read"
        ' the input without the column, by naming the others in the metadata "columns" of the input.',
        column=column.name,
        type=column.type,
    )
