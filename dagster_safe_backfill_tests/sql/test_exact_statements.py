"""The quick forms of exact comparison and of the exact hash, against the texts of all pairs of values."""

from __future__ import annotations

from contextlib import closing

import duckdb
import pytest

from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql.sameness import Sameness, hash_of
from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect

FLOATS = ["0.0", "'-0.0'", "'nan'", "'inf'", "'-inf'", "1.5", "NULL"]
SPANS = [
    *("'1 month'", "'30 days'", "'720 hours'", "'29 days 24 hours'", "'1 month -1 day'", "'29 days'", "'12 months'"),
    *("'1 year'", "'360 days'", "'0 days'", "'1 month -30 days'", "'1 day -24 hours'", "'-30 minutes'", "NULL"),
    *("'1 day -1470 minutes'", "'1 month -43230 minutes'", "'-1 month 43170 minutes'", "'2147483647 days'"),
]
LISTS = ["[0.0]", "['-0.0'::FLOAT]", "['-0.0'::FLOAT, NULL]", "[0.0, NULL]", "[NULL]", "[]", "[1.5]", "NULL"]
STRUCTS = [
    *("{'a': 0.0, 'b': INTERVAL '30 days'}", "{'a': '-0.0'::FLOAT, 'b': INTERVAL '30 days'}", "NULL"),
    *("{'a': NULL, 'b': INTERVAL '30 days'}", "{'a': NULL, 'b': INTERVAL '1 month'}", "{'a': NULL, 'b': NULL}"),
    "{'a': '-0.0'::FLOAT, 'b': NULL}",
]
UNHASHED = {
    "INTEGER[]": ["NULL", "[]", "[NULL]", "[NULL, NULL]", "[1]", "[1, NULL]", "[NULL, 1]", "[1, 2]", "[2, 1]"],
    "VARCHAR[]": ["NULL", "[]", "[NULL]", "['']", "['NULL']", "['a', 'b']", "['a, b']"],
    "INTEGER[2]": ["NULL", "[NULL, NULL]", "[1, NULL]", "[NULL, 1]", "[1, 2]"],
    "INTEGER[][]": [
        "NULL",
        "[]",
        "[NULL]",
        "[[]]",
        "[[NULL]]",
        "[[1], [2]]",
        "[[1, 2]]",
        "[[1, 2], []]",
        "[[], [1, 2]]",
    ],
    "STRUCT(a INTEGER, b INTEGER)": ["NULL", "{'a': NULL, 'b': NULL}", "{'a': 1, 'b': NULL}", "{'a': NULL, 'b': 1}"],
    "STRUCT(a INTEGER[], b STRUCT(c INTEGER))": [
        *("NULL", "{'a': NULL, 'b': NULL}", "{'a': [], 'b': NULL}", "{'a': [NULL], 'b': NULL}"),
        "{'a': NULL, 'b': {'c': NULL}}",
    ],
    "STRUCT(a INTEGER)[]": ["NULL", "[]", "[NULL]", "[{'a': NULL}]", "[{'a': 1}]"],
    "MAP(INTEGER, VARCHAR)": ["NULL", "MAP {}", "MAP {1: NULL}", "MAP {1: 'a'}", "MAP {1: 'a', 2: 'b'}"],
    "MAP(INTEGER, INTEGER[])": ["NULL", "MAP {}", "MAP {1: NULL}", "MAP {1: []}", "MAP {1: [NULL]}"],
    "DOUBLE[][]": ["NULL", "[NULL]", "[]", "[[]]", "[[0.0]]", "[['-0.0'::DOUBLE]]"],
}
"""Values of nested types that DuckDB's own `hash` doesn't tell apart, and some that it does."""
POOLS = {
    "DOUBLE": FLOATS,
    "FLOAT": FLOATS,
    "INTERVAL": SPANS,
    "FLOAT[]": LISTS,
    "STRUCT(a FLOAT, b INTERVAL)": STRUCTS,
    **UNHASHED,
}


@pytest.mark.parametrize("kind", POOLS)
def test_each_pair_of_values_is_compared_and_hashed_as_their_texts(kind: str) -> None:
    dialect = DuckDBDialect()
    # A second column, of another type, shares the conditions of the row. It is the same on both sides.
    columns = [Column(name="v", type=kind), Column(name="w", type="DOUBLE")]
    sameness = Sameness.of(columns, dialect)
    differ = sameness.differ(["v", "w"], left="one", right="other").sql(dialect.name)
    same = sameness.same(["v"], left="one", right="other").sql(dialect.name)
    row_hash = hash_of(columns, dialect).sql(dialect.name)
    with closing(duckdb.connect()) as warehouse:
        values = ", ".join(f"(CAST({value} AS {kind}))" for value in POOLS[kind])
        w = "unnest([0.0, '-0.0'::DOUBLE, NULL, 1.5]) AS w"
        warehouse.execute(f"CREATE TABLE r AS SELECT v, {w} FROM (VALUES {values}) AS pool(v)")
        pairs = warehouse.execute(f"""
            SELECT one.v::TEXT, other.v::TEXT, {differ}, ({same}) IS TRUE, one.h = other.h
            FROM (SELECT *, {row_hash} AS h FROM r) AS one JOIN (SELECT *, {row_hash} AS h FROM r) AS other
            ON one.w::TEXT IS NOT DISTINCT FROM other.w::TEXT""").fetchall()
    assert len(pairs) == 4 * len(POOLS[kind]) ** 2
    for one, other, is_other, is_same, has_one_hash in pairs:
        assert is_other == (one != other), (one, other)
        assert has_one_hash == (one == other), (one, other)
        assert is_same == (one == other and one is not None), (one, other)
