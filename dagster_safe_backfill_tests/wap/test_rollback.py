"""The way back: what a rollback restores, when it refuses, and that it can itself be undone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.wap.rollback.histories import rollback_path
from dagster_safe_backfill.wap.rollback.rollback import Chosen
from dagster_safe_backfill_tests.harness.audited import KEYS, Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]
NEW: list[Row] = [*day_rows(0, 2.0), *day_rows(1, 1.0), *day_rows(3, 2.0)]


@pytest.fixture
def table(backend: Backend) -> Publications:
    return Publications(backend, live=OLD)


@pytest.mark.parametrize("key", [("day", "id"), ()], ids=["keyed", "keyless"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rollback_restores_what_was_there(backend: Backend, strategy: Strategy, key: tuple[str, ...]) -> None:
    if strategy == "merge" and not key:
        strategy = "replace"
    table = Publications(backend, live=OLD, unique_key=key)
    before = table.live()
    table.published(NEW, [0, 1, 3], "1", strategy=strategy)
    after = table.live()
    back = table.rollback("1")
    assert table.live() == before
    assert back.undone == ("1",)
    assert back.removed == (KEYS[3],)
    assert back.row_counts[KEYS[3]].deleted == 3
    assert table.read("SELECT count(*) FROM t__archive_back")[0] >= (6 if key else 9,)
    forward = table.rollback("back", run="forward")
    assert forward.undone == ("back",)
    assert table.live() == after
    table.rollback("1", run="once more")
    assert table.live() == before


@pytest.mark.differs("snowflake", reason="an archive is a clone of the whole table, at no cost, and has all its rows")
def test_a_rollback_archives_just_what_it_replaces(backend: Backend) -> None:
    table = Publications(backend, live=OLD)
    table.published(NEW, [0, 1, 3], "1")
    table.rollback("1")
    assert table.read("SELECT count(*) FROM t__archive_back") == [(6,)]


def test_a_stamp_comes_back_as_it_was(backend: Backend) -> None:
    table = Publications(backend, live=OLD, updated_at_column="updated_at")
    table.do("ALTER TABLE t ADD COLUMN updated_at TIMESTAMPTZ DEFAULT '2020-02-02'")
    before = table.live()
    table.published(NEW, [0, 1, 3], "1")
    assert table.live() != before
    table.rollback("1")
    assert table.live() == before


def test_a_part_is_rolled_back(table: Publications) -> None:
    table.published(NEW, [0, 1, 3], "1")
    assert set(table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[3],))).row_counts) == {KEYS[3]}
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3, 2: [1.0] * 3}
    rest = table.rollback("1", run="rest")
    assert set(rest.row_counts) == {KEYS[0]}
    assert rest.untouched == (KEYS[1],)
    assert rest.already == {KEYS[3]: "back"}
    assert table.values() == {day: [1.0] * 3 for day in range(3)}


def test_again_is_harmless(table: Publications) -> None:
    table.published(NEW, [0, 1, 3], "1")
    first = table.rollback("1")
    live, events = table.live(), table.events()
    again = table.rollback("1", run="again")
    assert again.already == {KEYS[0]: "back", KEYS[3]: "back"}
    assert not again.row_counts
    retried = table.rollback("1", run="back")
    assert retried.row_counts == first.row_counts
    assert retried.removed == first.removed
    assert (table.live(), table.events()) == (live, events)


def test_the_newest_publication_is_undone_unless_one_is_named(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    table.published(day_rows(0, 3.0), [0], "2")
    assert table.rollback().undone == ("2",)
    assert table.values()[0] == [2.0] * 3
    # The newest that is no rollback is still the second: again is harmless.
    assert table.rollback(run="again").already == {KEYS[0]: "back"}
    assert table.values()[0] == [2.0] * 3


def test_a_backfill_is_undone_whole(table: Publications) -> None:
    for day in range(3):
        table.published(day_rows(day, 2.0), [day], f"run{day}", origin={"backfill_id": "b"})
    table.published(day_rows(0, 3.0), [0], "retried", origin={"backfill_id": "b"})
    back = table.rollback(chosen=Chosen(backfill_id="b"))
    assert set(back.undone) == {"run0", "run1", "run2", "retried"}
    assert table.values() == {day: [1.0] * 3 for day in range(3)}
    table.rollback("back", run="forward")
    assert table.values() == {0: [3.0] * 3, 1: [2.0] * 3, 2: [2.0] * 3}


def test_a_dry_run_tells_and_changes_nothing(table: Publications) -> None:
    table.published(NEW, [0, 1, 3], "1")
    live, events, tables = table.live(), table.events(), table.tables()
    told = table.rollback("1", dry_run=True)
    assert told.is_dry
    assert (table.live(), table.events(), table.tables()) == (live, events, tables)
    done = table.rollback("1")
    assert (told.row_counts, told.removed) == (done.row_counts, done.removed)
    assert done.row_counts[KEYS[0]].updated == 3


def test_what_was_published_on_top_is_in_the_way(table: Publications) -> None:
    before = table.live()
    table.published(NEW, [0, 1, 3], "1")
    table.published(day_rows(0, 5.0), [0], "2")
    live = table.live()
    with pytest.raises(sb.RollbackConflictError, match=r"main.t: 1 partitions .*2024-01-01: 2 at ") as caught:
        table.rollback("1")
    assert caught.value.keys == (KEYS[0],)
    assert table.live() == live
    table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[3],)), run="part")
    forced = table.rollback("1", run="forced", force=True)
    assert set(forced.row_counts) == {KEYS[0]}
    assert table.live() == before
    table.rollback("forced", run="forward")
    assert table.values()[0] == [5.0] * 3


def test_what_changed_by_hand_is_in_the_way(table: Publications) -> None:
    before = table.live()
    table.published(NEW, [0, 1, 3], "1")
    table.do("UPDATE t SET value = 9 WHERE day = '2024-01-01' AND id = 1")
    with pytest.raises(sb.RollbackConflictError, match="2024-01-01 changed since"):
        table.rollback("1")
    table.rollback("1", force=True)
    assert table.live() == before
    table.rollback("back", run="forward")
    assert table.values()[0] == [2.0, 2.0, 9.0]


def test_what_changed_by_hand_between_two_publications_is_in_the_way(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    table.do("UPDATE t SET value = 9 WHERE day = '2024-01-01' AND id = 1")
    table.published(day_rows(0, 3.0), [0], "2")
    table.rollback("2")
    assert table.values()[0] == [2.0, 2.0, 9.0]
    with pytest.raises(sb.RollbackConflictError, match="2024-01-01 changed since"):
        table.rollback("1", run="too far")
    table.rollback("1", run="forced", force=True)
    assert table.values()[0] == [1.0] * 3


def test_a_backfill_between_whose_runs_others_published_is_in_the_way(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1", origin={"backfill_id": "b"})
    table.published(day_rows(0, 3.0), [0], "other")
    table.published(day_rows(0, 4.0), [0], "2", origin={"backfill_id": "b"})
    with pytest.raises(sb.RollbackConflictError, match="2024-01-01"):
        table.rollback(chosen=Chosen(backfill_id="b"))
    table.rollback("2", run="step")
    table.rollback(chosen=Chosen(backfill_id="b"), run="forced", force=True)
    assert table.values()[0] == [1.0] * 3


def test_what_is_not_there_is_said(table: Publications) -> None:
    with pytest.raises(sb.PublicationNotFoundError, match="no publication"):
        table.rollback()
    table.published(day_rows(0, 2.0), [0], "1")
    with pytest.raises(sb.PublicationNotFoundError, match="no publication or rollback nope"):
        table.rollback("nope")
    with pytest.raises(sb.PublicationNotFoundError, match="backfill nope"):
        table.rollback(chosen=Chosen(backfill_id="nope"))
    with pytest.raises(sb.PublicationNotFoundError, match="1 did not publish 2024-01-03, but 2024-01-01"):
        table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[0], KEYS[2])))


def test_what_was_not_kept_can_not_come_back(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1", archive_for=timedelta(0))
    live = table.live()
    with pytest.raises(sb.ArchiveNotFoundError, match="2024-01-01 are not kept"):
        table.rollback("1")
    table.published(day_rows(1, 2.0), [1], "2")
    table.do("DROP TABLE t__archive_2")
    with pytest.raises(sb.ArchiveNotFoundError, match="2024-01-02 are not kept"):
        table.rollback("2")
    assert table.values() == {0: [2.0] * 3, 1: [2.0] * 3, 2: [1.0] * 3}
    assert len(live) == 9


@pytest.mark.parametrize("statement", ["DELETE FROM t__archive_1 WHERE id = 0", "UPDATE t__archive_1 SET value = 0"])
def test_an_archive_that_somebody_changed_is_refused(table: Publications, statement: str) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    live = table.live()
    table.do(statement)
    with pytest.raises(sb.RollbackError, match="archive of 2024-01-01 doesn't hold what was replaced"):
        table.rollback("1")
    assert table.live() == live
    assert table.tables("__archive_") == ["t__archive_1"]
    table.rollback("1", force=True)
    assert table.live() != live


def test_rows_that_had_no_key_come_back_too(backend: Backend) -> None:
    table = Publications(backend, live=[(0, 1, 1.0, None), (0, 1, 1.0, None), (0, None, 2.0, "x"), (1, 1, 1.0, None)])
    before = table.live()
    table.published(day_rows(0, 2.0), [0], "1")
    table.rollback("1")
    assert table.live() == before


def test_a_table_that_was_made_by_the_publication_is_emptied(backend: Backend) -> None:
    table = Publications(backend, live=None)
    table.published([*day_rows(0, 1.0), *day_rows(1, 1.0)], [0, 1], "1")
    assert table.rollback("1").removed == tuple(KEYS[:2])
    assert table.live() == []
    table.rollback("back", run="forward")
    assert table.values() == {0: [1.0] * 3, 1: [1.0] * 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_column_that_was_added_and_is_used_elsewhere_has_its_default_again(
    backend: Backend, strategy: Strategy
) -> None:
    options: dict[str, Any] = {"on_schema_change": "add_columns", "column_defaults": {"extra": "7"}}
    table = Publications(backend, live=OLD, **options)
    wide = Query("SELECT DATE '2024-01-01' AS day, 1 AS id, 5.0 AS value, 'n' AS note, 3 AS extra")
    table.published(wide, [0], "1", strategy=strategy)
    table.do("UPDATE t SET extra = 8 WHERE day = '2024-01-03' AND id = 2")
    table.rollback("1")
    assert [row[4] for row in table.live()] == [7] * 8 + [8]
    assert table.values() == {day: [1.0] * 3 for day in range(3)}


def test_a_backfill_whose_first_run_added_a_column_is_undone(backend: Backend) -> None:
    table = Publications(backend, live=OLD, on_schema_change="add_columns")
    for day in range(2):
        wide = Query(f"SELECT DATE '2024-01-01' + {day} AS day, 1 AS id, 5.0 AS value, 'n' AS note, 3 AS extra")
        table.published(wide, [day], f"run{day}", origin={"backfill_id": "b"})
    table.rollback(chosen=Chosen(backfill_id="b"))
    assert {len(row) for row in table.live()} == {4}
    assert table.values() == {day: [1.0] * 3 for day in range(3)}


def test_a_rollback_is_of_the_asset_as_it_is_now(table: Publications) -> None:
    table.published(day_rows(0, 2.0), [0], "1")
    table.do("DROP TABLE t")
    with pytest.raises(sb.RollbackError, match="the table doesn't exist any more"):
        table.rollback("1")


def change(name: str, *undone: str) -> Any:
    return type("Change", (), {"publication_id": name, "undone": undone})()


@pytest.mark.parametrize(
    ("history", "chosen", "expected"),
    [
        ([change("p")], "p", ("undone", (0,), ())),
        ([change("p"), change("q")], "p", ("covered", (0,), (1,))),
        ([change("p"), change("q")], "pq", ("undone", (0, 1), ())),
        ([change("p"), change("r", "p")], "p", ("already", (), ())),
        ([change("p"), change("r", "p")], "r", ("undone", (1,), ())),
        ([change("p"), change("r", "p"), change("s", "r")], "p", ("undone", (0,), ())),
        ([change("p"), change("r", "p"), change("s", "r")], "r", ("already", (), ())),
        ([change("p"), change("r", "p"), change("q")], "r", ("covered", (1,), (2,))),
        ([change("p"), change("r", "p"), change("q")], "p", ("already", (), ())),
        ([change("a"), change("p"), change("r", "p")], "a", ("undone", (0,), ())),
        ([change("p"), change("x"), change("r", "x"), change("q")], "pq", ("undone", (0, 3), ())),
        ([change("p"), change("x"), change("q")], "pq", ("covered", (0, 2), (1,))),
        (
            [change("p"), change("q"), change("r", "p", "q"), change("x"), change("s", "r", "x")],
            "q",
            ("undone", (1,), ()),
        ),
        ([change("p"), change("q"), change("r", "p", "q")], "pq", ("already", (), ())),
        ([change("p"), change("q"), change("r", "p", "q"), change("s", "r")], "q", ("undone", (1,), ())),
        ([], "p", ("already", (), ())),
    ],
)
def test_what_stands_is_undone(history: list[Any], chosen: str, expected: tuple[str, tuple[int, ...], Any]) -> None:
    way = rollback_path(history, set(chosen))
    assert (way.standing, way.undone, way.over) == expected
