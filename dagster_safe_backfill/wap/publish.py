"""publish: the slice of the live table becomes what the shadow holds, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from sqlglot import exp

from dagster_safe_backfill.domain.states import (
    Audited,
    Changes,
    Origin,
    Published,
    Staged,
    Strategy,
)
from dagster_safe_backfill.domain.tables import Column
from dagster_safe_backfill.errors import SchemaMismatchError
from dagster_safe_backfill.sql import publishing, staging, terms
from dagster_safe_backfill.sql.partitioning import PartitionColumns, rows_of
from dagster_safe_backfill.sql.publishing import Change
from dagster_safe_backfill.wap import ledger
from dagster_safe_backfill.wap.scope import columns_of
from dagster_safe_backfill.warehouses.base import Connection


def publish(connection: Connection, audited: Audited, *, strategy: Strategy, origin: Origin) -> Published:
    """Make what was audited live, record it and drop the shadow, all in one transaction.

    Raises:
        SchemaMismatchError: The live table's columns changed since the rows were staged.
        WarehouseError: The database refused; the live table and the shadow are as they were.
    """
    staged = audited.staged
    with connection.transaction():
        changes = apply(connection, staged, strategy=strategy)
        ledger.record(
            connection,
            "published",
            staged,
            origin=origin,
            strategy=strategy,
            changes=changes,
        )
        connection.run(staging.dropped(staged.shadow))
    return Published(
        audited=audited,
        publication_id=origin.publication_id,
        strategy=strategy,
        changes=changes,
    )


def apply(connection: Connection, staged: Staged, *, strategy: Strategy) -> dict[str, Changes]:
    """Make the slice equal to the shadow, in the caller's transaction, and return what that changed by partition.

    `merge` touches just the rows that differ by the unique key, unless that is most of them or the live slice
    holds a key twice; then the slice is deleted and inserted whole, which comes to the same rows.
    """
    change = planned(connection, staged)
    if not staged.live_exists:
        connection.run(publishing.create_live(change))
        return _all_inserted(staged, deleted={})
    _check_live(connection, staged)
    columns = columns_of(connection, staged)
    if strategy == "merge":
        return _merge(connection, staged, change, columns)
    return _replace(connection, staged, change, columns)


def planned(connection: Connection, staged: Staged) -> Change:
    """Return the change that publishing a staged batch makes, in SQL's terms."""
    spec = staged.spec
    columns = tuple(column.name for column in staged.columns)
    scope: exp.Expr = exp.true()
    if staged.partition_slice is not None:
        scope = exp.paren(rows_of(staged.partition_slice, columns_of(connection, staged)))
    stamp = spec.updated_at_column
    return Change(
        live=spec.table,
        shadow=staged.shadow,
        scope=scope,
        columns=columns,
        key=spec.unique_key,
        stamp=(stamp, _now(connection, staged, stamp)) if stamp and stamp not in columns else None,
        unread=stamp,
    )


def _now(connection: Connection, staged: Staged, stamp: str) -> exp.Expr:
    """Return the time as a literal of the stamp column's type; wall-clock columns take UTC."""
    columns = connection.columns(staged.spec.table) or ()
    types = {column.name.casefold(): column.type for column in columns}
    now = datetime.now(timezone.utc)
    type_name = types.get(stamp.casefold())
    if type_name is None:
        return exp.cast(terms.text(now.isoformat(sep=" ")), exp.DataType.Type.TIMESTAMPTZ)
    if connection.keeps(type_name) != "timestamptz":
        now = now.replace(tzinfo=None)
    return terms.typed(terms.text(now.isoformat(sep=" ")), type_name, dialect=connection.dialect)


def _check_live(connection: Connection, staged: Staged) -> None:
    """Refuse if the live table isn't what the rows were staged for, for instance altered by hand since."""
    stamp = staged.spec.updated_at_column
    live = connection.columns(staged.spec.table) or ()
    here = {column for column in live if column.name != stamp}
    expected = {column for column in staged.columns if column.name != stamp}
    if here != expected:
        problems = sorted(_described(column) for column in here ^ expected)
        raise SchemaMismatchError(
            f"{staged.spec.table} changed since its rows were staged ({'; '.join(problems)}); run again",
            table=str(staged.spec.table),
            problems=problems,
        )


def _described(column: Column) -> str:
    return f"{column.name} {column.type}"


def _merge(connection: Connection, staged: Staged, change: Change, columns: PartitionColumns) -> dict[str, Changes]:
    rows = connection.run(publishing.staged_changes(change))
    matches = sum(row[1] for row in rows)
    if matches > sum(staged.rows.values()):
        return _replace(connection, staged, change, columns)
    fresh = sum(row[2] for row in rows)
    changed = sum(row[3] for row in rows)
    ((live,),) = connection.run(publishing.count_in_scope(change))
    gone: dict[int, int] = {}
    if live > matches - fresh:
        gone = dict(
            connection.run(
                publishing.gone_by_partition(change, partition_slice=staged.partition_slice, columns=columns)
            )
        )
    _touch(connection, change, fresh=fresh, changed=changed, gone=sum(gone.values()), live=live)
    found = {row[0]: row[1:] for row in rows}
    return {key: _merged_changes(found.get(i, (0, 0, 0)), gone.get(i, 0)) for i, key in enumerate(staged.keys)}


def _merged_changes(found: tuple[int, ...], gone: int) -> Changes:
    staged, inserted, updated = found
    unchanged = staged - inserted - updated
    return Changes(staged=staged, inserted=inserted, updated=updated, deleted=gone, unchanged=unchanged)


def _touch(connection: Connection, change: Change, *, fresh: int, changed: int, gone: int, live: int) -> None:
    """Run the cheapest statements that make the slice right; a row's stamp only survives in place."""
    touched = fresh + changed + gone
    if not touched:
        return
    if change.stamp is None and change.unread is None and 2 * (changed + gone) >= live:
        connection.run(publishing.delete_scope(change))
        connection.run(publishing.insert_staged(change))
        return
    if gone:
        connection.run(publishing.delete_gone(change))
    if fresh or changed:
        connection.run(publishing.merge_changed(change))


def _replace(connection: Connection, staged: Staged, change: Change, columns: PartitionColumns) -> dict[str, Changes]:
    live = connection.run(publishing.rows_in_scope(change, partition_slice=staged.partition_slice, columns=columns))
    connection.run(publishing.delete_scope(change))
    connection.run(publishing.insert_staged(change))
    return _all_inserted(staged, deleted=dict(live))


def _all_inserted(staged: Staged, *, deleted: Mapping[int, int]) -> dict[str, Changes]:
    return {
        key: Changes(
            staged=staged.rows.get(key, 0),
            inserted=staged.rows.get(key, 0),
            deleted=deleted.get(i, 0),
        )
        for i, key in enumerate(staged.keys)
    }
