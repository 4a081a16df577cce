"""Audits as Dagster asset checks: one check for each audit, and the metadata on the check's page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import dagster as dg

from dagster_safe_backfill.audits.base import Audit, RowAudit
from dagster_safe_backfill.audits.comparison import Comparison
from dagster_safe_backfill.audits.groups import ROWS, AggregateBetween, AggregateDrift
from dagster_safe_backfill.audits.verdicts import AuditResult, Verdict
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.text import listed

PartitionedChecks = Literal["auto"] | bool
"""True if checks have a status for each partition. With "auto", they do if the policy limits a run to 31 partitions."""

# Each status is an event, which costs about 16 ms on SQLite: a range run of 365 partitions and nine checks takes 65 s
# instead of 8.5 s (Dagster 1.13.27).
_FEW_PARTITIONS = 31
_SHOWN_PARTITIONS = 100
_TOO_LARGE = 2**53
"""The UI rounds integers of this size and more, because JavaScript's numbers are 64-bit floats."""


def check_specs(
    audits: Sequence[Audit],
    *,
    asset: dg.AssetKey,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    prefix: str = "",
    is_gate: bool = True,
) -> list[dg.AssetCheckSpec]:
    """Return a check for each audit; the checks are partitioned if `partitions_def` is given.

    Raises:
        ConfigurationError: Two audits have the same name.
    """
    taken = [audit.name for audit in audits]
    repeated = sorted({name for name in taken if taken.count(name) > 1})
    if repeated:
        raise ConfigurationError(
            f"{asset.to_user_string()}: several audits are named {', '.join(repeated)}. Give each its own name=…."
        )
    return [
        dg.AssetCheckSpec(
            f"{prefix}{audit.name}",
            asset=asset,
            description=audit.description,
            # This stops downstream steps of the same run only (Dagster 1.13.27). Other runs are stopped because a
            # rejected partition isn't materialized.
            blocking=is_gate and audit.can_block,
            partitions_def=partitions_def,
        )
        for audit in audits
    ]


def are_partitioned(choice: PartitionedChecks, policy: dg.BackfillPolicy | None) -> bool:
    """Return True if checks have a status for each partition, for which a range run logs an event each."""
    if choice != "auto":
        return choice
    # Without a policy, Dagster starts one run for each partition.
    most = 1 if policy is None else policy.max_partitions_per_run
    return most is not None and most <= _FEW_PARTITIONS


def check_results(
    results: Sequence[AuditResult], *, is_published: bool, asset: dg.AssetKey | None = None, prefix: str = ""
) -> Iterator[dg.AssetCheckResult]:
    """Yield a result for each audit, over all partitions of the run.

    `is_published` is True if the rows are in the live table now, so that the SQL in the metadata finds them there.
    """
    for result in results:
        is_error = result.blocks or (result.passed and result.audit.can_block)
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=f"{prefix}{result.audit.name}",
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
            description=summary(result),
            metadata=_metadata(result, is_published=is_published),
        )


def evaluations_by_partition(
    results: Sequence[AuditResult], *, asset: dg.AssetKey, is_published: bool
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield an evaluation for each audit and partition, for range runs of partitioned checks."""
    # In a range run, Dagster 1.13.27 records a check result without partitions, and the planned evaluation of each
    # partition stays PLANNED until an evaluation is logged for it.
    for result in results:
        is_alone = len(result.verdicts) == 1
        for key, verdict in result.verdicts.items():
            is_warning = verdict.outcome == "warned" or not result.audit.can_block
            yield dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=result.audit.name,
                passed=verdict.outcome == "passed",
                severity=dg.AssetCheckSeverity.WARN if is_warning else dg.AssetCheckSeverity.ERROR,
                blocking=result.audit.can_block,
                description=summary(result) if is_alone else None,
                metadata=_metadata(result, is_published=is_published)
                if is_alone
                else _numbers(numbers_of(result.audit, verdict)),
                partition=key,
            )


def summary(result: AuditResult) -> str:
    """Return a sentence about an audit's outcome."""
    total = len(result.verdicts)
    if result.passed:
        tolerated = f", {counted(result.failed_rows, 'failing row')} tolerated" if result.failed_rows else ""
        finding = f": {result.finding}" if result.finding else ""
        return f"passed for {counted(total, 'partition')}{tolerated}{finding}"
    where = f"{len(result.failed_keys)} of {counted(total, 'partition')} ({listed(result.failed_keys)})"
    if result.overall is not None:
        where = "the run"
    if result.problem is not None:
        return f"not measured for {where}: {result.problem}"
    finding = "" if result.finding is None else f": {result.finding}"
    if isinstance(result.audit, RowAudit):
        return f"{counted(result.failed_rows or 0, 'row')} failed in {where}{finding}"
    if finding:
        return f"failed in {where}{finding}"
    return f"failed in {where}{_worst(result)}"


def _worst(result: AuditResult) -> str:
    """Return the measured numbers of the partition whose change or difference is the largest, as text."""
    failed = {key: result.verdicts[key].measured for key in result.failed_keys}
    key = max(failed, key=lambda one: max((_size(value) for value in _apart(failed[one])), default=0.0))
    numbers = ", ".join(f"{name} {shown_number(value)}" for name, value in failed[key].items())
    return f"; {'together' if result.overall is not None else key}: {numbers}" if numbers else ""


def _apart(measured: Mapping[str, float | None]) -> list[float | None]:
    return [measured[name] for name in ("change", "difference") if name in measured]


def _size(value: float | None) -> float:
    return math.inf if value is None else abs(value)


def shown_number(value: float | None) -> str:
    """Return a number as text: NULL, an integer with thousands separators, or six significant digits."""
    if value is None:
        return "NULL"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def numbers_of(audit: Audit, verdict: Verdict) -> dict[str, float | None]:
    """Return a mapping from name to number of the numbers that a verdict is based on."""
    failed = {"failed_rows": verdict.failed_rows} if isinstance(audit, RowAudit) else {}
    return {**failed, **verdict.measured}


def _metadata(result: AuditResult, *, is_published: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "partitions": len(result.verdicts),
        "failed_partitions": len(result.failed_keys),
    }
    if result.failed_keys:
        metadata["failed_partition_keys"] = list(result.failed_keys)
    threshold = result.audit.threshold
    if threshold is not None:
        metadata["threshold"] = threshold
    if result.problem is not None:
        return {**metadata, "problem": result.problem}
    alone = next(iter(result.verdicts.values())) if len(result.verdicts) == 1 else result.overall
    metadata |= _numbers(_totals(result) if alone is None else numbers_of(result.audit, alone))
    if result.failed_keys and result.overall is None and any(v.measured for v in result.verdicts.values()):
        metadata["failed_partitions_measured"] = _by_partition(result)
    rows = "differing_rows" if isinstance(result.audit, Comparison) else "failing_rows"
    if result.sample:
        metadata[f"{rows}_sample"] = table_value(result.sample)
    sql = result.published_rows_sql if is_published else result.failing_rows_sql
    if sql is not None:
        metadata[f"{rows}_sql"] = dg.MetadataValue.md(f"```sql\n{sql}\n```")
    return metadata


def _totals(result: AuditResult) -> dict[str, float | None]:
    """Return the numbers of all partitions together: sums of counts and totals, and the largest change."""
    values: dict[str, list[float]] = {}
    for verdict in result.verdicts.values():
        for name, value in numbers_of(result.audit, verdict).items():
            numbers = values.setdefault(name, [])
            if value is not None:
                numbers.append(value)
    audit = result.audit
    # The sums of the partitions' numbers are those of the whole only for counts and totals, not for means.
    is_additive = isinstance(audit, RowAudit | Comparison)
    if isinstance(audit, AggregateDrift | AggregateBetween):
        is_additive = audit.aggregate == ROWS or audit.aggregate.of == "total"
    totals: dict[str, float | None] = {}
    for name, numbers in values.items():
        if name in ("change", "difference"):
            totals[f"largest_{name}"] = max(numbers, default=None)
        elif name == "failed_share":
            # Shares can't be added, since partitions have different numbers of rows.
            rows = sum(values.get("rows", ()))
            totals[name] = (result.failed_rows or 0) / rows if rows else 0.0
        elif name == "failed_rows":
            totals[name] = result.failed_rows
        elif is_additive:
            totals[name] = sum(numbers)
    return totals


def _by_partition(result: AuditResult) -> dg.TableMetadataValue:
    keys = result.failed_keys[:_SHOWN_PARTITIONS]
    return table_value([{"partition": key, **numbers_of(result.audit, result.verdicts[key])} for key in keys])


def _numbers(measured: Mapping[str, float | None]) -> dict[str, dg.MetadataValue[Any]]:
    numbers: dict[str, dg.MetadataValue[Any]] = {}
    for name, value in measured.items():
        match _shown(value):
            case None:
                numbers[name] = dg.MetadataValue.null()
            case int(number):
                numbers[name] = dg.MetadataValue.int(number)
            case float(number):
                numbers[name] = dg.MetadataValue.float(number)
            case text:
                numbers[name] = dg.MetadataValue.text(str(text))
    return numbers


def table_value(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return rows as a table for the UI; a row without some column has NULL there."""
    # MetadataValue.table refuses records with different fields (Dagster 1.13.27).
    shown: dict[str, list[str | float | bool | None]] = {}
    for row in rows:
        for name in row:
            shown.setdefault(name, [])
    columns: list[dg.TableColumn] = []
    for name, values in shown.items():
        for row in rows:
            values.append(_shown(row.get(name)))
        kinds = {*map(type, values)} - {type(None)}
        kind = "string"
        # The last match wins: a bool is also an int (PEP 285), and an int can stand among floats.
        for one, types in (("float", {float, int, bool}), ("int", {int, bool}), ("bool", {bool})):
            if kinds and kinds <= types:
                kind = one
        columns.append(dg.TableColumn(name, type=kind))
    records: list[dg.TableRecord] = []
    for values in zip(*shown.values(), strict=True):
        records.append(dg.TableRecord(dict(zip(shown, values, strict=True))))
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _shown(value: Any) -> str | int | float | bool | None:
    """Return a value as the UI can show it: numbers that it would round, and values of other types, as text."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) < _TOO_LARGE:
            return int(value)
        # GraphQL's Float can't represent NaN and infinity (GraphQL specification, 3.5.2).
        case float() if math.isfinite(value):
            return float(value)
        case _:
            return str(value)
