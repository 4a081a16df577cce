"""What runs of staged assets do: stage partitions in a shadow, audit all that is staged together, publish it once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import NotStagedError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Published, Rejected
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.checks import check_results
from dagster_safe_backfill.reports.events import (
    evaluations,
    log_evaluation,
    rejection,
    warn,
    with_metadata,
)
from dagster_safe_backfill.reports.report import report
from dagster_safe_backfill.runs.backfills import BACKFILL_TAG, is_abandoned, scope_of, targeted_keys
from dagster_safe_backfill.runs.batches import Batches
from dagster_safe_backfill.runs.limits import Bounds
from dagster_safe_backfill.runs.partition_count import check_partition_count
from dagster_safe_backfill.runs.partitions import order_of, slice_of_keys, slice_of_run
from dagster_safe_backfill.runs.private_dagster import add_partition_metadata
from dagster_safe_backfill.runs.publications import Publications
from dagster_safe_backfill.runs.resume import changed_since
from dagster_safe_backfill.runs.table_io import TableIO, table_io_of
from dagster_safe_backfill.runs.user_function import ComputeFunction
from dagster_safe_backfill.runs.wap_run import bound

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTable:
    """The live asset of a group of staged ones, and how its table is kept.

    Attributes:
        key: The live asset's.
        options: The assets' options.
        partitions_def: Its partitions.
    """

    key: dg.AssetKey
    options: AssetOptions
    partitions_def: dg.PartitionsDefinition[str]

    def opened(self, io_manager: object) -> tuple[TableIO, TableSpec]:
        """Return what holds the warehouse, and the table there."""
        manager = table_io_of(io_manager, self.key)
        return manager, manager.spec_of(self.key, self.options)

    def slice_of(self, instance: dg.DagsterInstance, keys: Sequence[str]) -> PartitionSlice:
        """Return the slice of keys in any order."""
        definition: dg.PartitionsDefinition[Any] = self.partitions_def
        order = order_of(definition, instance)
        unknown = [key for key in keys if key not in order]
        if unknown:
            raise NotStagedError(
                f"{self.key.to_user_string()} has no partitions {listed(unknown)} any more", table="", keys=unknown
            )
        return slice_of_keys(definition, sorted(keys, key=order.__getitem__))


def origin_of(context: dg.AssetExecutionContext, *, code: str | None = None, code_version: str | None = None) -> Origin:
    """Return who writes in a run of a staged asset, and in which scope."""
    scope = scope_of(context)
    return Origin(
        run_id=context.run_id,
        publication_id=scope,
        backfill_id=context.run.tags.get(BACKFILL_TAG),
        code_version=code_version,
        code=code,
        group=scope,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePipeline:
    """The run of an `x__shadow`: each of its partitions is computed, written to a shadow and audited.

    Attributes:
        table: The live table.
        compute: The user's function.
        audits: What is tested of each partition.
        logs_by_partition: Whether checks are partitioned, and so want an evaluation for each partition.
    """

    table: StagedTable
    compute: ComputeFunction
    audits: Sequence[Audit]
    logs_by_partition: bool

    def run(
        self, context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object]
    ) -> Iterator[object]:
        """Yield the run's check results, and its materialization if all of it was staged.

        Raises:
            dagster.Failure: Blocking audits failed; the partitions that passed are materialized.
            SafeBackfillError: The run's scope or rows can't be worked on.
        """
        from dagster_safe_backfill.wap.audit import together

        started = time.monotonic()
        manager, spec = self.table.opened(io_manager)
        whole = bound(slice_of_run(context), spec, manager)
        check_partition_count(context, whole.keys, at_most=self.table.options.limits.max_partitions)
        version = context.assets_def.code_versions_by_key.get(context.asset_key)
        batches = Batches(
            context=context,
            manager=manager,
            compute=self.compute,
            arguments=arguments,
            spec=spec,
            whole=whole,
            origin=origin_of(context, code=self.compute.code(context), code_version=version),
            options=self.table.options,
            is_by_partition=True,
            may_take=lambda scope: is_abandoned(context.instance, scope),
        )
        planned = batches.planned()
        parts = [judged for judged, _ in batches.run(planned, self.audits, lambda _, one: one, are_parts=True)]
        judged = together(parts, audits=self.audits, partition_slice=whole)
        for one in evaluations(context, judged, is_published=False, logs_by_partition=self.logs_by_partition):
            log_evaluation(context, one)
        yield from check_results(judged.results, is_published=False)
        numbers = _staged_numbers(parts, seconds=time.monotonic() - started)
        if isinstance(judged, Rejected):
            for key in set(judged.staged.keys) - set(judged.blocked):
                context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=numbers[key]))
            raise with_metadata(rejection(judged, parts, planned=len(planned)), report(judged))
        numbers[whole.keys[-1]] |= report(judged)
        add_partition_metadata(context, numbers)
        yield dg.MaterializeResult(metadata={"scope": batches.scope})


def _staged_numbers(parts: Sequence[Audited | Rejected], *, seconds: float) -> dict[str, dict[str, Any]]:
    return {
        key: {
            "dagster/table_name": str(part.staged.shadow),
            "dagster/partition_row_count": part.staged.rows.get(key, 0),
            "rows_staged": part.staged.rows.get(key, 0),
            "seconds": round(seconds, 3),
        }
        for part in parts
        for key in part.staged.keys
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPipeline:
    """The run of an `x__audit`: every audit, over all that is staged together.

    Attributes:
        table: The live table.
        shadow: The asset whose partitions are audited.
        audits: What is tested.
    """

    table: StagedTable
    shadow: dg.AssetsDefinition
    audits: Sequence[Audit]

    def run(
        self, context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object]
    ) -> Iterator[object]:
        """Yield the check results over all partitions, and the materialization whose page is the report.

        Raises:
            dagster.Failure: Blocking audits failed: nothing of the scope may be published.
            NotStagedError: There is nothing to audit.
        """
        del arguments
        manager, spec = self.table.opened(io_manager)
        origin = origin_of(context)
        bounds = Bounds(limits=self.table.options.limits, context=context, manager=manager, spec=spec)
        deadline = bounds.deadline(f"auditing what is staged of {spec.table}")
        judged, left_out = bounds.connected(partial(self._judged, context, spec, origin), deadline=deadline)
        yield from check_results(judged.results, is_published=False)
        shown = {**report(judged), "shadow": str(judged.staged.shadow), "partitions": len(judged.staged.keys)}
        if left_out:
            context.log.warning(f"{spec.table}: staged, but not audited, and so left out: {listed(left_out)}")
            shown["left_out"] = left_out
        outdated = changed_since(self.shadow, self.shadow.key, judged.staged.computed_at, instance=context.instance)
        if outdated:
            reasons = listed([f"{key}: {reason}" for key, reason in outdated.items()])
            context.log.warning(
                f"{spec.table}: what these partitions were computed from may be another now ({reasons})"
            )
            shown["outdated"] = [*outdated]
        if isinstance(judged, Rejected):
            raise with_metadata(rejection(judged, [judged], planned=1), shown)
        yield dg.MaterializeResult(metadata={"scope": origin.group, **shown})

    def _judged(
        self, context: dg.AssetExecutionContext, spec: TableSpec, origin: Origin, connection: Connection
    ) -> tuple[Audited | Rejected, list[str]]:
        from dagster_safe_backfill.wap.audit import audit, check_one_version
        from dagster_safe_backfill.wap.collect import collect, free_shadow
        from dagster_safe_backfill.wap.ledger.waiting import of_staged, owners, to_audit

        found, left_out = to_audit(connection, spec.table, group=origin.group)
        if not found:
            raise NotStagedError(
                f"{spec.table}: nothing is staged that could be audited; materialize partitions of"
                f" {self.table.key.to_user_string()}__shadow first",
                table=str(spec.table),
                keys=left_out,
            )
        if not self.table.options.publish.allow_mixed_versions:
            check_one_version(spec.table, found)
        origin = of_staged(origin, found)
        staged = collect(
            connection,
            found,
            spec=spec,
            partition_slice=self.table.slice_of(context.instance, [stage.key for stage in found]),
            into=free_shadow(spec.table, context.run_id, found),
            origin=origin,
            ended_runs=owners(found),
        )
        judged = audit(
            connection,
            staged,
            self.audits,
            origin=origin,
            sample_columns=self.table.options.checks.sample_columns,
            gate="group",
        )
        return judged, left_out


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPipeline:
    """The run of an `x`: what was staged and audited goes live, once for all of its backfill.

    Attributes:
        table: The live table.
    """

    table: StagedTable

    def run(
        self, context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object]
    ) -> Iterator[object]:
        """Yield the materialization of the run's partitions, which this run or another of its backfill published.

        Raises:
            NotStagedError: Some partitions aren't staged and audited; nothing was published.
            PublishError: What was audited can't go live.
        """
        del arguments
        started = time.monotonic()
        manager, spec = self.table.opened(io_manager)
        own = slice_of_run(context).keys
        wanted = self.table.slice_of(context.instance, list(dict.fromkeys([*own, *targeted_keys(context)])))
        bounds = Bounds(
            limits=self.table.options.limits,
            context=context,
            manager=manager,
            spec=spec,
            publication_id=origin_of(context).publication_id,
        )
        deadline = bounds.deadline(f"publishing {wanted} of {spec.table}")
        done = bounds.connected(partial(self._published, context, spec, wanted), deadline=deadline)
        for published in done.now:
            warn(context, published)
        if done.before:
            context.log.info(f"{spec.table}: {listed([*done.before])} had been published before, and stay as they are")
        seconds = round(time.monotonic() - started, 3)
        add_partition_metadata(context, {key: {**done.numbers(key), "seconds": seconds} for key in own})
        yield dg.MaterializeResult(metadata={"dagster/table_name": str(spec.table)})

    def _published(
        self, context: dg.AssetExecutionContext, spec: TableSpec, wanted: PartitionSlice, connection: Connection
    ) -> Publications:
        from dagster_safe_backfill.wap.audit import approved
        from dagster_safe_backfill.wap.ledger.history import publication_of_group
        from dagster_safe_backfill.wap.publish import publish, to_publish

        origin = origin_of(context)
        chosen = to_publish(connection, spec.table, wanted.keys, group=origin.group)
        found = chosen.approved
        now: list[Published] = []
        if found:
            audited = approved(
                connection,
                found,
                spec=spec,
                partition_slice=wanted.only(one.key for one in found),
                allows_mixed_versions=self.table.options.publish.allow_mixed_versions,
            )
            origin = publication_of_group(connection, spec.table, replace(origin, code_version=found[0].code_version))
            now.append(publish(connection, audited, rules=self.table.options.publish, origin=origin))
        return Publications(now=now, before=chosen.published)
