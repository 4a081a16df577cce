"""Safe backfills of partitioned Dagster assets: write to a shadow, audit, publish in one step.

The names are loaded when they are first used, so that importing the package costs next to nothing.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from dagster_safe_backfill.asset_factories import wap_asset
    from dagster_safe_backfill.automation import pause_during_backfill
    from dagster_safe_backfill.backfill_policies import batched, per_partition, single_run
    from dagster_safe_backfill.domain.audits import Audit, column_types
    from dagster_safe_backfill.domain.comparison import compare
    from dagster_safe_backfill.domain.group_audits import (
        Aggregate,
        GroupAudit,
        Side,
        aggregate_between,
        aggregate_drift,
        row_count_between,
        row_count_drift,
    )
    from dagster_safe_backfill.domain.row_audits import (
        accepted_values,
        expression,
        failing_rows,
        in_range,
        not_null,
        references,
        unique,
    )
    from dagster_safe_backfill.domain.slices import ColumnType, PartitionSlice, TimeWindow
    from dagster_safe_backfill.domain.tables import KeepLatest, Query, keep_latest
    from dagster_safe_backfill.domain.verdicts import AuditResult, Outcome, Severity, Verdict
    from dagster_safe_backfill.errors import (
        ArchiveNotFoundError,
        AuditFailedError,
        BatchTimeoutError,
        BoundsError,
        ConfigurationError,
        EmptyFrameError,
        EmptySliceError,
        KeyViolationError,
        MixedVersionsError,
        NotStagedError,
        OutsideAllowedHoursError,
        PartitionColumnError,
        PublicationNotFoundError,
        PublishConflictError,
        PublishError,
        RollbackConflictError,
        RollbackError,
        RowsOutsideSliceError,
        SafeBackfillError,
        SchemaMismatchError,
        ScopeMismatchError,
        SliceError,
        StatementCancelledError,
        SwapError,
        TableNotFoundError,
        TooManyPartitionsError,
        TransactionConflictError,
        WarehouseError,
        WarehouseLockedError,
        WarehouseUnavailableError,
        WriteError,
    )
    from dagster_safe_backfill.io_managers import RangeDuckDBIOManager, RangeIOManager
    from dagster_safe_backfill.jobs import RetentionConfig, RollbackConfig, build_retention_schedule, build_rollback_job
    from dagster_safe_backfill.live_checks import build_audit_checks
    from dagster_safe_backfill.snowflake_io_manager import RangeSnowflakeIOManager
    from dagster_safe_backfill.staged_assets import StagedWapAssets, build_staged_wap_assets

_NAMES = {
    "asset_factories": ("wap_asset",),
    "automation": ("pause_during_backfill",),
    "backfill_policies": (
        "batched",
        "per_partition",
        "single_run",
    ),
    "domain.audits": (
        "Audit",
        "column_types",
    ),
    "domain.comparison": ("compare",),
    "domain.group_audits": (
        "Aggregate",
        "GroupAudit",
        "Side",
        "aggregate_between",
        "aggregate_drift",
        "row_count_between",
        "row_count_drift",
    ),
    "domain.row_audits": (
        "accepted_values",
        "expression",
        "failing_rows",
        "in_range",
        "not_null",
        "references",
        "unique",
    ),
    "domain.slices": (
        "ColumnType",
        "PartitionSlice",
        "TimeWindow",
    ),
    "domain.tables": (
        "KeepLatest",
        "Query",
        "keep_latest",
    ),
    "domain.verdicts": (
        "AuditResult",
        "Outcome",
        "Severity",
        "Verdict",
    ),
    "errors": (
        "ArchiveNotFoundError",
        "AuditFailedError",
        "BatchTimeoutError",
        "BoundsError",
        "ConfigurationError",
        "EmptyFrameError",
        "EmptySliceError",
        "KeyViolationError",
        "MixedVersionsError",
        "NotStagedError",
        "OutsideAllowedHoursError",
        "PartitionColumnError",
        "PublicationNotFoundError",
        "PublishConflictError",
        "PublishError",
        "RollbackConflictError",
        "RollbackError",
        "RowsOutsideSliceError",
        "SafeBackfillError",
        "SchemaMismatchError",
        "ScopeMismatchError",
        "SliceError",
        "StatementCancelledError",
        "SwapError",
        "TableNotFoundError",
        "TooManyPartitionsError",
        "TransactionConflictError",
        "WarehouseError",
        "WarehouseLockedError",
        "WarehouseUnavailableError",
        "WriteError",
    ),
    "io_managers": (
        "RangeDuckDBIOManager",
        "RangeIOManager",
    ),
    "jobs": (
        "RetentionConfig",
        "RollbackConfig",
        "build_retention_schedule",
        "build_rollback_job",
    ),
    "live_checks": ("build_audit_checks",),
    "snowflake_io_manager": ("RangeSnowflakeIOManager",),
    "staged_assets": (
        "StagedWapAssets",
        "build_staged_wap_assets",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Aggregate",
    "ArchiveNotFoundError",
    "Audit",
    "AuditFailedError",
    "AuditResult",
    "BatchTimeoutError",
    "BoundsError",
    "ColumnType",
    "ConfigurationError",
    "EmptyFrameError",
    "EmptySliceError",
    "GroupAudit",
    "KeepLatest",
    "KeyViolationError",
    "MixedVersionsError",
    "NotStagedError",
    "Outcome",
    "OutsideAllowedHoursError",
    "PartitionColumnError",
    "PartitionSlice",
    "PublicationNotFoundError",
    "PublishConflictError",
    "PublishError",
    "Query",
    "RangeDuckDBIOManager",
    "RangeIOManager",
    "RangeSnowflakeIOManager",
    "RetentionConfig",
    "RollbackConfig",
    "RollbackConflictError",
    "RollbackError",
    "RowsOutsideSliceError",
    "SafeBackfillError",
    "SchemaMismatchError",
    "ScopeMismatchError",
    "Severity",
    "Side",
    "SliceError",
    "StagedWapAssets",
    "StatementCancelledError",
    "SwapError",
    "TableNotFoundError",
    "TimeWindow",
    "TooManyPartitionsError",
    "TransactionConflictError",
    "Verdict",
    "WarehouseError",
    "WarehouseLockedError",
    "WarehouseUnavailableError",
    "WriteError",
    "accepted_values",
    "aggregate_between",
    "aggregate_drift",
    "batched",
    "build_audit_checks",
    "build_retention_schedule",
    "build_rollback_job",
    "build_staged_wap_assets",
    "column_types",
    "compare",
    "expression",
    "failing_rows",
    "in_range",
    "keep_latest",
    "not_null",
    "pause_during_backfill",
    "per_partition",
    "references",
    "row_count_between",
    "row_count_drift",
    "single_run",
    "unique",
    "wap_asset",
]


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(_importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, whether they are loaded or not."""
    return __all__
