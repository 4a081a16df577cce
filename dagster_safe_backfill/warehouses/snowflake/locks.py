"""The lock of a table: a row of the table's own, which a transaction changes, and so holds until it ends.

Whether an UPDATE that changes no row takes a lock isn't documented, and a table without rows has nothing to lock. So a
table is held by a row in a table beside it. Each table has a lock table of its own, because Snowflake locks partitions
of a table, and rows of several tables could share one. https://docs.snowflake.com/en/sql-reference/transactions
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from sqlglot import exp

from dagster_safe_backfill.errors import (
    SafeBackfillError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
)
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake.catalog import name_of, sql_of
from dagster_safe_backfill.warehouses.snowflake.driver import Connection
from dagster_safe_backfill.warehouses.snowflake.transaction import Statements

_LOG = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 5.0, 60.0
"""Seconds for which one statement waits for the lock. Between two of them the library looks who holds it."""
_OWN_WAIT = 30.0
"""Seconds after which a run aborts the transaction of an earlier try of its own."""
_HOLDER = re.compile(r"in transaction (\d+)")
_NAMED = re.compile(r"SB_[0-9A-F]{8}_(\w+)", re.IGNORECASE)
_COLUMNS = {
    "run_id": "VARCHAR",
    "transaction_id": "VARCHAR",
    "session_id": "VARCHAR",
    "user_name": "VARCHAR",
    "locked_at": "TIMESTAMP_TZ",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The transaction that holds a lock, as far as this session is allowed to see it.

    Attributes:
        transaction: The transaction's id.
        name: The name of the transaction; empty if it isn't shown.
        run_id: The run whose transaction it is, with underscores for other characters than letters and digits. None if
            it isn't a transaction of this library and user.
        shown: The user, the session and the begin of the transaction, in words.
    """

    transaction: str
    name: str
    run_id: str | None
    shown: str

    def __str__(self) -> str:
        whose = f" of run {self.run}" if self.run_id is not None else ""
        return f"transaction {self.transaction}{whose}{self.shown}"

    @property
    def run(self) -> str:
        """The id of the run. Dagster's ids have hyphens, and names of transactions don't."""
        return (self.run_id or "").lower().replace("_", "-")


def transaction_name(table: TableRef, run_id: str) -> str:
    """Return the name of a run's transaction on a table, which SHOW TRANSACTIONS shows to the same user."""
    digest = sha256(str(table).casefold().encode()).hexdigest()[:8]
    return f"SB_{digest}_{re.sub(r'[^A-Za-z0-9]', '_', run_id)}"[:255].upper()


def take(
    statements: Statements,
    table: TableRef,
    *,
    run_id: str,
    timeout: float,
    has_ended: Callable[[str], bool],
) -> None:
    """Begin the transaction and change the table's row in it, which waits while another transaction holds the row.

    If the transaction that holds it belongs to a run that has ended, it is aborted: a process that was killed leaves
    its transaction open, and Snowflake aborts it only after it has blocked another one for five minutes, or ten if a
    statement ran. If it belongs to the same run, it is that of an earlier try, whose session was lost, and is aborted
    after `_OWN_WAIT` seconds. Two ops of a run may write one table, and are given that time to end.

    Raises:
        TransactionConflictError: Another transaction held the row for all of `timeout` seconds.
        WarehouseError: The lock table has no row.
    """
    begun = time.monotonic()
    deadline, wait, is_made = begun + timeout, _FIRST_WAIT, False
    name, sql = transaction_name(table, run_id), sql_of(_changing(table.lock, run_id))
    while True:
        left = deadline - time.monotonic()
        statements.begin(name=name)
        try:
            ((count, *_),) = statements.own.execute(sql, lock_timeout=max(1, round(min(wait, left))))
        except TableNotFoundError:
            # DDL would commit the transaction. The table is made by the transaction's own session, which then sees it.
            statements.release()
            if is_made:
                raise
            try:
                statements.own.execute(_making(table.lock))
            except TableNotFoundError:
                # There is no such schema, and so nothing to hold.
                return
            is_made = True
        except TransactionConflictError as error:
            statements.release()
            holder = holder_of(statements.own, error)
            is_late = wait >= left or time.monotonic() - begun >= _OWN_WAIT
            why = _why_over(holder, name if is_late else None, has_ended=has_ended)
            if holder is not None and why is not None and _is_aborted(statements.own, table, holder, why=why):
                continue
            if wait >= left:
                raise _still_held(table, holder, timeout=timeout, error=error) from error
            _LOG.warning("%s: waiting for %s", table, holder or "another transaction")
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            break
    if not count:
        raise WarehouseError(
            f"{table}: its lock, the table {table.lock}, has no row, so the table can't be held. Drop {table.lock}, and"
            " the next run makes it again."
        )
    statements.identify()


def holder_of(connection: Connection, error: Exception) -> Holder | None:
    """Return the transaction that Snowflake's error names as the one that holds the lock; None if it names none."""
    named = _HOLDER.search(str(error.__cause__ or error))
    if named is None:
        return None
    number = named[1]
    try:
        running = connection.shown("SHOW TRANSACTIONS")
        # Only the transactions of this user are listed.
        listed = [one for one in running if str(one.get("id")) == number]
        found = (listed or connection.shown(f"DESCRIBE TRANSACTION {number}"))[0]
    except (WarehouseError, IndexError) as cause:
        _LOG.debug("transaction %s isn't shown to this user: %s", number, cause)
        found = {}
    name = _NAMED.fullmatch(str(found.get("name", "")))
    shown = [f"{word} {found[key]}" for key, word in (("user", "user"), ("session", "session")) if found.get(key)]
    since = f", begun at {found['started_on']}" if found.get("started_on") else ""
    who = f" ({', '.join(shown)})" if shown else ""
    return Holder(
        transaction=number,
        name=str(found.get("name", "")),
        run_id=name[1] if name else None,
        shown=who + since,
    )


def _why_over(holder: Holder | None, own: str | None, *, has_ended: Callable[[str], bool]) -> str | None:
    """Return why nobody works in a transaction any more; None if somebody may. `own` is the name of the run's own."""
    if holder is None or holder.run_id is None:
        return None
    if holder.name.upper() == own:
        return "it is that of an earlier try of this run"
    return "its run has ended" if has_ended(holder.run) else None


def _is_aborted(connection: Connection, table: TableRef, holder: Holder, *, why: str) -> bool:
    """Abort a transaction; return False if this user isn't allowed to."""
    try:
        connection.execute(f"SELECT SYSTEM$ABORT_TRANSACTION({holder.transaction})")
    except SafeBackfillError as error:
        _LOG.warning("%s: %s can't be aborted: %s", table, holder, error)
        return False
    _LOG.warning("%s: aborted %s, because %s", table, holder, why)
    return True


def _still_held(
    table: TableRef, holder: Holder | None, *, timeout: float, error: Exception
) -> TransactionConflictError:
    who = "another transaction" if holder is None else str(holder)
    how = "SHOW LOCKS IN ACCOUNT shows that transaction, and SELECT SYSTEM$ABORT_TRANSACTION(id) ends it"
    if holder is not None:
        how = f"If its run doesn't work any more, end it: SELECT SYSTEM$ABORT_TRANSACTION({holder.transaction})"
    return TransactionConflictError(
        f"{table}: {who} held the table for all of lock_timeout={timeout:g} seconds. {how}. To wait longer for it,"
        f" raise lock_timeout: {error}"
    )


def _making(lock: TableRef) -> str:
    """Return the statement that creates a lock table with its row, unless the table exists."""
    items = ", ".join(f"CAST(NULL AS {kind}) AS {sql_of(terms.column(name))}" for name, kind in _COLUMNS.items())
    return f"CREATE TRANSIENT TABLE IF NOT EXISTS {name_of(lock)} AS SELECT {items}"


def _changing(lock: TableRef, run_id: str) -> exp.Update:
    """Return the UPDATE that changes the row. It does, because each transaction has another id."""
    values = {
        "run_id": terms.text(run_id),
        "transaction_id": exp.Anonymous(this="CURRENT_TRANSACTION"),
        "session_id": exp.Anonymous(this="CURRENT_SESSION"),
        "user_name": exp.Anonymous(this="CURRENT_USER"),
        "locked_at": exp.Anonymous(this="CURRENT_TIMESTAMP"),
    }
    changes = [exp.EQ(this=terms.column(name), expression=value) for name, value in values.items()]
    return exp.Update(this=terms.table(lock), expressions=changes)
