"""`@wap_asset`: an asset whose runs write, audit and publish."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import dagster as dg

from dagster_safe_backfill.assets.options import AssetDep, asset_key_of, wap_options
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.model.states import OnConflict, Strategy
from dagster_safe_backfill.model.tables import KeepLatest, OnEmpty, OnOutside, OnSchemaChange
from dagster_safe_backfill.reports.checks import PartitionedChecks, are_partitioned, check_specs
from dagster_safe_backfill.runs.limits import PublishPer
from dagster_safe_backfill.runs.private_dagster import quiet_about_previews
from dagster_safe_backfill.runs.user_function import ComputeFunction


def wap_asset(
    *,
    partitions_def: dg.PartitionsDefinition[str],
    partition_expr: str | Mapping[str, str],
    unique_key: Sequence[str] = (),
    audits: Sequence[Audit] = (),
    backfill_policy: dg.BackfillPolicy | None = None,
    publish: Strategy | None = None,
    on_conflict: OnConflict = "raise",
    archive_days: float = 30,
    on_schema_change: OnSchemaChange = "raise",
    column_defaults: Mapping[str, str] | None = None,
    on_duplicate: Literal["raise"] | KeepLatest = "raise",
    allow_mixed_versions: bool = False,
    publish_per: PublishPer = "run",
    batch_size: int | None = None,
    canary: bool = True,
    resume: bool = True,
    timeout_seconds: float | None = None,
    max_retries: int = 3,
    retry_wait: float = 1.0,
    allowed_hours: str | None = None,
    max_partitions_per_backfill: int | None = None,
    partitioned_checks: PartitionedChecks = "auto",
    sample_columns: Sequence[str] | None = None,
    updated_at_column: str | None = None,
    column_timezone: str | None = None,
    on_empty: OnEmpty = "refuse",
    on_outside: OnOutside = "refuse",
    schema: str | None = None,
    name: str | None = None,
    key: dg.AssetKey | str | Sequence[str] | None = None,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, dg.AssetIn] | None = None,
    deps: Iterable[AssetDep] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    kinds: AbstractSet[str] | None = None,
    code_version: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    freshness_policy: dg.FreshnessPolicy | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    hooks: AbstractSet[dg.HookDefinition] | None = None,
    required_resource_keys: AbstractSet[str] | None = None,
    io_manager_key: str = "io_manager",
) -> Callable[[Callable[..., object]], dg.AssetsDefinition]:
    """Make an asset of a function, whose rows go live only after every audit passed for every partition.

    A run calls the function once for its partitions (or for each batch of them), writes the rows to a shadow table,
    audits them, and publishes them in one transaction with the ledger; then it logs the materializations. If an ERROR
    audit fails or can't be measured, nothing is published, no partition is materialized, the run fails with the
    audits, partitions and counts, and the rejected rows stay in the shadow.

    The function gets what `@dg.asset` gives: the context, resources, config, and upstream assets loaded over the
    range; a parameter annotated `PartitionSlice` gets the run's partitions. It returns a frame (pandas,
    polars, pyarrow) or a `Query`. The asset's I/O manager must be one of this library's, as it holds the warehouse.

    Args:
        partitions_def: Any of Dagster's partitions definitions.
        partition_expr: The column or SQL expression that tells a row's partition; for multi-partitions one for
            each dimension's name.
        unique_key: The columns that identify a row. They imply the audit `unique()`.
        audits: What is tested before publishing; see `unique`, `not_null`, `accepted_values`, `in_range`,
            `expression`, `references`, `failing_rows`, `column_types`, `row_count_between`, `aggregate_between`,
            `row_count_drift`, `aggregate_drift` and `compare`; or of your own, from `GroupAudit`.
        backfill_policy: `single_run()`, `batched(n)` or `per_partition()`, which is Dagster's default.
        publish: `"merge"` touches just the rows that differ by the unique key and is the default with one;
            `"replace"` deletes the slice and inserts it anew, and is the default without; `"swap"` puts a clone of the
            whole table in its place, with the slice replaced in it, and keeps the old table as the archive.
        on_conflict: Whether a partition that changed since it was staged stops the publication ("raise"), or is
            replaced and archived ("overwrite").
        archive_days: How many days what a publication replaces is kept for a rollback; 0 keeps nothing.
        on_schema_change: Whether computed columns that the table lacks are an error ("raise") or are added to it when
            the rows are published ("add_columns"). "sync", with `publish="swap"`, also drops the table's columns that
            aren't computed, and changes types that don't fit.
        column_defaults: For a column that is added, the SQL expression of what the rows that are there get; NULL, if
            none.
        on_duplicate: Whether a key that is computed twice is an error ("raise"), or the latest row is kept
            (`keep_latest("ingested_at")`) and the others are counted.
        allow_mixed_versions: Whether one backfill may publish partitions of several values of `code_version`.
        publish_per: Whether all of a run goes live in one transaction or none of it ("run"), or each batch as soon as
            it passes ("batch"): then the partitions that pass are published and green, the others stay in the shadow,
            and at its end the run fails and names them.
        batch_size: The most partitions that the function gets at once; all of the run, if None. Memory is bounded by a
            batch. Batches are cut where other partitions lie between.
        canary: Whether the rest isn't computed if the first batch fails its audits.
        resume: Whether a retry or a re-execution of a run that crashed takes up the partitions that it had staged and
            audited, and not published, instead of computing them again. It doesn't if an audit rejected that run, the
            code or its config is another one, live changed, or an upstream asset was materialized since. A new launch
            computes all.
        timeout_seconds: The most that a batch may take; then its statement is cancelled and the run fails, with the
            batches before it kept.
        max_retries: How often a batch is tried again after an error that can pass, such as a lock.
        retry_wait: The most seconds before the first retry; the bound doubles with each.
        allowed_hours: When batches may start, as "22:00-06:00 America/New_York"; at other times the run stops before
            its next batch, with those before it kept.
        max_partitions_per_backfill: The most partitions that a backfill may have; more must be confirmed by the tag
            `safe_backfill/confirmed_partitions`.
        partitioned_checks: Whether a check has a status for each partition, which costs an event each; "auto"
            where the policy bounds a run to 31 partitions.
        sample_columns: The columns whose values samples of failing rows may show; others are masked. All, if None.
        updated_at_column: A column that takes the time of the publication in the rows that it changed.
        column_timezone: The time zone of wall-clock columns (TIMESTAMP); if None, that of the partitions.
        on_empty: Whether no rows at all are an error ("refuse"), or empty the slice ("allow").
        on_outside: Whether rows outside the slice are an error ("refuse"), or are left out and counted ("drop").
        schema: The table's schema; if None, the I/O manager's, else the key's prefix.
        name: As of `@dg.asset`, and so are all that follow.

    Raises:
        ConfigurationError: Arguments that can't work together.

    Example:
        ```python
        @sb.wap_asset(
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
            partition_expr="day",
            unique_key=["day", "shop"],
            audits=[sb.unique(), sb.expression("revenue >= 0")],
            backfill_policy=sb.single_run(),
        )
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return read_revenue(partitions.start, partitions.end)
        ```
    """
    options = wap_options(
        partition_expr=partition_expr,
        unique_key=unique_key,
        audits=audits,
        publish=publish,
        on_conflict=on_conflict,
        archive_days=archive_days,
        on_schema_change=on_schema_change,
        column_defaults=column_defaults,
        on_duplicate=on_duplicate,
        allow_mixed_versions=allow_mixed_versions,
        batch_size=batch_size,
        canary=canary,
        resume=resume,
        timeout_seconds=timeout_seconds,
        max_retries=max_retries,
        retry_wait=retry_wait,
        allowed_hours=allowed_hours,
        max_partitions_per_backfill=max_partitions_per_backfill,
        updated_at_column=updated_at_column,
        column_timezone=column_timezone,
        on_empty=on_empty,
        on_outside=on_outside,
        schema=schema,
    )

    def decorate(function: Callable[..., object]) -> dg.AssetsDefinition:
        # What runs assets is loaded with the first one that is defined.
        from dagster_safe_backfill.runs.wap_run import Pipeline

        asset_key = asset_key_of(function, name=name, key=key, key_prefix=key_prefix)
        is_partitioned = are_partitioned(partitioned_checks, backfill_policy)
        compute = ComputeFunction(function, resource_key=io_manager_key)
        pipeline = Pipeline(
            compute=compute,
            audits=options.audits,
            rules=options.rules,
            logs_by_partition=is_partitioned,
            sample_columns=sample_columns,
            batch_rules=options.batch_rules,
            publish_per=publish_per,
        )
        resources = required_resource_keys and {*required_resource_keys, io_manager_key}
        with quiet_about_previews():
            return dg.asset(
                compute.replaced_by(pipeline.run, takes_resource=not resources),
                key=asset_key,
                ins=ins,
                deps=deps,
                metadata={**(metadata or {}), **options.metadata},
                tags=tags,
                description=description or inspect.getdoc(function),
                group_name=group_name,
                owners=owners,
                kinds=kinds,
                code_version=code_version,
                automation_condition=automation_condition,
                freshness_policy=freshness_policy,
                retry_policy=retry_policy,
                pool=pool,
                op_tags=op_tags,
                hooks=hooks,
                required_resource_keys=resources,
                io_manager_key=io_manager_key,
                partitions_def=partitions_def,
                backfill_policy=backfill_policy,
                check_specs=check_specs(
                    options.audits,
                    asset=asset_key,
                    partitions_def=partitions_def if is_partitioned else None,
                ),
            )

    return decorate
