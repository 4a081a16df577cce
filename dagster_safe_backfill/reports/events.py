"""What a run tells Dagster: check results, its failure, the numbers of each partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any, cast

import dagster as dg

from dagster_safe_backfill.errors import AuditFailedError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Judged, Published, Rejected, RowCounts
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.checks import check_results, evaluations_by_partition, summary
from dagster_safe_backfill.reports.report import report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """All that a run tells Dagster.

    Attributes:
        checks: A result for each audit.
        evaluations: One for each audit and partition, where checks are partitioned.
        shown: The report, as metadata.
        published: What went live.
        failure: Why the run fails, if it does.
    """

    checks: Sequence[dg.AssetCheckResult]
    evaluations: Sequence[dg.AssetCheckEvaluation] = ()
    shown: Mapping[str, Any] = field(default_factory=dict[str, Any])
    published: Sequence[Published] = ()
    failure: dg.Failure | None = None


def report_of(
    context: dg.AssetExecutionContext,
    judged: Audited | Rejected,
    *,
    failure: dg.Failure | None,
    goes_live: bool = True,
    logs_by_partition: bool = False,
) -> RunReport:
    """Return what a run reports of what it audited.

    Args:
        context: Of the run.
        judged: What was audited.
        failure: Why the run fails, if it does.
        goes_live: Whether the run publishes what passed, so that its rows will be found there.
        logs_by_partition: Whether the checks have a status for each partition. Dagster records a check's result in a
            range run without its partitions, so the run has to log them.
    """
    is_published = goes_live and isinstance(judged, Audited)
    evaluations: list[dg.AssetCheckEvaluation] = []
    if logs_by_partition and not context.has_partition_key:
        evaluations = [*evaluations_by_partition(judged.results, asset=context.asset_key, is_published=is_published)]
    shown = report(judged)
    return RunReport(
        checks=[*check_results(judged.results, is_published=is_published)],
        evaluations=evaluations,
        shown=shown,
        failure=failure and with_metadata(failure, shown),
    )


def log_evaluation(context: dg.AssetExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Log an evaluation, which Dagster takes, and only its type hint does not."""
    context.log_event(cast("dg.AssetObservation", evaluation))


def rejection(judged: Rejected, parts: Sequence[Judged], *, batches: int) -> dg.Failure:
    """Return the failure of a run that publishes nothing.

    Args:
        judged: All that was audited.
        parts: Its batches.
        batches: How many batches the run has.
    """
    ending = ""
    if len(parts) < batches:
        ending = f"; as the first batch failed, the other {batches - len(parts)} were not computed"
    return _failure(judged, parts, f"nothing was published, because {_blocking(judged)}", ending)


def partly_published(
    judged: Rejected, parts: Sequence[Judged], published: Sequence[Published], *, asked: PartitionSlice
) -> dg.Failure:
    """Return the failure of a run that published just the partitions that passed."""
    count = sum(len(one.row_counts) for one in published)
    missing = len(asked) - len(judged.staged.keys)
    ending = f"; {missing} more were not computed, as the first batch failed" if missing else ""
    said = (
        f"published {count} of {len(asked)} partitions, without {listed(judged.blocked)}, because {_blocking(judged)}"
    )
    return _failure(judged, parts, said, ending)


def _blocking(judged: Judged) -> str:
    blocking = [result for result in judged.results if result.blocks]
    reasons = "; ".join(f"{result.audit.name}: {summary(result)}" for result in blocking)
    return f"{len(blocking)} of {len(judged.results)} audits block it ({reasons})"


def _failure(judged: Rejected, parts: Sequence[Judged], said: str, ending: str) -> dg.Failure:
    staged = judged.staged
    shadows = [str(part.staged.shadow) for part in parts if isinstance(part, Rejected)]
    error = AuditFailedError(
        f"{staged.spec.table}: {said}; the rejected rows are in {listed(shadows)}{ending}. Mend the data or the code"
        " and run the partitions again: all that is not live is computed anew",
        table=str(staged.spec.table),
        shadow=shadows[0],
        failures=[
            (result.audit.name, result.blocking_keys, result.failed_rows) for result in judged.results if result.blocks
        ],
    )
    failure = dg.Failure(str(error), metadata={"shadow": ", ".join(shadows)}, allow_retries=False)
    failure.__cause__ = error
    return failure


def with_metadata(failure: dg.Failure, shown: Mapping[str, Any]) -> dg.Failure:
    """Return a failure that shows more."""
    more = dg.Failure(failure.description, metadata={**failure.metadata, **shown}, allow_retries=failure.allow_retries)
    more.__cause__ = failure.__cause__
    return more


def numbers_by_partition(published: Sequence[Published], *, seconds: float | None = None) -> dict[str, dict[str, Any]]:
    """Return the metadata of each partition that went live."""
    numbers: dict[str, dict[str, Any]] = {}
    for one in published:
        common: dict[str, Any] = {
            "dagster/table_name": str(one.audited.staged.spec.table),
            "publication_id": one.publication_id,
        }
        if one.archive is not None and one.expires_at is not None:
            # In UTC, because the UI shows texts unchanged, whatever time zone the reader has.
            until = one.expires_at.astimezone(timezone.utc)
            common |= {"archive": str(one.archive), "archive_expires_at": f"{until:%Y-%m-%d %H:%M} UTC"}
        if seconds is not None:
            common["seconds"] = round(seconds, 3)
        for key, changes in one.row_counts.items():
            numbers[key] = {**common, "dagster/partition_row_count": changes.staged, **changes_metadata(changes)}
    return numbers


def staged_numbers(parts: Sequence[Audited | Rejected], *, seconds: float) -> dict[str, dict[str, Any]]:
    """Return the metadata of each partition that is staged."""
    return {
        key: {
            "dagster/table_name": str(part.staged.shadow),
            "dagster/partition_row_count": part.staged.rows.get(key, 0),
            "rows_staged": part.staged.rows.get(key, 0),
            "seconds": round(seconds, 3),
        }
        for part in parts
        for key in part.staged.keys
    }


def materialization_events(asset: dg.AssetKey, published: Published) -> Iterator[dg.AssetMaterialization]:
    """Yield the materialization of each partition that went live."""
    for key, numbers in numbers_by_partition([published]).items():
        yield dg.AssetMaterialization(asset_key=asset, partition=key, metadata=numbers)


def warn(context: dg.AssetExecutionContext, published: Published) -> None:
    """Log what a person should know of a publication."""
    staged = published.audited.staged
    if published.is_repeated:
        context.log.warning(
            f"{staged.spec.table}: an earlier try of this run had published it, and ended before it could say so; what"
            " was computed now was left out"
        )
    if staged.replaces_shadow:
        context.log.warning(f"discarded {staged.shadow}, which an earlier try of this run had left unpublished")
    if staged.duplicates:
        context.log.warning(f"left out {staged.duplicates:,} rows for later ones of the same key")
    if staged.dropped:
        context.log.warning(f"left out {staged.dropped:,} rows outside {staged.partition_slice}")


def changes_metadata(changes: RowCounts) -> dict[str, int]:
    """Return what a write changed, as the numbers that the UI plots."""
    return {
        "rows_staged": changes.staged,
        "rows_inserted": changes.inserted,
        "rows_updated": changes.updated,
        "rows_deleted": changes.deleted,
        "rows_unchanged": changes.unchanged,
    }
