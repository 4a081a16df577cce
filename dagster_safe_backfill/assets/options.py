"""What the factories of assets are told of an asset's table, its audits and its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from dagster_safe_backfill.assets.jobs import days
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.rows import Unique, unique
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.hours import AllowedHours
from dagster_safe_backfill.model.states import OnConflict, PublishRules, Strategy
from dagster_safe_backfill.model.tables import KeepLatest, OnEmpty, OnOutside, OnSchemaChange
from dagster_safe_backfill.runs.limits import BatchRules

AssetDep = dg.AssetKey | str | Sequence[str] | dg.AssetSpec | dg.AssetsDefinition | dg.SourceAsset | dg.AssetDep


@dataclass(frozen=True, slots=True, kw_only=True)
class WapOptions:
    """The library's own options of an asset.

    Attributes:
        audits: What is tested before publishing, the unique key among them.
        rules: How what passed goes live.
        batch_rules: How runs are cut, and what bounds them.
        metadata: How the table is kept, as metadata of the asset.
    """

    audits: tuple[Audit, ...]
    rules: PublishRules
    batch_rules: BatchRules
    metadata: Mapping[str, Any]


def wap_options(
    *,
    partition_expr: str | Mapping[str, str],
    unique_key: Sequence[str],
    audits: Sequence[Audit],
    publish: Strategy | None,
    on_conflict: OnConflict,
    archive_days: float,
    on_schema_change: OnSchemaChange,
    column_defaults: Mapping[str, str] | None,
    on_duplicate: Literal["raise"] | KeepLatest,
    allow_mixed_versions: bool,
    batch_size: int | None,
    canary: bool,
    resume: bool,
    timeout_seconds: float | None,
    max_retries: int,
    retry_wait: float,
    allowed_hours: str | None,
    max_partitions_per_backfill: int | None,
    updated_at_column: str | None,
    column_timezone: str | None,
    on_empty: OnEmpty,
    on_outside: OnOutside,
    schema: str | None,
) -> WapOptions:
    """Return the options that the arguments of `wap_asset` come to.

    Raises:
        ConfigurationError: Arguments that can't work together.
    """
    strategy: Strategy = publish or ("merge" if unique_key else "replace")
    if on_schema_change == "sync" and strategy != "swap":
        raise ConfigurationError('on_schema_change="sync" rewrites the table, so it needs publish="swap"')
    table_options = {
        "partition_expr": partition_expr if isinstance(partition_expr, str) else dict(partition_expr),
        "unique_key": list(unique_key) or None,
        "updated_at_column": updated_at_column,
        "column_timezone": column_timezone,
        "on_empty": on_empty,
        "on_outside": on_outside,
        "schema": schema,
        "on_schema_change": on_schema_change,
        "column_defaults": dict(column_defaults) if column_defaults else None,
        "keep_latest": on_duplicate.column if isinstance(on_duplicate, KeepLatest) else None,
    }
    return WapOptions(
        audits=_with_key_audit(audits, unique_key=unique_key, strategy=strategy),
        rules=PublishRules(
            strategy=strategy,
            on_conflict=on_conflict,
            archive_for=days("archive_days", archive_days),
            allows_mixed_versions=allow_mixed_versions,
        ),
        batch_rules=BatchRules(
            batch_size=batch_size,
            canary=canary,
            resume=resume,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            retry_wait=retry_wait,
            allowed_hours=None if allowed_hours is None else AllowedHours.parse(allowed_hours),
            max_partitions=max_partitions_per_backfill,
        ),
        metadata={option: value for option, value in table_options.items() if value is not None},
    )


def _with_key_audit(audits: Sequence[Audit], *, unique_key: Sequence[str], strategy: Strategy) -> tuple[Audit, ...]:
    """Return the audits with one of the unique key, which a publication by key can't do without."""
    of_key = [audit for audit in audits if isinstance(audit, Unique) and not audit.columns]
    if not unique_key:
        if of_key:
            raise ConfigurationError("unique() without columns needs a unique_key")
        if strategy == "merge":
            raise ConfigurationError('publish="merge" needs a unique_key to match rows by')
        return tuple(audits)
    if any(audit.limits != unique().limits for audit in of_key):
        raise ConfigurationError(
            "the audit unique() of the unique_key has severity ERROR and tolerates no failure: rows can't be merged by"
            " a broken key"
        )
    return tuple(audits) if of_key else (unique(), *audits)


def asset_key_of(
    function: Callable[..., object],
    *,
    name: str | None,
    key: dg.AssetKey | str | Sequence[str] | None,
    key_prefix: str | Sequence[str] | None,
) -> dg.AssetKey:
    """Return the key of the asset that a function makes.

    Raises:
        ConfigurationError: It is given in two ways.
    """
    if key is not None:
        if name is not None or key_prefix is not None:
            raise ConfigurationError("give key, or name and key_prefix, not both")
        return dg.AssetKey.from_coercible(key)
    prefix = [key_prefix] if isinstance(key_prefix, str) else list(key_prefix or [])
    return dg.AssetKey([*prefix, name or function.__name__])
