"""Audits as asset checks: one result an audit and run, and statuses by partition where they are asked for."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.slices import KeyDimension, PartitionSlice, TableSlice
from dagster_safe_backfill.model.states import Rejected, Staged
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.reports.checks import PartitionedChecks, are_partitioned
from dagster_safe_backfill.reports.report import report
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, Source, events, failure_of, green, run_key, run_range
from dagster_safe_backfill_tests.reports.test_chart import texts_of

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
    asset = events(Source(), backfill_policy=policy, checks=sb.Checks(partitioned=choice))
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
    asset = events(source, checks=sb.Checks(partitioned=True))
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
    asset = events(Source(), checks=sb.Checks(partitioned=True))
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


def plain(metadata: Mapping[str, dg.MetadataValue[object]]) -> dict[str, object]:
    """Return metadata as plain values, tables as lists of records."""
    return {
        name: [record.data for record in value.records] if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in metadata.items()
    }


def drifting(**options: object) -> dg.AssetsDefinition:
    audits = [
        sb.row_count_drift(max_change=0.1),
        sb.aggregate_drift("value", "total", max_change=0.1),
        sb.aggregate_drift("value", "median", max_change=0.1, over="run", severity="WARN"),
    ]
    return events(SOURCE, audits=audits, **options)


SOURCE = Source(rows_per_day=10)


def test_a_drift_shows_both_sides_and_its_threshold(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    run_range([drifting()], "2024-01-01", "2024-01-04", io_manager=io_manager, instance=instance)
    spoiled = Source(rows_per_day=10, spoiled={("2024-01-03", i): 100.0 for i in range(10)})
    asset = events(spoiled, audits=[sb.aggregate_drift("value", "total", max_change=0.1)])
    result = run_range([asset], "2024-01-01", "2024-01-04", io_manager=io_manager, instance=instance)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "total_drift_value"]
    values = plain(check.metadata)
    assert values["threshold"] == "change fails above 10 %"
    assert (values["shadow"], values["live"]) == (1165.0, 220.0)
    assert values["largest_change"] == pytest.approx(1000 / 55 - 1)
    assert values["failed_partitions_measured"] == [
        {"partition": "2024-01-03", "shadow": 1000.0, "live": 55.0, "change": pytest.approx(1000 / 55 - 1)}
    ]
    assert "2024-01-03: shadow 1,000, live 55, change 17.1818" in (check.description or "")


def test_a_report_of_the_whole_run_stands_once_on_the_materialization(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    run_range([drifting()], "2024-01-01", "2024-01-03", io_manager=io_manager, instance=instance)
    result = run_range([drifting()], "2024-01-01", "2024-01-04", io_manager=io_manager, instance=instance)
    events_of = result.asset_materializations_for_node("events")
    assert [e.partition for e in events_of if "report" in e.metadata] == ["2024-01-04"]
    assert events_of[-1].partition == "2024-01-04"
    metadata = plain(events_of[-1].metadata)
    same = {"shadow rows": 10, "verdict": "passed", "audits that did not pass": "", "total of value, shadow": "55"}
    assert metadata["report"] == [
        {"partition": f"2024-01-0{n}", **same, **live}
        for n, live in [
            *((n, {"live rows": 10, "difference": 0, "total of value, live": "55"}) for n in (1, 2, 3)),
            (4, {"live rows": 0, "difference": 10, "total of value, live": "NULL"}),
        ]
    ]
    picture = str(metadata["picture"]).removeprefix("![rows by partition](data:image/svg+xml;base64,").removesuffix(")")
    assert {"2024-01-01", "2024-01-04", "live now", "shadow (staged)"} <= texts_of(base64.b64decode(picture))


def test_a_rejection_carries_the_report(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
    result = run_range([events(SPOILED)], "2024-01-01", "2024-01-03", io_manager=io_manager, instance=instance)
    (failure,) = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    assert failure.user_failure_data is not None
    metadata = plain(failure.user_failure_data.metadata)
    report = {row["partition"]: (row["verdict"], row["audits that did not pass"]) for row in metadata["report"]}  # type: ignore[attr-defined]
    assert report == {
        "2024-01-01": ("passed", ""),
        "2024-01-02": ("blocked", "positive (1 row)"),
        "2024-01-03": ("passed", ""),
    }
    assert "data:image/svg+xml" in str(metadata["picture"])


def test_a_run_of_one_partition_has_a_report_and_no_picture(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    result = run_key([events(Source())], "2024-01-02", io_manager=io_manager, instance=instance)
    (event,) = result.asset_materializations_for_node("events")
    assert "report" in event.metadata
    assert "picture" not in event.metadata


def test_a_report_of_very_many_partitions_stays_small() -> None:
    keys = tuple(f"key{n:05}" for n in range(10_000))
    bad = {*keys[-3:], keys[5000]}
    result = sb.AuditResult(
        audit=sb.not_null("value"),
        verdicts={
            key: sb.Verdict(outcome="failed" if key in bad else "passed", failed_rows=int(key in bad)) for key in keys
        },
    )
    metadata = report(
        Rejected(
            staged=Staged(
                table_slice=TableSlice(
                    spec=TableSpec(table=TableRef(schema="main", name="t"), partition_expr={None: "k"}),
                    partition_slice=PartitionSlice(keys=keys, dimensions=(KeyDimension(values=keys),)),
                ),
                shadow=TableRef(schema="main", name="s"),
                columns=(),
                rows=dict.fromkeys(keys, 7),
                dropped=0,
                live_columns=(),
            ),
            results=[result],
            live_rows=dict.fromkeys(keys, 8),
        )
    )
    shown = [row["partition"] for row in plain(metadata)["report"]]  # type: ignore[attr-defined]
    assert len(shown) == 400
    assert bad <= set(shown)
    assert shown == sorted(shown)
    assert len(str(metadata["picture"].value)) < 100_000
    assert len(json.dumps(plain(metadata))) < 200_000


@pytest.mark.parametrize("columns", [["day", "id"], []], ids=["some", "none"])
def test_samples_show_chosen_columns_only(
    columns: list[str], io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    run_key([events(Source())], "2024-01-02", io_manager=io_manager, instance=instance)
    asset = events(
        SPOILED, audits=[sb.in_range("value", 0), sb.compare(max_changed=0)], checks=sb.Checks(sample_columns=columns)
    )
    result = run_key([asset], "2024-01-02", io_manager=io_manager, instance=instance)
    checks = {c.check_name: plain(c.metadata) for c in result.get_asset_check_evaluations()}
    (row,) = checks["in_range_value"]["failing_rows_sample"]  # type: ignore[misc]
    assert row["value"] == "***"
    (compared,) = checks["compare"]["differing_rows_sample"]  # type: ignore[misc]
    assert (compared["change"], compared["in live"], compared["in shadow"]) == ("changed", "value: ***", "value: ***")
    masked = {"day": "2024-01-02 00:00:00", "id": 0} if columns else {"day": "***", "id": "***"}
    assert {name: row[name] for name in masked} == {name: compared[name] for name in masked} == masked
    assert "-1" not in failure_of(result, "events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(sb.GroupAudit):
    """Breaks while it judges, or before."""

    where: str

    def aggregates(self) -> Mapping[str, str]:
        if self.where == "aggregates":
            raise ZeroDivisionError("no aggregates")
        sql = {"SQL": "sum(no_such_column)", "text": "min('x')"}
        return {"it": sql.get(self.where, "count(*)")}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        if self.where == "outcome":
            return sb.Verdict(outcome="fail")  # type: ignore[arg-type]
        if self.where == "bool":
            return True  # type: ignore[return-value]
        raise ZeroDivisionError("no judgement")


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("aggregates", "ZeroDivisionError: no aggregates"),
        ("judge", "ZeroDivisionError: no judgement"),
        ("SQL", "no_such_column"),
        ("text", "it is 'x', which is not a number"),
        ("outcome", "judge returned Verdict(outcome='fail'"),
        ("bool", "judge returned True"),
    ],
)
def test_an_audit_that_breaks_is_unmeasured_and_blocks_and_the_others_go_on(
    where: str, says: str, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    audits = [
        Broken(name="broken", where=where),
        sb.row_count_between(1),
        sb.expression("nothing > 0"),
        sb.unique("id"),
    ]
    asset = events(SPOILED, audits=[*audits, sb.not_null("value")])
    result = run_range([asset], "2024-01-01", "2024-01-02", io_manager=io_manager, instance=instance)
    assert not result.success
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    assert says in str(checks["broken"].metadata["problem"].value)
    assert "nothing" in str(checks["expression_nothing_gt_0"].metadata["problem"].value)
    passed = {name for name, check in checks.items() if check.passed}
    assert passed == {"unique_key", "row_count_between", "not_null_value"}
    assert not green(instance, "events")


def test_a_warning_audit_that_breaks_does_not_block(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(Source(), audits=[Broken(name="broken", where="judge", severity="WARN")])
    result = run_range([asset], "2024-01-01", "2024-01-02", io_manager=io_manager, instance=instance)
    assert result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "broken"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_a_warning_of_what_was_published_finds_the_rows_in_live(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    audits = [
        sb.expression("value > 0", name="positive", severity="WARN"),
        sb.failing_rows("SELECT b.* FROM batch AS b WHERE b.value < 0", name="own", severity="WARN"),
        sb.unique("id", severity="WARN"),
    ]
    result = run_range(
        [events(SPOILED, audits=audits)], "2024-01-01", "2024-01-03", io_manager=io_manager, instance=instance
    )
    assert result.success
    checks = {c.check_name: plain(c.metadata) for c in result.get_asset_check_evaluations()}
    found = {name: checks[name].get("failing_rows_sql") for name in ("positive", "own", "unique_id")}
    rows = {name: read(str(sql).removeprefix("```sql\n").removesuffix("\n```")) for name, sql in found.items() if sql}
    assert {name: len(found) for name, found in rows.items()} == {"positive": 1, "own": 1, "unique_id": 9}
    assert rows["positive"][0][2] == -1.0


def test_a_range_of_one_partition_has_all_metadata_on_the_partition(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    asset = events(SPOILED, checks=sb.Checks(partitioned=True))
    result = run_range([asset], "2024-01-02", "2024-01-02", io_manager=io_manager, instance=instance)
    found = {c.partition: c for c in result.get_asset_check_evaluations() if c.check_name == "positive"}
    assert found["2024-01-02"].description == found[None].description
    assert set(found["2024-01-02"].metadata) == set(found[None].metadata)
    assert "failing_rows_sample" in found["2024-01-02"].metadata
