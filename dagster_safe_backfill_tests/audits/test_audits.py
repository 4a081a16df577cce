"""Every audit on a batch that passes, fails in one day, has NULLs, lacks a day, and has a day that live hasn't."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.audited import DAYS, KEYS, Bench, Row, failed_days
from dagster_safe_backfill_tests.harness.backends import Backend

pytestmark = pytest.mark.every_warehouse

SPOILED, NEW = 1, 3
EVERY = set(range(DAYS))
GOOD: list[Row] = [(day, i, float(i + 1), f"{day}-{i}") for day in range(DAYS) for i in range(4)]
LIVE = [row for row in GOOD if row[0] != NEW]
NOTES = [str(row[3]) for row in GOOD]
Spoil = Callable[[list[Row]], list[Row]]


def of_day(row: Row) -> bool:
    return row[0] == SPOILED


def valued(value: float | None) -> Spoil:
    """Give one row of the day another value."""
    return lambda rows: [(d, i, value if of_day((d, i, v, t)) and i == 2 else v, t) for d, i, v, t in rows]


def noted(note: str | None) -> Spoil:
    """Give one row of the day another note."""
    return lambda rows: [(d, i, v, note if of_day((d, i, v, t)) and i == 2 else t) for d, i, v, t in rows]


def scaled(factor: float) -> Spoil:
    """Multiply the day's values."""
    return lambda rows: [(d, i, v * factor if of_day((d, i, v, t)) and v is not None else v, t) for d, i, v, t in rows]


def fewer(rows: list[Row]) -> list[Row]:
    """Leave out two of the day's four rows."""
    return [row for row in rows if not (of_day(row) and (row[1] or 0) > 1)]


def flat(rows: list[Row]) -> list[Row]:
    """Give all rows of the day the same value, without changing the total."""
    return [(d, i, 2.5 if of_day((d, i, v, t)) else v, t) for d, i, v, t in rows]


def doubled(rows: list[Row]) -> list[Row]:
    """Give the day each of its rows again, under another id."""
    return [*rows, *((d, (i or 0) + 10, v, t) for d, i, v, t in rows if of_day((d, i, v, t)))]


def without_day(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not of_day(row)]


def without_values(rows: list[Row]) -> list[Row]:
    """Set values and notes of the day to NULL."""
    return [(d, i, None, None) if of_day((d, i, v, t)) else (d, i, v, t) for d, i, v, t in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread(sb.GroupAudit):
    """The largest value is at most so many times the smallest."""

    times: float = 10.0

    def aggregates(self) -> Mapping[str, str]:
        return {"least": "min(value)", "most": "max(value)"}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        least, most = shadow.values["least"], shadow.values["most"]
        is_far = least is not None and most is not None and most > self.times * least
        return sb.Verdict(outcome="failed" if is_far else "passed", measured=shadow.values)


@dataclass(frozen=True)
class Case:
    """An audit, how to make just one day fail it, and the days that fail elsewise."""

    audit: sb.Audit
    spoil: Spoil
    nulls: set[int] = field(default_factory=set)
    empty: set[int] = field(default_factory=set)
    good: set[int] = field(default_factory=set)
    spoiled: set[int] = field(default_factory=lambda: {SPOILED})
    needs_rows: bool = False


CASES = [
    Case(sb.unique("note"), noted("1-1")),
    Case(sb.unique("note", "value"), lambda rows: [*rows, (SPOILED, 9, 1.0, "1-0")]),
    Case(sb.not_null("value"), valued(None), nulls={SPOILED}),
    Case(sb.not_null("note", "value"), noted(None), nulls={SPOILED}),
    Case(sb.accepted_values("value", [1, 2, 3, 4]), valued(5.0)),
    Case(sb.accepted_values("note", [*NOTES, "it's"]), noted("its")),
    Case(sb.in_range("value", 1, 4), valued(4.5)),
    Case(sb.in_range("value", least=0.5, name="at_least"), valued(0.0)),
    Case(sb.in_range("length(note)", most=3), noted("long")),
    Case(sb.expression("value > 0 AND note <> ''"), noted("")),
    Case(sb.references("note", table="notes"), noted("unknown")),
    Case(sb.failing_rows("SELECT * FROM batch WHERE value > 100", name="own"), valued(101.0)),
    Case(
        sb.failing_rows("SELECT b.day FROM batch b JOIN live USING (day, id) WHERE b.value < live.value", name="less"),
        valued(0.5),
    ),
    Case(sb.failing_rows("SELECT day, count(*) FROM batch GROUP BY day HAVING count(*) < 3", name="days"), fewer),
    Case(sb.row_count_between(3), fewer, empty={SPOILED}, needs_rows=True),
    Case(sb.row_count_between(0, 4), lambda rows: [*rows, (SPOILED, 9, 1.0, "")]),
    Case(sb.row_count_between(16, over="run"), fewer, empty=EVERY, spoiled=EVERY, needs_rows=True),
    Case(
        sb.aggregate_between("sum(value) / NULLIF(count(*), 0)", 2, 3),
        scaled(2),
        nulls={SPOILED},
        empty={SPOILED},
        needs_rows=True,
    ),
    Case(sb.aggregate_between("max(value)", most=4, over="run"), scaled(2), spoiled=EVERY, needs_rows=True),
    Case(sb.row_count_drift(max_change=0.25), fewer, empty={SPOILED}),
    Case(sb.row_count_drift(max_change=1, absolute=True), fewer, empty={SPOILED}),
    Case(sb.row_count_drift(max_change=0.25, on_new_partition="fail"), fewer, empty={SPOILED, NEW}, good={NEW}),
    Case(sb.row_count_drift(max_change=0.34, over="run"), doubled, spoiled=EVERY),
    Case(sb.aggregate_drift("value", "total", max_change=0.1), scaled(1.2), nulls={SPOILED}, empty={SPOILED}),
    Case(sb.aggregate_drift("value", "total", max_change=1.5, absolute=True), scaled(1.2), {SPOILED}, {SPOILED}),
    Case(sb.aggregate_drift("value", "mean", max_change=0.1), scaled(1.2), nulls={SPOILED}, empty={SPOILED}),
    Case(sb.aggregate_drift("value", "distinct", max_change=0.25), flat, nulls={SPOILED}, empty={SPOILED}),
    Case(sb.aggregate_drift("value", "median", max_change=0.1), scaled(1.2), nulls={SPOILED}, empty={SPOILED}),
    Case(sb.aggregate_drift("value", 0.9, max_change=0.1), flat, nulls={SPOILED}, empty={SPOILED}),
    Case(sb.aggregate_drift("value", "median", max_change=0.1, over="run"), scaled(100), spoiled=EVERY),
    Case(sb.compare(max_changed=0), valued(9.0), nulls={SPOILED}),
    Case(sb.compare(max_removed=0.25), fewer, empty={SPOILED}),
    Case(sb.compare(max_added=0), lambda rows: [*rows, (SPOILED, 9, 1.0, "")], good={NEW}, spoiled={SPOILED, NEW}),
    Case(sb.compare(max_changed_by_column={"note": 0}), noted("x"), nulls={SPOILED}),
    Case(sb.compare(max_changed=0, relative_tolerance=0.01), scaled(1.02), nulls={SPOILED}),
    Case(sb.compare(max_changed=0, absolute_tolerance=0.5), valued(4.0), nulls={SPOILED}),
    Case(Spread(name="spread"), valued(11.0)),
    Case(Spread(name="spread_of_run", over="run"), valued(11.0), spoiled=EVERY),
]


def name_of(case: Case) -> str:
    return f"{type(case.audit).__name__}-{case.audit.name}"


@pytest.fixture
def bench(backend: Backend) -> Bench:
    return Bench(backend, live=LIVE, notes=NOTES)


def with_good(expected: set[int], case: Case) -> set[int]:
    return expected | case.good


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_correct_batch_passes_with_a_day_that_live_does_not_have(case: Case, bench: Bench) -> None:
    result = bench.result(GOOD, case.audit)
    assert result.problem is None
    assert failed_days(result) == case.good


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_spoiled_day_fails_alone(case: Case, bench: Bench) -> None:
    result = bench.result(case.spoil(GOOD), case.audit)
    assert result.problem is None
    assert failed_days(result) == with_good(case.spoiled, case)
    assert result.blocks is bool(failed_days(result))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_nulls_mean_what_sql_says(case: Case, bench: Bench) -> None:
    assert failed_days(bench.result(without_values(GOOD), case.audit)) == with_good(case.nulls, case)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_day_without_rows(case: Case, bench: Bench) -> None:
    assert failed_days(bench.result(without_day(GOOD), case.audit)) == with_good(case.empty, case)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_an_empty_batch_for_an_empty_table_is_no_difference(case: Case, backend: Backend) -> None:
    result = Bench(backend, live=[]).result([], case.audit)
    assert result.problem is None
    assert failed_days(result) == (EVERY if case.needs_rows else set())


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_first_batch_of_all_has_nothing_to_differ_from(case: Case, backend: Backend) -> None:
    result = Bench(backend, live=None, notes=NOTES).result(GOOD, case.audit)
    refuses_new = case.good == {NEW}
    assert result.problem is None
    assert failed_days(result) == (EVERY if refuses_new else set())


DUCKDB_TYPES = pytest.mark.only("duckdb", reason="names of DuckDB's types")
SNOWFLAKE_TYPES = pytest.mark.only("snowflake", reason="names of Snowflake's types")


@pytest.mark.parametrize(
    ("types", "finding"),
    [
        pytest.param({"value": "DOUBLE", "ID": "int8", "note": "text"}, None, marks=DUCKDB_TYPES),
        pytest.param({"value": "FLOAT"}, "value is DOUBLE, not FLOAT", marks=DUCKDB_TYPES),
        pytest.param({"value": "double", "ID": "number", "note": "text"}, None, marks=SNOWFLAKE_TYPES),
        pytest.param({"value": "NUMBER"}, "value is FLOAT, not NUMBER", marks=SNOWFLAKE_TYPES),
        ({"note": "VARCHAR", "nope": "DATE"}, "there is no column nope"),
    ],
)
def test_types_are_compared_whatever_their_spelling(
    types: Mapping[str, str], finding: str | None, bench: Bench
) -> None:
    result = bench.result(GOOD, sb.column_types(types))
    assert result.finding == finding
    assert failed_days(result) == (EVERY if finding else set())


LIMITS = [
    ({"max_failures": 2}, "passed"),
    ({"max_failures": 1}, "failed"),
    ({"max_failures": 0.5}, "passed"),
    ({"max_failures": 0.4}, "failed"),
    ({"max_failures": 1, "severity": "WARN"}, "warned"),
    ({"warn_above": 1, "error_above": 0.75}, "warned"),
    ({"warn_above": 0, "error_above": 1}, "failed"),
    ({"warn_above": 2}, "passed"),
    ({"warn_above": 0}, "warned"),
    ({"error_above": 0.25}, "failed"),
]


@pytest.mark.parametrize(("options", "outcome"), LIMITS, ids=[str(options) for options, _ in LIMITS])
def test_limits_are_counts_or_shares_by_severity(options: dict[str, float], outcome: str, bench: Bench) -> None:
    two_of_four = [(d, i, -1.0 if d == SPOILED and i in (0, 1) else v, t) for d, i, v, t in GOOD]
    audits = [
        sb.expression("value > 0", name="expression", **options),  # type: ignore[arg-type]
        sb.in_range("value", 0, **options),  # type: ignore[arg-type]
        sb.accepted_values("value", [1, 2, 3, 4], **options),  # type: ignore[arg-type]
        sb.failing_rows("SELECT * FROM batch WHERE value < 0", name="own", **options),  # type: ignore[arg-type]
    ]
    judged = bench.judged(two_of_four, audits)
    for result in judged.results:
        assert result.verdicts[KEYS[SPOILED]].outcome == outcome
        assert result.verdicts[KEYS[SPOILED]].failed_rows == 2
        assert {v.outcome for key, v in result.verdicts.items() if key != KEYS[SPOILED]} == {"passed"}
        assert result.blocks is (outcome == "failed")


def test_drifts_have_limits_by_severity_too(bench: Bench) -> None:
    one = sb.aggregate_drift("value", "total", warn_above=0.1, error_above=0.5)
    assert bench.result(scaled(1.2)(GOOD), one).verdicts[KEYS[SPOILED]].outcome == "warned"
    assert bench.result(scaled(2)(GOOD), one).verdicts[KEYS[SPOILED]].outcome == "failed"


BAD_ARGUMENTS: list[tuple[Callable[[], object], str]] = [
    (sb.not_null, "at least one column"),
    (lambda: sb.accepted_values("a", []), "a list of values"),
    (lambda: sb.accepted_values("a", "abc"), "a list of values"),
    (lambda: sb.accepted_values("a", [None]), "a list of values"),  # type: ignore[list-item]
    (lambda: sb.in_range("a"), "a value for least or for most"),
    (sb.row_count_between, "a value for least or for most"),
    (lambda: sb.row_count_between(3, 2), "nothing is at least 3 and at most 2"),
    (lambda: sb.aggregate_between("sum(a)", 3, 2), "nothing is at least"),
    (lambda: sb.aggregate_drift("a", "sum"), "aggregate must be one of total"),  # type: ignore[arg-type]
    (lambda: sb.aggregate_drift("a", 95), "a percentile from 0 to 1"),
    (lambda: sb.row_count_drift(over="day"), 'over must be "partition" or "run"'),  # type: ignore[arg-type]
    (lambda: sb.row_count_drift(on_new_partition="skip"), "on_new_partition"),  # type: ignore[arg-type]
    (lambda: sb.row_count_drift(max_change=-0.1), "0 or more"),
    (lambda: sb.row_count_drift(max_change=float("nan")), "0 or more"),
    (lambda: sb.not_null("a", max_failures=-1), "0 or more"),
    (lambda: sb.not_null("a", max_failures=True), "0 or more"),
    (lambda: sb.not_null("a", max_failures=1.5), "a share is at most 1.0"),
    (lambda: sb.not_null("a", max_failures=1, warn_above=0), "not both"),
    (lambda: sb.not_null("a", severity="WARN", error_above=0), "not both"),
    (lambda: sb.not_null("a", severity="warn"), '"ERROR" or "WARN"'),  # type: ignore[arg-type]
    (lambda: sb.not_null("a", warn_above=3, error_above=3), "must be less"),
    (lambda: sb.compare(max_added=-1), "0 or more"),
    (lambda: sb.compare(absolute_tolerance=-1), "0 or more"),
    (lambda: sb.column_types({}), "at least one column"),
    (lambda: sb.column_types({"a": "DATE"}, severity="warn"), '"ERROR" or "WARN"'),  # type: ignore[arg-type]
    (lambda: sb.compare(severity="error"), '"ERROR" or "WARN"'),  # type: ignore[arg-type]
    (lambda: Spread(name="spread", severity="warn"), '"ERROR" or "WARN"'),  # type: ignore[arg-type]
    (lambda: Spread(name="spread", over="day"), '"partition" or "run"'),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "says"), BAD_ARGUMENTS)
def test_arguments_that_can_not_work_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=says):
        make()


def test_a_row_that_moved_to_another_day_is_removed_and_added(backend: Backend) -> None:
    live: list[Row] = [(0, 1, 1.0, "a"), (0, 2, 2.0, "b"), (1, 3, 3.0, "c")]
    moved = Bench(backend, live=live)
    result = moved.result([(1, 1, 1.0, "a"), (0, 2, 2.0, "b"), (1, 3, 3.0, "c")], sb.compare(key=["id"], max_removed=0))
    assert failed_days(result) == {0}
    assert [(v.measured["added"], v.measured["removed"], v.measured["changed"]) for v in result.verdicts.values()] == [
        (0, 1, 0),
        (1, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
    ]


@pytest.mark.parametrize(
    "audit",
    [
        sb.row_count_between(1, name="a b"),
        sb.row_count_drift(name="a b"),
        sb.compare(name="a b"),
        sb.column_types({"a": "DATE"}, name="a b"),
        sb.not_null("a", name="a b"),
        sb.failing_rows("SELECT * FROM batch", name="a b"),
    ],
)
def test_names_are_made_such_as_dagster_takes(audit: sb.Audit) -> None:
    assert audit.name == "a_b"
