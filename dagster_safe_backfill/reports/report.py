"""The report of a run: a table of shadow, live and verdict for each partition, and a picture of the row counts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_safe_backfill.audits.groups import ROWS, AggregateDrift
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.model.states import Audited, Rejected
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.chart import rows_by_partition
from dagster_safe_backfill.reports.checks import counted, shown_number, summary, table_value

_SHOWN = 400
"""The maximum number of partitions in the table, which keeps the event at some tens of kilobytes."""
_PICTURE_FROM = 2
"""The minimum number of partitions of a picture: for one partition, the table shows everything."""


def report(judged: Audited | Rejected) -> dict[str, Any]:
    """Return the report as metadata for Dagster: `report`, and `picture` if there is more than one partition.

    The results of audits over the whole run are not in the table but in `report_over_the_run`.
    """
    by_partition: list[AuditResult] = []
    over_run: list[AuditResult] = []
    for result in judged.results:
        (by_partition if result.overall is None else over_run).append(result)
    verdicts = dict.fromkeys(judged.staged.keys, "passed")
    for result in by_partition:
        verdicts |= dict.fromkeys(result.failed_keys, "warned")
    # "blocked" is set last, so that it replaces "warned".
    for result in by_partition:
        verdicts |= dict.fromkeys(result.blocking_keys, "blocked")
    shown = judged.staged.keys
    if len(shown) > _SHOWN:
        shown = _worst_first(verdicts)
    rows: list[dict[str, Any]] = []
    for key in shown:
        rows.append(_row(judged, by_partition, key, verdicts[key]))
    metadata: dict[str, Any] = {"report": table_value(rows)}
    keys = {*judged.staged.keys}
    moves = {now: [was for was in left if was not in keys] for now, left in judged.staged.left.items()}
    if any(moves.values()):
        said = [f"from {listed(left)} to {now}" for now, left in moves.items() if left]
        metadata["moves"] = dg.MetadataValue.text(f"rows move with their keys {listed(said)}")
    if over_run:
        said = [f"{result.audit.name}: {summary(result)}" for result in over_run]
        metadata["report_over_the_run"] = dg.MetadataValue.text("; ".join(said))
    if len(shown) < len(keys):
        left_out = len(keys) - len(shown)
        metadata["report_left_out"] = dg.MetadataValue.text(f"{left_out:,} partitions; passed ones were left out first")
    if len(keys) >= _PICTURE_FROM:
        metadata["picture"] = _picture(judged, verdicts)
    return metadata


def _worst_first(verdicts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the partitions that the table has room for, in their order; partitions that passed are left out first."""
    # sorted() is stable (Python docs), so the earliest partitions are chosen among equals.
    chosen = set(sorted(verdicts, key=lambda key: verdicts[key] == "passed")[:_SHOWN])
    return tuple(key for key in verdicts if key in chosen)


def _row(judged: Audited | Rejected, results: Sequence[AuditResult], key: str, said: str) -> dict[str, Any]:
    shadow = judged.staged.rows.get(key, 0)
    failures: list[str] = []
    drifts: dict[str, str] = {}
    for result in results:
        verdict = result.verdicts[key]
        if verdict.outcome != "passed":
            rows = f" ({counted(verdict.failed_rows, 'row')})" if verdict.failed_rows else ""
            failures.append(f"{result.audit.name}{rows}{' unmeasured' if verdict.outcome == 'unmeasured' else ''}")
        if isinstance(result.audit, AggregateDrift) and result.audit.aggregate != ROWS:
            drifts |= _both_sides(result.audit, verdict.measured)
    row: dict[str, Any] = {
        "partition": key,
        "verdict": said,
        "audits that did not pass": "; ".join(failures),
        "shadow rows": shadow,
    }
    if judged.live_rows is not None:
        live = judged.live_rows.get(key, 0)
        row |= {"live rows": live, "difference": shadow - live}
    return row | drifts


def _both_sides(audit: AggregateDrift, measured: Mapping[str, float | None]) -> dict[str, str]:
    return {f"{audit.what}, {side}": shown_number(measured.get(side)) for side in ("shadow", "live")}


def _picture(judged: Audited | Rejected, verdicts: Mapping[str, str]) -> dg.MetadataValue[Any]:
    staged, live_rows = judged.staged, judged.live_rows
    shadow: list[int] = []
    live: list[int] = []
    for key in staged.keys:
        shadow.append(staged.rows.get(key, 0))
        live.append((live_rows or {}).get(key, 0))
    try:
        svg = rows_by_partition(
            staged.keys,
            shadow=shadow,
            live=None if live_rows is None else live,
            verdicts=[*verdicts.values()],
            title=str(staged.spec.table),
        )
    except ImportError:
        return dg.MetadataValue.text("To get a picture, install dagster-safe-backfill[plot].")
    # The report is made before the publication, so an error of pygal would fail the run and nothing would be published.
    except Exception as error:
        return dg.MetadataValue.text(f"The picture can't be drawn. {type(error).__name__}: {error}")
    # A data URI needs no server for the image, and Dagster's UI renders images in Markdown.
    return dg.MetadataValue.md(f"![rows by partition](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})")
