"""Two changes of one table at a time: each is held before each of its statements, while the other goes on."""

from __future__ import annotations

import copy
import logging
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Published, RolledBack
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill_tests.harness.audited import KEYS, Row
from dagster_safe_backfill_tests.harness.backends import DuckDBBackend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

pytestmark = pytest.mark.cold  # each race is run on a copy of a file, which holds all of it once it is closed

HELD, OTHER = "held", "other"
PATIENCE = 60.0
"""Seconds after which a thread is taken to be stuck for good."""
FEWEST = 12
"""A transaction that publishes or rolls back has more statements."""

Table = Publications
Rows = dict[int, float]
"""The values of a day by id."""
OLD: list[Row] = [row for day in range(3) for row in day_rows(day, 1.0)]
WAS: Rows = {0: 1.0, 1: 1.0, 2: 1.0}
ROWS: dict[str, Rows] = {HELD: {0: 2.0, 1: 2.0, 2: 1.0, 3: 2.0}, OTHER: {0: 1.0, 1: 3.0, 2: 3.0, 5: 3.0}}
"""What each of the two computes of a day: both change a row that the other changes, and one that it leaves alone."""


class Hold:
    """Holds the thread HELD before its n-th statement, as a filter of the log that tells of every statement."""

    def __init__(self, at: int) -> None:
        self.reached = threading.Event()
        self.goes_on = threading.Event()
        self.is_stuck = {HELD: threading.Event(), OTHER: threading.Event()}
        """That a thread has ended, or tries again what it lost."""
        self._left = at

    def __call__(self, record: logging.LogRecord) -> bool:
        name = record.threadName
        if name in self.is_stuck and record.getMessage() == "ROLLBACK":
            self.is_stuck[name].set()
        if name == HELD:
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                assert self.goes_on.wait(PATIENCE)
        return False

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        logger = logging.getLogger("dagster_safe_backfill.sql")
        level = logger.level
        logger.addFilter(self)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeFilter(self)


Work = Callable[[Table, Hold], object]


class Runner(threading.Thread):
    """Does something in a thread of its own; what it returns or raises is the outcome."""

    def __init__(self, name: str, table: Table, work: Work, hold: Hold) -> None:
        super().__init__(name=name, daemon=True)
        self.outcome: Any = None
        self._table = table
        self._work = work
        self._hold = hold

    def run(self) -> None:
        try:
            self.outcome = self._work(self._table, self._hold)
        except Exception as error:
            self.outcome = error
        finally:
            if self.name == HELD:
                self._hold.reached.set()
            self._hold.is_stuck[self.name].set()

    def ended(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), f"{self.name} is stuck"
        return self.outcome


@dataclass(frozen=True, kw_only=True)
class Race:
    """How it went when one was held before its statement number `at`."""

    table: Table
    at: int
    held: Any
    other: Any

    @property
    def outcomes(self) -> dict[str, Any]:
        return {HELD: self.held, OTHER: self.other}

    def values(self, day: int = 0) -> Rows:
        """Return what a session of its own reads of a day."""
        found = self.table.read(f"SELECT id, value FROM t WHERE day = '{KEYS[day]}'")
        assert len(found) == len(dict(found))
        return dict(found)

    def archived(self, publication: str) -> Rows:
        """Return what a publication replaced in the first day."""
        return dict(self.table.read(f"SELECT id, value FROM t__archive_{publication} WHERE day = '{KEYS[0]}'"))


def raced(table: Table, held: Work, other: Work, *, at: int) -> Race | None:
    """Hold one at a statement until the other has ended or waits for it; None if it has fewer statements."""
    hold = Hold(at)
    first, second = Runner(HELD, table, held, hold), Runner(OTHER, table, other, hold)
    with hold.listening():
        first.start()
        assert hold.reached.wait(PATIENCE)
        if not first.is_alive() or hold.is_stuck[HELD].is_set():
            assert not isinstance(first.ended(), Exception), first.outcome
            return None
        second.start()
        assert hold.is_stuck[OTHER].wait(PATIENCE)
        hold.goes_on.set()
        return Race(table=table, at=at, held=first.ended(), other=second.ended())


def races(prepared: Table, held: Work, other: Work) -> Iterator[Race]:
    """Race once for each statement of the one that is held, each time on a fresh copy of the file."""
    folder = Path(prepared.path).parent
    for at in count(1):
        (own := folder / str(at)).mkdir()
        table = copy.copy(prepared)
        table.path = shutil.copy(prepared.path, own)
        table.backend = DuckDBBackend(own, name=Path(table.path).name, lock_timeout=PATIENCE)
        table.warehouse = table.backend.warehouse
        # All sessions are of one DuckDB in any case; that it is open already spares each race to start it.
        with duckdb.connect(table.path):
            race = raced(table, held, other, at=at)
            if race is None:
                assert at > FEWEST, "what was to be held ran by unheld"
                return
            yield race
        shutil.rmtree(own)


def computed(day: int, who: str) -> list[Row]:
    return [(day, i, value, None) for i, value in ROWS[who].items()]


def publishing(table: Table, who: str, *, day: int = 0, rows: list[Row] | None = None, **rules: Any) -> Work:
    """Stage something now, to be published in a race."""
    audited = table.stage(computed(day, who) if rows is None else rows, [day], who)
    return lambda table, hold: table.publish(audited, who, **rules)


def by_hand(statement: str) -> Work:
    """Run a statement in a session that knows nothing of the library."""

    def work(table: Table, hold: Hold) -> None:
        with duckdb.connect(table.path) as connection:
            connection.execute(statement)

    return work


def by_hand_in_a_transaction(statement: str) -> Work:
    """Run a statement, and commit it when the other has ended or tries again."""

    def work(table: Table, hold: Hold) -> None:
        with duckdb.connect(table.path) as connection:
            connection.begin()
            connection.execute(statement)
            hold.is_stuck[OTHER].set()
            assert hold.is_stuck[HELD].wait(PATIENCE)
            connection.commit()

    return work


def published_ids(race: Race) -> list[str]:
    return [publication for event, _, publication in race.table.events() if event == "published"]


def check_lost(error: Any, kind: type[Exception], *said: str) -> None:
    assert type(error) is kind, repr(error)
    for text in ("main.t:", KEYS[0], *said):
        assert text in str(error)
    assert error.keys == (KEYS[0],)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Publications(tmp_path, live=OLD)


PAIRS: list[tuple[Strategy, Strategy]] = [("merge", "merge"), ("swap", "swap"), ("merge", "swap"), ("replace", "merge")]


@pytest.mark.parametrize(("held", "other"), PAIRS)
def test_of_two_publications_of_a_partition_one_wins(table: Table, held: Strategy, other: Strategy) -> None:
    works = publishing(table, HELD, strategy=held), publishing(table, OTHER, strategy=other)
    wins: Counter[str] = Counter()
    for race in races(table, *works):
        winner, loser = (HELD, OTHER) if isinstance(race.held, Published) else (OTHER, HELD)
        check_lost(race.outcomes[loser], sb.PublishConflictError, f"published by {winner} at 20")
        assert race.outcomes[loser].published_since == {KEYS[0]: winner}
        assert race.values() == ROWS[winner], race.at
        assert race.values(1) == WAS
        assert published_ids(race) == [winner]
        assert race.table.tables("t__") == [f"t__archive_{winner}", f"t__shadow_{loser}"]
        assert race.archived(winner) == WAS
        wins[winner] += 1
    assert wins[HELD] > wins[OTHER] > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_publications_of_different_partitions_both_happen(table: Table, strategy: Strategy) -> None:
    works = publishing(table, HELD, strategy=strategy), publishing(table, OTHER, day=1, strategy=strategy)
    orders: set[str] = set()
    for race in races(table, *works):
        assert isinstance(race.held, Published), race
        assert isinstance(race.other, Published), race
        assert (race.values(0), race.values(1), race.values(2)) == (ROWS[HELD], ROWS[OTHER], WAS)
        orders.add(published_ids(race)[0])
    assert orders == {HELD, OTHER}


def test_two_publications_that_overwrite_both_happen_one_after_the_other(table: Table) -> None:
    rules = {"on_conflict": "overwrite"}
    for race in races(table, publishing(table, HELD, **rules), publishing(table, OTHER, **rules)):
        assert isinstance(race.held, Published), race
        assert isinstance(race.other, Published), race
        first, last = published_ids(race)
        assert race.values() == ROWS[last]
        assert race.archived(last) == ROWS[first]


def undoing(table: Table, hold: Hold) -> RolledBack:
    return table.rollback("before", run="back")


BEFORE: Rows = {0: 0.5, 1: 1.0, 2: 1.0}


def published_before(table: Table) -> None:
    """Publish what is to be undone in a race."""
    table.published([(0, i, value, None) for i, value in BEFORE.items()], [0], "before")


@pytest.mark.parametrize(
    ("is_rollback_held", "strategy"), [*((False, strategy) for strategy in STRATEGIES), (True, "merge"), (True, "swap")]
)
def test_of_a_publication_and_a_rollback_one_wins(table: Table, strategy: Strategy, is_rollback_held: bool) -> None:
    published_before(table)
    works = [publishing(table, OTHER, strategy=strategy), undoing]
    wins: Counter[str] = Counter()
    for race in races(table, *(reversed(works) if is_rollback_held else works)):
        publication, rollback = (race.other, race.held) if is_rollback_held else (race.held, race.other)
        if isinstance(publication, Published):
            check_lost(rollback, sb.RollbackConflictError, OTHER, "published again since")
            assert race.values() == ROWS[OTHER]
        else:
            assert isinstance(rollback, RolledBack)
            check_lost(publication, sb.PublishConflictError, "rolled back by back at 20")
            assert publication.published_since == {KEYS[0]: "back"}
            assert race.values() == WAS
        wins[type(publication).__name__] += 1
    assert len(wins) == 2


def test_two_rollbacks_of_a_publication_undo_it_once(table: Table) -> None:
    published_before(table)

    def also(table: Table, hold: Hold) -> RolledBack:
        return table.rollback("before", run="also")

    winners: set[str] = set()
    for race in races(table, undoing, also):
        assert race.values() == WAS
        (winner,) = [publication for event, _, publication in race.table.events() if event == "rolled_back"]
        loser = race.other if winner == "back" else race.held
        assert loser.already == {KEYS[0]: winner}
        assert not loser.row_counts
        winners.add(winner)
    assert winners == {"back", "also"}


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change by hand, and what it makes of a day."""

    sql: str
    apply: Callable[[Rows], Rows]


EDITS = {
    "update": Edit(
        sql="UPDATE t SET value = 9 WHERE day = '2024-01-01' AND id = 2", apply=lambda rows: {**rows, 2: 9.0}
    ),
    "insert": Edit(sql="INSERT INTO t VALUES ('2024-01-01', 7, 9, NULL)", apply=lambda rows: {**rows, 7: 9.0}),
    "delete": Edit(
        sql="DELETE FROM t WHERE day = '2024-01-01' AND id = 2",
        apply=lambda rows: {i: value for i, value in rows.items() if i != 2},
    ),
}
SESSIONS = {"at once": by_hand, "in a transaction": by_hand_in_a_transaction}
since_two = pytest.mark.skipif(
    duckdb.__version__.startswith(("0.", "1.")), reason="before 2.0 DuckDB lets others write to a table that is held"
)


def check_edit(race: Race, edit: Edit, before: Rows, after: Rows, conflict: type[Exception], *said: str) -> str:
    """Check that a change by hand came first, came last or failed; return which."""
    if isinstance(race.other, Exception):
        assert isinstance(race.other, duckdb.TransactionException), race.other
        assert not isinstance(race.held, Exception), race.held
        assert race.values() == after
        return "failed"
    if isinstance(race.held, Exception):
        check_lost(race.held, conflict, *said)
        assert race.values() == edit.apply(before)
        return "first"
    assert race.values() == edit.apply(after)
    return "last"


@since_two
@pytest.mark.parametrize(
    ("strategy", "edit", "session"),
    [
        *((strategy, "update", session) for strategy in STRATEGIES for session in SESSIONS),
        *(("merge", "insert", "at once"), ("merge", "insert", "in a transaction"), ("swap", "delete", "at once")),
    ],
)
def test_a_change_by_hand_is_never_lost_in_a_publication(
    table: Table, strategy: Strategy, edit: str, session: str
) -> None:
    works = publishing(table, HELD, strategy=strategy), SESSIONS[session](EDITS[edit].sql)
    found: Counter[str] = Counter()
    for race in races(table, *works):
        found[check_edit(race, EDITS[edit], WAS, ROWS[HELD], sb.PublishConflictError, "by hand")] += 1
    # What isn't committed yet when a publication begins, loses.
    assert bool(found["first"]) == (session == "at once")
    assert found["failed"] > FEWEST - 2


@since_two
@pytest.mark.parametrize("session", SESSIONS)
def test_a_change_by_hand_is_never_lost_in_a_rollback(table: Table, session: str) -> None:
    published_before(table)
    found: Counter[str] = Counter()
    for race in races(table, undoing, SESSIONS[session](EDITS["update"].sql)):
        found[check_edit(race, EDITS["update"], BEFORE, WAS, sb.RollbackConflictError, "by hand")] += 1
    # What isn't committed yet when a publication begins, loses.
    assert bool(found["first"]) == (session == "at once")
    assert found["failed"] > FEWEST - 2


@since_two
@pytest.mark.parametrize("session", SESSIONS)
def test_a_change_by_hand_of_another_partition_never_stops_a_publication(table: Table, session: str) -> None:
    edit = SESSIONS[session]("UPDATE t SET value = 9 WHERE day = '2024-01-02' AND id = 2")
    for race in races(table, publishing(table, HELD), edit):
        assert isinstance(race.held, Published), race
        assert race.values() == ROWS[HELD]
        failed = isinstance(race.other, duckdb.TransactionException)
        assert race.other is None or failed
        assert race.values(1) == (WAS if failed else {**WAS, 2: 9.0})


@since_two
@pytest.mark.parametrize("rows", [[], computed(3, HELD)], ids=["no rows", "first rows"])
def test_an_insert_by_hand_into_a_partition_without_rows_is_never_lost(table: Table, rows: list[Row]) -> None:
    edit = by_hand("INSERT INTO t VALUES ('2024-01-04', 7, 9, NULL)")
    found: Counter[str] = Counter()
    for race in races(table, publishing(table, HELD, day=3, rows=rows), edit):
        if isinstance(race.held, Exception):
            assert isinstance(race.held, sb.PublishConflictError)
            assert race.held.keys == (KEYS[3],)
            assert race.values(3) == {7: 9.0}
        else:
            assert isinstance(race.other, duckdb.TransactionException)
            assert race.values(3) == {i: value for _, i, value, _ in rows}
        found[type(race.held).__name__] += 1
    assert len(found) == 2


@pytest.mark.parametrize("empty", [HELD, OTHER])
def test_of_publications_of_a_partition_without_rows_one_wins(table: Table, empty: str) -> None:
    rows = {who: [] if who == empty else computed(3, who) for who in ROWS}
    works = [publishing(table, who, day=3, rows=rows[who]) for who in rows]
    for race in races(table, *works):
        conflicts = [found for found in race.outcomes.values() if isinstance(found, sb.PublishConflictError)]
        # That nothing is there, before and after, is no change that another one could miss.
        assert [isinstance(found, Published) for found in race.outcomes.values()].count(True) == 2 - len(conflicts)
        last = [who for who in published_ids(race) if rows[who] or len(conflicts) == 0]
        assert race.values(3) in ({}, *({i: v for _, i, v, _ in rows[who]} for who in last))
        assert published_ids(race)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("day", [0, 1], ids=["same partition", "different partitions"])
def test_of_two_first_publications_of_a_table_none_is_lost(tmp_path: Path, strategy: Strategy, day: int) -> None:
    table = Publications(tmp_path, live=None)
    works = publishing(table, HELD, strategy=strategy), publishing(table, OTHER, day=day, strategy=strategy)
    for race in races(table, *works):
        if day:
            assert isinstance(race.held, Published), race
            assert isinstance(race.other, Published), race
            assert (race.values(0), race.values(1)) == (ROWS[HELD], ROWS[OTHER])
            continue
        winner, loser = (HELD, OTHER) if isinstance(race.held, Published) else (OTHER, HELD)
        check_lost(race.outcomes[loser], sb.PublishConflictError, f"published by {winner} at 20")
        assert race.values() == ROWS[winner]
        assert published_ids(race) == [winner]


def test_what_is_published_while_another_stages_is_overwritten_knowingly_or_a_conflict(table: Table) -> None:
    def stages_and_publishes(table: Table, hold: Hold) -> Published:
        return table.published(computed(0, HELD), [0], HELD)

    found: list[tuple[str, ...]] = []
    for race in races(table, stages_and_publishes, publishing(table, OTHER)):
        ids = published_ids(race)
        if ids == [OTHER, HELD]:
            assert race.archived(HELD) == ROWS[OTHER]
        else:
            (winner,) = ids
            loser = HELD if winner == OTHER else OTHER
            check_lost(race.outcomes[loser], sb.PublishConflictError, f"published by {winner} at 20")
        assert race.values() == ROWS[ids[-1]]
        found.append(tuple(ids))
    # Before its staging began, between that and its publication, and after.
    assert list(dict.fromkeys(found)) == [(OTHER, HELD), (OTHER,), (HELD,)]


def test_who_waits_no_longer_is_told_what_is_in_the_way(table: Table) -> None:
    held, other = publishing(table, HELD), publishing(table, OTHER)

    def impatient(table: Table, hold: Hold) -> object:
        table = copy.copy(table)
        table.warehouse = DuckDBWarehouse(table.path, lock_timeout=0.0)
        return other(table, hold)

    race = raced(table, held, impatient, at=8)
    assert race is not None
    assert isinstance(race.held, Published)
    assert isinstance(race.other, sb.TransactionConflictError)
    assert '"main"."t"' in str(race.other)
    assert race.values() == ROWS[HELD]


HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("UPDATE t SET value = 9 WHERE day = '2024-01-02'")
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_publication_waits_for_another_process_to_let_go_of_the_file(table: Table) -> None:
    publish = publishing(table, HELD)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, table.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        table.warehouse = DuckDBWarehouse(table.path, lock_timeout=0.1)
        with pytest.raises(sb.WarehouseLockedError, match=str(holder.pid)):
            publish(table, Hold(0))
        table.warehouse = DuckDBWarehouse(table.path, lock_timeout=PATIENCE)
        waiting = Runner(HELD, table, publish, Hold(0))
        waiting.start()
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert isinstance(waiting.ended(), Published)
    assert table.values() == {0: sorted(ROWS[HELD].values()), 1: [9.0] * 3, 2: [1.0] * 3}
