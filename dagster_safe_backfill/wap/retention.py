"""retention: archives that have expired, and shadows that no run owns any more, are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial

from dagster_safe_backfill.model.states import Origin, Retired
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.intents import unrecorded_archives
from dagster_safe_backfill.wap.ledger.ledger import Values
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.wap.transactions import in_transaction
from dagster_safe_backfill.warehouses.base import Connection


def retire(
    connection: Connection,
    table: TableRef,
    *,
    is_over: Callable[[str], bool],
    keep_shadows_for: timedelta,
    origin: Origin,
    dry_run: bool = False,
) -> Retired:
    """Drop, in one transaction with their ledger rows, what of a table's archives and shadows is no more needed.

    Tables that the ledger doesn't know are never touched, whatever their names.

    Args:
        connection: An open session, outside a transaction.
        table: The live table.
        is_over: Whether the run of an id has ended; shadows of one that hasn't are kept.
        keep_shadows_for: How long after its last entry in the ledger a shadow is kept, so that rejected rows can be
            looked at.
        origin: Who does it.
        dry_run: Only say what would be dropped.
    """
    work = partial(
        _retire,
        connection,
        table,
        is_over=is_over,
        keep_shadows_for=keep_shadows_for,
        origin=origin,
        dry_run=dry_run,
    )
    return in_transaction(connection, work)


def discard(connection: Connection, shadows: Sequence[TableRef], *, table: TableRef, origin: Origin) -> None:
    """Drop shadows of a table, in one transaction with their ledger rows."""

    def work() -> None:
        for shadow in shadows:
            connection.run(staging.dropped(shadow))
        _record(connection, table, (), shadows, origin)

    in_transaction(connection, work)


def _retire(
    connection: Connection,
    table: TableRef,
    *,
    is_over: Callable[[str], bool],
    keep_shadows_for: timedelta,
    origin: Origin,
    dry_run: bool,
) -> Retired:
    if not ledger.exists(connection, table):
        return Retired(table=table)
    if not dry_run:
        finish_interrupted_swap(connection, table)
    now = datetime.now(timezone.utc)
    archives = tuple(
        archive
        for archive, expires_at in ledger.archives(connection, table).items()
        if expires_at <= now and connection.columns(archive) is not None
    )
    archives += tuple(
        archive
        for archive, owner in unrecorded_archives(connection, table).items()
        if is_over(owner.run_id) and connection.columns(archive) is not None
    )
    owners = ledger.shadows(connection, table)
    shadows: list[TableRef] = []
    kept: list[TableRef] = []
    for shadow in connection.tables(table.schema, table.shadow_prefix):
        owner = owners.get(shadow.name.casefold())
        if owner is not None:
            is_old = owner.last_used + keep_shadows_for <= now
            (shadows if is_old and is_over(owner.run_id) else kept).append(shadow)
    if not dry_run:
        for one in (*archives, *shadows):
            connection.run(staging.dropped(one))
        _record(connection, table, archives, shadows, origin)
    return Retired(table=table, archives=archives, shadows=tuple(shadows), kept_shadows=tuple(kept), is_dry=dry_run)


def _record(
    connection: Connection,
    table: TableRef,
    archives: tuple[TableRef, ...],
    shadows: Sequence[TableRef],
    origin: Origin,
) -> None:
    expired: list[Values] = [{"archive": archive.name} for archive in archives]
    discarded: list[Values] = [{"shadow": str(shadow)} for shadow in shadows]
    if expired:
        ledger.record(connection, "expired", table, expired, origin=origin)
    if discarded:
        ledger.record(connection, "discarded", table, discarded, origin=origin)
