"""`doctor`: checks of Dagster, the definitions and the warehouse, with a verdict each and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster_safe_backfill.cli.answers.answer import Answer, Exit
from dagster_safe_backfill.cli.answers.data.upkeep import CheckCountsData, CheckVerdict, DoctorData
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import option, verb
from dagster_safe_backfill.cli.upkeep.checks import Check, checks_of_dagster

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: dict[CheckVerdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@verb("doctor", option("--all", "shows_all", is_flag=True, help="Show also what of an asset is as it should be."))
def command(connection: Connection, output: Output, *, shows_all: bool) -> Answer[DoctorData]:
    """Check Dagster, the definitions and the warehouse.

    Exit code 4 says that something isn't as it should be. By --url alone, only Dagster is checked.
    """
    found = [*checks_of_dagster(connection.dagster, is_by_url=connection.url is not None)]
    warnings: list[str] = []
    if connection.has_code:
        found += _of_assets(connection, output)
    else:
        warnings.append("the warehouse, ledgers and jobs were not checked: they need the definitions, by -m, -f or -w")
    counts = _counts(found)
    is_fine = counts["ok"] == len(found)
    return Answer(
        data={"checks": [one.as_data for one in found], "counts": counts},
        show=lambda screen: _show(screen, found if shows_all else _shortened(found)),
        brief="\n".join(f"{one.verdict}: {_about(one)}{one.message}" for one in found if one.verdict != "ok"),
        exit_code=Exit.DONE if is_fine else Exit.DIFFERENT,
        warnings=warnings,
    )


def _counts(found: Sequence[Check]) -> CheckCountsData:
    by_verdict = Counter(one.verdict for one in found)
    return {"ok": by_verdict["ok"], "warning": by_verdict["warning"], "problem": by_verdict["problem"]}


def _of_assets(connection: Connection, output: Output) -> list[Check]:
    from dagster_safe_backfill.cli.upkeep.table_checks import TableChecks

    checks = TableChecks(definitions=connection.definitions, place=connection)
    found: list[Check] = []
    for name in connection.definitions.live_assets():
        output.note(f"checking {name}")
        found += checks.of_asset(name)
    if not found:
        hint = "an asset is one of @sb.wap_asset or build_staged_wap_assets"
        found.append(Check(name="assets", verdict="warning", message="no assets of this library", hint=hint))
    return found


def _shortened(found: Sequence[Check]) -> list[Check]:
    """Return the checks, those of an asset that are as they should be in one line."""
    shown = [one for one in found if one.asset is None or one.verdict != "ok"]
    for name in dict.fromkeys(one.asset for one in found if one.asset is not None):
        fine = sum(one.asset == name and one.verdict == "ok" for one in found)
        if fine:
            shown.append(
                Check(name="other checks", verdict="ok", message=f"{fine:,} are as they should be", asset=name)
            )
    order = {name: place for place, name in enumerate(dict.fromkeys(one.asset for one in found))}
    # What is one warehouse's comes among its first asset's, and is shown before all assets.
    return sorted(shown, key=lambda one: -1 if one.asset is None else order[one.asset])


def _about(one: Check) -> str:
    return f"{one.asset}: " if one.asset is not None else ""


def _show(screen: Console, found: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    about: str | None = None
    for one in found:
        if one.asset != about and one.asset is not None:
            table.add_row("", "", "")
            table.add_row("", Text(one.asset, style="bold"), "")
            about = one.asset
        text = Text(one.message)
        if one.hint is not None and one.verdict != "ok":
            text.append(f"\n-> {one.hint}", style="dim")
        table.add_row(Text(one.verdict, style=_STYLES[one.verdict]), one.name, text)
    screen.print(table)
