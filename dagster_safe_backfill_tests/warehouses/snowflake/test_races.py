"""Two that change one table under a lock that doesn't lock: a statement that changes no row holds nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Origin, Published, RolledBack
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill_tests.harness.audited import KEYS, Row, frame, slice_of
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator, serve
from dagster_safe_backfill_tests.harness.snowflake.races import HELD, OTHER, Race, Work, races
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

Rows = dict[int, float]
OLD: list[Row] = [row for day in range(2) for row in day_rows(day, 1.0)]
WAS: Rows = {0: 1.0, 1: 1.0, 2: 1.0}
ROWS: dict[str, Rows] = {
    "earlier": {0: 0.0},
    HELD: {0: 2.0, 1: 2.0, 2: 1.0, 3: 2.0},
    OTHER: {0: 1.0, 1: 3.0, 2: 3.0, 5: 3.0},
}
"""What each of the two computes of a day, as many rows: numbers of rows alone don't tell them apart."""


@pytest.fixture(scope="module")
def lax() -> Iterator[Emulator]:
    with serve(direct=True) as emulator:
        emulator.switch(locks_changes_only=True)
        yield emulator


def computed(who: str) -> list[Row]:
    return [(0, i, value, None) for i, value in ROWS[who].items()]


def publishing(table: Publications, who: str, **rules: object) -> Work:
    audited = table.stage(computed(who), [0], who)
    return lambda table: table.publish(audited, who, **rules)  # type: ignore[arg-type]


def day(race: Race, number: int = 0) -> Rows:
    """Return what a session of its own reads of a day, in which no key may be twice."""
    found = race.table.read(f"SELECT id, value FROM t WHERE day = '{KEYS[number]}'")
    assert len(found) == len(dict(found)), (race.at, race.statement, found)
    return dict(found)


def published_ids(race: Race) -> list[str]:
    return [publication for event, _, publication in race.table.events() if event == "published"]


def told(name: str, count: int) -> None:
    sys.stdout.write(f"{name}: {count} races\n")


PAIRS: list[tuple[Strategy, Strategy]] = [("merge", "merge"), ("replace", "replace"), ("merge", "replace")]


@pytest.mark.parametrize("is_first", [False, True], ids=["again", "first"])
@pytest.mark.parametrize(("held", "other"), PAIRS)
def test_of_two_publications_one_wins(lax: Emulator, held: Strategy, other: Strategy, is_first: bool) -> None:
    table = Publications(SnowflakeBackend(lax), live=None if is_first else OLD)
    works = publishing(table, HELD, strategy=held), publishing(table, OTHER, strategy=other)
    wins: Counter[str] = Counter()
    for race in races(lax, table, *works, step=1 if held == other else 3):
        winner, loser = (HELD, OTHER) if isinstance(race.held, Published) else (OTHER, HELD)
        assert day(race) == ROWS[winner], (race.at, race.statement)
        assert isinstance(race.outcomes[winner], Published), (race.at, race.statement, race.outcomes)
        assert isinstance(race.outcomes[loser], sb.PublishConflictError), (race.at, race.statement, race.outcomes)
        assert published_ids(race) == [winner]
        if not is_first:
            assert day(race, 1) == WAS
        wins[winner] += 1
    told(f"{held} against {other}, {'first' if is_first else 'again'}", wins.total())
    assert wins.total() >= (25 if held == other else 8)
    assert wins[HELD]
    assert wins[OTHER]


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_of_a_publication_and_a_rollback_one_wins(lax: Emulator, strategy: Strategy) -> None:
    table = Publications(SnowflakeBackend(lax), live=OLD)
    table.published([(0, i, 0.5, None) for i in range(3)], [0], "before")
    works = publishing(table, HELD, strategy=strategy), lambda table: table.rollback("before", run="back")
    wins: Counter[str] = Counter()
    for race in races(lax, table, *works):
        if isinstance(race.held, Published):
            assert isinstance(race.other, sb.RollbackConflictError), (race.at, race.statement, race.other)
            assert day(race) == ROWS[HELD], (race.at, race.statement)
        else:
            assert isinstance(race.held, sb.PublishConflictError), (race.at, race.statement, race.held)
            assert isinstance(race.other, RolledBack), (race.at, race.statement, race.other)
            assert day(race) == WAS, (race.at, race.statement)
        wins[type(race.held).__name__] += 1
    told(f"{strategy} against a rollback", wins.total())
    assert len(wins) == 2


def test_two_rollbacks_undo_a_publication_once(lax: Emulator) -> None:
    table = Publications(SnowflakeBackend(lax), live=OLD)
    table.published([(0, i, 0.5, None) for i in range(3)], [0], "before")
    winners: Counter[str] = Counter()
    undo = (lambda table, run=run: table.rollback("before", run=run) for run in (HELD, OTHER))
    for race in races(lax, table, *undo):
        assert day(race) == WAS, (race.at, race.statement)
        (winner,) = [publication for event, _, publication in race.table.events() if event == "rolled_back"]
        loser = race.outcomes[OTHER if winner == HELD else HELD]
        assert loser.already == {KEYS[0]: winner}, (race.at, race.statement, loser)
        winners[winner] += 1
    told("two rollbacks", winners.total())
    assert len(winners) == 2


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_publications_that_overwrite_both_happen_one_after_the_other(lax: Emulator, strategy: Strategy) -> None:
    table = Publications(SnowflakeBackend(lax), live=OLD)
    rules = {"on_conflict": "overwrite", "strategy": strategy}
    works = publishing(table, HELD, **rules), publishing(table, OTHER, **rules)
    for race in races(lax, table, *works, step=3):
        assert isinstance(race.held, Published), (race.at, race.statement, race.held)
        assert isinstance(race.other, Published), (race.at, race.statement, race.other)
        first, last = published_ids(race)
        assert day(race) == ROWS[last], (race.at, race.statement)
        archived = race.table.read(f"SELECT id, value FROM t__archive_{last} WHERE day = '{KEYS[0]}'")
        assert dict(archived) == ROWS[first], (race.at, race.statement)


@pytest.mark.parametrize("strategy", ["merge", "replace"])
def test_one_that_the_server_aborts_for_the_other_commits_nothing_of_its_own(lax: Emulator, strategy: Strategy) -> None:
    """It was idle for too long while it was in the other's way. Nobody tells it, and it goes on."""
    table = Publications(SnowflakeBackend(lax), live=OLD)
    works = publishing(table, HELD, strategy=strategy), publishing(table, OTHER, strategy=strategy)
    wins: Counter[str] = Counter()
    lax.abort_idle_after(0.0)
    try:
        for race in races(lax, table, *works, step=2, until="it ends"):
            winner, loser = (HELD, OTHER) if isinstance(race.held, Published) else (OTHER, HELD)
            assert day(race) == ROWS[winner], (race.at, race.statement)
            assert isinstance(race.outcomes[loser], sb.PublishConflictError), (race.at, race.statement, race.outcomes)
            assert published_ids(race) == [winner]
            wins[winner] += 1
    finally:
        lax.abort_idle_after(300)
    told(f"{strategy}, aborted by the server", wins.total())
    assert wins[OTHER] > wins[HELD] > 0


BY_HAND = {
    "update": ("UPDATE t SET value = 9 WHERE day = '2024-01-01' AND id = 2", {2: 9.0}),
    "insert": ("INSERT INTO t VALUES ('2024-01-01', 7, 9, NULL)", {7: 9.0}),
}


@pytest.mark.parametrize("edit", BY_HAND)
@pytest.mark.parametrize("strategy", ["merge", "replace", "swap"])
def test_what_somebody_changes_by_hand_is_not_lost(lax: Emulator, strategy: Strategy, edit: str) -> None:
    """It makes the publication fail, or comes after it: then it is there, and the ledger doesn't know of it."""
    sql, change = BY_HAND[edit]
    table = Publications(SnowflakeBackend(lax), live=OLD)

    def by_hand(table: Publications) -> None:
        assert isinstance(table.backend, SnowflakeBackend)
        with table.backend.session() as session:
            session.cursor().execute(sql)

    ends: Counter[str] = Counter()
    for race in races(
        lax, table, publishing(table, HELD, strategy=strategy), by_hand, step=2 if strategy != "swap" else 3
    ):
        assert race.other is None, (race.at, race.statement, race.other)
        # After SWAP WITH, and before the ledger knows of it, to go back would lose the row: a person has to look at it.
        is_published = isinstance(race.held, Published | sb.SwapError)
        assert is_published or isinstance(race.held, sb.PublishConflictError), (race.at, race.statement, race.held)
        assert strategy == "swap" or not isinstance(race.held, sb.SwapError)
        assert day(race) == {**(ROWS[HELD] if is_published else WAS), **change}, (race.at, race.statement)
        ends[type(race.held).__name__] += 1
    told(f"{strategy} against {edit} by hand", ends.total())
    assert {"Published", "PublishConflictError"} <= {*ends}


def storing(who: str, *, is_whole: bool = False) -> Work:
    """Return what a plain asset's run does, which takes no part in write, audit and publish."""

    def work(table: Publications) -> object:
        with table.warehouse.connect() as session:
            return store(
                session,
                frame(computed(who)),
                spec=replace(table.spec, partition_expr={}) if is_whole else table.spec,
                partition_slice=None if is_whole else slice_of([0]),
                origin=Origin(run_id=who, publication_id=who, asset_key="t"),
            )

    return work


@pytest.mark.parametrize("live", [None, [], OLD], ids=["first", "empty", "again"])
@pytest.mark.parametrize("unique_key", [("day", "id"), ()], ids=["merge", "replace"])
def test_of_two_plain_writes_the_rows_of_one_stay(
    lax: Emulator, unique_key: tuple[str, ...], live: list[Row] | None
) -> None:
    table = Publications(SnowflakeBackend(lax), live=None if live is None else OLD[3:], unique_key=unique_key)
    if live is not None:
        # The asset owns the table already, so that nothing is to be claimed.
        storing("earlier")(table)
        table.do("DELETE FROM t WHERE day = '2024-01-01'")
    if live:
        table.do("INSERT INTO t SELECT DATE '2024-01-01', i, 1.0, NULL FROM range(3) AS r (i)")
    count = 0
    for race in races(lax, table, storing(HELD), storing(OTHER), step=4):
        assert not any(isinstance(outcome, Exception) for outcome in race.outcomes.values()), (race.at, race.outcomes)
        assert day(race) in (ROWS[HELD], ROWS[OTHER]), (race.at, race.statement)
        if live is not None:
            assert day(race, 1) == WAS
        count += 1
    told("two plain writes", count)


def test_of_two_plain_writes_of_a_whole_table_the_rows_of_one_stay(lax: Emulator) -> None:
    table = Publications(SnowflakeBackend(lax), live=[], unique_key=())
    storing("earlier", is_whole=True)(table)
    table.do("DELETE FROM t")
    works = storing(HELD, is_whole=True), storing(OTHER, is_whole=True)
    for race in races(lax, table, *works, step=4):
        assert not any(isinstance(outcome, Exception) for outcome in race.outcomes.values()), (race.at, race.outcomes)
        assert day(race) in (ROWS[HELD], ROWS[OTHER]), (race.at, race.statement)
