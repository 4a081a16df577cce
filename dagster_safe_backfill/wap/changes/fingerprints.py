"""Fingerprints of live partitions, which show whether somebody changed their rows."""

from __future__ import annotations

from collections.abc import Sequence

from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import fingerprints as sql
from dagster_safe_backfill.sql.sameness import hash_of
from dagster_safe_backfill.warehouses.base import Session


def live_fingerprints(
    session: Session, table_slice: TableSlice, columns: Sequence[Column], names: Sequence[str] | None = None
) -> dict[str, Fingerprint]:
    """Return a mapping from partition key to the fingerprint of the live partition.

    The table must exist; a read-only session is enough.

    Args:
        session: An open session.
        table_slice: The partitions.
        columns: The live table's columns.
        names: The columns to read. Defaults to all of them.
    """
    dialect, keys = session.dialect, table_slice.keys
    by_name = {column.name: column for column in columns}
    read = columns if names is None else [by_name[name] for name in names]
    select = sql.fingerprints(table_slice, hash_of(read, dialect), dialect)
    found = dict.fromkeys(keys, Fingerprint())
    for position, rows, total, known in session.query(select):
        if position is not None:
            # DuckDB sums hashes as HUGEINT, so the digest is an exact integer of more than 64 bits.
            digest, algorithm = f"{total:x}", f"{dialect.name}-{known:x}"
            found[keys[int(position)]] = Fingerprint(rows=rows, digest=digest, algorithm=algorithm)
    return found
