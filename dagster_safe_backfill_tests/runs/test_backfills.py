"""Of what others have staged, only what waits for nobody may be taken up."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from dagster_safe_backfill.runs.backfills import is_abandoned

FAILED, SUCCESS = BulkActionStatus.COMPLETED_FAILED, BulkActionStatus.COMPLETED_SUCCESS


def add_backfill(instance: dg.DagsterInstance, name: str, status: BulkActionStatus, root: str | None = None) -> None:
    tags = {"dagster/root_backfill_id": root} if root else {}
    at = 1.0 if root else 0.0
    instance.add_backfill(
        PartitionBackfill(backfill_id=name, status=status, from_failure=False, tags=tags, backfill_timestamp=at)
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (BulkActionStatus.REQUESTED, False),
        (BulkActionStatus.CANCELING, False),
        (SUCCESS, False),
        (FAILED, True),
        (BulkActionStatus.FAILED, True),
        (BulkActionStatus.CANCELED, True),
    ],
)
def test_a_backfill(instance: dg.DagsterInstance, status: BulkActionStatus, expected: bool) -> None:
    add_backfill(instance, "root", status)
    assert is_abandoned(instance, "root") is expected


@pytest.mark.parametrize(
    ("status", "expected"), [(BulkActionStatus.REQUESTED, False), (SUCCESS, False), (FAILED, True)]
)
def test_a_backfill_that_is_executed_again(
    instance: dg.DagsterInstance, status: BulkActionStatus, expected: bool
) -> None:
    add_backfill(instance, "root", FAILED)
    add_backfill(instance, "again", status, root="root")
    add_backfill(instance, "other", BulkActionStatus.REQUESTED, root="another")
    assert is_abandoned(instance, "root") is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(dg.DagsterRunStatus.STARTED, False), (dg.DagsterRunStatus.SUCCESS, False), (dg.DagsterRunStatus.FAILURE, True)],
)
def test_a_run_that_is_executed_again(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, expected: bool
) -> None:
    add_run(instance, "root", dg.DagsterRunStatus.FAILURE)
    assert is_abandoned(instance, "root")
    add_run(instance, "again", status, root="root")
    assert is_abandoned(instance, "root") is expected


def add_run(instance: dg.DagsterInstance, name: str, status: dg.DagsterRunStatus, root: str | None = None) -> None:
    tags = {"dagster/root_run_id": root} if root else {}
    instance.run_storage.add_run(dg.DagsterRun(job_name="job", run_id=name, status=status, tags=tags))


def test_a_run_that_dagster_has_forgotten(instance: dg.DagsterInstance) -> None:
    assert is_abandoned(instance, "gone")
