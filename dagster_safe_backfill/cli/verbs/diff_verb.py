"""`diff`: staged rows against live ones, or what a publication changed, by partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, Exit, usage_error
from dagster_safe_backfill.cli.answers.data.differences import (
    CellValue,
    ColumnDifferencesData,
    DiffData,
    RowDifferencesData,
    SampleRowData,
)
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.options import argument, option, verb
from dagster_safe_backfill.cli.selection import KEY_OPTIONS

if TYPE_CHECKING:
    from rich.console import Console

    from dagster_safe_backfill.cli.upkeep.comparing import Comparison

_MOST_DAYS = 400
"""How many partitions the screen lists."""


@verb(
    "diff",
    argument("asset"),
    option("--run", "run_id", metavar="ID", help="What this run staged. By default, all that is staged and waits."),
    option("--backfill", "backfill_id", metavar="ID", help="What the runs of this backfill staged."),
    option(
        "--publication", metavar="ID", help="What this publication, or rollback, changed; `newest` is the last one."
    ),
    option(
        "--aggregate",
        "aggregates",
        multiple=True,
        metavar="SQL",
        help="An aggregate of both sides, such as sum(amount). Repeat it for more.",
    ),
    option("--rows", "samples", is_flag=True, help="Show up to ten rows of each kind."),
    *KEY_OPTIONS,
)
def command(
    connection: Connection,
    _output: Output,
    *,
    asset: str,
    run_id: str | None,
    backfill_id: str | None,
    publication: str | None,
    aggregates: Sequence[str],
    samples: bool,
    **keys: Any,
) -> Answer[DiffData]:
    """Compare staged rows with live ones, or show what a publication changed.

    Without --publication, the rows that are staged or rejected and not published are compared with the live rows. With
    it, the rows that the publication replaced are compared with those that it wrote. Exit code 4 says that rows differ.
    """
    given = {"--run": run_id, "--backfill": backfill_id, "--publication": publication}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise usage_error("contradiction", f"{' and '.join(named)} choose what is compared each; give one of them")
    with connection.definitions.asset(asset) as loaded:
        from dagster_safe_backfill.cli.upkeep.comparing import Chosen, compare, selected, uncompared
        from dagster_safe_backfill.cli.upkeep.known import known_answer

        chosen = Chosen(run_id=run_id, backfill_id=backfill_id, publication=publication)
        try:
            found = compare(loaded, chosen, connection, aggregates=aggregates, samples=samples, keys=keys)
        except CommandError as error:
            known = known_answer(error, connection.dagster, loaded, keys=selected(loaded, **keys))
            return known.with_data(uncompared(loaded, chosen, known.data).as_data)
    return _answer(found)


def _answer(found: Comparison) -> Answer[DiffData]:
    data = found.as_data
    return Answer(
        data=data,
        show=lambda screen: _show(screen, data),
        brief=f"{data['total']['new']} {data['total']['changed']} {data['total']['gone']}" if found.is_any else "",
        exit_code=Exit.DIFFERENT if data["different"] else Exit.DONE,
        warnings=found.warnings,
    )


def _show(screen: Console, data: DiffData) -> None:
    from rich.table import Table

    if not data["partitions"]:
        screen.print(data["nothing"] or "nothing to compare", markup=False)
        return
    screen.print(data["comparing"], markup=False, soft_wrap=True)
    aggregates = [*data["total"]["aggregates"]]
    table = Table(box=None, pad_edge=False)
    table.add_column("partition")
    for name in ("new", "changed", "gone", "unchanged", *aggregates):
        table.add_column(name, justify="right")
    listed = [one for one in data["partitions"] if len(data["partitions"]) <= _MOST_DAYS or one["different"]]
    for one in listed[:_MOST_DAYS]:
        table.add_row(*_cells(one["partition"], one), style=None if one["different"] else "dim")
    if len(data["partitions"]) > 1:
        table.add_row(*_cells(f"total ({len(data['partitions']):,})", data["total"]), style="bold")
    screen.print(table)
    if len(listed) > _MOST_DAYS:
        screen.print(f"and {len(listed) - _MOST_DAYS:,} partitions more that differ; --json has all")
    _show_columns(screen, data["columns"])
    _show_rows(screen, data["samples"])


def _cells(name: str, one: RowDifferencesData) -> list[str]:
    counts = [
        "" if count is None else f"{count:,}" for count in (one["new"], one["changed"], one["gone"], one["unchanged"])
    ]
    values = [_change(both["before"], both["after"]) for both in one["aggregates"].values()]
    return [name, *counts, *values]


def _change(before: CellValue, after: CellValue) -> str:
    if before == after:
        return _value(after)
    return f"{_value(before)} -> {_value(after)}"


def _value(value: CellValue) -> str:
    if isinstance(value, float):
        return f"{value:,.10g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _show_columns(screen: Console, columns: ColumnDifferencesData) -> None:
    left_out = {
        "columns that are new": columns["added"],
        "columns that are gone": columns["dropped"],
        "columns of another type": columns["retyped"],
    }
    for text, names in left_out.items():
        if names:
            screen.print(f"{text}, and not compared: {', '.join(names)}", markup=False)
    changed = columns["changed"]
    if changed:
        screen.print("changed rows by column: " + ", ".join(f"{name} {count:,}" for name, count in changed.items()))


def _show_rows(screen: Console, rows: Sequence[SampleRowData]) -> None:
    signs = {"new": ("+", "green"), "gone": ("-", "red"), "changed": ("~", "yellow")}
    for one in rows:
        sign, style = signs[one["kind"]]
        key = _pairs(one["key"])
        before, after = one["before"], one["after"]
        if before is not None and after is not None:
            values = ", ".join(f"{name}: {_short(before[name])} -> {_short(after[name])}" for name in after)
        else:
            values = _pairs(after or before or {})
        times = f" ({one['times']} times)" if one["times"] > 1 else ""
        text = "; ".join(filter(None, (key, values)))
        screen.print(f"{sign} {text}{times}", style=style, markup=False, soft_wrap=True)


def _pairs(values: Mapping[str, CellValue]) -> str:
    return ", ".join(f"{name}: {_short(value)}" for name, value in values.items())


def _short(value: CellValue) -> str:
    """Return a value without what says nothing: the time of a midnight."""
    return "NULL" if value is None else str(value).removesuffix("T00:00:00")
