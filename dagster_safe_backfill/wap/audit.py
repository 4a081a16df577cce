"""Auditing staged rows. This is the only module that can make an `Audited`, which `publish` needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import filterfalse
from typing import Literal

from typing_extensions import assert_never

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.rows import Unique
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import MixedVersionsError, NotStagedError, PublishError
from dagster_safe_backfill.model.events import StagedEvent
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import AUDIT_SEAL, Audited, Judged, Origin, Rejected, Staged, StagedPartition
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
"""Which partitions pass together:

- `run`: all partitions of the batch pass, or none.
- `part_of_run`: the same; the batch is published together with other batches.
- `partition`: each partition passes that no audit blocks.
- `part_of_group`: the same; the partitions are published together with others of their group.
- `group`: all partitions of the group are approved for publication, or none.

The two parts don't look for their keys in live partitions outside the batch, since another part may remove the key from
there. So all parts must be audited together at the end.
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
    """Measure audits on a staged batch, and record in the ledger which partitions passed.

    Args:
        session: An open session, outside a transaction.
        staged: The batch.
        audits: The audits, with distinct names.
        origin: The run that audits, and the id of its publication.
        gate: Which partitions pass together.
        sample_columns: The columns whose values samples of failing rows may show. Defaults to all columns.
    """
    is_part = gate in ("part_of_run", "part_of_group")
    batch = staged_rows(session, staged, sample_columns, looks_outside=not is_part)
    found = measure(session, batch, audits)
    judged = _judged(staged, found.results, found.live_rows)
    # Measuring stays outside: a transaction in which the statement of an audit was refused can't be committed.
    with session.transaction():
        _record(session, judged, origin=origin, gate=gate)
    return judged


def _judged(staged: Staged, results: Sequence[AuditResult], live_rows: Mapping[str, int] | None) -> Audited | Rejected:
    # Made first, because it computes `blocked`; an Audited with a blocked partition can't be made.
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
    kept = list(filterfalse({*blocked}.__contains__, judged.staged.keys))
    record_staged(session, passed, judged.staged, origin=origin, results=judged.results, keys=kept)
    record_staged(session, failed, judged.staged, origin=origin, results=judged.results, keys=blocked)


def together(
    parts: Sequence[Audited | Rejected], *, audits: Sequence[Audit], partition_slice: PartitionSlice
) -> Audited | Rejected:
    """Return several judged batches of a slice as one, which is rejected if one of them is.

    It has the shadow of the first batch.
    """
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
        left={key: left for part in parts for key, left in part.staged.left.items()},
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
    """Measure the audits that span batches on all batches together, and add the results of the other audits.

    Args:
        session: An open session, outside a transaction.
        staged: The batches, collected in one shadow.
        audits: All audits of the asset.
        of_batches: The results of the single batches; see `together`.
        origin: The run that audits, and the id of its publication.
        sample_columns: The columns whose values samples of failing rows may show. Defaults to all columns.
    """
    # A key may occur in two batches, and the audit of each batch read only that batch's shadow.
    spanning = [one for one in audits if one.is_over_run or isinstance(one, Unique)]
    dropped, duplicates = of_batches.staged.dropped, of_batches.staged.duplicates
    # The collected shadow doesn't show how many rows each batch left out.
    staged = replace(staged, dropped=dropped, duplicates=duplicates)
    judged = audit(session, staged, spanning, origin=origin, gate="run", sample_columns=sample_columns)
    results = {result.audit.name: result for result in (*of_batches.results, *judged.results)}
    return _judged(staged, [results[one.name] for one in audits], of_batches.live_rows)


def passed_part(session: Session, rejected: Rejected, *, origin: Origin) -> Audited | None:
    """Return the partitions of a rejected batch that no audit blocks; None if all are blocked.

    Their rows are copied into a scratch table of the session. Their publication deletes them from the batch's shadow,
    which keeps the other partitions.

    Args:
        session: An open session, outside a transaction.
        rejected: The batch, audited with the gate `partition`.
        origin: The run that publishes, and the id of the publication.

    Raises:
        PublishConflictError: The shadow doesn't have the rows that were audited.
    """
    staged, blocked = rejected.staged, set(rejected.blocked)
    positions = tuple([position for position, key in enumerate(staged.keys) if key not in blocked])
    if not positions:
        return None
    keys = [staged.keys[position] for position in positions]
    part = staged.table_slice.only(keys)
    if changes_by(session, part.table, origin.publication_id):
        # An earlier try committed and failed afterwards, so these rows are gone from the shadow. `publish` returns
        # the result of that try.
        chosen = replace(staged, table_slice=part, shadow=scratch_shadow(session))
    else:
        found = staged_partitions(session, part.table, keys=keys, group=origin.group, assets=origin.assets)
        assert part.partition_slice is not None
        chosen = gathered(session, found, spec=part.spec, partition_slice=part.partition_slice)
    chosen = replace(chosen, dropped=staged.dropped, duplicates=staged.duplicates, rest=(staged.shadow, positions))
    results = [
        # Without `failed_rows`, AuditResult counts those of the remaining partitions.
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
    """Return partitions that an audit of their group has approved, copied from their shadows for the session.

    Args:
        session: An open session, outside a transaction.
        found: The staged partition for each key of the slice.
        spec: How the live table is kept.
        partition_slice: The partitions.
        allows_mixed_versions: True if different code versions may have staged the partitions.

    Raises:
        NotStagedError: Partitions are not approved.
        MixedVersionsError: Different code versions staged the partitions.
        PublishError: A shadow doesn't have the rows that were audited, or a key occurs in two partitions that were not
            audited together.
    """
    table = spec.table
    waiting = [one.key for one in found if one.event != "approved"]
    if waiting:
        raise NotStagedError(
            f"{table}: {listed(waiting)} are not approved, so nothing was published", table=str(table), keys=waiting
        )
    if not allows_mixed_versions:
        check_one_version(table, found)
    staged = replace(gathered(session, found, spec=spec, partition_slice=partition_slice), moved=tuple(found))
    # One audit of the group read all rows of one shadow, so only rows of several shadows can share a key.
    if len(staged.copied_from) > 1 and staged.spec.unique_key:
        _check_keys_apart(session, staged)
    return Audited(staged=staged, results=(), seal=AUDIT_SEAL)


def check_one_version(table: TableRef, found: Sequence[StagedPartition]) -> None:
    """Refuse partitions that were staged with different code versions, code, run config or resources.

    Raises:
        MixedVersionsError: They differ.
    """
    versions: Sequence[str | None] = list(dict.fromkeys(one.code_version for one in found))
    what = "code_version"
    for name in ("code", "config", "resources"):
        if len(versions) > 1:
            break
        what = name
        versions = list(dict.fromkeys(one.provenance and one.provenance.parts.get(name) for one in found))
    if len(versions) > 1:
        raise MixedVersionsError(
            f"{table}: these partitions were staged with {what} {listed(versions)}, so they are not published together:"
            " it changed in between. Stage all of them again, or set allow_mixed_versions=True in publish=, for example"
            " publish=Merge(allow_mixed_versions=True).",
            table=str(table),
            versions=versions,
        )


def _check_keys_apart(session: Session, staged: Staged) -> None:
    """Refuse a key that occurs in two partitions: separate audits could not see it.

    Raises:
        PublishError: A key occurs twice.
    """
    result = key_result(session, staged)
    if result.passed:
        return
    raise PublishError(
        f"{staged.spec.table}: {listed(result.failed_keys)} were audited separately, and {result.failed_rows} of their"
        f" rows have a key that is NULL or occurs twice, so nothing was published. Materialize them together in"
        f" {staged.spec.table.name}__audit.",
        table=str(staged.spec.table),
    )


def _live_rows(parts: Sequence[Judged]) -> Mapping[str, int] | None:
    rows: dict[str, int] = {}
    for part in parts:
        if part.live_rows is None:
            return None
        rows |= part.live_rows
    return rows
