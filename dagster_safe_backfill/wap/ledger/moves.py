"""The ledger's record of rows that moved between partitions, or will once they are published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from dagster_safe_backfill.model.events import CHANGES_OF_LIVE
from dagster_safe_backfill.model.states import Fingerprint
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.warehouses.base import Session


def text_of_fingerprints(left: Mapping[str, Fingerprint] | None) -> str | None:
    """Return the text that `fingerprints_of` reads."""
    return json.dumps({key: str(fingerprint) for key, fingerprint in left.items()}) if left else None


def fingerprints_of(text: str | None) -> dict[str, Fingerprint]:
    """Return the fingerprints of the partitions that staged rows leave; empty if the row is that of a change."""
    # A change has a list of partitions in this column.
    told: dict[str, str] = json.loads(text) if text and text.startswith("{") else {}
    return {key: Fingerprint.parse(one) for key, one in told.items()}


def moved_rows(session: Session, table: TableRef, publication_ids: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
    """Return a mapping from publication or rollback to pairs of partitions: of one, rows moved to the other.

    The ledger must have all columns.
    """
    items = terms.columns(["publication_id", "partition_key", "moved"])
    is_one = terms.is_in(terms.column("publication_id"), map(terms.text, publication_ids))
    select = ledger.rows_of(table, items, ledger.is_event(*CHANGES_OF_LIVE), ledger.is_given("moved"), is_one)
    found: dict[str, set[tuple[str, str]]] = {}
    for publication_id, was, moved in session.query(select):
        found.setdefault(publication_id, set()).update((was, now) for now in json.loads(moved))
    return found
