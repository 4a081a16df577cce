"""Partitions, times and numbers of rows of tables, as these verbs show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import overload

from dagster_safe_backfill.cli.answers.data.rows import RowCountsData
from dagster_safe_backfill.cli.api.reading import ranges_of
from dagster_safe_backfill.model.events import RowCounts

LOCKED = frozenset({"warehouse_locked", "warehouse_unreachable"})
"""The codes of errors after which there is still what Dagster knows."""


def still_there(keys: Iterable[str], every: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return those of some keys that the asset has, in its order, and those that it hasn't any more."""
    wanted = dict.fromkeys(keys)
    known = {*every}
    return [key for key in every if key in wanted], [key for key in wanted if key not in known]


def ranges(keys: Collection[str], every: Sequence[str]) -> list[tuple[str, str]]:
    """Return keys as ranges, in the asset's order; keys that it hasn't any more stand for themselves, at the end."""
    known, gone = still_there(keys, every)
    return [*ranges_of(known, every), *((key, key) for key in gone)]


def in_words(found: Sequence[Sequence[str]], *, shown: int = 3) -> str:
    """Return ranges as a text: `2024-01-01...2024-01-31, 2024-03-01`."""
    texts = [first if first == last else f"{first}...{last}" for first, last in found[:shown]]
    rest = len(found) - shown
    return ", ".join(texts) + (f" and {rest} more" if rest > 0 else "")


def row_counts(counts: RowCounts) -> RowCountsData:
    """Return numbers of rows as JSON has them."""
    return {
        "staged": counts.staged,
        "inserted": counts.inserted,
        "updated": counts.updated,
        "deleted": counts.deleted,
        "unchanged": counts.unchanged,
    }


@overload
def seconds(at: datetime) -> float: ...
@overload
def seconds(at: datetime | None) -> float | None: ...
def seconds(at: datetime | None) -> float | None:
    """Return a time as JSON has it: in seconds since the epoch."""
    return None if at is None else at.timestamp()
