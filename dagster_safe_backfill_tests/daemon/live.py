"""A Dagster without a webserver, whose backfills are launched as the UI launches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.cli import execute_query
from dagster_graphql.client.query import LAUNCH_PARTITION_BACKFILL_MUTATION, LAUNCH_PIPELINE_EXECUTION_MUTATION

from dagster_safe_backfill_tests.daemon.code_servers import ROOT, code_servers

# The daemon as it is, but for the half minute that it sleeps between two looks at the backfills.
_DAEMON = """
import dagster._daemon.controller as controller
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
from dagster._daemon.cli import cli
cli()
"""
_REEXECUTE = """
mutation($parameters: ReexecutionParams!) {
  reexecutePartitionBackfill(reexecutionParams: $parameters) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
DAGSTER_YAML = """
telemetry: {enabled: false}
# What a run prints would be copied by four processes.
compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1, max_concurrent_runs: 3}
"""


class LiveDagster:
    """One instance with a running daemon."""

    def __init__(self, instance: dg.DagsterInstance, context: WorkspaceProcessContext) -> None:
        self.instance = instance
        self._context = context

    def backfill(self, assets: Sequence[str], keys: Sequence[str], *, timeout: float = 400) -> PartitionBackfill:
        """Launch a backfill as the UI's dialog does, and wait until it has ended."""
        return self.ended(self.launch(assets, keys), timeout=timeout)

    def launch(self, assets: Sequence[str], keys: Sequence[str], *, tags: Mapping[str, str] | None = None) -> str:
        """Launch a backfill as the UI's dialog does, and return its id."""
        parameters = {
            "assetSelection": [{"path": [asset]} for asset in assets],
            "partitionNames": list(keys),
            "tags": [{"key": key, "value": value} for key, value in (tags or {}).items()],
        }
        answer = execute_query(self._context, LAUNCH_PARTITION_BACKFILL_MUTATION, {"backfillParams": parameters})
        launched = answer["data"]["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def reexecute_from_failure(self, backfill_id: str) -> str:
        """Launch what a backfill has not made, as the UI's button does, and return the new backfill's id."""
        parameters = {"parentRunId": backfill_id, "strategy": "FROM_FAILURE"}
        answer = execute_query(self._context, _REEXECUTE, {"parameters": parameters})
        launched = answer["data"]["reexecutePartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def launch_job(
        self,
        job: str,
        *,
        assets: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> str:
        """Launch one run of a job, or of some of its assets, as the UI's button does, and return its id."""
        context = self._context.create_request_context()
        (location,) = context.code_locations
        (repository,) = location.get_repositories().values()
        selector: dict[str, object] = {
            "repositoryLocationName": location.name,
            "repositoryName": repository.name,
            "pipelineName": job,
        }
        if assets:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]
        parameters = {
            "selector": selector,
            "mode": "default",
            "runConfigData": config or {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]},
        }
        answer = execute_query(self._context, LAUNCH_PIPELINE_EXECUTION_MUTATION, {"executionParams": parameters})
        launched = answer["data"]["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def ended_run(self, run_id: str, *, timeout: float = 90) -> dg.DagsterRun:
        """Wait until a run has ended, and return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            run = self.instance.get_run_by_id(run_id)
            assert run is not None
            if run.is_finished:
                return run
            time.sleep(0.2)
        raise TimeoutError(f"the run {run_id} has not ended in {timeout} s")

    def ended(self, backfill_id: str, *, timeout: float = 400) -> PartitionBackfill:
        """Wait until a backfill has ended, and return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            backfill = self.instance.get_backfill(backfill_id)
            assert backfill is not None
            if backfill.status in BULK_ACTION_TERMINAL_STATUSES:
                return backfill
            time.sleep(0.2)
        raise TimeoutError(f"the backfill {backfill_id} has not ended in {timeout} s")

    def runs_of(self, backfill: PartitionBackfill) -> list[dg.DagsterRun]:
        """Return a backfill's runs."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id})))

    def wait_for_runs(self, count: int, *, timeout: float = 240) -> list[dg.DagsterRun]:
        """Wait until so many runs have ended, and return all of the instance's."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            runs = list(self.instance.get_runs())
            if len(runs) >= count and all(run.is_finished for run in runs):
                return runs
            time.sleep(0.5)
        raise TimeoutError(f"{count} runs have not ended in {timeout} s")

    def green(self, asset: str) -> set[str]:
        """Return the partitions that Dagster counts as materialized."""
        return set(self.instance.get_materialized_partitions(dg.AssetKey(asset)))


@contextmanager
def live_dagster(
    home: Path, workspace: Path, environment: Mapping[str, str], *, dagster_yaml: str = DAGSTER_YAML
) -> Iterator[LiveDagster]:
    """Run a daemon on a workspace, in a process group that ends with the block."""
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(dagster_yaml)
    settings = {**environment, "DAGSTER_HOME": str(home)}
    os.environ.update(settings)
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            _make_databases(instance)
            with (
                code_servers(workspace) as served,
                WorkspaceProcessContext(instance, WorkspaceFileTarget([str(served)])) as context,
                _daemon(home, served),
            ):
                yield LiveDagster(instance, context)
    finally:
        for name in settings:
            os.environ.pop(name, None)


def _make_databases(instance: dg.DagsterInstance) -> None:
    # SQLite's tables are made at the first use, by each process that finds none: so before there is a second one.
    assert instance.get_runs_count() == 0
    assert instance.event_log_storage.get_maximum_record_id() in (None, 0)
    assert instance.schedule_storage is not None
    assert not instance.schedule_storage.all_instigator_state()


@contextmanager
def _daemon(home: Path, workspace: Path) -> Iterator[None]:
    with (home / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _DAEMON, "run", "-w", str(workspace)],
            cwd=ROOT,
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
