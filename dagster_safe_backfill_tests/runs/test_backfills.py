"""Which run continues what an earlier one had staged or published: that depends on how the earlier one ended."""

from __future__ import annotations

from typing import Literal

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, StepFailureData
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._utils.error import SerializableErrorInfo

from dagster_safe_backfill.runs.backfills import why_not_continued, why_not_reused

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
CANCELED, STARTED = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.STARTED
FIRST = {"dagster/backfill": "first"}
AGAIN = {"dagster/backfill": "again", "dagster/root_backfill_id": "first"}
OTHER = {"dagster/backfill": "other"}
FROM_FAILURE = {"dagster/is_resume_retry": "true"}
STEP = "events"


def run(name: str, tags: dict[str, str] | None = None, status: dg.DagsterRunStatus = FAILURE) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="job", run_id=name, status=status, tags=tags or {})


def error(*names: str) -> SerializableErrorInfo:
    """Return an error of a class, caused by one of the next class, and so on."""
    name, *causes = names
    return SerializableErrorInfo(message="", stack=[], cls_name=name, cause=error(*causes) if causes else None)


def ended(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, by: SerializableErrorInfo | Literal["success"] | None = None
) -> None:
    """Add a run, and the last event of its step; None if its process was killed."""
    instance.run_storage.add_run(earlier)
    if by is None:
        return

    event = DagsterEvent(
        event_type_value="STEP_SUCCESS" if by == "success" else "STEP_FAILURE",
        job_name="job",
        step_key=STEP,
        event_specific_data=StepSuccessData(1.0) if by == "success" else StepFailureData(by, user_failure_data=None),
    )
    instance.report_dagster_event(event, earlier.run_id)


def reason(
    instance: dg.DagsterInstance,
    earlier: dg.DagsterRun,
    tags: dict[str, str],
    *,
    is_rejected: bool = False,
    resume: bool | Literal["always"] = True,
) -> str | None:
    """Return why a run of these tags computes again what an earlier run had staged."""
    return why_not_reused(
        run("now", tags), instance, earlier.run_id, step_key=STEP, is_rejected=is_rejected, resume=resume
    )


RE_EXECUTIONS = [
    (run("root"), {"dagster/root_run_id": "root"}),
    (run("second", {"dagster/root_run_id": "root"}), {"dagster/root_run_id": "root"}),
    (run("root", FIRST), {"dagster/root_run_id": "root"}),
    (run("root", FIRST), FIRST),
    (run("root", FIRST), AGAIN),
    (run("second", AGAIN), AGAIN),
    (run("second", AGAIN), {"dagster/backfill": "third", "dagster/root_backfill_id": "first"}),
]
LAUNCHES = [
    (run("root"), {}),
    (run("root"), {"dagster/root_run_id": "another"}),
    (run("root", FIRST), OTHER),
    (run("second", AGAIN), OTHER),
    (run("root"), FIRST),
]


@pytest.mark.parametrize("tags", [{}, FIRST, AGAIN])
def test_a_retry_goes_on(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    assert reason(instance, run("now"), tags, is_rejected=True) is None


@pytest.mark.parametrize(("earlier", "tags"), [*RE_EXECUTIONS, *LAUNCHES])
@pytest.mark.parametrize(
    "by",
    [
        None,
        error("BatchTimeoutError"),
        error("Failure", "OutsideAllowedHoursError"),
        error("DagsterExecutionStepExecutionError", "WarehouseLockedError"),
        error("DagsterExecutionStepExecutionError", "ConnectionResetError"),
    ],
    ids=["killed", "timed out", "out of hours", "locked", "connection lost"],
)
def test_whoever_comes_goes_on_with_what_was_interrupted(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str], by: SerializableErrorInfo | None
) -> None:
    ended(instance, earlier, by)
    assert reason(instance, earlier, tags) is None


@pytest.mark.parametrize(("earlier", "tags"), RE_EXECUTIONS)
@pytest.mark.parametrize("status", [FAILURE, CANCELED, STARTED])
def test_a_re_execution_from_failure_goes_on(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str], status: dg.DagsterRunStatus
) -> None:
    ended(instance, earlier.with_status(status), error("ValueError") if status is FAILURE else None)
    assert reason(instance, earlier, {**tags, **FROM_FAILURE}, is_rejected=True) is None


@pytest.mark.parametrize(("earlier", "tags"), [*RE_EXECUTIONS, *LAUNCHES])
def test_what_failed_or_was_rejected_is_computed_again(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]
) -> None:
    ended(instance, earlier, error("DagsterExecutionStepExecutionError", "ValueError"))
    assert reason(instance, earlier, tags) == f"run {earlier.run_id}, which staged them, failed"
    rejected = reason(instance, earlier, tags, is_rejected=True)
    assert rejected == "audits rejected rows of the table after these were computed"
    assert reason(instance, earlier, tags, is_rejected=True, resume="always") is None


@pytest.mark.parametrize(("earlier", "tags"), [*RE_EXECUTIONS, *LAUNCHES])
def test_what_was_interrupted_before_a_rejection_is_computed_again(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]
) -> None:
    ended(instance, earlier)
    rejected = reason(instance, earlier, tags, is_rejected=True)
    assert rejected == "audits rejected rows of the table after these were computed"


@pytest.mark.parametrize(("earlier", "tags"), RE_EXECUTIONS)
def test_what_a_run_whose_end_is_not_known_rejected_is_computed_again(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]
) -> None:
    """Its process may have been killed after the rejection, and its source been fixed because of that."""
    ended(instance, earlier.with_status(STARTED))
    assert reason(instance, earlier, tags) is None
    rejected = reason(instance, earlier, tags, is_rejected=True)
    assert rejected == "audits rejected rows of the table after these were computed"
    assert reason(instance, earlier, {**tags, **FROM_FAILURE}, is_rejected=True) is None


@pytest.mark.parametrize(("earlier", "tags"), LAUNCHES)
def test_a_run_that_goes_on_keeps_what_it_staged(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]
) -> None:
    ended(instance, earlier.with_status(STARTED))
    assert reason(instance, earlier, tags) == f"run {earlier.run_id}, which staged them, has not ended"


@pytest.mark.parametrize(("earlier", "tags"), [*RE_EXECUTIONS, *LAUNCHES])
def test_what_a_person_cancelled_is_computed_again(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]
) -> None:
    ended(instance, earlier.with_status(CANCELED))
    assert reason(instance, earlier, tags) == f"run {earlier.run_id}, which staged them, failed"


@pytest.mark.parametrize("tags", [{"dagster/root_run_id": "root"}, FIRST, AGAIN])
@pytest.mark.parametrize("status", [SUCCESS, FAILURE])
def test_what_succeeded_is_not_gone_on_with(
    instance: dg.DagsterInstance, tags: dict[str, str], status: dg.DagsterRunStatus
) -> None:
    """Also if only the asset's step succeeded, and another step of the run failed."""
    earlier = run("root", FIRST, status=status)
    ended(instance, earlier, "success")
    assert reason(instance, earlier, {**tags, **FROM_FAILURE}) == "run root, which staged them, succeeded"
    again = why_not_continued(run("now", tags), instance, "root", step_key=STEP)
    assert again == "run root, which published them, succeeded"


def test_a_run_that_dagster_has_forgotten_is_another_launch(instance: dg.DagsterInstance) -> None:
    tags = {"dagster/root_run_id": "gone", **FROM_FAILURE}
    assert reason(instance, run("gone"), tags) == "run gone, which staged them, isn't known to this Dagster"


@pytest.mark.parametrize(("earlier", "tags"), RE_EXECUTIONS)
def test_a_re_execution_does_no_published_work_again(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]
) -> None:
    ended(instance, earlier, error("ValueError"))
    assert why_not_continued(run("now", tags), instance, earlier.run_id, step_key=STEP) is None
    assert why_not_continued(run("now"), instance, "now", step_key=STEP) is None


@pytest.mark.parametrize(("earlier", "tags"), LAUNCHES)
def test_a_new_launch_does(instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]) -> None:
    ended(instance, earlier)
    again = why_not_continued(run("now", tags), instance, earlier.run_id, step_key=STEP)
    assert again == f"another launch, run {earlier.run_id}, published them"
