"""The events of a run for Dagster: check results, the failure, and the metadata of each partition."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.errors import AuditFailedError
from dagster_safe_backfill.model.events import RowCounts
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.model.states import Audited, Judged, Published, Rejected
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.checks import check_results, counted, evaluations_by_partition, summary
from dagster_safe_backfill.reports.report import report
from dagster_safe_backfill.runs.private_dagster import without_version

if TYPE_CHECKING:
    from dagster_safe_backfill.wap.ledger.history import Change

_PAGE = 1000
"""The number of partitions whose events are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything that a run reports to Dagster.

    Attributes:
        checks: A check result for each audit.
        evaluations: An evaluation for each audit and partition, if the checks are partitioned.
        shown: The report, as metadata.
        published: The publications of the run.
        failure: The error with which the run fails; None if it succeeds.
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
    """Return the report of a run on the partitions that it audited.

    Args:
        context: The context of the run.
        judged: The audited partitions.
        failure: The error with which the run fails; None if it succeeds.
        goes_live: True if the run publishes the partitions that pass, so that the checks' SQL must read the live table.
        logs_by_partition: True if the checks have a status for each partition.
    """
    is_published = goes_live and isinstance(judged, Audited)
    evaluations: list[dg.AssetCheckEvaluation] = []
    # Dagster itself records the partition of a check result, but only in a run of a single partition.
    if logs_by_partition and not context.has_partition_key:
        evaluations = [*evaluations_by_partition(judged.results, asset=context.asset_key, is_published=is_published)]
    shown = report(judged)
    return RunReport(
        checks=[*check_results(judged.results, is_published=is_published)],
        evaluations=evaluations,
        shown=shown,
        failure=failure and with_metadata(failure, shown),
    )


def all_done(audits: Sequence[Audit], published: Mapping[str, Change]) -> RunReport:
    """Return the report of a run whose partitions were all published by the run that it continues."""
    # A partition is published only after every blocking audit passed, so each check passes.
    said = f"passed for {counted(len(published), 'partition')} that this run, or the run that it re-executes, published"
    checks: list[dg.AssetCheckResult] = []
    for audit in audits:
        checks.append(dg.AssetCheckResult(check_name=audit.name, passed=True, description=said))
    return RunReport(checks=checks)


def log_evaluation(context: dg.AssetExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Log an evaluation of an asset check."""
    # OpExecutionContext.log_event accepts an AssetCheckEvaluation, but its type hint doesn't (Dagster 1.13.27).
    context.log_event(cast("dg.AssetObservation", evaluation))


def rejection(judged: Rejected, parts: Sequence[Judged], *, batches: int) -> dg.Failure:
    """Return the failure of a run that publishes nothing.

    Args:
        judged: All audited partitions together.
        parts: The batches that were audited.
        batches: The number of batches of the run, including those that were not computed.
    """
    ending = ""
    if len(parts) < batches:
        ending = f" The first batch failed, so {batches - len(parts)} of {batches} batches were not computed."
    return _failure(judged, parts, f"nothing was published, because {_blocking(judged)}", ending)


def partly_published(
    judged: Rejected,
    parts: Sequence[Judged],
    published: Sequence[Published],
    *,
    asked: PartitionSlice,
    before: Sequence[str] = (),
) -> dg.Failure:
    """Return the failure of a run that published only the partitions that passed."""
    count = sum(len(one.row_counts) - len(one.left) for one in published) + len(before)
    missing = len(asked) - len(judged.staged.keys) - len(before)
    # Later batches are left out because of a canary or, if the asset reads itself, because they depend on this one.
    which = "The first batch" if len(parts) == 1 else "A batch on which they depend"
    ending = f" {which} failed, so {missing} more were not computed." if missing else ""
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
        f"{staged.spec.table}: {said}. The rejected rows are in {listed(shadows)}.{ending} Fix the data or the code,"
        " and run the partitions again: all partitions that are not live are computed again.",
        table=str(staged.spec.table),
        shadow=shadows[0],
        failures=[
            (result.audit.name, result.blocking_keys, result.failed_rows) for result in judged.results if result.blocks
        ],
    )
    # A retry by the asset's retry_policy would audit the same rows again.
    failure = dg.Failure(str(error), metadata={"shadow": ", ".join(shadows)}, allow_retries=False)
    # The caller raises the failure later, so the cause can't be set by `raise … from`.
    failure.__cause__ = error
    return failure


def with_metadata(failure: dg.Failure, shown: Mapping[str, Any]) -> dg.Failure:
    """Return a copy of a failure with more metadata."""
    more = dg.Failure(failure.description, metadata={**failure.metadata, **shown}, allow_retries=failure.allow_retries)
    more.__cause__ = failure.__cause__
    return more


def numbers_by_partition(published: Sequence[Published], *, seconds: float | None = None) -> dict[str, dict[str, Any]]:
    """Return a mapping from partition key to metadata of the partitions that were published."""
    numbers: dict[str, dict[str, Any]] = {}
    for one in published:
        common = _of_publication(one)
        if one.left:
            common["moved_from"] = listed([*one.left])
        if seconds is not None:
            common["seconds"] = round(seconds, 3)
        for key, changes in one.row_counts.items():
            if key not in one.left:
                numbers[key] = {**common, "dagster/partition_row_count": changes.staged, **changes_metadata(changes)}
        # Once for all of them, as the SQL names each key: on the partition that Dagster shows.
        numbers[one.audited.staged.keys[-1]]["Query"] = one.select
    return numbers


def _of_publication(published: Published) -> dict[str, Any]:
    common: dict[str, Any] = {
        **table_metadata(published.audited.staged.spec.table),
        "publication_id": published.publication_id,
    }
    if published.archive is not None and published.expires_at is not None:
        # In UTC, because the UI shows texts unchanged, whatever time zone the reader has.
        until = published.expires_at.astimezone(timezone.utc)
        common |= {"archive": str(published.archive), "archive_expires_at": f"{until:%Y-%m-%d %H:%M} UTC"}
    return common


def log_left(context: dg.AssetExecutionContext, published: Published, *, covered: Collection[str]) -> None:
    """Log an event for each partition that rows left for those that were published.

    That is a materialization, by which downstream assets notice the change, if the partition is green. It is an
    observation if the partition is not green, because a run has yet to compute it, or if it is one of `covered`, which
    this run or its backfill computes: Dagster takes each materialization in a backfill for its result.
    """
    if not published.left:
        return
    green = context.instance.get_materialized_partitions(context.asset_key)
    to = published.audited.staged.partition_slice
    for key, changes in published.left.items():
        metadata = {
            **_of_publication(published),
            "moved_to": str(to),
            "dagster/partition_row_count": changes.staged,
            **changes_metadata(changes),
        }
        said = f"{counted(changes.deleted, 'row')} moved to {to}, by publication {published.publication_id}"
        kind = dg.AssetMaterialization if key in green and key not in covered else dg.AssetObservation
        context.log_event(kind(context.asset_key, partition=key, description=said, metadata=metadata))


def earlier_numbers(published: Mapping[str, Change]) -> dict[str, dict[str, Any]]:
    """Return a mapping from partition key to the metadata of a partition that went live before."""
    return {
        key: {
            "publication_id": change.publication_id,
            "dagster/partition_row_count": change.row_counts.staged,
            **changes_metadata(change.row_counts),
        }
        for key, change in published.items()
    }


def staged_numbers(parts: Sequence[Audited | Rejected], *, seconds: float) -> dict[str, dict[str, Any]]:
    """Return a mapping from partition key to metadata of the partitions that were staged."""
    return {
        key: {
            **table_metadata(part.staged.shadow),
            "dagster/partition_row_count": part.staged.rows.get(key, 0),
            "rows_staged": part.staged.rows.get(key, 0),
            "seconds": round(seconds, 3),
        }
        for part in parts
        for key in part.staged.keys
    }


def materialization_events(
    asset: dg.AssetKey, published: Published, additions: Mapping[str, dg.AssetMaterialization]
) -> Iterator[dg.AssetMaterialization]:
    """Yield the materialization of each partition that was published, with what the user's function adds to it."""
    for key, numbers in numbers_by_partition([published]).items():
        yield materialization_event(asset, key, numbers, additions)


def materialization_event(
    asset: dg.AssetKey, key: str, numbers: Mapping[str, Any], additions: Mapping[str, dg.AssetMaterialization]
) -> dg.AssetMaterialization:
    """Return the materialization of a partition, with what the user's function adds to it."""
    metadata = with_additions({key: numbers}, additions)[key]
    return dg.AssetMaterialization(asset, partition=key, metadata=metadata, tags=_tags_of(key, additions))


def with_additions(
    numbers: Mapping[str, Mapping[str, Any]], additions: Mapping[str, dg.AssetMaterialization]
) -> dict[str, dict[str, Any]]:
    """Return the metadata of partitions with the user's; the library's own names win."""
    return {
        key: {**(additions[key].metadata if key in additions else {}), **metadata} for key, metadata in numbers.items()
    }


def final_events(
    context: dg.AssetExecutionContext,
    keys: Sequence[str],
    additions: Mapping[str, dg.AssetMaterialization],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[object]:
    """Yield the result of a run, of which Dagster makes the materialization of each partition.

    Dagster gives all of them the same tags and data version. Partitions whose batch has tags of its own are
    materialized once more, as they were but with these tags.

    Args:
        context: The context of the run.
        keys: The run's partitions.
        additions: What the user's function adds to the events of partitions.
        metadata: The metadata of all partitions.
    """
    first = _tags_of(keys[0], additions).items()
    common = {name: tag for name, tag in first if all(_tags_of(key, additions).get(name) == tag for key in keys)}
    tags, version = without_version(common)
    yield dg.MaterializeResult(metadata=metadata, tags=tags, data_version=version)
    differing = [key for key in keys if _tags_of(key, additions) != common]
    for i in range(0, len(differing), _PAGE):
        page = differing[i : i + _PAGE]
        logged = dg.AssetRecordsFilter(asset_key=context.asset_key, asset_partitions=page)
        for record in context.instance.fetch_materializations(logged, limit=len(page)).records:
            event = record.asset_materialization
            if event is not None and event.partition is not None:
                own = {**(event.tags or {}), **_tags_of(event.partition, additions)}
                context.log_event(event._replace(tags=own))


def _tags_of(key: str, additions: Mapping[str, dg.AssetMaterialization]) -> Mapping[str, str]:
    return (additions[key].tags if key in additions else None) or {}


def warn(context: dg.AssetExecutionContext, published: Published) -> None:
    """Log warnings about a publication: rows that were left out, and traces of an earlier attempt."""
    staged = published.audited.staged
    if published.is_repeated:
        context.log.warning(
            f"{staged.spec.table}: an earlier attempt of this run had already published these partitions, and ended"
            " before it could report that, so the rows that were computed now were not used"
        )
    if staged.replaces_shadow:
        context.log.warning(f"dropped {staged.shadow}, which an earlier attempt of this run had not published")
    if staged.duplicates:
        context.log.warning(f"left out {staged.duplicates:,} rows, because later rows have the same key")
    if staged.dropped:
        context.log.warning(f"left out {staged.dropped:,} rows outside {staged.partition_slice}")


def table_metadata(table: TableRef) -> dict[str, str]:
    """Return the metadata by which Dagster's UI knows a table, with the name of its database."""
    shown = {"dagster/table_name": table.full_name}
    if table.storage_kind:
        shown["dagster/storage_kind"] = table.storage_kind
    return shown


def columns_metadata(dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of a frame's columns, as Dagster's own I/O managers have it; empty without columns."""
    columns = [dg.TableColumn(name=name, type=kind) for name, kind in dtypes.items()]
    return {"dataframe_columns": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns))} if columns else {}


def changes_metadata(changes: RowCounts) -> dict[str, int]:
    """Return the counts of the rows that a write changed, which the UI plots."""
    return {
        "rows_staged": changes.staged,
        "rows_inserted": changes.inserted,
        "rows_updated": changes.updated,
        "rows_deleted": changes.deleted,
        "rows_unchanged": changes.unchanged,
    }
