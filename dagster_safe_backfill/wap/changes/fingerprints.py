"""fingerprints: what the rows of each live partition come to, to tell whether somebody changed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from sqlglot import exp

from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Fingerprint
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.sql import fingerprints as sql
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.wap.recognition import partition_columns, partition_types
from dagster_safe_backfill.wap.recovery import finish_interrupted_swap
from dagster_safe_backfill.warehouses.base import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBefore:
    """What live was before rows were computed for it: what changes from then on, they don't know of.

    Attributes:
        at: When that was.
        columns: Live's; None if there was no table.
        fingerprints: Those of its partitions, by key; empty if there was no table.
    """

    at: datetime
    columns: tuple[str, ...] | None = None
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])


def live_before(connection: Connection, *, spec: TableSpec, partition_slice: PartitionSlice) -> LiveBefore:
    """Return what live is now.

    Args:
        connection: An open session; read-only is enough.
        spec: How the live table is kept.
        partition_slice: The partitions.

    Raises:
        SliceError: The partition column is missing or can't tell the partitions.
    """
    at = datetime.now(timezone.utc)
    finish_interrupted_swap(connection, spec.table)
    live = connection.columns(spec.table)
    if live is None:
        return LiveBefore(at=at)
    names = tuple(column.name for column in live)
    found = current_fingerprints(connection, spec=spec, partition_slice=partition_slice, names=names)
    return LiveBefore(at=at, columns=names, fingerprints=found)


def current_fingerprints(
    connection: Connection, *, spec: TableSpec, partition_slice: PartitionSlice, names: Sequence[str]
) -> dict[str, Fingerprint]:
    """Return `live_fingerprints`, with the types that live's own columns have."""
    rows = exp.select(*map(terms.column, names)).from_(terms.table(spec.table))
    types = partition_types(connection, rows, spec=spec, partition_slice=partition_slice)
    return live_fingerprints(connection, spec=spec, partition_slice=partition_slice, types=types, names=names)


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
