"""A rollback puts back the columns and types as well as the rows, or refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.wap.rollback.rollback import Chosen
from dagster_safe_backfill_tests.harness.audited import KEYS, SCHEMA, Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(2) for row in day_rows(day, 1.0)]
EXTRA = "5.0 AS value, 'n' AS note, 3 AS extra"
COLUMNS = (
    "SELECT lower(column_name), data_type FROM information_schema.columns WHERE lower(table_name) = 't'"
    " ORDER BY ordinal_position"
)


def day_of(day: int, columns: str = EXTRA) -> Query:
    return Query(f"SELECT DATE '2024-01-01' + {day} AS day, 1 AS id, {columns}")


def state(table: Publications) -> tuple[Any, ...]:
    """Return columns, types and rows of the live table."""
    return table.read(COLUMNS), table.live()


@pytest.mark.parametrize("day", [0, 3], ids=["a day with rows", "a day without"])
@pytest.mark.parametrize("default", [None, "7"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_added_column_goes_with_its_publication(
    backend: Backend, strategy: Strategy, default: str | None, day: int
) -> None:
    options: dict[str, Any] = {"column_defaults": {"extra": default}} if default else {}
    table = Publications(backend, live=OLD, on_schema_change="add_columns", **options)
    before = state(table)
    table.published(day_of(day), [day], "1", strategy=strategy)
    after = state(table)
    told = table.rollback("1", run="dry", dry_run=True)
    assert state(table) == after
    back = table.rollback("1")
    assert state(table) == before
    assert (back.dropped_columns, back.row_counts) == (("extra",), told.row_counts)
    told = table.rollback("back", run="dry", dry_run=True)
    assert state(table) == before
    forward = table.rollback("back", run="forward")
    assert state(table) == after
    assert (forward.restored_columns, forward.row_counts) == (("extra",), told.row_counts)
    assert table.rollback("1", run="again").dropped_columns == ("extra",)
    assert state(table) == before


@pytest.mark.parametrize("day", [0, 3], ids=["a day with rows", "a day without"])
def test_a_dropped_column_comes_back_with_its_values(backend: Backend, day: int) -> None:
    table = Publications(backend, live=OLD, on_schema_change="sync")
    before = state(table)
    table.published(day_of(day, "'n' AS note"), [day], "1", strategy="swap")
    after = state(table)
    assert "value" not in str(after[0]).lower()
    back = table.rollback("1")
    assert state(table) == before
    assert back.restored_columns == ("value",)
    table.rollback("back", run="forward")
    assert state(table) == after


def test_a_dropped_column_comes_back_if_the_day_has_no_rows_at_all(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="sync")
    before = state(table)
    none = SCHEMA.remove(2).empty_table()
    table.published(none, [3], "1", strategy="swap")
    assert len(state(table)[0]) == 3
    table.rollback("1")
    assert state(table) == before


def test_a_column_that_is_not_kept_is_refused(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="sync")
    table.published(day_of(3, "'n' AS note"), [3], "1", strategy="swap", archive_for=timedelta(0))
    after = state(table)
    with pytest.raises(sb.ArchiveNotFoundError, match="1 dropped or changed value"):
        table.rollback("1")
    with pytest.raises(sb.ArchiveNotFoundError, match="1 dropped or changed value"):
        table.rollback("1", force=True)
    assert state(table) == after


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_added_column_goes_also_if_no_row_changed(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=day_rows(0, 1.0, count=1), on_schema_change="add_columns")
    before = state(table)
    same = Query("SELECT DATE '2024-01-01' AS day, 0 AS id, 1.0 AS value, NULL::VARCHAR AS note, NULL::INT AS extra")
    table.published(same, [0], "1", strategy=strategy)
    assert len(table.live()[0]) == 5
    table.rollback("1")
    assert state(table) == before
    assert table.rollback("1", run="again").already == {KEYS[0]: "back"}
    table.rollback("back", run="forward")
    assert len(table.live()[0]) == 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_column_that_other_partitions_use_stays_and_that_is_told(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    before = state(table)
    table.published(day_of(0), [0], "1", strategy=strategy)
    table.published(day_of(1), [1], "2", strategy=strategy)
    back = table.rollback("1", run="back 1")
    assert (back.dropped_columns, back.kept_columns) == ((), ("extra",))
    assert table.live("extra") == [(3,), (None,), (None,), (None,)]
    # The last one that uses it takes it along only if it had added it.
    back = table.rollback("2", run="back 2")
    assert table.values() == {day: [1.0] * 3 for day in range(2)}
    table.rollback("back 2", run="forward 2")
    table.rollback("back 1", run="forward 1")
    table.rollback("2", run="again 2")
    table.rollback("1", run="again 1")
    assert state(table) == before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_part_of_a_publication_keeps_the_column(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    before = state(table)
    both = Query(f"{day_of(0).sql} UNION ALL {day_of(1).sql}")
    table.published(both, [0, 1], "1", strategy=strategy)
    back = table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[0],)), run="part")
    assert back.kept_columns == ("extra",)
    assert table.live("extra") == [(3,), (None,), (None,), (None,)]
    table.rollback("1", run="rest")
    assert state(table) == before


def test_a_backfill_whose_first_run_added_a_column_leaves_nothing(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    before = state(table)
    for day in range(4):
        table.published(day_of(day), [day], f"run{day}", origin={"backfill_id": "b"})
    after = state(table)
    assert table.rollback(chosen=Chosen(backfill_id="b")).dropped_columns == ("extra",)
    assert state(table) == before
    table.rollback("back", run="forward")
    assert state(table) == after


def test_a_value_by_hand_keeps_the_column(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    table.published(day_of(3), [3], "1")
    table.do("UPDATE t SET extra = 9 WHERE day = '2024-01-02' AND id = 1")
    assert table.rollback("1").kept_columns == ("extra",)
    assert table.read("SELECT extra FROM t WHERE extra IS NOT NULL") == [(9,)]


def test_earlier_publications_are_undone_after_a_column_went(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    before = state(table)
    table.published(day_rows(1, 2.0), [1], "0")
    table.published(day_of(0), [0], "1")
    table.published(day_of(1), [1], "2")
    for publication in "210":
        table.rollback(publication, run=f"back {publication}")
    assert state(table) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_column_that_was_dropped_by_hand_is_not_half_restored(backend: Backend, force: bool) -> None:
    table = Publications(backend, live=OLD)
    table.published(day_rows(0, 2.0), [0], "1")
    table.do("ALTER TABLE t DROP COLUMN note")
    after = state(table)
    with pytest.raises(sb.RollbackError, match="note" if force else "2024-01-01 changed since"):
        table.rollback("1", force=force)
    assert state(table) == after


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_that_were_staged_for_a_column_that_went_are_refused(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    table.published(day_of(3), [3], "1", strategy=strategy)
    staged = table.stage(day_of(0), [0], "2")
    table.rollback("1")
    before = state(table)
    with pytest.raises(sb.SchemaMismatchError, match="extra"):
        table.publish(staged, "2", strategy=strategy)
    assert state(table) == before
    table.published(day_of(0), [0], "3", strategy=strategy)
    assert table.live("extra")[0] == (3,)
