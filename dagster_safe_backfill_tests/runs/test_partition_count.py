"""The limit on a backfill's partitions, against real backfills in real instances."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Timer

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.limits import allowed as limits
from dagster_safe_backfill.runs.limits.allowed import CONFIRMED_TAG, check_partition_count
from dagster_safe_backfill_tests.harness.assets import DAYS, RANGE_END, RANGE_START
from dagster_safe_backfill_tests.harness.backfills import BACKFILL, OpenBackfill

KEYS = DAYS.get_partition_keys()
SINGLE = {"dagster/partition": KEYS[0]}


def ends(first: int, last: int) -> dict[str, str]:
    return {RANGE_START: KEYS[first], RANGE_END: KEYS[last]}


def asset(at_most: int | None = 3) -> dg.AssetsDefinition:
    """Return an asset that checks before it works."""

    @dg.asset(partitions_def=DAYS, backfill_policy=sb.single_run())
    def events(context) -> None:  # no annotation: Dagster does not resolve those of nested functions
        check_partition_count(context, context.partition_keys, at_most=at_most)

    return events


def run(instance: dg.DagsterInstance, tags: Mapping[str, str], *, at_most: int | None = 3) -> None:
    dg.materialize([asset(at_most)], instance=instance, tags=tags)


def record_job_backfill(instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
    instance.add_backfill(
        PartitionBackfill(
            backfill_id="job",
            status=BulkActionStatus.COMPLETED,
            from_failure=False,
            tags={},
            backfill_timestamp=time.time(),
            partition_names=keys,
        )
    )


def test_a_run_of_its_own_counts_its_own_partitions(instance: dg.DagsterInstance) -> None:
    run(instance, SINGLE, at_most=1)
    run(instance, ends(0, 2))
    with pytest.raises(sb.TooManyPartitionsError) as caught:
        run(instance, ends(0, 3))
    assert (caught.value.count, caught.value.allowed) == (4, 3)
    assert str(caught.value).startswith("events: 4 partitions were requested, but the limit of one backfill is Limits(")
    assert f"the tag {CONFIRMED_TAG} set to 4:" in str(caught.value)


@pytest.mark.parametrize("tags", [SINGLE, ends(0, 1)], ids=["a partition", "a range"])
def test_a_backfill_of_many_runs_counts_as_a_whole(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> None:
    backfill = OpenBackfill(instance, [asset()], {"events": KEYS[:40]})
    with pytest.raises(sb.TooManyPartitionsError) as caught:
        run(instance, {**tags, BACKFILL: backfill.id})
    assert (caught.value.count, caught.value.allowed) == (40, 3)
    run(instance, {**tags, BACKFILL: backfill.id}, at_most=40)


def test_what_the_backfill_asks_of_other_assets_does_not_count(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=DAYS)
    def upstream() -> None: ...

    backfill = OpenBackfill(instance, [asset(), upstream], {"events": KEYS[:3], "upstream": KEYS[:40]})
    run(instance, {**SINGLE, BACKFILL: backfill.id})
    elsewhere = OpenBackfill(instance, [upstream], {"upstream": KEYS[:40]}, backfill_id="elsewhere")
    run(instance, {**SINGLE, BACKFILL: elsewhere.id})


def test_a_job_backfill_counts_as_a_whole(instance: dg.DagsterInstance) -> None:
    record_job_backfill(instance, KEYS[:40])
    with pytest.raises(sb.TooManyPartitionsError) as caught:
        run(instance, {**SINGLE, BACKFILL: "job"})
    assert caught.value.count == 40


def test_the_first_runs_wait_for_the_command_to_record_its_backfill(instance: dg.DagsterInstance) -> None:
    """`dagster job backfill` submits its runs, and then records what they belong to."""
    recorded = Timer(0.5, record_job_backfill, [instance, KEYS[:40]])
    recorded.start()
    with pytest.raises(sb.TooManyPartitionsError) as caught:
        run(instance, {**SINGLE, BACKFILL: "job"})
    recorded.join()
    assert caught.value.count == 40


def test_a_backfill_that_is_not_recorded_counts_its_runs(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_PATIENCE", 0.5)
    for _ in range(3):
        run(instance, {**SINGLE, BACKFILL: "killed"})
    with pytest.raises(sb.TooManyPartitionsError) as caught:
        run(instance, {**SINGLE, BACKFILL: "killed"})
    assert caught.value.count == 4


def test_the_number_in_the_tag_confirms(instance: dg.DagsterInstance) -> None:
    backfill = OpenBackfill(instance, [asset()], {"events": KEYS[:40]})
    run(instance, {**SINGLE, BACKFILL: backfill.id, CONFIRMED_TAG: "40"})
    run(instance, {**ends(0, 3), CONFIRMED_TAG: "4"})


@pytest.mark.parametrize("number", ["39", "41", "400", "yes", ""])
def test_another_number_does_not(instance: dg.DagsterInstance, number: str) -> None:
    backfill = OpenBackfill(instance, [asset()], {"events": KEYS[:40]})
    with pytest.raises(sb.TooManyPartitionsError, match=f"it is '{number}' now"):
        run(instance, {**SINGLE, BACKFILL: backfill.id, CONFIRMED_TAG: number})


def test_without_a_limit_nobody_looks(instance: dg.DagsterInstance) -> None:
    began = time.monotonic()
    run(instance, {**ends(0, 50), BACKFILL: "unknown"}, at_most=None)
    assert time.monotonic() - began < limits._PATIENCE
