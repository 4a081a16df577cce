"""The interface of a database that can hold safe backfills: `Warehouse`, `Session` and `Tables`.

`docs/new-warehouse.md` lists each method. The tests in `warehouses/test_contract*.py` check each line of the contract.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    OutOfResourcesError,
    StatementCancelledError,
    SwapError,
    TransactionConflictError,
    WarehouseError,
)
from dagster_safe_backfill.model.tables import Column, Loss, TableRef
from dagster_safe_backfill.redaction import redacting_statements
from dagster_safe_backfill.sql.dialect import Dialect
from dagster_safe_backfill.warehouses.backoff import Backoff

STATEMENTS = logging.getLogger("dagster_safe_backfill.sql")
"""Logs every statement at DEBUG, as it is sent to the warehouse, but for what `redaction.statement_text` leaves out."""
STATEMENTS.addFilter(redacting_statements)
Row = tuple[Any, ...]
TableKind = Literal["live", "shadow", "scratch"]
"""The purpose of a table: for readers, for rows that are not yet published, or for one session only."""

DerivedKind = Literal["rows", "view"]
"""`"rows"`: the rows that a SELECT returns now. `"view"`: the rows that it returns whenever they are read."""

_Result = TypeVar("_Result")


def _is_unknown(run_id: str) -> bool:  # noqa: ARG001 - no run is known
    return False


def not_a_table(table: TableRef, kind: str, *, shown: str = "") -> ConfigurationError:
    """Return the error for a name that rows can't be written to, because it is that of a view or the like."""
    named = f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}{shown}"
    needed = "a standard table" if kind.endswith("table") else "a table"
    return ConfigurationError(
        f"{table} is {named}, and an asset's rows need {needed}, so nothing was written. Rename or drop the {kind}, or"
        " give the asset another name or schema."
    )


@contextmanager
def reshaping(table: TableRef) -> Generator[None, None, None]:
    """Raise a `SwapError` if a statement of the block can't drop or retype columns of a table."""
    try:
        yield
    except (StatementCancelledError, OutOfResourcesError):
        raise
    except WarehouseError as error:
        raise SwapError(
            f"{table}: its columns can't be changed to those of the computed rows: {error}", table=str(table)
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A table that is being replaced by a clone.

    Attributes:
        clone: The table that takes its place. Statements that change rows or columns name this one.
        old: The table that is replaced, with its rows unchanged.
    """

    clone: TableRef
    old: TableRef


class Tables(ABC):
    """The tables of one session: lists and describes them, and changes their definitions.

    In a transaction, the changes of these methods are undone if the transaction isn't committed. If the database has no
    DDL in transactions, the methods make the changes outside it and undo them themselves. A crash may then leave tables
    behind, but the live table is always either the old or the new one.
    """

    @abstractmethod
    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """Return the columns of a table or view in order, or None if there is none.

        The case of the table's name is ignored. Columns that can't be written, because the table generates them, are
        left out.
        """

    def generated(self, table: TableRef) -> tuple[str, ...]:  # noqa: ARG002 - by default, there are none
        """Return the names of the columns that a table computes from its others; `columns` leaves them out."""
        return ()

    def writable_columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """Return the `columns` of a table that is going to be written.

        Raises:
            ConfigurationError: The name is that of something that isn't a table, such as a view.
        """
        return self.columns(table)

    def is_referenced(self, table: TableRef) -> bool:  # noqa: ARG002 - by default, foreign keys are not enforced
        """Return True if rows of the table can't be deleted and inserted again, because a foreign key refers to it."""
        return False

    @abstractmethod
    def list(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """Return the tables of a schema whose names begin with `prefix`, in any case, if there is such a schema."""

    @abstractmethod
    def find(self, name: str) -> tuple[TableRef, ...]:
        """Return the tables of this name in all schemas that the session may see. The case of the name is ignored."""

    @abstractmethod
    def ensure_schema(self, schema: str) -> None:
        """Create a schema if it doesn't exist."""

    @abstractmethod
    def ensure_table(self, table: TableRef, columns: Mapping[str, str]) -> None:
        """Create a table if it doesn't exist, and add the columns that it doesn't have.

        Args:
            table: The table.
            columns: A mapping from column name to type, as standard SQL names it: TEXT, BIGINT, TIMESTAMPTZ.
        """

    @abstractmethod
    def create(self, table: TableRef, rows: exp.Query, *, kind: TableKind) -> None:
        """Create a table with the rows and columns of a SELECT.

        Only its own session sees a `scratch` table, which is dropped when the session ends. Its name comes from
        `Session.scratch`.

        Raises:
            WarehouseError: A table of that name exists.
            TransactionConflictError: The database can't create a live table within a transaction. The table now exists
                without rows, and `Session.attempt` starts the transaction again.
        """

    @abstractmethod
    def copy(self, rows: exp.Select, *, into: TableRef, columns: Sequence[str]) -> None:
        """Insert the rows of a SELECT into columns of a table that others don't see yet. There may be no rows."""

    @abstractmethod
    def drop(self, table: TableRef) -> None:
        """Drop a table if it exists. Its name is free at once, even before the transaction commits."""

    @abstractmethod
    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """Add columns to a table, and fill them in existing rows with a value, or with NULL if the value is None.

        Raises:
            SwapError: The table can't be altered.
            TransactionConflictError: The database can't add columns within a transaction that has changed something.
                The columns now exist, and `Session.attempt` starts the transaction again.
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
        """Create an archive of a table. It holds at least the committed rows that `rows` selects, with their columns.

        Raises:
            WarehouseError: A table of the archive's name exists: archives are never overwritten.
        """

    @abstractmethod
    def hold(self, table: TableRef, *, run_id: str = "") -> AbstractContextManager[Session]:
        """Keep others from changing a table until this transaction ends. Call it first in the transaction.

        Of two transactions that hold the table, the later one waits or fails. The session that the block gets reads the
        rows that are committed at that moment; this transaction itself may not see the newest of them.

        Args:
            table: The table. One that doesn't exist may not be held, without an error.
            run_id: The run that holds the table, for those who wait for it.

        Raises:
            TransactionConflictError: Another session holds the table.
        """

    def reread(self) -> Session | None:
        """Return a session that reads the rows which are committed now, if others can change a table that is held.

        Return None if they can't. Call it after the transaction has changed rows, which others then can't change.
        """
        return None

    @abstractmethod
    def replace(
        self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None, may_lose: Sequence[Loss] = ()
    ) -> AbstractContextManager[Replacement]:
        """Replace `table` by a clone with the rows for which `kept` is true (no rows if None), and keep the old table.

        Change the clone within the block. At the end of the block the clone is named `table` and the old table `aside`.
        The clone has the same columns, constraints, defaults, comments and indexes. The old table has no secondary
        indexes any more, because the clone's indexes have their names. Call it in a transaction that has changed
        nothing yet. What the table can only lose is given up if `may_lose` names it.

        Raises:
            SwapError: The table can't be replaced without losing something.
            TransactionConflictError: Another session changed the table in the meantime.
        """

    @abstractmethod
    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef, may_lose: Sequence[Loss] = ()) -> None:
        """Rename `table` to `aside`, and replace it by a copy of `archive` with the indexes of `table`.

        Call it in a transaction that has changed nothing yet. See `replace` about `may_lose`.

        Raises:
            SwapError: The table can't be replaced without losing something.
        """

    def recover(self, table: TableRef, *, is_recorded: Callable[[TableRef], bool]) -> str | None:  # noqa: ARG002 - no swaps
        """Complete or undo a `replace` or `put_back` that a lost session left half done. Call it before them.

        Return a sentence for the log about what was done, or None if there was nothing to do. There never is if a swap
        is part of the transaction.

        Args:
            table: The live table.
            is_recorded: Returns True if the ledger records the change that put the given table aside.

        Raises:
            SwapError: The swap can be neither completed nor undone without losing rows.
        """
        return None

    def interrupted(self, table: TableRef) -> TableRef | None:  # noqa: ARG002 - no swaps
        """Return the other table of a swap that a lost session left half done; None if there is none. See `recover`."""
        return None

    def record_first(self, record: Callable[[], None]) -> None:  # noqa: B027 - by default, no crash leaves any
        """Call `record` in a transaction of its own if a crash can leave behind a table that a transaction creates.

        The ledger then knows each such table before it exists. If DDL is part of transactions, `record` isn't called.
        """

    def explain_more_rows(self, table: TableRef, *, partitions: str) -> None:  # noqa: B027 - by default, nobody can
        """Raise if another session can be the reason that a held table has more rows than this transaction wrote.

        Raises:
            TransactionConflictError: Others can insert rows into a table that is held, so they did.
        """


class Session(ABC):
    """One session with the database. Only `cancel` may be called from another thread.

    Every method raises a `WarehouseError` (or another of the library's own errors) in place of the driver's.

    Attributes:
        dialect: The SQL of the database, where it differs from that of others.
        tables: The session's tables.
        conflict_timeout: Seconds for which `attempt` repeats a transaction that lost against another one.
        run_has_ended: Returns True if a run is known to have ended, so that a transaction that it left open may be
            aborted.
    """

    dialect: Dialect
    tables: Tables
    conflict_timeout: float = 60.0
    run_has_ended: Callable[[str], bool] = staticmethod(_is_unknown)

    @property
    def reader(self) -> Session:
        """The session that reads what others have committed: this one, or the one that `Tables.hold` returned.

        A session may not see at once what others commit. It doesn't read what this session has not committed.
        """
        return self

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit at the end of the block, or roll back all of it if the block raises. Blocks don't nest.

        If a statement of the block failed, nothing of the block is committed, even if the error was caught.
        """

    def attempt(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in a transaction of its own and return its result; repeat it after conflicts with others.

        Raises:
            TransactionConflictError: There still is a conflict after `conflict_timeout` seconds.
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
        """Stop the running statement, from another thread. The statement raises `StatementCancelledError`.

        This includes a statement of the session that `Tables.hold` returned. It never stops a statement that begins,
        commits or rolls back a transaction, so a transaction is always either complete or undone. If no statement runs,
        nothing happens, also to later statements.
        """

    @abstractmethod
    def query(self, select: exp.Query) -> list[Row]:
        """Run a SELECT and return its rows: integers as `int`, times with a zone as aware datetimes."""

    @abstractmethod
    def execute(self, statement: exp.Insert | exp.Update | exp.Delete | exp.Merge) -> int:
        """Run an INSERT, UPDATE, DELETE or MERGE, and return the number of rows that it changed."""

    @abstractmethod
    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert a few rows of Python values, in one statement."""

    @abstractmethod
    def describe(self, select: exp.Query) -> tuple[Column, ...]:
        """Return the columns that a SELECT would return, without running it."""

    @abstractmethod
    def load(self, data: object) -> AbstractContextManager[exp.Table]:
        """Make a frame (any object with Arrow's interface) or a `Query` readable as a relation within the block.

        Raises:
            FrameError: The frame can't be converted to an Arrow table, or has two columns of one name.
            NoColumnsError: The frame has no columns.
            ConfigurationError: The query isn't one SELECT, or the data isn't a frame.
        """

    @abstractmethod
    def fetch(self, select: exp.Query, load_type: type) -> object:
        """Run a SELECT and return its rows as a pandas, polars or pyarrow table.

        Raises:
            ConfigurationError: The type isn't one of these libraries'.
        """

    @abstractmethod
    def scratch(self, name: str) -> TableRef:
        """Return the name for a table that only this session sees, and that is dropped when the session ends."""

    def is_scratch(self, table: TableRef) -> bool:  # noqa: ARG002 - by default, `reader` is this session
        """Return True if `reader` doesn't see a table, because only this session sees it."""
        return False

    @abstractmethod
    def derive(self, name: str, select: exp.Query, *, kind: DerivedKind = "rows") -> TableRef:
        """Return a relation with the rows of a SELECT, which this session can read until `forget`.

        Read it by `terms.rows`. A `view` has the rows that the SELECT returns when it is read. `rows` are those that it
        returns now, if the session can store rows within a transaction; otherwise they are like a view.
        """

    @abstractmethod
    def forget(self, derived: TableRef) -> None:
        """Remove a relation that `derive` returned."""


class Warehouse(ABC):
    """One database, to which sessions can be opened.

    Attributes:
        dialect: The dialect of its sessions.
    """

    dialect: Dialect

    @abstractmethod
    def connect(self, *, read_only: bool = False) -> AbstractContextManager[Session]:
        """Open a session that is closed at the end of the block, even if the block raises.

        With `read_only`, the session refuses to write.

        Raises:
            WarehouseLockedError: Another process held the database for longer than the time-out.
        """
