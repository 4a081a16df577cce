"""Numbers of rows."""

from __future__ import annotations

from typing_extensions import TypedDict


class RowCountsData(TypedDict):
    """How many rows a publication or a rollback touches.

    Attributes:
        staged: Rows that were computed: those that were inserted, updated or unchanged, once they went live.
        inserted: Live rows that are new.
        updated: Live rows that changed.
        deleted: Live rows that are gone.
        unchanged: Live rows that stay as they are.
    """

    staged: int
    inserted: int
    updated: int
    deleted: int
    unchanged: int
