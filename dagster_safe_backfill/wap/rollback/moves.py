"""Rollbacks of publications that moved rows between partitions."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_safe_backfill.errors import RollbackConflictError
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.ledger.moves import moved_rows
from dagster_safe_backfill.wap.rollback.undone import UndonePartition
from dagster_safe_backfill.warehouses.base import Session


def check_moves(session: Session, table: TableRef, undoing: Mapping[str, UndonePartition]) -> None:
    """Refuse to undo a move of rows in only one of its two partitions, which would lose their keys or repeat them.

    Raises:
        RollbackConflictError: The other partition isn't rolled back.
    """
    layers = {key: {layer.publication_id for layer in one.layers} for key, one in undoing.items()}
    undone = set[str]().union(*layers.values())
    for publication, pairs in moved_rows(session.reader, table, sorted(undone)).items():
        for was, now in sorted(pairs):
            keys = [key for key in (was, now) if publication in layers.get(key, ())]
            if len(keys) == 1:
                raise RollbackConflictError(
                    f"{table}: {publication} moved rows from {was} to {now}, so it can only be rolled back in both, and"
                    " nothing was rolled back. Name both partitions, or none.",
                    table=str(table),
                    keys=keys,
                )
