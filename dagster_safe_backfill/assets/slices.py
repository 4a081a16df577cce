"""`partition_slice`: the partitions of a run as a slice, for plain assets that read and write by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import dagster as dg

from dagster_safe_backfill.model.slices import ColumnType, PartitionSlice
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.validation import check_choice, check_time_zone
from dagster_safe_backfill.runs.partitions import slice_of_run

SqlDialect: TypeAlias = Literal["duckdb", "snowflake"]

_DIALECTS = {"duckdb": "DuckDBDialect", "snowflake": "SnowflakeDialect"}


def partition_slice(
    context: dg.AssetExecutionContext,
    *,
    dialect: SqlDialect = "duckdb",
    column_timezone: str | None = None,
) -> PartitionSlice:
    """Return the partitions of a run of a plain `@dg.asset`, which reads and writes its rows without an I/O manager.

    It works in runs of one partition and of a range alike. A run whose range Dagster resolved to other partitions than
    were asked for, or to none, is refused; excluded days are in none of `windows` and not matched by `where`.

    Args:
        context: The context of the run.
        dialect: The database whose SQL `PartitionSlice.where` writes.
        column_timezone: The time zone of columns of wall-clock times. If None, it is that of the partitions.

    Raises:
        EmptySliceError: The run has no partitions.
        ScopeMismatchError: Dagster resolved the run's range to other partitions than it names.
        ConfigurationError: An argument isn't allowed.

    Example:
        ```python
        @dg.asset(partitions_def=days, backfill_policy=sb.single_run())
        def events(context: dg.AssetExecutionContext) -> None:
            partitions = sb.partition_slice(context)
            rows = read_events(partitions.start, partitions.end)
            overwrite("events", rows, where=partitions.where("event_time"))
        ```
    """
    check_choice("dialect", dialect, get_args(SqlDialect))
    if column_timezone is not None:
        check_time_zone("column_timezone", column_timezone)
    spec = TableSpec(
        table=TableRef(schema="", name=context.asset_key.path[-1]), partition_expr={}, column_timezone=column_timezone
    )

    def where(of: PartitionSlice, column: str | Mapping[str, str] | None, column_type: ColumnType | None) -> str:
        # By name, because these modules load SQLGlot, which definitions don't need.
        package = "dagster_safe_backfill"
        made = getattr(importlib.import_module(f"{package}.warehouses.{dialect}.dialect"), _DIALECTS[dialect])()
        text: str = importlib.import_module(f"{package}.wap.tables.slices").where(
            of, column, column_type, spec=spec, dialect=made
        )
        return text

    return slice_of_run(context).bound_to(where)
