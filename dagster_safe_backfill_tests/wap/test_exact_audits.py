"""Audits of values compare them exactly: whatever the database calls equal, and differs, is another value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.audits.groups import Aggregate
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.wap.measure.live import measure_live
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.audited import Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows
from dagster_safe_backfill_tests.wap.test_sameness import Kept, slice_of

NOCASE = "VARCHAR COLLATE NOCASE"


def failed(kept: Kept, values: Sequence[str], audit: sb.Audit) -> int | None:
    """Return the number of rows that fail, of a row for each value."""
    rows = [f"('a', {i}, {value})" for i, value in enumerate(values)]
    (result,) = kept.judged(rows, audits=[audit]).results
    assert result.problem is None, result.problem
    return result.failed_rows


def live_failed(kept: Kept, values: Sequence[str], audit: sb.Audit) -> int | None:
    """Return the same of live rows, whose columns have the collation themselves."""
    kept.fill(*(f"('a', {i}, {value})" for i, value in enumerate(values)))
    with kept.backend.warehouse.connect() as session:
        (result,) = measure_live(session, [audit], spec=kept.spec, partition_slice=slice_of("a"))
    assert result.problem is None, result.problem
    return result.failed_rows


@pytest.mark.parametrize(
    ("kind", "accepted", "values", "count"),
    [
        (NOCASE, ["paris"], ["'paris'", "'Paris'", "'PARIS'", "NULL"], 2),
        ("VARCHAR COLLATE NOACCENT", ["café", "the"], ["'café'", "'cafe'", "'thé'", "'the'"], 2),
        ("DOUBLE", [0.0, 1], ["0", "-0.0::DOUBLE", "1", "NULL"], 1),
        ("DOUBLE", [-0.0], ["0", "-0.0::DOUBLE", "NULL"], 1),
        ("FLOAT", [0.1, 0], ["0.1", "0", "-0.0::FLOAT", "0.2"], 2),
        ("INTERVAL", ["30 days"], ["INTERVAL 30 DAYS", "INTERVAL 1 MONTH", "NULL"], 1),
        ("INTEGER", [0.5, 2], ["1", "0", "2"], 2),
        ("VARCHAR", ["paris"], ["'paris'", "'Paris'"], 1),
    ],
)
def test_accepted_values(
    backend: Backend, kind: str, accepted: Sequence[Any], values: Sequence[str], count: int
) -> None:
    audit = sb.accepted_values("v", accepted)
    assert failed(Kept(backend, v=kind), values, audit) == count
    backend.change("DROP TABLE t")
    assert live_failed(Kept(backend, v=kind), values, audit) == count


@pytest.mark.parametrize("sql", ["trim(v)", "v || ''", "coalesce(v, 'paris')", '"v"'])
def test_accepted_values_of_an_expression(backend: Backend, sql: str) -> None:
    audit = sb.accepted_values(sql, ["paris"])
    values = ["'paris'", "'Paris'"]
    assert failed(Kept(backend, v=NOCASE), values, audit) == 1
    backend.change("DROP TABLE t")
    assert live_failed(Kept(backend, v=NOCASE), values, audit) == 1


def test_an_expression_that_names_a_collation_compares_by_it(backend: Backend) -> None:
    audit = sb.accepted_values("v COLLATE NOCASE", ["paris"])
    assert failed(Kept(backend, v=NOCASE), ["'paris'", "'Paris'", "'x'"], audit) == 1


def test_accepted_intervals_of_an_expression(backend: Backend) -> None:
    kept = Kept(backend, v="INTEGER")
    audit = sb.accepted_values("CASE v WHEN 1 THEN INTERVAL 30 DAYS WHEN 2 THEN INTERVAL 1 MONTH END", ["30 days"])
    assert failed(kept, ["1", "2", "NULL"], audit) == 1


@pytest.mark.parametrize(
    ("kind", "least", "most", "values", "count"),
    [
        # Texts are ordered by their bytes: capitals first.
        (NOCASE, "a", "z", ["'b'", "'B'", "'z'", "NULL"], 1),
        (NOCASE, None, "Z", ["'b'", "'B'"], 1),
        ("VARCHAR", "a", "z", ["'b'", "'B'"], 1),
        # The order of numbers: -0.0 is as large as 0.0, and NaN larger than all.
        ("DOUBLE", 0, 1, ["-0.0::DOUBLE", "0.5", "'nan'::DOUBLE", "-1"], 2),
        ("DOUBLE", 0, None, ["-0.0::DOUBLE", "'nan'::DOUBLE"], 0),
        # That of intervals counts a month as 30 days.
        ("INTERVAL", "30 days", None, ["INTERVAL 1 MONTH", "INTERVAL 29 DAYS"], 1),
    ],
)
def test_in_range(backend: Backend, kind: str, least: Any, most: Any, values: Sequence[str], count: int) -> None:
    audit = sb.in_range("v", least, most)
    assert failed(Kept(backend, v=kind), values, audit) == count
    backend.change("DROP TABLE t")
    assert live_failed(Kept(backend, v=kind), values, audit) == count


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct(sb.GroupAudit):
    """An expression has so many distinct values, in the shadow and live."""

    sql: str
    count: int
    needs_live: bool = True

    def aggregates(self) -> Mapping[str, Aggregate]:
        return {"distinct": Aggregate(sql=self.sql, of="distinct")}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        assert live is not None
        found = {"shadow": shadow.values["distinct"], "live": live.values["distinct"]}
        return sb.Verdict(outcome="passed" if {*found.values()} == {self.count} else "failed", measured=found)


@pytest.mark.parametrize(
    ("kind", "values", "count"),
    [
        (NOCASE, ["'a'", "'A'", "'a'", "NULL"], 2),
        ("DOUBLE", ["0", "-0.0::DOUBLE", "'nan'::DOUBLE", "-'nan'::DOUBLE", "NULL"], 3),
        ("INTERVAL", ["INTERVAL 30 DAYS", "INTERVAL 1 MONTH", "NULL"], 2),
        ("DOUBLE[]", ["[0.0]", "[-0.0::DOUBLE]", "[0.0]", "NULL"], 2),
        ("VARCHAR", ["'a'", "'A'", "NULL"], 2),
    ],
)
@pytest.mark.parametrize("sql", ["v", "coalesce(v, NULL)"])
def test_distinct(backend: Backend, kind: str, values: Sequence[str], count: int, sql: str) -> None:
    kept = Kept(backend, v=kind)
    kept.fill(*(f"('a', {i}, {value})" for i, value in enumerate(values)))
    audits = [
        Distinct(sql=sql, count=count, name="own"),
        sb.aggregate_drift(sql, "distinct", max_change=0, name="drift"),
    ]
    found = kept.judged([f"('a', {i}, {value})" for i, value in enumerate(values)], audits=audits)
    assert [one.passed for one in found.results] == [True, True], [one.problem or one.verdicts for one in found.results]


@pytest.mark.every_warehouse
def test_signs_of_zero_on_each_warehouse(backend: Backend) -> None:
    rows: list[Row] = [(0, 1, 0.0, "a"), (0, 2, -0.0, "b"), (0, 3, 1.0, "A")]
    table = Publications(backend, live=rows)
    audits = [
        sb.accepted_values("value", [0, 1]),
        sb.in_range("value", 0, 1),
        sb.accepted_values("note", ["a", "b"], name="note"),
        sb.accepted_values("value * 1.0", [0, 1], name="product"),
    ]
    judged = table.judged(rows, audits)
    problems = [result.problem for result in judged.results]
    assert problems == [None] * len(audits)
    assert [result.failed_rows for result in judged.results] == [1, 0, 1, 1]
    counts = [Distinct(sql=sql, count=3, name=sql) for sql in ("value", "note", "value * 1.0")]
    table.stage(rows, [0], "2", audits=counts)


@pytest.mark.every_warehouse
def test_a_zero_with_a_sign_is_not_written_without_it(backend: Backend) -> None:
    """An integer has no -0.0."""
    table = Publications(backend, live=[(0, 1, 1.0, "a")])
    sql = "SELECT DATE '2024-01-01' AS day, {} AS id, CAST(1 AS DOUBLE) AS value, 'a' AS note"
    with pytest.raises(sb.SchemaMismatchError, match=r"1 values of id .* don't fit .* unchanged"):
        table.published(sb.Query(sql.format("-CAST(0 AS DOUBLE)")), [0], "1")
    table.published(sb.Query(sql.format("CAST(0 AS DOUBLE)")), [0], "2")


@pytest.mark.parametrize(
    ("source", "target"), [("DOUBLE", "DECIMAL(9,2)"), ("DOUBLE[]", "INTEGER[]"), ("FLOAT", "BIGINT")]
)
def test_a_zero_with_a_sign_in_other_types(backend: Backend, source: str, target: str) -> None:
    kept = Kept(backend, v=target)
    zero = "[-0.0::DOUBLE, 1]" if "[" in source else "-0.0::DOUBLE"
    with pytest.raises(sb.SchemaMismatchError, match="don't fit"):
        kept.judged([f"('a', 1, {zero})"], types={"v": source})
    plain = "[0.0, 1]" if "[" in source else "0.0"
    kept.published([f"('a', 1, {plain})", "('a', 2, NULL)"])
    # Types that have a sign keep it.
    backend.change("DROP TABLE t")
    wide = Kept(backend, v="DOUBLE")
    found = wide.judged(["('a', 1, -0.0::FLOAT)", "('a', 2, NULL)"], types={"v": "FLOAT"})
    assert found.results == ()


def test_keep_latest_by_the_bytes_of_texts(backend: Backend) -> None:
    """A query's column may have a collation, by which `B` is later than `a`, and `a` as late as `A`."""
    kept = Kept(backend, v=NOCASE)
    kept.spec = replace(kept.spec, keep_latest="v")
    backend.change(
        "CREATE TABLE source (p VARCHAR, k BIGINT, v VARCHAR COLLATE NOCASE)",
        "INSERT INTO source VALUES ('a', 1, 'a'), ('a', 1, 'B'), ('a', 2, 'x'), ('a', 2, 'X')",
    )
    with backend.warehouse.connect() as session:
        origin = Origin(run_id="1", publication_id="1")
        staged = write(
            session, sb.Query("SELECT * FROM source"), spec=kept.spec, partition_slice=slice_of("a"), origin=origin
        )
        rows = session.query(
            __import__("sqlglot").parse_one(f'SELECT k, v FROM main."{staged.shadow.name}" ORDER BY k')
        )
    assert rows == [(1, "a"), (2, "x")]


def test_a_column_with_values_that_are_like_its_default_is_used(backend: Backend) -> None:
    """A rollback drops a column that its publication added only if nobody has a value in it but the default."""
    zero = "CAST(0 AS DOUBLE)"
    live = [*day_rows(0, 1.0), *day_rows(1, 1.0)]
    table = Publications(backend, live=live, on_schema_change="add_columns", column_defaults={"more": zero})
    sql = f"SELECT DATE '2024-01-01' AS day, i AS id, 2.0 AS value, 'n' AS note, {zero} AS more FROM range(3) r(i)"
    table.published(sb.Query(sql), [0], "1")
    # DuckDB's UPDATE doesn't write -0.0 over 0.0.
    table.do("DELETE FROM t WHERE id = 1 AND day = DATE '2024-01-02'")
    table.do("INSERT INTO t VALUES (DATE '2024-01-02', 1, 1.0, NULL, -0.0::DOUBLE)")
    table.rollback("1")
    assert "more" in [row[0] for row in table.read("SELECT column_name FROM duckdb_columns() WHERE table_name = 't'")]
