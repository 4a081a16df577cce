"""Fingerprints: what the rows of each live partition come to, to tell whether somebody changed them."""

from __future__ import annotations

from collections.abc import Sequence

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Fingerprint
from dagster_safe_backfill.sql import fingerprints as sql
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Session


def live_fingerprints(session: Session, table_slice: TableSlice, names: Sequence[str]) -> dict[str, Fingerprint]:
    """Return the fingerprint of each partition of the slice in the live table, over the columns `names`.

    The table must be there; a read-only session is enough.
    """
    select = sql.fingerprints(table_slice, session.dialect.row_hash(terms.columns(names)))
    keys = table_slice.keys
    found = dict.fromkeys(keys, Fingerprint())
    algorithm = session.dialect.hash_algorithm
    for position, rows, total in session.query(select):
        if position is not None:
            digest = f"{total:x}"
            found[keys[int(position)]] = Fingerprint(rows=rows, digest=digest, algorithm=algorithm)
    return found
