"""What runs do with live tables besides write-audit-publish: rollbacks, retention, and the tables of plain assets.

The modules of `assets/` load this one with their first run, since it loads the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta, timezone
from functools import partial
from typing import Any

import dagster as dg

from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Origin, RolledBack
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.events import changes_metadata, columns_metadata, table_metadata
from dagster_safe_backfill.runs.backfills import has_ended, known_runs
from dagster_safe_backfill.runs.declared import TableIO
from dagster_safe_backfill.runs.partitions import slice_of_keys
from dagster_safe_backfill.wap.ledger.clock import shown
from dagster_safe_backfill.wap.ledger.history import partition_keys
from dagster_safe_backfill.wap.measure.live import measure_live
from dagster_safe_backfill.wap.retention import Kept, RetentionRules, Retired, drop_found, owners, retire
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.rollback.undone import Shown
from dagster_safe_backfill.wap.tables.read import read, select_text
from dagster_safe_backfill.wap.tables.store import store
from dagster_safe_backfill.warehouses.frames import dtypes_of, load_type_of, no_rows

__all__ = [
    "Chosen",
    "Shown",
    "drop_expired",
    "frame_metadata",
    "load_type_of",
    "measure_live",
    "no_rows",
    "read",
    "roll_back",
    "select_text",
    "store",
]

_SHOWN = 400
"""The maximum number of rows in a rollback's table of partitions: Dagster's UI is slow with more."""


def roll_back(
    context: dg.OpExecutionContext,
    table_io: TableIO,
    *,
    asset: dg.AssetsDefinition,
    options: AssetOptions,
    order: Mapping[str, int],
    chosen: Chosen,
    archive_for: timedelta,
    force: bool,
    dry_run: bool,
) -> None:
    """Roll back the chosen publications in one transaction, and log a materialization for each partition.

    `order` is the position of each of the asset's partition keys.

    Raises:
        RollbackError: The publications can't be rolled back; the live table is unchanged.
        OtherAssetError: The table belongs to another asset.
    """
    spec = table_io.spec_of(asset.key, options)
    shown = options.checks.sample_columns
    with table_io.connected(
        spec.table, run_id=context.run_id, publication_id=context.run_id, sample_columns=shown
    ) as session:
        session.run_has_ended = partial(has_ended, context.instance)
        done = rollback(
            session,
            chosen,
            spec=spec,
            partition_slice=_slice_of(asset, order, partition_keys(session, spec.table)),
            origin=_origin_of(context, asset.key, options),
            archive_for=archive_for,
            force=force,
            dry_run=dry_run,
        )
    _report(context, asset.key, done)


def drop_expired(
    context: dg.OpExecutionContext,
    table_io: TableIO,
    *,
    key: dg.AssetKey,
    options: AssetOptions,
    shadows_for: timedelta,
    unknown_for: timedelta,
    dry_run: bool,
) -> str:
    """Drop a table's expired archives and the shadows of ended runs, and return a sentence that says which.

    `RetentionRules` documents the two times.

    Raises:
        OtherAssetError: The table belongs to another asset.
    """
    table, origin = table_io.spec_of(key, options).table, _origin_of(context, key, options)
    connect = partial(table_io.connected, table, run_id=context.run_id, sample_columns=options.checks.sample_columns)
    try:
        with connect(read_only=True) as session:
            # Only Dagster knows which runs have ended, and the engine doesn't import Dagster (docs/architecture.md).
            runs = known_runs(context.instance, owners(session, table))
            rules = RetentionRules(runs=runs, shadows_for=shadows_for, unknown_for=unknown_for)
            retired = retire(session, table, rules=rules, origin=origin, dry_run=True)
        if not dry_run:
            retired = drop_found(connect, retired, rules=rules, origin=origin)
    except TableNotFoundError:
        # Without a database there is nothing to drop.
        retired = Retired(table=table, is_dry=dry_run)
    return _told(context, retired)


def frame_metadata(frame: object) -> dict[str, Any]:
    """Return the names and dtypes of a frame's columns, as Dagster's own I/O managers report them."""
    return columns_metadata(dtypes_of(frame))


def _origin_of(context: dg.OpExecutionContext, key: dg.AssetKey, options: AssetOptions) -> Origin:
    return Origin(
        run_id=context.run_id,
        publication_id=context.run_id,
        asset_key=key.to_user_string(),
        former_keys=options.table.former_keys,
    )


def _slice_of(asset: dg.AssetsDefinition, order: Mapping[str, int], keys: Iterable[str]) -> PartitionSlice | None:
    """Return the slice of the given keys that the asset has, in the asset's order; None if it has none of them."""
    definition: dg.PartitionsDefinition[Any] | None = asset.partitions_def
    if definition is None:
        return None
    # The ledger may name partitions that the asset no longer has. The rollback itself refuses those, by name.
    known = sorted((key for key in keys if key in order), key=order.__getitem__)
    return slice_of_keys(definition, known) if known else None


def _report(context: dg.OpExecutionContext, key: dg.AssetKey, done: RolledBack) -> None:
    undone = ", ".join(done.undone)
    if done.is_dry:
        context.log.info(f"{done.table}: rolling back {undone} would change {_counted(done)}; nothing was changed")
    else:
        context.log.info(f"{done.table}: rolled back {undone}: {_counted(done)}")
        for partition, changes in done.row_counts.items():
            context.log_event(_materialization(key, partition, done, changes, by=done.publication_id))
        for partition, by in {**dict.fromkeys(done.untouched, done.publication_id), **done.already}.items():
            context.log_event(_materialization(key, partition, done, None, by=by))
    context.add_output_metadata(_summary(done))


def _materialization(
    key: dg.AssetKey, partition: str, done: RolledBack, changes: RowCounts | None, *, by: str
) -> dg.AssetMaterialization:
    description = f"Rollback of {', '.join(done.undone)}"
    if partition in done.removed:
        description += ": the partition had no rows before the publication, and has none now"
    elif partition in done.already:
        description += f": {by} had already rolled the partition back"
    elif changes is None:
        description += ": the publication had changed nothing in this partition"
    metadata: dict[str, Any] = {
        **table_metadata(done.table),
        "rollback_of": ", ".join(done.undone),
        "publication_id": by,
        **_archive(done),
    }
    if changes is not None:
        metadata |= {"dagster/partition_row_count": changes.staged, **changes_metadata(changes)}
    return dg.AssetMaterialization(asset_key=key, partition=partition, description=description, metadata=metadata)


def _archive(done: RolledBack) -> Mapping[str, str]:
    """Return metadata about the archive, from which the rollback itself can be rolled back."""
    if done.archive is None or done.expires_at is None:
        return {"archive": "none, because no rows were replaced, or none are kept"}
    # The UI doesn't convert times in texts to the user's time zone, so the text names its zone.
    until = done.expires_at.astimezone(timezone.utc)
    return {"archive": str(done.archive), "archive_expires_at": f"{until:%Y-%m-%d %H:%M} UTC"}


def _counted(done: RolledBack) -> str:
    total = sum(done.row_counts.values(), RowCounts())
    text = (
        f"{len(done.row_counts)} partitions: {total.inserted:,} rows inserted, {total.updated:,} updated,"
        f" {total.deleted:,} deleted, {total.unchanged:,} unchanged"
    )
    if done.removed:
        text += f"; {listed(done.removed)} had no rows before, so their rows are removed"
    if done.dropped_columns:
        text += f"; {listed(done.dropped_columns)} had been added, so they are dropped"
    if done.restored_columns:
        text += f"; {listed(done.restored_columns)} had been dropped or changed, and are put back"
    if done.kept_columns:
        text += f"; {listed(done.kept_columns)} had been added and stay, because other rows use them"
    if done.untouched:
        text += f"; nothing to undo in {listed([*done.untouched])}"
    if done.already:
        text += f"; already undone in {listed([*done.already])}"
    return text


def _summary(done: RolledBack) -> Mapping[str, Any]:
    shown = [*done.row_counts.items()][:_SHOWN]
    rows = [dg.TableRecord({"partition": key, **changes_metadata(changes)}) for key, changes in shown]
    found: dict[str, Any] = {
        "rollback_of": ", ".join(done.undone),
        "dry_run": done.is_dry,
        "summary": _counted(done),
    }
    if not done.is_dry:
        found |= {"publication_id": done.publication_id, **_archive(done)}
    if rows:
        found["partitions"] = dg.MetadataValue.table(rows)
    return found


def _told(context: dg.OpExecutionContext, retired: Retired) -> str:
    """Log what retention did to a table, and return it as a sentence."""
    text = _dropped(retired)
    context.log.info(text)
    unknown = [one for one in retired.kept if one.why == "run_unknown"]
    if unknown:
        context.log.warning(
            f"{retired.table}: left {listed([*map(_until, unknown)])} alone: this Dagster doesn't know run"
            f" {listed(sorted({str(one.run_id) for one in unknown}))}, which was deleted, or goes on in another Dagster"
        )
    if retired.clock_problem is not None:
        problem = f"nothing was dropped: {retired.clock_problem}"
        context.log.warning(f"{retired.table}: {problem}")
        text += f"; {problem}"
    return text


def _until(kept: Kept) -> str:
    return str(kept.table) if kept.until is None else f"{kept.table} (until {shown(kept.until)})"


def _dropped(retired: Retired) -> str:
    verb = "would drop" if retired.is_dry else "dropped"
    kept = f"; kept {listed([*retired.kept_shadows])}" if retired.kept_shadows else ""
    unknown = sum(one.why == "run_unknown" for one in retired.kept)
    kept += f", {unknown} of them of runs that this Dagster doesn't know" if unknown else ""
    return f"{retired.table}: {verb} {listed([*retired.over], shown=100) or 'nothing'}{kept}"
