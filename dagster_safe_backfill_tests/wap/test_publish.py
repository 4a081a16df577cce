"""Publishing: what stops it, what it keeps of what it replaces, and that it happens once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import duckdb
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.sql import publishing
from dagster_safe_backfill_tests.harness.audited import KEYS, Row
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

pytestmark = pytest.mark.every_warehouse

OLD: list[Row] = [row for day in range(4) for row in day_rows(day, 1.0)]
NEW: list[Row] = [*day_rows(0, 2.0), *day_rows(1, 1.0)]


@pytest.fixture
def table(backend: Backend) -> Publications:
    return Publications(backend, live=OLD)


WHOLE = pytest.mark.differs(
    "snowflake", reason="an archive is a clone of the whole table, at no cost, and has all its rows"
)

BY_HAND = {
    "a value": "UPDATE t SET value = 9 WHERE day = '2024-01-02' AND id = 1",
    "a row more": "INSERT INTO t VALUES ('2024-01-02', 7, 1, NULL)",
    "a row less": "DELETE FROM t WHERE day = '2024-01-02' AND id = 1",
    "no rows left": "DELETE FROM t WHERE day = '2024-01-02'",
    "NULL for a value": "UPDATE t SET value = NULL WHERE day = '2024-01-02' AND id = 1",
    "values of two rows exchanged": "UPDATE t SET note = CASE id WHEN 1 THEN 'b' ELSE 'a' END WHERE day = '2024-01-02'"
    " AND id IN (1, 2)",
    "a pair of equal rows": "INSERT INTO t SELECT '2024-01-02', 8, 1, NULL FROM range(2)",
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("statement", BY_HAND.values(), ids=BY_HAND)
def test_a_partition_that_changed_since_it_was_staged_is_a_conflict(
    table: Publications, statement: str, strategy: Strategy
) -> None:
    table.do("UPDATE t SET note = CASE id WHEN 1 THEN 'a' WHEN 2 THEN 'b' END")
    staged = table.stage(NEW, [0, 1], "1")
    table.do(statement)
    changed = table.live()
    with pytest.raises(sb.PublishConflictError, match=r"main.t: 1 of the 2 .*2024-01-02: by no publication") as caught:
        table.publish(staged, "1", strategy=strategy)
    assert caught.value.keys == ("2024-01-02",)
    assert caught.value.published_since == {"2024-01-02": None}
    assert table.live() == changed
    assert [event for event, _, _ in table.events()] == ["staged", "staged", "audited", "audited"]
    assert table.tables("__shadow_") == ["t__shadow_1"]
    assert table.tables("__archive_") == []


def test_rows_in_a_partition_that_had_none_are_a_conflict(backend: Backend) -> None:
    table = Publications(backend, live=day_rows(0, 1.0))
    staged = table.stage([*day_rows(0, 2.0), *day_rows(1, 2.0)], [0, 1], "1")
    table.do("INSERT INTO t VALUES ('2024-01-02', 0, 5, NULL)")
    with pytest.raises(sb.PublishConflictError, match="2024-01-02"):
        table.publish(staged, "1")
    assert table.values() == {0: [1.0] * 3, 1: [5.0]}


def test_a_conflict_names_who_published_since(table: Publications) -> None:
    staged = table.stage(NEW, [0, 1], "slow")
    table.published(day_rows(0, 7.0), [0], "quick")
    with pytest.raises(sb.PublishConflictError, match="2024-01-01: published by quick at 20") as caught:
        table.publish(staged, "slow")
    assert caught.value.published_since == {"2024-01-01": "quick"}
    assert table.values()[0] == [7.0] * 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_other_partitions_may_move(table: Publications, strategy: Strategy) -> None:
    staged = table.stage(NEW, [0, 1], "1")
    table.published(day_rows(2, 7.0), [2], "2", strategy=strategy)
    table.do("UPDATE t SET value = 8 WHERE day = '2024-01-04'")
    table.publish(staged, "1", strategy=strategy)
    assert table.values() == {0: [2.0] * 3, 1: [1.0] * 3, 2: [7.0] * 3, 3: [8.0] * 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_conflict_can_be_overwritten_and_what_is_lost_is_archived(table: Publications, strategy: Strategy) -> None:
    staged = table.stage(NEW, [0, 1], "1")
    table.do("UPDATE t SET value = 9 WHERE day = '2024-01-02' AND id = 1")
    table.publish(staged, "1", strategy=strategy, on_conflict="overwrite")
    assert table.values()[1] == [1.0] * 3
    assert (9.0,) in table.read("SELECT value FROM t__archive_1 WHERE day = '2024-01-02'")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_table_that_was_made_since_is_published_into(backend: Backend, strategy: Strategy) -> None:
    table = Publications(backend, live=None)
    slow = table.stage(day_rows(0, 2.0), [0], "slow")
    same = table.stage(day_rows(1, 3.0), [1], "same")
    table.published(day_rows(1, 2.0), [1], "quick", strategy=strategy)
    table.publish(slow, "slow", strategy=strategy)
    with pytest.raises(sb.PublishConflictError, match="2024-01-02: published by quick"):
        table.publish(same, "same", strategy=strategy)
    assert table.values() == {0: [2.0] * 3, 1: [2.0] * 3}


def test_a_table_that_was_dropped_since_is_a_conflict(table: Publications) -> None:
    staged = table.stage(NEW, [0, 1], "1")
    table.do("DROP TABLE t")
    with pytest.raises(sb.PublishConflictError):
        table.publish(staged, "1")
    assert table.tables("t__") == ["t__shadow_1"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_publication_happens_once(table: Publications, strategy: Strategy) -> None:
    first = table.published(NEW, [0, 1], "1", strategy=strategy)
    live, events = table.live(), table.events()
    again = table.published(day_rows(0, 5.0), [0, 1], "1", strategy=strategy)
    assert again.is_repeated
    assert not first.is_repeated
    assert again.row_counts == first.row_counts
    assert again.archive == first.archive
    assert table.live() == live
    assert [event for event in table.events() if event[0] == "published"] == [e for e in events if e[0] == "published"]
    assert table.tables("__shadow_") == []


def test_a_publication_that_was_undone_is_not_published_again_by_a_retry(table: Publications) -> None:
    table.published(NEW, [0, 1], "1")
    table.rollback("1")
    with pytest.raises(sb.PublishConflictError, match="earlier try of this run"):
        table.published(NEW, [0, 1], "1")
    assert table.live() == sorted(table.live())
    assert table.values()[0] == [1.0] * 3


@pytest.mark.parametrize("strategy", [*(pytest.param(one, marks=WHOLE) for one in ("merge", "replace")), "swap"])
def test_the_archive_holds_what_was_replaced(table: Publications, strategy: Strategy) -> None:
    before = table.live()
    done = table.published(NEW, [0, 1], "1", strategy=strategy, archive_for=timedelta(days=3))
    assert str(done.archive) == "main.t__archive_1"
    assert done.expires_at is not None
    assert timedelta(days=2.9) < done.expires_at - datetime.now(timezone.utc) < timedelta(days=3.1)
    archived = table.read("SELECT * FROM t__archive_1 ORDER BY ALL")
    # Of a merge only the partitions that it touched; a swap keeps the old table.
    concerned = {"merge": [KEYS[0]], "replace": KEYS[:2], "swap": KEYS}[strategy]
    assert archived == [row for row in before if str(row[0]) in concerned]
    named = table.read(
        "SELECT partition_key, archive FROM _safe_backfill_ledger WHERE event = 'published' AND archive IS NOT NULL"
    )
    assert {archive for _, archive in named} == {"t__archive_1"}
    assert {key for key, _ in named} == ({*KEYS[:2]} if strategy == "replace" else {KEYS[0]})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_archive_is_made_of_nothing(table: Publications, strategy: Strategy) -> None:
    assert table.published(NEW, [0, 1], "1", strategy=strategy, archive_for=timedelta(0)).archive is None
    if strategy != "replace":
        assert table.published(NEW, [0, 1], "2", strategy=strategy).archive is None
    assert table.tables("__archive_") == []
    assert table.tables("__shadow_") == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_archive_is_never_overwritten(table: Publications, strategy: Strategy) -> None:
    table.do("CREATE TABLE t__archive_1 AS SELECT 42 AS precious")
    before = table.live()
    with pytest.raises((sb.WarehouseError, sb.PublishError), match=r"(?i)t__archive_1"):
        table.published(NEW, [0, 1], "1", strategy=strategy)
    assert table.read("FROM t__archive_1") == [(42,)]
    assert table.live() == before


def test_versions_of_one_backfill_do_not_mix(table: Publications) -> None:
    first = {"backfill_id": "b", "code_version": "1"}
    second = {"backfill_id": "b", "code_version": "2"}
    table.published(day_rows(0, 2.0), [0], "r1", origin=first)
    with pytest.raises(
        sb.MixedVersionsError, match=r"main.t: backfill b .* code_version 1, and this run has code_version 2"
    ) as refused:
        table.published(day_rows(1, 2.0), [1], "r2", origin=second)
    assert refused.value.versions == ("1", "2")
    assert table.values()[1] == [1.0] * 3
    table.published(day_rows(2, 2.0), [2], "r3", origin=first)
    table.published(day_rows(3, 2.0), [3], "r4", origin={"backfill_id": "c", "code_version": "2"})
    table.published(day_rows(1, 2.0), [1], "r5", origin=second, allow_mixed_versions=True)
    assert table.values() == {day: [2.0] * 3 for day in range(4)}


def test_the_ledgers_moments_never_go_back(table: Publications) -> None:
    table.published(NEW, [0, 1], "1")
    table.do("UPDATE _safe_backfill_ledger SET recorded_at = recorded_at + INTERVAL 1 DAY")
    table.published(OLD, [0, 1, 2, 3], "2")
    assert [e for _, _, e in table.events()] == ["1"] * 6 + ["2"] * 12


def test_what_holds_a_table_is_gone_after_an_error(table: Publications) -> None:
    table.do("COMMENT ON TABLE t IS 'it''s mine'")
    staged = table.stage(NEW, [0, 1], "1")
    table.do("UPDATE t SET value = 9 WHERE day = '2024-01-02'")
    with table.warehouse.connect(), pytest.raises(sb.PublishConflictError):
        table.publish(staged, "1")
    table.do("UPDATE t SET value = 3")
    assert table.read("SELECT comment FROM duckdb_tables() WHERE table_name = 't'") == [("it's mine",)]


def test_a_database_that_writes_something_else_is_not_believed(
    table: Publications, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table.live()
    insert = publishing.insert_staged

    def less(change: publishing.SliceWrite) -> exp.Insert:
        statement = insert(change)
        statement.set("expression", statement.expression.limit(2))
        return statement

    monkeypatch.setattr(publishing, "insert_staged", less)
    with pytest.raises(sb.PublishError, match=r"2024-01-01: \d and not 3"):
        table.published(NEW, [0, 1], "1", strategy="replace")
    assert table.live() == before
    assert table.tables("t__") == ["t__shadow_1"]


def test_publications_hold_each_other_off(table: Publications) -> None:
    name = table.spec.table
    with (
        table.warehouse.connect() as other,
        table.warehouse.connect() as connection,
        connection.transaction(),
        connection.tables.hold(name),
        pytest.raises(sb.TransactionConflictError),
        other.transaction(),
        other.tables.hold(name),
    ):
        pytest.fail("held twice")


@pytest.mark.xfail(
    condition=duckdb.__version__.startswith("1."), strict=True, reason="DuckDB 1.x only tells of changed definitions"
)
@pytest.mark.only("duckdb", reason="opens the file itself; locks of Snowflake are tried in snowflake/")
def test_publications_hold_writers_by_hand_off(table: Publications) -> None:
    with duckdb.connect(table.path) as other, table.warehouse.connect() as connection:
        with (
            connection.transaction(),
            connection.tables.hold(table.spec.table),
            pytest.raises(duckdb.TransactionException),
        ):
            other.execute("UPDATE t SET value = 5")
        other.execute("UPDATE t SET value = 6")
    assert set(table.values()[0]) == {6.0}


def test_a_shadow_that_an_earlier_try_left_is_replaced_whatever_the_case_of_its_schema(table: Publications) -> None:
    table.spec = replace(table.spec, table=replace(table.spec.table, schema="MAIN"))
    assert not table.stage(NEW, [0, 1], "1").staged.replaces_shadow
    assert table.stage(NEW, [0, 1], "1").staged.replaces_shadow
