"""What Dagster's daemon does for a backfill, done by this process: for `--in-process`, where no daemon runs."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, cast

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus
from dagster._core.launcher.base import LaunchRunContext
from dagster._daemon import backfill as daemon_of_backfills
from typing_extensions import Self

from dagster_safe_backfill.cli.answers.answer import unreachable
from dagster_safe_backfill.cli.api.values import BACKFILL_TAG

_PAUSE = 0.5
"""The seconds between two looks at the backfill."""
_MOST_RUNS = 10
"""How many of its runs work at a time where `dagster.yaml` sets no limit, as of Dagster's own queue."""
_SETTLING = 60.0
"""The seconds in which a backfill whose partitions are done, or that is cancelled, has to be closed."""
_WORKING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class LocalDaemon:
    """Drives one backfill in a thread while its block runs, and starts no other queued runs of the instance.

    Leaving the block waits until Dagster has closed the backfill. An error in the block, also Ctrl-C, cancels it, as
    nothing else would go on with it.

    Args:
        process_context: A workspace with code servers, as runs are processes that these start.
        instance: The instance.
        backfill_id: The backfill.
    """

    def __init__(self, process_context: Any, instance: dg.DagsterInstance, backfill_id: str) -> None:
        self._context = process_context
        self._instance = instance
        self._id = backfill_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self.cancel()
        self._wait(_SETTLING)
        self._stop.set()
        self._thread.join(timeout=_SETTLING)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise what broke in the thread, if anything did.

        Raises:
            CommandError: Dagster's code for backfills failed.
        """
        if self._error is not None:
            raise unreachable(
                "daemon_failed", f"driving backfill {self._id} failed: {self._error}", hint="`retry` goes on with it"
            ) from self._error

    def cancel(self) -> None:
        """Cancel the backfill and end its runs, unless it has ended."""
        backfill: Any = self._instance.get_backfill(self._id)
        if backfill is None or backfill.status in BULK_ACTION_TERMINAL_STATUSES:
            return
        self._instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELING))
        for run in self._instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: self._id})):
            if not run.is_finished:
                self._instance.run_coordinator.cancel_run(run.run_id)

    def _wait(self, timeout: float) -> None:
        """Wait until Dagster has closed the backfill, or the thread broke."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._error is None:
            backfill = self._instance.get_backfill(self._id)
            if backfill is None or backfill.status in BULK_ACTION_TERMINAL_STATUSES:
                return
            time.sleep(_PAUSE / 2)

    def _work(self) -> None:
        # Its warnings would be printed over the progress, and errors are kept with the backfill.
        logger = logging.getLogger("safe_backfill.daemon")
        logger.setLevel(logging.CRITICAL)
        try:
            while not self._stop.is_set():
                backfill = self._instance.get_backfill(self._id)
                if backfill is not None and backfill.status not in BULK_ACTION_TERMINAL_STATUSES:
                    work_on = cast("Any", daemon_of_backfills).execute_backfill_jobs
                    deque(work_on(self._context, logger, [backfill]), maxlen=0)
                self._start_queued()
                self._stop.wait(_PAUSE)
        except Exception as error:
            self._error = error

    def _start_queued(self) -> None:
        own = {BACKFILL_TAG: self._id}
        queued = self._instance.get_runs(dg.RunsFilter(tags=own, statuses=[dg.DagsterRunStatus.QUEUED]), ascending=True)
        if not queued:
            return
        config: Any = self._instance.get_concurrency_config().run_queue_config
        limit = config.max_concurrent_runs if config is not None else -1
        most = limit if limit >= 0 else _MOST_RUNS
        free = most - self._instance.get_runs_count(dg.RunsFilter(tags=own, statuses=_WORKING))
        workspace = self._context.create_request_context()
        for run in queued[: max(0, free)]:
            event = DagsterEvent(event_type_value=DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
            self._instance.report_dagster_event(event, run_id=run.run_id)
            launched = self._instance.get_run_by_id(run.run_id)
            assert launched is not None
            self._instance.run_launcher.launch_run(LaunchRunContext(dagster_run=launched, workspace=workspace))
