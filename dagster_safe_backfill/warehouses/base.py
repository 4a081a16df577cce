"""What a database must be able to do to hold safe backfills."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from sqlglot import exp

from dagster_safe_backfill.errors import TransactionConflictError
from dagster_safe_backfill.model.slices import ColumnType, WindowJoin
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms

STATEMENTS = logging.getLogger("dagster_safe_backfill.sql")
"""Logs every statement at DEBUG, as the warehouse gets it."""

Fit = Literal["same", "if_unchanged", "never"]
"""How values of one column type go into another: as they are, only those that a cast keeps, or not at all."""

Row = tuple[Any, ...]


class BeginAnewError(TransactionConflictError):
    """What a transaction needed was done outside of it, so that it is to begin anew, now."""


class Connection(ABC):
    """One session with the database. Not for use by several threads, but for `cancel`.

    Every method raises a `WarehouseError` in place of the driver's own errors.
    """

    dialect: str
    """sqlglot's name of the SQL that this warehouse speaks."""

    aggregates_at_once: int = 500
    """How many aggregates one statement may measure; more are split."""

    window_join: WindowJoin = "asof"
    """How rows find their windows of time the quickest."""

    conflict_timeout: float = 60.0
    """Seconds for which a change that lost against another transaction's is tried again."""

    ddl_is_transactional: bool = True
    """Whether a table that a transaction makes is gone if it isn't committed; if not, it is to be intended before."""

    holds_off_inserts: bool = True
    """Whether `hold` keeps others from inserting rows, too."""

    @property
    @abstractmethod
    def hash_algorithm(self) -> str:
        """What `row_hash` hashes by; another value once equal rows may have other hashes. Without colons."""

    @abstractmethod
    def row_hash(self, values: Sequence[exp.Expr]) -> exp.Expr:
        """Return the expression of a non-negative integer that tells rows of these values apart, NULLs included."""

    @abstractmethod
    def hold(self, table: TableRef) -> AbstractContextManager[Connection]:
        """Keep others from changing a table until this transaction ends; to be the transaction's first statement.

        A transaction of another that has changed the table and not committed, or tries to, fails. Within the block,
        the session given reads what was committed until then, which this transaction's own may have missed.

        Raises:
            TransactionConflictError: Another session holds the table.
        """

    @abstractmethod
    def tables(self, schema: str, prefix: str) -> tuple[TableRef, ...]:
        """Return the tables of a schema whose names begin with `prefix`, in any case."""

    @abstractmethod
    def add_columns(self, table: TableRef, columns: Mapping[Column, exp.Expr | None]) -> None:
        """Add columns to a table, with the value that its rows get (NULL, if None).

        Raises:
            BeginAnewError: They were added, but not in this transaction.
            SwapError: The table can't be altered.
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
    def cloned(self, table: TableRef, *, aside: TableRef, kept: exp.Expr | None = None) -> AbstractContextManager[None]:
        """Rename `table` to `aside`, and put in its place one with its rows that `kept` holds for; none, if None.

        Within the block it is to be changed. It has the same columns, constraints, defaults, comments and, at the end
        of the block, indexes. The one aside keeps no secondary indexes, as their names are now the new one's.

        Raises:
            SwapError: That can't be done without loss.
            TransactionConflictError: Another session changed the table meanwhile.
        """

    @abstractmethod
    def put_back(self, table: TableRef, *, archive: TableRef, aside: TableRef) -> None:
        """Rename `table` to `aside`, and put in its place a copy of `archive`: definition, rows, and table's indexes.

        Raises:
            SwapError: That can't be done without loss.
        """

    def recover(self, table: TableRef, *, is_recorded: Callable[[TableRef], bool]) -> str | None:  # noqa: ARG002 - see below
        """End what a lost session left half done of `cloned` or `put_back`, and say what; to be called before them.

        Nothing can be, where all of it is one transaction.

        Args:
            table: The live table.
            is_recorded: Whether the ledger tells of the change that put a table aside.

        Raises:
            SwapError: It can't be ended without loss.
        """
        return None

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit at the end of the block, or roll back whole if it raises. Blocks don't nest."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop the statement that runs now, from another thread: it raises `StatementCancelledError` where it runs.

        Also one of the session that `hold` gave. What begins, commits or rolls back a transaction is never stopped, so
        that a transaction is either whole or undone. If nothing runs, nothing happens, now or later.
        """

    @abstractmethod
    def run(self, statement: exp.Expr) -> list[Row]:
        """Run one statement and return its rows, if it has any."""

    @abstractmethod
    def columns(self, table: TableRef) -> tuple[Column, ...] | None:
        """Return a table's columns in order, or None if there is no such table."""

    @abstractmethod
    def described(self, select: exp.Query) -> tuple[Column, ...]:
        """Return the columns that a SELECT would return, without running it."""

    @abstractmethod
    def source(self, data: object) -> AbstractContextManager[exp.Table]:
        """Make a frame (anything that speaks Arrow) or a `Query` readable as a relation within the block.

        Raises:
            SchemaMismatchError: The frame can't be made an Arrow table.
            ConfigurationError: The query isn't one SELECT.
        """

    @abstractmethod
    def ensure_schema(self, schema: str) -> None:
        """Create a schema if it isn't there."""

    @abstractmethod
    def scratch(self, name: str, *, kind: Literal["TABLE", "VIEW"] = "TABLE") -> TableRef:
        """Return the name of a table or view that only this session sees, and that ends with it."""

    @abstractmethod
    def derived(self, name: str, select: exp.Query, *, kind: Literal["TABLE", "VIEW"] = "TABLE") -> TableRef:
        """Return what stands for the rows of a SELECT in this session, until `forget`, also within a transaction.

        Those that it has now (`TABLE`), if the warehouse can keep them, or those that it would return when it is read.
        """

    @abstractmethod
    def forget(self, derived: TableRef, *, kind: Literal["TABLE", "VIEW"] = "TABLE") -> None:
        """Remove what `derived` returned."""

    @abstractmethod
    def keep(self, table: TableRef, archive: TableRef, rows: exp.Select) -> None:
        """Make an archive of a table that has at least `rows` of it, with their columns, as they were committed.

        Raises:
            WarehouseError: There is a table of that name: archives are never overwritten.
        """

    @abstractmethod
    def append(self, table: TableRef, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert a few rows of Python values, in one statement."""

    @abstractmethod
    def fetch(self, select: exp.Query, load_type: type) -> object:
        """Run a SELECT and return its rows as a pandas, polars or pyarrow table."""

    @abstractmethod
    def fit(self, *, source: str, target: str) -> Fit:
        """Return how values of the type `source` go into a column of the type `target`."""

    @abstractmethod
    def is_lost(self, value: exp.Expr, *, source: str, target: str) -> exp.Expr:
        """Return whether a cast to the type `target`, into which `source` may go, would change or refuse a value."""

    @abstractmethod
    def created_as(self, source: str) -> str | None:
        """Return the type that a new table's column gets for values of the type `source`, None if they have none."""

    def is_type(self, type_name: str, wanted: str) -> bool:
        """Return whether two names are of one type here."""
        one, other = (terms.data_type(name, dialect=self.dialect) for name in (type_name, wanted))
        return one == other

    @abstractmethod
    def keeps(self, type_name: str) -> ColumnType | Literal["text", "other"]:
        """Return how a type keeps time, or that it keeps none."""


class Warehouse(ABC):
    """One database, and the way to reach it."""

    dialect: str
    """sqlglot's name of the SQL that this warehouse speaks."""

    @abstractmethod
    def connect(self, *, read_only: bool = False) -> AbstractContextManager[Connection]:
        """Open a session that is closed at the end of the block, whatever happens in it.

        Raises:
            WarehouseLockedError: Another process keeps the database for longer than the time-out.
        """
