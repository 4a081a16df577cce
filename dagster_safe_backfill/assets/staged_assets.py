"""`build_staged_wap_assets`: three assets, so that a backfill of many runs is published once, at its end."""
# No `from __future__ import annotations`: Dagster reads the annotations of assets.

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

import dagster as dg

from dagster_safe_backfill.assets.options import AssetDep, asset_key_of, wap_options
from dagster_safe_backfill.assets.policies import single_run
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.comparison import Comparison
from dagster_safe_backfill.model.states import OnConflict, Strategy
from dagster_safe_backfill.model.tables import KeepLatest, OnEmpty, OnOutside, OnSchemaChange
from dagster_safe_backfill.reports.checks import PartitionedChecks, are_partitioned, check_specs
from dagster_safe_backfill.runs.limits import no_vain_retries
from dagster_safe_backfill.runs.private_dagster import quiet_about_previews
from dagster_safe_backfill.runs.user_function import ComputeFunction, Run


class StagedWapAssets(NamedTuple):
    """The three assets of `build_staged_wap_assets`, in the order in which they run.

    Attributes:
        shadow: `x__shadow`: computes, writes and audits each partition; any backfill policy.
        audit: `x__audit`: audits all that is staged together, and reports; unpartitioned.
        published: `x`: the live table; one run for a range.
    """

    shadow: dg.AssetsDefinition
    audit: dg.AssetsDefinition
    published: dg.AssetsDefinition


def build_staged_wap_assets(
    function: Callable[..., object],
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
) -> StagedWapAssets:
    """Make the three assets `x__shadow`, `x__audit` and `x` of a function, so that a backfill goes live once.

    Backfilled together they run through by themselves: `x__shadow` stages each partition, in as many runs as its policy
    asks for; when all are staged, `x__audit` tests them together, and its page is the report; then `x` publishes all
    in one transaction. If one partition fails, nothing is audited or published; mended, the backfill is re-executed
    from failure and computes just that one. Or backfill `x__shadow` alone, materialize `x__audit`, look at its report,
    and materialize `x` as your yes.

    What is audited and published together is what a backfill staged, or a run, where there is no backfill; a run of
    `x__audit` for which nothing was staged takes all that waits. `x` refuses partitions that aren't staged and audited.
    Downstream assets depend on `x`.

    Args:
        function: As of `wap_asset`.
        partitions_def: As of `wap_asset`, and so are all that follow, but for these:
        partition_expr: As of `wap_asset`.
        unique_key: As of `wap_asset`.
        audits: `x__shadow` measures each run's partitions, without those over the run and comparisons; `x__audit`
            measures all, over all that is staged together.
        backfill_policy: Of `x__shadow`; `x` has `single_run()`.
        automation_condition: Of `x__shadow`. `x__audit` and `x` follow in a backfill.
        ins: Of `x__shadow`, as are `deps`, `retry_policy`, `op_tags`, `hooks` and `required_resource_keys`.

    Raises:
        ConfigurationError: Arguments that can't work together.

    Example:
        ```python
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return read_revenue(partitions.start, partitions.end)

        revenue_assets = sb.build_staged_wap_assets(
            revenue,
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
            partition_expr="day",
            unique_key=["day", "shop"],
        )
        ```
    """
    # What runs assets is loaded with the first one that is defined.
    from dagster_safe_backfill.runs.staged_runs import AuditPipeline, PublishPipeline, StagedTable, StagePipeline

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
    live_key = asset_key_of(function, name=name, key=key, key_prefix=key_prefix)
    shadow_key, audit_key = (_beside(live_key, ending) for ending in ("__shadow", "__audit"))
    described = description or inspect.getdoc(function)
    of_each = [audit for audit in options.audits if not audit.is_over_run and not isinstance(audit, Comparison)]
    is_partitioned = are_partitioned(partitioned_checks, backfill_policy)
    compute = ComputeFunction(function, resource_key=io_manager_key)
    table = StagedTable(key=live_key, metadata=options.metadata, partitions_def=partitions_def)
    stage = StagePipeline(
        table=table,
        compute=compute,
        audits=of_each,
        logs_by_partition=is_partitioned,
        sample_columns=sample_columns,
        batch_rules=options.batch_rules,
    )
    live = PublishPipeline(table=table, rules=options.rules, batch_rules=options.batch_rules)
    resources = required_resource_keys and {*required_resource_keys, io_manager_key}
    common: dict[str, Any] = {"tags": tags, "group_name": group_name, "owners": owners, "kinds": kinds, "pool": pool}
    with quiet_about_previews():
        shadow = dg.asset(
            compute.replaced_by(stage.run, takes_resource=not resources),
            key=shadow_key,
            ins=ins,
            deps=deps,
            description=f"The staged partitions of {live_key.to_user_string()}. {described or ''}".strip(),
            code_version=code_version,
            automation_condition=automation_condition,
            retry_policy=retry_policy,
            op_tags=op_tags,
            hooks=hooks,
            required_resource_keys=resources,
            io_manager_key=io_manager_key,
            partitions_def=partitions_def,
            backfill_policy=backfill_policy,
            check_specs=check_specs(
                of_each, asset=shadow_key, partitions_def=partitions_def if is_partitioned else None
            ),
            **common,
        )
        whole = AuditPipeline(
            table=table,
            shadow=shadow,
            audits=options.audits,
            allows_mixed_versions=allow_mixed_versions,
            sample_columns=sample_columns,
            batch_rules=options.batch_rules,
        )
        audit = dg.asset(
            _run_by(whole.run, io_manager_key),
            key=audit_key,
            deps=[shadow_key],
            description=f"The audits of all that is staged of {live_key.to_user_string()} together, and their report.",
            required_resource_keys={io_manager_key},
            check_specs=check_specs(options.audits, asset=audit_key),
            **common,
        )
        published = dg.asset(
            _run_by(live.run, io_manager_key),
            key=live_key,
            deps=[shadow_key, audit_key],
            metadata={**(metadata or {}), **options.metadata},
            description=described,
            code_version=code_version,
            freshness_policy=freshness_policy,
            required_resource_keys={io_manager_key},
            partitions_def=partitions_def,
            backfill_policy=single_run(),
            **common,
        )
    return StagedWapAssets(shadow, audit, published)


def _beside(key: dg.AssetKey, ending: str) -> dg.AssetKey:
    return dg.AssetKey([*key.path[:-1], f"{key.path[-1]}{ending}"])


def _run_by(run: Run, io_manager_key: str) -> Callable[..., Iterator[object]]:
    """Return the function of an asset that computes nothing."""

    def work(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with no_vain_retries(context):
            yield from run(context, getattr(context.resources, io_manager_key), {})

    return work
