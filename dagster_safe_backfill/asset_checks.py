"""Audits as Dagster asset checks: a check an audit, and what its page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import dagster as dg
from typing_extensions import assert_never

from dagster_safe_backfill.domain.audits import (
    Audit,
    AuditResult,
    NotNull,
    References,
    RowCountDrift,
    RowExpression,
    Unique,
    listed_names,
)
from dagster_safe_backfill.errors import ConfigurationError, listed

PartitionedChecks = Literal["auto"] | bool
"""Whether checks have a status per partition; "auto" where the policy bounds a run to few partitions."""

_FEW_PARTITIONS = 31


def check_specs(
    audits: Sequence[Audit],
    *,
    asset: dg.AssetKey,
    partitions_def: dg.PartitionsDefinition[str] | None,
) -> list[dg.AssetCheckSpec]:
    """Return a check for each audit; partitioned ones if given a definition.

    Raises:
        ConfigurationError: Two audits have the same name.
    """
    taken = [audit.name for audit in audits]
    repeated = sorted({name for name in taken if taken.count(name) > 1})
    if repeated:
        raise ConfigurationError(
            f"{asset.to_user_string()}: several audits are named {', '.join(repeated)}; give each a name= of its own"
        )
    return [
        dg.AssetCheckSpec(
            audit.name,
            asset=asset,
            description=description(audit),
            blocking=audit.severity == "ERROR",
            partitions_def=partitions_def,
        )
        for audit in audits
    ]


def are_partitioned(choice: PartitionedChecks, policy: dg.BackfillPolicy | None) -> bool:
    """Return whether checks get a status per partition, which costs a range run an event for each."""
    if choice != "auto":
        return choice
    most = 1 if policy is None else policy.max_partitions_per_run
    return most is not None and most <= _FEW_PARTITIONS


def description(audit: Audit) -> str:
    """Return what an audit demands, in a sentence."""
    match audit:
        case Unique():
            columns = listed_names(audit.columns) if audit.columns else "the unique key"
            return f"No two rows share {columns}."
        case NotNull():
            return f"No NULL in {listed_names(audit.columns)}."
        case RowExpression():
            return f"Every row: {audit.sql}"
        case References():
            other = listed_names(audit.referenced)
            return f"{listed_names(audit.columns)} stands in {audit.table} ({other})."
        case RowCountDrift():
            return f"Row counts within {audit.max_change:.2%} of the live table's, by partition."
        case _:
            assert_never(audit)


def check_results(results: Sequence[AuditResult]) -> Iterator[dg.AssetCheckResult]:
    """Return a result for each audit, over all partitions of the run."""
    for result in results:
        yield dg.AssetCheckResult(
            check_name=result.audit.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity(result.audit.severity),
            description=summary(result),
            metadata=_metadata(result),
        )


def evaluations_by_partition(
    results: Sequence[AuditResult], *, asset: dg.AssetKey
) -> Iterator[dg.AssetCheckEvaluation]:
    """Return an evaluation for each audit and partition, for range runs of partitioned checks.

    Dagster records a check's result in a range run without its partitions, so they are logged one by one.
    """
    for result in results:
        for key, verdict in result.verdicts.items():
            yield dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=result.audit.name,
                passed=verdict.outcome == "passed",
                severity=dg.AssetCheckSeverity(result.audit.severity),
                blocking=result.audit.severity == "ERROR",
                metadata=_numbers({"failed_rows": verdict.failed_rows, **verdict.measured}),
                partition=key,
            )


def summary(result: AuditResult) -> str:
    """Return an audit's outcome in a sentence."""
    total = len(result.verdicts)
    if result.passed:
        return f"passed for {_counted(total, 'partition')}"
    where = f"{len(result.failed_keys)} of {_counted(total, 'partition')} ({listed(result.failed_keys)})"
    if result.problem is not None:
        return f"not measured for {where}: {result.problem}"
    return f"{_counted(result.failed_rows or 0, 'row')} failed in {where}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _metadata(result: AuditResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "partitions": len(result.verdicts),
        "failed_partitions": len(result.failed_keys),
    }
    if result.failed_rows is not None:
        metadata["failed_rows"] = result.failed_rows
    if result.failed_keys:
        metadata["failed_partition_keys"] = list(result.failed_keys)
    if result.problem is not None:
        metadata["problem"] = result.problem
    if len(result.verdicts) == 1:
        (verdict,) = result.verdicts.values()
        metadata |= _numbers(verdict.measured)
    if result.sample:
        metadata["failing_rows_sample"] = _table(result.sample)
    if result.failing_rows_sql is not None:
        metadata["failing_rows_sql"] = dg.MetadataValue.md(f"```sql\n{result.failing_rows_sql}\n```")
    return metadata


def _numbers(measured: Mapping[str, float]) -> dict[str, dg.MetadataValue[Any]]:
    return {
        name: dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
        for name, value in measured.items()
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    records = [dg.TableRecord({name: _shown(value) for name, value in row.items()}) for row in rows]
    columns = [dg.TableColumn(name) for name in rows[0]]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _shown(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
