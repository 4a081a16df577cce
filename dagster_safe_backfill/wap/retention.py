"""Retention: dropping archives that have expired, and shadows that no run needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger
from dagster_safe_backfill.wap.ledger.history import archives, shadow_owners, unrecorded_archives
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.ledger.record import record, upgrade_ledger
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """The archives and shadows of a table that were dropped.

    Attributes:
        table: The live table.
        archives: The dropped archives, which had expired.
        shadows: The dropped shadows, whose runs had ended.
        kept_shadows: The shadows that were kept because their runs are still running or ended recently.
        is_dry: True if nothing was dropped, and the tables are those that would be.
    """

    table: TableRef
    archives: tuple[TableRef, ...] = ()
    shadows: tuple[TableRef, ...] = ()
    kept_shadows: tuple[TableRef, ...] = ()
    is_dry: bool = False


def owners(session: Session, table: TableRef) -> set[str]:
    """Return the ids of the runs that made a table's shadows and archives; `retire` needs to know which have ended."""
    if not ledger.is_readable(session.tables.columns(ledger.ledger_of(table))):
        return set()
    found = [*shadow_owners(session, table).values(), *unrecorded_archives(session, table).values()]
    return {owner.run_id for owner in found}


def retire(
    session: Session,
    table: TableRef,
    *,
    ended_runs: AbstractSet[str],
    keep_shadows_for: timedelta,
    origin: Origin,
    dry_run: bool = False,
) -> Retired:
    """Drop a table's archives and shadows that are no longer needed, in one transaction with their ledger rows.

    Tables that the ledger doesn't record are never dropped, even if they have the name of a shadow or archive.

    Args:
        session: An open session, outside a transaction.
        table: The live table.
        ended_runs: Those of the `owners` that have ended; shadows of other runs are kept.
        keep_shadows_for: How long a shadow is kept after the last ledger row that names it, so that people can look at
            rejected rows.
        origin: The run that drops them.
        dry_run: True to return what would be dropped, without dropping it.

    Raises:
        OtherAssetError: The table belongs to another asset.
    """

    def work() -> Retired:
        owner = check_owner(session, table, origin=origin)
        if not ledger.is_readable(session.tables.columns(ledger.ledger_of(table))):
            return Retired(table=table)
        if not dry_run:
            finish_interrupted_swap(session, table)
            upgrade_ledger(session, table)
        now = datetime.now(timezone.utc)
        expired = [one for one, expires_at in archives(session, table).items() if expires_at <= now]
        # On Snowflake, a crash leaves archives that no change names. A run that hasn't ended may still need its own.
        intended = unrecorded_archives(session, table).items()
        expired += [one for one, owner in intended if owner.run_id in ended_runs]
        # The ledger also names archives that were dropped earlier: its rows are never deleted.
        dropped = tuple(one for one in expired if session.tables.columns(one) is not None)
        owned = shadow_owners(session, table)
        shadows: list[TableRef] = []
        kept: list[TableRef] = []
        for shadow in session.tables.list(table.schema_beside, table.shadow_prefix):
            made_by = owned.get(shadow.name.casefold())
            # Only the ledger shows that a table is a shadow; users may have tables with such names.
            if made_by is not None:
                is_old = made_by.last_used + keep_shadows_for <= now
                # What another asset staged can be published as long as the table isn't this asset's.
                is_own = owner is not None or made_by.asset_key in (None, *origin.assets)
                (shadows if is_own and is_old and made_by.run_id in ended_runs else kept).append(shadow)
        if not dry_run:
            _drop(session, table, dropped, shadows, origin=origin)
        return Retired(table=table, archives=dropped, shadows=tuple(shadows), kept_shadows=tuple(kept), is_dry=dry_run)

    return session.attempt(work)


def discard(session: Session, shadows: Sequence[TableRef], *, table: TableRef, origin: Origin) -> None:
    """Drop shadows of a table, in one transaction with the ledger rows that record it."""
    session.attempt(lambda: _drop(session, table, (), shadows, origin=origin))


def _drop(
    session: Session,
    table: TableRef,
    expired: Sequence[TableRef],
    discarded: Sequence[TableRef],
    *,
    origin: Origin,
) -> None:
    for one in (*expired, *discarded):
        session.tables.drop(one)
    record(session, "expired", table, [{"archive": archive.name} for archive in expired], origin=origin)
    record(session, "discarded", table, [{"shadow": str(shadow)} for shadow in discarded], origin=origin)
