"""Every type of DuckDB and Snowflake with values that are hard to keep, and what becomes of them through a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.wap.tables.read import read
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill_tests.harness.backends import Backend

ENGINES: Mapping[str, type] = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}

TYPES: Mapping[str, tuple[list[str], list[str]]] = {
    "BOOLEAN": (["true", "false"], []),
    "TINYINT": (["1"], ["-128", "127"]),
    "SMALLINT": (["1"], ["-32768", "32767"]),
    "INTEGER": (["1"], ["-2147483648", "2147483647"]),
    "BIGINT": (["1"], ["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    "HUGEINT": (["1", "9007199254740993"], ["99999999999999999999999999999999999999", "-1e37::HUGEINT"]),
    "UTINYINT": (["1"], ["255"]),
    "USMALLINT": (["1"], ["65535"]),
    "UINTEGER": (["1"], ["4294967295"]),
    "UBIGINT": (["1"], ["18446744073709551615"]),
    "UHUGEINT": (["1", "9007199254740993"], ["340282366920938463463374607431768211455"]),
    "BIGNUM": (["'1'"], ["'123456789012345678901234567890123456789012345678901234567890'"]),
    "FLOAT": (["1.5", "0.1"], ["'nan'", "'inf'", "'-inf'", "'-0.0'", "'1e-45'"]),
    "DOUBLE": (["1.5", "0.1"], ["'nan'", "'inf'", "'-inf'", "'-0.0'", "'5e-324'"]),
    "DECIMAL(4,2)": (["12.34", "0.1"], ["-99.99", "99.99"]),
    "DECIMAL(18,2)": (["1.10"], ["1234567890123456.78", "-9999999999999999.99"]),
    "DECIMAL(38,10)": (["1.1"], ["1234567890123456789012345678.0123456789"]),
    "VARCHAR": (["'a'", "''"], ["'é\U0001f600'", "'a' || chr(0) || 'b'", "'nan'", "'NULL'", "'  '"]),
    "BLOB": (["'a'::BLOB"], ["''::BLOB", r"'\x00\xff'::BLOB"]),
    "BIT": (["'0101'"], ["'1'", "repeat('01', 100)"]),
    "DATE": (["'2024-01-01'", "'1969-12-31'"], ["'0001-01-01'", "'9999-12-31'", "'0044-03-15 (BC)'", "'infinity'"]),
    "TIME": (["'12:30:00'"], ["'00:00:00'", "'23:59:59.999999'", "'24:00:00'"]),
    "TIME_NS": (["'12:30:00'"], ["'23:59:59.999999999'", "'24:00:00'"]),
    "TIMETZ": (["'12:30:00+02'"], ["'23:59:59.999999-15:59:59'", "'00:00:00+00'"]),
    "TIMESTAMP": (
        ["'2024-01-01 12:00:00.123456'"],
        ["'0001-01-01'", "'9999-12-31 23:59:59.999999'", "'290000-01-01'", "'infinity'", "'-infinity'"],
    ),
    "TIMESTAMP_S": (["'2024-01-01 12:00:00'"], ["'9999-01-01'", "'0001-01-01'"]),
    "TIMESTAMP_MS": (["'2024-01-01 12:00:00.123'"], ["'9999-01-01'", "'0001-01-01'"]),
    "TIMESTAMP_NS": (["'2024-01-01 12:00:00.123456789'"], ["'1677-09-22'", "'2262-04-11'"]),
    "TIMESTAMPTZ": (["'2024-01-01 12:00:00.123456+02'"], ["'0001-01-01'", "'290000-01-01'", "'infinity'"]),
    "INTERVAL": (
        ["'3 seconds'", "'-0.000001 seconds'"],
        ["'1 month'", "'30 days'", "'720 hours'", "'1 year -2 days 3 seconds'", "to_microseconds(9223372036854775807)"],
    ),
    "UUID": (["'7f0e8400-e29b-41d4-a716-446655440000'"], ["'ffffffff-ffff-ffff-ffff-ffffffffffff'"]),
    "JSON": (["""'{"a": 1}'"""], ["""'{"a":  1, "a": 2}'""", "'null'"]),
    "ENUM('b', 'a')": (["'a'", "'b'"], []),
    "INTEGER[]": (["[1, 2]", "[]"], ["[2147483647]"]),
    "INTEGER[2]": (["[1, 2]"], ["[-2147483648, 2147483647]"]),
    'STRUCT(a INTEGER, "b c" VARCHAR)': (["{'a': 1, 'b c': 'x'}"], ["{'a': 2147483647, 'b c': ''}"]),
    "STRUCT(day DATE, time TIMESTAMP_S)": (["{'day': DATE '2024-01-01', 'time': TIMESTAMP_S '2024-01-01'}"], []),
    "MAP(VARCHAR, INTEGER)": (["MAP {'k': 1}", "MAP {'l': 2, 'm': 3}"], ["MAP {}"]),
    "UNION(n INTEGER, s VARCHAR)": (["1", "'x'"], []),
    "GEOMETRY": (["'POINT(1 2)'"], []),
    "VARIANT": (["1::VARIANT"], ["{'a': [1]}::VARIANT"]),
}
"""A mapping from type to values as SQL: plain ones, and extreme ones."""

SNOWFLAKE: Mapping[str, tuple[list[str], list[str]]] = {
    "NUMBER(38,0)": (
        ["1", "-2"],
        ["127", "128", "9223372036854775807", "-9223372036854775809", f"{'9' * 38}", f"-{'9' * 38}"],
    ),
    "NUMBER(5,0)": (["1", "-99999"], ["99999"]),
    "NUMBER(18,2)": (["1.10", "-0.01"], ["1234567890123456.78", "-9999999999999999.99"]),
    "NUMBER(38,37)": (["1.1", "0"], [f"9.{'9' * 37}", f"-0.{'0' * 36}1"]),
    "FLOAT": (["1.5", "0.1"], ["'nan'", "'inf'", "'-inf'", "'-0.0'::DOUBLE", "'5e-324'::DOUBLE", "9007199254740993"]),
    "VARCHAR": (["'a'", "''"], ["'é😀'", "'nan'", "'NULL'", "'  '", "'\\N'", "'a' || chr(10) || chr(9)"]),
    "VARCHAR(3)": (["'abc'"], ["'😀😀😀'"]),
    "VARCHAR COLLATE 'en-ci'": (["'a'", "'A'"], ["'é'"]),
    "BINARY": (["'a'::BLOB"], ["''::BLOB", r"'\x00\xff'::BLOB"]),
    "BOOLEAN": (["true", "false"], []),
    "DATE": (["'2024-01-01'", "'1969-12-31'"], ["'0001-01-01'", "'9999-12-31'"]),
    "TIME": (["'12:30:00'"], ["'00:00:00'", "'23:59:59.999999'", "'23:59:59.999999999'"]),
    "TIME(0)": (["'12:30:00'"], ["'23:59:59'"]),
    "TIME(3)": (["'12:30:00.5'"], ["'23:59:59.999'"]),
    "TIMESTAMP_NTZ": (["'2024-01-01 12:00:00.123456'"], ["'0001-01-01'", "'9999-12-31 23:59:59.999999'"]),
    "TIMESTAMP_NTZ(0)": (["'2024-01-01 12:00:00'"], ["'0001-01-01'", "'9999-12-31 23:59:59'"]),
    "TIMESTAMP_NTZ(3)": (["'2024-01-01 12:00:00.123'"], ["'9999-12-31 23:59:59.999'"]),
    "TIMESTAMP_LTZ": (["'2024-01-01 12:00:00.123456+02'"], ["'0001-01-01 00:00+00'", "'9999-12-31 23:59:59+00'"]),
    "TIMESTAMP_TZ": (["'2024-01-01 12:00:00.123456+00'"], ["'0001-01-01 00:00+00'", "'9999-12-31 23:59:59+00'"]),
    "VARIANT": (["""'{"a": 1}'"""], ["'1'", "'null'"]),
    "OBJECT": (["""'{"a": {"b": [1]}}'"""], []),
    "ARRAY": (["'[1, 2]'"], []),
}
"""The same of Snowflake, as the DuckDB of the emulator writes them; it has no finer timestamps, and one offset."""


@dataclass(frozen=True, slots=True)
class Case:
    """A column of one type."""

    kind: str
    what: str
    values: tuple[str, ...]

    @property
    def type(self) -> str:
        return f"{self.kind}[]" if self.what.startswith("nested") else self.kind

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


def cases() -> Iterator[Case]:
    """Yield the cases of each type, in the order of `TYPES`."""
    for kind, (plain, extreme) in TYPES.items():
        lists = [f"[CAST({value} AS {kind})]" for value in plain]
        with_null = [f"[CAST({value} AS {kind}), NULL]" for value in plain]
        yield Case(kind, "plain", (*plain,))
        yield Case(kind, "with NULL", (*plain, "NULL"))
        yield Case(kind, "nested", (*lists,))
        yield Case(kind, "nested with NULL", (*with_null, "NULL", "[]"))
        if kind.startswith("STRUCT(a"):
            yield Case(kind, "with NULL within", (*plain, "{'a': NULL, 'b c': NULL}"))
        for value in extreme:
            yield Case(kind, value, (value,))
            yield Case(kind, f"nested {value}", (f"[CAST({value} AS {kind}), NULL]",))


_SPEC = TableSpec(table=TableRef(schema="main", name="t"))
_SPEC_OF_EMPTY = TableSpec(table=TableRef(schema="main", name="t"), on_empty="allow")


def create(backend: Backend, case: Case) -> None:
    """Make the table `t` of the case's values."""
    backend.change("DROP TABLE IF EXISTS t", f"CREATE TABLE t (i INTEGER, x {case.type})")
    for i, value in enumerate(case.values):
        backend.change(f"INSERT INTO t SELECT {i}, CAST({value} AS {case.type})")


def rows(backend: Backend) -> list[tuple[Any, ...]]:
    """Return the table's rows as texts, which differ where any byte of a value does, and the column's type."""
    return backend.read("SELECT i, CAST(x AS VARCHAR), typeof(x) FROM t ORDER BY i")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: `same`, `changed …`, or the library's own error; and what its column was loaded as."""

    text: str
    dtype: str


def written_again(backend: Backend, engine: type) -> Outcome:
    """Read the table as a frame, and write that frame."""
    before = rows(backend)
    dtype = ""
    try:
        with backend.warehouse.connect() as session:
            frame: Any = read(session, spec=_SPEC, partition_slice=None, columns=(), load_type=engine)
            dtype = _dtype(frame)
            store(session, frame, spec=_SPEC, partition_slice=None, origin=Origin(run_id="r", publication_id="r"))
    except sb.SafeBackfillError as error:
        assert rows(backend) == before
        return Outcome(str(error), dtype)
    return Outcome("same" if rows(backend) == before else f"changed: {before} -> {rows(backend)}", dtype)


def _dtype(frame: Any) -> str:
    if isinstance(frame, pa.Table):
        return ""
    return str(frame["x"].dtype)


def snowflake_cases() -> Iterator[Case]:
    """Yield the cases of each of Snowflake's types; lists are of type ARRAY there, whatever they hold."""
    for kind, (plain, extreme) in SNOWFLAKE.items():
        yield Case(kind, "plain", (*plain,))
        yield Case(kind, "with NULL", (*plain, "NULL"))
        for value in extreme:
            yield Case(kind, value, (value, "NULL"))


def all_written_again(backend: Backend, cases: Sequence[Case], engine: type) -> dict[Case, Outcome]:
    """Return the outcome of each case, tried together as columns of one table, and by halves if that is refused."""
    longest = max(len(case.values) for case in cases)
    backend.change(
        "DROP TABLE IF EXISTS t",
        f"CREATE TABLE t (i INTEGER, {', '.join(f'x{n} {case.kind}' for n, case in enumerate(cases))})",
    )
    for i in range(longest):
        # A column of fewer values has its first one again.
        values = [case.values[i] if i < len(case.values) else case.values[0] for case in cases]
        backend.change(f"INSERT INTO t SELECT {i}, {', '.join(values)}")
    texts = ", ".join(f"CAST(x{n} AS VARCHAR), typeof(x{n})" for n in range(len(cases)))
    before = backend.read(f"SELECT {texts} FROM t ORDER BY i")
    dtypes = [""] * len(cases)
    try:
        with backend.warehouse.connect() as session:
            frame: Any = read(session, spec=_SPEC, partition_slice=None, columns=(), load_type=engine)
            if not isinstance(frame, pa.Table):
                dtypes = [str(frame[f"x{n}"].dtype) for n in range(len(cases))]
            store(session, frame, spec=_SPEC, partition_slice=None, origin=Origin(run_id="r", publication_id="r"))
    except sb.SafeBackfillError as error:
        if len(cases) == 1:
            return {cases[0]: Outcome(str(error), dtypes[0])}
        half = len(cases) // 2
        return {
            **all_written_again(backend, cases[:half], engine),
            **all_written_again(backend, cases[half:], engine),
        }
    after = backend.read(f"SELECT {texts} FROM t ORDER BY i")
    found: dict[Case, Outcome] = {}
    for n, case in enumerate(cases):
        was, now = ([row[2 * n : 2 * n + 2] for row in rows] for rows in (before, after))
        found[case] = Outcome("same" if was == now else f"changed: {was} -> {now}", dtypes[n])
    return found


def empty(backend: Backend, engine: type) -> Any:
    """Return a frame of a table without rows that has a column of each of Snowflake's types."""
    columns = ", ".join(f"x{n} {kind}" for n, kind in enumerate(SNOWFLAKE))
    backend.change("DROP TABLE IF EXISTS t", f"CREATE TABLE t ({columns})")
    with backend.warehouse.connect() as session:
        frame = read(session, spec=_SPEC, partition_slice=None, columns=(), load_type=engine)
        store(session, frame, spec=_SPEC_OF_EMPTY, partition_slice=None, origin=Origin(run_id="r", publication_id="r"))
    return frame
