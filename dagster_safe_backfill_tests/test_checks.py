"""Audits as asset checks: one result an audit and run, and statuses by partition where they are asked for."""

from __future__ import annotations

from collections import Counter

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.asset_checks import PartitionedChecks, are_partitioned
from dagster_safe_backfill_tests.assets import DAYS, Source, events, run_key, run_range

SPOILED = Source(spoiled={("2024-01-02", 0): -1.0})


@pytest.mark.parametrize(
    ("policy", "choice", "expected"),
    [
        (sb.single_run(), "auto", False),
        (sb.batched(31), "auto", True),
        (sb.batched(32), "auto", False),
        (sb.per_partition(), "auto", True),
        (None, "auto", True),
        (sb.single_run(), True, True),
        (None, False, False),
    ],
)
def test_checks_are_partitioned_where_a_run_has_few_partitions(
    policy: dg.BackfillPolicy | None, choice: PartitionedChecks, expected: bool
) -> None:
    assert are_partitioned(choice, policy) is expected
    asset = events(Source(), backfill_policy=policy, partitioned_checks=choice)
    assert {spec.partitions_def is not None for spec in asset.check_specs} == {expected}


def test_a_range_run_logs_one_result_for_each_audit(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    result = run_range([events(Source())], "2024-01-01", "2024-01-04", io_manager=io_manager, instance=instance)
    found = result.get_asset_check_evaluations()
    assert [check.check_name for check in found] == ["unique_key", "not_null_value", "positive"]
    assert all(check.passed and check.description == "passed for 4 partitions" for check in found)


def test_a_failing_check_shows_partitions_counts_rows_and_sql(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    result = run_range([events(SPOILED)], "2024-01-01", "2024-01-04", io_manager=io_manager, instance=instance)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "positive"]
    values = {name: value.value for name, value in check.metadata.items() if hasattr(value, "value")}
    assert values["failed_rows"] == 1
    assert (values["partitions"], values["failed_partitions"]) == (4, 1)
    assert values["failed_partition_keys"] == ["2024-01-02"]
    sample = check.metadata["failing_rows_sample"]
    assert isinstance(sample, dg.TableMetadataValue)
    assert [record.data["value"] for record in sample.records] == [-1.0]
    assert "NOT (\n    value > 0" in values["failing_rows_sql"]


@pytest.mark.parametrize("source", [Source(), SPOILED], ids=["passes", "fails"])
def test_partitioned_checks_in_a_range_run_have_a_status_for_each_partition(
    source: Source, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(source, partitioned_checks=True)
    result = run_range([asset], "2024-01-01", "2024-01-04", io_manager=io_manager, instance=instance)
    found = [c for c in result.get_asset_check_evaluations() if c.partition is not None]
    assert Counter(check.check_name for check in found) == dict.fromkeys(
        ("unique_key", "not_null_value", "positive"), 4
    )
    failed = {(check.check_name, check.partition) for check in found if not check.passed}
    assert failed == ({("positive", "2024-01-02")} if source is SPOILED else set())


def test_partitioned_checks_in_a_single_partition_run(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(Source(), backfill_policy=sb.per_partition())
    result = run_key([asset], "2024-01-02", io_manager=io_manager, instance=instance)
    assert {(c.partition, c.passed) for c in result.get_asset_check_evaluations()} == {("2024-01-02", True)}
    assert len(result.get_asset_check_evaluations()) == 3


def statuses(asset: dg.AssetsDefinition, instance: dg.DagsterInstance) -> list[str]:
    """Return the statuses of all records of an asset's checks."""
    storage = instance.event_log_storage
    return [
        record.status.value
        for key in asset.check_keys
        for record in storage.get_asset_check_execution_history(key, limit=100)
    ]


def test_no_planned_status_of_a_partition_is_left_open(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(Source(), partitioned_checks=True)
    run_range([asset], "2024-01-01", "2024-01-03", io_manager=io_manager, instance=instance)
    assert statuses(asset, instance) == ["SUCCEEDED"] * 3 * (3 + 1)


def test_an_unpartitioned_check_shows_the_run_that_was_last(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    for source in (SPOILED, Source()):
        asset = events(source)
        run_range([asset], "2024-01-01", "2024-01-03", io_manager=io_manager, instance=instance)
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(asset.check_keys))
        expected = {"SUCCEEDED", "FAILED"} if source is SPOILED else {"SUCCEEDED"}
        assert {record.status.value for record in latest.values()} == expected


def test_an_asset_cannot_be_selected_without_its_checks(io_manager: sb.RangeIOManager) -> None:
    job = dg.define_asset_job("job", dg.AssetSelection.assets("events").without_checks())
    defs = dg.Definitions(assets=[events(Source())], jobs=[job], resources={"io_manager": io_manager})
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        defs.resolve_job_def("job")
    assert isinstance(caught.value.__cause__, dg.DagsterInvalidSubsetError)


def test_a_range_run_has_no_event_that_dagster_would_not_write_but_one_an_audit(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=DAYS, backfill_policy=sb.single_run())
    def bare() -> None: ...

    bare_run = run_range([bare], "2024-01-01", "2024-01-20", io_manager=io_manager, instance=instance)
    run = run_range([events(Source())], "2024-01-01", "2024-01-20", io_manager=io_manager, instance=instance)
    extra = Counter(e.event_type_value for e in run.all_events) - Counter(
        e.event_type_value for e in bare_run.all_events
    )
    assert extra.pop("ASSET_CHECK_EVALUATION") == 3
    assert extra.pop("ASSET_CHECK_EVALUATION_PLANNED", 0) <= 3
    assert extra == {"STEP_OUTPUT": 3}
