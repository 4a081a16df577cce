"""Fingerprints of live partitions, which show whether somebody changed their rows."""

from __future__ import annotations

from collections.abc import Sequence

from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Fingerprint
from dagster_safe_backfill.sql import fingerprints as sql
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Session


def live_fingerprints(session: Session, table_slice: TableSlice, names: Sequence[str]) -> dict[str, Fingerprint]:
    """Return a mapping from partition key to the fingerprint of the live partition, over the columns `names`.

    The table must exist; a read-only session is enough.
    """
    dialect, keys = session.dialect, table_slice.keys
    select = sql.fingerprints(table_slice, dialect.row_hash(terms.columns(names)))
    found = dict.fromkeys(keys, Fingerprint())
    algorithm = dialect.hash_algorithm
    for position, rows, total in session.query(select):
        if position is not None:
            # DuckDB sums hashes as HUGEINT, so the digest is an exact integer of more than 64 bits.
            digest = f"{total:x}"
            found[keys[int(position)]] = Fingerprint(rows=rows, digest=digest, algorithm=algorithm)
    return found
