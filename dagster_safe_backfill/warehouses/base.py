"""What a database must be able to do to hold safe backfills: its `Dialect`, its `Session` and its `Tables`.

`docs/new-warehouse.md` lists each method; `warehouses/test_contract.py` of the tests tries each line of its contract.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlglot import exp

from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.warehouses.backoff import Backoff

STATEMENTS = logging.getLogger("dagster_safe_backfill.sql")
"""Logs every statement at DEBUG, as the warehouse gets it."""

Row = tuple[Any, ...]

TableKind = Literal["live", "shadow", "scratch"]
"""What a table is made for: for readers; for rows that are not yet published; or for one session only."""

DerivedKind = Literal["rows", "view"]
"""Whether derived rows are those that a SELECT has now, or those that it has whenever they are read."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A table on its way to be replaced.

    Attributes:
        clone: What takes its place; statements that change rows or columns name this one.
        old: What it replaces, with its rows as they were.
    """

    clone: TableRef
    old: TableRef


class Tables(ABC):
    """The tables of one session: what there is, and what changes their definitions.

    In a transaction, what these methods do is undone if it isn't committed. Where the database has no DDL in
    transactions, they do it outside and undo it themselves. A crash may then leave tables behind, but no live table
    that is neither as it was nor as it was to be.
    """

    @abstractmethod
    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """Return a table's columns in order, or None if there is no such table.

        Tables are found whatever the case of their names.
        """

    @abstractmethod
    def list(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """Return the tables of a schema whose names begin with `prefix`, both in any case; none if it isn't there."""

    @abstractmethod
    def ensure_schema(self, schema: str) -> None:
        """Create a schema if it isn't there."""

    @abstractmethod
    def ensure_table(self, table: TableRef, columns: Mapping[str, str]) -> None:
        """Create a table if it isn't there, and add the columns that it lacks.

        Args:
            table: The table.
            columns: The columns' types, as standard SQL names them: TEXT, BIGINT, TIMESTAMPTZ.
        """

    @abstractmethod
    def create(self, table: TableRef, rows: exp.Query, *, kind: TableKind) -> None:
        """Create a table with the rows and columns of a SELECT.

        A session's `scratch` table is seen by that session only, and ends with it. Its name comes from
        `Session.scratch`.

        Raises:
            WarehouseError: There is a table of that name.
            TransactionConflictError: A live table can't be made within a transaction here: it is there without rows
                now. `Session.attempt` begins the transaction anew.
        """

    @abstractmethod
    def copy(self, rows: exp.Select, *, into: TableRef, columns: Sequence[str]) -> None:
        """Insert the rows of a SELECT, which may be none, into columns of a table that others don't see yet."""

    @abstractmethod
    def drop(self, table: TableRef) -> None:
        """Drop a table if it is there. Its name is free at once, also before the transaction commits."""

    @abstractmethod
    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """Add columns to a table, and fill existing rows with a value (NULL, if None).

        Raises:
            SwapError: The table can't be altered.
            TransactionConflictError: They can't be added within a transaction that has changed something here: they are
                there now. `Session.attempt` begins the transaction anew.
        """

    @abstractmethod
    def reshape(
        self,
        table: TableRef,
        *,
        dropped: Sequence[str],
        retyped: Sequence[Column],
        added: Mapping[Column, exp.Expr | None],
    ) -> None:
        """Change the columns of a table without rows.

        Raises:
            SwapError: The table can't be altered.
        """

    @abstractmethod
    def archive(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:
        """Make an archive of a table that has at least `rows` of it, with their columns, as they were committed.

        Raises:
            WarehouseError: There is a table of that name: archives are never overwritten.
        """

    @abstractmethod
    def hold(self, table: TableRef) -> AbstractContextManager[Session]:
        """Keep others from changing a table until this transaction ends; to be the transaction's first statement.

        The change of a transaction that another one wins against fails. Within the block, the session given reads what
        was committed until then, which this transaction's own may have missed. A table that isn't there can't be held,
        and that is no error.

        Raises:
            TransactionConflictError: Another session holds the table.
        """

    @abstractmethod
    def replace(
        self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None
    ) -> AbstractContextManager[Replacement]:
        """Put a clone in the place of `table`, with its rows that `kept` holds for (none, if None); keep the old table.

        The clone is to be changed within the block. At its end the clone is `table` and the old table is `aside`. The
        clone has the same columns, constraints, defaults, comments and indexes; the old table keeps no secondary
        indexes, as their names are now the new one's. To be called in a transaction that has changed nothing yet.

        Raises:
            SwapError: That can't be done without loss.
            TransactionConflictError: Another session changed the table meanwhile.
        """

    @abstractmethod
    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """Rename `table` to `aside`, and put in its place a copy of `archive`: definition, rows, and table's indexes.

        To be called in a transaction that has changed nothing yet.

        Raises:
            SwapError: That can't be done without loss.
        """

    def recover(self, table: TableRef, *, is_recorded: Callable[[TableRef], bool]) -> str | None:  # noqa: ARG002 - see below
        """End what a lost session left half done of `replace` or `put_back`, and say what; to be called before them.

        There is nothing to do where all of it is one transaction.

        Args:
            table: The live table.
            is_recorded: Whether the ledger tells of the change that put a table aside.

        Raises:
            SwapError: It can't be ended without loss.
        """
        return None

    def record_first(self, record: Callable[[], None]) -> None:  # noqa: B027 - by default, no crash leaves any
        """Call `record` in a transaction of its own, if a crash can leave a table that a transaction was to make.

        So the ledger knows of each such table before it is made. Where DDL is part of transactions, nothing is called.
        """

    def explain_more_rows(self, table: TableRef, *, partitions: str) -> None:  # noqa: B027 - by default, nobody can
        """Say why a table that is held has more rows than this transaction wrote into it.

        Raises:
            TransactionConflictError: Others can insert rows into a table that is held, so they did.
        """


class Session(ABC):
    """One session with the database. Not for use by several threads, but for `cancel`.

    Every method raises a `WarehouseError` (or another of the library's own errors) in place of the driver's.

    Attributes:
        dialect: How the database says what others say otherwise.
        tables: The session's tables.
        conflict_timeout: Seconds for which `attempt` tries again a transaction that lost against another one.
    """

    dialect: Dialect
    tables: Tables
    conflict_timeout: float = 60.0

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit at the end of the block, or roll back whole if it raises. Blocks don't nest.

        After a statement failed, also one whose error was caught, nothing of the block is committed.
        """

    def attempt(self, work: Callable[[], _Result]) -> _Result:
        """Return what `work` returns, run in a transaction of its own, and anew while others are in its way.

        Raises:
            TransactionConflictError: They still are after `conflict_timeout`.
        """
        backoff = Backoff(self.conflict_timeout)
        while True:
            try:
                with self.transaction():
                    return work()
            except TransactionConflictError:
                if not backoff.sleep():
                    raise

    @abstractmethod
    def cancel(self) -> None:
        """Stop the statement that runs now, from another thread: it raises `StatementCancelledError` where it runs.

        Also one of the session that `Tables.hold` gave. What begins, commits or rolls back a transaction is never
        stopped, so that a transaction is either whole or undone. If nothing runs, nothing happens, now or later.
        """

    @abstractmethod
    def query(self, select: exp.Query) -> list[Row]:
        """Run a SELECT and return its rows: integers as `int`, times with a zone as aware datetimes."""

    @abstractmethod
    def execute(self, statement: exp.Insert | exp.Update | exp.Delete | exp.Merge) -> int:
        """Run an INSERT, UPDATE, DELETE or MERGE, and return how many rows it inserted, updated or deleted."""

    @abstractmethod
    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert a few rows of Python values, in one statement."""

    @abstractmethod
    def describe(self, select: exp.Query) -> tuple[Column, ...]:
        """Return the columns that a SELECT would return, without running it."""

    @abstractmethod
    def load(self, data: object) -> AbstractContextManager[exp.Table]:
        """Make a frame (anything that speaks Arrow) or a `Query` readable as a relation within the block.

        Raises:
            FrameError: The frame can't be an Arrow table, or names a column twice; `NoColumnsError` if it has none.
            ConfigurationError: The query isn't one SELECT, or the data is no frame.
        """

    @abstractmethod
    def fetch(self, select: exp.Query, load_type: type) -> object:
        """Run a SELECT and return its rows as a pandas, polars or pyarrow table.

        Raises:
            ConfigurationError: The type is of no known frame library.
        """

    @abstractmethod
    def scratch(self, name: str) -> TableRef:
        """Return the name of a table that only this session sees, and that ends with it."""

    @abstractmethod
    def derive(self, name: str, select: exp.Query, *, kind: DerivedKind = "rows") -> TableRef:
        """Return what stands for the rows of a SELECT in this session until `forget`, also within a transaction.

        They are read by `terms.rows`. As a `view` they are those that the SELECT has when it is read; as `rows` those
        that it has now, if the session can keep them within a transaction, and else as a view.
        """

    @abstractmethod
    def forget(self, derived: TableRef) -> None:
        """Remove what `derive` returned."""


class Warehouse(ABC):
    """One database, and the way to reach it.

    Attributes:
        dialect: The one of its sessions.
    """

    dialect: Dialect

    @abstractmethod
    def connect(self, *, read_only: bool = False) -> AbstractContextManager[Session]:
        """Open a session that is closed at the end of the block, whatever happens in it. One for reading can't write.

        Raises:
            WarehouseLockedError: Another process keeps the database for longer than the time-out.
        """
