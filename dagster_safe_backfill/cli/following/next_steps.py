"""What can be done next with a backfill, as calls of the command; and what is said of one that was just launched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.commands import CommandName, Commands
from dagster_safe_backfill.cli.answers.data.progress import LaunchedData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.following.place import Place, command
from dagster_safe_backfill.cli.following.screen import show_launched
from dagster_safe_backfill.cli.following.states import AssetProgress, NextCommand, Progress


def next_commands(progress: Progress, place: Place) -> list[NextCommand]:
    """Return what can be done next with a backfill or a run."""
    if not progress.is_over:
        return commands_of(progress.id, place)
    found: list[NextCommand] = []
    for asset in progress.assets:
        found += _of_asset(asset, place)
    if not progress.has_failed:
        return found
    if progress.backfill is not None:
        is_rejected = "rejected" in progress.counts
        to = "go on, once the data or the code is mended" if is_rejected else "go on with what isn't done"
        found.append(NextCommand("retry", to, command(place, "retry", progress.id)))
    for asset in progress.assets:
        if any(one.state == "live" and one.publication_id for one in asset.partitions):
            undo = command(place, "rollback", asset.asset, "--backfill", progress.id)
            found.append(NextCommand("undo", f"take back what went live of {asset.asset}", undo))
    return found


def commands_of(backfill_id: str, place: Place, assets: Sequence[str] = ()) -> list[NextCommand]:
    """Return the commands that watch and stop a backfill, and take back what it publishes of some assets."""
    found = [
        NextCommand("watch", "watch it", command(place, "watch", backfill_id)),
        NextCommand("stop", "stop it", command(place, "cancel", backfill_id, "--now")),
    ]
    for asset in assets:
        undo = command(place, "rollback", asset, "--backfill", backfill_id)
        found.append(NextCommand("undo", f"take back what it publishes of {asset}", undo))
    return found


def as_data(commands: Sequence[NextCommand]) -> Commands:
    """Return commands by their names; those of several assets under one name are joined."""
    calls: dict[CommandName, str] = {}
    for one in commands:
        calls[one.name] = f"{calls[one.name]}; {one.command}" if one.name in calls else one.command
    return {
        "watch": calls.get("watch"),
        "stop": calls.get("stop"),
        "wait": calls.get("wait"),
        "retry": calls.get("retry"),
        "diff": calls.get("diff"),
        "approve": calls.get("approve"),
        "undo": calls.get("undo"),
    }


NOTHING_LAUNCHED: LaunchedData = {"backfill_id": None, "progress": None, "commands": as_data(())}
"""What is said where there was nothing to launch, or nobody said yes."""


def announce(output: Output, place: Place, backfill_id: str, summary: str, *, assets: Sequence[str]) -> None:
    """Print on stderr what was launched, and how to watch, stop and undo it, before it is followed."""
    if output.is_quiet:
        return
    # Also beside JSON, which comes at the end: whoever ends the call before must know the id.
    lines = [summary, *(f"  {one.name:<6} {one.command}" for one in commands_of(backfill_id, place, assets))]
    output.log.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def launched_answer(place: Place, backfill_id: str, summary: str, *, assets: Sequence[str]) -> Answer[LaunchedData]:
    """Return what was launched, and how to watch, stop and undo it, as an answer."""
    commands = commands_of(backfill_id, place, assets)
    return Answer(
        data={"backfill_id": backfill_id, "progress": None, "commands": as_data(commands)},
        show=partial(show_launched, summary=summary, commands=commands),
        brief=backfill_id,
    )


def _of_asset(asset: AssetProgress, place: Place) -> list[NextCommand]:
    diff = command(place, "diff", asset.asset)
    if "rejected" in asset.counts:
        return [NextCommand("diff", f"see the rejected rows of {asset.asset}", diff)]
    if asset.goal == "staged" and set(asset.counts) == {"staged"}:
        return [
            NextCommand("diff", f"compare what is staged of {asset.asset} with what is live", diff),
            NextCommand("approve", f"publish {asset.asset}", command(place, "approve", asset.asset)),
        ]
    return []
