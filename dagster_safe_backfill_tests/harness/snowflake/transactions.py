"""A Snowflake transaction on DuckDB: READ COMMITTED per statement, and a failed statement that leaves it open.

DuckDB gives a transaction one snapshot, and an error ends it. So:

- until a transaction has written a row, each of its statements runs on a snapshot of its own;
- once it has, and somebody else has committed since, its rows are taken out of DuckDB's transaction, a new one is
  begun, and they are put into it. What it changed or deleted of a table is found again by DuckDB's row ids, which
  can't have moved: such a table is locked. What others inserted is there then, as on Snowflake;
- after a failure the statements that had succeeded are run again in a new transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from dagster_safe_backfill_tests.harness.snowflake.catalog import Name
from dagster_safe_backfill_tests.harness.snowflake.duck import Duck

_LOCAL_ROW_ID = 36028797018960000
"""DuckDB numbers rows that aren't committed yet from here on."""

Step = Callable[[Duck], None]
_Result = TypeVar("_Result")


class Commits:
    """Serialises all that writes, and counts the commits, so that a transaction sees that its snapshot is old."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.count = 0


class Transaction:
    """What one session has open."""

    def __init__(self, duck: Duck, commits: Commits) -> None:
        self.duck = duck
        self.open = False
        self.number = 0
        self._commits = commits
        self._seen = -1
        self._steps: list[Step] = []
        self._written: dict[Name, int] = {}
        """The tables with rows of this transaction; of those that are locked, the last row id that each had before."""
        self._locked: set[Name] = set()
        """Those of which it may have changed rows that were there; of the others, others may."""

    @property
    def has_written(self) -> bool:
        return bool(self._steps)

    @property
    def written(self) -> frozenset[Name]:
        return frozenset(self._written)

    def begin(self, number: int) -> None:
        self.open, self.number = True, number

    def read(self, statement: Callable[[Duck], pa.Table]) -> pa.Table:
        """Run a statement that changes nothing."""
        if not self.has_written:
            return statement(self.duck)
        with self._commits.lock, self.duck.sheltered():
            self._refresh()
            try:
                return self._stoppable(statement)
            except Exception:
                self._recover()
                raise

    def write(self, table: Name, statement: Callable[[Duck], int], *, locked: bool) -> int:
        """Run a statement that changes rows of one table, or with no lock inserts some; returns how many."""
        with self._commits.lock, self.duck.sheltered():
            if not self.open:
                return self._autocommitted(statement)
            if self.has_written:
                self._refresh()
            else:
                self._start()
            self._written.setdefault(table, -1)
            if locked and table not in self._locked:
                self._written[table] = self._last_row(table)
                self._locked.add(table)
            try:
                changed = self._stoppable(statement)
            except Exception:
                self._recover()
                raise
            if changed:
                self._steps.append(lambda duck: [statement(duck), None][1])
            elif not self.has_written:
                self._stop("ROLLBACK")
            return changed

    def commit(self) -> None:
        with self._commits.lock, self.duck.sheltered():
            try:
                if self.has_written:
                    # What is there when DuckDB commits must be what Snowflake would have committed.
                    self._refresh()
                    self.duck.execute("COMMIT")
                    self._commits.count += 1
            finally:
                self._end()

    def rollback(self) -> None:
        with self._commits.lock, self.duck.sheltered():
            try:
                if self.has_written:
                    self.duck.execute("ROLLBACK")
            finally:
                self._end()

    def _stoppable(self, statement: Callable[[Duck], _Result]) -> _Result:
        with self.duck.sheltered(shelter=False):
            return statement(self.duck)

    def _end(self) -> None:
        self.open, self._steps, self._written = False, [], {}
        self._locked.clear()

    def _autocommitted(self, statement: Callable[[Duck], int]) -> int:
        self.duck.execute("BEGIN")
        try:
            changed = self._stoppable(statement)
        except BaseException:
            self.duck.execute("ROLLBACK")
            raise
        self.duck.execute("COMMIT")
        self._commits.count += 1
        return changed

    def _start(self) -> None:
        self.duck.execute("BEGIN")
        self._seen = self._commits.count

    def _stop(self, how: str) -> None:
        self.duck.execute(how)
        self._steps, self._written = [], {}
        self._locked.clear()

    def catch_up(self) -> None:
        """See what was committed until now, also tables that are new."""
        if self.has_written:
            with self._commits.lock, self.duck.sheltered():
                self._refresh()

    def _refresh(self) -> None:
        """Move to a snapshot of now, with this transaction's own changes on it."""
        if self._seen == self._commits.count:
            return
        kept = [self._keep(table, last) for table, last in self._written.items()]
        self.duck.execute("ROLLBACK")
        self._start()
        # The rows that are new by now are ones that this transaction may change from here on.
        self._written = {table: self._last_row(table) if table in self._locked else -1 for table in self._written}
        for put_back in kept:
            put_back(self.duck)
        self._steps = kept

    def _last_row(self, table: Name) -> int:
        """Return the row id of a table's last committed row."""
        found = self.duck.execute(f"SELECT max(rowid) FROM {table.sql} WHERE rowid < {_LOCAL_ROW_ID}").fetchone()
        return -1 if found is None or found[0] is None else found[0]

    def _keep(self, table: Name, last: int) -> Step:
        """Take this transaction's rows of a table, and return what puts them into another snapshot of it."""
        locked = table in self._locked
        columns = ", ".join(f'"{name}"' for name in self._columns(table))
        _, own = self.duck.query(f"SELECT {columns} FROM {table.sql} WHERE rowid >= {_LOCAL_ROW_ID}")
        _, left = self.duck.query(f"SELECT rowid AS _row, {columns} FROM {table.sql} WHERE rowid < {_LOCAL_ROW_ID}")

        def put_back(duck: Duck) -> None:
            if locked:
                put_back_changes(duck)
            duck.register("_own", own)
            duck.execute(f"INSERT INTO {table.sql} ({columns}) SELECT {columns} FROM _own")
            duck.unregister("_own")

        def put_back_changes(duck: Duck) -> None:
            duck.register("_left", left)
            changed = f"SELECT _row FROM (SELECT * FROM _left EXCEPT SELECT rowid, {columns} FROM {table.sql})"
            duck.execute(f"CREATE OR REPLACE TEMP TABLE _changed AS SELECT * FROM _left WHERE _row IN ({changed})")
            duck.execute(
                f"""DELETE FROM {table.sql} WHERE rowid <= {last}
                    AND (rowid NOT IN (SELECT _row FROM _left) OR rowid IN (SELECT _row FROM _changed))"""
            )
            duck.execute(f"INSERT INTO {table.sql} ({columns}) SELECT {columns} FROM _changed")
            duck.unregister("_left")

        return put_back

    def _columns(self, table: Name) -> list[str]:
        found = self.duck.execute(f"DESCRIBE {table.sql}").fetchall()
        return [row[0] for row in found]

    def _recover(self) -> None:
        """Undo a failed statement alone: DuckDB has thrown away the rest with it."""
        steps, written = self._steps, self._written
        self.duck.execute("ROLLBACK")
        if not steps:
            self._written = {}
            return
        self._start()
        self._written = written
        for step in steps:
            step(self.duck)
