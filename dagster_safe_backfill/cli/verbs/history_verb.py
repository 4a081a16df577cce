"""`history`: what was published, rolled back, rejected and staged, as the ledger records it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, usage_error
from dagster_safe_backfill.cli.answers.data.publications import HistoryData, HistoryEntryData, KnownPublicationData
from dagster_safe_backfill.cli.answers.output import Output, clock
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import argument, option, verb
from dagster_safe_backfill.cli.selection import nearest

if TYPE_CHECKING:
    from rich.console import Console

    from dagster_safe_backfill.cli.definitions import LoadedAsset


@verb(
    "history",
    argument("asset"),
    argument("partition", required=False),
    option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, the newest first."),
)
def command(
    connection: Connection, _output: Output, *, asset: str, partition: str | None, limit: int
) -> Answer[HistoryData]:
    """Show what was published, rolled back, rejected and staged, the newest first.

    ASSET is the key of an asset, such as sales or nyc/flights. With PARTITION, there is one line for each change of
    that partition.
    """
    with connection.definitions.asset(asset) as loaded:
        from dagster_safe_backfill.cli.upkeep.known import known_answer

        keys = None if partition is None else [partition]
        try:
            return _of_ledger(loaded, partition, limit)
        except CommandError as error:
            known = known_answer(error, connection.dagster, loaded, keys=keys, limit=limit)
            return known.with_data(_of_dagster(loaded, partition, known.data))


def _of_ledger(loaded: LoadedAsset, partition: str | None, limit: int) -> Answer[HistoryData]:
    from dagster_safe_backfill.cli.upkeep.publications import happenings
    from dagster_safe_backfill.wap.ledger.belongings import archive_names
    from dagster_safe_backfill.wap.ledger.entries import entries, has_ledger

    table, every = loaded.spec.table, loaded.keys
    keys = None if partition is None else [partition]
    has, found, kept = loaded.read_soon(
        lambda session: (
            has_ledger(session, table),
            entries(session, table, keys=keys, number=limit),
            archive_names(session, table),
        ),
        default=(False, [], set[str]()),
    )
    if partition is not None and not found and partition not in every:
        raise _no_partition(loaded.name, partition, every)
    happened = happenings(found, by_partition=partition is not None)[:limit]
    shown = [one.as_data(every, kept) for one in happened]
    return Answer(
        data={
            "asset": loaded.name,
            "table": str(table),
            "partition": partition,
            "source": "ledger",
            "has_ledger": has,
            "entries": shown,
        },
        show=lambda screen: _show(screen, shown, empty=_why_empty(loaded, partition, has=has)),
        brief="\n".join(dict.fromkeys(one["publication_id"] or "" for one in shown)),
    )


def _of_dagster(loaded: LoadedAsset, partition: str | None, known: Sequence[KnownPublicationData]) -> HistoryData:
    """Return what Dagster knows while the ledger can't be read: the newest publication of each partition."""
    return {
        "asset": loaded.name,
        "table": str(loaded.spec.table),
        "partition": partition,
        "source": "dagster",
        "has_ledger": None,
        "entries": [_of_events(one) for one in known],
    }


def _of_events(known: KnownPublicationData) -> HistoryEntryData:
    return {
        **known,
        "event": "published",
        "backfill_id": None,
        "code_version": None,
        "strategy": None,
        "moved_from": [],
        "rows": None,
        "archive": None,
        "archive_expires_at": None,
        "archive_exists": None,
        "undone": None,
        "undoes": [],
        "rejected_by": [],
    }


def _no_partition(asset: str, partition: str, every: Sequence[str]) -> CommandError:
    near = nearest(partition, every)
    hint = f"the nearest are {' and '.join(near)}" if near else None
    return usage_error(
        "unknown_partition",
        f"{partition} is not a partition of {asset}, and never was",
        hint=hint,
        partitions=[partition],
    )


def _why_empty(loaded: LoadedAsset, partition: str | None, *, has: bool) -> str:
    if not has:
        return f"nothing was published yet: {loaded.spec.table} has no ledger"
    return f"nothing is recorded of {partition or loaded.name}"


def _show(screen: Console, entries: Sequence[HistoryEntryData], *, empty: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from dagster_safe_backfill.cli.upkeep.publications import WORDS
    from dagster_safe_backfill.cli.upkeep.tables import in_words

    if not entries:
        screen.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False)
    rows = "+new ~changed -gone =same"
    # As long as an id, if there is room for it; and rich cuts a headline that is too long for its column.
    widths = {"publication": 36, rows: len(rows)} if screen.width >= 110 else {"publication": 24}
    for name in ("time", "what", "publication", "partitions", rows):
        table.add_column(name, overflow="fold", min_width=widths.get(name))
    for one in entries:
        many = f" ({one['partition_count']:,})" if one["partition_count"] > 1 else ""
        text = Text(one["publication_id"] or "").append("".join(f"\n{note}" for note in _notes(one)), style="dim")
        where = Text(in_words(one["ranges"]) + many)
        table.add_row(clock(one["recorded_at"]), WORDS[one["event"]], text, where, Text(_rows(one)))
    screen.print(table)


def _rows(one: HistoryEntryData) -> str:
    rows = one["rows"]
    if rows is None:
        return ""
    if one["event"] in ("staged", "rejected"):
        return f"{rows['staged']:,} staged"
    return f"+{rows['inserted']:,} ~{rows['updated']:,} -{rows['deleted']:,} ={rows['unchanged']:,}"


def _notes(one: HistoryEntryData) -> list[str]:
    """Return what else is to be said of an entry, a line each."""
    notes: list[str] = []
    # Of a run that publishes batch by batch, the ids begin with the run's.
    if not (one["publication_id"] or "").startswith(one["run_id"]):
        notes.append(f"run {one['run_id']}")
    if one["backfill_id"]:
        notes.append(f"backfill {one['backfill_id']}")
    if one["undone"] in ("partly", "yes"):
        notes.append("undone since" if one["undone"] == "yes" else "partly undone since")
    if one["undoes"]:
        notes.append(f"undid {', '.join(one['undoes'])}")
    if one["moved_from"]:
        notes.append(f"rows moved here from {', '.join(one['moved_from'])}")
    if one["rejected_by"]:
        notes.append(f"failed: {', '.join(one['rejected_by'])}")
    # What is undone already has nothing to be undone.
    if one["undone"] == "yes":
        return notes
    if one["archive_exists"] and one["archive_expires_at"] is not None:
        notes.append(f"can be undone until {clock(one['archive_expires_at'])}")
    elif one["archive"]:
        notes.append("its archive was dropped, so it can't be undone")
    return notes
