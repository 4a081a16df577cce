"""`build_audit_checks`: asset checks that audit a live table at any time."""
# No `from __future__ import annotations` (PEP 563): Dagster reads the annotation of the context.

import re
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from dagster_safe_backfill.assets.metadata import options_of_asset
from dagster_safe_backfill.assets.options import checked_audits
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.comparison import Comparison
from dagster_safe_backfill.audits.groups import GroupAudit
from dagster_safe_backfill.audits.rows import FailingRows, Unique
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.validation import check_count, column_names
from dagster_safe_backfill.reports.checks import check_results, check_specs
from dagster_safe_backfill.runs.declared import table_io_of
from dagster_safe_backfill.runs.partitions import slice_of_keys
from dagster_safe_backfill.runs.private_dagster import quiet_about_previews


def build_audit_checks(
    asset: dg.AssetsDefinition,
    audits: Sequence[Audit],
    *,
    last: int | None = None,
    prefix: str = "live_",
    sample_columns: Sequence[str] | None = None,
    io_manager_key: str = "io_manager",
) -> dg.AssetChecksDefinition:
    """Make asset checks that audit the live table of an asset: from the Checks tab, in a job or on a schedule.

    The checks read the table and change nothing. Checks that are executed together share their scans, and each reports
    the partitions that fail. The asset may be any whose I/O manager is one of this library's.

    Args:
        asset: The asset, which has the partitions and the options of the table.
        audits: The audits, one for each check. Drift audits, comparisons and queries that read `live` are refused,
            because there is no shadow to compare the live table with.
        last: How many of the last partitions are audited. If None, all are. Only for partitions with one dimension.
        prefix: The prefix of the checks' names, which keeps them apart from the checks that gate the asset.
        sample_columns: The columns whose values are shown in samples of failing rows. Defaults to those of the asset;
            without them, all values are shown.
        io_manager_key: The key of the resource that is the I/O manager.

    Raises:
        ConfigurationError: There is no audit, two audits have one name, an audit compares with the live table or needs
            a unique key that the asset doesn't have, or `last` isn't allowed.

    Example:
        ```python
        live = sb.build_audit_checks(flights, [sb.unique(), sb.not_null("origin")], last=30)
        nightly = dg.ScheduleDefinition(
            name="nightly_audits",
            cron_schedule="0 6 * * *",
            job=dg.define_asset_job("audits", selection=dg.AssetSelection.checks(live)),
        )
        ```
    """
    key = asset.key
    options, audits = options_of_asset(asset), checked_audits(audits)
    shown = options.checks.sample_columns
    if sample_columns is not None:
        shown = column_names("sample_columns", sample_columns)
    _check(asset, audits, options=options, last=last)
    by_name = {f"{prefix}{audit.name}": audit for audit in audits}

    @dg.multi_asset_check(
        name=f"{prefix}audits_of_{key.to_python_identifier()}",
        # Not blocking: these rows are live already, so there is nothing to hold back.
        specs=check_specs(audits, asset=key, prefix=prefix, is_gate=False),
        # The Checks tab can execute a single check.
        can_subset=True,
        required_resource_keys={io_manager_key},
    )
    def live_audits(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        # Loads the engine, so that definitions are cheap to load.
        from dagster_safe_backfill.runs import upkeep

        manager = table_io_of(getattr(context.resources, io_manager_key), key)
        spec = manager.spec_of(key, options)
        selected = {check.name for check in context.selected_asset_check_keys}
        wanted = [audit for name, audit in by_name.items() if name in selected]
        # Read-only, so that other processes can read the DuckDB file meanwhile.
        with manager.connected(
            spec.table, run_id=context.run.run_id, read_only=True, sample_columns=shown
        ) as connection:
            results = upkeep.measure_live(
                connection,
                wanted,
                spec=spec,
                partition_slice=_newest(asset, context.instance, last=last),
                sample_columns=shown,
            )
        yield from check_results(results, is_published=True, asset=key, prefix=prefix)

    with quiet_about_previews():
        return live_audits


def _check(asset: dg.AssetsDefinition, audits: Sequence[Audit], *, options: AssetOptions, last: int | None) -> None:
    name = asset.key.to_user_string()
    if not audits:
        raise ConfigurationError(f"{name}: build_audit_checks needs at least one audit")
    compares = [audit.name for audit in audits if _needs_live(audit)]
    if compares:
        raise ConfigurationError(
            f"{name}: {', '.join(compares)} compares a shadow with live rows. build_audit_checks audits the live table"
            " alone, so leave it out."
        )
    of_key = [audit.name for audit in audits if isinstance(audit, Unique) and not audit.columns]
    if of_key and not options.unique_key:
        raise ConfigurationError(
            f"{name}: unique() without columns needs a unique_key, and the asset has none. Name the columns."
        )
    if last is not None:
        check_count(f"{name}: last", last, of="partitions", at_least=1)
    if last is not None and isinstance(asset.partitions_def, dg.MultiPartitionsDefinition):
        raise ConfigurationError(f"{name}: last needs partitions with one order, and these have two dimensions")


def _needs_live(audit: Audit) -> bool:
    is_both = isinstance(audit, FailingRows) and re.search(r"\blive\b", audit.sql, re.IGNORECASE) is not None
    return is_both or isinstance(audit, Comparison) or (isinstance(audit, GroupAudit) and audit.needs_live)


def _newest(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, *, last: int | None) -> PartitionSlice | None:
    definition: dg.PartitionsDefinition[Any] | None = asset.partitions_def
    if definition is None:
        return None
    keys = definition.get_partition_keys(dynamic_partitions_store=instance)
    return slice_of_keys(definition, keys if last is None else keys[-last:])
