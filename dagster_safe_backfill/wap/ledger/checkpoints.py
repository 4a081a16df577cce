"""Checkpoints: partitions that an earlier run has staged or published, so that they aren't computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dagster_safe_backfill.model.events import Event
from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableSpec, names_of
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.history import rejections
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions, standing
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.warehouses.base import Session

_UNKNOWN = "what made them isn't recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The partitions of a slice that earlier runs have staged or published.

    Attributes:
        staged: The partitions that passed their audits and would be computed the same today.
        published: The live partitions that would be computed the same today.
        outdated: The other partitions that passed their audits, each with the reason why it is computed again.
        unaudited: The partitions that are staged but not audited. They are useless once their run has ended.
        rejections: A mapping from each run whose audits rejected rows of the table to the time of the last rejection.
            Who fixes a source after that may have changed all rows that were computed before, or by that run.
    """

    staged: Sequence[StagedPartition] = ()
    published: Sequence[StagedPartition] = ()
    outdated: Sequence[tuple[StagedPartition, str]] = ()
    unaudited: Sequence[StagedPartition] = ()
    rejections: Mapping[str, datetime] = field(default_factory=dict[str, datetime])

    def is_rejected(self, one: StagedPartition) -> bool:
        """Return True if audits rejected rows of the table after a partition was computed, or in the run that did."""
        if not {one.run_id, one.computed_by}.isdisjoint(self.rejections):
            return True
        return any(one.computed_at < at for at in self.rejections.values())


def checkpoints(
    session: Session,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    expected: Mapping[str, Provenance],
    looks_for_published: bool,
    assets: Sequence[str] = (),
) -> Checkpoints:
    """Return the checkpoints of a slice; a read-only session is enough.

    A partition has a checkpoint if the last event of the partition, over all groups, is `audited`.

    Args:
        session: An open session.
        spec: How the live table is kept.
        partition_slice: The partitions.
        expected: A mapping from partition key to what would make its rows now.
        looks_for_published: True to return live partitions as well.
        assets: See `staged_partitions`.
    """
    last: dict[str, StagedPartition] = {}
    unaudited: list[StagedPartition] = []
    for one in staged_partitions(session, spec.table, keys=partition_slice.keys, assets=assets):
        last[one.key] = one
        if one.event == "staged":
            unaudited.append(one)
    passed = _with_event("audited", last, partition_slice)
    audited = standing(session, spec.table, passed)
    live = _with_event("published", last, partition_slice) if looks_for_published else []
    if not passed and not live and not unaudited:
        return Checkpoints()
    same: list[StagedPartition] = []
    kept = {one.key for one in audited}
    outdated = [(one, "their shadow was dropped") for one in passed if one.key not in kept]
    for one in (*audited, *live):
        reason = _UNKNOWN if one.provenance is None else one.provenance.why_changed(expected[one.key])
        if reason is None:
            same.append(one)
        elif one.event == "audited":
            outdated.append((one, reason))
    changed = _changed(session, same, spec, partition_slice)
    outdated += [
        (one, "the live partition changed since") for one in same if one.event == "audited" and one.key in changed
    ]
    return Checkpoints(
        staged=[one for one in same if one.event == "audited" and one.key not in changed],
        published=[one for one in same if one.event == "published" and one.key not in changed],
        outdated=outdated,
        unaudited=standing(session, spec.table, unaudited),
        rejections=rejections(session, spec.table) if audited else {},
    )


def _with_event(
    event: Event, last: Mapping[str, StagedPartition], partition_slice: PartitionSlice
) -> list[StagedPartition]:
    return [last[key] for key in partition_slice.keys if key in last and last[key].event == event]


def _changed(
    session: Session, found: Sequence[StagedPartition], spec: TableSpec, partition_slice: PartitionSlice
) -> set[str]:
    """Return the partitions whose live rows changed after the partitions were staged or published."""
    if not found:
        return set()
    live = session.tables.columns(spec.table)
    names = None if live is None else names_of(live)
    changed = {one.key for one in found if not one.knows(names)}
    rest = [one for one in found if one.key not in changed]
    if live is None or not rest:
        return changed
    # Also the partitions that rows will leave once they are published.
    chosen = partition_slice.only(one.key for one in rest).beside(key for one in rest for key in one.left)
    now = live_fingerprints(session, live_slice(session, spec=spec, partition_slice=chosen, columns=live), live)
    for one in rest:
        if any(now.get(key) != found for key, found in {**one.left, one.key: one.fingerprint}.items()):
            changed.add(one.key)
    return changed
