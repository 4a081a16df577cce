"""Safe backfills of partitioned Dagster assets: write to a shadow, audit, publish in one step."""

from dagster_safe_backfill.asset_factories import wap_asset
from dagster_safe_backfill.backfill_policies import batched, per_partition, single_run
from dagster_safe_backfill.domain.audits import (
    Audit,
    AuditResult,
    Severity,
    Verdict,
    expression,
    not_null,
    references,
    row_count_drift,
    unique,
)
from dagster_safe_backfill.domain.slices import ColumnType, PartitionSlice, TimeWindow
from dagster_safe_backfill.domain.tables import Query
from dagster_safe_backfill.errors import (
    AuditFailedError,
    ConfigurationError,
    EmptyFrameError,
    EmptySliceError,
    KeyViolationError,
    PartitionColumnError,
    RowsOutsideSliceError,
    SafeBackfillError,
    SchemaMismatchError,
    ScopeMismatchError,
    SliceError,
    TableNotFoundError,
    TransactionConflictError,
    WarehouseError,
    WarehouseLockedError,
    WriteError,
)
from dagster_safe_backfill.io_managers import RangeDuckDBIOManager, RangeIOManager

__all__ = [
    "Audit",
    "AuditFailedError",
    "AuditResult",
    "ColumnType",
    "ConfigurationError",
    "EmptyFrameError",
    "EmptySliceError",
    "KeyViolationError",
    "PartitionColumnError",
    "PartitionSlice",
    "Query",
    "RangeDuckDBIOManager",
    "RangeIOManager",
    "RowsOutsideSliceError",
    "SafeBackfillError",
    "SchemaMismatchError",
    "ScopeMismatchError",
    "Severity",
    "SliceError",
    "TableNotFoundError",
    "TimeWindow",
    "TransactionConflictError",
    "Verdict",
    "WarehouseError",
    "WarehouseLockedError",
    "WriteError",
    "batched",
    "expression",
    "not_null",
    "per_partition",
    "references",
    "row_count_drift",
    "single_run",
    "unique",
    "wap_asset",
]
