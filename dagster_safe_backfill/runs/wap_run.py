"""What a run of a `@wap_asset` does: compute, write, audit, publish; and the events that tell of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Published, Rejected
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.reports.checks import check_results
from dagster_safe_backfill.reports.events import (
    RunReport,
    changes_by_partition,
    evaluations,
    log_evaluation,
    materialization_events,
    partly_published,
    publication_metadata,
    rejection,
    warn,
    with_metadata,
)
from dagster_safe_backfill.reports.report import report
from dagster_safe_backfill.runs.backfills import BACKFILL_TAG
from dagster_safe_backfill.runs.batches import Batches
from dagster_safe_backfill.runs.partition_count import check_partition_count
from dagster_safe_backfill.runs.partitions import slice_of_run
from dagster_safe_backfill.runs.private_dagster import add_partition_metadata
from dagster_safe_backfill.runs.table_io import TableIO, table_io_of
from dagster_safe_backfill.runs.user_function import ComputeFunction

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The run of one `@wap_asset`.

    Attributes:
        compute: The user's function.
        options: The asset's options.
        logs_by_partition: Whether checks are partitioned, and so want an evaluation for each partition.
    """

    compute: ComputeFunction
    options: AssetOptions
    logs_by_partition: bool

    def run(
        self,
        context: dg.AssetExecutionContext,
        io_manager: object,
        arguments: Mapping[str, object],
    ) -> Iterator[object]:
        """Yield the run's check results, and its materialization if all of it was published.

        Raises:
            dagster.Failure: Blocking audits failed; caused by `AuditFailedError`.
            SafeBackfillError: The run's scope or rows can't be worked on; what wasn't published before stays staged.
        """
        started = time.monotonic()
        manager = table_io_of(io_manager, context.asset_key)
        spec = manager.spec_of(context.asset_key, self.options)
        whole = bound(slice_of_run(context), spec, manager)
        check_partition_count(context, whole.keys, at_most=self.options.limits.max_partitions)
        batches = Batches(
            context=context,
            manager=manager,
            compute=self.compute,
            arguments=arguments,
            spec=spec,
            whole=whole,
            origin=origin_of(context, self.compute),
            options=self.options,
            is_by_partition=self.options.batches.publish_each,
        )
        outcome = self._by_batch(batches) if self.options.batches.publish_each else self._by_run(batches)
        for evaluation in outcome.evaluations:
            log_evaluation(context, evaluation)
        yield from outcome.checks
        if outcome.failure is not None:
            raise outcome.failure
        for published in outcome.published:
            warn(context, published)
        metadata = changes_by_partition(outcome.published, seconds=time.monotonic() - started)
        common = [publication_metadata(published) for published in outcome.published]
        if len(common) > 1:
            for published, shared in zip(outcome.published, common, strict=True):
                for key in published.row_counts:
                    metadata[key] |= shared
        # Once, as it is on all of the run: on the partition that Dagster logs last, which the asset's page shows.
        metadata[whole.keys[-1]] |= outcome.shown
        add_partition_metadata(context, metadata)
        yield dg.MaterializeResult(metadata=common[0] if len(common) == 1 else {})

    def _by_run(self, batches: Batches) -> RunReport:
        """Stage all batches, and publish them together or not at all."""
        from dagster_safe_backfill.wap.audit import together

        planned = batches.planned()
        if len(planned) == 1:
            ((_, outcome),) = batches.run(planned, self.options.audits, partial(self._published_whole, batches))
            return outcome
        of_batch = [audit for audit in self.options.audits if not audit.is_over_run]
        parts = [judged for judged, _ in batches.run(planned, of_batch, lambda _, one: one, are_parts=True)]
        whole = together(parts, audits=self.options.audits, partition_slice=batches.whole)
        if isinstance(whole, Rejected):
            return self._told(batches, whole, failure=rejection(whole, parts, planned=len(planned)))
        return batches.finish(lambda connection: self._joined(batches, connection, whole))

    def _joined(self, batches: Batches, connection: Connection, whole: Audited) -> RunReport:
        """Collect all batches in one shadow, audit there what spans them, and publish it."""
        from dagster_safe_backfill.wap.audit import audit_together
        from dagster_safe_backfill.wap.ledger.history import changes_by

        seen = whole.staged
        if changes_by(connection, seen.spec.table, batches.origin.publication_id):
            # An earlier try committed, and failed afterwards; publishing says what it did.
            return self._published_whole(batches, connection, whole)
        judged = audit_together(
            connection,
            batches.collected(connection),
            self.options.audits,
            of_batches=whole,
            origin=batches.origin,
            sample_columns=self.options.checks.sample_columns,
        )
        return self._published_whole(batches, connection, judged)

    def _published_whole(self, batches: Batches, connection: Connection, judged: Audited | Rejected) -> RunReport:
        from dagster_safe_backfill.wap.publish import publish

        if isinstance(judged, Rejected):
            return self._told(batches, judged, failure=rejection(judged, [judged], planned=1))
        # All that is told is made before anything goes live: what breaks here publishes nothing.
        outcome = self._told(batches, judged)
        published = publish(connection, judged, rules=self.options.publish, origin=batches.origin)
        return replace(outcome, published=[published])

    def _by_batch(self, batches: Batches) -> RunReport:
        """Publish what passes of each batch as soon as it is audited, and say so."""
        from dagster_safe_backfill.wap.audit import together

        planned = batches.planned()
        parts: list[Audited | Rejected] = []
        all_published: list[Published] = []
        for judged, published in batches.run(planned, self.options.audits, partial(self._published_part, batches)):
            parts.append(judged)
            if published is not None:
                all_published.append(published)
                self._log_materializations(batches, published)
        judged = together(parts, audits=self.options.audits, partition_slice=batches.whole)
        failure = None
        if isinstance(judged, Rejected):
            failure = partly_published(judged, parts, all_published, whole=batches.whole)
        return self._told(batches, judged, failure=failure, published=all_published)

    def _published_part(self, batches: Batches, connection: Connection, judged: Audited | Rejected) -> Published | None:
        """Publish the partitions of a batch that nothing blocks, under an id of their own."""
        from dagster_safe_backfill.wap.audit import passed_part
        from dagster_safe_backfill.wap.publish import publish

        if len(judged.blocked) == len(judged.staged.keys):
            return None
        origin = batches.numbered_origin(connection, judged.staged.keys)
        passed = judged if isinstance(judged, Audited) else passed_part(connection, judged, origin=origin)
        return None if passed is None else publish(connection, passed, rules=self.options.publish, origin=origin)

    def _log_materializations(self, batches: Batches, published: Published) -> None:
        for event in materialization_events(batches.context.asset_key, published):
            batches.context.log_event(event)

    def _told(
        self,
        batches: Batches,
        judged: Audited | Rejected,
        *,
        failure: dg.Failure | None = None,
        published: Sequence[Published] = (),
    ) -> RunReport:
        """Return all that is told of what was audited."""
        is_published = isinstance(judged, Audited)
        shown = report(judged)
        return RunReport(
            checks=list(check_results(judged.results, is_published=is_published)),
            evaluations=evaluations(
                batches.context, judged, is_published=is_published, logs_by_partition=self.logs_by_partition
            ),
            shown=shown,
            published=published,
            failure=failure and with_metadata(failure, shown),
        )


def bound(partition_slice: PartitionSlice, spec: TableSpec, manager: TableIO) -> PartitionSlice:
    """Return a slice that writes its predicates for a table."""
    from dagster_safe_backfill.wap.tables.slices import where

    return partition_slice.bound_to(partial(where, spec=spec, dialect=manager.warehouse().dialect))


def origin_of(context: dg.AssetExecutionContext, compute: ComputeFunction) -> Origin:
    """Return who writes in a run of a `@wap_asset`: what it stages, it publishes."""
    return Origin(
        run_id=context.run_id,
        publication_id=context.run_id,
        backfill_id=context.run.tags.get(BACKFILL_TAG),
        code_version=context.assets_def.code_versions_by_key.get(context.asset_key),
        code=compute.code(context),
    )
