"""Which run goes on with what another one had staged: a retry, or a re-execution of one that didn't succeed."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_safe_backfill.runs.backfills import why_not_resumed

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
FIRST = {"dagster/backfill": "first"}
AGAIN = {"dagster/backfill": "again", "dagster/root_backfill_id": "first"}
OTHER = {"dagster/backfill": "other"}


def run(name: str, tags: dict[str, str] | None = None, status: dg.DagsterRunStatus = FAILURE) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="job", run_id=name, status=status, tags=tags or {})


def reason(instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]) -> str | None:
    """Return why a run of these tags computes again what an earlier run had staged."""
    instance.run_storage.add_run(earlier)
    return why_not_resumed(run("now", tags), instance, earlier.run_id)


@pytest.mark.parametrize("tags", [{}, FIRST, AGAIN])
def test_a_retry_goes_on(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    assert why_not_resumed(run("now", tags), instance, "now") is None


@pytest.mark.parametrize(
    ("earlier", "tags"),
    [
        (run("root"), {"dagster/root_run_id": "root"}),
        (run("second", {"dagster/root_run_id": "root"}), {"dagster/root_run_id": "root"}),
        (run("root", FIRST), {"dagster/root_run_id": "root"}),
        (run("root", FIRST), FIRST),
        (run("root", FIRST), AGAIN),
        (run("second", AGAIN), AGAIN),
        (run("second", AGAIN), {"dagster/backfill": "third", "dagster/root_backfill_id": "first"}),
    ],
)
@pytest.mark.parametrize("status", [FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.STARTED])
def test_a_re_execution_goes_on(
    instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str], status: dg.DagsterRunStatus
) -> None:
    assert reason(instance, earlier.with_status(status), tags) is None


@pytest.mark.parametrize(
    ("earlier", "tags"),
    [
        (run("root"), {}),
        (run("root"), {"dagster/root_run_id": "another"}),
        (run("root", FIRST), OTHER),
        (run("second", AGAIN), OTHER),
        (run("root"), FIRST),
    ],
)
def test_another_launch_does_not(instance: dg.DagsterInstance, earlier: dg.DagsterRun, tags: dict[str, str]) -> None:
    assert reason(instance, earlier, tags) == f"another launch, run {earlier.run_id}, staged them"


@pytest.mark.parametrize("tags", [{"dagster/root_run_id": "root"}, FIRST, AGAIN])
def test_what_succeeded_is_not_gone_on_with(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    earlier = run("root", FIRST, status=SUCCESS)
    assert reason(instance, earlier, tags) == "run root, which staged them, succeeded"


def test_a_run_that_dagster_has_forgotten_is_another_launch(instance: dg.DagsterInstance) -> None:
    gone = why_not_resumed(run("now", {"dagster/root_run_id": "gone"}), instance, "gone")
    assert gone == "another launch, run gone, staged them"
