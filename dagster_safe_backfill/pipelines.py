"""What a run of a `@wap_asset` does: compute, write, audit, publish; and the events that tell of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import dagster as dg

from dagster_safe_backfill.asset_checks import check_results, evaluations_by_partition, summary
from dagster_safe_backfill.compute_functions import ComputeFunction
from dagster_safe_backfill.dagster_internals import add_partition_metadata
from dagster_safe_backfill.domain.audits import Audit, AuditResult
from dagster_safe_backfill.domain.slices import PartitionSlice
from dagster_safe_backfill.domain.states import Origin, Published, Rejected, Strategy
from dagster_safe_backfill.domain.tables import TableSpec
from dagster_safe_backfill.errors import (
    AuditFailedError,
    ConfigurationError,
    about,
)
from dagster_safe_backfill.io_managers import RangeIOManager, changes_metadata
from dagster_safe_backfill.partitions import slice_of_run
from dagster_safe_backfill.table_metadata import table_of_asset, table_spec

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Connection

_BACKFILL_TAG = "dagster/backfill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The run of one `@wap_asset`.

    Attributes:
        compute: The user's function.
        audits: What is tested before publishing.
        strategy: How the slice is published.
        logs_by_partition: Whether checks are partitioned, and so want an evaluation for each partition.
    """

    compute: ComputeFunction
    audits: Sequence[Audit]
    strategy: Strategy
    logs_by_partition: bool

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
        manager = _checked(io_manager, context.asset_key)
        spec = _spec(context, manager)
        partition_slice = _bound(slice_of_run(context), spec, manager)
        context.log.info(f"computing {partition_slice} of {spec.table}")
        data = self.compute(context, partition_slice, arguments)
        with about(spec.table), manager.warehouse().connect() as connection:
            outcome = self._published(
                connection, data, spec=spec, partition_slice=partition_slice, origin=_origin(context)
            )
        yield from self._checks(context, outcome.results)
        if isinstance(outcome, Rejected):
            raise _failure(outcome)
        _log_changes(context, outcome, seconds=time.monotonic() - started)
        yield dg.MaterializeResult(
            metadata={
                "dagster/table_name": str(spec.table),
                "publication_id": outcome.publication_id,
            }
        )

    def _published(
        self,
        connection: Connection,
        data: object,
        *,
        spec: TableSpec,
        partition_slice: PartitionSlice,
        origin: Origin,
    ) -> Published | Rejected:
        from dagster_safe_backfill.wap.audit import audit
        from dagster_safe_backfill.wap.publish import publish
        from dagster_safe_backfill.wap.write import write

        staged = write(connection, data, spec=spec, partition_slice=partition_slice, origin=origin)
        outcome = audit(connection, staged, self.audits, origin=origin)
        if isinstance(outcome, Rejected):
            return outcome
        return publish(connection, outcome, strategy=self.strategy, origin=origin)

    def _checks(
        self, context: dg.AssetExecutionContext, results: Sequence[AuditResult]
    ) -> Iterator[dg.AssetCheckResult]:
        if self.logs_by_partition and not context.has_partition_key:
            for evaluation in evaluations_by_partition(results, asset=context.asset_key):
                # Dagster takes evaluations, and only its type hint does not.
                context.log_event(cast("dg.AssetObservation", evaluation))
        yield from check_results(results)


def _checked(io_manager: object, asset_key: dg.AssetKey) -> RangeIOManager:
    if not isinstance(io_manager, RangeIOManager):
        raise ConfigurationError(
            f"{asset_key.to_user_string()}: a wap_asset is kept in a warehouse, and its I/O manager, a"
            f" {type(io_manager).__name__}, holds none; give it RangeDuckDBIOManager(database=…)"
        )
    return io_manager


def _spec(context: dg.AssetExecutionContext, manager: RangeIOManager) -> TableSpec:
    key = context.asset_key
    metadata = context.assets_def.metadata_by_key[key]
    table = table_of_asset(key, metadata=metadata, schema=manager.default_schema)
    return table_spec(table, metadata)


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


def _failure(rejected: Rejected) -> dg.Failure:
    staged = rejected.staged
    blocking = [result for result in rejected.results if result.blocks]
    reasons = "; ".join(f"{result.audit.name}: {summary(result)}" for result in blocking)
    error = AuditFailedError(
        f"{staged.spec.table}: nothing was published, because {len(blocking)} of {len(rejected.results)}"
        f" audits block it ({reasons}); the rejected rows are in {staged.shadow}. Mend the data or the code and run"
        " the partitions again",
        table=str(staged.spec.table),
        shadow=str(staged.shadow),
        failures=[(result.audit.name, result.failed_keys, result.failed_rows) for result in blocking],
    )
    failure = dg.Failure(str(error), metadata={"shadow": str(staged.shadow)}, allow_retries=False)
    failure.__cause__ = error
    return failure


def _log_changes(context: dg.AssetExecutionContext, published: Published, *, seconds: float) -> None:
    staged = published.audited.staged
    if staged.dropped:
        context.log.warning(f"left out {staged.dropped:,} rows outside {staged.partition_slice}")
    add_partition_metadata(
        context,
        {
            key: {
                "dagster/partition_row_count": changes.staged,
                **changes_metadata(changes),
                "seconds": round(seconds, 3),
            }
            for key, changes in published.changes.items()
        },
    )
