"""Checkpoints: which partitions an earlier run has staged and audited, so that they need not be computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableSpec, names_of
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.history import rejected_runs
from dagster_safe_backfill.wap.ledger.waiting import newest, owners, staged_partitions, standing
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """What earlier runs left of the partitions of a slice.

    Attributes:
        kept: Staged and audited, by the same code and a run that no audit rejected, and live is as it was then.
        outdated: The others that passed their audits, with the reason why they are computed anew.
        unaudited: Staged, and no more; nobody wants them once their run has ended.
    """

    kept: Sequence[StagedPartition] = ()
    outdated: Sequence[tuple[StagedPartition, str]] = ()
    unaudited: Sequence[StagedPartition] = ()


def checkpoints(session: Session, *, spec: TableSpec, partition_slice: PartitionSlice, code: str | None) -> Checkpoints:
    """Return the checkpoints of a slice; changes nothing, a read-only session is enough.

    A partition has one if being audited is the last thing that happened to it, in any group, and its shadow is still
    there.

    Args:
        session: An open session.
        spec: How the live table is kept.
        partition_slice: The partitions.
        code: What would compute them now.
    """
    everything = staged_partitions(session, spec.table, keys=partition_slice.keys)
    if not everything:
        return Checkpoints()
    last = newest(everything)
    in_order = list(filter(None, map(last.get, partition_slice.keys)))
    audited = standing(session, spec.table, [one for one in in_order if one.event == "audited"])
    unaudited = standing(session, spec.table, [one for one in everything if one.event == "staged"])
    runs = owners(audited)
    rejected = rejected_runs(session, spec.table, runs) if runs else set[str]()
    same = [one for one in audited if one.code == code and one.run_id not in rejected]
    changed = _changed(session, same, spec, partition_slice)
    kept: list[StagedPartition] = []
    outdated: list[tuple[StagedPartition, str]] = []
    for one in audited:
        if one.run_id in rejected:
            # What made a partition fail is mended in its source: then the others are of the unmended source as well.
            outdated.append((one, f"run {one.run_id}, which staged them, was rejected by its audits"))
        elif one.code != code:
            outdated.append((one, f"{one.code} computed them, and now it is {code}"))
        elif one.key in changed:
            outdated.append((one, "live changed since"))
        else:
            kept.append(one)
    return Checkpoints(kept=kept, outdated=outdated, unaudited=unaudited)


def _changed(
    session: Session, found: Sequence[StagedPartition], spec: TableSpec, partition_slice: PartitionSlice
) -> set[str]:
    """Return the partitions of which live isn't as it was when they were staged."""
    if not found:
        return set()
    live = session.tables.columns(spec.table)
    names = None if live is None else names_of(live)
    changed = {one.key for one in found if not one.knows(names)}
    rest = [one for one in found if one.key not in changed]
    if names is None or not rest:
        return changed
    chosen = partition_slice.only(one.key for one in rest)
    now = live_fingerprints(session, live_slice(session, spec=spec, partition_slice=chosen, names=names), names)
    return changed | {one.key for one in rest if now[one.key] != one.fingerprint}
