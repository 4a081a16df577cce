"""Why a run failed: read from its log, once it has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dagster_safe_backfill.cli.answers.answer import unreachable
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import key_of
from dagster_safe_backfill.cli.following.reading.documents import LOG
from dagster_safe_backfill.cli.following.states import FailedAudit, RunFailure

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """The evaluation of one check.

    Attributes:
        keys: The partitions that didn't pass; empty if it didn't say.
        failed_rows: How many rows failed, by partition; of the first hundred partitions.
        total: How many rows failed in all of them.
        audited: How many partitions it measured.
    """

    name: str
    passed: bool
    blocks: bool
    message: str | None = None
    keys: frozenset[str] = frozenset()
    failed_rows: Mapping[str, int] = field(default_factory=dict[str, int])
    total: int | None = None
    audited: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetOutcome:
    """What came of one asset in a run that failed.

    Attributes:
        message: The error of its step; None if its step didn't fail.
        report: A mapping from partition to its row of the audits' report, which has room for some hundred partitions.
        materialized: The partitions that were materialized all the same.
    """

    run_id: str
    message: str | None = None
    shadows: Sequence[str] = ()
    report: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    checks: Sequence[CheckOutcome] = ()
    materialized: frozenset[str | None] = frozenset()

    @property
    def is_rejection(self) -> bool:
        """True if audits blocked partitions."""
        return any(one.blocks and not one.passed for one in self.checks)

    @property
    def audited(self) -> int:
        """How many partitions were audited."""
        return max((one.audited for one in self.checks), default=0)

    def is_blocked(self, key: str) -> bool:
        """Return True if audits blocked a partition."""
        verdict = self.report.get(key, {}).get("verdict")
        blocking = [one for one in self.checks if one.blocks and not one.passed]
        if verdict is None:
            return any(key in one.keys or not one.keys for one in blocking)
        # The report leaves out audits over the whole run, which block all of its partitions.
        return verdict == "blocked" or any(len(one.keys) in {0, one.audited} for one in blocking)

    def was_audited(self, key: str, *, of: int) -> bool:
        """Return True if a partition was audited, by a run of that many partitions."""
        return key in self.report or self.audited >= of

    def audits_of(self, key: str) -> list[FailedAudit]:
        """Return the audits that a partition didn't pass; those that block first."""
        found: list[FailedAudit] = []
        for one in self.checks:
            if not one.passed and (key in one.keys or not one.keys):
                rows = one.failed_rows.get(key)
                message = self._compared(key) if rows is None else None
                found.append(FailedAudit(name=one.name, failed_rows=rows, blocks=one.blocks, message=message))
        return sorted(found, key=lambda one: not one.blocks)

    def _compared(self, key: str) -> str | None:
        """Return how many rows a partition has, and how many are live, for audits that don't count rows."""
        row = self.report.get(key, {})
        return f"{row['shadow rows']:,} rows, {row['live rows']:,} live" if "live rows" in row else None

    def failure(self, asset: str) -> RunFailure:
        """Return why the run failed for this asset."""
        return RunFailure(
            run_id=self.run_id,
            asset=asset,
            message=self.message or "an earlier step of the run failed",
            shadows=self.shadows,
            audits=failed_audits(self.checks),
            is_rejection=self.is_rejection,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a failed run said.

    Attributes:
        assets: A mapping from asset to what came of it.
        message: The error of the run as a whole.
    """

    run_id: str
    assets: Mapping[str, AssetOutcome]
    message: str

    def of(self, asset: str) -> AssetOutcome:
        """Return what came of an asset."""
        found = self.assets.get(asset) or AssetOutcome(run_id=self.run_id)
        # Without a step that failed, what ended the run ended all of it.
        is_of_all = not any(one.message for one in self.assets.values())
        return replace(found, message=self.message) if is_of_all else found

    def of_any(self) -> AssetOutcome:
        """Return what came of the asset that was rejected; else only why the run failed."""
        rejected = (one for one in self.assets.values() if one.is_rejection)
        return next(rejected, AssetOutcome(run_id=self.run_id, message=self.message))


def failed_audits(checks: Sequence[CheckOutcome]) -> list[FailedAudit]:
    """Return the checks that didn't pass, over all partitions of a run; those that block first."""
    found = [one for one in checks if not one.passed]
    return [
        FailedAudit(name=one.name, failed_rows=one.total, blocks=one.blocks, message=one.message)
        for one in sorted(found, key=lambda one: not one.blocks)
    ]


def outcome_of(dagster: Dagster, run_id: str, *, assets: Sequence[str]) -> RunOutcome:
    """Read the log of a run that failed; `assets` are those that it was to materialize."""
    by_step = {asset.replace("/", "__"): asset for asset in assets}
    checks: dict[str, dict[str, CheckOutcome]] = {}
    materialized: dict[str, set[str | None]] = {}
    steps: dict[str | None, Mapping[str, Any]] = {}
    message = "the run failed"
    for event in _events(dagster, run_id):
        match event["__typename"]:
            case "AssetCheckEvaluationEvent":
                evaluation = event["evaluation"]
                outcome = check_of(evaluation)
                # A run of several partitions has an evaluation for each, too, which doesn't say how many there are.
                if outcome.audited:
                    checks.setdefault(key_of(evaluation["assetKey"]), {})[outcome.name] = outcome
            case "MaterializationEvent" if event["assetKey"] is not None:
                materialized.setdefault(key_of(event["assetKey"]), set()).add(event["partition"])
            case "ExecutionStepFailureEvent":
                steps[by_step.get(event["stepKey"], event["stepKey"])] = event
            case "RunFailureEvent" | "RunCanceledEvent":
                message = _message(event)
            case _:
                pass
    if len(steps) == 1:
        message = _message(next(iter(steps.values())))
    found = {
        asset: _asset_outcome(run_id, steps.get(asset), [*checks.get(asset, {}).values()], materialized.get(asset, ()))
        for asset in {*checks, *materialized, *steps}
        if asset is not None
    }
    return RunOutcome(run_id=run_id, assets=found, message=message)


def check_of(evaluation: Mapping[str, Any]) -> CheckOutcome:
    """Return the outcome of a check's evaluation."""
    metadata = metadata_of(evaluation["metadataEntries"])
    key, total = evaluation.get("partition"), metadata.get("failed_rows")
    rows = {
        one["partition"]: one["failed_rows"]
        for one in metadata.get("failed_partitions_measured", ())
        if one.get("failed_rows") is not None
    }
    keys: list[str] = metadata.get("failed_partition_keys", [key] if key is not None else [])
    if total is not None and len(keys) == 1:
        rows = {keys[0]: total}
    return CheckOutcome(
        name=evaluation.get("checkName", ""),
        passed=evaluation["success"],
        blocks=evaluation["severity"] == "ERROR",
        message=evaluation["description"],
        keys=frozenset() if evaluation["success"] else frozenset(keys),
        failed_rows=rows,
        total=total,
        audited=metadata.get("partitions", 0),
    )


def metadata_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return metadata as values; tables as lists of rows, JSON as what it says."""
    found: dict[str, Any] = {}
    for entry in entries:
        label = entry["label"]
        match entry["__typename"]:
            case "TableMetadataEntry":
                found[label] = [json.loads(record) for record in entry["table"]["records"]]
            case "JsonMetadataEntry":
                found[label] = json.loads(entry["jsonString"])
            case "IntMetadataEntry":
                found[label] = int(entry["intRepr"])
            case "FloatMetadataEntry":
                found[label] = entry["floatValue"]
            case "TextMetadataEntry":
                found[label] = entry["text"]
            case _:
                pass
    return found


def _asset_outcome(
    run_id: str, step: Mapping[str, Any] | None, checks: Sequence[CheckOutcome], materialized: Any
) -> AssetOutcome:
    failure: Mapping[str, Any] = {} if step is None else step["failureMetadata"] or {}
    metadata = metadata_of(failure.get("metadataEntries", ()))
    shadow = metadata.get("shadow")
    return AssetOutcome(
        run_id=run_id,
        message=None if step is None else _message(step),
        shadows=tuple(shadow.split(", ")) if shadow else (),
        report={row["partition"]: row for row in metadata.get("report", ())},
        checks=tuple(checks),
        materialized=frozenset(materialized),
    )


def _message(event: Mapping[str, Any]) -> str:
    failure: Mapping[str, Any] = event.get("failureMetadata") or {}
    if failure.get("description"):
        return str(failure["description"])
    error = event.get("error")
    if error is None:
        return str(event.get("message") or "the run failed").strip()
    # The cause is what the user's own code raised.
    causes = error.get("causes") or [error]
    return str(causes[-1]["message"]).strip()


def _events(dagster: Dagster, run_id: str) -> Iterator[Mapping[str, Any]]:
    cursor, has_more = None, True
    while has_more:
        page = dagster.ask(LOG, id=run_id, cursor=cursor, limit=_PAGE)["logsForRun"]
        if page["__typename"] != "EventConnection":
            raise unreachable("dagster_error", f"the log of run {run_id} can't be read: {page['message']}")
        yield from page["events"]
        cursor, has_more = page["cursor"], page["hasMore"]
