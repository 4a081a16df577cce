"""`retry`: go on with a backfill that failed or was cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, refusal
from dagster_safe_backfill.cli.answers.data.backfills import RetryData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import RANGE_START_TAG, SHADOW, Backfill
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.here import check_here, launched
from dagster_safe_backfill.cli.following.next_steps import NOTHING_LAUNCHED
from dagster_safe_backfill.cli.following.place import command as call
from dagster_safe_backfill.cli.following.place import find_backfill_to_change
from dagster_safe_backfill.cli.following.reading.reader import Reader
from dagster_safe_backfill.cli.following.screen import counted
from dagster_safe_backfill.cli.following.states import Progress
from dagster_safe_backfill.cli.options import argument, in_process_option, option, verb
from dagster_safe_backfill.cli.plans.launching import check_guards, take_back
from dagster_safe_backfill.cli.plans.overlap import Wanted, before, overlap, overlap_with

if TYPE_CHECKING:
    from rich.console import Console

_CANCELLED = frozenset({"CANCELING", "CANCELED"})
_PARENT = "dagster/parent_backfill_id"
_SEARCHED = 500
"""Among how many of the newest backfills one is looked for that retries the same."""


@verb(
    "retry",
    argument("backfill_id", metavar="ID"),
    option("--allow-overlap", is_flag=True, help="Go on though another backfill or run covers some of the partitions."),
    option("--watch", is_flag=True, help="Follow it until it ends."),
    option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Follow it for at most that long."),
    in_process_option,
)
def command(
    connection: Connection,
    output: Output,
    *,
    backfill_id: str,
    allow_overlap: bool,
    watch: bool,
    timeout: float | None,
    in_process: bool,
) -> Answer[RetryData]:
    """Go on with a backfill that failed or was cancelled: what isn't done is computed, what is live stays as it is.

    Dagster makes a new backfill of it, with the same tags, whose id is printed first. If all partitions are done,
    nothing is launched, and the exit code is 0. One that still runs, or is being retried, is refused (3), and so is one
    of whose partitions another backfill or run computes some now. ID is its whole id, or at least 6 characters of it.
    """
    if in_process:
        check_here(connection)
    dagster = connection.dagster
    subject = find_backfill_to_change(dagster, backfill_id)
    progress = Reader(dagster=dagster, subject=subject).read()
    if progress.has_reached_all:
        return _nothing(progress)
    _check(connection, progress)
    wanted = [] if allow_overlap else _wanted(dagster, progress)
    if wanted:
        check_guards([overlap(dagster, wanted)], allows_overlap=False)
    new = go_on(connection, subject.id, wanted, in_process=in_process)
    left = progress.total - progress.counts.get("live", 0)
    summary = f"backfill {new} goes on with {left:,} of {progress.total:,} partitions of {subject.id}"
    assets = [one.asset for one in progress.assets if one.goal == "live"]
    answer = launched(
        connection,
        output,
        new,
        summary,
        assets=assets,
        watch=watch,
        in_process=in_process,
        timeout=timeout,
    )
    return answer.with_data({**answer.data, "parent_id": subject.id, "partition_count": left})


def _check(connection: Connection, progress: Progress) -> None:
    """Refuse a backfill with which nobody can go on.

    Raises:
        CommandError: It still runs, it is being retried, or Dagster can't retry it.
    """
    if not progress.is_over:
        raise refusal(
            "still_running",
            f"backfill {progress.id} still runs ({progress.status}), so nothing was launched",
            hint=f"wait for it, or stop it: {call(connection, 'cancel', progress.id, '--now', '--wait')}",
        )
    is_of_job = progress.backfill is not None and not progress.backfill.is_of_assets
    # Dagster 1.13.27 gives up a re-execution of a job's runs over ranges: 'Param "partition_name" is not a str'.
    if is_of_job and any(RANGE_START_TAG in run.tags for run in progress.runs):
        raise refusal(
            "not_retryable",
            f"{progress.id} is a backfill of a job whose runs take ranges of partitions; Dagster can't go on with such",
            hint="backfill the assets: safe-backfill launch ASSET --failed --missing",
        )
    listed = connection.dagster.backfills(limit=_SEARCHED)
    _check_children(connection, progress.id, _children(listed, progress.id))


def go_on(connection: Connection, backfill_id: str, wanted: Sequence[Wanted], *, in_process: bool) -> str:
    """Launch the backfill that goes on with an ended one, and return its id, unless another call did so meanwhile.

    Of several calls at the same time, one goes on; the backfills of the others are cancelled.

    Raises:
        CommandError: Dagster refuses it, or another backfill goes on with the ended one, or computes what is wanted.
    """
    dagster = connection.dagster
    try:
        new = dagster.reexecute_backfill(backfill_id)
    except CommandError as error:
        if error.problem.code != "dagster_error":
            raise
        raise refusal(
            "not_retryable", f"Dagster refuses to go on with {backfill_id}: {error.problem.message}"
        ) from error
    listed = dagster.backfills(limit=_SEARCHED)
    earlier = before(new, listed)
    try:
        _check_children(connection, backfill_id, _children(earlier, backfill_id))
        guard = overlap_with(dagster, [one for one in earlier if one.is_open], wanted)
        check_guards([guard] if guard else [], allows_overlap=False)
    except CommandError:
        take_back(connection, new, in_process=in_process)
        raise
    return new


def _children(listed: Sequence[Backfill], backfill_id: str) -> list[Backfill]:
    """Return the backfills that went on with one, without those that were taken back before they did anything."""
    children = [one for one in listed if one.tags.get(_PARENT) == backfill_id]
    return [one for one in children if one.status not in _CANCELLED or _has_done(one)] or children[-1:]


def _has_done(backfill: Backfill) -> bool:
    return any(one.in_progress or one.materialized or one.failed for one in backfill.assets.values())


def _wanted(dagster: Dagster, progress: Progress) -> list[Wanted]:
    """Return the partitions that aren't done; of the staged shape also as those of `x__shadow`."""
    left: dict[str, frozenset[str]] = {}
    for one in progress.assets:
        undone = [state.partition for state in one.partitions if state.state not in {"live", one.goal}]
        if undone:
            left[one.asset] = frozenset(filter(None, undone))
    if progress.backfill is not None and not progress.backfill.is_of_assets:
        # A backfill of a job stands for the assets of the job.
        of_job = left.get(progress.backfill.job or "", frozenset())
        left = dict.fromkeys(dagster.assets_of_job(progress.backfill.job or ""), of_job)
    left |= {f"{name}{SHADOW}": keys for name, keys in left.items()}
    return [Wanted(asset=one, keys=left[one.key]) for one in dagster.assets_if_known([*left])]


def _check_children(connection: Connection, backfill_id: str, children: Sequence[Backfill]) -> None:
    if not children:
        return
    newest = next((one for one in children if one.is_open), children[0])
    if newest.is_open:
        raise refusal(
            "already_retried",
            f"backfill {newest.id} goes on with {backfill_id} already ({newest.status})",
            hint=call(connection, "watch", newest.id),
        )
    raise refusal(
        "already_retried",
        f"backfill {newest.id} went on with {backfill_id} before ({newest.status}), and may have done some of it",
        hint=f"go on with that one: {call(connection, 'retry', newest.id)}",
    )


def _nothing(progress: Progress) -> Answer[RetryData]:
    return Answer(
        data={**NOTHING_LAUNCHED, "parent_id": progress.id, "partition_count": 0},
        show=partial(_show_nothing, progress=progress),
        brief="",
    )


def _show_nothing(screen: Console, *, progress: Progress) -> None:
    screen.print(f"nothing to do: backfill {progress.id} has done all of it ({counted(progress.counts)})")
