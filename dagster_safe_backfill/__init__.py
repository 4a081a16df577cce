"""Safe backfills of partitioned Dagster assets: write to a shadow, audit, publish in one step."""

from dagster_safe_backfill.asset_factories import wap_asset
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
from dagster_safe_backfill.domain.tables import Query
from dagster_safe_backfill.domain.verdicts import AuditResult, Outcome, Severity, Verdict
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
from dagster_safe_backfill.live_checks import build_audit_checks

__all__ = [
    "Aggregate",
    "Audit",
    "AuditFailedError",
    "AuditResult",
    "ColumnType",
    "ConfigurationError",
    "EmptyFrameError",
    "EmptySliceError",
    "GroupAudit",
    "KeyViolationError",
    "Outcome",
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
    "Side",
    "SliceError",
    "TableNotFoundError",
    "TimeWindow",
    "TransactionConflictError",
    "Verdict",
    "WarehouseError",
    "WarehouseLockedError",
    "WriteError",
    "accepted_values",
    "aggregate_between",
    "aggregate_drift",
    "batched",
    "build_audit_checks",
    "column_types",
    "compare",
    "expression",
    "failing_rows",
    "in_range",
    "not_null",
    "per_partition",
    "references",
    "row_count_between",
    "row_count_drift",
    "single_run",
    "unique",
    "wap_asset",
]
