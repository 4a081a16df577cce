"""DuckDB's and the parser's errors as Snowflake's."""

from __future__ import annotations

import re

import duckdb
from sqlglot.errors import ParseError

from dagster_safe_backfill_tests.harness.snowflake.errors import SnowflakeError

_RULES: tuple[tuple[type[Exception], str, int, str], ...] = (
    (duckdb.ConstraintException, r"NOT NULL constraint failed: .*?(\w+)$", 100072, "22000"),
    (duckdb.ConversionException, r"", 100038, "22018"),
    (duckdb.OutOfRangeException, r"", 100039, "22003"),
    (
        duckdb.BinderException,
        r"Referenced column|not found in FROM|have a column|before it is def",
        904,
        "42000",
    ),
    (duckdb.BinderException, r"already exists", 1430, "42601"),
    (duckdb.CatalogException, r"Function with name", 2140, "42601"),
    (duckdb.CatalogException, r"already exists", 2002, "42710"),
    (duckdb.CatalogException, r"does not exist", 2003, "42S02"),
    (duckdb.ParserException, r"", 1003, "42000"),
    (duckdb.InterruptException, r"", 604, "57014"),
)

_SAID = {
    "same target row more than once": (100090, "42P18", "Duplicate row detected during DML action\nRow Values: [...]"),
    "Division by zero": (100051, "22012", "Division by zero"),
    "NOT NULL constraint": (100072, "22000", "NULL result in a non-nullable column"),
    "Failed to commit": (90216, "57014", "The transaction was aborted: DDL changed a table of it."),
}


def translated(error: Exception) -> SnowflakeError:
    """Return what Snowflake would have said; what it has no word for keeps DuckDB's."""
    said = str(error).split("\n\nLINE")[0].strip()
    if isinstance(error, ParseError):
        plain = re.sub(r"\x1b\[\d+m", "", said)
        return SnowflakeError(1003, "42000", f"SQL compilation error:\n{plain}")
    for words, known in _SAID.items():
        if words in said:
            return SnowflakeError(*known)
    for kind, pattern, errno, sqlstate in _RULES:
        if isinstance(error, kind) and re.search(pattern, said):
            prefix = "SQL compilation error:\n" if errno < 100000 and errno != 604 else ""
            return SnowflakeError(errno, sqlstate, prefix + said)
    return SnowflakeError(300010, "XX000", f"The emulator can't do this: {said}")
