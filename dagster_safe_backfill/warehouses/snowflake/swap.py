"""The replacement of a table by a clone with SWAP WITH, which is atomic, but not part of a transaction.

SWAP WITH is its own inverse: sent twice, it undoes itself. So the clone gets a mark in its comment before it is swapped
in. A mark on the live table shows that the swap took place, and for which change. The ledger shows whether that change
was recorded. If it wasn't, the session was lost in between, and the tables are swapped back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

from sqlglot import exp

from dagster_safe_backfill.errors import SwapError, TransactionConflictError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.sameness import hash_of
from dagster_safe_backfill.warehouses.snowflake import catalog
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.driver import Connection

_MARK = "dagster_safe_backfill"


@dataclass(slots=True, kw_only=True)
class Swap:
    """The replacement of one table by a clone.

    Attributes:
        table: The live table.
        aside: The name of the clone, and after the swap that of the old table.
        comment: The live table's own comment.
        before: The fingerprint of the live table when the clone was made.
        is_begun: True once SWAP WITH was sent. It may have taken place even if no reply was read.
        is_swapped: True once the reply of SWAP WITH was read.
    """

    table: TableRef
    aside: TableRef
    comment: str
    before: str
    is_begun: bool = False
    is_swapped: bool = False

    @property
    def comment_sql(self) -> str:
        """The statement that restores the live table's own comment."""
        return catalog.commented(self.table, self.comment)

    def run(self, connection: Connection) -> None:
        """Swap the tables if the live one didn't change since the clone was made.

        Raises:
            TransactionConflictError: The live table changed before or during the swap. Call `undo` then.
        """
        # SWAP WITH is DDL, so no transaction can hold a lock until then, and others may write to the table.
        self._check(connection, self.table)
        mark = {_MARK: self.aside.name, "comment": self.comment, "rows": fingerprint(connection, self.aside)}
        connection.execute(catalog.commented(self.aside, json.dumps(mark)))
        # Set before the statement: if its reply is lost, `undo` has to look at the mark.
        self.is_begun = True
        connection.execute(_swapped(self.table, self.aside), is_stoppable=False)
        self.is_swapped = True
        # Rows that others wrote between the check and the swap are in the old table, and would be lost.
        self._check(connection, self.aside)

    def undo(self, connection: Connection) -> None:
        """Swap back if the tables were swapped, and drop the clone.

        Raises:
            SwapError: The table was changed after the swap, and those changes would be lost.
        """
        facts = catalog.facts_of(connection, self.table)
        found = None if facts is None else half_done(facts, self.table)
        if found is not None:
            found.discard(connection)
        else:
            _swap_back(connection, self.table, self.aside)

    def _check(self, connection: Connection, old: TableRef) -> None:
        if fingerprint(connection, old) != self.before:
            raise TransactionConflictError(f"another session changed {self.table} while it was cloned")


def begun(
    connection: Connection, table: TableRef, *, aside: TableRef, source: TableRef, is_empty: bool, created: list[str]
) -> Swap:
    """Create the table that will replace another: a clone of `source`, or an empty table with its definition.

    It has the grants of the source. It is permanent or transient like the live table.

    Args:
        connection: A connection that commits each statement.
        table: The live table.
        aside: The name of the new table.
        source: The table that is cloned.
        is_empty: True to leave out the rows.
        created: A list to which the name is added once the table exists, so that a rollback drops it.

    Raises:
        SwapError: The source is transient and the live table isn't, or one of them doesn't exist.
    """
    live, of_source = catalog.facts_of(connection, table), catalog.facts_of(connection, source)
    if live is None or of_source is None:
        raise SwapError(f"{table} or {source} doesn't exist any more.", table=str(table))
    # A transient table has no fail-safe, and Snowflake refuses a permanent clone of one.
    if of_source.is_transient and not live.is_transient:
        raise SwapError(f"{source} is transient, and can't replace {table}, which is permanent.", table=str(table))
    kind = "TRANSIENT TABLE" if live.is_transient else "TABLE"
    how = "LIKE" if is_empty else "CLONE"
    # OR REPLACE: the ledger reserved the name for this change, so a table of that name is left from an earlier attempt.
    # COPY GRANTS: otherwise a clone has no grants, and its readers would lose access at the swap.
    connection.execute(f"CREATE OR REPLACE {kind} {catalog.name_of(aside)} {how} {catalog.name_of(source)} COPY GRANTS")
    created.append(catalog.name_of(aside))
    # A clone is a snapshot, so its own fingerprint is that of the live table at the moment at which it was cloned.
    is_copy = source == table and not is_empty
    before = fingerprint(connection, aside if is_copy else table)
    return Swap(table=table, aside=aside, comment=live.comment, before=before)


def _swap_back(connection: Connection, table: TableRef, aside: TableRef) -> None:
    """Swap back if the live table has the mark, and drop the clone."""
    facts = catalog.facts_of(connection, table)
    if facts is not None and _mark_of(facts.comment) is not None:
        connection.execute(_swapped(table, aside), is_stoppable=False)
    # Only a marked table is dropped: without the mark, `aside` may be the old live table.
    clone = catalog.facts_of(connection, aside)
    if clone is not None and _mark_of(clone.comment) is not None:
        connection.execute(f"DROP TABLE {catalog.name_of(aside)}", is_stoppable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfDone:
    """A swap whose mark is on the live table.

    Attributes:
        aside: The old table.
        comment: The live table's own comment.
        rows: The fingerprint of the table that was swapped in, before the swap.
    """

    table: TableRef
    aside: TableRef
    comment: str
    rows: str

    def finish(self, connection: Connection) -> None:
        """Remove the mark, because the ledger records the change."""
        connection.execute(catalog.commented(self.table, self.comment))

    def discard(self, connection: Connection) -> None:
        """Swap back, because the ledger doesn't record the change.

        Raises:
            SwapError: The table was changed after the swap, and those changes would be lost.
        """
        if fingerprint(connection, self.table) != self.rows:
            raise SwapError(
                f"{self.table} was swapped in by a session that was lost before the ledger recorded it, and was changed"
                f" since then. The old table is {self.aside}. Look at the changes. To keep them, drop {self.aside} and"
                f" set the comment of {self.table}. To go back, swap the two tables.",
                table=str(self.table),
            )
        _swap_back(connection, self.table, self.aside)


def half_done(facts: catalog.Facts, table: TableRef) -> HalfDone | None:
    """Return the swap whose mark is on the live table, which has these properties, or None if there is no mark."""
    mark = _mark_of(facts.comment)
    if mark is None:
        return None
    aside = TableRef(schema=table.schema, name=mark[_MARK])
    return HalfDone(table=table, aside=aside, comment=mark["comment"], rows=mark["rows"])


def fingerprint(connection: Connection, table: TableRef) -> str:
    """Return the number of a table's rows and the sum of their hashes, which don't depend on the order of the rows."""
    columns = catalog.columns_of(connection, table) or ()
    row_hash = hash_of(columns, SnowflakeDialect())
    select = exp.select(exp.Count(this=exp.Star()), exp.Sum(this=row_hash)).from_(terms.table(table))
    ((rows, total),) = connection.execute(catalog.sql_of(select))
    return f"{rows}:{total or 0:x}"


def _mark_of(comment: str) -> dict[str, str] | None:
    try:
        found = cast("dict[str, str]", json.loads(comment))
    except ValueError:
        return None
    return found if isinstance(found, dict) and _MARK in found else None  # pyright: ignore[reportUnnecessaryIsInstance]: it is anybody's comment


def _swapped(table: TableRef, aside: TableRef) -> str:
    return f"ALTER TABLE {catalog.name_of(table)} SWAP WITH {catalog.name_of(aside)}"
