"""Dagster as the command asks it: assets, partitions, backfills, runs and daemons, over any transport.

The queries were run on Dagster 1.13.27; the tests run them against a webserver, and inside the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from dagster_safe_backfill.cli.answers.answer import CommandError, Exit, unreachable, usage_error
from dagster_safe_backfill.cli.api import documents
from dagster_safe_backfill.cli.api.reading import (
    asset_of,
    backfill_of,
    key_of,
    keys_of,
    materialization_of,
    run_of,
    statuses_of,
)
from dagster_safe_backfill.cli.api.transport import Transport
from dagster_safe_backfill.cli.api.values import RUNS_OPEN, Asset, Backfill, DaemonState, Materialization, Run, Statuses

_PAGE = 1000
"""How many partitions' events are asked for at once."""
_RUNS_PAGE = 200
"""The same of runs."""


class Dagster:
    """A Dagster deployment.

    Args:
        transport: The way to it.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self.transport.place

    def version(self) -> str:
        """Return Dagster's version."""
        return self._ask(documents.VERSION)["version"]

    def asset_keys(self) -> list[str]:
        """Return the keys of all assets that have a definition, sorted."""
        return sorted(key_of(node["assetKey"]) for node in self._ask(documents.ASSET_KEYS)["assetNodes"])

    def assets(self, names: Sequence[str]) -> list[Asset]:
        """Return assets by their keys.

        Raises:
            CommandError: There is no asset with such a key; the message names close ones.
        """
        keys = [{"path": name.split("/")} for name in names]
        nodes = {key_of(node["assetKey"]): node for node in self._ask(documents.ASSETS, keys=keys)["assetNodes"]}
        missing = [name for name in names if name not in nodes]
        if missing:
            raise self._unknown(missing[0])
        return [asset_of(nodes[name]) for name in names]

    def assets_if_known(self, names: Sequence[str]) -> list[Asset]:
        """Return those of some assets that have a definition."""
        keys = [{"path": name.split("/")} for name in names]
        return [*map(asset_of, self._ask(documents.ASSETS, keys=keys)["assetNodes"])] if keys else []

    def assets_of_job(self, job: str) -> list[str]:
        """Return the keys of the assets that a job materializes."""
        nodes = self._ask(documents.JOBS_OF_ASSETS)["assetNodes"]
        return [key_of(node["assetKey"]) for node in nodes if job in node["jobNames"]]

    def schedules_of_job(self, asset: Asset, job: str) -> dict[str, bool]:
        """Return a mapping from each schedule of a job in an asset's code location to whether it is on."""
        place = {"repositoryLocationName": asset.location, "repositoryName": asset.repository}
        told = _answered(self._ask(documents.SCHEDULES, repository=place)["schedulesOrError"])
        found = [one for one in told["results"] if one["pipelineName"] == job]
        return {one["name"]: one["scheduleState"]["status"] == "RUNNING" for one in found}

    def dynamic_keys(self, name: str) -> dict[str, list[str]]:
        """Return a mapping from each dimension of an asset whose partitions are dynamic to its keys, in order.

        The only dimension of an asset without dimensions is named `default`.
        """
        found: dict[str, list[str]] = {}
        for node in self._ask(documents.DIMENSIONS, keys=[{"path": name.split("/")}])["assetNodes"]:
            for one in node["partitionKeysByDimension"]:
                if one["type"] == "DYNAMIC":
                    found[one["name"]] = one["partitionKeys"]
        return found

    def _unknown(self, name: str) -> CommandError:
        known = self.asset_keys()
        near = get_close_matches(name, known, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known[:10]) or 'none'}"
        return usage_error("unknown_asset", f"{self.place} has no asset {name}", hint=hint)

    def statuses(self, asset: Asset) -> Statuses:
        """Return the statuses of an asset's partitions."""
        node = self._ask(documents.STATUSES, key={"path": asset.path})["assetNodeOrError"]
        return statuses_of(asset, node["assetPartitionStatuses"])

    def newest(self, asset: Asset, keys: Sequence[str]) -> dict[str, Materialization]:
        """Return a mapping from partition key to the partition's newest materialization, if it has one."""
        found: dict[str, Materialization] = {}
        for start in range(0, len(keys), _PAGE):
            page = [*keys[start : start + _PAGE]]
            node = self._ask(documents.NEWEST, key={"path": asset.path}, partitions=page)["assetNodeOrError"]
            for event in filter(None, node["latestMaterializationByPartition"]):
                one = materialization_of(event)
                if one.partition is not None:
                    found[one.partition] = one
        return found

    def newest_of_whole(self, asset: Asset) -> Materialization | None:
        """Return the newest materialization of an asset, of whatever partition."""
        node = self._ask(documents.NEWEST_OF_ASSET, key={"path": asset.path})["assetNodeOrError"]
        events = node["assetMaterializations"]
        return materialization_of(events[0]) if events else None

    def backfill(self, backfill_id: str, *, runs: int = 1000) -> Backfill:
        """Return a backfill and its newest runs.

        Raises:
            CommandError: There is no such backfill.
        """
        told = self._ask(documents.BACKFILL, id=backfill_id, runs=runs)["partitionBackfillOrError"]
        if told["__typename"] == "BackfillNotFoundError":
            raise usage_error(
                "unknown_backfill",
                f"{self.place} knows no backfill {backfill_id}",
                hint="`safe-backfill list` names those that it knows",
            )
        return backfill_of(_answered(told))

    def backfills(self, *, limit: int, statuses: Sequence[str] = ()) -> list[Backfill]:
        """Return the newest backfills, without their runs."""
        filters = {"statuses": [*statuses]} if statuses else None
        told = self._ask(documents.BACKFILLS, limit=limit, filters=filters)["partitionBackfillsOrError"]
        return [backfill_of(one) for one in _answered(told)["results"]]

    def targeted(self, backfill_id: str, asset: Asset) -> list[str]:
        """Return the partitions of an asset that a backfill of assets covers, in the asset's order."""
        told = self._ask(documents.TARGETED, id=backfill_id, key={"path": asset.path})["partitionBackfillOrError"]
        found = told.get("partitionsTargetedForAssetKey")
        if found is None:
            return []
        if found["partitionKeys"] is not None:
            named = {*found["partitionKeys"]}
            return [key for key in asset.keys if key in named]
        return keys_of([(one["start"], one["end"]) for one in found["ranges"] or ()], asset.keys)

    def launch_backfill(
        self,
        asset_keys: Sequence[str],
        ranges: Mapping[str, Sequence[tuple[str, str]]],
        *,
        tags: Mapping[str, str],
        title: str | None = None,
        description: str | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> str:
        """Launch a backfill of assets, and return its id.

        Args:
            asset_keys: The assets.
            ranges: A mapping from each partitioned asset's key to ranges of its keys, each from the first to the last.
            tags: The tags of the backfill and of its runs.
            title: The title that the UI shows.
            description: The same of the description.
            run_config: The run configuration of its runs.
        """
        selectors: list[dict[str, Any]] = []
        for name in asset_keys:
            selector: dict[str, Any] = {"assetKey": {"path": name.split("/")}}
            if name in ranges:
                selector["partitions"] = {"ranges": [{"start": first, "end": last} for first, last in ranges[name]]}
            selectors.append(selector)
        params: dict[str, Any] = {
            "partitionsByAssets": selectors,
            "tags": _tags(tags),
            "title": title,
            "description": description,
        }
        if run_config is not None:
            params["runConfigData"] = json.dumps(run_config)
        told = self._change(documents.LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        return _answered(told)["backfillId"]

    def cancel_backfill(self, backfill_id: str) -> None:
        """Cancel a backfill: it launches no further runs, and its queued ones are cancelled by the daemon."""
        _answered(self._change(documents.CANCEL_BACKFILL, id=backfill_id)["cancelPartitionBackfill"])

    def reexecute_backfill(self, backfill_id: str) -> str:
        """Launch a backfill of what an ended one left undone, and return its id."""
        params = {"parentRunId": backfill_id, "strategy": "FROM_FAILURE"}
        return _answered(self._change(documents.REEXECUTE_BACKFILL, params=params)["reexecutePartitionBackfill"])[
            "backfillId"
        ]

    def terminate_runs(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Ask runs to end; return those that Dagster couldn't end, each with what it said."""
        if not run_ids:
            return {}
        told = _answered(self._change(documents.TERMINATE_RUNS, ids=[*run_ids])["terminateRuns"])
        # The results come in the order of the ids.
        results = zip(run_ids, told["terminateRunResults"], strict=True)
        return {run_id: one["message"] for run_id, one in results if not _is_ending(one)}

    def run(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            CommandError: There is no such run.
        """
        told = self._ask(documents.RUN, id=run_id)["runOrError"]
        if told["__typename"] == "RunNotFoundError":
            raise usage_error("unknown_run", f"{self.place} knows no run {run_id}")
        return run_of(_answered(told))

    def runs(self, *, limit: int, tags: Mapping[str, str] | None = None, job: str | None = None) -> list[Run]:
        """Return the newest runs with all of some tags, or of a job."""
        wanted: dict[str, Any] = {}
        if tags:
            wanted["tags"] = _tags(tags)
        if job is not None:
            wanted["pipelineName"] = job
        told = _answered(self._ask(documents.RUNS, filter=wanted, limit=limit)["runsOrError"])
        return [run_of(one) for one in told["results"]]

    def runs_by_id(self, run_ids: Sequence[str]) -> list[Run]:
        """Return those of some runs that Dagster knows."""
        found: list[Run] = []
        for start in range(0, len(run_ids), _RUNS_PAGE):
            page = [*run_ids[start : start + _RUNS_PAGE]]
            told = _answered(self._ask(documents.RUNS, filter={"runIds": page}, limit=len(page))["runsOrError"])
            found += map(run_of, told["results"])
        return found

    def set_pool_limit(self, pool: str, limit: int) -> None:
        """Set how many steps of a pool run at a time."""
        self._change(documents.SET_POOL_LIMIT, pool=pool, limit=limit)

    def edges(self) -> dict[str, list[str]]:
        """Return a mapping from each asset's key to the keys of the assets that read it."""
        nodes = self._ask(documents.EDGES)["assetNodes"]
        return {key_of(node["assetKey"]): [key_of(one) for one in node["dependedByKeys"]] for node in nodes}

    def launch_job(self, asset: Asset, job: str, *, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Launch a run of a job in an asset's code location, and return the run's id."""
        params = {
            "selector": {
                "repositoryLocationName": asset.location,
                "repositoryName": asset.repository,
                "jobName": job,
            },
            "runConfigData": json.dumps(run_config),
            "executionMetadata": {"tags": _tags(tags)},
        }
        return _answered(self._change(documents.LAUNCH_RUN, params=params)["launchRun"])["run"]["runId"]

    def daemon(self, name: str) -> DaemonState | None:
        """Return the state of one of Dagster's daemons, such as `BACKFILL`; None if Dagster doesn't know it."""
        return next((one for one in self.daemons() if one.name == name), None)

    def has_daemon(self, name: str) -> bool:
        """Return True if one of Dagster's daemons, such as `BACKFILL`, gives signs of life."""
        daemon = self.daemon(name)
        return daemon is not None and daemon.is_healthy

    def daemons(self) -> list[DaemonState]:
        """Return the states of Dagster's daemons."""
        found: list[DaemonState] = []
        for one in self._ask(documents.DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]:
            found.append(
                DaemonState(
                    name=one["daemonType"],
                    is_required=one["required"],
                    is_healthy=bool(one["healthy"]),
                    heartbeat_at=one["lastHeartbeatTime"],
                )
            )
        return found

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a query that only one verb needs."""
        return self._ask(document, **variables)

    def _ask(self, document: str, **variables: Any) -> dict[str, Any]:
        return self.transport.query(document, variables)

    def _change(self, document: str, **variables: Any) -> dict[str, Any]:
        try:
            return self.transport.change(document, variables)
        except CommandError as error:
            if error.problem.code != "unreachable":
                raise
            raise unreachable(
                "unreachable",
                f"{error}, so it isn't known whether it was done",
                hint="look at `safe-backfill list` before you do it again",
            ) from error


def _answered(told: dict[str, Any]) -> dict[str, Any]:
    """Return a GraphQL object unless it is one of Dagster's errors.

    Raises:
        CommandError: It is.
    """
    kind = told["__typename"]
    if kind == "UnauthorizedError":
        raise CommandError("unauthorized", f"Dagster: {told['message']}", exit_code=Exit.UNREACHABLE)
    if "message" in told:
        said = str(told["message"]).strip().splitlines() or [kind]
        raise unreachable("dagster_error", f"Dagster answered {kind}: {said[0]}")
    return told


def _is_ending(result: dict[str, Any]) -> bool:
    """Return True if a run was ended, or had ended, or was asked to end, before Dagster got to it."""
    if result["__typename"] != "TerminateRunFailure":
        return result["__typename"] == "TerminateRunSuccess"
    status = result["run"]["status"]
    return status == "CANCELING" or status not in RUNS_OPEN


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
