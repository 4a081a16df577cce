"""fingerprints: what the rows of each live partition come to, to tell whether somebody changed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagster_safe_backfill.domain.slices import PartitionSlice
from dagster_safe_backfill.domain.states import Fingerprint
from dagster_safe_backfill.domain.tables import TableSpec
from dagster_safe_backfill.sql import fingerprints as sql
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.scope import partition_columns
from dagster_safe_backfill.warehouses.base import Connection


def live_fingerprints(
    connection: Connection,
    *,
    spec: TableSpec,
    partition_slice: PartitionSlice,
    types: Mapping[str | None, str],
    names: Sequence[str],
) -> dict[str, Fingerprint]:
    """Return the fingerprint of each partition of the slice in the live table, which must be there.

    Args:
        connection: An open session; read-only is enough.
        spec: How the live table is kept.
        partition_slice: The partitions.
        types: The types of the partition expressions, by dimension name.
        names: The columns that count.
    """
    columns = partition_columns(connection, spec=spec, partition_slice=partition_slice, types=types)
    row_hash = connection.row_hash([terms.column(name) for name in names])
    select = sql.fingerprints(spec.table, row_hash, partition_slice=partition_slice, columns=columns)
    found = {
        partition_slice.keys[int(position)]: Fingerprint(
            rows=rows, digest=f"{total:x}", algorithm=connection.hash_algorithm
        )
        for position, rows, total in connection.run(select)
        if position is not None
    }
    return {key: found.get(key, Fingerprint()) for key in partition_slice.keys}
