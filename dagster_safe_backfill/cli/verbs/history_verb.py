"""`history`: what was published, rolled back, rejected and staged, as the ledger records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit, usage_error
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
def command(connection: Connection, _output: Output, *, asset: str, partition: str | None, limit: int) -> Answer:
    """Show what was published, rolled back, rejected and staged, the newest first.

    ASSET is the key of an asset, such as sales or nyc/flights. With PARTITION, there is one line for each change of
    that partition.
    """
    with connection.definitions.asset(asset) as loaded:
        from dagster_safe_backfill.cli.upkeep.tables import LOCKED

        try:
            return _of_ledger(loaded, partition, limit)
        except CommandError as error:
            if error.problem.code not in LOCKED:
                raise
            return _of_dagster(connection, loaded, partition, limit, error)


def _of_ledger(loaded: LoadedAsset, partition: str | None, limit: int) -> Answer:
    from dagster_safe_backfill.cli.upkeep.publications import happenings
    from dagster_safe_backfill.wap.ledger.entries import entries, has_ledger
    from dagster_safe_backfill.wap.ledger.history import kept_archives

    table, every = loaded.spec.table, loaded.keys
    keys = None if partition is None else [partition]
    has, found, kept = loaded.read_soon(
        lambda session: (
            has_ledger(session, table),
            entries(session, table, keys=keys, number=limit),
            kept_archives(session, table),
        ),
        default=(False, [], set[str]()),
    )
    if partition is not None and not found and partition not in every:
        raise _no_partition(loaded.name, partition, every)
    happened = happenings(found, by_partition=partition is not None)[:limit]
    told = [one.as_json(every, kept) for one in happened]
    return Answer(
        data={**_common(loaded, partition, "ledger"), "has_ledger": has, "entries": told},
        show=lambda screen: _show(screen, told, empty=_why_empty(loaded, partition, has=has)),
        brief="\n".join(dict.fromkeys(one["publication_id"] for one in told)),
    )


def _common(loaded: LoadedAsset, partition: str | None, source: str) -> dict[str, Any]:
    return {"asset": loaded.name, "table": str(loaded.spec.table), "partition": partition, "source": source}


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


def _of_dagster(
    connection: Connection, loaded: LoadedAsset, partition: str | None, limit: int, error: CommandError
) -> Answer:
    """Return what Dagster knows while the ledger can't be read: the newest publication of each partition."""
    from dagster_safe_backfill.cli.upkeep.tables import ranges

    try:
        (asset,) = connection.dagster.assets([loaded.name])
        keys = [*asset.keys] if partition is None else [partition]
        newest = connection.dagster.newest(asset, keys)
    except CommandError:
        raise error from None
    groups: dict[tuple[str, str], list[Any]] = {}
    for one in newest.values():
        groups.setdefault((str(one.metadata.get("publication_id", "")), one.run_id), []).append(one)
    told: list[dict[str, Any]] = []
    for (publication, run), events in groups.items():
        names = [one.partition for one in events]
        told.append(
            {
                "at": max(one.at for one in events),
                "publication_id": publication or None,
                "run_id": run,
                "partitions": len(names),
                "ranges": [[*one] for one in ranges(names, asset.keys)],
            }
        )
    told = sorted(told, key=lambda one: one["at"], reverse=True)[:limit]
    return Answer(
        data={**_common(loaded, partition, "dagster"), "entries": told},
        show=lambda screen: _show_newest(screen, told),
        brief="\n".join(one["publication_id"] or "" for one in told),
        exit_code=Exit.UNREACHABLE,
        errors=[error.problem],
    )


def _show(screen: Console, told: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from dagster_safe_backfill.cli.upkeep.publications import WORDS
    from dagster_safe_backfill.cli.upkeep.tables import in_words

    if not told:
        screen.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False)
    rows = "+new ~changed -gone =same"
    # As long as an id, if there is room for it; and rich cuts a headline that is too long for its column.
    widths = {"publication": 36, rows: len(rows)} if screen.width >= 110 else {"publication": 24}
    for name in ("time", "what", "publication", "partitions", rows):
        table.add_column(name, overflow="fold", min_width=widths.get(name))
    for one in told:
        many = f" ({one['partitions']:,})" if one["partitions"] > 1 else ""
        text = Text(one["publication_id"]).append("".join(f"\n{note}" for note in _notes(one)), style="dim")
        where = Text(in_words(one["ranges"]) + many)
        table.add_row(clock(one["at"]), WORDS[one["what"]], text, where, Text(_rows(one)))
    screen.print(table)


def _rows(one: Mapping[str, Any]) -> str:
    rows = one["rows"]
    if one["what"] in ("staged", "rejected"):
        return f"{rows['staged']:,} staged"
    signs = {"+": "inserted", "~": "updated", "-": "deleted", "=": "unchanged"}
    return " ".join(f"{sign}{rows[name]:,}" for sign, name in signs.items())


def _notes(one: Mapping[str, Any]) -> list[str]:
    """Return what else is to be said of an entry, a line each."""
    notes: list[str] = []
    # Of a run that publishes batch by batch, the ids begin with the run's.
    if not one["publication_id"].startswith(one["run_id"]):
        notes.append(f"run {one['run_id']}")
    if one["backfill_id"]:
        notes.append(f"backfill {one['backfill_id']}")
    if one["undone"] != "no":
        notes.append("undone since" if one["undone"] == "yes" else "partly undone since")
    if one["undoes"]:
        notes.append(f"undid {', '.join(one['undoes'])}")
    if one["moved_from"]:
        notes.append(f"rows moved here from {', '.join(one['moved_from'])}")
    if one["failed_audits"]:
        notes.append(f"failed: {', '.join(one['failed_audits'])}")
    # What is undone already has nothing to be undone.
    if one["undone"] == "yes":
        return notes
    if one["archive_exists"]:
        notes.append(f"can be undone until {clock(one['archive_expires_at'])}")
    elif one["archive"]:
        notes.append("its archive was dropped, so it can't be undone")
    return notes


def _show_newest(screen: Console, told: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from dagster_safe_backfill.cli.upkeep.tables import in_words

    screen.print("the ledger can't be read; of each partition, the newest that Dagster knows:")
    table = Table(box=None, pad_edge=False)
    for name in ("time", "publication", "run", "partitions"):
        table.add_column(name, overflow="fold")
    for one in told:
        many = f" ({one['partitions']:,})" if one["partitions"] > 1 else ""
        table.add_row(clock(one["at"]), one["publication_id"] or "", one["run_id"], in_words(one["ranges"]) + many)
    screen.print(table)
