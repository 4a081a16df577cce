"""`rollback`: what undoing a publication would bring back; with `--yes`, the library's job that does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit, refusal, usage_error
from dagster_safe_backfill.cli.answers.data.publications import RollbackData
from dagster_safe_backfill.cli.answers.data.rows import RowCountsData
from dagster_safe_backfill.cli.answers.output import Output, clock
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.place import command as call
from dagster_safe_backfill.cli.options import argument, option, verb, yes_option
from dagster_safe_backfill.cli.selection import KEY_OPTIONS

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from dagster_safe_backfill.cli.upkeep.undoing import Preview

_SHOWN = 60
"""How many partitions the screen lists."""
_COUNTS: Sequence[Literal["inserted", "updated", "deleted", "unchanged"]] = (
    *("inserted", "updated", "deleted", "unchanged"),
)


@verb(
    "rollback",
    argument("asset"),
    option("--publication", metavar="ID", help="The publication, or the rollback, to undo. By default, the newest."),
    option("--backfill", "backfill_id", metavar="ID", help="Undo all publications of this backfill."),
    *KEY_OPTIONS,
    option("--force", is_flag=True, help="Also undo later publications of the partitions, and changes made by hand."),
    yes_option,
    # Not named in_process: that would start code servers, which this needs none of.
    option("--in-process", "runs_here", is_flag=True, help="Run the job in this process; no daemon is needed."),
    option("--no-wait", is_flag=True, help="Launch the job, and don't wait for its end."),
    option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer. The job goes on."),
)
def command(
    connection: Connection,
    output: Output,
    *,
    asset: str,
    publication: str | None,
    backfill_id: str | None,
    force: bool,
    yes: bool,
    runs_here: bool,
    no_wait: bool,
    timeout: float | None,
    **keys: Any,
) -> Answer[RollbackData]:
    """Undo a publication: the rows that it replaced go live again.

    It says what would change, and what was changed since, which needs --force. On a terminal, it then asks; elsewhere,
    it needs --yes. The asset's rollback job does it, so that Dagster knows. A rollback can itself be rolled back.
    """
    if publication is not None and backfill_id is not None:
        raise usage_error("contradiction", "--publication and --backfill name what to undo each; give one of them")
    if runs_here and connection.url is not None:
        raise usage_error(
            "contradiction",
            "--in-process runs on the instance of DAGSTER_HOME, and --url names another Dagster",
            hint="leave out one of them",
        )
    asked = _Asked(force=force, yes=yes, here=runs_here, waits=not no_wait, timeout=timeout)
    with connection.definitions.asset(asset) as loaded:
        from dagster_safe_backfill.cli.upkeep.comparing import selected
        from dagster_safe_backfill.cli.upkeep.known import known_answer
        from dagster_safe_backfill.cli.upkeep.undoing import preview, unknown

        wanted = selected(loaded, **keys)
        try:
            found = preview(
                loaded, connection, publication=publication, backfill_id=backfill_id, keys=wanted, force=force
            )
        except CommandError as error:
            known = known_answer(error, connection.dagster, loaded, keys=wanted)
            job = _job_of(connection, loaded.name)
            return known.with_data(unknown(loaded, known.data).as_data(job=job and job.name, ran=None))
    return _decided(connection, output, found, asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    force: bool
    yes: bool
    here: bool
    waits: bool
    timeout: float | None


def _job_of(connection: Connection, name: str) -> dg.JobDefinition | None:
    from dagster_safe_backfill.cli.upkeep.jobs import rollback_job

    return rollback_job(connection.definitions.jobs(name), name)


def _decided(connection: Connection, output: Output, found: Preview, asked: _Asked) -> Answer[RollbackData]:
    """Return the dry run, or what came of the rollback if somebody said yes to it."""
    job = _job_of(connection, found.asset)
    if found.problem is not None or not found.is_needed:
        return _preview(found, job)
    if not asked.yes:
        if job is None or not output.is_interactive:
            return _preview(found, job)
        data = found.as_data(job=job.name, ran=None)
        output.ask(
            "Roll back?", show=lambda screen: _show(screen, data, is_asked=True), otherwise="nothing was rolled back"
        )
    if job is None:
        raise _no_job(found.asset)
    return _done(connection, output, found, job, asked)


def _no_job(name: str) -> CommandError:
    variable = name.rpartition("/")[2]
    return refusal(
        "no_rollback_job",
        f"the definitions have no rollback job of {name}",
        hint=f"add jobs=[sb.build_rollback_job({variable})] to the Definitions, and load them again",
    )


def _preview(found: Preview, job: dg.JobDefinition | None) -> Answer[RollbackData]:
    data = found.as_data(job=None if job is None else job.name, ran=None)
    problem = found.problem
    hints = [] if job is not None else [_no_job(found.asset).problem]
    return Answer(
        data=data,
        show=lambda screen: _show(screen, data, is_refused=problem is not None),
        brief="\n".join(found.publications),
        exit_code=Exit.DONE if problem is None else Exit.REFUSED,
        warnings=[f"{one.message}: {one.hint}" for one in hints],
        errors=[] if problem is None else [problem],
    )


def _done(
    connection: Connection,
    output: Output,
    found: Preview,
    job: dg.JobDefinition,
    asked: _Asked,
) -> Answer[RollbackData]:
    from dagster_safe_backfill.cli.upkeep.jobs import Ran, launch, run_here, wait

    config, dagster = found.config(force=asked.force), connection.dagster
    if asked.here:
        ran = run_here(dagster, output, job, config, instance=connection.instance)
    else:
        run_id = launch(dagster, output, found.asset, job, config)
        is_waited = asked.waits
        ran = wait(dagster, output, run_id, timeout=asked.timeout) if is_waited else Ran(run_id=run_id, status="QUEUED")
    is_left = not asked.here and not asked.waits
    data = found.as_data(job=job.name, ran=ran)
    undo = call(connection, "rollback", found.asset, "--publication", ran.run_id)
    return Answer(
        data=data,
        show=lambda screen: _show_done(screen, data, undo=undo),
        brief=ran.run_id,
        exit_code=Exit.DONE if is_left else ran.exit_code,
        errors=[] if is_left else ran.problems,
    )


def _show_done(screen: Console, data: RollbackData, *, undo: str) -> None:
    run_id, status = data["run_id"], data["status"]
    if status == "SUCCESS":
        screen.print(
            f"rolled back {', '.join(data['publication_ids'])}: {_counted(data)}", markup=False, soft_wrap=True
        )
        screen.print(f"to undo that: {undo}", markup=False, highlight=False, soft_wrap=True)
    else:
        screen.print(f"run {run_id} of {data['job']}: {status}", markup=False, soft_wrap=True)


def _counted(data: RollbackData) -> str:
    rows, many = data["rows"], len(data["partitions"])
    return (
        f"{many:,} partition{'s' * (many != 1)}: {rows['inserted']:,} rows inserted, {rows['updated']:,} updated,"
        f" {rows['deleted']:,} deleted, {rows['unchanged']:,} unchanged"
    )


def _show(screen: Console, data: RollbackData, *, is_asked: bool = False, is_refused: bool = False) -> None:
    names = data["publication_ids"]
    which = names[0] if len(names) == 1 else f"{len(names):,} publications: {', '.join(names)}"
    when = "" if data["published_at"] is None else f", of {clock(data['published_at'])}"
    screen.print(f"{data['table']}: {which}{when}", markup=False, soft_wrap=True)
    if data["conflicts"]:
        _show_conflicts(screen, data)
        if not data["partitions"]:
            return
        if data["also_undone"]:
            names = ", ".join(data["also_undone"])
            screen.print(f"with --force, it would also undo {names}", markup=False, soft_wrap=True)
        screen.print("with --force, it would bring back:")
    elif not data["partitions"]:
        screen.print("nothing to undo: it is undone already, or changed nothing")
        return
    else:
        screen.print("a rollback would bring back:")
    _show_partitions(screen, data)
    columns = data["columns"]
    changed = {"dropped": columns["dropped"], "put back": columns["restored"]}
    changed["kept, because other rows use them"] = columns["kept"]
    for what, names in changed.items():
        if names:
            screen.print(f"columns {what}: {', '.join(names)}", markup=False)
    if not is_refused and not is_asked:
        screen.print("nothing was changed; --yes does it")


def _show_partitions(screen: Console, data: RollbackData) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("partition")
    for name in _COUNTS:
        table.add_column(name, justify="right")
    table.add_column("")
    for one in data["partitions"][:_SHOWN]:
        note = "had no rows before" if one["removed"] else ""
        table.add_row(one["partition"], *_cells(one["rows"]), note)
    rest = len(data["partitions"]) - _SHOWN
    if rest > 0:
        table.add_row(f"and {rest:,} more")
    if len(data["partitions"]) > 1:
        table.add_row("total", *_cells(data["rows"]), style="bold")
    screen.print(table)


def _cells(rows: RowCountsData) -> list[str]:
    return [f"{rows[name]:,}" for name in _COUNTS]


def _show_conflicts(screen: Console, data: RollbackData) -> None:
    screen.print("changed since:")
    for one in data["conflicts"][:_SHOWN]:
        how = "changed by hand"
        if one["published_at"] is not None:
            how = f"published by {one['publication_id']} at {clock(one['published_at'])}"
        screen.print(f"  {one['partition']}: {how}", markup=False, soft_wrap=True)
    rest = len(data["conflicts"]) - _SHOWN
    if rest > 0:
        screen.print(f"  and {rest:,} more")
