"""What messages leave out: each kind of secret, whatever a driver may say, and values under other names."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import sqlglot

import dagster_safe_backfill as sb
from dagster_safe_backfill.errors import SafeBackfillError, WarehouseError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.redaction import (
    RedactedError,
    foreign_text,
    masked,
    masking,
    refused_statement,
    statement_text,
    without_secrets,
)
from dagster_safe_backfill.sql.audited_rows import kept_names

SECRETS = [
    "ATTACH 'postgres://user:SEC@host/db' AS x",
    "snowflake://user:S@EC@account/db",
    "postgres_scan('host=h password=SEC user=u', 't')",
    "CREATE SECRET (TYPE s3, KEY_ID 'SEC', SECRET 'S''EC', ENDPOINT 'e')",
    "md:db?motherduck_token=SEC&saas_mode=true",
    "read_csv('https://h/file?sig=SEC&b=1')",
    "ATTACH 'x.db' (ENCRYPTION_KEY 'SEC')",
    "PRAGMA add_parquet_key('k128', 'SEC')",
    "SET s3_secret_access_key='SEC'",
    "key='SEC'",
    "aws_session_token := 'SEC'",
    "{'password': 'SEC', 'a': 1}",
    '{"api_key": "SEC"}',
    "Query(sql=\"SELECT * FROM f(password=\\'SEC\\')\")",
    "Authorization: Bearer SEC.SEC-SEC",
    "ENCRYPTION_CONFIG {footer_key: 'SEC'}",
    "CREATE USER u IDENTIFIED BY 'SEC'",
    "password='SEC that was cut of",
    "password = $$SEC$$",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nSEC\n-----END ENCRYPTED PRIVATE KEY-----",
]
PLAIN = [
    'SELECT * FROM "t" WHERE "key" = \'2024-01-01\'',
    "the user or the password is wrong",
    "the private key's token has expired. The clock of this machine may be wrong",
    "compare() needs a key. Set unique_key on the asset, or key=['day'] in compare().",
    "no token was kept for the next login",
    "s3://bucket/folder/file@2.csv",
    "2024-01-01 to 2024-01-02 UTC",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_left_out(text: str) -> None:
    assert "SEC" not in without_secrets(text).replace("SECRET", "")
    assert "***" in without_secrets(text)
    with pytest.raises(WarehouseError) as caught, masking(None):
        raise WarehouseError(text)
    assert str(caught.value) == without_secrets(text)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


SAID = (
    "Conversion Error: Could not convert string '{}' to INT32 when casting from source column ssn\n\nLINE 1: SELECT …"
)
VALUES = [
    "078-05-1120",
    "O'Neil 078",
    'a "b" 078',
    "078\n\nLINE 1: 078",
    "' to 078 when casting from source column 078",
]


@pytest.mark.parametrize("value", VALUES)
def test_of_a_drivers_text_only_known_words_and_names_of_the_statement_are_kept(value: str) -> None:
    error, doing = (
        ValueError(SAID.format(value)),
        'INSERT INTO "t" SELECT CAST("ssn" AS INT), 12 FROM "s" WHERE "d" = \'078\'',
    )
    assert value in refused_statement(error, doing)
    with masking(["day"]):
        said = refused_statement(error, doing)
    assert "078" not in said
    assert "Neil" not in said
    assert said.startswith("ValueError: Conversion Error … Could not convert")
    assert ("INT32 … when casting from source column … ssn" in said) is ("LINE" not in value and "to" not in value)
    assert said.endswith('(while running: INSERT INTO "t" SELECT CAST("ssn" AS INT), … FROM "s" WHERE "d" = …)')


def test_values_are_masked_in_the_block_only_and_by_all_columns_that_they_come_from() -> None:
    assert masked(1) == masked(1, "ssn") == 1
    with masking(["Day", "info"]):
        assert masked(1, "day") == masked(1, "DAY", "info.name") == masked(1, "info[]") == 1
        assert masked(1, "ssn") == masked(1, "day", "ssn") == masked(1) == masked(1, "information") == "***"
        assert masked(None, "ssn") is None
    with masking([]):
        assert masked(1, "day") == "***"
        assert statement_text("SELECT 1, 'a' FROM t") == "SELECT …, …"
    assert statement_text("SELECT 1, 'a' FROM t") == "SELECT 1, 'a' FROM t"


def _refuse(*, shows: list[str] | None, text: str) -> SafeBackfillError:
    def driver() -> None:
        raise ValueError(text)

    with pytest.raises(SafeBackfillError) as caught, masking(shows):
        try:
            driver()
        except ValueError as error:
            raise WarehouseError(foreign_text(error)) from error
    return caught.value


def test_a_cause_keeps_its_traceback_and_not_its_text() -> None:
    error = _refuse(shows=[], text="duplicate key 078")
    said = "".join(traceback.format_exception(error))
    assert "078" not in said
    assert isinstance(error.__cause__, RedactedError)
    assert isinstance(error.__context__, RedactedError)
    assert "in driver" in said
    assert "ValueError: duplicate key" in said


def test_without_masks_a_cause_stays_unless_it_quotes_a_secret() -> None:
    assert isinstance(_refuse(shows=None, text="duplicate key 078").__cause__, ValueError)
    said = "".join(traceback.format_exception(_refuse(shows=None, text="no such password='SEC'")))
    assert "SEC" not in said
    assert "in driver" in said


def test_an_error_that_nobody_expected_is_told_by_its_class() -> None:
    value = "078"
    with pytest.raises(RedactedError, match=r"^ValueError") as caught, masking(["day"]):
        raise ValueError(f"what is {value}?")
    assert "078" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ConnectionError), masking(["day"]):
        raise ConnectionError("gone")


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT day, id FROM batch", {"day", "id"}),
        ("SELECT b.day, b.id FROM batch AS b", {"day", "id"}),
        ("SELECT * FROM batch", {"day", "id"}),
        ("SELECT date_trunc('month', day) AS day, id FROM batch", {"day", "id"}),
        ("SELECT max(day) AS id FROM batch", {"day", "id"}),
        ("SELECT ssn AS day, id FROM batch", {"id"}),
        ("SELECT ssn AS DAY, day AS id FROM batch", set[str]()),
        ("SELECT x.day FROM (SELECT ssn AS day FROM batch) AS x", {"id"}),
        ("WITH x(day) AS (SELECT ssn FROM batch) SELECT day FROM x", {"id"}),
        ("SELECT * REPLACE (ssn AS day) FROM batch", {"id"}),
        ("SELECT * RENAME (ssn AS day) FROM batch", {"id"}),
        ("SELECT day FROM batch UNION ALL SELECT ssn FROM batch", set[str]()),
        ("SELECT b AS day FROM batch AS b", {"id"}),
        ("SELECT '1' || (SELECT max(ssn) FROM batch) AS day FROM batch", {"id"}),
        ("SELECT {'day': ssn}.day FROM batch", {"id"}),
        ("SELECT struct_pack(day := ssn).day FROM batch", {"id"}),
        ("SELECT unnest([ssn]) AS day FROM batch", {"id"}),
        ("SELECT day FROM batch AS day", {"id"}),
    ],
)
def test_a_name_is_shown_only_of_its_own_column(sql: str, kept: set[str]) -> None:
    found: Any = sqlglot.parse_one(sql, dialect="duckdb")
    assert set(kept_names(found, ["day", "id"])) == kept


def test_the_secrets_of_io_managers_are_in_no_repr_and_no_error(tmp_path: Path) -> None:
    secrets = dict.fromkeys(("password", "private_key", "private_key_password"), "SEC")
    further = {"additional_snowflake_connection_args": {"token": "SEC"}}
    assert "SEC" not in repr(sb.RangeSnowflakeIOManager(user="u", database="d", **secrets, **further))  # type: ignore[arg-type]
    manager = sb.RangeDuckDBIOManager(
        database=f"{tmp_path}/nowhere/x?motherduck_token=SEC", connection_config={"s3_secret_access_key": "SEC"}
    )
    assert "SEC" not in repr(manager)
    assert "SEC" not in manager.database_shown[0]
    with pytest.raises(SafeBackfillError) as caught, manager.connected(TableRef(schema="main", name="t"), run_id=None):
        pass
    assert "SEC" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValueError, match=r"\d validation error") as refused:
        sb.RangeSnowflakeIOManager(user="u", database="d", password={"it": "SEC"}, lock_timeout="SEC")  # type: ignore[arg-type]
    assert "SEC" not in str(refused.value)
    assert "SEC" not in repr(sb.Query("SELECT * FROM f(password='SEC')"))
