"""Dagster's instances in memory, made cheap: most tests make one, and keep some dozens of events in it.

Such an instance makes two SQLite databases with all their tables and indexes. It opens one anew for each event, asks it
each time whether it has the columns of the last migration, and compiles its statements for itself alone. Here a
database is emptied when its instance ends, and is the next one's. What is kept in it, and read, is up to Dagster.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import sqlalchemy as db
from dagster._core.storage.event_log import in_memory as events
from dagster._core.storage.runs import in_memory as runs
from sqlalchemy.pool import QueuePool

_numbers = itertools.count(1)


class _Databases:
    """The databases of a kind of storage, each of one instance at a time."""

    def __init__(self, tables: db.MetaData) -> None:
        self._tables = tables
        self._spare: list[db.Engine] = []

    def engine(self, *_: Any, **__: Any) -> db.Engine:
        """Return a database with its tables, and without rows."""
        return self._spare.pop() if self._spare else self._made()

    def create_all(self, _: db.Connection) -> None:
        """Do nothing: the tables are there."""

    def disposing(self, dispose: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return what is done at a storage's end."""

        def disposed(storage: Any) -> None:
            engine: db.Engine = storage._engine
            storage._held_conn.close()
            if engine.pool.checkedout():  # pyright: ignore[reportAttributeAccessIssue]
                # A thread that outlives its test still writes there.
                dispose(storage)
                return
            with engine.begin() as connection:
                for table in reversed(self._tables.sorted_tables):
                    connection.execute(table.delete())
            self._spare.append(engine)

        return disposed

    def _made(self) -> db.Engine:
        url = f"sqlite:///file:tests-{next(_numbers)}?mode=memory&uri=true&cache=shared"
        made = db.create_engine(url, poolclass=QueuePool, connect_args={"check_same_thread": False})
        db.event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON").close())
        with made.begin() as connection:
            self._tables.create_all(connection)
        return made


@contextmanager
def _to_events(storage: Any) -> Iterator[db.Connection]:
    with storage._db_lock, storage._engine.begin() as connection:
        yield connection


@contextmanager
def _to_runs(storage: Any) -> Iterator[db.Connection]:
    with storage._engine.begin() as connection:
        yield connection


def _is_new(*_: Any) -> bool:
    """Whether a database has a column that came with a migration: each is made by the newest Dagster."""
    return True


@contextmanager
def shared() -> Iterator[None]:
    """Let the instances in memory that are made in the block have databases that were used before."""
    of_events = _Databases(events.SqlEventLogStorageMetadata)
    of_runs = _Databases(runs.RunStorageSqlMetadata)
    event_log, run_storage = events.InMemoryEventLogStorage, runs.InMemoryRunStorage
    with ExitStack() as stack:
        for owner, name, value in (
            (events, "create_engine", of_events.engine),
            (events, "SqlEventLogStorageMetadata", of_events),
            (events, "stamp_alembic_rev", mock.Mock()),
            (event_log, "_connect", _to_events),
            (event_log, "dispose", of_events.disposing(event_log.dispose)),
            (event_log, "_has_asset_key_col_on_connection", _is_new),
            (runs, "create_engine", of_runs.engine),
            (runs, "RunStorageSqlMetadata", of_runs),
            (runs, "stamp_alembic_rev", mock.Mock()),
            (run_storage, "connect", _to_runs),
            (run_storage, "dispose", of_runs.disposing(run_storage.dispose)),
            (run_storage, "has_run_stats_index_cols", _is_new),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
