"""Safe backfills of partitioned Dagster assets: write rows to a shadow table, audit them, publish them atomically.

Public names are imported when they are first used, so that importing the package is cheap.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from dagster_safe_backfill.assets.automation import pause_during_backfill
    from dagster_safe_backfill.assets.checks import build_audit_checks
    from dagster_safe_backfill.assets.io_managers import RangeDuckDBIOManager, RangeIOManager, RangeSnowflakeIOManager
    from dagster_safe_backfill.assets.jobs import (
        RetentionConfig,
        RollbackConfig,
        build_retention_schedule,
        build_rollback_job,
    )
    from dagster_safe_backfill.assets.policies import batched, per_partition, single_run
    from dagster_safe_backfill.assets.slices import partition_slice
    from dagster_safe_backfill.assets.staged_assets import StagedWapAssets, build_staged_wap_assets
    from dagster_safe_backfill.assets.wap_asset import compute_function, wap_asset
    from dagster_safe_backfill.audits.base import Audit, column_types
    from dagster_safe_backfill.audits.comparison import compare
    from dagster_safe_backfill.audits.groups import (
        Aggregate,
        GroupAudit,
        Side,
        aggregate_between,
        aggregate_drift,
        row_count_between,
        row_count_drift,
    )
    from dagster_safe_backfill.audits.rows import (
        accepted_values,
        expression,
        failing_rows,
        in_range,
        not_null,
        references,
        unique,
    )
    from dagster_safe_backfill.audits.verdicts import AuditResult, Outcome, Severity, Verdict
    from dagster_safe_backfill.errors import (
        ArchiveNotFoundError,
        AuditFailedError,
        BatchTimeoutError,
        BoundsError,
        ConfigurationError,
        EmptyFrameError,
        EmptySliceError,
        KeyViolationError,
        LedgerError,
        MixedVersionsError,
        NotStagedError,
        OtherAssetError,
        OutOfResourcesError,
        OutsideAllowedHoursError,
        PartitionColumnError,
        PartitionsChangedError,
        PlanChangedError,
        PublicationNotFoundError,
        PublishConflictError,
        PublishError,
        ReadError,
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
    from dagster_safe_backfill.model.hours import AllowedHours
    from dagster_safe_backfill.model.options import Batches, Checks, Limits, Merge, Replace, Swap
    from dagster_safe_backfill.model.slices import ColumnType, PartitionSlice, TimeWindow
    from dagster_safe_backfill.model.table_options import TableOptions
    from dagster_safe_backfill.model.tables import KeepLatest, Query, keep_latest

_NAMES = {
    "assets.wap_asset": (
        "compute_function",
        "wap_asset",
    ),
    "assets.automation": ("pause_during_backfill",),
    "assets.policies": (
        "batched",
        "per_partition",
        "single_run",
    ),
    "assets.slices": ("partition_slice",),
    "audits.base": (
        "Audit",
        "column_types",
    ),
    "audits.comparison": ("compare",),
    "audits.groups": (
        "Aggregate",
        "GroupAudit",
        "Side",
        "aggregate_between",
        "aggregate_drift",
        "row_count_between",
        "row_count_drift",
    ),
    "audits.rows": (
        "accepted_values",
        "expression",
        "failing_rows",
        "in_range",
        "not_null",
        "references",
        "unique",
    ),
    "model.hours": ("AllowedHours",),
    "model.options": (
        "Batches",
        "Checks",
        "Limits",
        "Merge",
        "Replace",
        "Swap",
    ),
    "model.table_options": ("TableOptions",),
    "model.slices": (
        "ColumnType",
        "PartitionSlice",
        "TimeWindow",
    ),
    "model.tables": (
        "KeepLatest",
        "Query",
        "keep_latest",
    ),
    "audits.verdicts": (
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
        "LedgerError",
        "MixedVersionsError",
        "NotStagedError",
        "OtherAssetError",
        "OutOfResourcesError",
        "OutsideAllowedHoursError",
        "PartitionColumnError",
        "PartitionsChangedError",
        "PlanChangedError",
        "PublicationNotFoundError",
        "PublishConflictError",
        "PublishError",
        "RollbackConflictError",
        "ReadError",
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
    "assets.io_managers": (
        "RangeDuckDBIOManager",
        "RangeIOManager",
        "RangeSnowflakeIOManager",
    ),
    "assets.jobs": (
        "RetentionConfig",
        "RollbackConfig",
        "build_retention_schedule",
        "build_rollback_job",
    ),
    "assets.checks": ("build_audit_checks",),
    "assets.staged_assets": (
        "StagedWapAssets",
        "build_staged_wap_assets",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Aggregate",
    "AllowedHours",
    "ArchiveNotFoundError",
    "Audit",
    "AuditFailedError",
    "AuditResult",
    "BatchTimeoutError",
    "Batches",
    "BoundsError",
    "Checks",
    "ColumnType",
    "ConfigurationError",
    "EmptyFrameError",
    "EmptySliceError",
    "GroupAudit",
    "KeepLatest",
    "KeyViolationError",
    "LedgerError",
    "Limits",
    "Merge",
    "MixedVersionsError",
    "NotStagedError",
    "OtherAssetError",
    "OutOfResourcesError",
    "Outcome",
    "OutsideAllowedHoursError",
    "PartitionColumnError",
    "PartitionSlice",
    "PartitionsChangedError",
    "PlanChangedError",
    "PublicationNotFoundError",
    "PublishConflictError",
    "PublishError",
    "Query",
    "RangeDuckDBIOManager",
    "RangeIOManager",
    "RangeSnowflakeIOManager",
    "ReadError",
    "Replace",
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
    "Swap",
    "SwapError",
    "TableNotFoundError",
    "TableOptions",
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
    "compute_function",
    "expression",
    "failing_rows",
    "in_range",
    "keep_latest",
    "not_null",
    "partition_slice",
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
    """Import a public name (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(_importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, including those that aren't imported yet."""
    return __all__
