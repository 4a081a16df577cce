"""publish_collected: partitions go live that stand in several shadows, or are a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dagster_safe_backfill.errors import MixedVersionsError, NotStagedError, PublishError
from dagster_safe_backfill.model.options import Publish
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Published, Rejected, Staged
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.wap.audit import key_result
from dagster_safe_backfill.wap.collect import gathered, left, scratch_shadow
from dagster_safe_backfill.wap.ledger import ledger
from dagster_safe_backfill.wap.ledger.waiting import Stage, stages
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.warehouses.base import Connection


def publish_part(
    connection: Connection, rejected: Rejected, keys: Sequence[str], *, rules: Publish, origin: Origin
) -> Published:
    """Publish the partitions of a rejected batch that nothing blocks; the others stay in its shadow.

    Args:
        connection: An open session, outside a transaction.
        rejected: The batch, audited partition by partition.
        keys: The partitions.
        rules: How they go live.
        origin: Who publishes, and under which id.

    Raises:
        PublishError: Some of them are blocked; and as `publish`.
    """
    staged = rejected.staged
    blocked = [key for key in keys if key in set(rejected.blocked)]
    if blocked:
        raise PublishError(
            f"{staged.spec.table}: {listed(blocked)} are blocked by audits, and not published",
            table=str(staged.spec.table),
        )
    partition_slice = staged.partitions.only(keys)
    if ledger.changes_by(connection, staged.spec.table, origin.publication_id):
        # An earlier try committed, and failed afterwards; publishing says what it did. The shadow holds the others.
        chosen = replace(staged, partition_slice=partition_slice, shadow=scratch_shadow(connection))
    else:
        found = stages(connection, staged.spec.table, keys=keys, scope=origin.staged_for)
        chosen = gathered(connection, found, spec=staged.spec, partition_slice=partition_slice)
    chosen = replace(chosen, dropped=staged.dropped, duplicates=staged.duplicates)
    published = publish(connection, Audited(staged=chosen, results=rejected.results), rules=rules, origin=origin)
    positions = [position for position, key in enumerate(staged.keys) if key in set(keys)]
    connection.run(staging.delete_positions(staged.shadow, positions))
    return published


def publish_collected(
    connection: Connection,
    found: Sequence[Stage],
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    rules: Publish,
    origin: Origin,
) -> Published:
    """Publish partitions that an audit of all that was staged together has approved, wherever they stand.

    Args:
        connection: An open session, outside a transaction.
        found: Where each partition of the slice stands: a stage a key, all approved.
        spec: How the live table is kept.
        partition_slice: The partitions.
        rules: How they go live.
        origin: Who publishes; its id is numbered if the scope was published before.

    Raises:
        NotStagedError: Some aren't approved.
        MixedVersionsError: Different code versions staged them.
        PublishError: As of `publish`; also if a key stands in two partitions that were audited apart.
    """
    table = spec.table
    waiting = [stage.key for stage in found if stage.event != "approved"]
    if waiting:
        raise NotStagedError(f"{table}: {listed(waiting)} are not approved", table=str(table), keys=waiting)
    if not rules.allow_mixed_versions:
        check_one_version(table, found)
    version = found[0].code_version
    origin = replace(origin, publication_id=_next_id(connection, table, origin), code_version=version)
    staged = gathered(connection, found, spec=spec, partition_slice=partition_slice)
    if len({stage.shadow for stage in found}) > 1 and staged.spec.unique_key:
        _check_keys_apart(connection, staged)
    sources = left(connection, table, found, is_over=lambda _: True)
    return publish(
        connection,
        Audited(staged=staged, results=()),
        rules=rules,
        origin=origin,
        sources=sources,
        taken=[(stage.scope, stage.key) for stage in found],
    )


def check_one_version(table: TableRef, found: Sequence[Stage]) -> None:
    """Refuse partitions that several versions of the code staged.

    Raises:
        MixedVersionsError: They did.
    """
    versions = list(dict.fromkeys(stage.code_version for stage in found))
    if len(versions) > 1:
        raise MixedVersionsError(
            f"{table}: these partitions were staged by code_version {listed(versions)}, and are not published together:"
            " the code changed in between. Stage all of them again, or set allow_mixed_versions=True",
            table=str(table),
            versions=versions,
        )


def _next_id(connection: Connection, table: TableRef, origin: Origin) -> str:
    """Return the id of the next publication of a scope."""
    scope = origin.staged_for
    before = ledger.publications_in(connection, table, scope)
    return f"{scope}.{before + 1}" if before else scope


def _check_keys_apart(connection: Connection, staged: Staged) -> None:
    """Refuse partitions that hold a key twice: those that were audited apart were not looked through together."""
    result = key_result(connection, staged)
    if result.passed:
        return
    raise PublishError(
        f"{staged.spec.table}: {listed(result.failed_keys)} were audited apart, and together {result.failed_rows} of"
        " their rows have no unique key of their own, so nothing was published; audit them together",
        table=str(staged.spec.table),
    )
