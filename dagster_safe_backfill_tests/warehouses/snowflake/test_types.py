"""Snowflake's types: how they go into others, what they become, and what a cast would lose."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from sqlglot import exp

from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake import types
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect, plain
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run


@pytest.mark.parametrize(
    ("source", "target", "fit"),
    [
        ("NUMBER(38,0)", "NUMBER(38,0)", "same"),
        ("NUMBER(38,0)", "NUMBER(10,2)", "if_unchanged"),
        ("FLOAT", "NUMBER(10,2)", "if_unchanged"),
        ("TIMESTAMP_NTZ", "DATE", "if_unchanged"),
        ("TIMESTAMP_LTZ", "TIMESTAMP_TZ", "if_unchanged"),
        ("VARCHAR", "VARCHAR(3)", "if_unchanged"),
        (types.UNTYPED, "BINARY", "if_unchanged"),
        ("VARCHAR", "NUMBER(38,0)", "never"),
        ("TIMESTAMP_NTZ", "TIMESTAMP_TZ", "never"),
        ("BOOLEAN", "NUMBER(38,0)", "never"),
        ("VARIANT", "OBJECT", "never"),
    ],
)
def test_how_types_go_into_others(source: str, target: str, fit: str) -> None:
    assert SnowflakeDialect().fit(source=source, target=target) == fit


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        *((name, "VARCHAR") for name in ("text", "STRING", "varchar", "VARCHAR(16777216)")),
        *((name, "VARCHAR(3)") for name in ("TEXT(3)", "char(3)")),
        ("CHAR", "VARCHAR(1)"),
        *((name, "NUMBER(38,0)") for name in ("int", "BIGINT", "number", "DECIMAL(38, 0)")),
        ("NUMBER(10)", "NUMBER(10,0)"),
        ("numeric(10, 2)", "NUMBER(10,2)"),
        *((name, "FLOAT") for name in ("double", "FLOAT8", "REAL")),
        *((name, "TIMESTAMP_NTZ") for name in ("datetime", "TIMESTAMP_NTZ(9)", "timestampntz")),
        ("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)"),
        ("varbinary", "BINARY"),
        ("boolean", "BOOLEAN"),
    ],
)
def test_all_names_of_a_type_are_the_same(written: str, spelled: str) -> None:
    assert plain(written) == spelled


@pytest.mark.parametrize(
    ("source", "created", "keeps"),
    [
        ("DATE", "DATE", "date"),
        ("TIMESTAMP_NTZ(3)", "TIMESTAMP_NTZ", "timestamp"),
        ("TIMESTAMP_TZ", "TIMESTAMP_TZ", "timestamptz"),
        ("TIMESTAMP_LTZ", "TIMESTAMP_LTZ", "timestamptz"),
        ("VARCHAR(1)", "VARCHAR", "text"),
        ("NUMBER(1,0)", "NUMBER(38,0)", "other"),
        ("NUMBER(10,2)", "NUMBER(38,2)", "other"),
        (types.UNTYPED, None, "other"),
    ],
)
def test_what_types_become_and_keep(source: str, created: str | None, keeps: str) -> None:
    assert SnowflakeDialect().created_as(source) == created
    assert SnowflakeDialect().keeps(source) == keeps


@pytest.mark.parametrize(
    ("values", "source", "target", "lost"),
    [
        (["1", "1.5", "2.0", "NULL"], "NUMBER(10,1)", "NUMBER(38,0)", 1),
        (["1", "12345678.91", "123456789"], "FLOAT", "NUMBER(10,2)", 1),
        (["99", "100"], "NUMBER(38,0)", "NUMBER(4,2)", 1),
        (["'abc'", "'abcd'"], "VARCHAR", "VARCHAR(3)", 1),
        (["'2024-01-01 00:00:00'", "'2024-01-01 00:00:01'"], "TIMESTAMP_NTZ", "DATE", 1),
        (["9007199254740993", "9007199254740992", "0.1"], "NUMBER(38,1)", "FLOAT", 1),
        (["'2024-01-01'"], "DATE", "TIMESTAMP_NTZ", 0),
        (["NULL"], types.UNTYPED, "BINARY", 0),
    ],
)
def test_what_a_cast_would_lose(values: list[str], source: str, target: str, lost: int, run: Run) -> None:
    """The condition is run by the emulator, whose TRY_CAST takes nothing but text, as Snowflake's."""
    kind = "VARCHAR" if source == types.UNTYPED else source
    rows = " UNION ALL ".join(f"SELECT CAST({value} AS {kind}) AS V" for value in values)
    condition = SnowflakeDialect().is_lost(terms.column("v"), source=source, target=target)
    counted = terms.count_where(condition).sql(dialect=DIALECT)
    assert run(f"SELECT {counted} FROM ({rows})") == [(lost,)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.int8(), "NUMBER(38,0)"),
        (pa.uint64(), "NUMBER(38,0)"),
        (pa.float32(), "FLOAT"),
        (pa.decimal128(10, 2), "NUMBER(10,2)"),
        (pa.decimal256(50, 2), None),
        (pa.timestamp("ns"), "TIMESTAMP_NTZ"),
        (pa.timestamp("us", "America/New_York"), "TIMESTAMP_TZ"),
        (pa.dictionary(pa.int32(), pa.string()), "VARCHAR"),
        (pa.list_(pa.int64()), "ARRAY"),
        (pa.struct({"a": pa.int64()}), "OBJECT"),
        (pa.duration("s"), None),
        (pa.null(), "VARCHAR"),
    ],
    ids=str,
)
def test_types_of_arrow(kind: Any, name: str | None) -> None:
    assert types.of_arrow(kind) == name


def test_types_are_spelled_as_sqlglot_reads_them() -> None:
    for name in ("NUMBER(38,0)", "FLOAT", "VARCHAR(3)", "TIMESTAMP_NTZ", "TIMESTAMP_TZ", "TIMESTAMP_LTZ", "VARIANT"):
        assert isinstance(terms.data_type(name, dialect=DIALECT), exp.DataType)
        assert terms.data_type(name, dialect=DIALECT).sql(dialect=DIALECT).replace(" ", "").replace(
            "DECIMAL", "NUMBER"
        ) in (name, name.replace("FLOAT", "DOUBLE"))
