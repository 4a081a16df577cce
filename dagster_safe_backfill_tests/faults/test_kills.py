"""kill -9 at every statement of a change of live, and inside the long ones: it happens whole or not at all."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from dagster_safe_backfill_tests.faults.cases import Case, State, case, indexes, names, same, tables
from dagster_safe_backfill_tests.faults.victim import CLOSING, Statement, Transition, Victims, Work, victims
from dagster_safe_backfill_tests.harness.open_files import kept_open

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="victims are forked")

AT_LEAST: dict[Transition, int] = {"merge": 55, "move": 55, "replace": 55, "swap": 60, "rollback": 40, "retention": 20}
"""How many kills each transition has to stand."""
LONG = ("CREATE TABLE", "INSERT INTO", "MERGE", "DELETE", "COMMIT", CLOSING)
SMALL, LARGE = 60, 30_000
TORN = 1
"""How many of the kills inside a statement may tear DuckDB's file: no transaction of the library can prevent that."""
ROUNDS, SOME = 2, 5
"""How many random tables there are, and how many statements are tried of those after the first."""

Counts = Counter[tuple[str, State]]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on a disk, as where files are kept: in memory, DuckDB 2.0.0 once left a torn block to a killed write."""
    with tempfile.TemporaryDirectory(dir="/var/tmp" if Path("/var/tmp").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def doomed() -> Iterator[Victims]:
    with victims() as found:
        yield found


def test_the_kills_are_many() -> None:
    assert sum(AT_LEAST.values()) >= 200


@pytest.mark.parametrize("transition", AT_LEAST)
def test_a_killed_change_happened_whole_or_not_at_all(
    doomed: Victims, tmp_path: Path, transition: Transition, record_property: pytest.RecordProperty
) -> None:
    counts: Counts = Counter()
    for seed in range(ROUNDS):
        one = case(tmp_path, transition, seed=seed, rows=SMALL)
        statements = doomed.statements(one.work, one.copied())
        numbers: Sequence[int] = range(len(statements))
        if seed:
            numbers = random.Random(seed).sample(numbers, min(SOME, len(numbers)))
        counts += killed_at_boundaries(doomed, one, statements, numbers)
    counts += killed_inside(doomed, case(tmp_path, transition, seed=ROUNDS, rows=LARGE))
    shown = ", ".join(f"{count} {where}: {state}" for (where, state), count in sorted(counts.items()))
    sys.stdout.write(f"{transition}: {counts.total()} kills ({shown})\n")
    record_property("kills", shown)
    assert counts.total() >= AT_LEAST[transition]
    assert {state for _, state in counts} == {"old", "new"}
    assert {where for where, _ in counts} >= {"boundary", "inside"}


def killed_at_boundaries(doomed: Victims, one: Case, statements: Sequence[Statement], numbers: Sequence[int]) -> Counts:
    """Kill right before statements: what is there tells whether the last COMMIT was run."""
    last_commit = max((i for i, statement in enumerate(statements) if statement.sql == "COMMIT"), default=-1)
    counts: Counts = Counter()
    for number in numbers:
        copy = one.copied()
        end = doomed.kill(one.work, copy, at=number)
        assert end.is_killed
        assert end.at == number
        state = found_state(one, copy)
        assert state == ("new" if number > last_commit else "old"), statements[number].sql
        counts["boundary", state] += 1
        finish(one, copy, run_id="killed" if number % 2 else "again")
    return counts


def killed_inside(doomed: Victims, one: Case) -> Counts:
    """Kill while the database is at work on a long statement."""
    rng = random.Random(one.work.transition)
    counts: Counts = Counter()
    torn: list[str] = []
    for number, statement in enumerate(doomed.statements(one.work, one.copied())):
        if not statement.sql.startswith(LONG):
            continue
        copy = one.copied()
        end = doomed.kill(one.work, copy, at=number, after=rng.uniform(0.1, 0.8) * statement.seconds)
        try:
            state = found_state(one, copy)
        except duckdb.Error as error:
            if not is_torn(error):
                raise
            torn.append(statement.sql)
            continue
        if end.is_killed:
            counts["inside" if end.is_inside and end.at == number else "between", state] += 1
        finish(one, copy, run_id="killed" if number % 2 else "again")
    assert len(torn) <= TORN, torn
    return counts


def is_torn(error: duckdb.Error) -> bool:
    """Return whether DuckDB's own checkpoint, killed, has damaged the file; docs/publishing.md tells how often."""
    return str(error).startswith("Corrupt database file: computed checksum")


def found_state(one: Case, copy: Path) -> State:
    """Return which of the two states a file is in, of which nothing else is left."""
    with one.opened(copy) as connection:
        if one.work.transition == "retention":
            return retired_state(one, connection)
        is_new = not same(connection, "t", "twin.old")
        assert not is_new or same(connection, "t", "twin.new"), "live is neither what it was nor what it was to be"
        assert indexes(connection) == [*one.indexes]
        check_ledger(one, connection, is_new=is_new)
        if one.work.transition != "rollback":
            check_shadow(one, connection, is_new=is_new)
        return "new" if is_new else "old"


def check_ledger(one: Case, connection: duckdb.DuckDBPyConnection, *, is_new: bool) -> None:
    """See that the ledger tells what happened, and that the archive that it names is all of what was replaced."""
    recorded = ledger(connection, "published", "rolled_back", "moved")
    archives = [name for name in tables(connection, "t__archive_") if name not in one.tables]
    if not is_new:
        assert recorded == []
        assert archives == []
        return
    left = {key for event, key, _ in recorded if event == "moved"}
    assert left == (one.changed - set(one.work.partition_keys) if one.work.moves else set[str]())
    slice_ = {*one.work.partition_keys, *left}
    events = {event for event, key, _ in recorded if key not in left}
    assert events == {"rolled_back" if is_rollback(one) else "published"}
    keys = [key for _, key, _ in recorded]
    assert len(keys) == len(set(keys))
    assert one.changed <= set(keys) <= slice_
    assert is_rollback(one) or set(keys) == slice_
    check_counts(connection)
    archived = {key for _, key, archive in recorded if archive}
    assert archives == sorted({archive for _, _, archive in recorded if archive})
    assert archived >= one.changed & one.filled
    days = ", ".join(f"'{key}'" for key in ["0001-01-01", *sorted(archived)])
    old = "twin.old" if one.work.transition == "swap" else f"twin.old WHERE day IN ({days})"
    for archive in archives:
        assert same(connection, archive, old)


def check_counts(connection: duckdb.DuckDBPyConnection) -> None:
    """See that the fingerprints that were recorded are of as many rows as each partition has."""
    sql = """
        SELECT partition_key FROM _safe_backfill_ledger
        WHERE run_id = 'killed' AND event IN ('published', 'rolled_back', 'moved')
            AND split_part(fingerprint, ':', 1)::BIGINT
            <> (SELECT count(*) FROM twin.new WHERE day::VARCHAR = partition_key)
    """
    assert names(connection, sql) == []


def check_shadow(one: Case, connection: duckdb.DuckDBPyConnection, *, is_new: bool) -> None:
    """See that the shadow is there, whole, from when it is recorded until it is published."""
    is_staged = bool(ledger(connection, "staged"))
    assert is_staged or not (is_new or ledger(connection, "audited"))
    assert tables(connection, "t__shadow_") == (["t__shadow_killed"] if is_staged and not is_new else [])
    if is_staged and not is_new:
        assert same(connection, "t__shadow_killed", "batch")


def retired_state(one: Case, connection: duckdb.DuckDBPyConnection) -> State:
    """Return whether all that is over is there, or gone with a word in the ledger; live is as it was."""
    assert same(connection, "t", "twin.old")
    assert indexes(connection) == [*one.indexes]
    over = one.tables & {"t__archive_first", "t__shadow_left", "t__shadow_lost"}
    gone = one.tables.difference(tables(connection))
    assert gone in (set(), over)
    is_new = bool(gone)
    retired = sorted(event for event, _, _ in ledger(connection, "expired", "discarded"))
    events = [*["discarded"] * 2, *["expired"] * (len(over) - 2)]
    assert retired == (events if is_new else [])
    return "new" if is_new else "old"


def finish(one: Case, copy: Path, *, run_id: str) -> None:
    """Run what was killed to its end, the same run again or another one, and clean up."""
    with kept_open():
        replace(one.work, run_id=run_id).run_on(str(copy))
        Work(transition="retention", run_id="clean", days=()).run_on(str(copy))
        with one.opened(copy) as connection:
            assert same(connection, "t", "twin.new")
            assert indexes(connection) == [*one.indexes]
            assert tables(connection, "t__shadow_") == []
            # No archive without a name, no publication that is recorded twice.
            sql = "SELECT DISTINCT archive FROM _safe_backfill_ledger WHERE archive IS NOT NULL"
            assert {*tables(connection, "t__archive_")} <= {*names(connection, sql)}
            sql = "SELECT count(*) FROM _safe_backfill_ledger WHERE event IN ('published', 'rolled_back', 'moved')"
            assert {*names(connection, f"{sql} GROUP BY publication_id, partition_key")} <= {1}


def ledger(connection: duckdb.DuckDBPyConnection, *events: str) -> list[tuple[str, str, str | None]]:
    """Return `(event, partition, archive)` of what the killed run recorded; nothing if there is no ledger yet."""
    if not tables(connection, "_safe_backfill_ledger"):
        return []
    sql = "SELECT event, partition_key, archive FROM _safe_backfill_ledger WHERE run_id = 'killed'"
    return [row for row in connection.execute(sql).fetchall() if row[0] in events]


def is_rollback(one: Case) -> bool:
    return one.work.transition == "rollback"
