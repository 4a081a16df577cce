"""`on_moved_key="move"`: rows whose keys are live in other partitions move with their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.states import Audited, Origin, Published, Rejected
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.rollback.rollback import Chosen
from dagster_safe_backfill.wap.write import live_before, write
from dagster_safe_backfill_tests.harness.audited import KEYS, Row, frame, slice_of
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import Publications

pytestmark = pytest.mark.every_warehouse

LIVE: list[Row] = [(0, 1, 1.0, "a"), (0, 2, 1.0, "b"), (1, 3, 1.0, "c"), (2, 4, 1.0, "d")]
MOVED: list[Row] = [(1, 1, 1.0, "a"), (1, 3, 1.0, "c")]
"""Day 1, with the row 1 of day 0."""


class Moving(Publications):
    """Publications of days whose rows are identified by `id` alone."""

    def __init__(self, backend: Backend, *, live: Sequence[Row] = LIVE, **options: Any) -> None:
        super().__init__(backend, live=live, **({"unique_key": ("id",), "on_moved_key": "move"} | options))

    def judged_days(
        self,
        rows: Iterable[Row],
        days: Sequence[int],
        run: str,
        *,
        audits: Sequence[sb.Audit] = (sb.unique(),),
        known: Sequence[int] = range(4),
        between: Sequence[str] = (),
        **origin: Any,
    ) -> Audited | Rejected:
        """Look at live, compute (while somebody does what is `between`), write and audit."""
        who = Origin(run_id=run, publication_id=run, **origin)
        partitions = replace(slice_of(days), every=slice_of(known))
        with self.warehouse.connect() as session:
            before = live_before(session, spec=self.spec, partition_slice=partitions)
        self.do(*between)
        with self.warehouse.connect() as session:
            staged = write(session, frame(rows), spec=self.spec, partition_slice=partitions, origin=who, before=before)
            return audit(session, staged, audits, origin=who, gate="run")

    def staged(self, rows: Iterable[Row], days: Sequence[int], run: str, **options: Any) -> Audited:
        found = self.judged_days(rows, days, run, **options)
        assert isinstance(found, Audited), [result.problem or result.finding for result in found.results]
        return found

    def moved(self, rows: Iterable[Row], days: Sequence[int], run: str, **options: Any) -> Published:
        rules = {name: options.pop(name) for name in ("on_conflict",) if name in options}
        origin = {name: options[name] for name in ("backfill_id",) if name in options}
        return self.publish(self.staged(rows, days, run, **options), run, origin=origin, **rules)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.read("SELECT (day - DATE '2024-01-01')::INT, id, value, note FROM t ORDER BY ALL")


def numbers(published: Published) -> dict[int, tuple[int, int, int, int, int]]:
    return {
        KEYS.index(key): (one.staged, one.inserted, one.updated, one.deleted, one.unchanged)
        for key, one in published.row_counts.items()
    }


def test_a_row_moves_with_its_key(backend: Backend) -> None:
    table = Moving(backend)
    before = table.rows()
    done = table.moved(MOVED, [1], "1")
    assert table.rows() == [(0, 2, 1.0, "b"), (1, 1, 1.0, "a"), (1, 3, 1.0, "c"), (2, 4, 1.0, "d")]
    assert numbers(done) == {1: (2, 1, 0, 0, 1), 0: (1, 0, 0, 1, 1)}
    assert {*done.left} == {KEYS[0]}
    told = table.read(
        "SELECT event, partition_key, rows_staged, rows_deleted, archive IS NOT NULL, moved FROM _safe_backfill_ledger"
        " WHERE event IN ('published', 'moved') ORDER BY partition_key"
    )
    assert told == [("moved", KEYS[0], 1, 1, True, f'["{KEYS[1]}"]'), ("published", KEYS[1], 2, 0, True, None)]
    assert done.archive is not None
    # Again is harmless.
    live = table.rows()
    assert numbers(table.moved(MOVED, [1], "2")) == {1: (2, 0, 0, 0, 2)}
    assert table.rows() == live
    back = table.rollback("1")
    assert table.rows() == before
    assert {*back.row_counts} == {KEYS[0], KEYS[1]}
    # And the way there again.
    table.rollback("back", run="forth")
    assert table.rows() == live


def test_the_default_is_an_error_that_names_the_option(backend: Backend) -> None:
    table = Moving(backend, on_moved_key="raise")
    found = table.judged_days(MOVED, [1], "1")
    (result,) = found.results
    assert isinstance(found, Rejected)
    assert 'publish=Merge(on_moved_key="move")' in str(result.finding)


def test_rows_that_change_move_and_most_rows_move(backend: Backend) -> None:
    """Most rows of the day differ, so that it is deleted and inserted as a whole."""
    table = Moving(backend)
    before = table.rows()
    done = table.moved([(1, 1, 9.0, "x"), (1, 2, 9.0, "y"), (1, 4, 9.0, None)], [1], "1")
    assert table.rows() == [(1, 1, 9.0, "x"), (1, 2, 9.0, "y"), (1, 4, 9.0, None)]
    assert numbers(done) == {1: (3, 3, 0, 1, 0), 0: (0, 0, 0, 2, 0), 2: (0, 0, 0, 1, 0)}
    table.rollback("1")
    assert table.rows() == before


def test_a_key_that_is_live_here_and_there(backend: Backend) -> None:
    """Somebody wrote the key twice by hand; afterwards it is there once."""
    table = Moving(backend, live=[*LIVE, (0, 3, 5.0, "twice")])
    before = table.rows()
    done = table.moved([(1, 3, 1.0, "c")], [1], "1")
    assert table.rows() == [row for row in before if row != (0, 3, 5.0, "twice")]
    assert done.row_counts[KEYS[0]].deleted == 1
    table.rollback("1")
    assert table.rows() == before


def test_only_what_the_publication_needs_changes(backend: Backend) -> None:
    table = Moving(backend, updated_at_column="written_at")
    table.do("ALTER TABLE t ADD COLUMN written_at TIMESTAMP", "UPDATE t SET written_at = TIMESTAMP '2020-01-01'")
    table.moved(MOVED, [1], "1")
    assert table.read("SELECT id FROM t WHERE written_at > TIMESTAMP '2021-01-01'") == [(1,)]


@pytest.mark.only("duckdb", reason="the emulator doesn't show the defaults of columns")
def test_columns_that_are_not_computed_move_along(backend: Backend) -> None:
    table = Moving(backend)
    # A constant default is computed for each row; this one is written only with new rows.
    table.do(
        "CREATE SEQUENCE numbers START 10",
        "ALTER TABLE t ADD COLUMN number BIGINT",
        "ALTER TABLE t ALTER number SET DEFAULT nextval('numbers')",
        "UPDATE t SET number = id",
    )
    table.moved(MOVED, [1], "1")
    assert table.read("SELECT id, number FROM t ORDER BY id") == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("on_conflict", ["raise", "overwrite"])
@pytest.mark.parametrize("when", ["computed", "staged"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t SET value = 7 WHERE id = 1",
        "UPDATE t SET value = 7 WHERE id = 2",
        "INSERT INTO t VALUES (DATE '2024-01-03', 1, 7, 'again')",
    ],
    ids=["the row", "its partition", "another partition"],
)
def test_a_change_of_the_other_partition_is_a_conflict(
    backend: Backend, change: str, when: str, on_conflict: str
) -> None:
    table = Moving(backend)
    while_computing = [change] if when == "computed" else []
    staged = table.staged(MOVED, [1], "1", between=while_computing)
    if when == "staged":
        table.do(change)
    before = table.rows()
    if on_conflict == "raise":
        key = KEYS[2] if "INSERT" in change else KEYS[0]
        with pytest.raises(sb.PublishConflictError, match=key):
            table.publish(staged, "1")
        assert table.rows() == before
        return
    table.publish(staged, "1", on_conflict="overwrite")
    assert [row for row in table.rows() if row[1] == 1] == [(1, 1, 1.0, "a")]
    table.rollback("1")
    assert table.rows() == before


def test_other_partitions_may_change(backend: Backend) -> None:
    table = Moving(backend)
    table.moved(MOVED, [1], "1", between=["UPDATE t SET value = 7 WHERE id = 4"])
    assert (2, 4, 7.0, "d") in table.rows()


def test_the_other_partition_was_published_meanwhile(backend: Backend) -> None:
    table = Moving(backend)
    staged = table.staged(MOVED, [1], "1")
    table.moved([(0, 1, 8.0, "newer"), (0, 2, 1.0, "b")], [0], "2")
    with pytest.raises(sb.PublishConflictError, match=f"{KEYS[0]}: published by 2") as caught:
        table.publish(staged, "1")
    assert caught.value.published_since == {KEYS[0]: "2"}


def test_what_is_staged_of_the_other_partition_is_a_conflict_then(backend: Backend) -> None:
    table = Moving(backend)
    staged = table.staged([(0, 1, 8.0, "newer"), (0, 2, 1.0, "b")], [0], "2")
    table.moved(MOVED, [1], "1")
    with pytest.raises(sb.PublishConflictError, match=f"{KEYS[0]}: left by rows that were published by 1"):
        table.publish(staged, "2")


def test_a_key_in_no_partition_of_the_asset(backend: Backend) -> None:
    table = Moving(backend)
    before = table.rows()
    with pytest.raises(
        sb.KeyViolationError, match=r"in none of the partitions.*\(1\) where day is 2024-01-01"
    ) as caught:
        table.judged_days(MOVED, [1], "1", known=[1, 2])
    assert caught.value.count == 1
    assert table.rows() == before
    # It may have come there after the audit.
    staged = table.staged(MOVED, [1], "2")
    table.do("UPDATE t SET day = DATE '2030-01-01' WHERE id = 1")
    with pytest.raises(sb.KeyViolationError, match="in none of the partitions"):
        table.publish(staged, "2")


@pytest.mark.parametrize("ids", [{"run": "1"}, {"backfill_id": "b"}], ids=["run", "backfill"])
def test_a_key_that_one_run_computes_twice_does_not_move(backend: Backend, ids: dict[str, str]) -> None:
    """Else it would move there and back each time."""
    table = Moving(backend)
    backfill = {name: value for name, value in ids.items() if name == "backfill_id"}
    table.moved([(0, 1, 1.0, "a"), (0, 2, 1.0, "b")], [0], "1", **backfill)
    with pytest.raises(sb.KeyViolationError, match=f"published in {KEYS[0]}"):
        table.judged_days(MOVED, [1], ids.get("run", "2"), **backfill)
    table.moved(MOVED, [1], "3")


@pytest.mark.parametrize("day", [0, 1])
def test_a_part_of_a_move_is_not_rolled_back(backend: Backend, day: int) -> None:
    table = Moving(backend)
    table.moved([*MOVED, (2, 4, 2.0, "d")], [1, 2], "1")
    live = table.rows()
    with pytest.raises(sb.RollbackConflictError, match=f"moved rows from {KEYS[0]} to {KEYS[1]}.*Name both"):
        table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[day],)))
    assert table.rows() == live
    # The others don't depend on it.
    table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[2],)))
    assert (2, 4, 1.0, "d") in table.rows()
    table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[0], KEYS[1])), run="back 2")
    assert table.rows() == [(0, 1, 1.0, "a"), (0, 2, 1.0, "b"), (1, 3, 1.0, "c"), (2, 4, 1.0, "d")]
    # Nor is a part of that rollback.
    with pytest.raises(sb.RollbackConflictError, match="moved rows"):
        table.rollback(chosen=Chosen(publication_id="back 2", keys=(KEYS[day],)), run="forth")


@pytest.mark.parametrize("day", [0, 1])
def test_a_part_of_a_move_within_a_run_is_not_rolled_back(backend: Backend, day: int) -> None:
    table = Moving(backend, on_moved_key="raise")
    table.moved([(0, 2, 1.0, "b"), *MOVED], [0, 1], "1")
    with pytest.raises(sb.RollbackConflictError, match="moved rows"):
        table.rollback(chosen=Chosen(publication_id="1", keys=(KEYS[day],)))


def test_rows_that_move_on(backend: Backend) -> None:
    table = Moving(backend)
    before = table.rows()
    table.moved(MOVED, [1], "1")
    then = table.rows()
    table.moved([(2, 1, 1.0, "a"), (2, 4, 1.0, "d")], [2], "2")
    with pytest.raises(sb.RollbackConflictError, match="published again since"):
        table.rollback("1")
    table.rollback("2", run="back 2")
    assert table.rows() == then
    table.rollback("1", run="back 1")
    assert table.rows() == before


def test_the_partition_that_rows_left_is_published_again(backend: Backend) -> None:
    table = Moving(backend)
    table.moved(MOVED, [1], "1")
    assert numbers(table.moved([(0, 2, 1.0, "b")], [0], "2")) == {0: (1, 0, 0, 0, 1)}
    # Back again.
    table.moved([(0, 1, 1.0, "a"), (0, 2, 1.0, "b")], [0], "3")
    assert table.rows() == sorted(LIVE)


def test_a_lost_reply_changes_nothing(backend: Backend) -> None:
    table = Moving(backend)
    staged = table.staged(MOVED, [1], "1")
    done = table.publish(staged, "1")
    again = table.publish(staged, "1")
    assert again.is_repeated
    assert numbers(again) == numbers(done)
    # Also if the other partition was published since.
    table.moved([(0, 2, 5.0, "b")], [0], "2")
    assert table.publish(staged, "1").is_repeated


def test_other_audits_see_the_rows_as_they_will_be(backend: Backend) -> None:
    table = Moving(backend)
    found = table.judged_days(
        MOVED, [1], "1", audits=[sb.unique(), sb.unique("note"), sb.references("note", table="t", column="note")]
    )
    assert isinstance(found, Audited)
    # The row 2 stays, and has the value that the new one claims.
    (result,) = table.judged_days([(1, 1, 1.0, "b")], [1], "2", audits=[sb.unique("note")]).results
    assert result.failed_rows == 1
    # The row 1 leaves, and with it the only note that the new one refers to.
    refers = sb.references("id", table="t", column="value", name="value_of_id")
    (result,) = table.judged_days([(1, 1, 5.0, "b"), (1, 4, 1.0, "b")], [1], "3", audits=[refers]).results
    assert result.failed_rows == 1


def test_a_key_that_became_live_elsewhere_after_the_audit(backend: Backend) -> None:
    """Without the option, too: no two rows of one key go live."""
    table = Moving(backend, on_moved_key="raise", live=[(1, 3, 1.0, "c")])
    staged = table.staged(MOVED, [1], "1")
    table.moved([(0, 1, 1.0, "first")], [0], "2")
    with pytest.raises(sb.PublishConflictError, match=r"live in another partition since they were audited.*\(1\)"):
        table.publish(staged, "1")
    assert [row[1] for row in table.rows()] == [1, 3]


def test_keys_that_have_the_partition_can_not_move(backend: Backend) -> None:
    table = Moving(backend, unique_key=("day", "id"))
    table.moved(MOVED, [1], "1")
    assert len(table.rows()) == 5
