"""What waits to be published of an asset of the staged shape, as Dagster knows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_safe_backfill.cli.answers.answer import CommandError, refusal, usage_error
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import key_of
from dagster_safe_backfill.cli.api.values import AUDIT, BACKFILL_TAG, OPEN, SHADOW, Asset, Materialization, Run
from dagster_safe_backfill.cli.following.place import Place, command
from dagster_safe_backfill.cli.following.reading.documents import AUDIT_OF_STAGED
from dagster_safe_backfill.cli.following.reading.failures import CheckOutcome, check_of, metadata_of, outcome_of

_SEARCHED = 200
_ROOT_BACKFILL, _ROOT_RUN = "dagster/root_backfill_id", "dagster/root_run_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedAssets:
    """The three assets of the staged shape."""

    live: Asset
    shadow: Asset
    audit: Asset


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What the newest audit of all that was staged together says.

    Attributes:
        run_id: Its run.
        scope: The group whose audit it is: the backfill, or the run, to which its run belongs.
        audited: How many partitions it audited.
        at: When it ended, in seconds since the epoch.
        left_out: The partitions that were staged then, and that it left out.
        checks: The result of each audit.
        rows: A row for each partition, as far as the report has room: verdict, shadow rows, live rows, difference.
    """

    run_id: str
    scope: str | None
    audited: int
    at: float
    left_out: Sequence[str]
    checks: Sequence[CheckOutcome]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits to be published.

    Attributes:
        keys: The partitions that were audited together and are not published, in the asset's order.
        others: Those that are staged besides, and not audited.
        staged_by: The backfills or runs that staged `keys`.
        report: What the audit says; None if nothing waits.
    """

    assets: StagedAssets
    keys: Sequence[str]
    others: Sequence[str]
    staged_by: Sequence[str]
    report: AuditReport | None


def staged_assets(dagster: Dagster, name: str) -> StagedAssets:
    """Return the assets of the staged shape; `x__shadow` and `x__audit` stand for `x`.

    Raises:
        CommandError: There is no such asset, or it isn't of the staged shape.
    """
    for ending in (SHADOW, AUDIT):
        name = name.removesuffix(ending)
    (live,) = dagster.assets([name])
    if not live.staging:
        raise usage_error(
            "not_staged",
            f"{name} isn't of the staged shape, so nothing of it waits: its runs publish what passes their audits",
            hint="build_staged_wap_assets makes assets that wait for a yes",
        )
    shadow, audit = dagster.assets(live.staging)
    return StagedAssets(live=live, shadow=shadow, audit=audit)


def what_waits(place: Place, assets: StagedAssets) -> Waiting:
    """Return what waits to be published, and the report on it.

    Raises:
        CommandError: It may not be published: it isn't audited, its audit failed, or it was staged again since; or
            another backfill publishes the asset now.
    """
    dagster = place.dagster
    staged = _staged(dagster, assets)
    if not staged:
        return Waiting(assets=assets, keys=(), others=(), staged_by=(), report=None)
    _check_not_publishing(place, assets.live.key)
    report = _report(place, assets)
    groups = _groups(dagster, {one.run_id for one in staged.values()})
    covered = covered_by(dagster, assets, report)
    if covered is None:
        covered = frozenset(key for key, one in staged.items() if groups.get(one.run_id) == report.scope)
    keys = [key for key in staged if key in covered]
    if not keys:
        raise _not_audited(place, assets, [*staged])
    newer = [key for key in keys if staged[key].at > report.at]
    if newer:
        raise refusal(
            "audit_outdated",
            f"{len(newer):,} partitions of {assets.live.key} were staged after the newest audit, so they can't be"
            " published on its word",
            hint=_hint_to_audit(place, assets),
            partitions=newer,
        )
    return Waiting(
        assets=assets,
        keys=keys,
        others=[key for key in staged if key not in {*keys}],
        staged_by=sorted({groups.get(staged[key].run_id, staged[key].run_id) for key in keys}),
        report=report,
    )


def _staged(dagster: Dagster, assets: StagedAssets) -> dict[str, Materialization]:
    """Return the newest staging of each partition that wasn't published since, in the asset's order."""
    green = dagster.statuses(assets.shadow).materialized
    keys = [key for key in assets.shadow.keys if key in green]
    staged, live = dagster.newest(assets.shadow, keys), dagster.newest(assets.live, keys)
    return {key: staged[key] for key in keys if key in staged and (key not in live or live[key].at < staged[key].at)}


def covered_by(dagster: Dagster, assets: StagedAssets, report: AuditReport) -> frozenset[str] | None:
    """Return the partitions that an audit covered; None if they are those that its own group staged.

    Raises:
        CommandError: Dagster can't be asked which.
    """
    reported = frozenset(row["partition"] for row in report.rows)
    # The report has room for some hundred partitions.
    if len(reported) == report.audited:
        return reported
    try:
        is_of_own = report.scope is not None and assets.shadow.key in dagster.backfill(report.scope, runs=0).assets
    except CommandError as error:
        # Only a group that is a run is no backfill. Whatever else went wrong must not make it all that is staged.
        if error.problem.code != "unknown_backfill":
            raise
        is_of_own = False
    # An audit whose own group had staged nothing took all that waited.
    return None if is_of_own else frozenset(assets.live.keys) - {*report.left_out}


def _groups(dagster: Dagster, run_ids: Iterable[str]) -> dict[str, str]:
    """Return a mapping from run to its group: its backfill or, without one, the run; of a re-execution the first."""
    return {run.id: _group(run) for run in dagster.runs_by_id(sorted(run_ids))}


def _group(run: Run) -> str:
    own = (run.tags.get(name) for name in (_ROOT_BACKFILL, BACKFILL_TAG, _ROOT_RUN))
    return next(filter(None, own), run.id)


def _check_not_publishing(place: Place, name: str) -> None:
    backfills = place.dagster.backfills(limit=_SEARCHED, statuses=sorted(OPEN))
    found = next((one for one in backfills if name in one.assets), None)
    if found is not None:
        raise refusal(
            "already_publishing",
            f"backfill {found.id} publishes {name} ({found.status})",
            hint=f"watch it: {command(place, 'watch', found.id)}",
        )


def _report(place: Place, assets: StagedAssets) -> AuditReport:
    answer = place.dagster.ask(AUDIT_OF_STAGED, audit={"path": assets.audit.path}, live={"path": assets.live.path})
    infos = {key_of(one["assetKey"]): one for one in answer["assetsLatestInfo"]}
    _check_not_running(
        place, infos.get(assets.live.key), "already_publishing", f"a run publishes {assets.live.key} now"
    )
    _check_not_running(place, infos.get(assets.audit.key), "audit_running", f"{assets.audit.key} runs now")
    node = answer["assetNodeOrError"]
    newest = next(iter(node["assetMaterializations"]), None)
    last = infos.get(assets.audit.key, {}).get("latestRun")
    if last is not None and last["status"] == "FAILURE" and (newest is None or newest["runId"] != last["runId"]):
        raise _audit_failed(place.dagster, assets, last["runId"])
    if newest is None:
        raise _not_audited(place, assets, ())
    metadata = metadata_of(newest["metadataEntries"])
    return AuditReport(
        run_id=newest["runId"],
        scope=metadata.get("scope"),
        audited=metadata.get("partitions", 0),
        at=float(newest["timestamp"]) / 1000,
        left_out=metadata.get("left_out", ()),
        checks=[*_checks(node, newest["runId"])],
        rows=metadata.get("report", ()),
    )


def _checks(node: Mapping[str, Any], run_id: str) -> Iterable[CheckOutcome]:
    for check in node["assetChecksOrError"].get("checks", ()):
        execution = check["executionForLatestMaterialization"]
        if execution is not None and execution["runId"] == run_id and execution["evaluation"] is not None:
            yield check_of({**execution["evaluation"], "checkName": check["name"]})


def _check_not_running(place: Place, info: Mapping[str, Any] | None, code: str, message: str) -> None:
    running = [] if info is None else [*info["inProgressRunIds"], *info["unstartedRunIds"]]
    if running:
        hint = f"wait for it: {command(place, 'watch', running[0])}"
        raise refusal(code, f"{message} (run {running[0]})", hint=hint)


def _audit_failed(dagster: Dagster, assets: StagedAssets, run_id: str) -> CommandError:
    outcome = outcome_of(dagster, run_id, assets=[assets.audit.key]).of(assets.audit.key)
    keys = {key for one in outcome.checks if one.blocks and not one.passed for key in one.keys}
    return refusal(
        "audit_failed",
        f"the newest audit of {assets.live.key} failed (run {run_id[:8]}): {outcome.message}",
        hint=f"mend the data or the code, backfill {assets.shadow.key} again, and audit it again",
        partitions=[key for key in assets.live.keys if key in keys],
    )


def _not_audited(place: Place, assets: StagedAssets, keys: Sequence[str]) -> CommandError:
    return refusal(
        "not_audited",
        f"what is staged of {assets.live.key} and not published was never audited together",
        hint=_hint_to_audit(place, assets),
        partitions=keys,
    )


def _hint_to_audit(place: Place, assets: StagedAssets) -> str:
    # The audit has no partitions: it takes what is staged, so there is nothing to select.
    return f"audit what is staged, then approve it: {command(place, 'launch', assets.audit.key)}"
