"""Retention of a table with many archives, most of them gone: seconds, statements, and the longest write session.

Run as `python -m bench.retention`; the result is JSON on standard output.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session
    from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

GONE, STANDING = 22_000, 2_000
CASES = {"none has expired": 0, "100 have expired": 100, "all have expired": STANDING}
"""How many of the archives that stand have expired."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What a retention run took.

    Attributes:
        seconds: All of it.
        statements: How many statements were sent.
        longest: Seconds of the longest session that writes, for which others wait.
        dropped: How many archives were dropped.
    """

    seconds: float
    statements: int
    longest: float
    dropped: int


class _Count(logging.Handler):
    """Counts the statements that the library logs."""

    def __init__(self) -> None:
        super().__init__()
        self.statements = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - it is only counted
        self.statements += 1


def prepare(path: str, *, expired: int) -> None:
    """Make a table whose ledger names all archives that there ever were."""
    from dagster_safe_backfill.sql import ledger

    columns = ", ".join(f'"{name}" {kind}' for name, kind in ledger.COLUMNS.items())
    common = "'main.t', '2024-01-01', 'p' || n, 'r' || n, 't', 'p' || n, 't__archive_p' || n"
    names = (
        "recorded_at, event, archive_expires_at, table_name, partition_key, publication_id, run_id, asset_key, scope"
    )
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE t (day DATE, id BIGINT)")
        connection.execute(f"CREATE TABLE {ledger.LEDGER} ({columns})")
        connection.execute(
            f"INSERT INTO {ledger.LEDGER} ({names}, archive) SELECT now() - to_minutes({GONE + STANDING} - n),"
            f" 'published', now() + to_days(CASE WHEN n < {GONE + expired} THEN -1 ELSE 20 END), {common}"
            f" FROM range({GONE + STANDING}) AS r(n)"
        )
        connection.execute(
            f"INSERT INTO {ledger.LEDGER} ({names}, archive) SELECT now(), 'expired', NULL, {common}"
            f" FROM range({GONE}) AS r(n)"
        )
        connection.execute("BEGIN")
        for n in range(GONE, GONE + STANDING):
            connection.execute(f"CREATE TABLE t__archive_p{n} AS SELECT 1 AS id")
        connection.execute("COMMIT")


def measured(path: str) -> Retention:
    """Return what a retention run took, as the schedule's job does it."""
    from dagster_safe_backfill.model.events import KnownRuns
    from dagster_safe_backfill.model.states import Origin
    from dagster_safe_backfill.model.tables import TableRef
    from dagster_safe_backfill.wap.retention import RetentionRules, drop_found, owners, retire
    from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

    warehouse, table = DuckDBWarehouse(path), TableRef(schema="main", name="t")
    origin = Origin(run_id="retention", publication_id="retention")
    sessions: list[float] = []
    with _counted() as count:
        started = time.perf_counter()
        with warehouse.connect(read_only=True) as session:
            rules = RetentionRules(runs=KnownRuns(ended=owners(session, table)), shadows_for=timedelta(days=7))
            found = retire(session, table, rules=rules, origin=origin, dry_run=True)
        done = drop_found(partial(_timed, warehouse, sessions), found, rules=rules, origin=origin)
        seconds = time.perf_counter() - started
    return Retention(
        seconds=seconds,
        statements=count.statements,
        longest=max(sessions, default=0.0),
        dropped=len(done.archives),
    )


@contextmanager
def _timed(warehouse: DuckDBWarehouse, sessions: list[float]) -> Generator[Session, None, None]:
    started = time.perf_counter()
    with warehouse.connect() as session:
        yield session
    sessions.append(time.perf_counter() - started)


@contextmanager
def _counted() -> Generator[_Count, None, None]:
    count, logger = _Count(), logging.getLogger("dagster_safe_backfill.sql")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(count)
    try:
        yield count
    finally:
        logger.removeHandler(count)


def main() -> dict[str, Retention]:
    """Return what retention took, by case."""
    found: dict[str, Retention] = {}
    for case, expired in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "warehouse.duckdb"))
            prepare(path, expired=expired)
            found[case] = measured(path)
    return found


if __name__ == "__main__":
    print(json.dumps({case: asdict(one) for case, one in main().items()}))
