"""What can be done next with a backfill, as calls of the command."""

from __future__ import annotations

from dataclasses import dataclass

from dagster_safe_backfill.cli.following.place import Place, command
from dagster_safe_backfill.cli.following.states import AssetProgress, Progress


@dataclass(frozen=True, slots=True)
class NextCommand:
    """A call of the command.

    Attributes:
        to: What it is for.
        command: The call, as it is typed in a shell.
    """

    to: str
    command: str


def next_commands(progress: Progress, place: Place) -> list[NextCommand]:
    """Return what can be done next with a backfill or a run."""
    if not progress.is_over:
        return commands_of(progress.id, place)
    found: list[NextCommand] = []
    for asset in progress.assets:
        found += _of_asset(asset, place)
    if progress.has_failed and progress.backfill is not None:
        is_rejected = "rejected" in progress.counts
        to = "go on, once the data or the code is mended" if is_rejected else "go on with what isn't done"
        found.append(NextCommand(to, command(place, "retry", progress.id)))
    if progress.has_failed:
        live = [
            one for one in progress.assets if "live" in one.counts and any(p.publication_id for p in one.partitions)
        ]
        for asset in live:
            to = f"or take back what went live of {asset.asset}"
            found.append(NextCommand(to, command(place, "rollback", asset.asset, "--backfill", progress.id)))
    return found


def commands_of(backfill_id: str, place: Place) -> list[NextCommand]:
    """Return the commands for a backfill that was just launched, or that runs."""
    return [
        NextCommand("watch it", command(place, "watch", backfill_id)),
        NextCommand("stop it", command(place, "cancel", backfill_id)),
    ]


def _of_asset(asset: AssetProgress, place: Place) -> list[NextCommand]:
    if "rejected" in asset.counts:
        return [NextCommand(f"see the rejected rows of {asset.asset}", command(place, "diff", asset.asset))]
    if asset.goal == "staged" and set(asset.counts) == {"staged"}:
        return [
            NextCommand(f"compare with what is live of {asset.asset}", command(place, "diff", asset.asset)),
            NextCommand("publish it", command(place, "approve", asset.asset)),
        ]
    return []
