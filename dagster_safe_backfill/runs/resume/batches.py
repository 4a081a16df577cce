"""The batches of a run: what an earlier one had staged before it crashed is taken up, the rest is to be computed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.runs.backfills import is_over, why_not_resumed
from dagster_safe_backfill.runs.deadlines import Deadline
from dagster_safe_backfill.runs.partitions import order_of
from dagster_safe_backfill.runs.run import ComputingRun
from dagster_safe_backfill.wap.ledger.checkpoints import Checkpoints, checkpoints
from dagster_safe_backfill.wap.retention import discard
from dagster_safe_backfill.wap.write import LiveBefore, live_before
from dagster_safe_backfill.warehouses.base import Session

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A part of a run's partitions, which is written, audited and published (or collected) together.

    Attributes:
        shadow: Where its rows are staged.
        staged: Where the run that this one re-executes has staged them; empty if they are to be computed.
        before: What live was when the run looked, if it looked for this batch.
        is_canary: Whether the run stops if it is rejected.
    """

    partition_slice: PartitionSlice
    shadow: TableRef
    staged: Sequence[StagedPartition] = ()
    before: LiveBefore | None = None
    is_canary: bool = False


def batches_of(run: ComputingRun) -> list[Batch]:
    """Return the batches of a run: what it takes up, then what it computes."""
    partitions, size = run.partition_slice, run.options.batches.size
    earlier, before = _look(run, cut(partitions, partitions.keys, size=size)[0])
    staged: Sequence[StagedPartition] = ()
    if earlier.kept or earlier.outdated:
        staged = taken_up(run.context, earlier.kept, refused=earlier.outdated)
    # Without this, the shadow of a run that was killed between write and audit would wait for the retention job.
    if earlier.unaudited:
        _discard(run, earlier.unaudited)
    missing, used = dict.fromkeys(partitions.keys), set[TableRef | None]()
    for one in staged:
        del missing[one.key]
        used.add(one.shadow)
    slices = cut(partitions, missing, size=size)
    shadows = _free_shadows(run, len(slices) + bool(staged), used)
    batches: list[Batch] = []
    if staged:
        of_staged = partitions.only(one.key for one in staged)
        batches.append(Batch(partition_slice=of_staged, shadow=shadows.pop(), staged=staged))
    is_first = True
    for piece, shadow in zip(slices, shadows, strict=True):
        is_canary = is_first and run.options.batches.canary
        batches.append(
            Batch(partition_slice=piece, shadow=shadow, before=before if is_first else None, is_canary=is_canary)
        )
        is_first = False
    return batches


def _free_shadows(run: ComputingRun, count: int, used: Container[TableRef]) -> list[TableRef]:
    """Return the names of that many shadows of a run in which nothing stands that it takes up."""
    table, run_id = run.spec.table, run.origin.run_id
    alone = table.shadow(run_id)
    if count == 1 and alone not in used:
        return [alone]
    names: list[TableRef] = []
    number = 0
    while len(names) < count:
        number += 1
        name = table.shadow(run_id, batch=number)
        if name not in used:
            names.append(name)
    return names


def _look(run: ComputingRun, first: PartitionSlice) -> tuple[Checkpoints, LiveBefore | None]:
    """Return what earlier runs staged of a run's partitions and, if that is nothing, what live is of its first batch.

    Otherwise the first batch isn't known yet.
    """
    now = datetime.now(timezone.utc)
    spec, partitions = run.spec, run.partition_slice

    def attempt(session: Session) -> tuple[Checkpoints, LiveBefore | None]:
        earlier = Checkpoints()
        if run.options.batches.resume:
            earlier = checkpoints(session, spec=spec, partition_slice=partitions, code=run.origin.code)
        # The first batch is known only once Dagster has been asked which runs' partitions may be reused.
        if earlier.kept or earlier.outdated:
            return earlier, None
        return earlier, live_before(session, spec=spec, partition_slice=first)

    deadline = run.deadline(f"looking for what is staged of {partitions} of {spec.table}")
    try:
        return run.attempt(attempt, deadline=deadline, read_only=True)
    except TableNotFoundError:
        return Checkpoints(), LiveBefore(at=now)


def _discard(run: ComputingRun, unaudited: Sequence[StagedPartition]) -> None:
    """Drop what runs that have ended had staged, and not audited any more."""
    owners = {one.shadow: one.run_id for one in unaudited if one.shadow is not None}
    # A run that is still running may be about to audit its shadow.
    ended = run.ended(unaudited)
    shadows = [shadow for shadow, run_id in owners.items() if run_id in ended]
    if not shadows:
        return
    named = listed([*map(str, shadows)])

    def attempt(session: Session) -> None:
        discard(session, shadows, table=run.spec.table, origin=run.origin)

    run.attempt(attempt, deadline=run.deadline(f"dropping {named}"))
    run.context.log.info(f"dropped {named}: staged by runs that ended before its audit")


def look_at_live(run: ComputingRun, partition_slice: PartitionSlice, deadline: Deadline) -> LiveBefore:
    """Return what live is now, in a read-only session."""
    now = datetime.now(timezone.utc)

    def attempt(session: Session) -> LiveBefore:
        return live_before(session, spec=run.spec, partition_slice=partition_slice)

    try:
        return run.attempt(attempt, deadline=deadline, read_only=True)
    except TableNotFoundError:
        return LiveBefore(at=now)


def cut(partition_slice: PartitionSlice, keys: Iterable[str], *, size: int | None) -> list[PartitionSlice]:
    """Return the slices of some of a slice's keys, of at most `size` each, cut where others of its keys are between."""
    wanted = set(keys)
    pieces: list[list[int]] = []
    last = -1
    for position, key in enumerate(partition_slice.keys):
        if key not in wanted:
            continue
        # A batch doesn't span partitions that need no computation: the user's function gets `start` and `end`.
        if pieces and last == position - 1 and (size is None or len(pieces[-1]) < size):
            pieces[-1].append(position)
        else:
            pieces.append([position])
        last = position
    if pieces == [[*range(len(partition_slice))]]:
        return [partition_slice]
    return [partition_slice.chosen(piece) for piece in pieces]


def taken_up(
    context: dg.AssetExecutionContext,
    staged: Sequence[StagedPartition],
    *,
    refused: Iterable[tuple[StagedPartition, str]],
) -> Sequence[StagedPartition]:
    """Return the partitions that a run takes up, and log which they are, and which are computed anew and why.

    Only a retry or a re-execution of the run that staged a partition takes it up: who launches anew gets it computed.

    Args:
        context: Of the run.
        staged: What is staged and audited of its partitions, and still as it would be computed.
        refused: What is staged and audited, and has to be computed anew, with the reason.
    """
    run_ids = {one.run_id for one in staged}
    reasons = {run_id: why_not_resumed(context.run, context.instance, run_id) for run_id in run_ids}
    computed_at = {one.key: one.computed_at for one in staged if reasons[one.run_id] is None}
    stale = changed_since(context.assets_def, context.asset_key, computed_at, instance=context.instance)
    kept: list[StagedPartition] = []
    anew: dict[str, list[str]] = {}
    for one, reason in refused:
        anew.setdefault(reason, []).append(one.key)
    for one in staged:
        reason = reasons[one.run_id] or stale.get(one.key)
        if reason is None:
            kept.append(one)
        else:
            anew.setdefault(reason, []).append(one.key)
    for reason, keys in anew.items():
        context.log.warning(f"{listed(keys)} were staged and audited, and are computed anew: {reason}")
    if kept:
        _log_taken_up(context, kept)
    return kept


def _log_taken_up(context: dg.AssetExecutionContext, kept: Sequence[StagedPartition]) -> None:
    runs = list(dict.fromkeys(one.run_id for one in kept))
    context.log.info(
        f"taking up {len(kept)} partitions that run {listed(runs)} has staged and audited"
        f" ({listed([one.key for one in kept])}); Batches(resume=False) would compute them again"
    )
    going_on = [run_id for run_id in runs if run_id != context.run_id and not is_over(context.instance, run_id)]
    if going_on:
        context.log.warning(
            f"run {listed(going_on)} goes on, for all that Dagster knows, and so keeps what it has staged; if its"
            " process is gone, terminate it in Dagster, and retention drops its shadows"
        )


def changed_since(
    assets: dg.AssetsDefinition,
    asset_key: dg.AssetKey,
    computed_at: Mapping[str, datetime],
    *,
    instance: dg.DagsterInstance,
) -> dict[str, str]:
    """Return the partitions whose upstream assets have been materialized since, each with the reason.

    A materialization of a partition with the same key counts for that partition; of any other upstream partition, where
    the two assets have the same partitions, for none. Where that can't be told, it counts for all. What isn't an asset
    can't be known.

    Args:
        assets: The definition of the asset.
        asset_key: The asset.
        computed_at: When the computation of each partition began, by its key.
        instance: What knows of the materializations.
    """
    stale: dict[str, str] = {}
    if not computed_at:
        return stale
    oldest = min(computed_at.values())
    definition: dg.PartitionsDefinition[Any] | None = assets.partitions_def
    known = set(order_of(definition, instance)) if definition else set[str]()
    for upstream in sorted(assets.asset_deps[asset_key]):
        if upstream == asset_key:
            continue
        reason = f"{upstream.to_user_string()} was materialized since"
        is_by_key = _is_by_key(assets.get_partition_mapping(upstream))
        for partition, at in _materialized(instance, upstream, oldest):
            # Another partition of the same definition is read by none of these.
            is_told = is_by_key and partition in known
            readers = [key for key in computed_at if key == partition] if is_told else [*computed_at]
            stale |= {key: reason for key in readers if computed_at[key].timestamp() < at}
    return stale


def _materialized(
    instance: dg.DagsterInstance, asset: dg.AssetKey, after: datetime
) -> Iterator[tuple[str | None, float]]:
    """Yield the partition and the time of each materialization after a moment."""
    records_filter = dg.AssetRecordsFilter(asset_key=asset, after_timestamp=after.timestamp())
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(records_filter, limit=_PAGE, cursor=cursor)
        yield from ((record.partition_key, record.timestamp) for record in page.records)
        if not page.has_more:
            return
        cursor = page.cursor


def _is_by_key(mapping: dg.PartitionMapping | None) -> bool:
    """Return whether a partition reads just the one with its own key."""
    # With offsets, a partition also reads others, so a materialization of any partition may concern it.
    if isinstance(mapping, dg.TimeWindowPartitionMapping):
        return mapping.start_offset == 0 == mapping.end_offset
    return mapping is None or isinstance(mapping, dg.IdentityPartitionMapping)
