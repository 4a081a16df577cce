"""The ledger as people read it."""

from __future__ import annotations

from typing import Any

import pytest

from dagster_safe_backfill.wap.ledger.entries import Entry, entries, groups_of_backfill, has_ledger
from dagster_safe_backfill.wap.rollback.histories import undone
from dagster_safe_backfill_tests.harness.audited import KEYS, Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]


@pytest.fixture
def table(backend: Backend) -> Publications:
    return Publications(backend, live=OLD)


def told(table: Publications, **options: Any) -> list[Entry]:
    with table.warehouse.connect(read_only=True) as session:
        return entries(session, table.spec.table, **options)


def shown(found: list[Entry]) -> list[tuple[str, str, int]]:
    return [(one.event, one.publication_id, KEYS.index(one.key)) for one in found]


def test_nothing_before_there_is_a_ledger(table: Publications) -> None:
    with table.warehouse.connect(read_only=True) as session:
        assert not has_ledger(session, table.spec.table)
    assert told(table) == []


def test_changes_and_what_is_staged_and_waits(table: Publications) -> None:
    table.published([*day_rows(0, 2.0), *day_rows(1, 1.0)], [0, 1], "1", origin={"backfill_id": "b"})
    table.stage(day_rows(2, 2.0), [2], "2")
    table.rollback("1", run="back")
    found = told(table)
    assert shown(found) == [
        ("published", "1", 0),
        ("published", "1", 1),
        ("audited", "2", 2),
        ("rolled_back", "back", 0),
    ]
    assert [one.row_counts.updated for one in found[:2]] == [3, 0]
    assert (found[0].backfill_id, found[0].archive is None, found[-1].undone) == ("b", False, ("1",))
    assert shown(told(table, keys=[KEYS[1]])) == [("published", "1", 1)]
    assert shown(told(table, number=1)) == [("audited", "2", 2), ("rolled_back", "back", 0)]
    table.retire()
    assert [one.event for one in told(table)] == ["published", "published", "rolled_back"]
    with table.warehouse.connect(read_only=True) as session:
        assert groups_of_backfill(session, table.spec.table, "b") == {"1"}


def test_what_was_undone_since(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    table.published(day_rows(0, 3.0), [0], "2")
    table.rollback("2", run="back")
    history = told(table)
    assert undone(history) == {1}
    table.rollback("back", run="again")
    assert undone(told(table)) == {2}
    # The oldest ones may not have been read.
    assert undone(told(table)[2:]) == {0}
    table.rollback("1", run="all", force=True)
    assert undone(told(table)) >= {0, 1}
    assert 0 in undone(told(table)[1:])
