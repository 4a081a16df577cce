"""What a run does that computes partitions: of a `@wap_asset`, whose rows it publishes, or of an `x__shadow`.

```text
check; for each batch: look at live, compute; write, audit (and publish) in one session; publish together; report
```
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg

from dagster_safe_backfill.model.provenance import Provenance
from dagster_safe_backfill.model.states import Audited, Origin, Published, Rejected, Staged
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.reports.events import (
    RunReport,
    all_done,
    columns_metadata,
    earlier_numbers,
    final_events,
    log_evaluation,
    log_left,
    materialization_event,
    materialization_events,
    numbers_by_partition,
    partly_published,
    rejection,
    report_of,
    staged_numbers,
    warn,
    with_additions,
)
from dagster_safe_backfill.reports.progress import Progress
from dagster_safe_backfill.runs.backfills import group_of, targeted_keys
from dagster_safe_backfill.runs.declared import ComputedAsset
from dagster_safe_backfill.runs.limits.allowed import check_hours
from dagster_safe_backfill.runs.limits.deadlines import Deadline
from dagster_safe_backfill.runs.partitions import check_recordable, check_recorded, unrecordable
from dagster_safe_backfill.runs.private_dagster import add_partition_metadata
from dagster_safe_backfill.runs.resume import Batch, Remaining, fitting, look_at_live, remaining
from dagster_safe_backfill.runs.run import ComputingRun, computing_run
from dagster_safe_backfill.wap.audit import Gate, audit, audit_together, passed_part, together
from dagster_safe_backfill.wap.collect import collect, free_shadow, stands_in
from dagster_safe_backfill.wap.ledger.history import changes_by, publication_of_batch
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.write import LiveBefore, write
from dagster_safe_backfill.warehouses.base import Session
from dagster_safe_backfill.warehouses.frames import dtypes_of, rereadable


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What came of a batch; `published` is what of it went live by itself."""

    judged: Audited | Rejected
    published: Published | None = None


@dataclass(slots=True, kw_only=True)
class _Work:
    """What is done of a batch so far: an attempt goes on from what the one before it has committed.

    Attributes:
        deadline: Of all attempts together, and of the computation.
        before: The live table before the rows were computed; None if they are staged already.
        made_by: A mapping from partition key to what made its rows; None if they are staged already.
        rows: The rows that the user's function returned.
        judged: The batch, once it is written and audited.
        origin: Who publishes it, where each batch is a publication of its own.
    """

    batch: Batch
    deadline: Deadline
    before: LiveBefore | None = None
    made_by: Mapping[str, Provenance] | None = None
    rows: object = None
    judged: Audited | Rejected | None = None
    origin: Origin | None = None


def run_wap_asset(
    context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object], *, asset: ComputedAsset
) -> Iterator[object]:
    """Yield the check results of a run of a `@wap_asset`, and its materialization if all of it was published.

    Raises:
        dagster.Failure: Blocking audits failed; caused by `AuditFailedError`.
        SafeBackfillError: The run's partitions or rows can't be worked on; what it had not published stays staged.
    """
    started = time.monotonic()
    is_each = asset.live.options.batches.publish_each
    # With publish_each, every batch gets an id of its own when it is published, so the run's sessions have none.
    publication_id = None if is_each else context.run_id
    group = context.run_id
    run = computing_run(context, io_manager, arguments, asset=asset, group=group, publication_id=publication_id)
    left = remaining(run)
    if is_each:
        report = _publish_each(run, left)
    elif len(left.batches) == 1:
        report = _publish_alone(run, left.batches[0])
    else:
        report = _publish_together(run, left.batches)
    yield from _checked(run, report)
    for published in report.published:
        warn(context, published)
        # With publish_each, each batch has logged its own.
        if not is_each:
            _log_left(run, published)
    numbers = numbers_by_partition(report.published, seconds=time.monotonic() - started)
    numbers |= earlier_numbers(left.published)
    # Once, as it is on all of the run: on the partition that Dagster logs last, which the asset's page shows.
    numbers[run.partition_slice.keys[-1]] |= report.shown
    live = {key: one.publication_id for one in report.published for key in one.audited.staged.keys}
    live |= {key: change.publication_id for key, change in left.published.items()}
    # With publish_each, the batches of this run are recorded already.
    unrecorded = earlier_numbers(left.published) if is_each else numbers
    key = context.asset_key
    events = (materialization_event(key, one, shown, run.additions) for one, shown in unrecorded.items())
    check_recorded(context, run.partition_slice.keys, published=live, events=events)
    add_partition_metadata(context, with_additions(numbers, run.additions))
    yield from final_events(context, run.partition_slice.keys, run.additions)


def run_shadow(
    context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object], *, asset: ComputedAsset
) -> Iterator[object]:
    """Yield the check results of a run of an `x__shadow`, and its materialization if all of it passed.

    Raises:
        dagster.Failure: Blocking audits failed; the partitions that passed are materialized.
        SafeBackfillError: The run's partitions or rows can't be worked on.
    """
    started = time.monotonic()
    run = computing_run(context, io_manager, arguments, asset=asset, group=group_of(context))
    batches = remaining(run).batches
    parts = [done.judged for done in _run_batches(run, batches, "part_of_group")]
    judged = together(parts, audits=asset.audits, partition_slice=run.partition_slice)
    failure = rejection(judged, parts, batches=len(batches)) if isinstance(judged, Rejected) else None
    report = report_of(context, judged, failure=failure, goes_live=False, logs_by_partition=asset.logs_by_partition)
    numbers = staged_numbers(parts, seconds=time.monotonic() - started)
    if isinstance(judged, Rejected):
        # Logged one by one, these partitions are green although the run fails, so a re-execution of its backfill from
        # failure asks only for the others (Dagster 1.13.27).
        for key in set(judged.staged.keys) - set(judged.blocked):
            context.log_event(materialization_event(context.asset_key, key, numbers[key], run.additions))
    yield from _checked(run, report)
    numbers[run.partition_slice.keys[-1]] |= report.shown
    check_recordable(context, run.partition_slice.keys, what="they are staged, and not published")
    add_partition_metadata(context, with_additions(numbers, run.additions))
    yield from final_events(context, run.partition_slice.keys, run.additions, metadata={"scope": run.origin.group})


def _run_batches(run: ComputingRun, batches: Sequence[Batch], gate: Gate) -> list[_Done]:
    """Compute, write and audit batch by batch, and publish each that is a publication of its own.

    Raises:
        OutsideAllowedHoursError: The hours in which batches may start have ended.
        SafeBackfillError: A batch can't be worked on. Those before it are kept.
    """
    progress = Progress(asset=run.context.asset_key, partitions=len(run.partition_slice))
    done: list[_Done] = []
    while len(done) < len(batches):
        batch, started = batches[len(done)], time.monotonic()
        # Batches that are published together are collected in one table, so all get the columns of the first one.
        like = done[-1].judged.staged.shadow if done else None
        one = _run_batch(run, batch, gate, like=like)
        done.append(one)
        # Each event costs about 16 ms on SQLite, so a run of one batch logs none besides those of Dagster.
        if len(batches) > 1:
            number, seconds = len(done), time.monotonic() - started
            what = progress.add(one.judged, number=number, batches=len(batches), seconds=seconds)
            run.context.log.info(f"{what}; {progress}")
            run.context.log_event(progress.observation(what, number=number, batches=len(batches)))
        if one.published is not None:
            # Logged now, so that these partitions are green even if a later batch fails.
            for event in materialization_events(run.context.asset_key, one.published, run.additions):
                run.context.log_event(event)
            _log_left(run, one.published)
        # If a later batch is rejected, the others are still computed, so that one run finds all bad partitions.
        # Not if they would be computed from what was rejected.
        if isinstance(one.judged, Rejected) and (batch.is_canary or run.reads_itself):
            break
        if len(done) == 1:
            # Only now it is known which columns the function returns, and so which staged rows can be reused with them.
            batches = [batch, *fitting(run, batches, like=one.judged.staged.columns)]
    return done


def _run_batch(run: ComputingRun, batch: Batch, gate: Gate, *, like: TableRef | None) -> _Done:
    work = _begin(run, batch)

    def attempt(session: Session) -> _Done:
        judged = _judge(session, run, work, gate, like=like)
        published = _publish_passed(session, run, work, judged) if gate == "partition" else None
        return _Done(judged=judged, published=published)

    return run.attempt(attempt, deadline=work.deadline)


def _begin(run: ComputingRun, batch: Batch) -> _Work:
    """Compute a batch's rows, unless they are staged; no session is open while the user's function runs."""
    piece, table = batch.partition_slice, run.spec.table
    hours = run.options.limits.hours
    # Checked for each batch before its work: a batch that has started runs to its end.
    if hours is not None:
        check_hours(hours, table=table, what=f"{piece} and what follows")
    deadline = run.deadline(f"{piece} of {table}")
    if batch.staged:
        return _Work(batch=batch, deadline=deadline)
    # Before the computation, so that the publication notices whoever changes the live table while rows are computed.
    before = batch.before or look_at_live(run, piece, deadline)
    run.context.log.info(f"computing {piece} of {table}")
    # If an upstream asset changes while the function runs, the rows count as computed before that change.
    made_by = run.made_by(piece, reads_now=True)
    # A retry writes the rows again, and an Arrow stream can be read only once.
    rows = rereadable(run.compute(piece, deadline))
    _add_columns(run, piece.keys[-1], dtypes_of(rows))
    return _Work(batch=batch, deadline=deadline, before=before, made_by=made_by, rows=rows)


def _add_columns(run: ComputingRun, key: str, dtypes: Mapping[str, str]) -> None:
    """Add a frame's columns to the event of one partition of a call: they may be many."""
    shown = columns_metadata(dtypes)
    if shown:
        asset, own = run.context.asset_key, run.additions.get(key)
        metadata = {**shown, **own.metadata} if own else shown
        run.additions[key] = dg.AssetMaterialization(
            asset, partition=key, metadata=metadata, tags=own.tags if own else None
        )


def _judge(
    session: Session, run: ComputingRun, work: _Work, gate: Gate, *, like: TableRef | None = None
) -> Audited | Rejected:
    """Write a batch, or collect it where it is staged, and audit it; once, whatever fails afterwards."""
    # An earlier attempt wrote and audited the batch, and then failed to publish it.
    if work.judged is not None:
        return work.judged
    if work.before is None:
        staged = _collect(session, run, work.batch)
    else:
        staged = write(
            session,
            work.rows,
            spec=run.spec,
            partition_slice=work.batch.partition_slice,
            origin=run.origin,
            shadow=work.batch.shadow,
            like=like,
            before=work.before,
            made_by=work.made_by,
        )
    audits = run.asset.audits
    # Audits over the run need all batches: `_judge_together` measures them.
    if gate == "part_of_run":
        audits = [one for one in audits if not one.is_over_run]
    columns = run.options.checks.sample_columns
    work.judged = audit(session, staged, audits, origin=run.origin, gate=gate, sample_columns=columns)
    return work.judged


def _collect(session: Session, run: ComputingRun, batch: Batch) -> Staged:
    """Collect in one shadow what the run takes up."""
    table = run.spec.table
    staged, into = stands_in(session, table, batch.staged, into=batch.shadow, origin=run.origin)
    return collect(
        session,
        staged,
        spec=run.spec,
        partition_slice=batch.partition_slice,
        into=into,
        origin=run.origin,
        ended_runs=run.ended(staged),
    )


def _publish_passed(session: Session, run: ComputingRun, work: _Work, judged: Audited | Rejected) -> Published | None:
    """Publish the partitions of a batch that nothing blocks, under an id of their own."""
    # Numbered once: after a COMMIT whose reply was lost, `publish` finds its publication only by the same number.
    if work.origin is None:
        work.origin = publication_of_batch(session, run.spec.table, run.origin)
    if isinstance(judged, Audited):
        passed = judged
    else:
        # The partitions that passed may be computed from those of the same batch that didn't.
        passed = None if run.reads_itself else passed_part(session, judged, origin=work.origin)
    _check_partitions(session, run, work.origin)
    return None if passed is None else publish(session, passed, rules=run.options.publish, origin=work.origin)


def _publish_each(run: ComputingRun, left: Remaining) -> RunReport:
    """Publish what passes of each batch as soon as it is audited."""
    if not left.batches:
        return all_done(run.asset.audits, left.published)
    done = _run_batches(run, left.batches, "partition")
    parts = [one.judged for one in done]
    published = [one.published for one in done if one.published is not None]
    judged = together(parts, audits=run.asset.audits, partition_slice=run.partition_slice)
    failure = None
    if isinstance(judged, Rejected):
        failure = partly_published(judged, parts, published, asked=run.partition_slice, before=[*left.published])
        # A run that fails tells Dagster nothing of them, and the run that published them may have been killed first.
        for key, numbers in earlier_numbers(left.published).items():
            run.context.log_event(dg.AssetMaterialization(run.context.asset_key, partition=key, metadata=numbers))
    report = report_of(run.context, judged, failure=failure, logs_by_partition=run.asset.logs_by_partition)
    return replace(report, published=published)


def _publish_alone(run: ComputingRun, batch: Batch) -> RunReport:
    """Publish all of the run as one batch, or nothing."""
    work = _begin(run, batch)

    def attempt(session: Session) -> RunReport:
        return _report_and_publish(session, run, _judge(session, run, work, "run"))

    return run.attempt(attempt, deadline=work.deadline)


def _publish_together(run: ComputingRun, batches: Sequence[Batch]) -> RunReport:
    """Stage all batches, and publish them together, or nothing."""
    parts = [done.judged for done in _run_batches(run, batches, "part_of_run")]
    of_batches = together(parts, audits=run.asset.audits, partition_slice=run.partition_slice)
    if isinstance(of_batches, Rejected):
        failure = rejection(of_batches, parts, batches=len(batches))
        return report_of(run.context, of_batches, failure=failure, logs_by_partition=run.asset.logs_by_partition)

    def attempt(session: Session) -> RunReport:
        if changes_by(session, run.spec.table, run.origin.publication_id):
            # An earlier attempt committed, and failed afterwards; publishing says what it did.
            return _report_and_publish(session, run, of_batches)
        return _report_and_publish(session, run, _judge_together(session, run, of_batches))

    return run.attempt(attempt, deadline=run.deadline(f"publishing {run.partition_slice} of {run.spec.table}"))


def _judge_together(session: Session, run: ComputingRun, of_batches: Audited) -> Audited | Rejected:
    """Collect all batches in one shadow, and audit there what spans them."""
    table = run.spec.table
    keys, origin = run.partition_slice.keys, run.origin
    parts = staged_partitions(session, table, keys=keys, group=origin.group, assets=origin.assets)
    staged = collect(
        session,
        parts,
        spec=run.spec,
        partition_slice=run.partition_slice,
        into=free_shadow(table, run.origin.run_id, parts),
        origin=run.origin,
        ended_runs=run.ended(parts),
    )
    return audit_together(
        session,
        staged,
        run.asset.audits,
        of_batches=of_batches,
        origin=run.origin,
        sample_columns=run.options.checks.sample_columns,
    )


def _report_and_publish(session: Session, run: ComputingRun, judged: Audited | Rejected) -> RunReport:
    """Publish what passed; what is reported is made before anything goes live: what breaks there publishes nothing."""
    failure = rejection(judged, [judged], batches=1) if isinstance(judged, Rejected) else None
    report = report_of(run.context, judged, failure=failure, logs_by_partition=run.asset.logs_by_partition)
    if isinstance(judged, Rejected):
        return report
    _check_partitions(session, run, run.origin)
    published = publish(session, judged, rules=run.options.publish, origin=run.origin)
    return replace(report, published=[published])


def _log_left(run: ComputingRun, published: Published) -> None:
    covered = {*run.partition_slice.keys, *(targeted_keys(run.context) if published.left else ())}
    log_left(run.context, published, covered=covered)


def _check_partitions(session: Session, run: ComputingRun, origin: Origin) -> None:
    """Refuse to publish partitions that Dagster couldn't record, unless an earlier attempt has published them.

    Raises:
        PartitionsChangedError: Some of the run's partitions were deleted or reordered while it computed.
    """
    keys = run.partition_slice.keys
    if unrecordable(run.context, keys) and not changes_by(session, run.spec.table, origin.publication_id):
        check_recordable(run.context, keys, what="nothing was published now; what is staged stays staged")


def _checked(run: ComputingRun, report: RunReport) -> Iterator[object]:
    """Yield the check results of a run, and fail if it has failed."""
    for evaluation in report.evaluations:
        log_evaluation(run.context, evaluation)
    yield from report.checks
    # A failed blocking check doesn't stop the step that yields it (Dagster 1.13.27), so without this error the asset
    # would be materialized.
    if report.failure is not None:
        raise report.failure
