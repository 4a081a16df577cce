"""Clocks that are wrong: nothing is dropped by one, and what it wrote keeps its order and its thirty days."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlglot import exp

from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.retention import Retired
from dagster_safe_backfill_tests.harness.audited import Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]
DAY = timedelta(days=1)


class Clock:
    """The clock of the database, and so of all that the library records, ahead by a time."""

    ahead = timedelta()

    def now(self) -> exp.Expr:
        return terms.instant(datetime.now(timezone.utc) + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terms, "now", clock.now)
    return clock


@pytest.fixture
def table(backend: Backend, clock: Clock) -> Publications:
    return Publications(backend, live=OLD)


def why_kept(retired: Retired) -> dict[str, str]:
    return {one.table.name: one.why for one in retired.kept}


def test_a_publication_by_a_clock_that_is_ahead(
    table: Publications, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Later rows follow it in order. Until it is dated back, retention drops nothing; then, all is as it should be."""
    table.published(day_rows(0, 2.0), [0], "before", archive_for=DAY)
    clock.ahead = 400 * DAY
    table.published(day_rows(0, 3.0), [0], "ahead")
    clock.ahead = 2 * DAY
    with caplog.at_level(logging.WARNING, "dagster_safe_backfill"):
        table.published(day_rows(0, 4.0), [0], "after", archive_for=DAY)
    assert "the clock is behind, or rows were written by a machine whose clock was ahead" in caplog.text
    assert [publication for event, _, publication in table.events() if event == "published"] == [
        *("before", "ahead", "after")
    ]
    table.stage(day_rows(1, 2.0), [1], "staged")
    retired = table.retire()
    assert retired.over == ()
    assert "date those rows back" in str(retired.clock_problem)
    assert why_kept(retired) == {
        "t__archive_before": "clock",
        "t__archive_ahead": "not_expired",
        "t__archive_after": "not_expired",
        "t__shadow_staged": "recent",
    }
    # As docs/publishing.md has it.
    table.do(
        "UPDATE _safe_backfill_ledger SET recorded_at = recorded_at - INTERVAL '400' DAY,"
        " computed_at = computed_at - INTERVAL '400' DAY"
        f" WHERE recorded_at > CAST('{datetime.now(timezone.utc) + 300 * DAY}' AS TIMESTAMPTZ)"
    )
    clock.ahead = timedelta(hours=1)
    retired = table.retire()
    assert retired.clock_problem is None
    assert [one.name for one in retired.over] == ["t__shadow_staged"]
    assert [publication for event, _, publication in table.events() if event == "published"] == [
        *("before", "ahead", "after")
    ]
    table.rollback("after")
    assert table.values()[0] == [3.0] * 3


def test_retention_by_a_clock_that_is_ahead_drops_nothing(table: Publications, clock: Clock) -> None:
    """Neither once nor again, as long as others publish by a clock that is right."""
    table.published(day_rows(0, 2.0), [0], "1")
    for day in range(3):
        clock.ahead = day * DAY + 40 * DAY
        retired = table.retire()
        assert retired.over == ()
        assert "nobody wrote since, or the clock is ahead" in str(retired.clock_problem)
        assert why_kept(retired)["t__archive_1"] == "clock"
        clock.ahead = day * DAY
        table.published(day_rows(1, 2.0 + day), [1], f"honest {day}")
    clock.ahead = 3 * DAY
    table.published(day_rows(0, 3.0), [0], "2")
    table.rollback("2", run="a")
    table.rollback("1", run="b")
    assert table.values()[0] == [1.0] * 3


def test_a_table_that_nobody_writes_is_cleaned_up_by_the_second_run(table: Publications, clock: Clock) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    clock.ahead = 40 * DAY
    assert table.retire(dry_run=True).over == table.retire().over == ()
    assert ("clock", None, "retention") in table.events()
    # Not at once: the other tables of the same run aren't dropped by what the first one noted.
    clock.ahead = 40 * DAY + timedelta(minutes=10)
    assert table.retire().over == ()
    assert sum(event == "clock" for event, _, _ in table.events()) == 1
    clock.ahead = 41 * DAY
    assert [one.name for one in table.retire().over] == ["t__archive_1"]
    assert table.tables("__archive_") == []


def test_a_clock_that_leaps_once_more_is_in_doubt_again(table: Publications, clock: Clock) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    clock.ahead = 40 * DAY
    table.retire()
    clock.ahead = 400 * DAY
    assert "is ahead" in str(table.retire().clock_problem)
    assert table.tables("__archive_") == ["t__archive_1"]


def test_another_table_of_the_schema_shows_the_time(table: Publications, clock: Clock) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    clock.ahead = 40 * DAY
    table.do("CREATE TABLE other AS FROM t")
    own = table.spec
    table.spec = replace(own, table=TableRef(schema="main", name="other"))
    table.published(day_rows(0, 3.0), [0], "2")
    table.spec = own
    assert [one.name for one in table.retire().over] == ["t__archive_1"]


def test_a_publication_by_a_clock_that_is_behind_keeps_its_archive(table: Publications, clock: Clock) -> None:
    """Its archive's time counts from what is recorded: by the publisher's clock, it would be over at once."""
    table.published(day_rows(0, 2.0), [0], "1")
    clock.ahead = -400 * DAY
    published = table.published(day_rows(0, 3.0), [0], "2")
    clock.ahead = timedelta()
    assert published.expires_at is not None
    assert published.expires_at > datetime.now(timezone.utc) + 29 * DAY
    assert table.retire().over == ()
    table.rollback("2")
    assert table.values()[0] == [2.0] * 3


def test_nothing_was_computed_after_it_was_recorded(table: Publications, clock: Clock) -> None:
    """Else rows of a machine whose clock is ahead would count as newer than a later rejection."""
    clock.ahead = -400 * DAY
    table.stage(day_rows(0, 2.0), [0], "1")
    late = "SELECT count(*) FROM _safe_backfill_ledger WHERE computed_at > recorded_at"
    assert table.read(late) == [(0,)]
