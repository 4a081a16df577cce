"""What fakesnow lacks and the emulator has: clones, swaps, comments, kinds, types, loading, parameters, processes."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowflake.connector.errors import ProgrammingError

from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator, spawn
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

Connect = Callable[..., "SnowflakeConnection"]

TYPED = """CREATE TABLE typed (i INT NOT NULL DEFAULT 7, n NUMBER(10,2), big NUMBER, f FLOAT, s VARCHAR(10), t VARCHAR,
           d DATE, ntz TIMESTAMP_NTZ, ltz TIMESTAMP_LTZ, tz TIMESTAMP_TZ, b BOOLEAN, x BINARY, j VARIANT)"""
TYPES = {
    "I": "NUMBER(38,0)",
    "N": "NUMBER(10,2)",
    "BIG": "NUMBER(38,0)",
    "F": "FLOAT",
    "S": "VARCHAR(10)",
    "T": "VARCHAR(16777216)",
    "D": "DATE",
    "NTZ": "TIMESTAMP_NTZ(9)",
    "LTZ": "TIMESTAMP_LTZ(9)",
    "TZ": "TIMESTAMP_TZ(9)",
    "B": "BOOLEAN",
    "X": "BINARY(8388608)",
    "J": "VARIANT",
}
FACTS = "SELECT table_name, is_transient, comment FROM information_schema.tables ORDER BY 1"


def described(run: Run, table: str) -> dict[str, str]:
    return {row[0]: row[1] for row in run(f"DESCRIBE TABLE {table}")}


@pytest.mark.parametrize(
    "make",
    [
        "CREATE TABLE made CLONE typed",
        "CREATE TABLE made LIKE typed",
        "CREATE TABLE made AS SELECT * FROM typed",
    ],
)
def test_types_are_described_and_kept(run: Run, make: str) -> None:
    run(TYPED)
    assert described(run, "typed") == TYPES
    run(make)
    assert described(run, "made") == TYPES


def test_a_clone_has_rows_defaults_nullability_and_the_comment(run: Run) -> None:
    run(TYPED)
    run("COMMENT ON TABLE typed IS 'it''s live'")
    run("INSERT INTO typed (s) SELECT 'a'")
    run("CREATE TRANSIENT TABLE made CLONE typed")
    assert run("SELECT i, s FROM made") == [(7, "a")]
    assert run("DESCRIBE TABLE made")[0][3:5] == ("N", "7")
    assert run(FACTS) == [("MADE", "YES", "it's live"), ("TYPED", "NO", "it's live")]
    run("DELETE FROM typed")
    assert run("SELECT count(*) FROM made") == [(1,)]


def test_a_transient_table_has_no_permanent_clone(run: Run) -> None:
    run("CREATE TRANSIENT TABLE t (a INT)")
    with pytest.raises(ProgrammingError, match="cannot be cloned to a permanent object"):
        run("CREATE TABLE u CLONE t")


def test_grants_go_with_a_clone_only_if_copied(run: Run) -> None:
    run("CREATE TABLE t (a INT)")
    run("GRANT SELECT ON TABLE t TO ROLE reader")
    run("CREATE TABLE with_grants CLONE t COPY GRANTS")
    run("CREATE TABLE without_grants CLONE t")
    assert run("SHOW GRANTS ON TABLE with_grants") == [("SELECT", "READER")]
    assert run("SHOW GRANTS ON TABLE without_grants") == []


def test_a_swap_is_its_own_inverse_and_takes_comments_kinds_and_grants_along(run: Run) -> None:
    run("CREATE TABLE live (a INT) COMMENT = 'old'")
    run("GRANT SELECT ON TABLE live TO ROLE reader")
    run("CREATE TRANSIENT TABLE aside (a INT, b INT) COMMENT = 'new'")
    run("ALTER TABLE live SWAP WITH aside")
    assert run(FACTS) == [("ASIDE", "NO", "old"), ("LIVE", "YES", "new")]
    assert list(described(run, "live")) == ["A", "B"]
    assert run("SHOW GRANTS ON TABLE live") == []
    run("ALTER TABLE live SWAP WITH aside")
    assert run(FACTS) == [("ASIDE", "YES", "new"), ("LIVE", "NO", "old")]
    assert [row[4:6] for row in run("SHOW TABLES LIKE 'A%'")] == [("TRANSIENT", "new")]


def test_what_a_clone_gets_of_its_source(run: Run, connect: Connect) -> None:
    """Not the owner, not Automatic Clustering, no stream; with COPY GRANTS those of a table that it replaces."""
    run("CREATE TABLE t (a INT)")
    run("ALTER TABLE t CLUSTER BY (a)")
    run("GRANT SELECT ON TABLE t TO ROLE reader")
    run("CREATE STREAM changes ON TABLE t")
    clone = connect(role="LOADER").cursor()
    clone.execute("CREATE TABLE made (b INT)")
    clone.execute("CREATE OR REPLACE TABLE made CLONE t COPY GRANTS")
    shown = {row[1]: row for row in run("SHOW TABLES IN SCHEMA PUBLIC")}
    assert [(shown[name][6], shown[name][8], shown[name][10]) for name in ("T", "MADE")] == [
        ("LINEAR(a)", "SYSADMIN", "ON"),
        ("LINEAR(a)", "LOADER", "OFF"),
    ]
    assert run("SHOW GRANTS ON TABLE made") == []
    run("ALTER TABLE made RESUME RECLUSTER")
    run("GRANT OWNERSHIP ON TABLE made TO ROLE sysadmin COPY CURRENT GRANTS")
    assert run("SHOW TABLES LIKE 'MADE'")[0][8:11:2] == ("SYSADMIN", "ON")
    assert [row[2].rpartition(".")[2] for row in run("SHOW STREAMS IN ACCOUNT")] == ["T"]
    run("ALTER TABLE t SWAP WITH made")
    assert [row[2].rpartition(".")[2] for row in run("SHOW STREAMS IN ACCOUNT")] == ["MADE"]


def test_ownership_is_only_given_away_with_a_word_about_grants(run: Run) -> None:
    run("CREATE TABLE t (a INT)")
    run("GRANT SELECT ON TABLE t TO ROLE reader")
    with pytest.raises(ProgrammingError, match="Dependent grant of privilege exists"):
        run("GRANT OWNERSHIP ON TABLE t TO ROLE other")
    run("GRANT OWNERSHIP ON TABLE t TO ROLE other REVOKE CURRENT GRANTS")
    assert run("SHOW GRANTS ON TABLE t") == []


def test_the_token_of_the_last_change_moves_with_each_commit_and_goes_with_a_swap(run: Run, other: Run) -> None:
    def token(name: str) -> int:
        return int(other(f"SELECT SYSTEM$LAST_CHANGE_COMMIT_TIME('PUBLIC.{name}')")[0][0])

    run("CREATE TABLE t (a INT)")
    run("CREATE TABLE u (a INT)")
    seen = [token("t")]
    run("INSERT INTO t VALUES (1)")
    seen.append(token("t"))
    run("BEGIN TRANSACTION")
    run("INSERT INTO t VALUES (2)")
    seen.append(token("t"))
    run("COMMIT")
    seen.append(token("t"))
    assert seen[1] == seen[2], "what isn't committed doesn't count"
    assert len({*seen}) == 3
    run("ALTER TABLE t SWAP WITH u")
    assert token("u") == seen[-1]
    run("BEGIN TRANSACTION")
    run("DELETE FROM u")
    run("ROLLBACK")
    assert token("u") == seen[-1]


def test_results_have_snowflakes_types(run: Run, connect: Connect) -> None:
    run(TYPED)
    run(
        """INSERT INTO typed SELECT 1, 1.25, 12345678901234567890123456789012345678, 0.5, 'a', 'b', '2024-01-01',
           '2024-01-01 10:00:00', '2024-01-01 10:00:00+00:00', '2024-01-01 10:00:00+00:00', TRUE,
           TO_BINARY('ff', 'HEX'), PARSE_JSON('{"a": 1}')"""
    )
    cursor = connect(arrow_number_to_decimal=True, session_parameters={"TIMEZONE": "UTC"}).cursor()
    row = cursor.execute("SELECT * FROM typed").fetchone()  # type: ignore[union-attr]
    noon = dt.datetime(2024, 1, 1, 10, tzinfo=dt.timezone.utc)
    assert row[:7] == (1, Decimal("1.25"), 12345678901234567890123456789012345678, 0.5, "a", "b", dt.date(2024, 1, 1))
    assert row[7:12] == (noon.replace(tzinfo=None), noon, noon, True, b"\xff")
    table = cursor.execute("SELECT * FROM typed").fetch_arrow_all()  # type: ignore[union-attr]
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["I"] == "int8"
    assert kinds["N"] == "decimal128(38, 2)"
    assert kinds["NTZ"] == "timestamp[ns]"
    assert kinds["LTZ"] == kinds["TZ"] == "timestamp[ns, tz=UTC]"


def test_numbers_with_a_scale_come_as_floats_unless_told(run: Run, connect: Connect) -> None:
    """A trap of Snowflake's connector, not of the emulator."""
    table = connect().cursor().execute("SELECT 1.25 AS n").fetch_arrow_all()  # type: ignore[union-attr]
    assert str(table.schema.field("N").type) == "double"


def test_an_empty_result_has_no_arrow_table_unless_told(run: Run, connect: Connect) -> None:
    cursor = connect().cursor()
    run("CREATE TABLE t (a INT, s VARCHAR)")
    assert cursor.execute("SELECT a, s FROM t").fetch_arrow_all() is None  # type: ignore[union-attr]
    table = cursor.execute("SELECT a, s FROM t").fetch_arrow_all(force_return_table=True)  # type: ignore[union-attr]
    assert table is not None
    assert table.column_names == ["A", "S"]


def test_a_query_is_described_without_being_run(run: Run, connect: Connect) -> None:
    run(TYPED)
    columns = connect().cursor().describe("SELECT n, ltz, tz, 1 / (i - i) AS q FROM typed")
    assert [(column.name, column.type_code) for column in columns][:3] == [("N", 0), ("LTZ", 6), ("TZ", 7)]
    assert (columns[0].precision, columns[0].scale) == (10, 2)


def test_the_time_zone_is_snowflakes_unless_set(run: Run) -> None:
    assert run("SELECT '2024-01-01 00:00:00+00:00'::TIMESTAMP_LTZ::DATE") == [(dt.date(2023, 12, 31),)]
    run("ALTER SESSION SET TIMEZONE = 'UTC'")
    assert run("SELECT '2024-01-01 00:00:00+00:00'::TIMESTAMP_LTZ::DATE") == [(dt.date(2024, 1, 1),)]


def test_hashes_tell_nulls_ignore_order_and_types_and_fit_a_number(run: Run) -> None:
    run("CREATE TABLE t AS SELECT 1 AS a, NULL AS b UNION ALL SELECT NULL, '1'")
    run("CREATE TABLE u AS SELECT NULL::NUMBER(10,2) AS a, '1' AS b UNION ALL SELECT 1.00, NULL")
    same = "SELECT HASH_AGG(a, b), SUM(HASH(a, b)), COUNT(DISTINCT HASH(a, b)) FROM {}"
    assert run(same.format("t")) == run(same.format("u"))
    assert run("SELECT HASH_AGG(a), HASH_AGG(*) FROM t WHERE FALSE")
    run("INSERT INTO u SELECT * FROM u")
    assert run("SELECT HASH_AGG(a, b) FROM t") != run("SELECT HASH_AGG(a, b) FROM u")
    assert run("SELECT SUM(HASH(k)::NUMBER(38,0) + 9223372036854775807) > 0 FROM (SELECT 1 AS k UNION ALL SELECT 2)")


def test_files_are_loaded_by_column_name_and_once(run: Run, tmp_path: Path) -> None:
    noon = dt.datetime.fromisoformat("2024-01-01 12:00:00")
    frame = pa.table({"s": ["a", None], "i": [1, 2], "ntz": [noon, noon], "n": [Decimal("1.25"), None]})
    pq.write_table(frame, tmp_path / "part.parquet")
    run(TYPED)
    run('CREATE TEMPORARY STAGE "Staged"')
    run(f"PUT 'file://{tmp_path}/part.parquet' '@\"Staged\"/run' AUTO_COMPRESS = FALSE OVERWRITE = TRUE")
    copy = (
        "COPY INTO typed FROM '@\"Staged\"/run' FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)"
        " MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    )
    assert [row[1:4] for row in run(copy)] == [("LOADED", 2, 2)]
    assert run("SELECT i, s, n, ntz, f FROM typed ORDER BY i") == [
        (1, "a", Decimal("1.25"), noon, None),
        (2, None, None, noon, None),
    ]
    assert [row[1] for row in run(copy)] == ["LOAD_SKIPPED"]
    run(f"{copy} FORCE = TRUE PURGE = TRUE")
    assert run("SELECT count(*) FROM typed") == [(4,)]
    assert run('LIST @"Staged"') == []


def test_a_timestamp_in_a_file_needs_the_logical_type(run: Run, tmp_path: Path) -> None:
    pq.write_table(pa.table({"ntz": [dt.datetime.fromisoformat("2024-01-01")]}), tmp_path / "part.parquet")
    run(TYPED)
    run(f"PUT 'file://{tmp_path}/part.parquet' @%typed AUTO_COMPRESS = FALSE")
    with pytest.raises(ProgrammingError, match="USE_LOGICAL_TYPE"):
        run("COPY INTO typed FROM @%typed FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE")


def test_a_load_rolls_back(run: Run, other: Run, tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1]}), tmp_path / "part.parquet")
    run(TYPED)
    run(f"PUT 'file://{tmp_path}/part.parquet' @~/run AUTO_COMPRESS = FALSE")
    copy = "COPY INTO typed FROM @~/run FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    run("BEGIN")
    run(copy)
    run("ROLLBACK")
    run(copy)
    assert other("SELECT count(*) FROM typed") == [(1,)]
    run("REMOVE @~/run")


def test_what_a_session_is_told_is_on_record(run: Run, emulator: Emulator, database: str) -> None:
    run("USE WAREHOUSE backfills")
    run("ALTER SESSION SET QUERY_TAG = '{\"run\": 1}'")
    run("ALTER SESSION SET LOCK_TIMEOUT = 60, STATEMENT_TIMEOUT_IN_SECONDS = 3600")
    run("SELECT CURRENT_WAREHOUSE()")
    last = emulator.history(database)[-1]
    assert (last["warehouse"], last["query_tag"]) == ("BACKFILLS", '{"run": 1}')
    assert last["parameters"]["LOCK_TIMEOUT"] == 60
    assert last["parameters"]["STATEMENT_TIMEOUT_IN_SECONDS"] == 3600
    run("ALTER SESSION UNSET QUERY_TAG")
    run("SELECT 1")
    assert emulator.history(database)[-1]["query_tag"] == ""


def test_identifiers_fold_as_snowflakes(run: Run) -> None:
    run('CREATE SCHEMA "Mixed"')
    run('CREATE TABLE "Mixed"."Case" (lower INT, "Quoted" INT)')
    run('INSERT INTO "Mixed"."Case" (LOWER, "Quoted") SELECT 1, 2')
    assert run('SELECT Lower, "Quoted" FROM "Case"') == [(1, 2)]
    assert list(described(run, '"Mixed"."Case"')) == ["LOWER", "Quoted"]


def test_dagsters_resource_reaches_it(emulator: Emulator, database: str) -> None:
    from dagster_snowflake import SnowflakeResource

    resource = SnowflakeResource(
        account="emulated",
        user="tester",
        password="none",
        database=database,
        schema="PUBLIC",
        additional_snowflake_connection_args=emulator.additional_connection_arguments(),
    )
    with resource.get_connection() as connection:
        assert connection.cursor().execute("SELECT CURRENT_DATABASE()").fetchall() == [(database,)]


CLIENT = """
import json, sys, snowflake.connector
with snowflake.connector.connect(**json.loads(sys.argv[1])) as connection:
    connection.cursor().execute("INSERT INTO t SELECT 1")
"""


def test_processes_share_one_that_is_a_process_of_its_own() -> None:
    import json

    import snowflake.connector

    with spawn() as emulator:
        database = emulator.database()
        arguments = emulator.connect_arguments(database)
        with snowflake.connector.connect(**arguments) as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE t (a INT)")
            subprocess.run([sys.executable, "-c", CLIENT, json.dumps(arguments)], check=True, timeout=60)
            assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(1,)]  # type: ignore[union-attr]
