"""What Dagster knows of an asset's publications, for when the warehouse can't be read: of each partition the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit
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
    data: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> Answer:
    """Return what Dagster knows, after an error because the warehouse is locked or can't be reached; exit code 5.

    Args:
        error: The error.
        dagster: The Dagster to ask.
        loaded: The asset.
        keys: The partitions. Defaults to all.
        data: What the answer's data says besides.
        limit: How many publications it names, the newest first.

    Raises:
        CommandError: It is another error, or Dagster can't be reached either.
    """
    if error.problem.code not in LOCKED:
        raise error
    try:
        told = known_publications(dagster, loaded.name, keys)[:limit]
    except CommandError:
        raise error from None
    return _answer(loaded, told, error, data or {})


def known_publications(dagster: Dagster, name: str, keys: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the newest publication of each partition, as Dagster's events have it, the newest first."""
    (asset,) = dagster.assets([name])
    newest = dagster.newest(asset, [*asset.keys] if keys is None else keys)
    groups: dict[tuple[str, str], list[Materialization]] = {}
    for one in newest.values():
        groups.setdefault((str(one.metadata.get("publication_id", "")), one.run_id), []).append(one)
    told: list[dict[str, Any]] = []
    for (publication, run), events in groups.items():
        names = [one.partition for one in events if one.partition is not None]
        told.append(
            {
                "at": max(one.at for one in events),
                "publication_id": publication or None,
                "run_id": run,
                "partitions": len(names),
                "ranges": [[*one] for one in ranges(names, asset.keys)],
                "row_count": _rows(events),
            }
        )
    return sorted(told, key=lambda one: one["at"], reverse=True)


def _rows(events: Sequence[Materialization]) -> int | None:
    counts = [count for one in events if isinstance(count := one.metadata.get(_ROWS), int)]
    return sum(counts) if len(counts) == len(events) else None


def _answer(
    loaded: LoadedAsset, told: Sequence[Mapping[str, Any]], error: CommandError, data: Mapping[str, Any]
) -> Answer:
    return Answer(
        data={"asset": loaded.name, "table": str(loaded.spec.table), **data, "source": "dagster", "entries": [*told]},
        show=lambda screen: _show(screen, told),
        brief="\n".join(one["publication_id"] or "" for one in told),
        exit_code=Exit.UNREACHABLE,
        errors=[error.problem],
    )


def _show(screen: Console, told: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    if not told:
        screen.print("the ledger can't be read, and Dagster knows no publication of these partitions")
        return
    screen.print("the ledger can't be read; of each partition, the newest that Dagster knows:")
    table = Table(box=None, pad_edge=False)
    for name in ("time", "publication", "run", "partitions", "rows"):
        table.add_column(name, overflow="fold", justify="right" if name == "rows" else "left")
    for one in told:
        many = f" ({one['partitions']:,})" if one["partitions"] > 1 else ""
        rows = "" if one["row_count"] is None else f"{one['row_count']:,}"
        where = in_words(one["ranges"]) + many
        table.add_row(clock(one["at"]), one["publication_id"] or "", one["run_id"], where, rows)
    screen.print(table)
