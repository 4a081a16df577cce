"""The gate of the grammar: what is Snowflake's passes, what isn't is told."""

from __future__ import annotations

import pytest

from dagster_safe_backfill_tests.snowflake.grammar import snowflake_problems

GOOD = [
    "ALTER TABLE a.b.c SWAP WITH d.e.f",
    "CREATE TRANSIENT TABLE x CLONE y COPY GRANTS",
    'CREATE OR REPLACE TABLE "X"."Y" CLONE "X"."Z"',
    "ALTER SESSION SET QUERY_TAG='x'",
    "ALTER SESSION UNSET QUERY_TAG",
    "USE WAREHOUSE W",
    "COMMENT ON TABLE a.b IS 'x''y'",
    "ALTER TABLE a SET COMMENT='x'",
    "BEGIN",
    "BEGIN TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "DESCRIBE TABLE a",
    "SHOW TABLES LIKE 'x' IN SCHEMA a.b",
    "TRUNCATE TABLE a",
    "DROP TABLE IF EXISTS a",
    "MERGE INTO a USING (SELECT 1 AS k, 2 AS v) AS s ON EQUAL_NULL(a.k,s.k) AND a.d >= '2024-01-01'::DATE WHEN MATCHED AND s.v IS DISTINCT FROM a.v THEN UPDATE SET v=s.v WHEN NOT MATCHED THEN INSERT (k) VALUES (s.k)",
    "PUT 'file:///tmp/x.parquet' @st/x AUTO_COMPRESS=FALSE OVERWRITE=TRUE",
    'PUT file:///tmp/x.parquet @"DB"."S"."st" AUTO_COMPRESS=FALSE',
    "COPY INTO a.b.c FROM @st/x FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE) MATCH_BY_COLUMN_NAME=CASE_INSENSITIVE PURGE=TRUE",
    "CREATE TEMPORARY STAGE a.b.st",
    "SELECT HASH_AGG(*), HASH(a,b) FROM t",
    "SELECT SUM(HASH(*)) FROM t",
    "SELECT COUNT_IF(x > 1), PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY x), APPROX_PERCENTILE(x, 0.5) FROM t",
    "UPDATE t SET a = a WHERE 1=0",
    "DELETE FROM t WHERE d >= '2024-01-01'::DATE AND d < '2024-02-01'::DATE",
    "INSERT INTO t (a, b) SELECT a, b FROM s",
    "SELECT TRY_CAST('1' AS INT), TRY_TO_NUMBER(x) FROM t",
    "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.k = b.k",
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
BAD = [
    "INSERT INTO t (a) SELECT 1 ON CONFLICT DO NOTHING",
    "SELECT count(*) FILTER (WHERE x) FROM t",
    "MERGE INTO a USING b ON a.k=b.k WHEN NOT MATCHED BY SOURCE THEN DELETE",
    "SELECT * FROM a ASOF JOIN b ON a.k=b.k AND a.t>=b.t",
    "SELECT TRY_CAST(1 AS INT)",
    "SELECT bool_and(x) FROM t",
    "DELETE FROM t RETURNING *",
    "SELECT a FROM t QUALIFY a > 1",
    "SELECT DISTINCT ON (a) a FROM t",
    "INSERT OR REPLACE INTO t VALUES (1)",
    "CREATE TEMP VIEW v AS SELECT 1 AS a",
    "SELECT strftime(x, '%Y') FROM t",
    "SELECT 5 // 2",
    "FROM t",
    "MERGE INTO a USING b ON a.k=b.k WHEN MATCHED THEN DELETE WHEN MATCHED AND a.x=1 THEN DELETE",
    "SELECT * FROM a SEMI JOIN b ON a.k=b.k",
    "CREATE TABLE t (a HUGEINT)",
    "SELECT a::UBIGINT FROM t",
    "SELECT list(a) FROM t",
    "SELECT epoch(x) FROM t",
    "SELECT quantile_cont(x, 0.5) FROM t",
    "PRAGMA x",
    "SELECT unnest([1,2])",
    "BEGIN; DELETE FROM t",
    "ALTER TABLE a RENAME COLUMN",
    "SELECT * FROM t WHERE x IN ()",
    "SELECT x FROM t LIMIT 10%",
    "UPDATE t SET a=1 LIMIT 5",
    "DELETE t WHERE 1=1",
    "CREATE TABLE x CLONE y COPY",
    "SELECT [x for x in y]",
    "COPY t TO 'x.parquet'",
    "SELECT regexp_matches(a,'b') FROM t",
]


@pytest.mark.parametrize("sql", GOOD)
def test_snowflakes_grammar_passes(sql: str) -> None:
    assert snowflake_problems(sql) == []


@pytest.mark.parametrize("sql", BAD)
def test_what_snowflake_refuses_is_told(sql: str) -> None:
    assert snowflake_problems(sql)


def test_a_long_list_is_parsed_fast_and_one_too_long_is_told() -> None:
    numbers = ", ".join(map(str, range(16_384)))
    assert snowflake_problems(f"SELECT a FROM t WHERE a IN ({numbers})") == []
    assert snowflake_problems(f"SELECT a FROM t WHERE a IN ({numbers}, 1)")
