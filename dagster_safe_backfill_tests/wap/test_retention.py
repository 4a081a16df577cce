"""Retention: what is dropped in the end, and what never is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.retention import RetentionRules, drop_found, retire
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill_tests.harness.audited import Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]
SHORT = timedelta(microseconds=1)


@pytest.fixture
def table(backend: Backend) -> Publications:
    return Publications(backend, live=OLD)


def test_expired_archives_are_dropped_and_others_kept(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1", archive_for=SHORT)
    table.published(day_rows(0, 3.0), [0], "2")
    live = table.live()
    retired = table.retire()
    assert [str(archive) for archive in retired.archives] == ["main.t__archive_1"]
    assert table.tables("__archive_") == ["t__archive_2"]
    assert table.live() == live
    assert table.read("SELECT archive FROM _safe_backfill_ledger WHERE event = 'expired'") == [("t__archive_1",)]
    assert table.retire().archives == ()
    table.rollback("2")


def test_shadows_of_runs_that_ended_are_dropped_and_others_kept(table: Publications) -> None:
    for run in ("ended", "goes_on", "recent"):
        table.stage(day_rows(0, 2.0), [0], run)
    table.do("CREATE TABLE t__shadow_mine (precious INT)", "CREATE TABLE t__archive_mine (precious INT)")
    old = "run_id IN ('ended', 'goes_on')"
    table.do(f"UPDATE _safe_backfill_ledger SET recorded_at = recorded_at - INTERVAL 8 DAY WHERE {old}")
    retired = table.retire(running=["goes_on"], keep_shadows_for=timedelta(days=7))
    assert [str(shadow) for shadow in retired.shadows] == ["main.t__shadow_ended"]
    assert len(retired.kept_shadows) == 2
    assert table.tables("__shadow_") == ["t__shadow_goes_on", "t__shadow_mine", "t__shadow_recent"]
    assert table.tables("__archive_") == ["t__archive_mine"]
    assert table.read("SELECT shadow FROM _safe_backfill_ledger WHERE event = 'discarded'") == [
        ("main.t__shadow_ended",)
    ]


def test_a_dry_run_drops_nothing(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1", archive_for=SHORT)
    table.stage(day_rows(0, 2.0), [0], "2")
    tables, events = table.tables(), table.events()
    told = table.retire(dry_run=True)
    assert (len(told.archives), len(told.shadows), told.is_dry) == (1, 1, True)
    assert (table.tables(), table.events()) == (tables, events)


def test_tables_of_a_longer_name_are_not_its_own(table: Publications) -> None:
    table.do("CREATE TABLE t__shadow_x AS FROM t", "CREATE TABLE t2 AS FROM t")
    table.stage(day_rows(0, 2.0), [0], "1")
    table.retire()
    assert table.tables("t") == ["notes", "t", "t2", "t__shadow_x"]


def test_without_a_ledger_there_is_nothing_to_drop(table: Publications) -> None:
    assert table.retire().archives == ()


LONG = "t" * 240


def test_a_table_of_a_long_name_is_published_rolled_back_and_cleaned_up(backend: Backend) -> None:
    """Its shadows and archives have names that the database takes, by which they are found again."""
    table = Publications(backend, live=None)
    longest = table.warehouse.dialect.longest_name
    table.spec = replace(table.spec, table=TableRef(schema="main", name=LONG, longest_name=longest))
    runs = [f"0c0ffee0-1234-4321-abcd-0123456789a{n}" for n in range(4)]
    for run, value, strategy in zip(runs, (1.0, 2.0, 3.0), ("merge", "replace", "swap"), strict=False):
        table.published(day_rows(0, value), [0], run, strategy=strategy)
    values = f"SELECT DISTINCT value FROM {LONG}"
    assert table.read(values) == [(3.0,)]
    table.rollback()
    assert table.read(values) == [(2.0,)]
    table.stage(day_rows(0, 4.0), [0], runs[-1])
    assert all(len(name.encode()) <= longest for name in table.tables())
    (shadow,) = table.tables("__shadow_")
    assert [one.name for one in table.retire().shadows] == [shadow]
    table.do("UPDATE _safe_backfill_ledger SET archive_expires_at = recorded_at")
    archives = table.tables("__archive_")
    assert sorted(one.name for one in table.retire().archives) == archives
    assert len(archives) == 3
    assert table.tables("__") == []


def test_tables_are_dropped_few_at_once_and_only_if_they_still_are_over(table: Publications) -> None:
    for n in range(5):
        table.published(day_rows(0, 2.0 + n), [0], str(n), archive_for=SHORT)
    ended = KnownRuns(ended={str(n) for n in range(5)})
    rules = RetentionRules(runs=ended, shadows_for=timedelta(0))
    origin = Origin(run_id="retention", publication_id="retention")
    with table.warehouse.connect(read_only=True) as session:
        found = retire(session, table.spec.table, rules=rules, origin=origin, dry_run=True)
    assert len(found.over) == 5
    # Somebody keeps one of them longer meanwhile.
    table.do(
        "UPDATE _safe_backfill_ledger SET archive_expires_at = TIMESTAMPTZ '9999-01-01' WHERE publication_id = '3'"
    )
    counts: list[int] = []

    @contextmanager
    def connect() -> Iterator[Session]:
        counts.append(len(table.tables("__archive_")))
        with table.warehouse.connect() as session:
            yield session

    dropped = drop_found(connect, found, rules=rules, origin=origin, at_once=2)
    assert counts == [5, 3, 2]
    assert [one.name for one in dropped.archives] == [f"t__archive_{n}" for n in (0, 1, 2, 4)]
    assert [(one.table.name, one.why) for one in dropped.kept] == [("t__archive_3", "not_expired")]
    assert table.tables("__archive_") == ["t__archive_3"]
    expired = table.read("SELECT archive FROM _safe_backfill_ledger WHERE event = 'expired' ORDER BY 1")
    assert expired == [(f"t__archive_{n}",) for n in (0, 1, 2, 4)]


def test_if_nothing_is_over_no_session_writes(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    rules = RetentionRules(runs=KnownRuns(), shadows_for=timedelta(0))
    origin = Origin(run_id="retention", publication_id="retention")
    with table.warehouse.connect(read_only=True) as session:
        found = retire(session, table.spec.table, rules=rules, origin=origin, dry_run=True)

    def connect() -> Any:
        raise AssertionError("a session was opened")

    assert drop_found(connect, found, rules=rules, origin=origin).kept == found.kept


def test_what_is_gone_is_not_asked_for(table: Publications, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the catalog nor the ledger: the statements are as many and as long, however many archives there were."""
    sent: list[list[str]] = []
    for n in range(3):
        table.published(day_rows(0, 2.0 + n), [0], f"gone{n}", archive_for=SHORT)
        table.retire()
        table.published(day_rows(0, 20.0 + n), [0], f"kept{n}", archive_for=timedelta(hours=1))
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "dagster_safe_backfill.sql"):
            table.retire(dry_run=True)
        sent.append([one.getMessage() for one in caplog.records if one.name == "dagster_safe_backfill.sql"])
    assert "gone" not in str(sent)
    assert "kept2" in str(sent[2])
    assert len({len(one) for one in sent}) == 1


def test_what_a_crash_left_of_an_expired_archive_is_dropped_again(table: Publications) -> None:
    """On Snowflake, tables are dropped after COMMIT."""
    table.published(day_rows(0, 2.0), [0], "1", archive_for=SHORT)
    table.do("CREATE TABLE kept AS FROM t__archive_1")
    table.retire()
    table.do("CREATE TABLE t__archive_1 AS FROM kept")
    assert [one.name for one in table.retire().archives] == ["t__archive_1"]
    assert table.tables("__archive_") == []
