"""Traps into which an audit could fall, and then pass silently, break the run, or say something wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Rejected
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.audited import KEYS, Bench, Row, failed_days, slice_of
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

TWO: list[Row] = [(0, 1, 1.0, "a"), (0, 2, 2.0, "b")]
TODAY: PartitionSlice = slice_of([0])


def judged(bench: Bench, sql: str, *audits: sb.Audit, days: PartitionSlice = TODAY, **spec: Any) -> Audited | Rejected:
    """Stage what a SELECT gives, and audit it."""
    origin = Origin(run_id="1", publication_id="1")
    with bench.warehouse.connect() as connection:
        changed = replace(bench.spec, **spec)
        staged = write(connection, Query(sql), spec=changed, partition_slice=days, origin=origin)
        return audit(connection, staged, audits, origin=origin, gate="run")


def test_nan_is_no_value_to_compare_with() -> None:
    for make in (
        lambda: sb.accepted_values("note", ["a", math.nan]),
        lambda: sb.accepted_values("note", [Decimal("NaN")]),
        lambda: sb.in_range("value", 0, math.nan),
        lambda: sb.in_range("value", pd.NaT),
    ):
        with pytest.raises(sb.ConfigurationError):
            make()


def test_bounds_may_be_infinite(backend: Backend) -> None:
    bench = Bench(backend)
    assert not failed_days(bench.result(TWO, sb.in_range("value", 0, math.inf)))
    assert failed_days(bench.result(TWO, sb.in_range("value", 1.5, math.inf))) == {0}


def test_values_may_come_from_a_generator(backend: Backend) -> None:
    assert not failed_days(Bench(backend).result(TWO, sb.accepted_values("note", (c for c in "ab"))))  # type: ignore[arg-type]


DUCKDB_TYPE = pytest.mark.only("duckdb", reason="a type that Snowflake has not")
SMALL_INTEGER = pytest.mark.only("duckdb", reason="on Snowflake BIGINT is NUMBER(38, 0); the emulator's has 64 bits")
OPPOSITE = ("-9223372036854775807", "9223372036854775807", {"relative_tolerance": 0.5})
FAR: list[Any] = [
    ("DOUBLE", "5.0", "CAST('nan' AS DOUBLE)", {"absolute_tolerance": 0.1}),
    ("DOUBLE", "5.0", "CAST('nan' AS DOUBLE)", {"relative_tolerance": 0.1}),
    ("DOUBLE", "CAST('nan' AS DOUBLE)", "5.0", {"relative_tolerance": 0.1}),
    ("DOUBLE", "CAST('inf' AS DOUBLE)", "1.0", {"relative_tolerance": 0.1}),
    ("DOUBLE", "CAST('inf' AS DOUBLE)", "CAST('-inf' AS DOUBLE)", {"relative_tolerance": 0.1}),
    ("DOUBLE", "CAST('inf' AS DOUBLE)", "CAST('nan' AS DOUBLE)", {"absolute_tolerance": 0.1}),
    ("DOUBLE", "NULL", "5.0", {"absolute_tolerance": 10.0}),
    ("BIGINT", "1234567890123456789", "1234567890123456790", {"absolute_tolerance": 0.01}),
    pytest.param("BIGINT", *OPPOSITE, marks=SMALL_INTEGER),
    pytest.param("NUMBER(38, 0)", *OPPOSITE, marks=pytest.mark.only("snowflake", reason="a type of Snowflake's")),
    pytest.param("UBIGINT", "1", "3", {"absolute_tolerance": 1.0}, marks=DUCKDB_TYPE),
    ("DECIMAL(20, 2)", "123456789012345678.01", "123456789012345678.03", {"absolute_tolerance": 0.015}),
    pytest.param("BIT", "'100'", "'101'", {"absolute_tolerance": 0.001}, marks=DUCKDB_TYPE),
    ("DOUBLE", "100.0", "102.1", {"relative_tolerance": 0.02}),
]


@pytest.mark.parametrize(("kind", "old", "new", "tolerance"), FAR)
def test_a_tolerance_hides_no_real_change(
    kind: str, old: str, new: str, tolerance: dict[str, float], backend: Backend
) -> None:
    bench = Bench(backend, live=None)
    backend.change(f"CREATE TABLE t AS SELECT DATE '2024-01-01' AS day, 1 AS id, CAST({old} AS {kind}) AS x")
    sql = f"SELECT DATE '2024-01-01' AS day, 1 AS id, CAST({{}} AS {kind}) AS x"
    (result,) = judged(bench, sql.format(new), sb.compare(max_changed=0, **tolerance)).results  # type: ignore[arg-type]
    assert result.problem is None
    assert result.verdicts[KEYS[0]].measured["changed"] == 1
    (result,) = judged(bench, sql.format(old), sb.compare(max_changed=0, **tolerance)).results  # type: ignore[arg-type]
    assert result.passed


def test_columns_of_a_comparison_are_named_in_any_case(backend: Backend) -> None:
    bench = Bench(backend, live=TWO)
    changed: list[Row] = [(0, 1, 99.0, "a"), (0, 2, 2.0, "b")]
    assert failed_days(bench.result(changed, sb.compare(max_changed_by_column={"VALUE": 0}))) == {0}
    for column in ("nope", "id"):
        assert "is no compared column" in str(
            bench.result(changed, sb.compare(max_changed_by_column={column: 0})).problem
        )
    assert sb.compare(key="id").key == ("id",)


def test_a_first_comparison_proves_its_key_too(backend: Backend) -> None:
    result = Bench(backend, live=None).result([(0, 1, 1.0, "a"), (0, 2, 2.0, "a")], sb.compare(key=["note"]))
    assert "come twice" in str(result.problem)
    assert result.blocks


def test_the_stamp_of_a_row_is_no_change(backend: Backend) -> None:
    bench = Bench(backend, live=TWO)
    rows = "(VALUES (1, 7.0, 'a'), (2, 8.0, 'b')) r (id, v, n)"
    sql = f"SELECT DATE '2024-01-01' AS day, id, v AS value, n AS note FROM {rows}"
    assert failed_days(judged(bench, sql, sb.compare(max_changed=0)).results[0]) == {0}
    assert judged(bench, sql, sb.compare(max_changed=0), updated_at_column="value").results[0].passed


def test_a_sample_of_differences_has_just_what_differs(backend: Backend) -> None:
    bench = Bench(backend, live=None)
    old = "DATE '2024-01-01' AS day, 1 AS id, 1.0::DOUBLE AS a, 5 AS live_a, 'x' AS change, 'nan'::DOUBLE AS n"
    backend.change(f"CREATE TABLE t AS SELECT {old}")
    new = old.replace("1.0::DOUBLE", "1.001::DOUBLE").replace("5 AS", "6 AS").replace("'x'", "'y'")
    (result,) = judged(bench, f"SELECT {new}", sb.compare(absolute_tolerance=0.01)).results
    (row,) = result.sample
    assert (row["in live"], row["in shadow"]) == ("live_a: 5, change: x", "live_a: 6, change: y")
    assert (row["id"], row["change"]) == (1, "changed")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMost(sb.GroupAudit):
    """Not more rows than that."""

    most: int

    def aggregates(self) -> Mapping[str, str]:
        return {}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        return sb.Verdict(outcome="passed" if shadow.rows <= self.most else "failed")


def test_an_audit_of_numbers_of_rows_needs_no_other_beside_it(backend: Backend) -> None:
    assert failed_days(Bench(backend).result(TWO, AtMost(name="one", most=1))) == {0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning(sb.GroupAudit):
    """Returns what it is given."""

    verdict: Any

    def aggregates(self) -> Mapping[str, str]:
        return {}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        return self.verdict


@pytest.mark.parametrize(
    ("measured", "found"),
    [({"a": np.int64(3)}, {"a": 3}), ({"a": Decimal("1.5")}, {"a": 1.5}), ({"a": "text"}, None), (None, None)],
)
def test_what_a_verdict_measured_is_made_plain_or_refused(measured: Any, found: object, backend: Backend) -> None:
    verdict = sb.Verdict(outcome="passed", measured=measured)
    result = Bench(backend).result(TWO, Returning(name="returning", verdict=verdict))
    assert result.blocks is (found is None)
    if found is not None:
        assert result.verdicts[KEYS[0]].measured == found


def net_amount(backend: Backend) -> str:
    """Return the column `net amount` as a query of the warehouse's users names it."""
    return backend.own(duckdb='"net amount"', snowflake='"NET AMOUNT"')


@pytest.mark.parametrize(
    "make",
    [
        lambda: sb.expression("net > 0 amount"),
        lambda: sb.in_range("net  amount", 0),
        lambda: sb.aggregate_between("sum(net) amount", 0),
    ],
)
def test_a_name_behind_an_expression_is_refused(make: Callable[[], sb.Audit], backend: Backend) -> None:
    sql = f"SELECT DATE '2024-01-01' AS day, 1 AS id, 1 AS net, -999 AS {net_amount(backend)}"
    (result,) = judged(Bench(backend, live=None), sql, make()).results
    assert "quote it" in str(result.problem)


def test_a_column_with_a_blank_in_its_name_is_that_column(backend: Backend) -> None:
    sql = f"SELECT DATE '2024-01-01' AS day, 1 AS id, 1 AS net, -999 AS {net_amount(backend)}"
    audits = [sb.in_range("net amount", 0), sb.aggregate_drift("Net Amount", "total")]
    first, second = judged(Bench(backend, live=None), sql, *audits).results
    assert not first.passed
    assert second.verdicts[KEYS[0]].measured["shadow"] == -999


QUERIES = {
    "SELECT day FROM (batch RIGHT JOIN calendar USING (day)) GROUP BY day HAVING count(id) = 0": {1},
    "WITH batch AS (SELECT 1) SELECT * FROM calendar WHERE day > DATE '2024-01-01'": {1},
    "SELECT b.d AS day FROM batch AS b (d, i, v, n) WHERE v > 1": {0},
    "WITH bad AS (SELECT * FROM batch WHERE value > 1) SELECT * FROM bad UNION ALL SELECT * FROM bad": {0},
    'SELECT * FROM BATCH AS "batch" WHERE EXISTS (SELECT 1 FROM batch AS o WHERE o.value < batch.value)': {0},
    "SELECT * FROM batch WHERE NOT EXISTS (SELECT 1 FROM live WHERE live.id = batch.id)": {0},
}


@pytest.mark.parametrize(("sql", "failed"), QUERIES.items())
def test_queries_of_any_shape_see_batch_and_live(sql: str, failed: set[int], backend: Backend) -> None:
    bench = Bench(backend, live=None)
    backend.change(
        "CREATE TABLE calendar AS SELECT DATE '2024-01-01' AS day UNION ALL SELECT DATE '2024-01-02'",
        "CREATE TABLE batch AS SELECT DATE '2024-01-01' AS day, 0.0 AS value",
    )
    result = bench.result(TWO, sb.failing_rows(sql, name="own"))
    assert result.problem is None
    assert failed_days(result) == failed


def test_a_row_of_no_partition_counts_once_in_all(backend: Backend) -> None:
    sql = "SELECT day + 40 AS day FROM batch WHERE id = 2"
    result = Bench(backend).result(TWO, sb.failing_rows(sql, name="own"))
    assert failed_days(result) == {0, 1, 2, 3}
    assert result.failed_rows == 1


def test_a_table_may_refer_to_itself(backend: Backend) -> None:
    sql = "SELECT DATE '2024-01-01' AS day, id, p AS parent FROM (VALUES (1, NULL), (2, 1), (3, {})) r (id, p)"
    audits = [sb.references("parent", table="main.T", column="id")]
    bench = Bench(backend, live=None)
    assert judged(bench, sql.format(2), *audits).results[0].passed
    assert judged(bench, sql.format(9), *audits).results[0].failed_rows == 1
    backend.change(
        "CREATE TABLE t (day DATE, id INTEGER, parent INTEGER)",
        "INSERT INTO t VALUES ('2024-01-01', 9, 0), ('2024-01-02', 10, 0)",
    )
    assert judged(bench, sql.format(10), *audits).results[0].passed, "of another day, which stays"
    assert not judged(bench, sql.format(9), *audits).results[0].passed, "of this day, which goes"


SEVERAL = pytest.mark.only("duckdb", reason="an expression of several values is DuckDB's")
BROKEN = [
    pytest.param(sb.expression("COLUMNS(*) IS NOT NULL"), "several values", marks=SEVERAL),
    pytest.param(sb.aggregate_between("unnest([min(value), 1])", 0), "several values", marks=SEVERAL),
    (sb.aggregate_between("CAST(coalesce(max(note), 'none') AS DOUBLE)", 0), "Could not convert"),
    (sb.in_range("day", datetime(2024, 1, 1, tzinfo=timezone.utc)), "can't be compared"),
]


@pytest.mark.parametrize(("broken", "says"), BROKEN)
def test_sql_that_breaks_in_odd_ways_is_unmeasured_alone(broken: sb.Audit, says: str, backend: Backend) -> None:
    found = Bench(backend).judged([(0, 1, 1.0, "7")], [sb.not_null("value"), broken, sb.row_count_between(0)])
    assert says in str(found.results[1].problem)
    assert (found.results[0].passed, found.results[2].passed) == (True, True)
    assert isinstance(found, Rejected)


def test_a_sample_that_can_not_be_shown_leaves_the_count(backend: Backend) -> None:
    sql = "SELECT day, CAST(note AS INTEGER) AS n FROM batch WHERE value > 1"
    result = Bench(backend).result(TWO, sb.failing_rows(sql, name="own", max_failures=1))
    assert (result.passed, result.failed_rows, list(result.sample)) == (True, 1, [])


def test_a_change_at_its_edge_passes(backend: Backend) -> None:
    live: list[Row] = [(0, 1, 1.0, "a")]
    one = sb.aggregate_drift("value", "total", max_change=0.1, absolute=True)
    assert Bench(backend, live=live).result([(0, 1, 1.1, "a")], one).passed


def test_frames_without_rows_are_audited(backend: Backend) -> None:
    bench = Bench(backend, live=TWO)
    with bench.warehouse.connect() as connection:
        origin = Origin(run_id="1", publication_id="1")
        empty = pa.table({"day": pa.array([], pa.date32()), "id": pa.array([], pa.int64())})
        staged = write(
            connection,
            empty.append_column("value", pa.array([], pa.float64())).append_column("note", pa.array([], pa.string())),
            spec=bench.spec,
            partition_slice=TODAY,
            origin=origin,
        )
        found = audit(
            connection,
            staged,
            [sb.row_count_drift(max_change=0.5), sb.compare(max_removed=1)],
            origin=origin,
            gate="run",
        )
    assert [result.passed for result in found.results] == [False, False]
