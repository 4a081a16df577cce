"""Reading how far a backfill is, again and again: what can't change any more is asked for once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dagster_safe_backfill.cli.answers.answer import unreachable, usage_error
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.reading import key_of, run_of
from dagster_safe_backfill.cli.api.values import BACKFILL_TAG, Backfill, Materialization, Run
from dagster_safe_backfill.cli.following.reading.documents import MATERIALIZED_BY, RUNS, batches
from dagster_safe_backfill.cli.following.reading.failures import RunOutcome, outcome_of
from dagster_safe_backfill.cli.following.reading.judging import Known, judged
from dagster_safe_backfill.cli.following.reading.targets import OwnRun, Targets
from dagster_safe_backfill.cli.following.states import Progress, RunProgress

_PAGE = 1000
_ASKED_AT_ONCE = 20
"""How many running runs are asked how far they are."""


@dataclass(kw_only=True)
class Reader:
    """Reads how far a backfill or a run is.

    Attributes:
        dagster: The Dagster that knows it.
        subject: The backfill, or the run, as it was found.
    """

    dagster: Dagster
    subject: Backfill | Run
    _runs: dict[str, OwnRun] = field(default_factory=dict[str, OwnRun])
    _updated_at: float = 0.0
    _newest: dict[str, dict[str | None, Materialization]] = field(
        default_factory=dict[str, "dict[str | None, Materialization]"]
    )
    _materialized: dict[str, int] = field(default_factory=dict[str, int])
    _outcomes: dict[str, RunOutcome] = field(default_factory=dict[str, RunOutcome])

    def __post_init__(self) -> None:
        self._targets = Targets(dagster=self.dagster)

    def read(self) -> Progress:
        """Return how far it is now.

        Raises:
            CommandError: Dagster doesn't answer; or it is a run without partitions.
        """
        # The backfill before its runs: one that has ended starts no more.
        backfill = self.dagster.backfill(self.subject.id, runs=0) if isinstance(self.subject, Backfill) else None
        if backfill is not None:
            self._targets.read(backfill)
        self._read_runs()
        if backfill is None:
            self._read_run_alone()
        running = self._read_batches()
        for run_id, one in self._runs.items():
            if one.run.status in {"FAILURE", "CANCELED"} and run_id not in self._outcomes:
                self._outcomes[run_id] = outcome_of(self.dagster, run_id, assets=one.assets)
        self._read_newest()
        runs = sorted(self._runs.values(), key=lambda one: one.created_at, reverse=True)
        known = Known(
            backfill=backfill,
            runs=runs,
            targets=self._targets.partitions,
            newest=self._newest,
            outcomes=self._outcomes,
            is_of_job=self._targets.job is not None,
        )
        return Progress(
            id=self.subject.id,
            backfill=backfill,
            runs=[one.run for one in runs],
            assets=judged(known),
            batches=running,
            at=time.time(),
            warnings=self._targets.warnings,
        )

    def _read_runs(self) -> None:
        """Read the runs that are new or changed since the last time."""
        wanted: dict[str, Any] = {"runIds": [self.subject.id]}
        if isinstance(self.subject, Backfill):
            wanted = {"tags": [{"key": BACKFILL_TAG, "value": self.subject.id}]}
            # Two runs may change at once, and be read at different times.
            wanted |= {"updatedAfter": self._updated_at - 1} if self._updated_at else {}
        cursor, is_last = None, False
        while not is_last:
            page = self.dagster.ask(RUNS, filter=wanted, cursor=cursor, limit=_PAGE)["runsOrError"]
            if page["__typename"] != "Runs":
                raise unreachable("dagster_error", f"Dagster answered {page['__typename']}: {page['message']}")
            for one in page["results"]:
                self._keep(one)
            is_last = len(page["results"]) < _PAGE
            cursor = page["results"][-1]["runId"] if page["results"] else None
        self._targets.define([name for one in self._runs.values() for name in one.assets])
        for run_id, one in self._runs.items():
            if one.keys is None:
                self._runs[run_id] = one.of(self._targets.partitioned(one.assets))

    def _keep(self, answer: Mapping[str, Any]) -> None:
        run, job = run_of(answer), self._targets.job
        before = self._runs.get(run.id)
        selected = tuple(map(key_of, answer["assetSelection"] or ())) if job is None else (job,)
        assets = selected or (() if before is None else before.assets)
        keys = None if before is None else before.keys
        self._runs[run.id] = OwnRun(run=run, assets=assets, created_at=answer["creationTime"], keys=keys)
        self._updated_at = max(self._updated_at, answer["updateTime"] or 0.0)

    def _read_run_alone(self) -> None:
        """Read what a run covers that isn't looked at as part of a backfill."""
        run = self._runs[self.subject.id]
        if not run.assets or not run.keys:
            run = self._of_job(run)
            self._runs[run.run.id] = run
        self._targets.read_run(run)

    def _of_job(self, run: OwnRun) -> OwnRun:
        """Return the run of a job with the assets and partitions that it covers.

        Raises:
            CommandError: It has ended, and covers none.
        """
        answer = self.dagster.ask(MATERIALIZED_BY, id=run.run.id)["runOrError"]
        planned = tuple(key_of(one["key"]) for one in answer["assets"])
        self._targets.define(planned)
        named = run.with_assets(planned).of(self._targets.partitioned(planned))
        if named.keys:
            return named
        # A rollback doesn't say before which partitions it is about.
        events = [event for event in answer["assetMaterializations"] if event["partition"] is not None]
        if not events and not run.run.is_open:
            raise usage_error(
                "no_partitions",
                f"run {run.run.id} of {run.run.job} ({run.run.status}) covers no partitions of an asset",
                hint="look at it in Dagster's UI",
            )
        assets = tuple(dict.fromkeys(key_of(event["assetKey"]) for event in events))
        self._targets.define(assets)
        return run.with_assets(assets, frozenset(event["partition"] for event in events))

    def _read_batches(self) -> list[RunProgress]:
        """Read how far running runs are, and which of them have materialized more since."""
        running = [one for one in self._runs.values() if one.run.status == "STARTED"][:_ASKED_AT_ONCE]
        if not running:
            return []
        names = list(dict.fromkeys(name for one in running for name in one.assets if name in self._targets.assets))
        ids = {f"r{number}": one.run.id for number, one in enumerate(running)}
        paths = {f"k{number}": {"path": name.split("/")} for number, name in enumerate(names)}
        answer = self.dagster.ask(batches(len(ids), len(names)), **ids, **paths)
        for alias, run_id in ids.items():
            # A run that was deleted meanwhile has no stats.
            of: Mapping[str, Any] = answer[alias] or {}
            count: int = (of.get("stats") or {"materializations": 0})["materializations"]
            if count != self._materialized.get(run_id, 0):
                self._materialized[run_id] = count
                self._runs[run_id] = self._runs[run_id].with_news(has_news=True)
        found: dict[str, RunProgress] = {}
        for alias in paths:
            events: Sequence[Mapping[str, Any]] = (answer[alias] or {"assetObservations": ()})["assetObservations"]
            for event in events:
                if event["runId"] in ids.values() and event["runId"] not in found:
                    found |= _run_progress(event)
        return [*found.values()]

    def _read_newest(self) -> None:
        """Read the materializations of partitions that runs may have materialized since the last time."""
        news = [one for one in self._runs.values() if one.has_news]
        for name, keys in self._targets.partitions.items():
            asset = self._targets.assets.get(name)
            if asset is None:
                continue
            found = self._newest.setdefault(name, {})
            done = frozenset[str | None]().union(
                *(self._materialized_by(one, name) for one in news if name in one.assets)
            )
            wanted = [key for key in keys if key in done and (key not in found or found[key].run_id not in self._runs)]
            found.update(self.dagster.newest(asset, [key for key in wanted if key is not None]))
            if None in wanted:
                newest = self.dagster.newest_of_whole(asset)
                found |= {} if newest is None else {None: newest}
        for one in news:
            self._runs[one.run.id] = replace(one, has_news=False)

    def _materialized_by(self, one: OwnRun, asset: str) -> frozenset[str | None]:
        """Return the partitions of an asset that a run may have materialized."""
        if one.run.id in self._outcomes:
            return self._outcomes[one.run.id].of(asset).materialized
        has_some = one.run.status == "SUCCESS" or self._materialized.get(one.run.id, 0) > 0
        if not has_some:
            return frozenset()
        return frozenset((None,)) if self._targets.assets[asset].kind is None else frozenset(one.keys or ())


def _run_progress(event: Mapping[str, Any]) -> dict[str, RunProgress]:
    numbers = {one["label"]: int(one["intRepr"]) for one in event["metadataEntries"] if one.get("intRepr") is not None}
    if "partitions_done" not in numbers:
        return {}
    one = RunProgress(
        run_id=event["runId"],
        batch=numbers.get("batch", 0),
        batches=numbers.get("batches", 0),
        done=numbers["partitions_done"],
        rows=numbers.get("rows_staged", 0),
    )
    return {one.run_id: one}
