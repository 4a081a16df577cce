"""What a person compares: what is staged with what is live, and what a publication replaced with what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from dagster_safe_backfill import ArchiveNotFoundError, ConfigurationError, PublicationNotFoundError, WarehouseError
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions
from dagster_safe_backfill.wap.measure.differences import Compared, Sides, compared_sides
from dagster_safe_backfill.wap.measure.sides import published_changes, published_sides, staged_sides
from dagster_safe_backfill_tests.harness.audited import KEYS, Row, frame, slice_of
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]


@pytest.fixture
def table(backend: Backend) -> Publications:
    return Publications(backend, live=OLD)


def compared(table: Publications, sides: Sides, session: Any, days: Sequence[int], **options: Any) -> Compared:
    return compared_sides(session, sides, spec=table.spec, partition_slice=slice_of(days), **options)


def staged(table: Publications, days: Sequence[int], **options: Any) -> Compared:
    with table.warehouse.connect(read_only=True) as session:
        found = staged_partitions(session, table.spec.table)
        return compared(table, staged_sides(session, table.spec.table, found), session, days, **options)


def published(table: Publications, name: str, **options: Any) -> tuple[Compared, dict[str, str]]:
    with table.warehouse.connect(read_only=True) as session:
        changes = published_changes(session, table.spec.table, name)
        days = sorted({KEYS.index(change.key) for change in changes})
        sides = published_sides(
            session, changes, spec=table.spec, slice_of=lambda keys: slice_of(sorted(map(KEYS.index, keys)))
        )
        return compared(table, sides, session, days, **options), dict(sides.since)


def numbers(found: Compared) -> dict[int, tuple[int, int, int, int]]:
    return {KEYS.index(key): (one.added, one.removed, one.changed, one.unchanged) for key, one in found.by_key.items()}


NEW: list[Row] = [(0, 0, 1.0, None), (0, 1, 5.0, None), (0, 9, 2.0, "new"), *day_rows(3, 7.0)]


def test_staged_rows_against_live_ones(table: Publications) -> None:
    table.stage(NEW, [0, 3], "1")
    found = staged(table, [0, 3], aggregates=["sum(value)", "count(*)"], samples=True)
    assert found.matched_by == ("day", "id")
    assert numbers(found) == {0: (1, 1, 1, 1), 3: (3, 0, 0, 0)}
    assert found.is_different
    assert found.by_key[KEYS[0]].changed_by_column == {"value": 1, "note": 0}
    assert found.aggregates["sum(value)"] == {KEYS[0]: (3.0, 8.0), KEYS[3]: (None, 21.0), None: (3.0, 29.0)}
    assert found.aggregates["count(*)"] == {KEYS[0]: (3, 3), KEYS[3]: (0, 3), None: (3, 6)}
    kinds = [(one.kind, one.key["id"], one.before, one.after) for one in found.sample if str(one.key["day"]) == KEYS[0]]
    assert kinds == [
        ("added", 9, None, {"value": 2.0, "note": "new"}),
        ("removed", 2, {"value": 1.0, "note": None}, None),
        ("changed", 1, {"value": 1.0}, {"value": 5.0}),
    ]


def test_samples_are_masked(table: Publications) -> None:
    table.stage(NEW, [0, 3], "1")
    found = staged(table, [0, 3], samples=True, shown=("day", "note"))
    (changed,) = (one for one in found.sample if one.kind == "changed")
    assert (changed.key["id"], changed.before, changed.after) == ("***", {"value": "***"}, {"value": "***"})


def test_rows_of_several_shadows(table: Publications) -> None:
    table.stage(day_rows(0, 2.0), [0], "1")
    table.stage(day_rows(1, 1.0), [1], "2")
    found = staged(table, [0, 1])
    assert numbers(found) == {0: (0, 0, 3, 0), 1: (0, 0, 0, 3)}


def test_before_a_first_publication(backend: Backend) -> None:
    table = Publications(backend, live=None)
    table.stage(day_rows(0, 2.0), [0], "1")
    assert numbers(staged(table, [0])) == {0: (3, 0, 0, 0)}


def test_without_a_key_rows_are_compared_as_multisets(backend: Backend) -> None:
    twice: list[Row] = [(0, 1, 1.0, "a"), (0, 1, 1.0, "a"), (0, 2, None, None)]
    table = Publications(backend, live=[*twice, *day_rows(1, 1.0)], unique_key=())
    table.stage([(0, 1, 1.0, "a"), (0, 2, None, None), (0, 2, None, None), (0, 3, 0.5, "b")], [0], "1")
    found = staged(table, [0], samples=True)
    assert (found.matched_by, found.why_whole) == ((), None)
    assert numbers(found) == {0: (2, 1, 0, 2)}
    shown = sorted((one.kind, one.times, (one.after or one.before or {})["id"]) for one in found.sample)
    assert shown == [("added", 1, 2), ("added", 1, 3), ("removed", 1, 1)]


def test_a_key_that_occurs_twice_is_no_key(table: Publications) -> None:
    table.do("INSERT INTO t VALUES (DATE '2024-01-01', 0, 1.0, NULL)")
    table.stage(day_rows(0, 1.0), [0], "1")
    found = staged(table, [0])
    assert found.matched_by == ()
    assert found.why_whole is not None
    assert "1 before and 0 after" in found.why_whole
    assert numbers(found) == {0: (0, 1, 0, 3)}


def test_values_that_only_their_type_calls_equal_differ(backend: Backend) -> None:
    """Zero and minus zero, as everywhere in the library."""
    table = Publications(backend, live=[(0, 1, 0.0, None)], unique_key=())
    table.stage([(0, 1, -0.0, None)], [0], "1")
    assert numbers(staged(table, [0])) == {0: (1, 1, 0, 0)}


def test_what_a_publication_changed(table: Publications) -> None:
    table.published(NEW, [0, 3], "1")
    found, since = published(table, "1", aggregates=["sum(value)"])
    assert numbers(found) == {0: (1, 1, 1, 1), 3: (3, 0, 0, 0)}
    assert since == {}
    assert found.aggregates["sum(value)"][None] == (3.0, 29.0)


def test_a_later_publication_does_not_change_what_an_earlier_one_did(table: Publications) -> None:
    table.published(NEW, [0, 3], "1")
    table.published(day_rows(0, 9.0), [0], "2")
    table.rollback("1", chosen=None, run="back", force=True)
    found, since = published(table, "1")
    assert (numbers(found), since) == ({0: (1, 1, 1, 1), 3: (3, 0, 0, 0)}, {})
    of_rollback, _ = published(table, "back")
    assert numbers(of_rollback)[3] == (0, 3, 0, 0)
    newest, _ = published(table, "newest")
    assert [*numbers(newest)] == [0]


def test_a_change_by_hand_is_said(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    table.do("UPDATE t SET value = 1.0 WHERE id = 0")
    found, since = published(table, "1")
    assert numbers(found) == {0: (0, 0, 2, 1)}
    assert since == {KEYS[0]: "changed by hand since"}


def test_a_publication_that_changed_no_row_of_a_day(table: Publications) -> None:
    table.published([*day_rows(0, 1.0), *day_rows(1, 2.0)], [0, 1], "1")
    found, _ = published(table, "1", aggregates=["count(*)"])
    assert numbers(found) == {0: (0, 0, 0, 3), 1: (0, 0, 3, 0)}
    assert found.aggregates["count(*)"][KEYS[0]] == (3, 3)


def test_a_whole_table_that_was_swapped(table: Publications) -> None:
    table.published(NEW, [0, 3], "1", strategy="swap")
    assert numbers(published(table, "1")[0]) == {0: (1, 1, 1, 1), 3: (3, 0, 0, 0)}


def test_a_column_that_was_added_is_named_and_not_compared(table: Publications) -> None:
    table.spec = replace(table.spec, on_schema_change="add_columns")
    table.stage(frame(day_rows(0, 1.0)).append_column("more", pa.array([1, 2, 3])), [0], "1")
    found = staged(table, [0])
    assert (found.added, found.dropped, found.retyped) == (("more",), (), ())
    assert numbers(found) == {0: (0, 0, 0, 3)}
    assert found.is_different


def test_an_archive_that_is_gone(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1", archive_for=timedelta(microseconds=1))
    table.retire()
    with pytest.raises(ArchiveNotFoundError, match="2024-01-01 are not kept any more"):
        published(table, "1")


def test_no_such_publication(table: Publications) -> None:
    table.stage(day_rows(0, 2.0), [0], "1")
    for name in ("nope", "newest"):
        with pytest.raises(PublicationNotFoundError):
            published(table, name)


def test_aggregates_that_are_none(table: Publications) -> None:
    table.stage(day_rows(0, 2.0), [0], "1")
    with pytest.raises(ConfigurationError, match="an aggregate"):
        staged(table, [0], aggregates=["1; DROP TABLE t"])
    with pytest.raises(WarehouseError):
        staged(table, [0], aggregates=["nothing_of_it"])


def test_the_number_of_statements_is_that_of_one_day(table: Publications, caplog: pytest.LogCaptureFixture) -> None:
    counts: list[int] = []
    for run, days in (("1", [0]), ("2", [0, 1, 2, 3])):
        table.stage([row for day in days for row in day_rows(day, 2.0)], days, run)
        with caplog.at_level("DEBUG", "dagster_safe_backfill.sql"), table.warehouse.connect(read_only=True) as session:
            found = staged_partitions(session, table.spec.table, group=run)
            caplog.clear()
            compared(table, staged_sides(session, table.spec.table, found), session, days, samples=True)
            counts.append(len(caplog.records))
    # Of the four days one has new rows, too, of which a sample is read.
    assert counts[1] <= counts[0] + 1
