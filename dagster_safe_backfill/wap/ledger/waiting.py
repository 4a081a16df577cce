"""Reading from the ledger which partitions are staged: the last event of each, and the shadow that has its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

from dagster_safe_backfill.model.events import Event, Fingerprint, StagedEvent
from dagster_safe_backfill.model.states import Origin, StagedPartition
from dagster_safe_backfill.model.tables import TableRef, names_of
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.sql.ledger_rows import LedgerRow
from dagster_safe_backfill.wap.ledger.history import known_ledger
from dagster_safe_backfill.warehouses.base import Session

_WAITING: tuple[Event, ...] = ("audited", "approved", "refused")
"""The last events of partitions that passed their own audits, and whose rows may still be published."""

_DONE: tuple[Event, ...] = ("published", "rolled_back")
"""The events after which a partition doesn't wait any more. It still does after rows moved out of it."""

_COLUMNS = (
    *("partition_key", "event", "scope", "shadow", "run_id", "code_version"),
    *("asset_key", "provenance", "computed_by", "moved"),
    *("fingerprint", "fingerprinted_columns", "rows_staged", "publication_id", "recorded_at", "computed_at", "format"),
)


def staged_partitions(
    session: Session,
    table: TableRef,
    *,
    keys: Sequence[str] | None = None,
    group: str | None = None,
    assets: Sequence[str] = (),
) -> list[StagedPartition]:
    """Return the last event of each partition in each group, the oldest first.

    Args:
        session: An open session; read-only is enough.
        table: The live table.
        keys: The partition keys. Defaults to all partitions.
        group: The group. Defaults to all groups.
        assets: The keys of the asset that asks; see `Origin.assets`. Partitions that another asset staged are left out.
            Defaults to all assets.
    """
    columns = known_ledger(session, table)
    if columns is None:
        return []
    conditions = [ledger.is_event(*get_args(StagedEvent), "taken_up", *_DONE)]
    if keys is not None:
        conditions.append(terms.is_in(terms.column("partition_key"), map(terms.text, keys)))
    if group is not None:
        conditions.append(ledger.group().eq(terms.text(group)))
    if assets and "asset_key" in map(str.casefold, names_of(columns)):
        conditions.append(ledger.is_of_asset(assets))
    items = ledger.known_columns(_COLUMNS, columns)
    found = session.query(ledger.newest_by_partition(table, items, *conditions))
    return [_staged_partition(table, row) for row in ledger.as_rows(table, _COLUMNS, found)]


def newest(found: Iterable[StagedPartition]) -> dict[str, StagedPartition]:
    """Return a mapping from partition key to the last of its events in any group."""
    # `found` is ordered by time, so the last event of a key wins.
    return {one.key: one for one in found}


def owners(found: Iterable[StagedPartition]) -> set[str]:
    """Return the ids of the runs that staged the partitions; callers need to know which of these runs have ended."""
    return {one.run_id for one in found}


def standing(session: Session, table: TableRef, found: Sequence[StagedPartition]) -> Sequence[StagedPartition]:
    """Return the partitions whose shadow still exists."""
    if not found:
        return found
    names: set[str] = set()
    # One statement for all shadows, so that their number doesn't change the number of statements.
    for shadow in session.tables.list(table.schema_beside, table.shadow_prefix):
        names.add(shadow.name.casefold())
    return [one for one in found if one.shadow is not None and one.shadow.name.casefold() in names]


def to_audit(session: Session, table: TableRef, *, origin: Origin) -> tuple[Sequence[StagedPartition], list[str]]:
    """Return the partitions that wait for the audit of their group, and the keys that their own audits haven't passed.

    If the run's group has staged nothing, both are of the partitions that were staged last by any group.
    """
    everything = staged_partitions(session, table, assets=origin.assets)
    own = [one for one in everything if one.group == origin.group]
    found = own or [*newest(everything).values()]
    waiting = standing(session, table, [one for one in found if one.event in _WAITING])
    return waiting, [one.key for one in found if one.event in ("staged", "rejected")]


def of_staged(origin: Origin, found: Sequence[StagedPartition]) -> Origin:
    """Return the origin of a run that continues with staged partitions; it has their code version if they share one."""
    versions = {one.code_version for one in found}
    return replace(origin, code_version=versions.pop() if len(versions) == 1 else None)


def emptied(session: Session, table: TableRef, moved: Iterable[StagedPartition]) -> dict[TableRef, str]:
    """Return a mapping from each shadow that is no longer needed once these partitions are moved to its run's id."""
    owned = {one.shadow: one.run_id for one in moved if one.shadow is not None}
    leaving = {(one.group, one.key) for one in moved}
    for one in staged_partitions(session, table):
        # Another partition of the shadow may still be published.
        if one.event in _WAITING and one.shadow is not None and (one.group, one.key) not in leaving:
            owned.pop(one.shadow, None)
    return owned


def _staged_partition(table: TableRef, row: LedgerRow) -> StagedPartition:
    ledger.check_format(row.count("format"), table)
    shadow, at = row.optional_text("shadow"), row.time("recorded_at")
    return StagedPartition(
        key=row.text("partition_key"),
        event=row.event(),
        group=row.text("scope"),
        shadow=table.shadow_named(shadow) if shadow else None,
        run_id=row.text("run_id"),
        code_version=row.optional_text("code_version"),
        asset_key=row.optional_text("asset_key"),
        provenance=row.provenance(),
        computed_by=row.optional_text("computed_by") or row.text("run_id"),
        fingerprint=row.fingerprint("fingerprint") or Fingerprint(),
        columns=row.optional_texts("fingerprinted_columns"),
        rows=row.count("rows_staged"),
        left=row.fingerprints("moved"),
        publication_id=row.text("publication_id"),
        recorded_at=at,
        computed_at=row.optional_time("computed_at") or at,
    )
