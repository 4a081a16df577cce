"""`retention`: what is kept for rollbacks and for looking at rejected rows, and what of it is over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit, Problem
from dagster_safe_backfill.cli.answers.data.upkeep import (
    AssetRetentionData,
    DropState,
    KeptReason,
    RetentionData,
    RetentionRunData,
)
from dagster_safe_backfill.cli.answers.output import Output, clock
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import argument, option, verb, yes_option
from dagster_safe_backfill.model.options import UNKNOWN_RUN_DAYS

if TYPE_CHECKING:
    from rich.console import Console

    from dagster_safe_backfill.cli.upkeep.jobs import RetentionJob
    from dagster_safe_backfill.cli.upkeep.retiring import Retention

_DAYS = 7.0
"""For how many days shadows are kept, as in `build_retention_schedule`."""
_WHY: Mapping[KeptReason, str] = {
    "not_expired": "can be rolled back",
    "recent": "its rows can be looked at",
    "run_goes_on": "its run hasn't ended",
    "run_unknown": "its run isn't known to this Dagster; --unknown-runs drops it",
    "of_another_asset": "another asset's",
    "clock": "is over, if the clock is right",
}

_WORDS: Mapping[DropState, str] = {
    "would_drop": "would be dropped",
    "dropped": "dropped",
    "requested": "requested",
    "failed": "failed",
}
_STATES: Mapping[str, DropState] = {"SUCCESS": "dropped", "FAILURE": "failed", "CANCELED": "failed"}


@verb(
    "retention",
    argument("assets", nargs=-1),
    option(
        "--shadow-days",
        type=click.FloatRange(min=0),
        metavar="DAYS",
        help="How long the shadows of ended runs are kept. By default as the schedule says, else 7 days.",
    ),
    option(
        "--unknown-runs",
        "takes_unknown",
        is_flag=True,
        help="Drop what runs made that this Dagster doesn't know at once, and not after some days. They were deleted"
        " from it, or are another Dagster's: if they still run there, they fail, and what they computed is lost.",
    ),
    yes_option,
    option("--in-process", "runs_here", is_flag=True, help="Drop them in this process, even if there is a job."),
    option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer for the job's run."),
)
def command(
    connection: Connection,
    output: Output,
    *,
    assets: Sequence[str],
    shadow_days: float | None,
    takes_unknown: bool,
    yes: bool,
    runs_here: bool,
    timeout: float | None,
) -> Answer[RetentionData]:
    """Drop expired archives and the shadows of runs that have ended.

    ASSETS are the keys of assets; without any, all assets of the definitions. Without --yes, it only says what would be
    dropped, what is kept, why and until when. With it, the job of the retention schedule does it, or this process if
    there is none. What runs made that this Dagster doesn't know is kept for the schedule's unknown_run_days, or 7 days,
    after such a run last wrote to the ledger.
    """
    names = list(dict.fromkeys(assets)) or connection.definitions.live_assets()
    jobs = {name: _job_of(connection, name) for name in names}
    asked = _Asked(shadow_days=shadow_days, takes_unknown=takes_unknown, runs_here=runs_here, timeout=timeout)
    found, problems = _each(connection, jobs, asked, drops=False)
    runs: list[RetentionRunData] = []
    if yes:
        found, runs, more = _done(connection, output, found, jobs, asked)
        problems += more
    data: RetentionData = {
        "dry_run": not yes,
        "includes_unknown_runs": takes_unknown,
        "assets": [one.as_data for one in found],
        "runs": runs,
    }
    sure = [one for one in found if one.state in ("would_drop", "dropped")]
    return Answer(
        data=data,
        show=lambda screen: _show(screen, data),
        brief="\n".join(str(table) for one in sure for table in one.over),
        exit_code=max((code for code, _problem in problems), default=Exit.DONE),
        errors=[problem for _code, problem in problems],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    shadow_days: float | None
    takes_unknown: bool
    runs_here: bool
    timeout: float | None

    def unknown_run_days_of(self, job: RetentionJob | None) -> float:
        """Return for how many days what unknown runs made is kept."""
        if self.takes_unknown:
            return 0.0
        return UNKNOWN_RUN_DAYS if job is None else job.unknown_run_days


def _done(
    connection: Connection,
    output: Output,
    found: Sequence[Retention],
    jobs: Mapping[str, RetentionJob | None],
    asked: _Asked,
) -> tuple[list[Retention], list[RetentionRunData], list[tuple[Exit, Problem]]]:
    """Drop what a dry run found, and return what became of it, the runs of jobs, and what failed."""
    here = [one for one in found if one.is_any and (asked.runs_here or jobs[one.asset] is None)]
    by_job = [one for one in found if one.is_any and one not in here]
    dropped, problems = _each(connection, {one.asset: jobs[one.asset] for one in here}, asked, drops=True)
    wanted = [job for one in by_job if (job := jobs[one.asset]) is not None]
    runs, more = _by_jobs(connection, output, wanted, by_job, asked)
    # The sizes of what is gone now are those of the dry run.
    sizes = {one.asset: one.sizes for one in found}
    became = {one.asset: one.with_sizes(sizes[one.asset]) for one in dropped}
    states: dict[str, DropState] = {
        name: _STATES.get(run["status"], "requested") for run in runs for name in run["assets"]
    }
    for one in (*here, *by_job):
        became.setdefault(one.asset, one.in_state(states.get(one.asset, "failed")))
    return [became.get(one.asset, one) for one in found], runs, [*problems, *more]


def _job_of(connection: Connection, name: str) -> RetentionJob | None:
    from dagster_safe_backfill.cli.upkeep.jobs import retention_jobs

    return next((one for one in retention_jobs(connection.definitions.jobs(name)) if name in one.assets), None)


def _each(
    connection: Connection, jobs: Mapping[str, RetentionJob | None], asked: _Asked, *, drops: bool
) -> tuple[list[Retention], list[tuple[Exit, Problem]]]:
    """Return what is dropped of each asset; one that can't be read doesn't hide the others."""
    from dagster_safe_backfill.cli.upkeep.retiring import retention_of
    from dagster_safe_backfill.errors import SafeBackfillError

    found: list[Retention] = []
    problems: list[tuple[Exit, Problem]] = []
    locked = set[str]()
    for name, job in jobs.items():
        where = ""
        days = asked.shadow_days if asked.shadow_days is not None else _DAYS if job is None else job.shadow_days
        try:
            with connection.definitions.asset(name) as loaded:
                # Each of the assets in one file would wait for it again.
                where = loaded.spec.table.database
                if where in locked:
                    continue
                job_name = None if job is None else job.job.name
                found.append(
                    retention_of(
                        loaded,
                        connection.dagster,
                        shadow_days=days,
                        unknown_run_days=asked.unknown_run_days_of(job),
                        job=job_name,
                        drops=drops,
                    )
                )
        except CommandError as error:
            if error.exit_code is Exit.USAGE:
                raise
            if where and error.problem.code == "warehouse_locked":
                locked.add(where)
            problems.append((error.exit_code, error.problem))
        except SafeBackfillError as error:
            problems.append((Exit.FAILED, Problem(code=type(error).__name__, message=f"{name}: {error}")))
    return found, problems


def _by_jobs(
    connection: Connection,
    output: Output,
    jobs: Sequence[RetentionJob],
    found: Sequence[Retention],
    asked: _Asked,
) -> tuple[list[RetentionRunData], list[tuple[Exit, Problem]]]:
    """Run the retention jobs, each once for those of its assets that have something to drop."""
    from dagster_safe_backfill.cli.upkeep.jobs import launch, wait

    runs: list[RetentionRunData] = []
    problems: list[tuple[Exit, Problem]] = []
    for job in {one.job.name: one for one in jobs}.values():
        names = [one.asset for one in found if one.job == job.job.name]
        # An earlier version of the library in the code location can't drop only some of them.
        some = {"assets": names} if set(names) < set(job.assets) else {}
        config = {"dry_run": False, "shadow_days": asked.shadow_days, **some}
        if asked.takes_unknown:
            config["unknown_run_days"] = 0.0
        run_id = launch(connection.dagster, output, names[0], job.job, config)
        ran = wait(connection.dagster, output, run_id, timeout=asked.timeout)
        runs.append({"job": job.job.name, "run_id": run_id, "status": ran.status, "assets": names})
        problems += [(ran.exit_code, problem) for problem in ran.problems]
    return runs, problems


def _show(screen: Console, data: RetentionData) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "table", "rows", "why"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for one in data["assets"]:
        for row in _lines(one, includes_unknown=data["includes_unknown_runs"]):
            table.add_row(*row)
    if table.row_count:
        screen.print(table)
    for run in data["runs"]:
        screen.print(f"run {run['run_id']} of {run['job']}: {run['status']}", markup=False, soft_wrap=True)
    if not any(one["drops"] for one in data["assets"]):
        screen.print("nothing to drop")
    elif data["dry_run"]:
        screen.print("nothing was dropped; --yes does it")
    for problem in [f"{one['table']}: {one['clock_problem']}" for one in data["assets"] if one["clock_problem"]]:
        screen.print(problem, markup=False, soft_wrap=True)


def _lines(one: AssetRetentionData, *, includes_unknown: bool) -> Iterator[tuple[str, ...]]:
    ended = "its run has ended, or isn't known" if includes_unknown else "its run has ended"
    for dropped in one["drops"]:
        why = "expired" if dropped["kind"] == "archive" else ended
        state = "" if one["state"] is None else _WORDS[one["state"]]
        yield state, dropped["table"], _rows(dropped["row_count"]), f"{dropped['kind']}, {why}"
    for kept in one["keeps"]:
        until = "" if kept["expires_at"] is None else f", until {clock(kept['expires_at'])}"
        yield "kept", kept["table"], _rows(kept["row_count"]), f"{kept['kind']}, {_WHY[kept['why']]}{until}"


def _rows(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
