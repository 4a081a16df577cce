"""deduplicate: of the computed rows of one key, the latest is kept."""

from __future__ import annotations

from dataclasses import replace

from dagster_safe_backfill.errors import KeyViolationError
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.warehouses.base import Connection

_SAMPLE = 10


def deduplicated(connection: Connection, staged: Staged) -> Staged:
    """Delete the shadow's rows whose key comes again with a later value, and count them.

    Raises:
        KeyViolationError: Two rows of a key are the latest.
    """
    spec = staged.spec
    ((dropped, ties),) = connection.run(staging.duplicates(staged.shadow))
    if ties:
        sample = connection.run(staging.tied_keys(staged.shadow, spec.unique_key, size=_SAMPLE))
        raise KeyViolationError(
            f"{spec.table}: {ties} keys come twice with the same latest {spec.keep_latest}, so nothing tells which row"
            f" is right ({listed(sample)}); compute such a key once, or name a column in keep_latest that tells",
            table=str(spec.table),
            count=ties,
            sample=sample,
        )
    if dropped:
        connection.run(staging.delete_duplicates(staged.shadow))
    return replace(staged, duplicates=dropped)
