"""The batches of a run: what earlier runs have staged or published is reused, the rest is computed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import dagster as dg

from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.provenance import AUDITS
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import StagedPartition
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.runs.backfills import has_ended, known_runs, why_not_continued, why_not_reused
from dagster_safe_backfill.runs.limits.deadlines import Deadline
from dagster_safe_backfill.runs.private_dagster import upstream_partitions
from dagster_safe_backfill.runs.provenance.parts import audits_digest
from dagster_safe_backfill.runs.run import ComputingRun
from dagster_safe_backfill.wap.collect import why_unfit
from dagster_safe_backfill.wap.ledger.checkpoints import Checkpoints, checkpoints
from dagster_safe_backfill.wap.ledger.clock import AGREED
from dagster_safe_backfill.wap.ledger.history import Change, changes_by
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.retention import discard
from dagster_safe_backfill.wap.write import LiveBefore, live_before
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A part of a run's partitions, which is written, audited and published (or collected) together.

    Attributes:
        shadow: The shadow for its rows.
        staged: The partitions that are reused, where earlier runs have staged them; empty if they are to be computed.
        before: The live table when the run looked at it, if it looked for this batch.
        is_canary: True if the run stops when this batch is rejected.
    """

    partition_slice: PartitionSlice
    shadow: TableRef
    staged: Sequence[StagedPartition] = ()
    before: LiveBefore | None = None
    is_canary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What is left to do for a run.

    Attributes:
        batches: The batches to write or collect, and audit.
        published: A mapping from the key of each partition that is done to the change that published it: by this run
            before a retry, or by the run that it re-executes.
    """

    batches: Sequence[Batch]
    published: Mapping[str, Change] = field(default_factory=dict[str, Change])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a look at the warehouse found; `before` only if nothing is staged, as else the first batch isn't known.

    `unfit` has the staged partitions whose shadows can't be used, each with the reason.
    """

    earlier: Checkpoints = field(default_factory=Checkpoints)
    unfit: Mapping[str, str] = field(default_factory=dict[str, str])
    changes: Mapping[str, Change] = field(default_factory=dict[str, Change])
    before: LiveBefore | None = None


def remaining(run: ComputingRun) -> Remaining:
    """Return what is left to do for a run: the batches that it computes and, after the first, the one that it reuses.

    The first batch shows which columns the user's function returns now. See `fitting`.
    """
    partitions, size = run.partition_slice, run.options.batches.size
    if run.plan is not None:
        run.plan.check_code(run.parts.get("code"), partitions.keys)
    found = _look(run, cut(partitions, partitions.keys, size=size)[0])
    earlier = found.earlier
    # Without this, the shadow of a run that was killed between write and audit would wait for the retention job.
    if earlier.unaudited:
        _discard(run, earlier.unaudited)
    staged, published = _reused(run, found)
    missing, used = dict.fromkeys(partitions.keys), set[TableRef | None]()
    for key in published:
        del missing[key]
    for one in staged:
        del missing[one.key]
        used.add(one.shadow)
    slices = cut(partitions, missing, size=size)
    if run.is_newest_first:
        slices.reverse()
    shadows = _free_shadows(run, len(slices) + bool(staged), used)
    batches: list[Batch] = []
    for piece, shadow in zip(slices, shadows, strict=False):
        is_canary = not batches and run.options.batches.canary
        before = None if batches else found.before
        batches.append(Batch(partition_slice=piece, shadow=shadow, before=before, is_canary=is_canary))
    if staged:
        of_staged = partitions.only(one.key for one in staged)
        batches.insert(1, Batch(partition_slice=of_staged, shadow=shadows[-1], staged=staged))
    return Remaining(batches=batches, published={key: found.changes[key] for key in published})


def fitting(run: ComputingRun, batches: Sequence[Batch], *, like: Sequence[Column]) -> Sequence[Batch]:
    """Return a run's batches after the first one; all their rows can be published with those of the first.

    Staged partitions whose rows can't are computed in batches at the end. The log names them and the reason.

    Args:
        run: The run.
        batches: Its batches.
        like: The columns of the first batch, which is done.
    """
    others = [*batches[1:]]
    reused = next((batch for batch in others if batch.staged), None)
    if reused is None:
        return others
    spec, partitions = run.spec, reused.partition_slice

    def attempt(session: Session) -> dict[str, str]:
        # The rows are counted again, because the user's function may have taken hours since the run's first look.
        return why_unfit(session, reused.staged, spec=spec, partition_slice=partitions, like=like)

    deadline = run.deadline(f"looking at what is staged of {partitions} of {spec.table}")
    why = run.attempt(attempt, deadline=deadline, read_only=True)
    if not why:
        return others
    _log_computed_again(run.context, why)
    others.remove(reused)
    kept = [one for one in reused.staged if one.key not in why]
    if kept:
        others.insert(0, replace(reused, partition_slice=partitions.only(one.key for one in kept), staged=kept))
    slices = cut(run.partition_slice, why, size=run.options.batches.size)
    shadows = _free_shadows(run, len(slices), {*(one.shadow for one in (*batches, *reused.staged))})
    again = [Batch(partition_slice=piece, shadow=shadow) for piece, shadow in zip(slices, shadows, strict=True)]
    return [*others, *again]


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


def _look(run: ComputingRun, first: PartitionSlice) -> _Found:
    """Return what earlier runs staged and published of a run's partitions, and the live table for its first batch."""
    now = datetime.now(timezone.utc)
    spec, partitions, batches = run.spec, run.partition_slice, run.options.batches
    expected = run.made_by(partitions, reads_now=False) if batches.resume else {}

    def attempt(session: Session) -> _Found:
        check_owner(session, spec.table, origin=run.origin, keys=partitions.keys)
        if not expected:
            return _Found(before=_planned(run, session, first))
        earlier = checkpoints(
            session,
            spec=spec,
            partition_slice=partitions,
            expected=expected,
            looks_for_published=batches.publish_each,
            assets=run.origin.assets,
        )
        if earlier.staged or earlier.outdated or earlier.published:
            unfit = why_unfit(session, earlier.staged, spec=spec, partition_slice=partitions) if earlier.staged else {}
            ids = {one.publication_id for one in earlier.published}
            changes = changes_by(session, spec.table, *ids) if ids else []
            return _Found(earlier=earlier, unfit=unfit, changes={change.key: change for change in changes})
        return _Found(earlier=earlier, before=_planned(run, session, first))

    deadline = run.deadline(f"looking for what is staged of {partitions} of {spec.table}")
    try:
        return run.attempt(attempt, deadline=deadline, read_only=True)
    except TableNotFoundError:
        return _Found(before=_without_database(run, first, now))


def _discard(run: ComputingRun, unaudited: Sequence[StagedPartition]) -> None:
    """Drop what runs that have ended had staged, and not audited any more."""
    owners = {one.shadow: one.run_id for one in unaudited if one.shadow is not None}
    # A run that is still running may be about to audit its shadow.
    ended = run.ended(unaudited)
    _log_left_alone(run.context, owners)
    shadows = [shadow for shadow, run_id in owners.items() if run_id in ended]
    if not shadows:
        return
    named = listed([*map(str, shadows)])

    def attempt(session: Session) -> None:
        discard(session, shadows, table=run.spec.table, origin=run.origin)

    run.attempt(attempt, deadline=run.deadline(f"dropping {named}"))
    run.context.log.info(f"dropped {named}: staged by runs that ended before its audit")


def _log_left_alone(context: dg.AssetExecutionContext, owners: Mapping[TableRef, str]) -> None:
    unknown = known_runs(context.instance, owners.values()).unknown
    left = [str(shadow) for shadow, run_id in owners.items() if run_id in unknown]
    if left:
        context.log.warning(
            f"left {listed(left)} alone: this Dagster doesn't know run {listed(sorted(unknown))}, which staged them and"
            " hasn't audited them. It was deleted, or goes on in another Dagster. The retention job drops them later."
        )


def look_at_live(run: ComputingRun, partition_slice: PartitionSlice, deadline: Deadline) -> LiveBefore:
    """Return what live is now, in a read-only session.

    Raises:
        PlanChangedError: It isn't what the run's plan was made from.
    """
    now = datetime.now(timezone.utc)

    def attempt(session: Session) -> LiveBefore:
        return _planned(run, session, partition_slice)

    try:
        return run.attempt(attempt, deadline=deadline, read_only=True)
    except TableNotFoundError:
        return _without_database(run, partition_slice, now)


def _planned(run: ComputingRun, session: Session, partition_slice: PartitionSlice) -> LiveBefore:
    """Return what live is now, if it is what the run's plan was made from."""
    before = live_before(session, spec=run.spec, partition_slice=partition_slice)
    if run.plan is not None:
        run.plan.check_live(session, partition_slice.keys, before.fingerprints)
    return before


def _without_database(run: ComputingRun, partition_slice: PartitionSlice, at: datetime) -> LiveBefore:
    before = LiveBefore(at=at)
    if run.plan is not None:
        run.plan.check_live(None, partition_slice.keys, before.fingerprints)
    return before


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


def _reused(run: ComputingRun, found: _Found) -> tuple[Sequence[StagedPartition], Sequence[str]]:
    """Return the staged partitions that a run reuses, and the keys of those that are done; log both, and why not."""
    context, earlier = run.context, found.earlier
    why = _why_not_reused(run, earlier)
    why = {**found.unfit, **why}
    done, other_audits = _done(run, earlier)
    why |= dict.fromkeys(other_audits, "other audits passed them")
    kept = [one for one in earlier.staged if one.key not in why]
    if run.reads_itself:
        # The partitions that they were computed from may have been staged with them, and not be live.
        why |= dict.fromkeys((one.key for one in kept), "the asset reads its own partitions, and these aren't live yet")
        kept = []
        for key in _built_on_others(run, set(done)):
            why[key] = "they were computed from partitions of the same asset that are computed again"
    _log_computed_again(context, why)
    if kept:
        _log_reused(context, kept)
    done = [key for key in done if key not in why]
    if done:
        context.log.info(f"{listed(done)} were published by this run or by the run that it re-executes, and are done")
    return kept, done


def _why_not_reused(run: ComputingRun, earlier: Checkpoints) -> dict[str, str]:
    """Return a mapping from the key of each staged partition that is computed again to the reason."""
    context = run.context
    why: dict[str, str] = {one.key: reason for one, reason in earlier.outdated}
    endings: dict[tuple[str, bool], str | None] = {}
    step_key, resume = context.get_step_execution_context().step.key, run.options.batches.resume
    now = datetime.now(timezone.utc)
    oldest = now - run.options.batches.resume_within
    for one in earlier.staged:
        is_rejected = earlier.is_rejected(one)
        for run_id in dict.fromkeys((one.run_id, one.computed_by)):
            about = run_id, is_rejected
            if about not in endings:
                endings[about] = why_not_reused(
                    context.run, context.instance, run_id, step_key=step_key, is_rejected=is_rejected, resume=resume
                )
            reason = endings[about]
            if reason is None and run_id != context.run_id and one.computed_at < oldest:
                reason = f"they were computed before {oldest:%Y-%m-%d %H:%M %Z}, and resume_within is over"
            if reason is None and run_id != context.run_id and one.computed_at > now + AGREED:
                reason = "they are dated more than a day ahead of this machine's clock, so their age isn't known"
            if reason is not None:
                why.setdefault(one.key, reason)
    return why


def _done(run: ComputingRun, earlier: Checkpoints) -> tuple[list[str], list[str]]:
    """Return the keys of the partitions that are done, and of those that would be, had the same audits passed them."""
    context, audits = run.context, audits_digest(run.asset.audits)
    step_key = context.get_step_execution_context().step.key
    done: list[str] = []
    other_audits: list[str] = []
    for one in earlier.published:
        if why_not_continued(context.run, context.instance, one.run_id, step_key=step_key) is None:
            is_same = one.provenance is not None and one.provenance.parts.get(AUDITS) == audits
            (done if is_same else other_audits).append(one.key)
    return done, other_audits


def _built_on_others(run: ComputingRun, done: set[str]) -> set[str]:
    """Return the published partitions of an asset that reads itself that were computed from some computed again."""
    keys = run.partition_slice.keys
    read_by = upstream_partitions(run.context, run.context.asset_key, keys)
    computed, built = set(keys) - done, set[str]()
    for key in keys:
        read = read_by[key]
        if key in done and (read is None or not computed.isdisjoint(read)):
            computed.add(key)
            built.add(key)
    return built


def _log_computed_again(context: dg.AssetExecutionContext, why: Mapping[str, str]) -> None:
    by_reason: dict[str, list[str]] = {}
    for key, reason in why.items():
        by_reason.setdefault(reason, []).append(key)
    for reason, keys in by_reason.items():
        context.log.warning(f"{listed(keys)} were staged and audited, and are computed again: {reason}")


def _log_reused(context: dg.AssetExecutionContext, kept: Sequence[StagedPartition]) -> None:
    runs = list(dict.fromkeys(one.run_id for one in kept))
    context.log.info(
        f"reusing {len(kept)} partitions that run {listed(runs)} has staged and audited"
        f" ({listed([one.key for one in kept])}); Batches(resume=False) would compute them again"
    )
    running = [run_id for run_id in runs if run_id != context.run_id and not has_ended(context.instance, run_id)]
    if running:
        context.log.warning(
            f"run {listed(running)} has not ended, as far as Dagster knows, so it keeps what it has staged. If its"
            " process is gone, terminate it in Dagster, and the retention job drops its shadows."
        )
