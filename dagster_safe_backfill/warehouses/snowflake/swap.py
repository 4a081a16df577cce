"""A table replaced by a clone of itself: SWAP WITH is atomic, but no part of a transaction, and is its own inverse.

So the clone has a mark in its comment before it is swapped in. Who finds the mark on the live table knows that the swap
took place, and of which change it was; the ledger says whether that change was recorded. If it wasn't, the session was
lost in between, and the tables are swapped back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

from sqlglot import exp

from dagster_safe_backfill.errors import SwapError, TransactionConflictError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake import catalog
from dagster_safe_backfill.warehouses.snowflake.dialect import SnowflakeDialect
from dagster_safe_backfill.warehouses.snowflake.driver import Connection

_MARK = "dagster_safe_backfill"


@dataclass(slots=True, kw_only=True)
class Swap:
    """One table on its way to be replaced.

    Attributes:
        table: The live table.
        aside: The clone's name, and after the swap the old table's.
        comment: The live table's own comment.
        before: The fingerprint of the live table that the clone was made for.
        is_begun: Whether SWAP WITH was sent, so that it may have taken place.
        is_swapped: Whether it has.
    """

    table: TableRef
    aside: TableRef
    comment: str
    before: str
    is_begun: bool = False
    is_swapped: bool = False

    @property
    def comment_sql(self) -> str:
        """The statement that gives the live table its own comment again."""
        return _commented(self.table, self.comment)

    def run(self, connection: Connection) -> None:
        """Swap the tables, if the live one is as it was.

        Raises:
            TransactionConflictError: It isn't, or changed just then: it is to be swapped back.
        """
        self._check(connection, self.table)
        mark = {_MARK: self.aside.name, "comment": self.comment, "rows": fingerprint(connection, self.aside)}
        connection.execute(_commented(self.aside, json.dumps(mark)))
        self.is_begun = True
        connection.execute(_swapped(self.table, self.aside), is_stoppable=False)
        self.is_swapped = True
        # What was written between the check and the swap is in the old table, and would be lost.
        self._check(connection, self.aside)

    def undo(self, connection: Connection) -> None:
        """Swap back, if they were swapped, and drop the clone."""
        _swap_back(connection, self.table, self.aside)

    def _check(self, connection: Connection, old: TableRef) -> None:
        if fingerprint(connection, old) != self.before:
            raise TransactionConflictError(f"another session changed {self.table} while it was cloned")


def begun(
    connection: Connection, table: TableRef, *, aside: TableRef, source: TableRef, is_empty: bool, created: list[str]
) -> Swap:
    """Make the table that is to replace another: a clone of `source`, or an empty one with its definition.

    Grants are those of the source; the kind of table, permanent or transient, is that of the live one.

    Args:
        session: Commits each statement.
        table: The live table.
        aside: The name of what is made.
        source: What it is made of.
        is_empty: Whether its rows are left out.
        created: Gets the name as soon as it is there, so that it goes whatever comes after.

    Raises:
        SwapError: The source is transient, and the live table isn't.
    """
    live, of_source = catalog.facts_of(connection, table), catalog.facts_of(connection, source)
    if live is None or of_source is None:
        raise SwapError(f"{table} or {source} isn't there any more", table=str(table))
    if of_source.is_transient and not live.is_transient:
        raise SwapError(f"{source} is transient, and must not take the place of {table}", table=str(table))
    kind = "TRANSIENT TABLE" if live.is_transient else "TABLE"
    how = "LIKE" if is_empty else "CLONE"
    # Its name was intended for it: what has it now was left by an earlier try.
    connection.execute(f"CREATE OR REPLACE {kind} {catalog.name_of(aside)} {how} {catalog.name_of(source)} COPY GRANTS")
    created.append(catalog.name_of(aside))
    is_copy = source == table and not is_empty
    before = fingerprint(connection, aside if is_copy else table)
    return Swap(table=table, aside=aside, comment=live.comment, before=before)


def _swap_back(connection: Connection, table: TableRef, aside: TableRef) -> None:
    """Swap back, if the live table is the marked one; drop the clone."""
    facts = catalog.facts_of(connection, table)
    if facts is not None and _mark_of(facts.comment) is not None:
        connection.execute(_swapped(table, aside), is_stoppable=False)
    clone = catalog.facts_of(connection, aside)
    if clone is not None and _mark_of(clone.comment) is not None:
        connection.execute(f"DROP TABLE {catalog.name_of(aside)}", is_stoppable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfDone:
    """A swap whose mark is on the live table.

    Attributes:
        aside: The old table.
        comment: The live table's own comment.
        rows: The fingerprint of what was swapped in.
    """

    table: TableRef
    aside: TableRef
    comment: str
    rows: str

    def finish(self, connection: Connection) -> None:
        """Take the mark off, as the ledger tells of the change."""
        connection.execute(_commented(self.table, self.comment))

    def discard(self, connection: Connection) -> None:
        """Swap back, as the ledger doesn't.

        Raises:
            SwapError: Somebody has changed the table since, which would be lost.
        """
        if fingerprint(connection, self.table) != self.rows:
            raise SwapError(
                f"{self.table} was swapped in by a session that was lost before the ledger told of it, and was changed"
                f" since; the table before is {self.aside}. Look at what changed, then drop {self.aside} and set the"
                " comment of the table to keep it, or swap them to go back",
                table=str(self.table),
            )
        _swap_back(connection, self.table, self.aside)


def half_done(connection: Connection, table: TableRef) -> HalfDone | None:
    """Return the swap whose mark the live table has."""
    facts = catalog.facts_of(connection, table)
    mark = None if facts is None else _mark_of(facts.comment)
    if mark is None:
        return None
    aside = TableRef(schema=table.schema, name=mark[_MARK])
    return HalfDone(table=table, aside=aside, comment=mark["comment"], rows=mark["rows"])


def fingerprint(connection: Connection, table: TableRef) -> str:
    """Return what all rows of a table come to, in any order."""
    columns = connection.described(f"SELECT * FROM {catalog.name_of(table)}")
    row_hash = SnowflakeDialect().row_hash([terms.column(column.name) for column in columns])
    select = exp.select(exp.Count(this=exp.Star()), exp.Sum(this=row_hash)).from_(terms.table(table))
    ((rows, total),) = connection.execute(catalog.sql_of(select))
    return f"{rows}:{total or 0:x}"


def _mark_of(comment: str) -> dict[str, str] | None:
    try:
        found = cast("dict[str, str]", json.loads(comment))
    except ValueError:
        return None
    return found if isinstance(found, dict) and _MARK in found else None  # pyright: ignore[reportUnnecessaryIsInstance]: it is anybody's comment


def _commented(table: TableRef, comment: str) -> str:
    return f"COMMENT ON TABLE {catalog.name_of(table)} IS {catalog.sql_of(terms.text(comment))}"


def _swapped(table: TableRef, aside: TableRef) -> str:
    return f"ALTER TABLE {catalog.name_of(table)} SWAP WITH {catalog.name_of(aside)}"
