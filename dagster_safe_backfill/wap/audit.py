"""audit: a verdict of every audit for every partition of what is staged, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.rows import unique
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.model.states import Audited, Origin, Rejected, Staged
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.sql.auditing import AuditedRows
from dagster_safe_backfill.sql.slicing import PartitionColumns, rows_of
from dagster_safe_backfill.wap.changes.plan import with_defaults
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.measure.measure import Subject, measure
from dagster_safe_backfill.wap.recognition import columns_of
from dagster_safe_backfill.warehouses.base import Connection


def audit(
    connection: Connection,
    staged: Staged,
    audits: Sequence[Audit],
    *,
    origin: Origin,
    sample_columns: Sequence[str] | None = None,
    is_by_partition: bool = False,
    is_part: bool = False,
    is_of_scope: bool = False,
) -> Audited | Rejected:
    """Measure audits on a staged batch, and record the outcome in the ledger.

    Args:
        connection: An open session, outside a transaction.
        staged: What is audited.
        audits: What is asked.
        origin: Who writes, and for which publication.
        sample_columns: The columns that samples of failing rows may show; all, if None.
        is_by_partition: Whether partitions that nothing blocks count as audited where others of the batch don't.
        is_part: Whether others are to be published with it: then a key that live holds in another partition says
            nothing yet, as that may go with them. All of them have to be audited together in the end.
        is_of_scope: Whether the batch is all that is staged together, so that passing approves it for publication.
    """
    subject = subject_of(connection, staged, sample_columns)
    if is_part:
        subject = replace(subject, batch=replace(subject.batch, outside=None))
    found = measure(connection, subject, audits)
    is_rejected = any(result.blocks for result in found.results)
    outcome = Rejected if is_rejected else Audited
    judged = outcome(staged=staged, results=found.results, live_rows=found.live_rows)
    with connection.transaction():
        _record(connection, judged, origin=origin, is_by_partition=is_by_partition, is_of_scope=is_of_scope)
    return judged


def _record(
    connection: Connection, judged: Audited | Rejected, *, origin: Origin, is_by_partition: bool, is_of_scope: bool
) -> None:
    passed, failed = ("approved", "refused") if is_of_scope else ("audited", "rejected")
    staged, keys = judged.staged, judged.staged.keys
    blocked: Sequence[str] = ()
    if isinstance(judged, Rejected):
        blocked = judged.blocked if is_by_partition else keys
    bad = set(blocked)
    good = [key for key in keys if key not in bad]
    ledger.record_staged(connection, passed, staged, origin=origin, results=judged.results, keys=good)
    ledger.record_staged(connection, failed, staged, origin=origin, results=judged.results, keys=blocked)


def key_result(connection: Connection, staged: Staged) -> AuditResult:
    """Measure just that the unique key identifies each row."""
    found = measure(connection, subject_of(connection, staged, None), [unique()], counts_live=False)
    return found.results[0]


def subject_of(connection: Connection, staged: Staged, sample_columns: Sequence[str] | None) -> Subject:
    """Return a staged batch as what audits are measured on."""
    columns = columns_of(connection, staged)
    inside = None if staged.partition_slice is None else rows_of(staged.partition_slice, columns)
    batch = AuditedRows(
        rows=staged.shadow,
        live=staged.spec.table,
        scope=exp.true() if inside is None else exp.paren(inside),
        outside=_outside(inside) if staged.live_exists else None,
        has_live=staged.live_exists,
        partition_slice=staged.partition_slice,
        partition_columns=columns,
        partition_names=partition_names(columns),
        columns=tuple(column.name for column in staged.columns),
        added=_added(connection, staged),
        instants=tuple(column.name for column in staged.columns if connection.keeps(column.type) == "timestamptz"),
        stamp=staged.spec.updated_at_column,
        key=staged.spec.unique_key,
        dialect=connection.dialect,
    )
    return Subject(
        batch=batch,
        keys=staged.keys,
        columns=staged.columns,
        rows=staged.rows,
        sample_columns=None if sample_columns is None else tuple(sample_columns),
    )


def _added(connection: Connection, staged: Staged) -> dict[str, exp.Expr]:
    """Return the columns that live still lacks, with what its rows get in them at the publication."""
    if not staged.added:
        return {}
    known = {column.name for column in connection.columns(staged.spec.table) or ()}
    lacking = [column for column in staged.added if column.name not in known]
    found = with_defaults(staged, lacking, dialect=connection.dialect)
    return {
        column.name: exp.cast(value or exp.Null(), terms.data_type(column.type, dialect=connection.dialect))
        for column, value in found.items()
    }


def _outside(inside: exp.Expr | None) -> exp.Expr | None:
    """Return the condition of live rows outside the slice; None if there can't be any."""
    if inside is None:
        return None
    # A row without a partition value is outside too.
    return exp.not_(exp.Coalesce(this=exp.paren(inside), expressions=[exp.false()]))


def partition_names(columns: PartitionColumns) -> tuple[str, ...] | None:
    """Return the columns whose values alone tell a row's partition; None where it takes an expression."""
    parts = [column.expression for column in columns.values()]
    names = tuple(part.name.casefold() for part in parts if isinstance(part, exp.Column))
    return names if parts and len(names) == len(parts) else None
