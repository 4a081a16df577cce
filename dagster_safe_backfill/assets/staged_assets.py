"""`build_staged_wap_assets`: three assets that publish a backfill of many runs once, at its end."""
# No `from __future__ import annotations` (PEP 563): Dagster reads the annotations of the assets' functions.

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dagster as dg
from typing_extensions import Unpack

from dagster_safe_backfill.assets.metadata import check_former_keys, metadata_of
from dagster_safe_backfill.assets.options import (
    AssetArguments,
    asset_key_of,
    asset_options,
    check_asset_arguments,
    input_names,
    only,
)
from dagster_safe_backfill.assets.policies import single_run
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.comparison import Comparison
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import AssetOptions, Batches, Checks, Limits, Publish, Strategy
from dagster_safe_backfill.model.table_options import TableOptions
from dagster_safe_backfill.reports.checks import are_partitioned, check_specs
from dagster_safe_backfill.runs.declared import ComputedAsset, LiveAsset, StagedAsset, keep_computed, keep_options
from dagster_safe_backfill.runs.function.user_function import ComputeFunction, Run, doc_of
from dagster_safe_backfill.runs.limits.allowed import no_vain_retries
from dagster_safe_backfill.runs.private_dagster import as_wap_asset, keep_function, quiet_about_previews

_OF_ALL = ("tags", "group_name", "owners", "kinds", "pool")
_OF_SHADOW = ("ins", "deps", "code_version", "automation_condition", "retry_policy", "op_tags", "hooks")
_OF_LIVE = ("code_version", "freshness_policy")
"""The arguments of `@dg.asset` that all three assets get, that `x__shadow` gets, and that `x` gets."""


class StagedWapAssets(NamedTuple):
    """The three assets of `build_staged_wap_assets`, in the order in which they run.

    Attributes:
        shadow: `x__shadow` computes, writes and audits each partition. It may have any backfill policy.
        audit: `x__audit` audits all staged partitions together and reports on them. It has no partitions.
        published: `x` publishes to the live table. It publishes a range of partitions in one run.
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
    """Turn a function `x` into the assets `x__shadow`, `x__audit` and `x`, which publish a whole backfill at its end.

    In a backfill of all three, `x__shadow` stages each partition, in as many runs as its policy asks for. When all
    partitions are staged, `x__audit` audits them together; its page in Dagster is the report. Then `x` publishes them
    in one transaction. If one partition fails, nothing is audited or published; when you re-execute the backfill from
    failure, only that partition is computed again. To approve a backfill by hand, backfill `x__shadow` alone,
    materialize `x__audit`, read its report, and materialize `x`.

    A group, which is what a backfill staged (or a run without a backfill), is audited and published together. A run of
    `x__audit` whose group is empty takes all partitions that are waiting. `x` refuses partitions that aren't
    staged and audited. Downstream assets depend on `x`.

    Args:
        function: The function that computes the rows, as in `wap_asset`.
        partitions_def: See `wap_asset`.
        partition_expr: See `wap_asset`.
        unique_key: See `wap_asset`.
        audits: See `wap_asset`. `x__shadow` measures them for the partitions of each run, except for comparisons and
            audits over a whole run. `x__audit` measures all audits, for all partitions of the group.
        backfill_policy: The policy of `x__shadow`. `x` always has `single_run()`.
        publish: See `wap_asset`.
        batches: How runs of `x__shadow` are split. `Batches(publish_each=True)` is refused, because the group is
            published at the end.
        limits: See `wap_asset`. The limits apply to the runs of all three assets.
        table: See `wap_asset`.
        checks: See `wap_asset`.
        io_manager_key: See `wap_asset`.
        **asset: Arguments that are passed to `@dg.asset`, as in `wap_asset`. `ins`, `deps`, `automation_condition`,
            `retry_policy`, `op_tags`, `hooks` and `required_resource_keys` go to `x__shadow`, `metadata` and
            `freshness_policy` go to `x`, `code_version` goes to both, and the others go to all three.

    Raises:
        ConfigurationError: An option isn't allowed, options contradict each other, or the function reads partitions of
            its own asset.

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
            "batches: publish_each=True is for @wap_asset. Staged assets are published once, at the end of a backfill."
        )
    key = asset_key_of(function, asset)
    check_former_keys(key, options)
    group = _Group(
        key=key,
        options=options,
        partitions_def=partitions_def,
        backfill_policy=backfill_policy,
        io_manager_key=io_manager_key,
        description=asset.get("description") or doc_of(function) or "",
        asset=asset,
    )
    compute = ComputeFunction(function, resource_key=io_manager_key, inputs=input_names(asset))
    live = LiveAsset(key=group.key, options=options, partitions_def=partitions_def)
    computed = ComputedAsset(
        live=live, compute=compute, audits=group.audits_of_each, logs_by_partition=group.is_partitioned
    )

    staged = StagedAsset(computed=computed, shadow=lambda: shadow)

    def stage(
        context: dg.AssetExecutionContext, io_manager: object, arguments: Mapping[str, object]
    ) -> Iterator[object]:
        wap_run, _staged_runs = _loaded()
        return wap_run.run_shadow(context, io_manager, arguments, asset=computed)

    def audit_together(
        context: dg.AssetExecutionContext, io_manager: object, _arguments: Mapping[str, object]
    ) -> Iterator[object]:
        _wap_run, staged_runs = _loaded()
        return staged_runs.run_audit(context, io_manager, staged=staged, audits=options.audits)

    def publish_together(
        context: dg.AssetExecutionContext, io_manager: object, _arguments: Mapping[str, object]
    ) -> Iterator[object]:
        _wap_run, staged_runs = _loaded()
        return staged_runs.run_publish(context, io_manager, staged=staged)

    with quiet_about_previews():
        shadow = as_wap_asset(group.shadow(computed, stage))
        if asset.get("code_version") is None and compute.digest() is None:
            raise ConfigurationError(
                f"{group.key.to_user_string()}: a value in the function's closure or defaults can't be compared,"
                " so x__audit and x can't know whether the same code computed the staged rows. Give a code_version."
            )
        audit, published = group.audit(audit_together), group.published(publish_together, function)
        return StagedWapAssets(shadow, as_wap_asset(audit), as_wap_asset(published))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The arguments of the three assets, and the methods that define each.

    Attributes:
        key: The key of the live asset.
        description: The user's description of the live asset.
        asset: The arguments that are passed to `@dg.asset`.
    """

    key: dg.AssetKey
    options: AssetOptions
    partitions_def: dg.PartitionsDefinition[str]
    backfill_policy: dg.BackfillPolicy | None
    io_manager_key: str
    description: str
    asset: AssetArguments

    @property
    def is_partitioned(self) -> bool:
        """True if the checks of `x__shadow` have a status for each partition."""
        return are_partitioned(self.options.checks.partitioned, self.backfill_policy)

    @property
    def audits_of_each(self) -> list[Audit]:
        """The audits that a run of `x__shadow` can measure."""
        audits = self.options.audits
        return [audit for audit in audits if not audit.is_over_run and not isinstance(audit, Comparison)]

    def shadow(self, computed: ComputedAsset, run: Run) -> dg.AssetsDefinition:
        """Return `x__shadow`."""
        key = self._beside("__shadow")
        # Dagster refuses required_resource_keys together with resource parameters, so the I/O manager is requested in
        # the same way as the user's resources.
        resources = self.asset.get("required_resource_keys")
        partitioned = self.partitions_def if self.is_partitioned else None
        function = computed.compute.replaced_by(run, takes_resource=not resources)
        keep_computed(function, computed)
        shadow = dg.asset(
            function,
            key=key,
            description=f"The staged partitions of {self.key.to_user_string()}. {self.description}".strip(),
            required_resource_keys=resources and {*resources, self.io_manager_key},
            io_manager_key=self.io_manager_key,
            partitions_def=self.partitions_def,
            backfill_policy=self.backfill_policy,
            check_specs=check_specs(self.audits_of_each, asset=key, partitions_def=partitioned),
            **only(self.asset, *_OF_ALL, *_OF_SHADOW),
        )
        # Dagster would raise a CircularDependencyError, or a run would find no table of the shadow asset.
        if not shadow.asset_deps[key].isdisjoint({self.key, key, self._beside("__audit")}):
            raise ConfigurationError(
                f"{self.key.to_user_string()} reads its own partitions, and staged assets can't: the partitions of a"
                " backfill are published together at its end, so none can be computed from another one. Use"
                " @wap_asset with Batches(size=1, publish_each=True), which publishes each batch before the next one is"
                " computed."
            )
        return shadow

    def audit(self, run: Run) -> dg.AssetsDefinition:
        """Return `x__audit`."""
        key = self._beside("__audit")
        return dg.asset(
            _run_by(run, self.io_manager_key),
            key=key,
            # The daemon starts this unpartitioned asset once every targeted partition of `x__shadow` is materialized.
            # If one fails, neither the audit nor the publication starts (Dagster 1.13.27).
            deps=[self._beside("__shadow")],
            description=f"Audits all staged partitions of {self.key.to_user_string()} together, and reports on them.",
            required_resource_keys={self.io_manager_key},
            io_manager_key=self.io_manager_key,
            check_specs=check_specs(self.options.audits, asset=key),
            **only(self.asset, *_OF_ALL),
        )

    def published(self, run: Run, of_user: Callable[..., object]) -> dg.AssetsDefinition:
        """Return `x`."""
        function = _run_by(run, self.io_manager_key)
        keep_options(function, self.options)
        keep_function(function, of_user)
        return dg.asset(
            function,
            key=self.key,
            # `x` depends on `x__shadow` by the same partitions: through an AllPartitionMapping, a backfill would target
            # every partition of the asset (Dagster 1.13.27).
            deps=[self._beside("__shadow"), self._beside("__audit")],
            metadata={**(self.asset.get("metadata") or {}), **metadata_of(self.options)},
            description=self.description or None,
            required_resource_keys={self.io_manager_key},
            # Assets that take `x` as an input load it by this key.
            io_manager_key=self.io_manager_key,
            partitions_def=self.partitions_def,
            # In a backfill, Dagster requests all partitions of `x` in one tick, after `x__audit` has run.
            backfill_policy=single_run(),
            **only(self.asset, *_OF_ALL, *_OF_LIVE),
        )

    def _beside(self, ending: str) -> dg.AssetKey:
        *prefix, name = self.key.path
        return dg.AssetKey([*prefix, f"{name}{ending}"])


def _loaded():
    """Import the modules that run assets: with the first run, so that loading definitions stays cheap."""
    from dagster_safe_backfill.runs import staged_runs, wap_run

    return wap_run, staged_runs


def _run_by(run: Run, io_manager_key: str) -> Callable[..., Iterator[object]]:
    """Return the function of `x__audit` or `x`, which doesn't call the user's function."""

    def work(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with no_vain_retries(context):
            yield from run(context, getattr(context.resources, io_manager_key), {})

    return work
