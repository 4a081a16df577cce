"""Random tables and changes of them, with twins of what is live before and after, made without the library."""

from __future__ import annotations

import random
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill_tests.faults.victim import COLUMNS, Transition, Work
from dagster_safe_backfill_tests.harness.audited import DAYS, KEYS

STRATEGIES: tuple[Strategy, ...] = ("merge", "replace", "swap")
State = Literal["old", "new"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A file in which the table `t` is to change, and its twin with the tables `old` and `new`.

    Attributes:
        work: The change.
        changed: The keys of the partitions whose rows it changes.
        filled: The keys of the partitions that have rows before.
        tables: The tables that are there before.
        indexes: The indexes of `t`.
    """

    path: Path
    twin: Path
    work: Work
    changed: frozenset[str]
    filled: frozenset[str]
    tables: frozenset[str]
    indexes: tuple[str, ...]

    def copied(self) -> Path:
        """Return a fresh copy of the file."""
        copy = self.path.with_name("copy.duckdb")
        copy.with_suffix(".duckdb.wal").unlink(missing_ok=True)
        shutil.copyfile(self.path, copy)
        return copy

    @contextmanager
    def opened(self, path: Path) -> Generator[duckdb.DuckDBPyConnection, None, None]:
        """Open a copy beside the twin, without the library."""
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"ATTACH '{self.twin}' AS twin (READ_ONLY)")
            yield connection


def same(connection: duckdb.DuckDBPyConnection, one: str, other: str) -> bool:
    """Return whether two relations have the same rows, as often."""
    both = f"SELECT {COLUMNS}, 1 AS n FROM {one} UNION ALL SELECT {COLUMNS}, -1 FROM {other}"
    rows = connection.execute(f"SELECT 1 FROM ({both}) GROUP BY {COLUMNS} HAVING sum(n) <> 0 LIMIT 1").fetchall()
    return not rows


def case(folder: Path, transition: Transition, *, seed: int, rows: int) -> Case:
    """Make a case of about `rows` rows in each of the days."""
    path, twin = folder / "base.duckdb", folder / "twin.duckdb"
    for left in (path, twin):
        left.unlink(missing_ok=True)
    rng = random.Random(f"{transition} {seed}")
    work = Work(
        transition=transition,
        run_id="killed",
        days=tuple(sorted(rng.sample(range(DAYS), rng.randint(1, DAYS - (transition == "move"))))),
        has_key=transition in ("merge", "move") or rng.random() < 0.7,
    )
    _fill(path, twin, work, rng, rows)
    if transition in ("rollback", "retention"):
        _publish(path, twin, work, rng)
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{twin}' AS twin (READ_ONLY)")
        return Case(path=path, twin=twin, work=work, **_facts(connection))


def _fill(path: Path, twin: Path, work: Work, rng: random.Random, rows: int) -> None:
    hole = f"d <> {rng.choice(work.days)}"
    holes = rng.choice([("true", "true"), ("true", "true"), (hole, "true"), ("true", hole)])
    slice_ = ", ".join(f"'{KEYS[day]}'" for day in work.days)
    share = rng.choice([3, 30, 90])
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{twin}' AS twin")
        connection.execute(f"CREATE TABLE t AS {_rows(rng.getrandbits(30), rows, share=0)} AND {holes[0]}")
        connection.execute(f"CREATE TABLE batch AS {_rows(rng.getrandbits(30), rows, share)} AND {holes[1]}")
        connection.execute(f"DELETE FROM batch WHERE day NOT IN ({slice_})")
        if work.moves:
            for table in ("t", "batch"):
                connection.execute(f"UPDATE {table} SET id = id + 1000000 * (day - DATE '{KEYS[0]}')")
            moved = f"DATE '{KEYS[work.days[0]]}', id, value + 1, note FROM t WHERE day NOT IN ({slice_})"
            connection.execute(f"INSERT INTO batch SELECT {moved} AND hash(id) % 7 = 0")
        if rng.random() < 0.4:
            connection.execute("CREATE INDEX t_value ON t (value)")
        connection.execute(f"CREATE TABLE twin.old AS SELECT {COLUMNS} FROM t")
        connection.execute(f"CREATE TABLE twin.new AS SELECT {COLUMNS} FROM t WHERE day NOT IN ({slice_})")
        if work.moves:
            connection.execute("DELETE FROM twin.new WHERE id IN (SELECT id FROM batch)")
        connection.execute(f"INSERT INTO twin.new SELECT {COLUMNS} FROM batch")


def _rows(seed: int, rows: int, share: int) -> str:
    """Return the SELECT of about `rows` rows a day, of which `share` percent are not as they always are."""
    return f"""
        SELECT DATE '{KEYS[0]}' + d::INTEGER AS day, id,
            (hash(d, id) % 50)::DOUBLE + CASE WHEN hash({seed}, id) % 100 < {share} THEN 0.5 ELSE 0 END AS value,
            CASE WHEN hash(id, d) % 3 > 0 THEN 'it''s ' || hash(id, d) % 1000 END AS note
        FROM range({DAYS}) AS days(d), range({rows}) AS ids(id) WHERE hash(d, {seed}, id) % 20 > 0
    """


def _publish(path: Path, twin: Path, work: Work, rng: random.Random) -> None:
    """Publish the batch, and change the twins: what is live now is the old, and for a rollback the new is the old."""
    strategy = "replace" if not work.has_key else rng.choice(STRATEGIES)
    _done(path, work, strategy, "first", archive_for=1e-6 if work.transition == "retention" else 86400)
    with duckdb.connect(str(twin)) as connection:
        connection.execute("ALTER TABLE old RENAME TO before")
        connection.execute("ALTER TABLE new RENAME TO old")
        is_back = work.transition == "rollback"
        connection.execute(f"CREATE TABLE new AS FROM {'before' if is_back else 'old'}")
    if work.transition == "retention":
        # An archive that hasn't expired, and two shadows without a run.
        _done(path, work, "replace", "kept")
        _done(path, work, strategy, "left", is_published=False)
        _done(path, work, strategy, "lost", is_published=False)


def _done(
    path: Path,
    work: Work,
    strategy: Strategy,
    run_id: str,
    *,
    archive_for: float = 86400,
    is_published: bool = True,
) -> None:
    Work(
        transition=strategy,
        run_id=run_id,
        days=work.days,
        has_key=work.has_key,
        archive_for=archive_for,
        is_published=is_published,
    ).run_on(str(path))


def _facts(connection: duckdb.DuckDBPyConnection) -> dict[str, frozenset[str] | tuple[str, ...]]:
    rows = "(FROM twin.old EXCEPT ALL FROM twin.new) UNION ALL (FROM twin.new EXCEPT ALL FROM twin.old)"
    return {
        "changed": frozenset(names(connection, f"SELECT DISTINCT day::VARCHAR FROM ({rows})")),
        "filled": frozenset(names(connection, "SELECT DISTINCT day::VARCHAR FROM twin.old")),
        "tables": frozenset(tables(connection)),
        "indexes": tuple(indexes(connection)),
    }


def names(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Return the values of a query's only column."""
    return [name for (name,) in connection.execute(sql).fetchall()]


def tables(connection: duckdb.DuckDBPyConnection, prefix: str = "") -> list[str]:
    """Return the names of the tables that begin with `prefix`."""
    found = names(
        connection, "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() ORDER BY 1"
    )
    return [name for name in found if name.startswith(prefix)]


def indexes(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the indexes of `t`."""
    return names(connection, "SELECT index_name FROM duckdb_indexes() WHERE table_name = 't' ORDER BY 1")
