"""Whether live partitions are still what the ledger says, before a rollback replaces their rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagster_safe_backfill.errors import RollbackConflictError
from dagster_safe_backfill.model.events import Fingerprint, RowCounts
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.alterations import Alteration
from dagster_safe_backfill.wap.ledger.history import cause_of_change
from dagster_safe_backfill.wap.rollback.undone import UndonePartition, is_dropped
from dagster_safe_backfill.warehouses.base import Session

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """Live partitions as a rollback finds them.

    Attributes:
        fingerprints: A mapping from partition key to fingerprint, over all columns of the live table.
        changed: The partitions that something changed that the ledger doesn't record.
        uncompared: The partitions of whose last change the ledger has a fingerprint by another hash, because the
            database was upgraded since.
    """

    fingerprints: Mapping[str, Fingerprint]
    changed: frozenset[str] = frozenset()
    uncompared: frozenset[str] = frozenset()


def live_state(
    session: Session,
    live: TableSlice,
    every: Sequence[Column],
    undoing: Mapping[str, UndonePartition],
    altered: Mapping[str, Alteration],
) -> LiveState:
    """Compare live partitions with the last change of each that the ledger records.

    Args:
        session: A session that sees what is committed.
        live: The partitions.
        every: The live table's columns.
        undoing: The partitions that are rolled back.
        altered: The changes of the table's columns.
    """
    names = names_of(every)
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for key, one in undoing.items():
        by_columns.setdefault(one.newest.columns, []).append(key)
    changed = {key for key, one in undoing.items() if one.is_changed_by_hand}
    uncompared: set[str] = set()
    now: dict[str, Fingerprint] = {}
    for columns, keys in by_columns.items():
        gone = [name for name in columns if name not in names]
        if gone or not columns:
            # A column of the fingerprint is gone, so the rows can't be compared with it.
            found = live_fingerprints(session, live.only(keys), every)
            changed.update(key for key in keys if not is_dropped(gone, found[key], undoing[key], altered))
        else:
            found = live_fingerprints(session, live.only(keys), every, columns)
            for key in keys:
                was = undoing[key].newest.fingerprint
                if was is None or not was.is_like(found[key]):
                    changed.add(key)
                elif was != found[key]:
                    uncompared.add(key)
        if gone or columns == names:
            now |= found
    others = [key for key in undoing if key not in now]
    if others:
        now |= live_fingerprints(session, live.only(others), every)
    return LiveState(fingerprints=now, changed=frozenset(changed), uncompared=frozenset(uncompared))


def check_unchanged(session: Session, live: TableSlice, state: LiveState) -> None:
    """Refuse to replace rows that somebody changed.

    Raises:
        RollbackConflictError: Live partitions changed after the last publication that the ledger records.
    """
    if not state.changed:
        return
    keys = sorted(state.changed)
    cause = cause_of_change(session, live, keys)
    raise RollbackConflictError(
        f"{live.table}: {listed(keys)} changed since the last publication there, {cause}, so nothing was rolled back."
        " Look at what changed. With force, the rollback replaces the changed rows and archives them.",
        table=str(live.table),
        keys=keys,
    )


def check_uncompared(
    live: TableSlice, state: LiveState, undoing: Mapping[str, UndonePartition], row_counts: Mapping[str, RowCounts]
) -> None:
    """Compare partitions whose fingerprints are of another hash with what the ledger counted when they were published.

    Their numbers of rows are those of then. Here the rows that the publication had left as they were must be in the
    archive, too. Who changed a row that the publication had written, and kept their number, isn't noticed.

    Args:
        live: The partitions.
        state: What the rollback found.
        undoing: The partitions that are rolled back.
        row_counts: A mapping from partition key to the row counts of the rollback; empty if they were not compared.

    Raises:
        RollbackConflictError: Other rows than those that the publication wrote differ from the archive.
    """
    if not state.uncompared:
        return
    changed = [
        key
        for key in sorted(state.uncompared)
        if key in row_counts
        and _is_mirrored(undoing[key])
        and row_counts[key].unchanged != undoing[key].newest.row_counts.unchanged
    ]
    if changed:
        raise RollbackConflictError(
            f"{live.table}: {listed(changed)} have other rows than the last publication there left, so nothing was"
            " rolled back. The database was upgraded since, and hashes rows in another way, so the rows were compared"
            " with the archive. Look at what changed. With force, the rollback replaces the changed rows and archives"
            " them.",
            table=str(live.table),
            keys=changed,
        )
    _LOG.warning(
        "%s: the database was upgraded since %s were published, and hashes rows in another way. They were compared by"
        " their numbers of rows, and with the archive.",
        live.table,
        listed(sorted(state.uncompared)),
    )


def _is_mirrored(one: UndonePartition) -> bool:
    """Return True if a rollback leaves as many rows unchanged as the partition's last change did."""
    return one.layers == [one.newest] and one.has_rows and one.newest.publication_id not in one.altered
