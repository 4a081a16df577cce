"""What the runs of `x__audit` and `x` do: audit all that is staged together, and publish it once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import NotStagedError
from dagster_safe_backfill.model.provenance import AUDITS, Provenance
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Published, Rejected, StagedPartition
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.events import (
    earlier_numbers,
    log_left,
    numbers_by_partition,
    rejection,
    report_of,
    table_metadata,
    warn,
    with_metadata,
)
from dagster_safe_backfill.runs.backfills import group_of, targeted_keys
from dagster_safe_backfill.runs.declared import LiveAsset, StagedAsset
from dagster_safe_backfill.runs.partitions import check_recordable, check_recorded, order_of, slice_of_run
from dagster_safe_backfill.runs.private_dagster import add_partition_metadata
from dagster_safe_backfill.runs.provenance.inputs import changed_inputs
from dagster_safe_backfill.runs.provenance.parts import audits_digest
from dagster_safe_backfill.runs.run import Run, run_of
from dagster_safe_backfill.wap.audit import approved, audit, check_one_version
from dagster_safe_backfill.wap.collect import collect, free_shadow
from dagster_safe_backfill.wap.ledger.history import Change, publication_of_group
from dagster_safe_backfill.wap.ledger.owner import check_owner
from dagster_safe_backfill.wap.ledger.record import upgrade_ledger
from dagster_safe_backfill.wap.ledger.waiting import of_staged, owners, to_audit
from dagster_safe_backfill.wap.publish import publish, to_publish
from dagster_safe_backfill.warehouses.base import Session

OUTDATED_INPUTS_TAG = "safe_backfill/outdated_inputs"
"""With the value `accept`, a run audits and publishes partitions although their inputs changed since."""


def run_audit(
    context: dg.AssetExecutionContext,
    io_manager: object,
    *,
    staged: StagedAsset,
    audits: Sequence[Audit],
) -> Iterator[object]:
    """Yield the check results of a run of an `x__audit`, and the materialization whose page is the report.

    Raises:
        dagster.Failure: Blocking audits failed: nothing of what is staged together may be published.
        NotStagedError: There is nothing to audit, or what is staged isn't what would be computed now.
    """
    run = run_of(context, io_manager, staged.live, group=group_of(context))
    table = run.spec.table

    def attempt(session: Session) -> tuple[Audited | Rejected, list[str], list[str]]:
        return _judge(session, run, staged, audits)

    judged, left_out, outdated = run.attempt(attempt, deadline=run.deadline(f"auditing what is staged of {table}"))
    failure = rejection(judged, [judged], batches=1) if isinstance(judged, Rejected) else None
    report = report_of(context, judged, failure=failure, goes_live=False)
    yield from report.checks
    shown = {**report.shown, "shadow": str(judged.staged.shadow), "partitions": len(judged.staged.keys)}
    if left_out:
        context.log.warning(f"{table}: staged, but not audited, and so left out: {listed(left_out)}")
        shown["left_out"] = left_out
    if outdated:
        shown["outdated"] = outdated
    if failure is not None:
        raise with_metadata(failure, shown)
    yield dg.MaterializeResult(metadata={"scope": run.origin.group, **shown})


def _judge(
    session: Session, run: Run, staged_asset: StagedAsset, audits: Sequence[Audit]
) -> tuple[Audited | Rejected, list[str], list[str]]:
    """Audit all that waits to be published together.

    Returns:
        The result, the keys of the partitions that are left out, and those of partitions with outdated inputs.
    """
    table, live = run.spec.table, staged_asset.live
    session.attempt(partial(upgrade_ledger, session, table))
    check_owner(session, table, origin=run.origin)
    waiting, left_out = to_audit(session, table, origin=run.origin)
    waiting, gone = known_partitions(run, live, waiting)
    left_out += gone
    if not waiting:
        raise NotStagedError(
            f"{table}: nothing is staged that could be audited; materialize partitions of"
            f" {live.key.to_user_string()}__shadow first",
            table=str(table),
            keys=left_out,
        )
    # Refused here already, because partitions of several versions couldn't be published after the audit.
    if not run.options.publish.allow_mixed_versions:
        check_one_version(table, waiting)
    outdated = _check_provenance(run, staged_asset, waiting)
    origin = of_staged(run.origin, waiting)
    staged = collect(
        session,
        waiting,
        spec=run.spec,
        partition_slice=live.slice_of(run.context.instance, [one.key for one in waiting]),
        into=free_shadow(table, run.origin.run_id, waiting),
        origin=origin,
        ended_runs=owners(waiting),
    )
    digest = audits_digest(audits)
    staged = replace(staged, provenance={key: one.judged_by(digest) for key, one in staged.provenance.items()})
    columns = run.options.checks.sample_columns
    judged = audit(session, staged, audits, origin=origin, sample_columns=columns, gate="group")
    return judged, left_out, outdated


def known_partitions(
    run: Run, live: LiveAsset, waiting: Sequence[StagedPartition]
) -> tuple[Sequence[StagedPartition], list[str]]:
    """Return the staged partitions that the asset still has, and the keys of the others, which can't be published."""
    order = order_of(live.partitions_def, run.context.instance)
    gone = [one.key for one in waiting if one.key not in order]
    return [one for one in waiting if one.key in order], gone


def _check_provenance(run: Run, staged: StagedAsset, waiting: Sequence[StagedPartition]) -> list[str]:
    """Refuse staged partitions that aren't what would be computed now; return those whose inputs changed, if allowed.

    Raises:
        NotStagedError: The asset, its table's options, its code, a partition's window or an input changed since.
    """
    context, shadow = run.context, staged.shadow()
    table, keys = run.spec.table, [one.key for one in waiting]
    parts = staged.computed.provenance(run.spec, computed_by=shadow)
    if run.options.publish.allow_mixed_versions:
        del parts["code"]
    windows = staged.live.slice_of(context.instance, keys).meanings
    # The ids of events begin again in a new instance, so what was computed under another one can't be compared.
    computed_by = list({one.computed_by for one in waiting})
    known = {run.run_id for run in context.instance.get_runs(dg.RunsFilter(run_ids=computed_by))}
    changed: dict[str, str] = {}
    for one in waiting:
        now = Provenance({**parts, "partition": windows[one.key]})
        reason = "what made it isn't recorded" if one.provenance is None else one.provenance.why_defined_otherwise(now)
        if reason is None and one.computed_by not in known:
            reason = f"Dagster has no record of run {one.computed_by}, which computed them"
        if reason is not None:
            changed[one.key] = reason
    made_by = {one.key: one.provenance for one in waiting if one.key not in changed}
    outdated = changed_inputs(shadow, shadow.key, made_by, instance=context.instance)
    is_accepted = context.run.tags.get(OUTDATED_INPUTS_TAG) == "accept"
    refused = changed if is_accepted else {**changed, **outdated}
    if refused:
        reasons = listed([f"{key}: {reason}" for key, reason in refused.items()])
        advice = "" if changed else f" To publish them nevertheless, tag the run {OUTDATED_INPUTS_TAG}=accept."
        raise NotStagedError(
            f"{table}: {len(refused)} of {len(waiting)} staged partitions are not what would be computed now"
            f" ({reasons}). Materialize these partitions of {shadow.key.to_user_string()} again.{advice}",
            table=str(table),
            keys=[*refused],
        )
    if outdated:
        reasons = listed([f"{key}: {reason}" for key, reason in outdated.items()])
        context.log.warning(f"{table}: inputs of these partitions changed since they were computed ({reasons})")
    return [*outdated]


def _check_audits(run: Run, staged: StagedAsset, found: Sequence[StagedPartition]) -> None:
    """Refuse partitions that other audits approved than the asset has now.

    Raises:
        NotStagedError: The asset's audits changed since.
    """
    digest = audits_digest(run.options.audits)
    changed = [one.key for one in found if one.provenance is None or one.provenance.parts.get(AUDITS) != digest]
    if changed:
        raise NotStagedError(
            f"{run.spec.table}: the audits changed after {listed(changed)} passed them, so nothing was published."
            f" Materialize {staged.live.key.to_user_string()}__audit again.",
            table=str(run.spec.table),
            keys=changed,
        )


def run_publish(context: dg.AssetExecutionContext, io_manager: object, *, staged: StagedAsset) -> Iterator[object]:
    """Yield the materialization of the partitions of a run of an `x`.

    This run published them, together with all others of its backfill, or another run of that backfill did before.

    Raises:
        NotStagedError: Some partitions aren't staged and audited; nothing was published.
        PublishError: What was audited can't go live.
    """
    started = time.monotonic()
    group = group_of(context)
    live = staged.live
    run = run_of(context, io_manager, live, group=group, publication_id=group)
    table = run.spec.table
    own = slice_of_run(context).keys
    # For a backfill with gaps, Dagster 1.13.27 starts one run of `x` for each contiguous range. The first one publishes
    # the whole backfill, so that all ranges go live together.
    wanted = live.slice_of(context.instance, list(dict.fromkeys([*own, *targeted_keys(context)])))

    def attempt(session: Session) -> tuple[Published | None, Mapping[str, Change]]:
        return _publish(session, run, staged, wanted, own=own)

    published, before = run.attempt(attempt, deadline=run.deadline(f"publishing {wanted} of {table}"))
    if published is not None:
        warn(context, published)
        log_left(context, published, covered=wanted.keys)
    if before:
        context.log.info(f"{table}: {listed([*before])} had been published before, and stay as they are")
    seconds = round(time.monotonic() - started, 3)
    numbers = numbers_by_partition([published] if published is not None else [], seconds=seconds)
    for key, shown in earlier_numbers(before).items():
        numbers[key] = {**shown, "seconds": seconds}
    # Dagster materializes only the run's own partitions; the other runs of the backfill report theirs.
    numbers = {key: numbers[key] for key in own}
    live_now = {key: str(shown["publication_id"]) for key, shown in numbers.items()}
    events = (dg.AssetMaterialization(live.key, partition=key, metadata=shown) for key, shown in numbers.items())
    check_recorded(context, own, published=live_now, events=events)
    add_partition_metadata(context, numbers)
    yield dg.MaterializeResult(metadata=table_metadata(table))


def _publish(
    session: Session, run: Run, staged: StagedAsset, wanted: PartitionSlice, *, own: Sequence[str]
) -> tuple[Published | None, Mapping[str, Change]]:
    """Publish what isn't live; return also the publication and the changes of what had been published before.

    `own` are the partitions of the run itself, and `wanted` those of its whole backfill.
    """
    table = run.spec.table
    session.attempt(partial(upgrade_ledger, session, table))
    chosen = to_publish(session, table, wanted.keys, origin=run.origin)
    # Another run of the backfill, or an earlier attempt of this one, has published all of them.
    if not chosen.approved:
        return None, chosen.published
    _check_provenance(run, staged, chosen.approved)
    _check_audits(run, staged, chosen.approved)
    audited = approved(
        session,
        chosen.approved,
        spec=run.spec,
        partition_slice=wanted.only(one.key for one in chosen.approved),
        allows_mixed_versions=run.options.publish.allow_mixed_versions,
    )
    # Dynamic partitions may have been deleted meanwhile: those of this run, and those of other runs of the backfill.
    check_recordable(run.context, own, what="nothing was published")
    staged.live.slice_of(run.context.instance, wanted.keys)
    # The version that computed the rows, which may differ from the present version of `x`.
    origin = replace(run.origin, code_version=chosen.approved[0].code_version)
    # After a rollback, or if the group is published in parts, the group's name is already the id of a publication.
    origin = publication_of_group(session, table, origin)
    return publish(session, audited, rules=run.options.publish, origin=origin), chosen.published
