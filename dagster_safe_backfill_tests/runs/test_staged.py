"""Staged assets: partitions are staged in many runs, audited together, and published once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import (
    DAYS,
    RANGE_END,
    RANGE_START,
    Source,
    failure_of,
    green,
    reexecution_tags,
)
from dagster_safe_backfill_tests.runs.test_batches import counts, shadows

pytestmark = pytest.mark.every_warehouse

SIX = tuple(DAYS.get_partition_keys()[:6])


class Shop:
    """The three assets of a source, and runs of each."""

    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
        self.source = Source()
        self.io_manager = io_manager
        self.instance = instance

    def assets(self, **options: Any) -> sb.StagedWapAssets:
        def events(partitions: sb.PartitionSlice) -> Any:
            return self.source.frame(partitions.keys)

        arguments: dict[str, Any] = {
            "partitions_def": DAYS,
            "partition_expr": "day",
            "unique_key": ["day", "id"],
            "audits": [sb.expression("value > 0", name="positive"), sb.row_count_between(1, 18, over="run")],
            "backfill_policy": sb.single_run(),
            "limits": sb.Limits(retry_wait=0.0),
            # Without it, the state of the source would count as code: the function closes over it.
            "code_version": "1",
        }
        return sb.build_staged_wap_assets(events, **(arguments | options))

    def run(
        self,
        *wanted: str,
        first: str = "",
        last: str = "",
        again: dg.DagsterRun | None = None,
        from_failure: bool = True,
        beside: Sequence[dg.AssetSpec] = (),
        tags: Mapping[str, str] | None = None,
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        """Run some of `shadow`, `audit` and `published`, for a range if one is given; or re-execute a run of them."""
        ends = {RANGE_START: first, RANGE_END: last or first} if first else {}
        assets = self.assets(**options)
        return dg.materialize(
            [*assets, *beside],
            selection=[getattr(assets, name) for name in wanted],
            tags={**ends, **reexecution_tags(again, from_failure=from_failure), **(tags or {})},
            resources={"io_manager": self.io_manager},
            instance=self.instance,
            raise_on_error=False,
        )

    def stage(self, first: str, last: str = "", **options: Any) -> dg.ExecuteInProcessResult:
        result = self.run("shadow", first=first, last=last, **options)
        assert result.success
        return result

    def audit(self, **options: Any) -> dg.ExecuteInProcessResult:
        result = self.run("audit", **options)
        assert result.success
        return result

    def publish(self, first: str, last: str = "", **options: Any) -> dg.ExecuteInProcessResult:
        return self.run("published", first=first, last=last, **options)

    def refused(self, first: str, last: str = "", **options: Any) -> str:
        result = self.publish(first, last, **options)
        assert not result.success
        return failure_of(result, "events")


@pytest.fixture
def shop(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Shop:
    return Shop(io_manager, instance)


def is_live(read: Read) -> bool:
    return bool(read("SELECT 1 FROM duckdb_tables() WHERE table_name = 'events'"))


def test_the_three_in_one_run(shop: Shop, read: Read) -> None:
    result = shop.run("shadow", "audit", "published", first=SIX[0], last=SIX[3])
    assert result.success
    assert counts(read) == dict.fromkeys(SIX[:4], 3)
    assert shadows(read) == []
    for asset in ("events__shadow", "events"):
        assert green(shop.instance, asset) == set(SIX[:4])
    checks = {(check.asset_key.to_user_string(), check.check_name) for check in result.get_asset_check_evaluations()}
    assert checks == {
        ("events__shadow", "unique_key"),
        ("events__shadow", "positive"),
        ("events__audit", "unique_key"),
        ("events__audit", "positive"),
        ("events__audit", "run_row_count_between"),
    }


def test_staged_in_runs_audited_and_published_on_a_persons_yes(shop: Shop, read: Read) -> None:
    for key in SIX:
        shop.stage(key)
    assert not is_live(read)
    assert len(shadows(read)) == 6
    (report,) = shop.audit().asset_materializations_for_node("events__audit")
    assert [record.data["partition"] for record in report.metadata["report"].records] == list(SIX)
    assert not is_live(read)
    assert len(shadows(read)) == 1
    result = shop.publish(SIX[0], SIX[-1])
    assert result.success
    assert shop.source.calls == [(key,) for key in SIX]
    assert counts(read) == dict.fromkeys(SIX, 3)
    assert shadows(read) == []
    numbers = {str(one.partition): one.metadata for one in result.asset_materializations_for_node("events")}
    assert {key: one["rows_inserted"].value for key, one in numbers.items()} == dict.fromkeys(SIX, 3)


def test_a_part_may_go_live_and_the_rest_waits(shop: Shop, read: Read) -> None:
    shop.stage(SIX[0], SIX[5])
    shop.audit()
    assert shop.publish(SIX[0], SIX[2]).success
    assert counts(read) == dict.fromkeys(SIX[:3], 3)
    assert len(shadows(read)) == 1
    assert shop.publish(SIX[3], SIX[5]).success
    assert counts(read) == dict.fromkeys(SIX, 3)
    assert shadows(read) == []


def test_publishing_again_changes_nothing(shop: Shop, read: Read) -> None:
    shop.run("shadow", "audit", "published", first=SIX[0], last=SIX[1])
    assert shop.publish(SIX[0], SIX[1]).success
    published = read("SELECT count(DISTINCT publication_id) FROM _safe_backfill_ledger WHERE event = 'published'")
    assert published == [(1,)]


def test_what_is_not_staged_or_audited_is_refused_by_name(shop: Shop, read: Read) -> None:
    shop.stage(SIX[0], SIX[1])
    shop.audit()
    shop.stage(SIX[2])
    shop.source.spoiled[SIX[3], 0] = -1.0
    assert not shop.run("shadow", first=SIX[3]).success
    message = shop.refused(SIX[0], SIX[4])
    assert f"{SIX[2]}: staged, and not yet audited with the others" in message
    assert f"{SIX[3]}: rejected by an audit" in message
    assert f"{SIX[4]}: not staged" in message
    assert SIX[0] not in message.split("can't be published")[1]
    assert not is_live(read)


def test_staged_again_is_to_be_audited_again(shop: Shop) -> None:
    shop.stage(SIX[0])
    shop.audit()
    shop.source.spoiled[SIX[0], 0] = 5.0
    shop.stage(SIX[0])
    assert "staged, and not yet audited" in shop.refused(SIX[0])


def test_an_audit_over_all_refuses_all(shop: Shop, read: Read) -> None:
    shop.source.rows_per_day = 4
    for key in SIX:
        shop.stage(key)
    result = shop.run("audit")
    assert not result.success
    assert "run_row_count_between" in failure_of(result, "events__audit")
    assert result.asset_materializations_for_node("events__audit") == []
    assert "refused by an audit of all partitions that were staged with it" in shop.refused(SIX[0])
    # Wider limits, and the same rows: nothing is computed again.
    calls = [*shop.source.calls]
    wide = {"audits": [sb.row_count_between(1, 30, over="run")]}
    shop.audit(**wide)
    assert shop.publish(SIX[0], SIX[-1], **wide).success
    assert shop.source.calls == calls
    assert counts(read) == dict.fromkeys(SIX, 4)


def test_a_key_in_partitions_of_two_runs_is_found(shop: Shop, read: Read) -> None:
    shop.source.rows_per_day = 1
    by_id = {"unique_key": ["id"], "audits": []}
    shop.stage(SIX[0], **by_id)
    shop.stage(SIX[1], **by_id)
    result = shop.run("audit", **by_id)
    assert "unique_key: 2 rows failed in 2 of 2 partitions" in failure_of(result, "events__audit")
    assert not is_live(read)


def test_a_key_may_move_to_a_partition_that_another_run_stages(shop: Shop, read: Read) -> None:
    shop.source.rows_per_day = 1
    by_id = {"unique_key": ["value"], "audits": []}
    shop.source.spoiled |= {(SIX[0], 0): 1.0, (SIX[1], 0): 2.0}
    shop.run("shadow", "audit", "published", first=SIX[0], last=SIX[1], **by_id)
    shop.source.spoiled |= {(SIX[0], 0): 2.0, (SIX[1], 0): 1.0}
    shop.stage(SIX[0], **by_id)
    shop.stage(SIX[1], **by_id)
    shop.audit(**by_id)
    assert shop.publish(SIX[0], SIX[1], **by_id).success
    assert read("SELECT value FROM events ORDER BY day") == [(2.0,), (1.0,)]


def test_partitions_that_were_audited_apart_are_looked_through_together(shop: Shop, read: Read) -> None:
    shop.source.rows_per_day = 1
    by_id = {"unique_key": ["id"], "audits": []}
    for key in SIX[:2]:
        assert shop.run("shadow", "audit", first=key, **by_id).success
    assert "were audited separately" in shop.refused(SIX[0], SIX[1], **by_id)
    assert not is_live(read)


def test_a_bad_partition_is_red_and_the_others_of_its_run_are_green(shop: Shop) -> None:
    shop.source.spoiled[SIX[1], 0] = -1.0
    assert not shop.run("shadow", first=SIX[0], last=SIX[2]).success
    assert green(shop.instance, "events__shadow") == {SIX[0], SIX[2]}
    shop.source.spoiled.clear()
    shop.source.calls.clear()
    shop.stage(SIX[1])
    assert shop.source.calls == [(SIX[1],)]
    shop.audit()
    assert shop.publish(SIX[0], SIX[2]).success


def test_mixed_versions_are_not_published_together(shop: Shop, read: Read) -> None:
    shop.stage(SIX[0], code_version="1")
    shop.stage(SIX[1], code_version="2")
    refused = shop.run("audit")
    assert "staged with code_version 1, 2" in failure_of(refused, "events__audit")
    assert not is_live(read)
    shop.audit(publish=sb.Merge(allow_mixed_versions=True))
    assert shop.publish(SIX[0], SIX[1], publish=sb.Merge(allow_mixed_versions=True)).success


def test_a_partition_that_changed_since_it_was_staged_is_a_conflict(shop: Shop, read: Read) -> None:
    shop.run("shadow", "audit", "published", first=SIX[0], last=SIX[1])
    shop.source.spoiled[SIX[0], 0] = 5.0
    shop.stage(SIX[0], SIX[1])
    shop.audit()
    read(f"UPDATE events SET value = 9 WHERE day = '{SIX[1]}' AND id = 0")
    message = shop.refused(SIX[0], SIX[1])
    assert "by no publication, so by hand" in message
    assert f"the rows are in main.{shadows(read)[0]}." in message
    assert read("SELECT max(value) FROM events") == [(9.0,)]


def test_nothing_staged_is_nothing_to_audit(shop: Shop) -> None:
    result = shop.run("audit")
    assert "nothing is staged that could be audited" in failure_of(result, "events__audit")


def test_batches_of_a_shadow_run(shop: Shop, read: Read) -> None:
    shop.stage(SIX[0], SIX[4], batches=2)
    assert shop.source.calls == [SIX[:2], SIX[2:4], SIX[4:5]]
    shop.audit()
    assert shop.publish(SIX[0], SIX[4]).success
    assert counts(read) == dict.fromkeys(SIX[:5], 3)


def test_what_waits_for_a_person_is_not_taken_by_another(shop: Shop) -> None:
    shop.stage(SIX[0], SIX[1])
    shop.stage(SIX[1], SIX[2])
    assert shop.source.calls == [SIX[:2], SIX[1:3]]


class TestResuming:
    """Of two batches, the second breaks or is rejected."""

    def broken_off(self, shop: Shop, error: type[Exception] = RuntimeError, **options: Any) -> dg.DagsterRun:
        shop.source.broken, shop.source.error = {SIX[3]}, error
        result = shop.run("shadow", first=SIX[0], last=SIX[3], batches=2, **options)
        assert not result.success
        shop.source.broken = set()
        shop.source.calls.clear()
        return result.dagster_run

    def rejected(self, shop: Shop) -> dg.DagsterRun:
        shop.source.rows_per_day = 2
        shop.source.spoiled[SIX[3], 0] = -1.0
        result = shop.run("shadow", first=SIX[0], last=SIX[3], batches=2)
        assert not result.success
        shop.source.rows_per_day = 3
        shop.source.spoiled.clear()
        shop.source.calls.clear()
        return result.dagster_run

    def test_a_re_execution_computes_what_is_missing(self, shop: Shop, read: Read) -> None:
        again = self.broken_off(shop)
        shop.stage(SIX[0], SIX[3], again=again, batches=2)
        assert shop.source.calls == [SIX[2:4]]
        shop.audit()
        assert shop.publish(SIX[0], SIX[3]).success
        assert counts(read) == dict.fromkeys(SIX[:4], 3)

    def test_a_re_execution_of_its_backfill_computes_what_is_missing(self, shop: Shop) -> None:
        self.broken_off(shop, ConnectionError, tags={"dagster/backfill": "first"})
        tags = {"dagster/backfill": "again", "dagster/root_backfill_id": "first"}
        shop.stage(SIX[0], SIX[3], tags=tags, batches=2)
        assert shop.source.calls == [SIX[2:4]]

    def test_a_retry_of_the_step_computes_what_is_missing(self, shop: Shop) -> None:
        shop.source.broken, shop.source.mends_itself = {SIX[3]}, True
        shop.stage(SIX[0], SIX[3], batches=2, retry_policy=dg.RetryPolicy(max_retries=1))
        assert shop.source.calls == [SIX[:2], SIX[2:4], SIX[2:4]]

    def test_a_new_launch_computes_all(self, shop: Shop, read: Read) -> None:
        shop.source.rows_per_day = 2
        self.broken_off(shop)
        shop.source.rows_per_day = 3
        shop.stage(SIX[0], SIX[3], batches=2)
        assert shop.source.calls == [SIX[:2], SIX[2:4]]
        shop.audit()
        assert shop.publish(SIX[0], SIX[3]).success
        assert counts(read) == dict.fromkeys(SIX[:4], 3)

    def test_a_re_execution_of_a_run_that_succeeded_computes_all(self, shop: Shop, read: Read) -> None:
        shop.source.rows_per_day = 2
        staged = shop.stage(SIX[0], SIX[3], batches=2)
        shop.source.rows_per_day = 3
        shop.stage(SIX[0], SIX[3], again=staged.dagster_run, batches=2)
        assert shop.source.calls == [SIX[:2], SIX[2:4]] * 2
        shop.audit()
        assert shop.publish(SIX[0], SIX[3]).success
        assert counts(read) == dict.fromkeys(SIX[:4], 3)

    @pytest.mark.parametrize("is_again", [False, True], ids=["launched", "re-executed"])
    def test_nothing_is_taken_up_of_a_run_that_was_rejected(self, shop: Shop, read: Read, is_again: bool) -> None:
        rejected = self.rejected(shop)
        shop.stage(SIX[0], SIX[3], again=rejected if is_again else None, from_failure=False, batches=2)
        assert shop.source.calls == [SIX[:2], SIX[2:4]]
        shop.audit()
        assert shop.publish(SIX[0], SIX[3]).success
        assert counts(read) == dict.fromkeys(SIX[:4], 3)

    def test_what_passed_in_a_rejected_run_stays_staged(self, shop: Shop, read: Read) -> None:
        """It is green, so that a re-execution of its backfill runs the others only."""
        self.rejected(shop)
        shop.stage(SIX[3])
        assert shop.source.calls == [SIX[3:4]]
        shop.audit()
        assert shop.publish(SIX[0], SIX[3]).success
        assert counts(read) == {**dict.fromkeys(SIX[:3], 2), SIX[3]: 3}


@pytest.mark.parametrize("at", ["audit", "published"])
def test_what_its_upstream_has_overtaken_is_refused(shop: Shop, read: Read, at: str) -> None:
    upstream = dg.AssetSpec("upstream", partitions_def=DAYS)
    options = {"deps": [upstream], "beside": [upstream]}
    shop.stage(SIX[0], SIX[3], **options)
    if at == "published":
        shop.audit(**options)
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(upstream.key, partition=SIX[1]))
    selected = {"first": SIX[0], "last": SIX[3]} if at == "published" else {}
    result = shop.run(at, **selected, **options)
    message = failure_of(result, "events" if at == "published" else "events__audit")
    assert f"1 of 4 staged partitions are not what would be computed now ({SIX[1]}: upstream changed since)" in message
    assert "Materialize these partitions of events__shadow again." in message
    assert not is_live(read)
    shop.stage(SIX[1], **options)
    shop.audit(**options)
    assert shop.publish(SIX[0], SIX[3], **options).success


def test_outdated_inputs_can_be_accepted(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    upstream = dg.AssetSpec("upstream", partitions_def=DAYS)
    options = {"deps": [upstream], "beside": [upstream]}
    accept = {"safe_backfill/outdated_inputs": "accept"}
    shop.stage(SIX[0], SIX[2], **options)
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(upstream.key, partition=SIX[1]))
    result = shop.audit(tags=accept, **options)
    (event,) = result.asset_materializations_for_node("events__audit")
    assert event.metadata["outdated"].value == [SIX[1]]
    said = f"inputs of these partitions changed since they were computed ({SIX[1]}: upstream changed since)"
    assert said in capfd.readouterr().err
    assert shop.publish(SIX[0], SIX[2], tags=accept, **options).success


@pytest.mark.parametrize("strategy", ["merge", "replace", "swap"])
def test_every_strategy_publishes_what_was_staged(shop: Shop, read: Read, strategy: str) -> None:
    every = ("shadow", "audit", "published")
    assert shop.run(*every, first=SIX[0], last=SIX[3], publish=strategy).success
    shop.source.spoiled[SIX[1], 2] = 9.0
    assert shop.run(*every, first=SIX[0], last=SIX[1], publish=strategy).success
    assert counts(read) == dict.fromkeys(SIX[:4], 3)
    assert read("SELECT strftime(day, '%Y-%m-%d') FROM events WHERE value = 9") == [(SIX[1],)]


def test_a_rollback_undoes_it(shop: Shop, read: Read) -> None:
    shop.run("shadow", "audit", "published", first=SIX[0], last=SIX[1])
    job = sb.build_rollback_job(shop.assets().published)
    assert job.execute_in_process(resources={"io_manager": shop.io_manager}, instance=shop.instance).success
    assert counts(read) == {}
    assert "rolled back, and not staged again since" in shop.refused(SIX[0])


def test_what_was_rolled_back_is_not_green_again_by_a_retry(shop: Shop, read: Read) -> None:
    first = shop.run("shadow", "audit", "published", first=SIX[0], last=SIX[1])
    job = sb.build_rollback_job(shop.assets().published)
    assert job.execute_in_process(resources={"io_manager": shop.io_manager}, instance=shop.instance).success
    again = dg.materialize(
        [*shop.assets()],
        selection=[shop.assets().published],
        # As a re-execution of the first run has it.
        tags={RANGE_START: SIX[0], RANGE_END: SIX[1], "dagster/root_run_id": first.run_id},
        resources={"io_manager": shop.io_manager},
        instance=shop.instance,
        raise_on_error=False,
    )
    assert not again.success
    assert "rolled back, and not staged again since" in failure_of(again, "events")
    assert counts(read) == {}


def test_the_key_and_schema_of_the_table_are_the_live_assets(shop: Shop, read: Read) -> None:
    assets = shop.assets(key=["nyc", "flights"], table=sb.TableOptions(schema="other"))
    assert [asset.key.to_user_string() for asset in assets] == [
        "nyc/flights__shadow",
        "nyc/flights__audit",
        "nyc/flights",
    ]
    result = dg.materialize(
        [*assets],
        tags={RANGE_START: SIX[0], RANGE_END: SIX[1]},
        resources={"io_manager": shop.io_manager},
        instance=shop.instance,
    )
    assert result.success
    assert counts(read, "other.flights") == dict.fromkeys(SIX[:2], 3)
