"""Audits of random batches against an oracle in plain Python; and no publication without its verdicts."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Merge
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill_tests.harness.audited import DAYS, KEYS, Bench, Row, failed_days

OUTSIDE = 9
"""A day that isn't in the slice."""
NOTES = ("a", "b")
CHANGE = 0.317
"""Not a ratio of small numbers, so that no change is just at it."""
EVERY = set(range(DAYS))

Oracle = Callable[[Sequence[Row], Sequence[Row]], set[int]]
"""The days of a batch that fail, given the batch and the live rows."""

days = st.integers(0, DAYS - 1)
amounts = st.sampled_from([None, -1.0, 0.0, 0.5, 1.0, 4.0])
texts = st.sampled_from([None, "", "a", "b", "c"])
batches = st.lists(st.tuples(days, st.one_of(st.none(), st.integers(0, 3)), amounts, texts), max_size=14)
keyed = st.lists(
    st.tuples(st.sampled_from([*range(DAYS), OUTSIDE]), st.integers(0, 3), amounts, texts),
    max_size=12,
    unique_by=lambda row: row[:2],
)


def by_day(rows: Sequence[Row]) -> dict[int, list[Row]]:
    return {day: [row for row in rows if row[0] == day] for day in range(DAYS)}


def where_rows(is_bad: Callable[[Row, Sequence[Row], Sequence[Row]], bool]) -> Oracle:
    """Return the days with at least one bad row."""
    return lambda batch, live: {row[0] for row in batch if is_bad(row, batch, live)}


def is_repeated(row: Row, batch: Sequence[Row], live: Sequence[Row]) -> bool:
    note = row[3]
    inside = sum(other[3] == note for other in batch) > 1
    return note is not None and (inside or any(o[3] == note for o in live if o[0] == OUTSIDE))


def has_broken_key(row: Row, batch: Sequence[Row], _: Sequence[Row]) -> bool:
    return row[1] is None or sum(other[:2] == row[:2] for other in batch) > 1


def values_of(rows: Sequence[Row]) -> list[float]:
    return [row[2] for row in rows if row[2] is not None]


def total(rows: Sequence[Row]) -> float | None:
    found = values_of(rows)
    return sum(found) if found else None


def mean(rows: Sequence[Row]) -> float | None:
    found = values_of(rows)
    return sum(found) / len(found) if found else None


def distinct(rows: Sequence[Row]) -> float | None:
    return len(set(values_of(rows)))


def percentile(share: float) -> Callable[[Sequence[Row]], float | None]:
    """Interpolate between the two nearest of the sorted values, as SQL's PERCENTILE_CONT does."""

    def of(rows: Sequence[Row]) -> float | None:
        found = sorted(values_of(rows))
        if not found:
            return None
        place = share * (len(found) - 1)
        below, above = found[math.floor(place)], found[math.ceil(place)]
        return below + (above - below) * (place - math.floor(place))

    return of


def is_far(here: float | None, there: float | None) -> bool:
    if here is None or there is None:
        return here is not there
    return abs(here - there) > CHANGE * abs(there)


def drift(aggregate: Callable[[Sequence[Row]], float | None], *, new_fails: bool = False) -> Oracle:
    def fails(here: Sequence[Row], there: Sequence[Row]) -> bool:
        if here and not there:
            return new_fails
        return is_far(aggregate(here), aggregate(there))

    return lambda batch, live: {day for day in range(DAYS) if fails(by_day(batch)[day], by_day(live)[day])}


def run_drift(aggregate: Callable[[Sequence[Row]], float | None]) -> Oracle:
    def oracle(batch: Sequence[Row], live: Sequence[Row]) -> set[int]:
        there = [row for row in live if row[0] != OUTSIDE]
        if batch and not there:
            return set()
        return EVERY if is_far(aggregate(batch), aggregate(there)) else set()

    return oracle


def between(aggregate: Callable[[Sequence[Row]], float | None], least: float, most: float) -> Oracle:
    def fails(rows: Sequence[Row]) -> bool:
        value = aggregate(rows)
        return value is None or not least <= value <= most

    return lambda batch, _: {day for day, rows in by_day(batch).items() if fails(rows)}


def changed(batch: Sequence[Row], live: Sequence[Row]) -> set[int] | None:
    """Return the days with changed rows; None where the batch has no key to compare by."""
    if any(has_broken_key(row, batch, live) for row in batch):
        return None
    old = {row[:2]: row[2:] for row in live}
    return {row[0] for row in batch if row[:2] in old and old[row[:2]] != row[2:]}


ORACLES: list[tuple[sb.Audit, Oracle]] = [
    (sb.unique("note"), where_rows(is_repeated)),
    (sb.unique(), where_rows(has_broken_key)),
    (sb.not_null("value", "note"), where_rows(lambda row, *_: row[2] is None or row[3] is None)),
    (sb.accepted_values("note", NOTES), where_rows(lambda row, *_: row[3] not in (None, *NOTES))),
    (sb.in_range("value", 0, 1), where_rows(lambda row, *_: row[2] is not None and not 0 <= row[2] <= 1)),
    (
        sb.expression("value > 0 OR note = 'a'"),
        where_rows(lambda row, *_: row[2] is not None and row[2] <= 0 and row[3] not in (None, "a")),
    ),
    (sb.references("note", table="notes"), where_rows(lambda row, *_: row[3] not in (None, "", *NOTES))),
    (sb.failing_rows("SELECT day FROM batch WHERE id = 3", name="own"), where_rows(lambda row, *_: row[1] == 3)),
    (sb.row_count_between(1, 3), between(len, 1, 3)),
    (sb.aggregate_between("sum(value)", 0, 5), between(total, 0, 5)),
    (sb.row_count_drift(max_change=CHANGE), drift(len)),
    (sb.row_count_drift(max_change=CHANGE, on_new_partition="fail", name="new"), drift(len, new_fails=True)),
    (sb.row_count_drift(max_change=CHANGE, over="run"), run_drift(len)),
    (sb.aggregate_drift("value", "total", max_change=CHANGE), drift(total)),
    (sb.aggregate_drift("value", "mean", max_change=CHANGE), drift(mean)),
    (sb.aggregate_drift("value", "distinct", max_change=CHANGE), drift(distinct)),
    (sb.aggregate_drift("value", "median", max_change=CHANGE), drift(percentile(0.5))),
    (sb.aggregate_drift("value", 0.9, max_change=CHANGE), drift(percentile(0.9))),
    (sb.aggregate_drift("value", "median", max_change=CHANGE, over="run"), run_drift(percentile(0.5))),
]
COMPARE = sb.compare(max_changed=0)
AUDITS = [audit for audit, _ in ORACLES]


@given(batch=batches, live=keyed)
@settings(max_examples=120, deadline=None)
def test_audits_find_what_an_oracle_finds(batch: list[Row], live: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        judged = Bench(folder, live=live, notes=NOTES).judged(batch, [*AUDITS, COMPARE])
        *results, compared = judged.results
        for result, (audit, oracle) in zip(results, ORACLES, strict=True):
            assert result.problem is None
            assert failed_days(result) == oracle(batch, live), audit
        expected = changed(batch, live)
        assert (compared.problem is None) == (expected is not None)
        assert failed_days(compared) == (EVERY if expected is None else expected)


@given(batch=batches)
@settings(max_examples=40, deadline=None)
def test_failing_rows_are_counted_by_day(batch: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        for audit, is_bad in (
            (sb.not_null("value"), lambda row: row[2] is None),
            (sb.unique(), lambda row: has_broken_key(row, batch, [])),
        ):
            result = bench.result(batch, audit)
            found = {KEYS.index(key): v.failed_rows for key, v in result.verdicts.items() if v.failed_rows}
            assert found == Counter(row[0] for row in batch if is_bad(row))
            assert len(result.sample) == min(10, sum(found.values()))
            assert result.failed_rows == sum(found.values())


levels = st.sampled_from(["ERROR", "WARN"])
gates = st.lists(
    st.one_of(
        st.builds(lambda s, n: sb.not_null("value", severity=s, max_failures=n), levels, st.integers(0, 2)),
        st.builds(lambda s: sb.expression("value > 0", severity=s), levels),
        st.builds(lambda s: sb.row_count_between(1, 4, severity=s), levels),
        st.builds(lambda s: sb.row_count_drift(max_change=1.0, severity=s), levels),
        st.builds(lambda s: sb.expression("no_such_column > 0", severity=s, name="unmeasured"), levels),
        st.builds(lambda s: sb.compare(max_removed=1, severity=s), levels),
    ),
    max_size=4,
    unique_by=lambda audit: audit.name,
)


@given(runs=st.lists(st.tuples(keyed, gates), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_every_publication_stands_on_verdicts_in_the_ledger(runs: list[tuple[list[Row], list[sb.Audit]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        before: list[tuple[object, ...]] = []
        for n, (rows, audits) in enumerate(runs):
            batch = [row for row in rows if row[0] != OUTSIDE]
            judged = bench.judged(batch, audits, run_id=f"run{n}")
            blocking = [result.audit.name for result in judged.results if result.blocks]
            assert isinstance(judged, Audited) == (not blocking)
            if isinstance(judged, Audited):
                with bench.warehouse.connect() as connection:
                    origin = Origin(run_id=f"run{n}", publication_id=f"run{n}")
                    publish(connection, judged, rules=Merge(), origin=origin)
            live = bench.read("SELECT day, id, value, note FROM t ORDER BY ALL")
            assert len(live) == len(batch) if isinstance(judged, Audited) else live == before
            before = live
        ledger = bench.read("SELECT event, publication_id, partition_key, failed_audits FROM _safe_backfill_ledger")
        said = {(event, publication, key): failed for event, publication, key, failed in ledger}
        for event, publication, key in said:
            if event == "published":
                assert said["audited", publication, key] is None, "published though an audit blocked it"
                assert ("rejected", publication, key) not in said
            if event == "rejected":
                assert ("published", publication, key) not in said
        for n, (_, _) in enumerate(runs):
            events = {event for event, publication, _ in said if publication == f"run{n}"}
            assert events in ({"staged", "audited", "published"}, {"staged", "rejected"})
