"""`build_staged_wap_assets`: three assets, so that a backfill of many runs is published once, at its end."""
# No `from __future__ import annotations`: Dagster reads the annotations of assets.

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg
from typing_extensions import Unpack

from dagster_safe_backfill.assets.metadata import metadata_of
from dagster_safe_backfill.assets.options import (
    AssetArguments,
    asset_key_of,
    asset_options,
    check_asset_arguments,
    only,
)
from dagster_safe_backfill.assets.policies import single_run
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.comparison import Comparison
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import Batches, Checks, Limits, Publish, Strategy, TableOptions
from dagster_safe_backfill.reports.checks import are_partitioned, check_specs
from dagster_safe_backfill.runs.limits import no_vain_retries
from dagster_safe_backfill.runs.private_dagster import keep_options, quiet_about_previews
from dagster_safe_backfill.runs.user_function import ComputeFunction, Run

_OF_ALL = ("tags", "group_name", "owners", "kinds", "pool")
_OF_SHADOW = ("ins", "deps", "code_version", "automation_condition", "retry_policy", "op_tags", "hooks")
_OF_LIVE = ("code_version", "freshness_policy")
"""Which of `@dg.asset`'s arguments go to which of the three assets."""


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
    unique_key: str | Sequence[str] = (),
    audits: Sequence[Audit] = (),
    backfill_policy: dg.BackfillPolicy | None = None,
    publish: Publish | Strategy | None = None,
    batches: Batches | int | None = None,
    limits: Limits | None = None,
    table: TableOptions | None = None,
    checks: Checks | None = None,
    io_manager_key: str = "io_manager",
    **asset: Unpack[AssetArguments],
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
        function: Computes the rows, as the function of a `wap_asset` does.
        partitions_def: See `wap_asset`, also for the arguments that follow; only what differs is said here.
        partition_expr: See `wap_asset`.
        unique_key: See `wap_asset`.
        audits: `x__shadow` measures each run's partitions, without comparisons and audits over the run; `x__audit`
            measures all, over all that is staged together.
        backfill_policy: The policy of `x__shadow`; `x` has `single_run()`.
        publish: See `wap_asset`.
        batches: How the runs of `x__shadow` are cut. `publish_each` isn't allowed, because all is published at the end.
        limits: See `wap_asset`. They bound the runs of all three assets.
        table: See `wap_asset`.
        checks: See `wap_asset`.
        io_manager_key: See `wap_asset`.
        **asset: Arguments of `@dg.asset`, as in `wap_asset`. `ins`, `deps`, `automation_condition`, `retry_policy`,
            `op_tags`, `hooks` and `required_resource_keys` go to `x__shadow` (`x__audit` and `x` follow in a backfill),
            `metadata` and `freshness_policy` to `x`, the others to all.

    Raises:
        ConfigurationError: An option isn't allowed, or some contradict each other.

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

    check_asset_arguments(asset)
    options = asset_options(
        partitions_def=partitions_def,
        partition_expr=partition_expr,
        unique_key=unique_key,
        audits=audits,
        backfill_policy=backfill_policy,
        publish=publish,
        batches=batches,
        limits=limits,
        table=table,
        checks=checks,
        io_manager_key=io_manager_key,
    )
    if options.batches.publish_each:
        raise ConfigurationError(
            "batches: publish_each=True is for @wap_asset; staged assets are published once, at the end of a backfill"
        )
    live_key = asset_key_of(function, asset)
    shadow_key, audit_key = (_beside(live_key, ending) for ending in ("__shadow", "__audit"))
    described = asset.get("description") or inspect.getdoc(function)
    of_each = [audit for audit in options.audits if not audit.is_over_run and not isinstance(audit, Comparison)]
    is_partitioned = are_partitioned(options.checks.partitioned, backfill_policy)
    compute = ComputeFunction(function, resource_key=io_manager_key)
    staged = StagedTable(key=live_key, options=options, partitions_def=partitions_def)
    stage = StagePipeline(table=staged, compute=compute, audits=of_each, logs_by_partition=is_partitioned)
    resources = asset.get("required_resource_keys")
    publish_run = _run_by(PublishPipeline(table=staged).run, io_manager_key)
    keep_options(publish_run, options)
    with quiet_about_previews():
        shadow = dg.asset(
            compute.replaced_by(stage.run, takes_resource=not resources),
            key=shadow_key,
            description=f"The staged partitions of {live_key.to_user_string()}. {described or ''}".strip(),
            required_resource_keys=resources and {*resources, io_manager_key},
            io_manager_key=io_manager_key,
            partitions_def=partitions_def,
            backfill_policy=backfill_policy,
            check_specs=check_specs(
                of_each, asset=shadow_key, partitions_def=partitions_def if is_partitioned else None
            ),
            **only(asset, *_OF_ALL, *_OF_SHADOW),
        )
        audit = dg.asset(
            _run_by(AuditPipeline(table=staged, shadow=shadow, audits=options.audits).run, io_manager_key),
            key=audit_key,
            deps=[shadow_key],
            description=f"The audits of all that is staged of {live_key.to_user_string()} together, and their report.",
            required_resource_keys={io_manager_key},
            check_specs=check_specs(options.audits, asset=audit_key),
            **only(asset, *_OF_ALL),
        )
        published = dg.asset(
            publish_run,
            key=live_key,
            deps=[shadow_key, audit_key],
            metadata={**(asset.get("metadata") or {}), **metadata_of(options)},
            description=described,
            required_resource_keys={io_manager_key},
            partitions_def=partitions_def,
            backfill_policy=single_run(),
            **only(asset, *_OF_ALL, *_OF_LIVE),
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
