"""What the emulator refuses as Snowflake does, and DuckDB or fakesnow would take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from snowflake.connector.errors import Error, ProgrammingError

from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.warehouses.snowflake.conftest import Run, runner

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

TABLE = "CREATE TABLE t (k INT, v INT, s VARCHAR)"
ROWS = "INSERT INTO t (k, v, s) SELECT 1, 1, 'a'"

# What Snowflake refuses, with its number.
REFUSED = {
    "on conflict": ("INSERT INTO t (k) SELECT 1 ON CONFLICT DO NOTHING", 1003),
    "filter": ("SELECT count(*) FILTER (WHERE k = 1) FROM t", 1003),
    "by source": ("MERGE INTO t USING t AS s ON t.k = s.k WHEN NOT MATCHED BY SOURCE THEN DELETE", 1003),
    "asof": ("SELECT t.k FROM t ASOF JOIN t AS s ON t.k = s.k AND t.v >= s.v", 1003),
    "returning": ("DELETE FROM t RETURNING k", 1003),
    "insert or replace": ("INSERT OR REPLACE INTO t (k) VALUES (1)", 1003),
    "distinct on": ("SELECT DISTINCT ON (k) k, v FROM t", 1003),
    "semi join": ("SELECT t.k FROM t SEMI JOIN t AS s ON t.k = s.k", 1003),
    "integer division": ("SELECT k // 2 FROM t", 1003),
    "from first": ("FROM t", 1003),
    "pragma": ("PRAGMA database_list", 1003),
    "function": ("SELECT bool_and(k = 1) FROM t", 2140),
    "function of DuckDB": ("SELECT list(k) FROM t", 1003),
    "time function": ("SELECT epoch(CURRENT_TIMESTAMP())", 2140),
    "quantile": ("SELECT quantile_cont(k, 0.5) FROM t", 2140),
    "try_cast of a column": ("SELECT TRY_CAST(k AS INT) FROM t", 1065),
    "try_cast of a number": ("SELECT TRY_CAST(1.5 AS INT)", 1065),
    "case of a column": ('SELECT "k" FROM t', 904),
    "case of an inserted column": ('INSERT INTO t ("k") SELECT 1', 904),
    "case of a table": ('SELECT k FROM "t"', 2003),
    "missing table": ("SELECT k FROM missing", 2003),
    "missing schema": ("SELECT k FROM missing.t", 2003),
    "missing column": ("SELECT missing FROM t", 904),
    "division by zero": ("SELECT 1 / (k - 1) FROM t", 100051),
    "existing table": ("CREATE TABLE t (a INT)", 2002),
    "parameter": ("ALTER SESSION SET NO_SUCH_THING = 1", 1006),
    "value of a parameter": ("ALTER SESSION SET LOCK_TIMEOUT = 'long'", 1008),
    "two statements": ("SELECT 1; SELECT 2", 8),
    "unconditional clause first": (
        "MERGE INTO t USING t AS s ON t.k = s.k WHEN MATCHED THEN DELETE WHEN MATCHED AND t.v = 1 THEN DELETE",
        1003,
    ),
    "duplicate match": (
        "MERGE INTO t USING (VALUES (1, 2), (1, 3)) AS s (k, v) ON t.k = s.k WHEN MATCHED THEN UPDATE SET v = s.v",
        100090,
    ),
    "not a number": ("SELECT CAST(s AS INT) FROM t", 100038),
    "stage that isn't": ("LIST @missing", 2003),
}


@pytest.mark.parametrize(("sql", "errno"), REFUSED.values(), ids=list(REFUSED))
def test_refused_with_snowflakes_number(run: Run, sql: str, errno: int) -> None:
    run(TABLE)
    run(ROWS)
    with pytest.raises(Error) as raised:
        run(sql)
    assert raised.value.errno == errno


TAKEN_WITHOUT = ("filter", "semi join", "quantile", "try_cast of a number", "case of a column")


@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning")
@pytest.mark.parametrize("name", TAKEN_WITHOUT)
def test_plain_fakesnow_takes_it(name: str) -> None:
    """So that the shim's refusals are needed; one that fakesnow learns can go."""
    from fakesnow.instance import FakeSnow

    with FakeSnow().connect("plain", "public").cursor() as cursor:
        cursor.execute(TABLE)
        cursor.execute(ROWS)
        cursor.execute(REFUSED[name][0])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT IFF(k = 1, 'a', 'b'), NVL(v, 0), ZEROIFNULL(v), DIV0(k, v) FROM t",
        "SELECT COUNT_IF(k > 0), BOOLAND_AGG(k > 0), MAX_BY(k, v), ANY_VALUE(k), LISTAGG(s, ',') FROM t",
        "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY v), APPROX_PERCENTILE(v, 0.5), MEDIAN(v), STDDEV(v) FROM t",
        "SELECT APPROX_COUNT_DISTINCT(k), COUNT(DISTINCT k), MIN(s), SUM(v), AVG(v) FROM t",
        "SELECT k FROM t WHERE k IS DISTINCT FROM v OR EQUAL_NULL(k, v)",
        "SELECT k FROM t QUALIFY ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) = 1",
        "SELECT TRY_CAST(s AS INT), TRY_TO_NUMBER(s), TRY_TO_DATE(s), LENGTH(s), UPPER(s) FROM t",
        "SELECT DATE_TRUNC('DAY', '2024-01-01 10:00:00'::TIMESTAMP_NTZ), DATEADD(DAY, 1, '2024-01-01'::DATE)",
        "SELECT CONVERT_TIMEZONE('UTC', 'Europe/Berlin', '2024-01-01 10:00:00'::TIMESTAMP_NTZ)",
        "SELECT TO_TIMESTAMP_NTZ(1700000000), TO_CHAR('2024-01-01'::DATE, 'YYYY-MM-DD'), TO_DATE('2024-01-01')",
        "SELECT t.k FROM (VALUES (1, 'a'), (2, 'b')) AS s (k, x) JOIN t ON t.k = s.k",
        "SELECT column1 FROM VALUES (1), (2)",
        "SELECT * EXCLUDE (s) FROM t",
        "WITH a AS (SELECT k FROM t) SELECT a.k FROM a",
        'SELECT k AS "lower" FROM t ORDER BY "lower"',
        "SELECT OBJECT_CONSTRUCT('a', k), PARSE_JSON('{\"a\": 1}'):a::INT, ARRAY_AGG(k) OVER () FROM t",
        "SELECT REGEXP_LIKE(s, '[a-z]+'), s ILIKE 'A%', CONTAINS(s, 'a'), SHA2(s), MD5(s) FROM t",
        "SELECT CURRENT_SESSION(), CURRENT_DATABASE(), CURRENT_TIMESTAMP(), SYSDATE(), UUID_STRING()",
        "SELECT k FROM t UNION ALL SELECT v FROM t EXCEPT SELECT 2",
    ],
)
def test_what_snowflake_takes_is_taken(run: Run, sql: str) -> None:
    run(TABLE)
    run(ROWS)
    run(sql)


def test_times_are_formatted(run: Run) -> None:
    assert run("SELECT TO_CHAR('2024-01-02'::DATE, 'YYYY-MM-DD')") == [("2024-01-02",)]
    assert run("SELECT TO_VARCHAR('2024-01-02 03:04:05'::TIMESTAMP_NTZ, 'YYYYMMDD HH24:MI:SS')") == [
        ("20240102 03:04:05",)
    ]


def test_lists_are_no_longer_than_16384(run: Run) -> None:
    run(TABLE)
    run(ROWS)
    longest = ", ".join(map(str, range(16384)))
    assert run(f"SELECT count(*) FROM t WHERE k IN ({longest})") == [(1,)]
    with pytest.raises(ProgrammingError, match="16,384"):
        run(f"SELECT count(*) FROM t WHERE k IN ({longest}, 16384)")


def test_keys_are_not_enforced(run: Run) -> None:
    run("CREATE TABLE keyed (k INT PRIMARY KEY, v INT UNIQUE)")
    run("INSERT INTO keyed SELECT 1, 1 UNION ALL SELECT 1, 1")
    assert run("SELECT count(*) FROM keyed") == [(2,)]


def test_what_is_not_null_is(run: Run) -> None:
    run("CREATE TABLE t (k INT NOT NULL)")
    with pytest.raises(Error) as raised:
        run("INSERT INTO t SELECT NULL")
    assert raised.value.errno == 100072


def test_temporary_tables_are_their_sessions(run: Run, other: Run) -> None:
    run("CREATE TABLE t AS SELECT 'permanent' AS a")
    run("CREATE TEMPORARY TABLE t AS SELECT 'temporary' AS a")
    run("CREATE TEMPORARY TABLE u AS SELECT 1 AS a")
    assert run("SELECT t.a FROM t") == [("temporary",)]
    assert other("SELECT a FROM t") == [("permanent",)]
    with pytest.raises(ProgrammingError, match="does not exist"):
        other("SELECT a FROM u")
    kinds = "SELECT table_name, table_type FROM information_schema.tables ORDER BY ALL"
    assert run(kinds) == [("T", "BASE TABLE"), ("T", "LOCAL TEMPORARY"), ("U", "LOCAL TEMPORARY")]
    assert other(kinds) == [("T", "BASE TABLE")]
    run("DROP TABLE t")
    assert run("SELECT a FROM t") == [("permanent",)]


def test_temporary_tables_end_with_their_session(connect: Callable[..., SnowflakeConnection], run: Run) -> None:
    connection = connect()
    runner(connection)("CREATE TEMPORARY TABLE u AS SELECT 1 AS a")
    connection.close()
    with pytest.raises(ProgrammingError, match="does not exist"):
        run("SELECT a FROM u")


def test_ddl_commits_the_open_transaction_and_is_told(run: Run, other: Run, emulator: Emulator, database: str) -> None:
    run(TABLE)
    run("BEGIN")
    run(ROWS)
    assert other("SELECT count(*) FROM t") == [(0,)]
    assert emulator.ddl_in_transactions(database) == []
    run("CREATE TABLE u (a INT)")
    run("ROLLBACK")
    assert other("SELECT count(*) FROM t") == [(1,)]
    assert emulator.ddl_in_transactions(database) == ["CREATE TABLE u (a INT)"]


def test_even_ddl_that_fails_commits(run: Run, other: Run) -> None:
    run(TABLE)
    run("BEGIN")
    run(ROWS)
    with pytest.raises(ProgrammingError):
        run("ALTER TABLE missing SWAP WITH t")
    run("ROLLBACK")
    assert other("SELECT count(*) FROM t") == [(1,)]
