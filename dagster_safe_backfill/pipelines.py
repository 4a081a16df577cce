"""What a run of a `@wap_asset` does: compute, write, audit, publish; and the events that tell of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timezone
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from dagster_safe_backfill.asset_checks import check_results, evaluations_by_partition, summary
from dagster_safe_backfill.compute_functions import ComputeFunction
from dagster_safe_backfill.dagster_internals import add_partition_metadata
from dagster_safe_backfill.domain.audits import Audit
from dagster_safe_backfill.domain.slices import PartitionSlice
from dagster_safe_backfill.domain.states import Audited, Origin, Published, PublishRules, Rejected
from dagster_safe_backfill.domain.tables import TableSpec
from dagster_safe_backfill.errors import (
    AuditFailedError,
    about,
)
from dagster_safe_backfill.io_managers import RangeIOManager, changes_metadata, warehouse_manager
from dagster_safe_backfill.partitions import slice_of_run
from dagster_safe_backfill.reports import report

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Connection

_BACKFILL_TAG = "dagster/backfill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The run of one `@wap_asset`.

    Attributes:
        compute: The user's function.
        audits: What is tested before publishing.
        rules: How what passed goes live.
        logs_by_partition: Whether checks are partitioned, and so want an evaluation for each partition.
        sample_columns: The columns that samples of failing rows may show; all, if None.
    """

    compute: ComputeFunction
    audits: Sequence[Audit]
    rules: PublishRules
    logs_by_partition: bool
    sample_columns: Sequence[str] | None = None

    def run(
        self,
        context: dg.AssetExecutionContext,
        io_manager: object,
        arguments: Mapping[str, object],
    ) -> Iterator[object]:
        """Yield the run's check results, and its materialization if it was published.

        Raises:
            dagster.Failure: Blocking audits failed; caused by `AuditFailedError`.
            SafeBackfillError: The run's scope or rows can't be worked on; nothing was published.
        """
        started = time.monotonic()
        manager = warehouse_manager(io_manager, context.asset_key)
        spec = manager.asset_spec(context.assets_def, context.asset_key)
        partition_slice = _bound(slice_of_run(context), spec, manager)
        context.log.info(f"computing {partition_slice} of {spec.table}")
        data = self.compute(context, partition_slice, arguments)
        origin = _origin(context)
        with about(spec.table), manager.warehouse().connect() as connection:
            judged = self._judged(connection, data, spec=spec, partition_slice=partition_slice, origin=origin)
            # All that is told is made before anything goes live: what breaks here publishes nothing.
            is_published = isinstance(judged, Audited)
            checks = list(check_results(judged.results, is_published=is_published))
            evaluations = self._evaluations(context, judged, is_published=is_published)
            shown = report(judged)
            published = None
            if isinstance(judged, Audited):
                published = self._published(connection, judged, origin=origin)
        for evaluation in evaluations:
            # Dagster takes evaluations, and only its type hint does not.
            context.log_event(cast("dg.AssetObservation", evaluation))
        yield from checks
        if published is None:
            raise _failure(judged, shown)
        _log_changes(context, published, shown, seconds=time.monotonic() - started)
        yield dg.MaterializeResult(
            metadata={
                "dagster/table_name": str(spec.table),
                "publication_id": published.publication_id,
                **_archive_metadata(published),
            }
        )

    def _judged(
        self,
        connection: Connection,
        data: object,
        *,
        spec: TableSpec,
        partition_slice: PartitionSlice,
        origin: Origin,
    ) -> Audited | Rejected:
        from dagster_safe_backfill.wap.audit import audit
        from dagster_safe_backfill.wap.write import write

        staged = write(connection, data, spec=spec, partition_slice=partition_slice, origin=origin)
        return audit(connection, staged, self.audits, origin=origin, sample_columns=self.sample_columns)

    def _published(self, connection: Connection, audited: Audited, *, origin: Origin) -> Published:
        from dagster_safe_backfill.wap.publish import publish

        return publish(connection, audited, rules=self.rules, origin=origin)

    def _evaluations(
        self, context: dg.AssetExecutionContext, judged: Audited | Rejected, *, is_published: bool
    ) -> Sequence[dg.AssetCheckEvaluation]:
        if not self.logs_by_partition or context.has_partition_key:
            return []
        return list(evaluations_by_partition(judged.results, asset=context.asset_key, is_published=is_published))


def _bound(partition_slice: PartitionSlice, spec: TableSpec, manager: RangeIOManager) -> PartitionSlice:
    from dagster_safe_backfill.wap.scope import where

    return partition_slice.bound_to(partial(where, spec=spec, dialect=manager.warehouse().dialect))


def _origin(context: dg.AssetExecutionContext) -> Origin:
    return Origin(
        run_id=context.run_id,
        publication_id=context.run_id,
        backfill_id=context.run.tags.get(_BACKFILL_TAG),
        code_version=context.assets_def.code_versions_by_key.get(context.asset_key),
    )


def _failure(rejected: Audited | Rejected, shown: Mapping[str, Any]) -> dg.Failure:
    staged = rejected.staged
    blocking = [result for result in rejected.results if result.blocks]
    reasons = "; ".join(f"{result.audit.name}: {summary(result)}" for result in blocking)
    error = AuditFailedError(
        f"{staged.spec.table}: nothing was published, because {len(blocking)} of {len(rejected.results)}"
        f" audits block it ({reasons}); the rejected rows are in {staged.shadow}. Mend the data or the code and run"
        " the partitions again",
        table=str(staged.spec.table),
        shadow=str(staged.shadow),
        failures=[(result.audit.name, result.blocking_keys, result.failed_rows) for result in blocking],
    )
    metadata = {"shadow": str(staged.shadow), **shown}
    failure = dg.Failure(str(error), metadata=metadata, allow_retries=False)
    failure.__cause__ = error
    return failure


def _archive_metadata(published: Published) -> dict[str, Any]:
    """Return where what was replaced is kept; a time in UTC, as the UI shows texts as they are."""
    if published.archive is None or published.expires_at is None:
        return {}
    until = published.expires_at.astimezone(timezone.utc)
    return {"archive": str(published.archive), "archive_expires_at": f"{until:%Y-%m-%d %H:%M} UTC"}


def _log_changes(
    context: dg.AssetExecutionContext, published: Published, shown: Mapping[str, Any], *, seconds: float
) -> None:
    staged = published.audited.staged
    if published.is_repeated:
        context.log.warning(
            f"{staged.spec.table}: an earlier try of this run had published it, and ended before it could say so; what"
            " was computed now was left out"
        )
    if staged.replaces_shadow:
        context.log.warning(f"discarded {staged.shadow}, which an earlier try of this run had left unpublished")
    if staged.duplicates:
        context.log.warning(f"left out {staged.duplicates:,} rows for later ones of the same key")
    if staged.dropped:
        context.log.warning(f"left out {staged.dropped:,} rows outside {staged.partition_slice}")
    metadata: dict[str, dict[str, Any]] = {
        key: {
            "dagster/partition_row_count": changes.staged,
            **changes_metadata(changes),
            "seconds": round(seconds, 3),
        }
        for key, changes in published.changes.items()
    }
    # Once, as it is on all of the run: on the partition that Dagster logs last, which is what the asset's page shows.
    metadata[staged.keys[-1]] |= shown
    add_partition_metadata(context, metadata)
