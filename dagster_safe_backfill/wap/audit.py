"""audit: a verdict of every audit for every partition of what is staged; the one place that can make an `Audited`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from typing_extensions import assert_never

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.rows import Unique
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import MixedVersionsError, NotStagedError, PublishError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import (
    AUDIT_SEAL,
    Audited,
    Judged,
    Origin,
    Rejected,
    Staged,
    StagedEvent,
    StagedPartition,
)
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.collect import gathered, scratch_shadow
from dagster_safe_backfill.wap.ledger.history import changes_by
from dagster_safe_backfill.wap.ledger.record import record_staged
from dagster_safe_backfill.wap.ledger.waiting import staged_partitions
from dagster_safe_backfill.wap.measure.measure import key_result, measure
from dagster_safe_backfill.wap.measure.rows import staged_rows
from dagster_safe_backfill.warehouses.base import Session

Gate = Literal["run", "part_of_run", "partition", "part_of_group", "group"]
"""What is let through together:

- `run`: all of the batch, or nothing of it.
- `part_of_run`: the same, and it is published with other batches.
- `partition`: each partition that nothing blocks.
- `part_of_group`: the same, and they are published with others.
- `group`: all that is staged together, which is approved for publication by it, or nothing of it.

A key that live holds in another partition says nothing yet of a part, as that may go with the others: so all of them
have to be audited together in the end.
"""


def audit(
    session: Session,
    staged: Staged,
    audits: Sequence[Audit],
    *,
    origin: Origin,
    gate: Gate,
    sample_columns: Sequence[str] | None = None,
) -> Audited | Rejected:
    """Measure audits on a staged batch, and record the outcome in the ledger.

    Args:
        session: An open session, outside a transaction.
        staged: What is audited.
        audits: What is asked.
        origin: Who writes, and for which publication.
        gate: What is let through together.
        sample_columns: The columns that samples of failing rows may show; all, if None.
    """
    is_part = gate in ("part_of_run", "part_of_group")
    batch = staged_rows(session, staged, sample_columns, looks_outside=not is_part)
    found = measure(session, batch, audits)
    judged = _judged(staged, found.results, found.live_rows)
    with session.transaction():
        _record(session, judged, origin=origin, gate=gate)
    return judged


def _judged(staged: Staged, results: Sequence[AuditResult], live_rows: Mapping[str, int] | None) -> Audited | Rejected:
    judged = Rejected(staged=staged, results=results, live_rows=live_rows)
    if judged.blocked:
        return judged
    return Audited(staged=staged, results=results, live_rows=live_rows, seal=AUDIT_SEAL)


def _record(session: Session, judged: Audited | Rejected, *, origin: Origin, gate: Gate) -> None:
    passed: StagedEvent = "audited"
    failed: StagedEvent = "rejected"
    blocked = judged.blocked
    match gate:
        case "run" | "part_of_run":
            blocked = judged.staged.keys if blocked else ()
        case "partition" | "part_of_group":
            pass
        case "group":
            passed, failed = "approved", "refused"
            blocked = judged.staged.keys if blocked else ()
        case _:
            assert_never(gate)
    kept = [key for key in judged.staged.keys if key not in set(blocked)]
    record_staged(session, passed, judged.staged, origin=origin, results=judged.results, keys=kept)
    record_staged(session, failed, judged.staged, origin=origin, results=judged.results, keys=blocked)


def together(
    parts: Sequence[Audited | Rejected], *, audits: Sequence[Audit], partition_slice: PartitionSlice
) -> Audited | Rejected:
    """Return several batches of a slice as one: rejected, if one of them is. Its shadow is that of the first."""
    first, *others = parts
    if not others:
        return first
    by_name: dict[str, list[AuditResult]] = {}
    for part in parts:
        for result in part.results:
            by_name.setdefault(result.audit.name, []).append(result)
    partitions = partition_slice.only(key for part in parts for key in part.staged.keys)
    staged = replace(
        first.staged,
        table_slice=replace(first.staged.table_slice, partition_slice=partitions),
        rows={key: rows for part in parts for key, rows in part.staged.rows.items()},
        dropped=sum(part.staged.dropped for part in parts),
        duplicates=sum(part.staged.duplicates for part in parts),
    )
    results = [AuditResult.of_batches(by_name[audit.name]) for audit in audits if audit.name in by_name]
    live_rows = _live_rows(parts)
    if any(isinstance(part, Rejected) for part in parts):
        return Rejected(staged=staged, results=results, live_rows=live_rows)
    return Audited(staged=staged, results=results, live_rows=live_rows, seal=AUDIT_SEAL)


def audit_together(
    session: Session,
    staged: Staged,
    audits: Sequence[Audit],
    *,
    of_batches: Audited,
    origin: Origin,
    sample_columns: Sequence[str] | None = None,
) -> Audited | Rejected:
    """Measure the audits that span batches on all of them, and add what the others said of each.

    Args:
        session: An open session, outside a transaction.
        staged: The batches, collected in one shadow.
        audits: All that is asked.
        of_batches: What was said of the batches.
        origin: Who writes, and for which publication.
        sample_columns: The columns that samples of failing rows may show; all, if None.
    """
    spanning = [one for one in audits if one.is_over_run or isinstance(one, Unique)]
    dropped, duplicates = of_batches.staged.dropped, of_batches.staged.duplicates
    staged = replace(staged, dropped=dropped, duplicates=duplicates)
    judged = audit(session, staged, spanning, origin=origin, gate="run", sample_columns=sample_columns)
    results = {result.audit.name: result for result in (*of_batches.results, *judged.results)}
    return _judged(staged, [results[one.name] for one in audits], of_batches.live_rows)


def passed_part(session: Session, rejected: Rejected, *, origin: Origin) -> Audited | None:
    """Return the partitions of a rejected batch that nothing blocks; None if there are none.

    Their rows are copied for the session. Once published, they leave the batch's shadow, where the others stay.

    Args:
        session: An open session, outside a transaction.
        rejected: The batch, audited partition by partition.
        origin: Who publishes, and under which id.

    Raises:
        PublishConflictError: The rows aren't as they were audited.
    """
    staged, blocked = rejected.staged, set(rejected.blocked)
    positions = tuple([position for position, key in enumerate(staged.keys) if key not in blocked])
    if not positions:
        return None
    keys = [staged.keys[position] for position in positions]
    part = staged.table_slice.only(keys)
    if changes_by(session, part.table, origin.publication_id):
        # An earlier try committed, and failed afterwards; publishing says what it did. The shadow holds the others.
        chosen = replace(staged, table_slice=part, shadow=scratch_shadow(session))
    else:
        found = staged_partitions(session, part.table, keys=keys, group=origin.group)
        assert part.partition_slice is not None
        chosen = gathered(session, found, spec=part.spec, partition_slice=part.partition_slice)
    chosen = replace(chosen, dropped=staged.dropped, duplicates=staged.duplicates, rest=(staged.shadow, positions))
    results = [
        replace(result, verdicts={key: result.verdicts[key] for key in keys}, overall=None, failed_rows=None)
        for result in rejected.results
    ]
    return Audited(staged=chosen, results=results, live_rows=rejected.live_rows, seal=AUDIT_SEAL)


def approved(
    session: Session,
    found: Sequence[StagedPartition],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    allows_mixed_versions: bool = False,
) -> Audited:
    """Return partitions that an audit of all that was staged together has approved, wherever they stand.

    Args:
        session: An open session, outside a transaction.
        found: Where each partition of the slice stands, one a key.
        spec: How the live table is kept.
        partition_slice: The partitions.
        allows_mixed_versions: Whether different code versions may have staged them.

    Raises:
        NotStagedError: Some aren't approved.
        MixedVersionsError: Different code versions staged them.
        PublishError: The rows aren't as they were audited, or a key stands in two partitions that were audited apart.
    """
    table = spec.table
    waiting = [one.key for one in found if one.event != "approved"]
    if waiting:
        raise NotStagedError(f"{table}: {listed(waiting)} are not approved", table=str(table), keys=waiting)
    if not allows_mixed_versions:
        check_one_version(table, found)
    staged = replace(gathered(session, found, spec=spec, partition_slice=partition_slice), moved=tuple(found))
    if len(staged.copied_from) > 1 and staged.spec.unique_key:
        _check_keys_apart(session, staged)
    return Audited(staged=staged, results=(), seal=AUDIT_SEAL)


def check_one_version(table: TableRef, found: Sequence[StagedPartition]) -> None:
    """Refuse partitions that several versions of the code staged.

    Raises:
        MixedVersionsError: They did.
    """
    versions = list(dict.fromkeys(one.code_version for one in found))
    if len(versions) > 1:
        raise MixedVersionsError(
            f"{table}: these partitions were staged with several values of code_version ({listed(versions)}), so they"
            " are not published together. Stage all of them again, or write publish=Merge(allow_mixed_versions=True)"
            " (or Replace, or Swap).",
            table=str(table),
            versions=versions,
        )


def _check_keys_apart(session: Session, staged: Staged) -> None:
    """Refuse partitions that hold a key twice: those that were audited apart were not looked through together."""
    result = key_result(session, staged)
    if result.passed:
        return
    raise PublishError(
        f"{staged.spec.table}: {listed(result.failed_keys)} were audited apart, and together {result.failed_rows} of"
        " their rows have no unique key of their own, so nothing was published; audit them together",
        table=str(staged.spec.table),
    )


def _live_rows(parts: Sequence[Judged]) -> Mapping[str, int] | None:
    rows: dict[str, int] = {}
    for part in parts:
        if part.live_rows is None:
            return None
        rows |= part.live_rows
    return rows
