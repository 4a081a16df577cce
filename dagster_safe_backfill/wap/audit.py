"""audit: a verdict of every audit for every partition of what is staged, in the fewest scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from dagster_safe_backfill.domain.audits import (
    Audit,
    AuditResult,
    RowCountDrift,
    Verdict,
    unique,
)
from dagster_safe_backfill.domain.states import Audited, Origin, Rejected, Staged
from dagster_safe_backfill.errors import SafeBackfillError
from dagster_safe_backfill.sql import auditing, publishing
from dagster_safe_backfill.sql.auditing import Batch, RowAudit
from dagster_safe_backfill.sql.partitioning import rows_of
from dagster_safe_backfill.wap import ledger
from dagster_safe_backfill.wap.publish import planned
from dagster_safe_backfill.wap.scope import columns_of
from dagster_safe_backfill.warehouses.base import Connection

Counts = Mapping[int, int]
"""Failing rows, by position in the slice."""


def audit(
    connection: Connection,
    staged: Staged,
    audits: Sequence[Audit],
    *,
    origin: Origin,
) -> Audited | Rejected:
    """Measure audits on a staged batch, and record the outcome in the ledger.

    Row-by-row audits share one scan of the shadow; keys, references and the live side take one each. An audit
    that the warehouse refuses is unmeasured, and the others still get their verdicts.
    """
    results = measure(connection, staged, audits)
    blocking = [result for result in results if result.blocks]
    with connection.transaction():
        ledger.record(
            connection,
            "rejected" if blocking else "audited",
            staged,
            origin=origin,
            failed_audits=_failed_names(results),
        )
    outcome = Rejected if blocking else Audited
    return outcome(staged=staged, results=results)


def key_result(connection: Connection, staged: Staged) -> AuditResult:
    """Measure just that the unique key identifies each row."""
    (result,) = measure(connection, staged, [unique()])
    return result


def measure(connection: Connection, staged: Staged, audits: Sequence[Audit]) -> tuple[AuditResult, ...]:
    """Return a result for each audit, in their order; writes nothing."""
    batch = _batch(connection, staged)
    rows = [audit for audit in audits if not isinstance(audit, RowCountDrift)]
    together = [audit for audit in rows if auditing.is_row_by_row(audit)]
    results: dict[Audit, AuditResult] = {
        audit: _rows_alone(connection, staged, batch, audit) for audit in rows if audit not in together
    }
    if together:
        results |= _rows_together(connection, staged, batch, together)
    results |= _drifts(connection, staged, [audit for audit in audits if isinstance(audit, RowCountDrift)])
    return tuple(results[audit] for audit in audits)


def _failed_names(results: Sequence[AuditResult]) -> dict[str, str]:
    names: dict[str, list[str]] = {}
    for result in results:
        for key in result.failed_keys:
            names.setdefault(key, []).append(result.audit.name)
    return {key: ", ".join(failed) for key, failed in names.items()}


def _batch(connection: Connection, staged: Staged) -> Batch:
    return Batch(
        shadow=staged.shadow,
        live=staged.spec.table,
        outside=_outside(connection, staged),
        partition_names=_partition_names(connection, staged),
        columns=tuple(column.name for column in staged.columns),
        key=staged.spec.unique_key,
        dialect=connection.dialect,
    )


def _outside(connection: Connection, staged: Staged) -> exp.Expr | None:
    """Return the condition of live rows outside the slice; None if there can't be any."""
    if staged.partition_slice is None or not staged.live_exists:
        return None
    inside = rows_of(staged.partition_slice, columns_of(connection, staged))
    # A row without a partition value is outside too.
    return exp.not_(exp.Coalesce(this=exp.paren(inside), expressions=[exp.false()]))


def _partition_names(connection: Connection, staged: Staged) -> tuple[str, ...] | None:
    """Return the columns whose values alone tell a row's partition; None where it takes an expression."""
    parts = [column.expression for column in columns_of(connection, staged).values()]
    names = tuple(part.name.casefold() for part in parts if isinstance(part, exp.Column))
    return names if parts and len(names) == len(parts) else None


def _rows_together(
    connection: Connection, staged: Staged, batch: Batch, audits: Sequence[RowAudit]
) -> dict[Audit, AuditResult]:
    try:
        conditions = {str(i): auditing.fails(audit, batch) for i, audit in enumerate(audits)}
        rows = connection.run(auditing.failures_together(conditions, batch))
    except SafeBackfillError:
        return {audit: _rows_alone(connection, staged, batch, audit) for audit in audits}
    return {
        audit: _judged(connection, staged, batch, audit, {row[0]: row[i] for row in rows if row[i]})
        for i, audit in enumerate(audits, start=1)
    }


def _rows_alone(connection: Connection, staged: Staged, batch: Batch, audit: RowAudit) -> AuditResult:
    try:
        rows = connection.run(auditing.failures(auditing.fails(audit, batch), batch))
    except SafeBackfillError as error:
        return unmeasured(audit, staged, error)
    return _judged(connection, staged, batch, audit, dict(rows))


def _judged(connection: Connection, staged: Staged, batch: Batch, audit: RowAudit, counts: Counts) -> AuditResult:
    verdicts = {
        key: Verdict(outcome="failed" if counts.get(i) else "passed", failed_rows=counts.get(i, 0))
        for i, key in enumerate(staged.keys)
    }
    if not counts:
        return AuditResult(audit=audit, verdicts=verdicts)
    select = auditing.failing_rows(auditing.fails(audit, batch), batch)
    return AuditResult(
        audit=audit,
        verdicts=verdicts,
        sample=[dict(zip(batch.columns, row, strict=True)) for row in connection.run(auditing.sampled(select))],
        failing_rows_sql=select.sql(dialect=connection.dialect, pretty=True),
    )


def unmeasured(audit: Audit, staged: Staged, error: Exception) -> AuditResult:
    """Return the result of an audit that gave no answer: no partition passed."""
    return AuditResult(
        audit=audit,
        verdicts={key: Verdict(outcome="unmeasured") for key in staged.keys},
        problem=str(error),
    )


def _drifts(connection: Connection, staged: Staged, audits: Sequence[RowCountDrift]) -> dict[Audit, AuditResult]:
    if not audits:
        return {}
    try:
        live = _live_rows(connection, staged)
    except SafeBackfillError as error:
        return {audit: unmeasured(audit, staged, error) for audit in audits}
    return {
        audit: AuditResult(
            audit=audit,
            verdicts={
                key: _drift(staged.rows.get(key, 0), live.get(i, 0), audit.max_change)
                for i, key in enumerate(staged.keys)
            },
        )
        for audit in audits
    }


def _live_rows(connection: Connection, staged: Staged) -> Counts:
    if not staged.live_exists:
        return {}
    columns = columns_of(connection, staged)
    change = planned(connection, staged)
    select = publishing.rows_in_scope(change, partition_slice=staged.partition_slice, columns=columns)
    return dict(connection.run(select))


def _drift(shadow: int, live: int, max_change: float) -> Verdict:
    difference = abs(shadow - live)
    change = difference / live if live else 0.0
    failed = change > max_change
    return Verdict(
        outcome="failed" if failed else "passed",
        failed_rows=difference if failed else 0,
        measured={"shadow_rows": shadow, "live_rows": live, "change": change},
    )
