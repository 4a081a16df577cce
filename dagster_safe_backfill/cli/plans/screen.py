"""A plan as an answer, and on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.plans import PlanData
from dagster_safe_backfill.cli.answers.output import duration
from dagster_safe_backfill.cli.plans.making import Planning
from dagster_safe_backfill.cli.plans.plan import Estimate, PlannedAsset

if TYPE_CHECKING:
    from rich.console import Console

_MOST_LINES = 12
"""Of reasons, so that a plan of thousands of partitions fits a screen; the file names each."""


def nothing_to_do(assets: tuple[str, ...]) -> Answer[PlanData]:
    """Return the answer for a selection that no partition fits."""
    return Answer(
        data={"plan": None, "path": None, "guards": []},
        show=lambda screen: screen.print(
            f"No partition of {', '.join(assets)} is as you asked for, so there is nothing to do.", markup=False
        ),
    )


def planned_answer(planning: Planning, path: Path | None, *, next_call: str = "") -> Answer[PlanData]:
    """Return the answer that shows a plan; `next_call` carries it out."""
    broken = [f"{guard.name}: {guard.message}" for guard in planning.guards if not guard.holds]
    return Answer(
        data=plan_data(planning, path),
        show=lambda screen: show_plan(screen, planning, path, next_call=next_call),
        brief="" if path is None else str(path),
        warnings=[*planning.warnings, *broken],
    )


def plan_data(planning: Planning, path: Path | None) -> PlanData:
    """Return a plan as the data of `plan`; `path` is the file that has it."""
    return {
        "plan": planning.plan.as_data,
        "path": None if path is None else str(path),
        "guards": [guard.as_data for guard in planning.guards],
    }


def show_plan(screen: Console, planning: Planning, path: Path | None, *, next_call: str = "") -> None:
    """Print a plan; `path` is where it was saved."""
    plan = planning.plan
    screen.print(f"Plan {plan.id}", style="bold", markup=False)
    for asset in plan.assets:
        _show_asset(screen, asset)
    if len(plan.launched) > len(plan.assets):
        screen.print(f"  launches    {', '.join(plan.launched)}", markup=False)
    if plan.newest_first:
        screen.print("  order       batches begin with the newest partitions")
    outdated = f"{', '.join(plan.outdated)}, until they are backfilled too" if plan.outdated else "nothing downstream"
    screen.print(f"  outdated    {outdated}", markup=False)
    for guard in planning.guards:
        mark, style = ("ok", "green") if guard.holds else ("no", "bold red" if guard.refuses else "yellow")
        screen.print(f"  {mark:<3}", style=style, end="")
        screen.print(f"{guard.name:<9}{guard.message}" + (f" ({guard.hint})" if guard.hint else ""), markup=False)
    if path is not None:
        screen.print(f"Nothing was touched. Saved as {path}. To carry it out:", markup=False, soft_wrap=True)
        screen.print(f"  {next_call}", markup=False, soft_wrap=True)


def _show_asset(screen: Console, asset: PlannedAsset) -> None:
    where = f" ({asset.table})" if asset.table and asset.table != asset.key else ""
    screen.print(f"{asset.key}{where}", style="bold", markup=False)
    keys = asset.keys
    if keys:
        screen.print(f"  partitions  {len(keys):,}: {_ends(keys)}, both included", markup=False)
        lines = _reason_lines(asset.reasons)
        for line in lines[:_MOST_LINES]:
            screen.print(f"    {line}", markup=False)
        if len(lines) > _MOST_LINES:
            screen.print(f"    and {len(lines) - _MOST_LINES:,} more ranges; the plan's file names each partition")
    batches = f" of batches of {asset.batch_size}" if asset.batch_size else ""
    screen.print(f"  runs        {len(asset.runs) or 1:,}{batches}; {asset.goes_live}", markup=False)
    screen.print(f"  estimate    {_estimate(asset.estimate)}", markup=False)
    if asset.live_unknown is not None:
        screen.print("  live rows   not known, and not checked by its runs: the warehouse was held", markup=False)


def _ends(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"


def _reason_lines(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Return lines that give neighbours with the same reasons together."""
    groups: list[tuple[tuple[str, ...], list[str]]] = []
    for key, found in reasons.items():
        if groups and groups[-1][0] == tuple(found):
            groups[-1][1].append(key)
        else:
            groups.append((tuple(found), [key]))
    return [f"{_ends(keys)} ({len(keys):,}): {'; '.join(found)}" for found, keys in groups]


def _estimate(estimate: Estimate) -> str:
    if estimate.row_count is None and estimate.seconds is None:
        return "none, because nothing of it was published yet"
    parts: list[str] = []
    if estimate.row_count is not None:
        parts.append(f"about {estimate.row_count:,} rows")
    if estimate.seconds is not None:
        parts.append(f"about {duration(estimate.seconds)}, one run after the other")
    return f"{', '.join(parts)} (from {estimate.partition_count:,} earlier partitions)"
