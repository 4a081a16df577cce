"""What the connector would lose of a column when it is read, what DESCRIBE says of one, and errors in plain words."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from snowflake.connector.errors import ProgrammingError
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.driver import Connection
from dagster_safe_backfill.warehouses.snowflake.errors import translated
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill.warehouses.snowflake.types import described
from dagster_safe_backfill_tests.harness.snowflake import translate
from dagster_safe_backfill_tests.harness.snowflake.grammar import snowflake_problems
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

T = TableRef(schema="main", name="t")


def fetched(account: SnowflakeBackend, load_type: type = pd.DataFrame, select: str = "*") -> Any:
    with account.warehouse.connect(read_only=True) as session:
        return session.fetch(exp.select(select).from_(terms.table(T)), load_type)


def test_an_offset_that_a_frame_would_lose_is_refused(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.change(
        "CREATE TABLE t (zoned TIMESTAMP_TZ, plain TIMESTAMP_LTZ)",
        "INSERT INTO t VALUES (NULL, NULL), ('2024-01-01 12:00:00+00', '2024-01-01 12:00:00+00')",
    )
    for load_type in (pd.DataFrame, pa.Table):
        assert len(fetched(account, load_type)) == 2
    # DuckDB's instants have no offset, so all of the emulator get another one.
    monkeypatch.setitem(translate._FORMATS, "TZHTZM", "+0200")
    account.change("ALTER TABLE t ADD COLUMN other INT")
    with pytest.raises(
        sb.SafeBackfillError, match=r"column zoned \(TIMESTAMP_TZ\).*the offset \+0200.*CONVERT_TIMEZONE"
    ):
        fetched(account)
    assert len(fetched(account, select="plain")) == 2


def test_a_timestamp_that_64_bits_do_not_hold_is_refused(
    account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of 9999-12-31 23:59:59.000000001; DuckDB's nanoseconds end in 2262."""
    account.change("CREATE TABLE t (day DATE, at TIMESTAMP_NTZ)")

    def arrow(*args: object) -> None:
        raise OverflowError("The total number of nanoseconds overflows int64 range")

    monkeypatch.setattr(Connection, "arrow", arrow)
    with pytest.raises(sb.SafeBackfillError, match=r"at \(TIMESTAMP_NTZ\) can't be read.*TIMESTAMP_NTZ\(6\)"):
        fetched(account)


def test_integers_have_one_dtype_whatever_they_are(account: SnowflakeBackend) -> None:
    account.change("CREATE TABLE t (i NUMBER(38,0), j NUMBER(3,0))", "INSERT INTO t VALUES (1, 100)")
    found = fetched(account)
    # The connector makes int8 of both.
    assert dict(found.dtypes) == {"i": "int64", "j": "int64"}
    assert (found * 100)["j"].tolist() == [10_000]
    assert dict(fetched(account, select="j").head(0).dtypes) == {"j": "int64"}


@pytest.mark.parametrize(
    ("text", "type_name", "collation"),
    [
        ("VARCHAR(16777216)", "VARCHAR", None),
        ("VARCHAR(134217728)", "VARCHAR", None),
        ("VARCHAR(16777216) COLLATE 'en-ci'", "VARCHAR", "en-ci"),
        ("VARCHAR(10) COLLATE 'en-ci-ai-pi'", "VARCHAR(10)", "en-ci-ai-pi"),
        ("VARCHAR COLLATE 'de'", "VARCHAR", "de"),
        ("NUMBER(38,0)", "NUMBER(38,0)", None),
        ("NUMBER(18, 2)", "NUMBER(18,2)", None),
        ("BINARY(8388608)", "BINARY", None),
        ("TIMESTAMP_NTZ(9)", "TIMESTAMP_NTZ", None),
        ("TIMESTAMP_TZ(3)", "TIMESTAMP_TZ(3)", None),
        ("TIME(0)", "TIME(0)", None),
        ("FLOAT", "FLOAT", None),
        ("VARIANT", "VARIANT", None),
        ("ARRAY(NUMBER(38,0) NOT NULL)", "ARRAY", None),
        ("MAP(VARCHAR(16777216), NUMBER(38,0))", "MAP", None),
        ("VECTOR(FLOAT, 256)", "VECTOR", None),
    ],
)
def test_described_types(text: str, type_name: str, collation: str | None) -> None:
    assert described(text) == (type_name, collation)


@pytest.mark.parametrize("kind", ["VARCHAR", "FLOAT", "TIMESTAMP_TZ", "VARIANT", "OBJECT", "ARRAY", "NUMBER(38,0)"])
def test_exact_forms_are_snowflakes(kind: str) -> None:
    collation = "en-ci" if kind == "VARCHAR" else None
    column = Column(name="x", type=kind, collation=collation)
    forms = SnowflakeDialect().exact(terms.column("x"), column)
    sql = exp.select(*forms).from_(terms.table(T)).sql(dialect=DIALECT)
    assert snowflake_problems(sql) == []
    assert len(forms) == (2 if kind in ("FLOAT", "TIMESTAMP_TZ") else 1)


@pytest.mark.parametrize(
    ("number", "text", "kind", "words"),
    [
        (
            90073,
            "Warehouse 'W' cannot be resumed because resource monitor 'M' has exceeded its quota.",
            sb.OutOfResourcesError,
            "quota is used up.*The live table is as it was.*name another virtual warehouse",
        ),
        (
            0,
            "Warehouse 'W' was suspended immediate by resource monitor 'M', statement aborted.",
            sb.OutOfResourcesError,
            "quota is used up",
        ),
        (300005, "Processing aborted: out of memory", sb.OutOfResourcesError, r"too little memory.*Batches\(size"),
        (0, "Warehouse 'W' is suspended.", sb.WarehouseUnavailableError, "suspended.*as it was.*AUTO_RESUME"),
        (
            630,
            "Statement reached its statement or warehouse timeout of 5 second(s) and was canceled.",
            sb.StatementCancelledError,
            "statement_timeout",
        ),
        (606, "No active warehouse selected in the current session.", sb.ConfigurationError, "warehouse="),
    ],
)
def test_snowflakes_own_words(number: int, text: str, kind: type[Exception], words: str) -> None:
    error = translated(ProgrammingError(text, errno=number), "INSERT INTO t SELECT 1")
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


def test_a_commit_that_lacks_something_may_have_taken_place() -> None:
    error = translated(ProgrammingError("resource monitor 'M' has exceeded its quota"), "COMMIT")
    assert "the ledger shows if it was committed" in str(error)
