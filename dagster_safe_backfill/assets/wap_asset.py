"""`@wap_asset`: an asset whose runs write rows to a shadow, audit them and publish them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from typing_extensions import Unpack

from dagster_safe_backfill.assets.metadata import check_former_keys, metadata_of
from dagster_safe_backfill.assets.options import (
    AssetArguments,
    asset_key_of,
    asset_options,
    check_asset_arguments,
    input_names,
)
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import Batches, Checks, Limits, Publish, Strategy
from dagster_safe_backfill.model.table_options import TableOptions
from dagster_safe_backfill.reports.checks import are_partitioned, check_specs
from dagster_safe_backfill.runs.declared import ComputedAsset, LiveAsset, keep_computed, keep_options
from dagster_safe_backfill.runs.function.user_function import ComputeFunction, doc_of
from dagster_safe_backfill.runs.private_dagster import as_wap_asset, function_of, quiet_about_previews


def wap_asset(
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
) -> Callable[[Callable[..., object]], dg.AssetsDefinition]:
    """Turn a function into an asset whose rows are published only after they passed every blocking audit.

    A run calls the function for its partitions (once, or for each batch), writes the rows to a shadow table and audits
    them. It publishes them in one transaction with the ledger, and then logs the materializations. If an audit of
    severity ERROR fails or can't be measured, nothing is published and no partition is materialized. The run fails
    with the audits, partitions and numbers of rows, and the rejected rows stay in the shadow.
    `Batches(publish_each=True)` publishes the batches that pass.

    The function gets the same arguments as that of `@dg.asset`: the context, resources, config, and upstream assets,
    loaded for the run's partitions. A parameter annotated `PartitionSlice`, or named `partitions` without an
    annotation, gets these partitions. The function returns a frame (pandas, polars, pyarrow) or a `Query`, or one of
    these in a `dg.MaterializeResult` or a `dg.Output`, whose metadata, tags and data version are on the
    materializations. To call it in a test, see `compute_function`. The asset's I/O manager must be one of this
    library's.

    Args:
        partitions_def: Any partitions definition of Dagster.
        partition_expr: The column or SQL expression that gives a row's partition. For multi-partitions, a mapping from
            each dimension's name to one.
        unique_key: The columns that identify a row, or one column's name. A unique key adds the audit `unique()`.
        audits: The audits that rows must pass before they are published: `unique`, `not_null`, `accepted_values`,
            `in_range`, `expression`, `references`, `failing_rows`, `column_types`, `row_count_between`,
            `aggregate_between`, `row_count_drift`, `aggregate_drift`, `compare`, or your own subclass of `GroupAudit`.
        backfill_policy: `single_run()`, `batched(n)` or `per_partition()`. If None, Dagster's default applies, which
            is one run per partition.
        publish: How rows are published: `"merge"` (the default with a `unique_key`), `"replace"` (the default without
            one) or `"swap"`. To set options, pass a `Merge`, `Replace` or `Swap`.
        batches: How a run is split: a number of partitions, or a `Batches`. If None, all partitions of a run are one
            batch.
        limits: The limits of a run on time, retries and partitions.
        table: How the table is kept, and which rows it accepts.
        checks: What the asset checks of the audits show in Dagster.
        io_manager_key: The key of the resource that is the I/O manager.
        **asset: Arguments that are passed to `@dg.asset`: `name`, `key`, `key_prefix`, `ins`, `deps`, `metadata`,
            `tags`, `description`, `group_name`, `owners`, `kinds`, `code_version`, `automation_condition`,
            `freshness_policy`, `retry_policy`, `pool`, `op_tags`, `hooks` and `required_resource_keys`.

    An asset that reads its own earlier partitions needs `Batches(size=…, publish_each=True)`, so that each batch reads
    what the one before it published, or no batches, so that one call of the function computes all of a run.

    Raises:
        ConfigurationError: An option isn't allowed, or options contradict each other.

    Example:
        ```python
        @sb.wap_asset(
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
            partition_expr="day",
            unique_key=["day", "shop"],
            audits=[sb.expression("revenue >= 0")],
            backfill_policy=sb.single_run(),
            batches=sb.Batches(size=30),
        )
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return read_revenue(partitions.start, partitions.end)
        ```
    """
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

    def decorate(function: Callable[..., object]) -> dg.AssetsDefinition:
        key = asset_key_of(function, asset)
        check_former_keys(key, options)
        is_partitioned = are_partitioned(options.checks.partitioned, backfill_policy)
        compute = ComputeFunction(function, resource_key=io_manager_key, inputs=input_names(asset))
        live = LiveAsset(key=key, options=options, partitions_def=partitions_def)
        computed = ComputedAsset(live=live, compute=compute, audits=options.audits, logs_by_partition=is_partitioned)

        def wap(
            context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object]
        ) -> Iterator[object]:
            # Imported by the first run, so that loading definitions stays cheap.
            from dagster_safe_backfill.runs.wap_run import run_wap_asset

            return run_wap_asset(context, io_manager, arguments, asset=computed)

        # Dagster refuses required_resource_keys together with resource parameters, so the I/O manager is requested in
        # the same way as the user's resources.
        resources = asset.get("required_resource_keys")
        run = compute.replaced_by(wap, takes_resource=not resources)
        keep_options(run, options)
        keep_computed(run, computed)
        arguments: dict[str, Any] = {
            **asset,
            # @dg.asset refuses a name or key_prefix beside a key.
            "key": key,
            "name": None,
            "key_prefix": None,
            "metadata": {**(asset.get("metadata") or {}), **metadata_of(options)},
            "description": asset.get("description") or doc_of(function),
            "required_resource_keys": resources and {*resources, io_manager_key},
        }
        partitioned = partitions_def if is_partitioned else None
        # AssetCheckSpec(partitions_def=…) is a preview feature in Dagster 1.13.27.
        with quiet_about_previews():
            asset_def = dg.asset(
                run,
                # Runs yield MaterializeResult, for which Dagster doesn't call handle_output. Downstream inputs need it.
                io_manager_key=io_manager_key,
                partitions_def=partitions_def,
                backfill_policy=backfill_policy,
                check_specs=check_specs(options.audits, asset=key, partitions_def=partitioned),
                **arguments,
            )
        _check_own_input(asset_def, options.batches)
        return as_wap_asset(asset_def)

    return decorate


def _check_own_input(asset: dg.AssetsDefinition, batches: Batches) -> None:
    """Refuse batches that would be computed from partitions of the same run that aren't live yet.

    Raises:
        ConfigurationError: The asset reads its own earlier partitions, has batches, and publishes them at the end.
    """
    if batches.size is None or batches.publish_each or asset.key not in asset.asset_deps[asset.key]:
        return
    raise ConfigurationError(
        f"{asset.key.to_user_string()} reads its own earlier partitions, and Batches(size={batches.size}) would compute"
        " each batch from these partitions as they were before the run, because all batches go live at its end."
        f" Publish each batch: Batches(size={batches.size}, publish_each=True). Or leave out the size, so that the"
        " function computes all partitions of a run in one call."
    )


def compute_function(asset: dg.AssetsDefinition) -> Callable[..., object]:
    """Return the function that computes an asset's rows, as it was written, to call it in a unit test.

    An asset itself can't be called, because its run writes to a warehouse. The function takes its own arguments, among
    them the slice and, if it asks for one, a context.

    Args:
        asset: An asset of `wap_asset`, or the `shadow` or `published` asset of `build_staged_wap_assets`. It may have
            been changed since, as by `with_attributes`.

    Raises:
        ConfigurationError: The asset has no such function.

    Example:
        ```python
        @sb.wap_asset(partitions_def=days, partition_expr="day")
        def calendar(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return pd.DataFrame({"day": pd.to_datetime(list(partitions.keys))})

        one_day = sb.PartitionSlice(keys=("2024-01-01",), dimensions=())
        assert len(sb.compute_function(calendar)(one_day)) == 1
        ```
    """
    function = function_of(asset)
    if function is None:
        raise ConfigurationError(
            f"{asset.key.to_user_string()} has no function that computes rows for this library. Pass an asset of"
            " @sb.wap_asset, or the shadow or published asset of sb.build_staged_wap_assets."
        )
    return function
