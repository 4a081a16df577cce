"""The ledger's record of rows that moved between partitions, or will once they are published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from dagster_safe_backfill.model.events import CHANGES_OF_LIVE, Fingerprint
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session

_COLUMNS = ("publication_id", "partition_key", "moved")


def text_of_fingerprints(left: Mapping[str, Fingerprint] | None) -> str | None:
    """Return the text that `LedgerRow.fingerprints` reads."""
    return json.dumps({key: str(fingerprint) for key, fingerprint in left.items()}) if left else None


def moved_rows(session: Session, table: TableRef, publication_ids: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
    """Return a mapping from publication or rollback to pairs of partitions: of one, rows moved to the other.

    The ledger must have all columns.
    """
    is_one = terms.is_in(terms.column("publication_id"), map(terms.text, publication_ids))
    conditions = [ledger.is_event(*CHANGES_OF_LIVE), ledger.is_given("moved"), is_one]
    found: dict[str, set[tuple[str, str]]] = {}
    rows = session.query(ledger.rows_of(table, terms.columns(_COLUMNS), *conditions))
    for row in ledger.as_rows(table, _COLUMNS, rows):
        was, pairs = row.text("partition_key"), found.setdefault(row.text("publication_id"), set())
        pairs.update((was, now) for now in row.texts("moved"))
    return found
