"""The replacement of a table by a clone with SWAP WITH, which is atomic, but not part of a transaction.

SWAP WITH is its own inverse: sent twice, it undoes itself. So the clone gets a mark in its comment before it is swapped
in. A mark on the live table shows that the swap took place, and for which change. The ledger shows whether that change
was recorded. If it wasn't, the session was lost in between, and the tables are swapped back.

A clone has the columns, constraints, parameters and tags of its source. It has neither its owner nor its streams, its
Automatic Clustering is suspended, and its grants have to be copied. What the clone lacks is given to it, or the swap is
refused. https://docs.snowflake.com/en/user-guide/object-clone
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlglot import exp

from dagster_safe_backfill.errors import (
    StatementCancelledError,
    SwapError,
    TransactionConflictError,
    WarehouseError,
    WarehouseUnavailableError,
)
from dagster_safe_backfill.model.tables import Loss, TableRef
from dagster_safe_backfill.model.text import listed
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
        token: The token of the live table's last change before the clone was made. See `last_change`.
        is_reclustered: True if Snowflake clusters the live table by itself.
        owner: The live table's owner, as in TO ROLE "name", if that isn't the clone's.
        is_begun: True once SWAP WITH was sent. It may have taken place even if no reply was read.
        is_swapped: True once the reply of SWAP WITH was read.
    """

    table: TableRef
    aside: TableRef
    comment: str
    before: str
    token: str
    is_reclustered: bool
    owner: str | None
    may_lose: Sequence[Loss] = ()
    is_begun: bool = False
    is_swapped: bool = False

    def closing(self, *, is_archived: bool) -> list[str]:
        """See `transaction.Swap.closing`. Snowflake mustn't go on clustering an archive, which costs credits."""
        statements = [catalog.commented(self.table, self.comment)]
        if self.is_reclustered and is_archived:
            statements.append(f"ALTER TABLE {catalog.name_of(self.aside)} SUSPEND RECLUSTER")
        return statements

    def run(self, connection: Connection) -> None:
        """Swap the tables if the live one didn't change since the clone was made.

        Raises:
            TransactionConflictError: The live table changed before or during the swap. Call `undo` then.
        """
        # SWAP WITH is DDL, so no transaction can hold a lock until then, and others may write to the table.
        self._check(connection, self.table)
        self._complete_clone(connection)
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

    def _complete_clone(self, connection: Connection) -> None:
        """Give the clone what it didn't get from the live table. It has its rows by now.

        Raises:
            SwapError: The role can't give the clone to the live table's owner.
        """
        name = catalog.name_of(self.aside)
        if self.is_reclustered:
            connection.execute(f"ALTER TABLE {name} RESUME RECLUSTER")
        if self.owner is None:
            return
        try:
            # Only a role that has the privileges of the owner may drop or swap the clone after this.
            connection.execute(catalog.commented(self.table, self.comment))
            connection.execute(f"GRANT OWNERSHIP ON TABLE {name} TO {self.owner} COPY CURRENT GRANTS")
        except (StatementCancelledError, WarehouseUnavailableError, TransactionConflictError):
            raise
        except WarehouseError as error:
            if "owner" not in self.may_lose:
                raise SwapError(
                    f"{self.table}: its owner is {self.owner}, and a swap would give it to the role of this session,"
                    " which can't give the new table to that owner, so nothing was published. Publish with the owner's"
                    " role, grant MANAGE GRANTS if the schema has managed access, use another strategy, or set"
                    f' publish=Swap(may_lose=["owner"]): {error}',
                    table=str(self.table),
                ) from error

    def _check(self, connection: Connection, old: TableRef) -> None:
        # The token goes with the table when it is renamed. If it moved, the rows may still be the same.
        if last_change(connection, old) == self.token:
            return
        if fingerprint(connection, old) != self.before:
            raise TransactionConflictError(f"another session changed {self.table} while it was cloned")


def begun(
    connection: Connection,
    table: TableRef,
    *,
    aside: TableRef,
    source: TableRef,
    is_empty: bool,
    created: list[str],
    may_lose: Sequence[Loss] = (),
) -> Swap:
    """Create the table that will replace another: a clone of `source`, with or without its rows.

    It has the grants of the live table. It is permanent or transient like the live table.

    Args:
        connection: A connection that commits each statement.
        table: The live table.
        aside: The name of the new table.
        source: The table that is cloned.
        is_empty: True to leave out the rows.
        created: A list to which the name is added once the table exists, so that a rollback drops it.
        may_lose: See `Tables.replace`.

    Raises:
        SwapError: The source is transient and the live table isn't, one of them doesn't exist, or a stream is on the
            live table.
    """
    live = catalog.facts_of(connection, table)
    of_source = live if source == table else catalog.facts_of(connection, source)
    properties = _properties_of(connection, table)
    if live is None or of_source is None or properties is None:
        raise SwapError(f"{table} or {source} doesn't exist any more.", table=str(table))
    # A transient table has no fail-safe, and Snowflake refuses a permanent clone of one.
    if of_source.is_transient and not live.is_transient:
        raise SwapError(f"{source} is transient, and can't replace {table}, which is permanent.", table=str(table))
    if "streams" not in may_lose:
        _check_streams(connection, table, properties)
    token = last_change(connection, table)
    kind = "TRANSIENT TABLE" if live.is_transient else "TABLE"
    _clone(connection, aside, kind=kind, table=table, source=source, created=created)
    # A clone is a snapshot, so its own fingerprint is that of the live table at the moment at which it was cloned.
    before = fingerprint(connection, aside if source == table else table)
    if is_empty:
        # Not LIKE, which leaves out parameters that CLONE keeps.
        connection.execute(f"TRUNCATE TABLE {catalog.name_of(aside)}")
    clone = _properties_of(connection, aside) or properties
    return Swap(
        table=table,
        aside=aside,
        comment=live.comment,
        before=before,
        token=token,
        # An archive may be older than the clustering key.
        is_reclustered=properties.is_reclustered and clone.is_clustered,
        owner=properties.owner if clone.owner != properties.owner else None,
        may_lose=may_lose,
    )


def _clone(
    connection: Connection, aside: TableRef, *, kind: str, table: TableRef, source: TableRef, created: list[str]
) -> None:
    """Create the clone, with the grants of the live table as they are now: without them, readers would lose access.

    COPY GRANTS copies the grants of a table that is replaced, and only if there is none those of the source. So a table
    of that name is dropped first. The ledger reserved the name for this change, so an earlier attempt has left it.
    https://docs.snowflake.com/en/sql-reference/sql/create-table
    """
    name, create = catalog.name_of(aside), f"{kind} {catalog.name_of(aside)} CLONE"
    connection.execute(f"DROP TABLE IF EXISTS {name}")
    created.append(name)
    connection.execute(f"CREATE {create} {catalog.name_of(table)} COPY GRANTS")
    if source != table:
        # An archive has its own grants, or those of an earlier day. This clone keeps those of the one it replaces.
        connection.execute(f"CREATE OR REPLACE {create} {catalog.name_of(source)} COPY GRANTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Properties:
    """What a clone of a table doesn't get.

    Attributes:
        database: The name of the table's database.
        owner: The table's owner, as in TO ROLE "name"; None if it has none.
        is_clustered: True if the table has a clustering key.
        is_reclustered: True if Snowflake clusters the table by itself.
    """

    database: str
    owner: str | None
    is_clustered: bool
    is_reclustered: bool


def _properties_of(connection: Connection, table: TableRef) -> _Properties | None:
    row = catalog.shown_table(connection, table)
    if row is None:
        return None
    kind = str(row.get("owner_role_type") or "ROLE").replace("_", " ")
    owner = str(row.get("owner") or "").replace('"', '""')
    return _Properties(
        database=row["database_name"],
        owner=f'{kind} "{owner}"' if owner else None,
        is_clustered=bool(row.get("cluster_by")),
        is_reclustered=row.get("automatic_clustering") == "ON",
    )


def _check_streams(connection: Connection, table: TableRef, properties: _Properties) -> None:
    """Refuse a table that a stream is on, or on a view of it: it is on the old table after a swap.

    Raises:
        SwapError: A stream that the role may see is on the table.
    """
    whole = f"{properties.database}.{table.schema}.{table.name}".upper()
    found: list[str] = []
    for row in connection.shown("SHOW STREAMS IN ACCOUNT"):
        sources = [str(row.get("table_name") or ""), *str(row.get("base_tables") or "").split(",")]
        if whole in [source.strip().replace('"', "").upper() for source in sources]:
            found.append(str(row["name"]))
    if found:
        raise SwapError(
            f"{table}: the stream {listed(found)} is on this table. After a swap it would be on the old table, which is"
            " the archive, and would see no more changes, so nothing was published. Publish with merge or replace,"
            ' which keep streams. Or set publish=Swap(may_lose=["streams"]), and create the stream again afterwards.',
            table=str(table),
        )


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


def last_change(connection: Connection, table: TableRef) -> str:
    """Return a token that is another one after each change of the table's rows that is committed.

    It may also move though no row changed, so only equal tokens say something. It doesn't know of what a transaction
    hasn't committed. https://docs.snowflake.com/en/sql-reference/functions/system_last_change_commit_time
    """
    name = catalog.sql_of(terms.text(catalog.name_of(table)))
    ((token,),) = connection.execute(f"SELECT SYSTEM$LAST_CHANGE_COMMIT_TIME({name})")
    return str(token)


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
