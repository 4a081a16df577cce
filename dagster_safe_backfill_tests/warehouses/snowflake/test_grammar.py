"""What the gate finds in statements, and what sqlfluff alone would let through of it."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

from dagster_safe_backfill_tests.harness.snowflake.duckdb_functions import duckdbs_own
from dagster_safe_backfill_tests.harness.snowflake.grammar import (
    LONGEST_LIST,
    shortened,
    snowflake_problems,
    transaction_problems,
    unparsable,
)

VALID = [
    "SELECT a, COUNT_IF(b > 1), HASH(a, b) FROM t WHERE d >= '2024-01-01'::DATE AND EQUAL_NULL(a, b) GROUP BY a",
    "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY a), MEDIAN(a), MAX_BY(a, b) FROM t",
    "SELECT a[1], a:b.c::TEXT, TRY_CAST('1' AS INT), TRY_CAST(CAST(a AS TEXT) AS DATE) FROM t",
    "SELECT TRY_CAST(a::VARCHAR AS INT) FROM t",
    "SELECT TRY_CAST(SUBSTR(a, b + 1) AS INT), TRY_CAST(a AS DATE), TRY_CAST(t.a || 'x' AS DATE) FROM t",
    "SELECT a IS DISTINCT FROM b, x'ab', 'a // b', '[1, 2]', '{}', 'list_value(1)', DATE '2024-01-01' FROM t",
    "SELECT TRANSFORM(a, x -> x + 1), INTERVAL '1 day', TIMESTAMP '2024-01-01 00:00:00' FROM t",
    "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.k = b.k",
    'SELECT "order", t."select", "list_value" AS "from" FROM "table" AS t',
    "SELECT * FROM (VALUES (1), (2)) AS range (a)",
    "INSERT INTO range (a, b) SELECT a, b FROM u",
    "CREATE TABLE IF NOT EXISTS range (a NUMBER(38, 0), b TIMESTAMP_NTZ(9), c VARCHAR(10) NOT NULL)",
    'CREATE OR REPLACE TRANSIENT TABLE "A"."B" AS SELECT 1 AS a',
    "CREATE TRANSIENT TABLE a CLONE b COPY GRANTS",
    "ALTER TABLE a SWAP WITH b",
    "COMMENT ON TABLE a IS 'x'",
    "MERGE INTO t USING s ON t.k = s.k WHEN MATCHED AND t.a <> 1 THEN DELETE WHEN MATCHED THEN UPDATE SET a = 1",
    "MERGE INTO t USING (SELECT 1 AS k) AS s ON t.k = s.k WHEN NOT MATCHED THEN INSERT (k, a) VALUES (s.k, 1)",
    "PUT 'file:///tmp/x//y.parquet' @~/x AUTO_COMPRESS = FALSE",
    "COPY INTO t FROM @~/x FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE",
    "REMOVE @~/x",
    "ALTER SESSION SET QUERY_TAG = 'x'",
    "INSERT INTO t (a, b, c, d, e) VALUES (?, ?, ?, ?, ?)",
    "SELECT a FROM t WHERE a = ?",
    "BEGIN TRANSACTION",
    "COMMIT",
    "ALTER TABLE a.b.c SWAP WITH d.e.f",
    "CREATE TRANSIENT TABLE x CLONE y COPY GRANTS",
    'CREATE OR REPLACE TABLE "X"."Y" CLONE "X"."Z"',
    "ALTER SESSION SET QUERY_TAG='x'",
    "ALTER SESSION UNSET QUERY_TAG",
    "USE WAREHOUSE W",
    "COMMENT ON TABLE a.b IS 'x''y'",
    "ALTER TABLE a SET COMMENT='x'",
    "BEGIN",
    "ROLLBACK",
    "DESCRIBE TABLE a",
    "SHOW TABLES LIKE 'x' IN SCHEMA a.b",
    "TRUNCATE TABLE a",
    "DROP TABLE IF EXISTS a",
    (
        "MERGE INTO a USING (SELECT 1 AS k, 2 AS v) AS s ON EQUAL_NULL(a.k,s.k) AND a.d >= "
        "'2024-01-01'::DATE WHEN MATCHED AND s.v IS DISTINCT FROM a.v THEN UPDATE SET v=s.v WHEN NOT MATCHED "
        "THEN INSERT (k) VALUES (s.k)"
    ),
    "PUT 'file:///tmp/x.parquet' @st/x AUTO_COMPRESS=FALSE OVERWRITE=TRUE",
    'PUT file:///tmp/x.parquet @"DB"."S"."st" AUTO_COMPRESS=FALSE',
    (
        "COPY INTO a.b.c FROM @st/x FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE) "
        "MATCH_BY_COLUMN_NAME=CASE_INSENSITIVE PURGE=TRUE"
    ),
    "CREATE TEMPORARY STAGE a.b.st",
    "SELECT HASH_AGG(*), HASH(a,b) FROM t",
    "SELECT SUM(HASH(*)) FROM t",
    "SELECT COUNT_IF(x > 1), PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY x), APPROX_PERCENTILE(x, 0.5) FROM t",
    "UPDATE t SET a = a WHERE 1=0",
    "DELETE FROM t WHERE d >= '2024-01-01'::DATE AND d < '2024-02-01'::DATE",
    "INSERT INTO t (a, b) SELECT a, b FROM s",
    "SELECT TRY_CAST('1' AS INT), TRY_TO_NUMBER(x) FROM t",
    "SELECT a FROM t QUALIFY ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) = 1",
    "CREATE TABLE t AS SELECT 1 AS a",
    "CREATE TRANSIENT TABLE t (a INT NOT NULL, ts TIMESTAMP_NTZ(9)) COMMENT = 'x'",
    "ALTER TABLE t ADD COLUMN x NUMBER(10,2)",
    "SELECT CONVERT_TIMEZONE('UTC', x)::TIMESTAMP_NTZ FROM t",
    "SELECT DATE_TRUNC('DAY', x), DATEADD(DAY, 1, x) FROM t",
    "CREATE SCHEMA IF NOT EXISTS a.b",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "SELECT x FROM t AT(OFFSET => -60)",
    "INSERT INTO t (a) VALUES (1), (2)",
    "SELECT a, ARRAY_AGG(b) WITHIN GROUP (ORDER BY b) FROM t GROUP BY a",
    "SHOW LOCKS",
    "SELECT LISTAGG(a, ',') FROM t",
    "SELECT * FROM VALUES (1, 'a'), (2, 'b') AS t(x, y)",
    "SELECT x FROM (VALUES (1), (2)) AS t(x)",
    "LIST @st",
    "REMOVE @st/x",
]

MISSED = {
    "SELECT * FROM a ASOF JOIN b ON a.k = b.k AND a.t >= b.t": "MATCH_CONDITION",
    "SELECT * FROM a ASOF JOIN b USING (k, t)": "MATCH_CONDITION",
    "SELECT * FROM a ASOF JOIN b ON a.t >= b.t ASOF JOIN c MATCH_CONDITION (a.t >= c.t)": "MATCH_CONDITION",
    "SELECT TRY_CAST(1 AS DATE)": "TRY_CAST",
    "SELECT TRY_CAST(-1 AS TEXT)": "TRY_CAST",
    "SELECT TRY_CAST(TRUE AS INT)": "TRY_CAST",
    "SELECT TRY_CAST(CURRENT_DATE() AS TIMESTAMP)": "TRY_CAST",
    "SELECT TRY_CAST(DATE '2024-01-01' AS TIMESTAMP)": "TRY_CAST",
    "SELECT TRY_CAST(CAST(a AS NUMBER(38, 0)) AS TEXT) FROM t": "TRY_CAST",
    "SELECT TRY_CAST(a::INT AS TEXT) FROM t": "TRY_CAST",
    "SELECT TRY_CAST(a + 1 AS TEXT) FROM t": "TRY_CAST",
    "SELECT CAST(a AS UUID) FROM t": "type UUID",
    "SELECT CAST(a AS INT[]) FROM t": "list types",
    "CREATE OR REPLACE TABLE IF NOT EXISTS t (a INT)": "exclude each other",
    "CREATE OR REPLACE SCHEMA IF NOT EXISTS s": "exclude each other",
    "CREATE OR REPLACE TRANSIENT TABLE IF NOT EXISTS t (a INT)": "exclude each other",
    "CREATE OR REPLACE TABLE a COPY GRANTS CLONE b": "COPY GRANTS",
    "DROP TABLE IF EXISTS a, b": "one object",
    "SELECT a AS column FROM t": "reserved",
    "SELECT t.order FROM t": "reserved",
    "SELECT [1, 2]": "ARRAY",
    "SELECT COALESCE([a, b][1], 0) FROM t": "ARRAY",
    "SELECT {'a': 1}": "OBJECT",
    "SELECT a[1:2] FROM t": "slices",
    "SELECT list_transform(a, x -> x + 1) FROM t": "no ->",
    "SELECT TRANSFORM(a, lambda x: x + 1) FROM t": "lambda",
    "SELECT list_value(a) FROM t": "function LIST_VALUE",
    "SELECT unnest(a) FROM t": "function UNNEST",
    "SELECT printf('%d', a) FROM t": "function PRINTF",
    "SELECT * FROM range(10)": "function RANGE",
    "SELECT epoch_ms(a) FROM t": "function EPOCH_MS",
    "SELECT strftime(a, '%Y') FROM t": "function STRFTIME",
    "SELECT date_diff('day', a, b) FROM t": "function DATE_DIFF",
    "SELECT string_agg(a, ',') FROM t": "function STRING_AGG",
    "SELECT quantile_cont(a, 0.5) FROM t": "function QUANTILE_CONT",
    "SELECT bool_and(a) FROM t": "function BOOL_AND",
    "SELECT if(a, b, c) FROM t": "function IF",
    "SELECT COLUMNS('x') FROM t": "function COLUMNS",
    "SELECT PERCENTILE_CONT(a, 0.5) FROM t": "WITHIN GROUP",
    "SELECT a // b FROM t": "comment",
    "SELECT a // 2\n FROM t": "comment",
    "SELECT a ~ 'x' FROM t": "operator",
    "SELECT a !~ 'x' FROM t": "operator",
    "SELECT * FROM t SEMI JOIN u ON t.a = u.a": "JOIN",
    "SELECT * FROM t ANTI JOIN u ON t.a = u.a": "JOIN",
    "SELECT * FROM t POSITIONAL JOIN u": "JOIN",
    "SELECT a FROM t EXCEPT ALL SELECT a FROM u": "ALL",
    "SELECT DISTINCT ON (a) a, b FROM t": "DISTINCT ON",
    "SELECT INTERVAL 1 DAY": "INTERVAL",
    "SELECT TIMESTAMPTZ '2024-01-01 00:00:00+00'": "literals",
    "VALUES (1), (2)": "VALUES",
    "SELECT rowid FROM t": "rowid",
    "SELECT 1; SELECT 2": "more than one",
    "BEGIN; DELETE FROM t": "more than one",
    "SELECT a FROM t QUALIFY a > 1": "QUALIFY",
    "CREATE TEMP VIEW v AS SELECT 1 AS a": "temporary",
    "SELECT list(a) FROM t": "function LIST",
    "SELECT epoch(x) FROM t": "function EPOCH",
    "SELECT regexp_matches(a, 'b') FROM t": "function REGEXP_MATCHES",
    "MERGE INTO t USING u ON t.k = u.k WHEN MATCHED THEN DELETE WHEN MATCHED AND t.a = 1 THEN UPDATE SET a = 2": "last",
    "MERGE INTO t USING u ON t.k = u.k WHEN NOT MATCHED THEN INSERT (k) VALUES (1)"
    " WHEN NOT MATCHED AND u.a = 1 THEN INSERT (k) VALUES (2)": "last",
}

CAUGHT = [
    "SELECT FROM WHERE",
    "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
    "INSERT OR REPLACE INTO t VALUES (1)",
    "INSERT INTO t BY NAME SELECT 1 AS a",
    "INSERT INTO t VALUES (1) RETURNING a",
    "SELECT COUNT(*) FILTER (WHERE a > 1) FROM t",
    "SELECT * FROM a ASOF LEFT JOIN b ON a.t >= b.t",
    "MERGE INTO t USING u ON t.k = u.k WHEN NOT MATCHED BY SOURCE THEN DELETE",
    "MERGE INTO t USING u USING (k) WHEN MATCHED THEN DELETE",
    "MERGE INTO t USING u ON t.k = u.k WHEN MATCHED THEN UPDATE SET *",
    "SELECT a::HUGEINT FROM t",
    "SELECT CAST(a AS UBIGINT) FROM t",
    "SELECT CAST(a AS STRUCT(x INT)) FROM t",
    "CREATE TABLE t (a HUGEINT)",
    "ALTER TABLE t ADD COLUMN a INT[]",
    "CREATE INDEX i ON t (a)",
    "SELECT a AS order FROM t",
    "SELECT order FROM t",
    "CREATE TABLE t (order INT)",
    "SELECT * EXCEPT (a) FROM t",
    "SELECT a FROM t WHERE a IN ()",
    "SELECT a ** b FROM t",
    "FROM t",
    "SELECT * FROM t USING SAMPLE 10",
    "PRAGMA table_info('t')",
    "CREATE TABLE t AS SELECT 1 AS a WITH NO DATA",
    "DELETE FROM t RETURNING *",
    "ALTER TABLE a RENAME COLUMN",
    "SELECT x FROM t LIMIT 10%",
    "UPDATE t SET a = 1 LIMIT 5",
    "DELETE t WHERE 1 = 1",
    "CREATE TABLE x CLONE y COPY",
    "SELECT [x for x in y]",
    "COPY t TO 'x.parquet'",
]


@pytest.mark.parametrize("sql", VALID)
def test_nothing_is_wrong_with_what_snowflake_takes(sql: str) -> None:
    assert snowflake_problems(sql) == []


@pytest.mark.parametrize(("sql", "why"), MISSED.items())
def test_what_the_grammar_lets_through_is_found(sql: str, why: str) -> None:
    assert unparsable(sql) == []
    assert [one for one in snowflake_problems(sql) if why in one], snowflake_problems(sql)


@pytest.mark.parametrize("sql", CAUGHT)
def test_what_cant_be_parsed_is_found(sql: str) -> None:
    assert unparsable(sql)
    assert snowflake_problems(sql)[0].startswith("can't be parsed")


def test_try_cast_of_a_column_is_told_by_its_type() -> None:
    sql = "SELECT TRY_CAST(t.a AS DATE) FROM t"
    assert snowflake_problems(sql) == []
    assert snowflake_problems(sql, columns={"A": "VARCHAR(10)"}) == []
    assert snowflake_problems(sql, columns={"A": "NUMBER(38,0)"}) == ["TRY_CAST takes texts only: 'T . A'"]


@pytest.mark.parametrize(
    ("before", "after"), [("SELECT a FROM t WHERE a IN (", ")"), ("INSERT INTO t VALUES ((1), ", ")")]
)
def test_long_lists_are_found(before: str, after: str) -> None:
    longest = ", ".join(["1"] * (LONGEST_LIST - 1))
    assert not [one for one in snowflake_problems(f"{before}{longest}{after}") if "too long" in one]
    assert [one for one in snowflake_problems(f"{before}{longest}, 1, 1{after}") if "too long" in one]


def test_too_many_rows_are_found() -> None:
    rows = ", ".join(["(1)"] * LONGEST_LIST)
    assert snowflake_problems(f"INSERT INTO t (a) VALUES {rows}") == []
    assert snowflake_problems(f"INSERT INTO t (a) VALUES {rows}, (1)")[0] == "a list of 16385 is too long"


def test_what_differs_in_literals_only_is_shortened() -> None:
    items = ", ".join(f"'{n}'" for n in range(100))
    assert shortened(f"SELECT a FROM t WHERE a IN ({items}) AND b = 1") == (
        "SELECT a FROM t WHERE a IN ('0', '1', '2') AND b = 1"
    )
    ranges = " OR ".join(f"(d >= '{n}' AND d < '{n}x')" for n in range(100))
    short = shortened(f"SELECT a FROM t WHERE {ranges} ORDER BY 1")
    assert short.count(" OR ") == 3
    assert short.endswith("OR (d >= '99' AND d < '99x') ORDER BY 1")
    same = "SELECT a, b, c, d, COALESCE(1, 2, x, 3), CASE WHEN a = 1 THEN b WHEN c = 1 THEN 2 END FROM t"
    assert shortened(same) == same


def test_an_error_is_not_shortened_away() -> None:
    items = ", ".join(map(str, range(100)))
    assert snowflake_problems(f"SELECT a FROM t WHERE a IN ({items}, 1 2)")
    assert snowflake_problems(f"SELECT a FROM t WHERE a IN ({items}, CAST(1 AS HUGEINT), {items})")
    assert snowflake_problems(f"SELECT a FROM t WHERE a IN ({items}) FILTER (WHERE a = 1)")


def test_long_statements_take_little_time() -> None:
    sql = f"SELECT a FROM t WHERE a IN ({', '.join(map(str, range(LONGEST_LIST)))})"
    begun = time.perf_counter()
    assert snowflake_problems(sql) == []
    assert time.perf_counter() - begun < 20


def test_transactions_have_no_ddl() -> None:
    right = ["CREATE TABLE t (a INT)", "BEGIN TRANSACTION", "UPDATE t SET a = 1", "COMMIT", "DROP TABLE t"]
    assert transaction_problems(right) == []
    assert transaction_problems(["begin", f"SELECT '{'x' * 1000}'", "-- no word\nSELECT 1", "commit"]) == []
    assert transaction_problems([*right[:2], "ALTER SESSION SET QUERY_TAG = 'x'", "SELECT 1", "ROLLBACK"]) == []
    for ddl in (
        "CREATE TEMPORARY TABLE u (a INT)",
        "ALTER TABLE t SWAP WITH u",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "COMMENT ON TABLE t IS 'x'",
        "BEGIN",
    ):
        (found,) = transaction_problems([*right[:2], ddl, *right[2:]])
        assert ddl in found


def test_transactions_begin_and_end() -> None:
    assert transaction_problems(["SELECT 1", "COMMIT"]) == ["no transaction was begun: 'COMMIT'"]
    assert transaction_problems(["BEGIN", "SELECT 1"]) == ["the last transaction isn't ended"]


def test_functions_of_both_are_allowed() -> None:
    assert {"hash", "sum", "count", "min", "max", "median"}.isdisjoint(duckdbs_own())
    assert {"list_value", "unnest", "strftime", "range", "epoch_ms", "string_agg", "regexp_extract"} <= duckdbs_own()
