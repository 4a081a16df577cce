"""The report of a run: a table by partition of shadow against live with the verdicts, and a picture of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_safe_backfill.audits.groups import ROWS, AggregateDrift
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.model.states import Audited, Rejected
from dagster_safe_backfill.reports.checks import counted, shown_number, summary, table_value

_SHOWN = 400
"""How many partitions the table has at most: an event should stay within some tens of kilobytes."""
_PICTURE_FROM = 2
"""A picture of fewer partitions says nothing that the table doesn't."""


def report(judged: Audited | Rejected) -> dict[str, Any]:
    """Return the report as metadata of Dagster: `report`, and `picture` where there is more than one partition.

    What was measured over the run as a whole says nothing of a partition, and stands beside the table.
    """
    by_partition = [result for result in judged.results if result.overall is None]
    keys = _shown_keys(judged.staged.keys, by_partition)
    metadata: dict[str, Any] = {"report": table_value([_row(judged, by_partition, key) for key in keys])}
    over_run = [result for result in judged.results if result.overall is not None]
    if over_run:
        said = [f"{result.audit.name}: {summary(result)}" for result in over_run]
        metadata["report_over_the_run"] = dg.MetadataValue.text("; ".join(said))
    if len(keys) < len(judged.staged.keys):
        left_out = len(judged.staged.keys) - len(keys)
        metadata["report_left_out"] = dg.MetadataValue.text(f"{left_out:,} partitions, those that passed first")
    if len(judged.staged.keys) >= _PICTURE_FROM:
        metadata["picture"] = _picture(judged, by_partition)
    return metadata


def _shown_keys(keys: Sequence[str], results: Sequence[AuditResult]) -> Sequence[str]:
    """Return the partitions that the table shows, in their order: all, or those that failed before the others."""
    if len(keys) <= _SHOWN:
        return keys
    bad = {key for result in results for key in result.failed_keys}
    chosen = set(sorted(keys, key=lambda key: key not in bad)[:_SHOWN])
    return [key for key in keys if key in chosen]


def _row(judged: Audited | Rejected, results: Sequence[AuditResult], key: str) -> dict[str, Any]:
    shadow = judged.staged.rows.get(key, 0)
    row: dict[str, Any] = {
        "partition": key,
        "verdict": verdict_of(results, key),
        "audits that did not pass": "; ".join(_failures(results, key)),
        "shadow rows": shadow,
    }
    if judged.live_rows is not None:
        live = judged.live_rows.get(key, 0)
        row |= {"live rows": live, "difference": shadow - live}
    for result in results:
        if isinstance(result.audit, AggregateDrift) and result.audit.aggregate != ROWS:
            row |= _both_sides(result.audit, result.verdicts[key].measured)
    return row


def _both_sides(audit: AggregateDrift, measured: Mapping[str, float | None]) -> dict[str, str]:
    return {f"{audit.what}, {side}": shown_number(measured.get(side)) for side in ("shadow", "live")}


def verdict_of(results: Sequence[AuditResult], key: str) -> str:
    """Return what audits together say of a partition: passed, warned, or blocked."""
    verdicts = [(result, result.verdicts[key]) for result in results]
    if any(result.is_blocking(verdict) for result, verdict in verdicts):
        return "blocked"
    return "passed" if all(verdict.outcome == "passed" for _, verdict in verdicts) else "warned"


def _failures(results: Sequence[AuditResult], key: str) -> list[str]:
    failures: list[str] = []
    for result in results:
        verdict = result.verdicts[key]
        if verdict.outcome != "passed":
            rows = f" ({counted(verdict.failed_rows, 'row')})" if verdict.failed_rows else ""
            failures.append(f"{result.audit.name}{rows}{' unmeasured' if verdict.outcome == 'unmeasured' else ''}")
    return failures


def _picture(judged: Audited | Rejected, results: Sequence[AuditResult]) -> dg.MetadataValue[Any]:
    try:
        from dagster_safe_backfill.reports.chart import rows_by_partition
    except ImportError:
        return dg.MetadataValue.text("for a picture, install dagster-safe-backfill[plot]")
    keys = judged.staged.keys
    live = judged.live_rows
    try:
        svg = rows_by_partition(
            keys,
            shadow=[judged.staged.rows.get(key, 0) for key in keys],
            live=None if live is None else [live.get(key, 0) for key in keys],
            verdicts=[verdict_of(results, key) for key in keys],
            title=str(judged.staged.spec.table),
        )
    except Exception as error:  # a picture is worth no run
        return dg.MetadataValue.text(f"the picture can't be drawn: {type(error).__name__}: {error}")
    return dg.MetadataValue.md(f"![rows by partition](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})")
