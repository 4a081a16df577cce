"""Checkpoints: partitions that an earlier run has staged and audited, so that they aren't computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableSpec, names_of
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.history import rejected_runs
from dagster_safe_backfill.wap.ledger.waiting import owners, staged_partitions, standing
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The partitions of a slice that earlier runs have staged.

    Attributes:
        kept: The partitions to reuse: the same code staged them, no audit rejected their run, and the live partition
            hasn't changed since.
        outdated: The other partitions that passed their audits, each with the reason why it is computed again.
        unaudited: The partitions that are staged but not audited. They are useless once their run has ended.
    """

    kept: Sequence[StagedPartition] = ()
    outdated: Sequence[tuple[StagedPartition, str]] = ()
    unaudited: Sequence[StagedPartition] = ()


def checkpoints(session: Session, *, spec: TableSpec, partition_slice: PartitionSlice, code: str | None) -> Checkpoints:
    """Return the checkpoints of a slice; a read-only session is enough.

    A partition has a checkpoint if the last event of the partition, over all groups, is `audited`, and its shadow still
    exists.

    Args:
        session: An open session.
        spec: How the live table is kept.
        partition_slice: The partitions.
        code: The code that would compute the partitions now; see `Origin.code`.
    """
    last: dict[str, StagedPartition] = {}
    unaudited: list[StagedPartition] = []
    for one in staged_partitions(session, spec.table, keys=partition_slice.keys):
        last[one.key] = one
        if one.event == "staged":
            unaudited.append(one)
    audited: list[StagedPartition] = []
    for key in partition_slice.keys:
        if key in last and last[key].event == "audited":
            audited.append(last[key])
    if not audited and not unaudited:
        return Checkpoints()
    return _checked(session, audited, unaudited, spec=spec, partition_slice=partition_slice, code=code)


def _checked(
    session: Session,
    audited: Sequence[StagedPartition],
    unaudited: Sequence[StagedPartition],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    code: str | None,
) -> Checkpoints:
    """Return the checkpoints, with the audited partitions sorted into those to reuse and those to compute again."""
    audited = standing(session, spec.table, audited)
    runs = owners(audited)
    rejected = rejected_runs(session, spec.table, runs) if runs else set[str]()
    same = [one for one in audited if one.code == code and one.run_id not in rejected]
    # A fingerprint reads the live rows of its partition, so only partitions that may be kept get one.
    changed = _changed(session, same, spec, partition_slice)
    kept: list[StagedPartition] = []
    outdated: list[tuple[StagedPartition, str]] = []
    for one in audited:
        if one.run_id in rejected:
            # A failed audit is usually fixed in the source, and the run's other partitions also come from that source.
            outdated.append((one, f"audits rejected run {one.run_id}, which staged them"))
        elif one.code != code:
            outdated.append((one, f"the code changed from {one.code} to {code}"))
        elif one.key in changed:
            outdated.append((one, "the live partition changed since"))
        else:
            kept.append(one)
    unaudited = standing(session, spec.table, unaudited)
    return Checkpoints(kept=kept, outdated=outdated, unaudited=unaudited)


def _changed(
    session: Session, found: Sequence[StagedPartition], spec: TableSpec, partition_slice: PartitionSlice
) -> set[str]:
    """Return the partitions whose live rows changed after the partitions were staged."""
    if not found:
        return set()
    live = session.tables.columns(spec.table)
    names = None if live is None else names_of(live)
    # Equal rows have other hashes over other columns, so these partitions count as changed.
    changed = {one.key for one in found if not one.knows(names)}
    rest = [one for one in found if one.key not in changed]
    if names is None or not rest:
        return changed
    chosen = partition_slice.only(one.key for one in rest)
    now = live_fingerprints(session, live_slice(session, spec=spec, partition_slice=chosen, names=names), names)
    return changed | {one.key for one in rest if now[one.key] != one.fingerprint}
