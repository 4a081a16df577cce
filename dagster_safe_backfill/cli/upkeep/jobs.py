"""The library's jobs of a project: finding them, running them, and waiting for their runs to end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_safe_backfill.cli.answers.answer import Exit, Problem
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import UNKNOWN_RUN_DAYS
from dagster_safe_backfill.runs.declared import KEPT_UNKNOWN_DAYS, RETENTION_OF, ROLLBACK_OF, SHADOW_DAYS

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 2.0
_QUEUED_FOR = 5.0
"""Seconds in the queue after which it is said that no daemon runs, if so."""
_QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"

_FAILURES = """
query ($id: ID!) {
  logsForRun(runId: $id) {
    __typename
    ... on EventConnection {
      events {
        __typename
        ... on ExecutionStepFailureEvent { error { message cause { message } } }
        ... on RunFailureEvent { message error { message } }
        ... on RunCanceledEvent { message }
      }
    }
  }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A run of a job.

    Attributes:
        run_id: The run.
        status: Its status in Dagster.
        error: What it failed with; None if it didn't.
        is_queued_for_good: True if it is queued, and no daemon takes it up.
    """

    run_id: str
    status: str
    error: str | None = None
    is_queued_for_good: bool = False

    @property
    def exit_code(self) -> Exit:
        """The exit code of a verb that ran it, and waited."""
        if self.status == "SUCCESS":
            return Exit.DONE
        return Exit.FAILED if self.status in ("FAILURE", "CANCELED") else Exit.RUNNING

    @property
    def problems(self) -> Sequence[Problem]:
        """Why it isn't done, for the answer's errors."""
        if self.exit_code is Exit.DONE:
            return ()
        if self.exit_code is Exit.FAILED:
            return [Problem(code="run_failed", message=self.error or f"run {self.run_id} ended as {self.status}")]
        if self.is_queued_for_good:
            return [Problem(code="no_daemon", message=f"run {self.run_id} is queued, and {_NO_DAEMON}", hint=_START)]
        return [Problem(code="still_running", message=f"run {self.run_id} is {self.status} and goes on")]


_NO_DAEMON = "no daemon runs that would take it up"
_START = "start `dagster dev`, or `dagster-daemon run`; --in-process needs none"


def rollback_job(jobs: Sequence[dg.JobDefinition], asset: str) -> dg.JobDefinition | None:
    """Return the job of `build_rollback_job` of an asset, whatever its name; None if there is none."""
    return next((job for job in jobs if _metadata_of(job, ROLLBACK_OF) == asset), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionJob:
    """A job of `build_retention_schedule`.

    Attributes:
        job: The job.
        assets: The keys of its assets.
        shadow_days: For how many days it keeps shadows.
        unknown_run_days: For how many days it keeps what runs made that Dagster doesn't know.
    """

    job: dg.JobDefinition
    assets: Sequence[str]
    shadow_days: float
    unknown_run_days: float


def retention_jobs(jobs: Sequence[dg.JobDefinition]) -> list[RetentionJob]:
    """Return the jobs of `build_retention_schedule`, whatever their names."""
    found: list[RetentionJob] = []
    for job in jobs:
        assets, days = _metadata_of(job, RETENTION_OF), _metadata_of(job, SHADOW_DAYS)
        if assets is not None and days is not None:
            unknown = _metadata_of(job, KEPT_UNKNOWN_DAYS)
            unknown_days = UNKNOWN_RUN_DAYS if unknown is None else unknown
            found.append(RetentionJob(job=job, assets=[*assets], shadow_days=days, unknown_run_days=unknown_days))
    return found


def _metadata_of(job: dg.JobDefinition, name: str) -> Any:
    metadata: Mapping[str, Any] = job.metadata
    value: Any = metadata.get(name)
    return None if value is None else value.value


def _is_given(value: object) -> bool:
    return value is not None and value != []


def config_of(job: dg.JobDefinition, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the run configuration of a job of the library, which has one op."""
    (op,) = job.nodes
    given = {name: value for name, value in config.items() if _is_given(value)}
    return {"ops": {op.name: {"config": given}}}


def run_here(
    dagster: Dagster, output: Output, job: dg.JobDefinition, config: Mapping[str, Any], *, instance: dg.DagsterInstance
) -> Ran:
    """Run a job in this process, on an instance that `dagster` knows, too, so that Dagster shows the run."""
    run_id = str(uuid.uuid4())
    output.note(f"run {run_id}, in this process")
    made = job.execute_in_process(
        run_config=dict(config_of(job, config)), instance=instance, raise_on_error=False, run_id=run_id
    )
    return _ended(dagster, run_id, "SUCCESS" if made.success else "FAILURE")


def launch(dagster: Dagster, output: Output, asset: str, job: dg.JobDefinition, config: Mapping[str, Any]) -> str:
    """Launch a job in the code location of an asset, say the run's id, and return it."""
    (found,) = dagster.assets([asset])
    run_id = dagster.launch_job(found, job.name, run_config=config_of(job, config), tags={})
    output.note(f"run {run_id} of {job.name} is launched")
    return run_id


def wait(dagster: Dagster, output: Output, run_id: str, *, timeout: float | None) -> Ran:
    """Wait for a run to end, for `timeout` seconds at most."""
    started, pause = time.monotonic(), _FIRST_WAIT
    is_noted = False
    while True:
        run = dagster.run(run_id)
        if not run.is_open:
            return _ended(dagster, run_id, run.status)
        waited = time.monotonic() - started
        is_over = timeout is not None and waited >= timeout
        is_stuck = (
            (is_over or waited >= _QUEUED_FOR) and run.status == "QUEUED" and not dagster.has_daemon(_QUEUE_DAEMON)
        )
        if is_over:
            return Ran(run_id=run_id, status=run.status, is_queued_for_good=is_stuck)
        if is_stuck and not is_noted:
            output.note(f"run {run_id} is queued, and {_NO_DAEMON}: {_START}")
            is_noted = True
        left = pause if timeout is None else min(pause, timeout - waited)
        time.sleep(max(left, 0.0))
        pause = min(pause * 1.5, _LONGEST_WAIT)


def _ended(dagster: Dagster, run_id: str, status: str) -> Ran:
    return Ran(run_id=run_id, status=status, error=None if status == "SUCCESS" else _failure(dagster, run_id))


def _failure(dagster: Dagster, run_id: str) -> str | None:
    """Return what a run failed with: what its step raised, else what Dagster says of the run."""
    events: Sequence[Mapping[str, Any]] = dagster.ask(_FAILURES, id=run_id)["logsForRun"].get("events", ())
    messages: list[str] = []
    for event in events:
        error: Mapping[str, Any] = event.get("error") or {}
        cause: Mapping[str, Any] = error.get("cause") or {}
        # A step's error is Dagster's own, and its cause what the op raised.
        text = cause.get("message") or error.get("message") or event.get("message")
        if text:
            messages.append(str(text).strip())
    return messages[0] if messages else None


def told_of_runs(dagster: Dagster, run_ids: Iterable[str]) -> KnownRuns:
    """Return which of some runs have ended, and which a Dagster doesn't know."""
    ids = {*run_ids}
    known = dagster.runs_by_id(sorted(ids))
    return KnownRuns(ended={run.id for run in known if not run.is_open}, unknown=ids - {run.id for run in known})
