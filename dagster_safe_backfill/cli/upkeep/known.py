"""What Dagster knows of an asset's publications, for when the warehouse can't be read: of each partition the newest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit
from dagster_safe_backfill.cli.answers.data.publications import KnownPublicationData
from dagster_safe_backfill.cli.answers.output import clock
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import Materialization
from dagster_safe_backfill.cli.definitions import LoadedAsset
from dagster_safe_backfill.cli.upkeep.tables import LOCKED, in_words, ranges

if TYPE_CHECKING:
    from rich.console import Console

_ROWS = "dagster/partition_row_count"


def known_answer(
    error: CommandError,
    dagster: Dagster,
    loaded: LoadedAsset,
    *,
    keys: Sequence[str] | None = None,
    limit: int | None = None,
) -> Answer[list[KnownPublicationData]]:
    """Return what Dagster knows, after an error because the warehouse is locked or can't be reached; exit code 5.

    The verb gives it its own data, of the same shape as without the error.

    Args:
        error: The error.
        dagster: The Dagster to ask.
        loaded: The asset.
        keys: The partitions. Defaults to all.
        limit: How many publications it names, the newest first.

    Raises:
        CommandError: It is another error, or Dagster can't be reached either.
    """
    if error.problem.code not in LOCKED:
        raise error
    try:
        known = known_publications(dagster, loaded.name, keys)[:limit]
    except CommandError:
        raise error from None
    return Answer(
        data=known,
        show=lambda screen: _show(screen, known),
        brief="\n".join(one["publication_id"] or "" for one in known),
        exit_code=Exit.UNREACHABLE,
        errors=[error.problem],
    )


def known_publications(dagster: Dagster, name: str, keys: Sequence[str] | None) -> list[KnownPublicationData]:
    """Return the newest publication of each partition, as Dagster's events have it, the newest first."""
    (asset,) = dagster.assets([name])
    newest = dagster.newest(asset, [*asset.keys] if keys is None else keys)
    groups: dict[tuple[object, str], list[Materialization]] = {}
    for one in newest.values():
        groups.setdefault((one.metadata.get("publication_id"), one.run_id), []).append(one)
    known = [_publication(events, asset.keys) for events in groups.values()]
    return sorted(known, key=lambda one: one["recorded_at"], reverse=True)


def _publication(events: Sequence[Materialization], every: Sequence[str]) -> KnownPublicationData:
    names = [one.partition for one in events if one.partition is not None]
    publication = events[0].metadata.get("publication_id")
    return {
        "recorded_at": max(one.at for one in events),
        "publication_id": None if publication is None else str(publication),
        "run_id": events[0].run_id,
        "partition_count": len(names),
        "ranges": [[*one] for one in ranges(names, every)],
        "row_count": _rows(events),
    }


def _rows(events: Sequence[Materialization]) -> int | None:
    counts = [count for one in events if isinstance(count := one.metadata.get(_ROWS), int)]
    return sum(counts) if len(counts) == len(events) else None


def _show(screen: Console, known: Sequence[KnownPublicationData]) -> None:
    from rich.table import Table

    if not known:
        screen.print("the ledger can't be read, and Dagster knows no publication of these partitions")
        return
    screen.print("the ledger can't be read; of each partition, the newest that Dagster knows:")
    table = Table(box=None, pad_edge=False)
    for name in ("time", "publication", "run", "partitions", "rows"):
        table.add_column(name, overflow="fold", justify="right" if name == "rows" else "left")
    for one in known:
        many = f" ({one['partition_count']:,})" if one["partition_count"] > 1 else ""
        rows = "" if one["row_count"] is None else f"{one['row_count']:,}"
        where = in_words(one["ranges"]) + many
        table.add_row(clock(one["recorded_at"]), one["publication_id"] or "", one["run_id"], where, rows)
    screen.print(table)
