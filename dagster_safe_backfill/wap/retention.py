"""Retention: dropping archives that have expired, and shadows that no run needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.ledger.history import (
    archives,
    kept_archives,
    known_ledger,
    shadow_owners,
    unrecorded_archives,
)
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.ledger.record import record, upgrade_ledger
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.warehouses.base import Session

WhyKept = Literal["not_expired", "recent", "run_goes_on", "of_another_asset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An archive or a shadow that is kept.

    Attributes:
        table: Its name.
        kind: Which of the two it is.
        why: The reason.
        until: When it may be dropped; None if that isn't known, as its run goes on.
        run_id: The run that made a shadow; None of an archive.
    """

    table: TableRef
    kind: Literal["archive", "shadow"]
    why: WhyKept
    until: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """The archives and shadows of a table that were dropped.

    Attributes:
        table: The live table.
        archives: The dropped archives, which had expired.
        shadows: The dropped shadows, whose runs had ended.
        kept: What was kept, with the reasons.
        is_dry: True if nothing was dropped, and the tables are those that would be.
    """

    table: TableRef
    archives: tuple[TableRef, ...] = ()
    shadows: tuple[TableRef, ...] = ()
    kept: tuple[Kept, ...] = ()
    is_dry: bool = False

    @property
    def kept_shadows(self) -> tuple[TableRef, ...]:
        """The shadows that were kept because their runs are still running or ended recently."""
        return tuple(one.table for one in self.kept if one.kind == "shadow")


def owners(session: Session, table: TableRef) -> set[str]:
    """Return the ids of the runs that made a table's shadows and archives; `retire` needs to know which have ended."""
    if known_ledger(session, table) is None:
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
        if known_ledger(session, table) is None:
            return Retired(table=table)
        if not dry_run:
            finish_interrupted_swap(session, table)
            upgrade_ledger(session, table)
        now = datetime.now(timezone.utc)
        expired, kept = _archives(session, table, ended_runs=ended_runs, now=now)
        shadows: list[TableRef] = []
        owned = shadow_owners(session, table)
        for shadow in session.tables.list(table.schema_beside, table.shadow_prefix):
            made_by = owned.get(shadow.name.casefold())
            # Only the ledger shows that a table is a shadow; users may have tables with such names.
            if made_by is None:
                continue
            until = made_by.last_used + keep_shadows_for
            # What another asset staged can be published as long as the table isn't this asset's.
            is_own = owner is not None or made_by.asset_key in (None, *origin.assets)
            why: WhyKept | None = None if is_own else "of_another_asset"
            if until > now:
                why = "recent"
            if made_by.run_id not in ended_runs:
                why, until = "run_goes_on", None
            if why is None:
                shadows.append(shadow)
            else:
                kept.append(Kept(table=shadow, kind="shadow", why=why, until=until, run_id=made_by.run_id))
        if not dry_run:
            _drop(session, table, expired, shadows, origin=origin)
        return Retired(table=table, archives=tuple(expired), shadows=tuple(shadows), kept=tuple(kept), is_dry=dry_run)

    return session.attempt(work)


def _archives(
    session: Session, table: TableRef, *, ended_runs: AbstractSet[str], now: datetime
) -> tuple[list[TableRef], list[Kept]]:
    """Return the archives of a table that are no longer needed, and those that are kept."""
    # The ledger also names archives that were dropped earlier: its rows are never deleted.
    there = kept_archives(session, table)
    expired: list[TableRef] = []
    kept: list[Kept] = []
    for one, expires_at in archives(session, table).items():
        if one.name.casefold() not in there:
            continue
        if expires_at <= now:
            expired.append(one)
        else:
            kept.append(Kept(table=one, kind="archive", why="not_expired", until=expires_at))
    # On Snowflake, a crash leaves archives that no change names. A run that hasn't ended may still need its own.
    for one, owner in unrecorded_archives(session, table).items():
        if one.name.casefold() not in there:
            continue
        if owner.run_id in ended_runs:
            expired.append(one)
        else:
            kept.append(Kept(table=one, kind="archive", why="run_goes_on", run_id=owner.run_id))
    return expired, kept


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
