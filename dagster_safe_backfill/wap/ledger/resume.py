"""resume: which partitions an earlier run has staged and audited, so that they need not be computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Fingerprint
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.wap.changes.fingerprints import current_fingerprints
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.waiting import Stage, newest, stages, standing
from dagster_safe_backfill.warehouses.base import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """What earlier runs left of the partitions of a slice.

    Attributes:
        kept: Staged and audited, by the same code and a run that no audit rejected, and live is as it was then.
        outdated: The others that passed their audits, with the reason why they are computed anew.
        unaudited: Staged, and no more; nobody wants them once their run has ended.
    """

    kept: Sequence[Stage] = ()
    outdated: Sequence[tuple[Stage, str]] = ()
    unaudited: Sequence[Stage] = ()


def checkpoints(
    connection: Connection, *, spec: TableSpec, partition_slice: PartitionSlice, code: str | None
) -> Checkpoints:
    """Return the checkpoints of a slice; changes nothing, a read-only session is enough.

    A partition has one if being audited is the last thing that happened to it, in any scope, and its shadow is still
    there.

    Args:
        connection: An open session.
        spec: How the live table is kept.
        partition_slice: The partitions.
        code: What would compute them now.
    """
    everything = stages(connection, spec.table, keys=partition_slice.keys)
    last = newest(everything)
    in_order = [last[key] for key in partition_slice.keys if key in last]
    audited = standing(connection, spec.table, [stage for stage in in_order if stage.event == "audited"])
    unaudited = standing(connection, spec.table, [stage for stage in everything if stage.event == "staged"])
    runs = {stage.run_id for stage in audited}
    rejected = ledger.rejected_runs(connection, spec.table, runs) if runs else set[str]()
    outdated: list[tuple[Stage, str]] = []
    same: list[Stage] = []
    for stage in audited:
        if stage.run_id in rejected:
            # What made a partition fail is mended in its source: then the others are of the unmended source as well.
            outdated.append((stage, f"run {stage.run_id}, which staged them, was rejected by its audits"))
        elif stage.code != code:
            outdated.append((stage, f"{stage.code} computed them, and now it is {code}"))
        else:
            same.append(stage)
    changed = _changed(connection, same, spec, partition_slice)
    outdated += [(stage, "live changed since") for stage in same if stage.key in changed]
    kept = [stage for stage in same if stage.key not in changed]
    return Checkpoints(kept=kept, outdated=outdated, unaudited=unaudited)


def _changed(
    connection: Connection, found: Sequence[Stage], spec: TableSpec, partition_slice: PartitionSlice
) -> set[str]:
    """Return the partitions of which live isn't as it was when they were staged."""
    if not found:
        return set()
    live = connection.columns(spec.table)
    names = None if live is None else tuple(column.name for column in live)
    # A table that was created since changed none of the partitions that have no rows in it.
    changed = {stage.key for stage in found if stage.columns not in (None, names)}
    rest = {stage.key: stage.fingerprint for stage in found if stage.key not in changed}
    if names is None or not rest:
        return changed
    chosen = partition_slice.only(rest)
    now = current_fingerprints(connection, spec=spec, partition_slice=chosen, names=names)
    return changed | {key for key, then in rest.items() if now.get(key, Fingerprint()) != then}
