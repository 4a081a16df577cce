"""What the runs of `x__audit` and `x` do: audit all that is staged together, and publish it once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import NotStagedError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Changes, Origin, Published, Rejected
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.events import (
    numbers_by_partition,
    partition_metadata,
    rejection,
    report_of,
    warn,
    with_metadata,
)
from dagster_safe_backfill.runs.backfills import group_of, targeted_keys
from dagster_safe_backfill.runs.declared import LiveAsset
from dagster_safe_backfill.runs.partitions import slice_of_run
from dagster_safe_backfill.runs.private_dagster import add_partition_metadata
from dagster_safe_backfill.runs.resume import changed_since
from dagster_safe_backfill.runs.run import Run, run_of
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.collect import collect, free_shadow
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.waiting import WAITING, Stage, newest, stages, standing
from dagster_safe_backfill.wap.publish_collected import check_one_version, publish_collected
from dagster_safe_backfill.warehouses.base import Connection

_STANDINGS: Mapping[str, str] = {
    "staged": "staged, its audits have not ended",
    "audited": "staged, and not yet audited with the others",
    "rejected": "rejected by an audit",
    "refused": "refused by an audit of all that was staged with it",
    "rolled_back": "rolled back, and not staged since",
    "taken_up": "taken up by another backfill",
}


def run_audit(
    context: dg.AssetExecutionContext,
    io_manager: object,
    *,
    live: LiveAsset,
    shadow: dg.AssetsDefinition,
    audits: Sequence[Audit],
) -> Iterator[object]:
    """Yield the check results of a run of an `x__audit`, and the materialization whose page is the report.

    Raises:
        dagster.Failure: Blocking audits failed: nothing of what is staged together may be published.
        NotStagedError: There is nothing to audit.
    """
    run = run_of(context, io_manager, live, group=group_of(context))
    table = run.spec.table

    def attempt(connection: Connection) -> tuple[Audited | Rejected, list[str]]:
        return _judge(connection, run, live, audits)

    judged, left_out = run.attempt(attempt, deadline=run.deadline(f"auditing what is staged of {table}"))
    failure = rejection(judged, [judged], batches=1) if isinstance(judged, Rejected) else None
    report = report_of(context, judged, failure=failure, is_published=False)
    yield from report.checks
    shown = {**report.shown, "shadow": str(judged.staged.shadow), "partitions": len(judged.staged.keys)}
    if left_out:
        context.log.warning(f"{table}: staged, but not audited, and so left out: {listed(left_out)}")
        shown["left_out"] = left_out
    outdated = changed_since(shadow, shadow.key, judged.staged.computed_at, instance=context.instance)
    if outdated:
        reasons = listed([f"{key}: {reason}" for key, reason in outdated.items()])
        context.log.warning(f"{table}: what these partitions were computed from may be another now ({reasons})")
        shown["outdated"] = [*outdated]
    if failure is not None:
        raise with_metadata(failure, shown)
    yield dg.MaterializeResult(metadata={"scope": run.origin.staged_for, **shown})


def _judge(
    connection: Connection, run: Run, live: LiveAsset, audits: Sequence[Audit]
) -> tuple[Audited | Rejected, list[str]]:
    """Audit all that waits to be published together; return also the partitions that are left out."""
    table = run.spec.table
    found, left_out = _waiting(connection, run.spec, scope=run.origin.staged_for)
    if not found:
        raise NotStagedError(
            f"{table}: nothing is staged that could be audited; materialize partitions of"
            f" {live.key.to_user_string()}__shadow first",
            table=str(table),
            keys=left_out,
        )
    if not run.options.publish.allow_mixed_versions:
        check_one_version(table, found)
    origin = _of_stages(run.origin, found)
    staged = collect(
        connection,
        found,
        spec=run.spec,
        partition_slice=live.slice_of(run.context.instance, [one.key for one in found]),
        into=free_shadow(table, run.origin.run_id, found),
        origin=origin,
        is_over=lambda _: True,
    )
    columns = run.options.checks.sample_columns
    judged = audit(connection, staged, audits, origin=origin, sample_columns=columns, is_of_scope=True)
    return judged, left_out


def run_publish(context: dg.AssetExecutionContext, io_manager: object, *, live: LiveAsset) -> Iterator[object]:
    """Yield the materialization of the partitions of a run of an `x`.

    This run published them, together with all others of its backfill, or another run of that backfill did before.

    Raises:
        NotStagedError: Some partitions aren't staged and audited; nothing was published.
        PublishError: What was audited can't go live.
    """
    started = time.monotonic()
    group = group_of(context)
    run = run_of(context, io_manager, live, group=group, publication_id=group)
    table = run.spec.table
    own = slice_of_run(context).keys
    wanted = live.slice_of(context.instance, list(dict.fromkeys([*own, *targeted_keys(context)])))

    def attempt(connection: Connection) -> tuple[Published | None, dict[str, tuple[str, Changes]]]:
        return _publish(connection, run, wanted)

    published, before = run.attempt(attempt, deadline=run.deadline(f"publishing {wanted} of {table}"))
    if published is not None:
        warn(context, published)
    if before:
        context.log.info(f"{table}: {listed([*before])} had been published before, and stay as they are")
    seconds = round(time.monotonic() - started, 3)
    numbers = numbers_by_partition([published] if published is not None else [], seconds=seconds)
    for key, (publication_id, changes) in before.items():
        numbers[key] = {**partition_metadata(changes), "publication_id": publication_id, "seconds": seconds}
    add_partition_metadata(context, {key: numbers[key] for key in own})
    yield dg.MaterializeResult(metadata={"dagster/table_name": str(table)})


def _publish(
    connection: Connection, run: Run, wanted: PartitionSlice
) -> tuple[Published | None, dict[str, tuple[str, Changes]]]:
    """Publish what isn't live; return also the publication and the changes of what had been published before."""
    found = stages(connection, run.spec.table, keys=wanted.keys)
    chosen = _chosen(found, scope=run.origin.staged_for)
    before = {key: one for key, one in chosen.items() if one.event == "published"}
    waiting = [key for key in wanted.keys if key not in before]
    check_approved(run.spec, waiting, chosen)
    published = None
    if waiting:
        published = publish_collected(
            connection,
            [chosen[key] for key in waiting],
            spec=run.spec,
            partition_slice=wanted.only(waiting),
            rules=run.options.publish,
            origin=run.origin,
        )
    return published, published_before(connection, run.spec, before)


def _waiting(connection: Connection, spec: TableSpec, *, scope: str) -> tuple[list[Stage], list[str]]:
    """Return what waits for an audit or a publication in a scope, else everywhere; and the keys that aren't audited."""
    everything = stages(connection, spec.table)
    own = [stage for stage in everything if stage.scope == scope]
    found = own or list(newest(everything).values())
    waiting = standing(connection, spec.table, [stage for stage in found if stage.event in WAITING])
    left_out = [stage.key for stage in found if stage.event in ("staged", "rejected")]
    return waiting, left_out


def _of_stages(origin: Origin, found: Sequence[Stage]) -> Origin:
    """Return who goes on with staged partitions: of their code, if that is one."""
    versions = {stage.code_version for stage in found}
    codes = {stage.code for stage in found}
    return replace(
        origin,
        code_version=versions.pop() if len(versions) == 1 else None,
        code=codes.pop() if len(codes) == 1 else None,
    )


def _chosen(found: Sequence[Stage], *, scope: str) -> dict[str, Stage]:
    """Return what is to be published of each partition: of the run's own scope, else the newest of all.

    What the scope had published is live no more once it was rolled back. What another scope took up is not this one's,
    unless it is live already.
    """
    chosen = newest(found)
    for key, own in newest(stage for stage in found if stage.scope == scope).items():
        last = chosen[key]
        is_undone = own.event == "published" and last.event == "rolled_back"
        is_live_elsewhere = own.event == "taken_up" and last.event == "published"
        if not (is_undone or is_live_elsewhere):
            chosen[key] = own
    return chosen


def published_before(
    connection: Connection, spec: TableSpec, stages: Mapping[str, Stage]
) -> dict[str, tuple[str, Changes]]:
    """Return what the publications of partitions changed there."""
    ids = {stage.publication_id for stage in stages.values()}
    entries = ledger.changes_by(connection, spec.table, *ids) if ids else []
    return {entry.key: (entry.publication_id, entry.changes) for entry in entries if entry.key in stages}


def check_approved(spec: TableSpec, keys: Sequence[str], found: Mapping[str, Stage]) -> None:
    """Refuse to publish what isn't staged and audited.

    Raises:
        NotStagedError: Some partitions aren't.
    """
    said: dict[str, str] = {}
    for key in keys:
        stage = found.get(key)
        if stage is None or stage.event != "approved":
            said[key] = "not staged" if stage is None else _STANDINGS[stage.event]
    if not said:
        return
    shown = listed([f"{key}: {text}" for key, text in said.items()])
    name = spec.table.name
    raise NotStagedError(
        f"{spec.table}: {len(said)} of {len(keys)} partitions can't be published ({shown}), so none was. Materialize"
        f" them in {name}__shadow, then {name}__audit, and publish then",
        table=str(spec.table),
        keys=[*said],
    )
