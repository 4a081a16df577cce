"""The ledger: an append-only table beside the data that says what happened to each partition, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Literal

from sqlglot import exp

from dagster_safe_backfill.domain.states import Changes, Origin, Staged, Strategy
from dagster_safe_backfill.domain.tables import TableRef
from dagster_safe_backfill.domain.verdicts import AuditResult
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Connection

Event = Literal["staged", "audited", "rejected", "published"]

LEDGER = "_safe_backfill_ledger"
_COLUMNS = {
    "recorded_at": "TIMESTAMPTZ",
    "event": "TEXT",
    "table_name": "TEXT",
    "partition_key": "TEXT",
    "publication_id": "TEXT",
    "shadow": "TEXT",
    "run_id": "TEXT",
    "backfill_id": "TEXT",
    "code_version": "TEXT",
    "strategy": "TEXT",
    "rows_staged": "BIGINT",
    "rows_inserted": "BIGINT",
    "rows_updated": "BIGINT",
    "rows_deleted": "BIGINT",
    "rows_unchanged": "BIGINT",
    "failed_audits": "TEXT",
    "warned_audits": "TEXT",
}


def ledger_of(table: TableRef) -> TableRef:
    """Return the ledger's name for the tables of one schema."""
    return TableRef(schema=table.schema, name=LEDGER)


def create(connection: Connection, table: TableRef) -> None:
    """Create the ledger beside `table` if there is none; one that an older version made gets the newer columns."""
    ledger = ledger_of(table)
    found = connection.columns(ledger)
    columns = [
        exp.ColumnDef(this=exp.to_identifier(name, quoted=True), kind=exp.DataType.build(kind))
        for name, kind in _COLUMNS.items()
    ]
    if found is None:
        schema = exp.Schema(this=terms.table(ledger), expressions=columns)
        connection.run(exp.Create(this=schema, kind="TABLE", exists=True))
        return
    known = {column.name.casefold() for column in found}
    for column in columns:
        if column.name.casefold() not in known:
            connection.run(exp.Alter(this=terms.table(ledger), kind="TABLE", actions=[column]))


def record(
    connection: Connection,
    event: Event,
    staged: Staged,
    *,
    origin: Origin,
    strategy: Strategy | None = None,
    changes: Mapping[str, Changes] | None = None,
    results: Sequence[AuditResult] = (),
) -> None:
    """Append a row for each partition of the batch; it commits with the caller's transaction."""
    now = datetime.now(timezone.utc)
    spec, nothing = staged.spec, Changes()
    rows: list[tuple[object, ...]] = []
    blocking = _names({result.audit.name: result.blocking_keys for result in results})
    others = {result.audit.name: set(result.failed_keys) - set(result.blocking_keys) for result in results}
    warned = _names(others)
    for key in staged.keys:
        change = (changes or {}).get(key, nothing)
        counts: tuple[int | None, ...] = (None,) * 4
        if changes is not None:
            counts = (change.inserted, change.updated, change.deleted, change.unchanged)
        rows.append(
            (
                *(now, event, str(spec.table), key, origin.publication_id, str(staged.shadow)),
                *(origin.run_id, origin.backfill_id, origin.code_version, strategy),
                *(staged.rows.get(key, 0), *counts),
                *(blocking.get(key), warned.get(key)),
            )
        )
    connection.append(ledger_of(spec.table), list(_COLUMNS), rows)


def _names(keys_by_audit: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the names of the audits that each key is listed for."""
    names: dict[str, list[str]] = {}
    for name, keys in keys_by_audit.items():
        for key in keys:
            names.setdefault(key, []).append(name)
    return {key: ", ".join(found) for key, found in names.items()}
