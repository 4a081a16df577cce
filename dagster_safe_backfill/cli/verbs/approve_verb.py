"""`approve`: the person's yes to a staged backfill."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer, Exit, Problem, refusal
from dagster_safe_backfill.cli.answers.data.staged import ApproveData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.reading import ranges_to_launch
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.here import check_here, launched
from dagster_safe_backfill.cli.following.next_steps import NOTHING_LAUNCHED
from dagster_safe_backfill.cli.following.report import approve_data, show_report
from dagster_safe_backfill.cli.following.waiting import AuditReport, Waiting, staged_assets, what_waits
from dagster_safe_backfill.cli.options import argument, in_process_option, option, verb
from dagster_safe_backfill.model.plans import OWNER_TAG, REASON_TAG

if TYPE_CHECKING:
    from rich.console import Console

AUDIT_TAG = "safe_backfill/approved_audit"
"""The tag of a publication with the run of the audit on whose word it was approved."""


@verb(
    "approve",
    argument("asset", metavar="ASSET"),
    option("--yes", "-y", is_flag=True, help="Publish without a question."),
    option("--owner", metavar="NAME", help="Who approves it, kept as the tag safe_backfill/owner."),
    option("--reason", metavar="TEXT", help="Why, kept as the tag safe_backfill/reason."),
    option("--watch", is_flag=True, help="Follow the publication until it ends."),
    option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Follow it for at most that long."),
    in_process_option,
)
def command(
    connection: Connection,
    output: Output,
    *,
    asset: str,
    yes: bool,
    owner: str | None,
    reason: str | None,
    watch: bool,
    timeout: float | None,
    in_process: bool,
) -> Answer[ApproveData]:
    """Publish what a staged backfill has staged and audited: the report in short, a question, then the publication.

    Of an asset x of build_staged_wap_assets, whose x__shadow and x__audit ran. It publishes the partitions that the
    newest audit covers and that aren't published since, together. It is refused (3) if that audit failed, if partitions
    were staged again after it, if a backfill publishes the asset now, or if nobody can be asked and --yes isn't given.
    """
    if in_process:
        check_here(connection)
    waiting = what_waits(connection, staged_assets(connection.dagster, asset))
    report = waiting.report
    if report is None:
        return _nothing(waiting)
    warnings = _warnings(waiting)
    if not yes:
        if not output.is_interactive:
            return _unconfirmed(waiting, report, warnings)
        _agreed(connection, output, waiting, report)
    backfill_id = _launch(connection, waiting, report, owner=owner, reason=reason)
    name = waiting.assets.live.key
    summary = f"backfill {backfill_id} publishes {len(waiting.keys):,} partitions of {name}"
    answer = launched(
        connection,
        output,
        backfill_id,
        summary,
        assets=[name],
        watch=watch,
        in_process=in_process,
        timeout=timeout,
    )
    return answer.with_data(approve_data(waiting, answer.data))


def _agreed(connection: Connection, output: Output, waiting: Waiting, report: AuditReport) -> None:
    """Ask whether to publish what waits, and look again: minutes may have passed.

    Raises:
        CommandError: The answer is no, or something else waits now.
    """
    output.ask(
        "Publish them?",
        show=lambda screen: show_report(screen, waiting, report),
        otherwise="nothing was published",
        warnings=_warnings(waiting),
    )
    again = what_waits(connection, waiting.assets)
    if again.report is None or again.report.run_id != report.run_id or again.keys != waiting.keys:
        raise refusal(
            "changed_meanwhile",
            f"what waits of {waiting.assets.live.key} is no longer what was shown, so nothing was published",
            hint="look at it again: the same call shows it",
        )


def _launch(
    connection: Connection, waiting: Waiting, report: AuditReport, *, owner: str | None, reason: str | None
) -> str:
    live = waiting.assets.live
    tags = {AUDIT_TAG: report.run_id, OWNER_TAG: owner, REASON_TAG: reason}
    return connection.dagster.launch_backfill(
        [live.key],
        {live.key: ranges_to_launch(live, waiting.keys)},
        tags={name: value for name, value in tags.items() if value},
        title=f"{live.key}: publish {len(waiting.keys):,} staged partitions",
        description=reason,
    )


def _warnings(waiting: Waiting) -> Sequence[str]:
    if not waiting.others:
        return ()
    shown = ", ".join(waiting.others[:5]) + (", …" if len(waiting.others) > 5 else "")
    return [
        f"{len(waiting.others):,} partitions are staged besides, not covered by this audit; they stay staged ({shown})"
    ]


def _nothing(waiting: Waiting) -> Answer[ApproveData]:
    name = waiting.assets.live.key

    def show(screen: Console) -> None:
        screen.print(f"nothing to do: no partition of {name} is staged that isn't published")

    return Answer(data=approve_data(waiting, NOTHING_LAUNCHED), show=show)


def _unconfirmed(waiting: Waiting, report: AuditReport, warnings: Sequence[str]) -> Answer[ApproveData]:
    return Answer(
        data=approve_data(waiting, NOTHING_LAUNCHED),
        show=partial(show_report, waiting=waiting, report=report),
        exit_code=Exit.REFUSED,
        warnings=warnings,
        errors=[
            Problem(code="not_confirmed", message="nothing was published", hint="--yes publishes without a question")
        ],
    )
