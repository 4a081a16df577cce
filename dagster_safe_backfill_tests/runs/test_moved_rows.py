"""Runs of assets whose rows move with their keys: what Dagster is told of the partitions that rows leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, green, metadata_by_partition, run_range
from dagster_safe_backfill_tests.runs.test_staged import Shop

pytestmark = pytest.mark.every_warehouse

ONE, TWO, THREE, FOUR = DAYS.get_partition_keys()[:4]
MOVE = sb.Merge(on_moved_key="move")


class Orders:
    """An asset whose rows are identified by `id` alone, and the days on which they are now."""

    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, **options: Any) -> None:
        self.io_manager, self.instance, self.options = io_manager, instance, options
        self.days: dict[str, set[int]] = {ONE: {1, 2}, TWO: {3}, THREE: {4}}
        self.broken: set[str] = set()

    @property
    def asset(self) -> dg.AssetsDefinition:
        arguments: dict[str, Any] = {
            "partitions_def": DAYS,
            "partition_expr": "day",
            "unique_key": ["id"],
            "publish": MOVE,
            "backfill_policy": sb.single_run(),
            "code_version": "1",
        }

        @sb.wap_asset(**(arguments | self.options))
        def orders(partitions: sb.PartitionSlice) -> pd.DataFrame:
            if self.broken.intersection(partitions.keys):
                raise RuntimeError("broken")
            rows = [(pd.Timestamp(key), number) for key in partitions.keys for number in sorted(self.days[key])]
            return pd.DataFrame(rows, columns=["day", "id"]).astype({"id": "int64", "day": "datetime64[us]"})

        return orders

    def run(self, first: str, last: str = "", **options: Any) -> dg.ExecuteInProcessResult:
        return run_range(
            [self.asset], first, last or first, io_manager=self.io_manager, instance=self.instance, **options
        )

    def observations(self) -> Mapping[str, dg.AssetObservation]:
        records = self.instance.fetch_observations(dg.AssetKey("orders"), limit=100).records
        return {str(record.partition_key): record.asset_observation for record in records if record.asset_observation}


@pytest.fixture
def orders(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Orders:
    return Orders(io_manager, instance)


def live(read: Read) -> list[tuple[str, int]]:
    return [(row[0], row[1]) for row in read("SELECT day::DATE::TEXT, id FROM orders ORDER BY id")]


def test_the_partition_that_rows_left_is_materialized_again(orders: Orders, read: Read) -> None:
    assert orders.run(ONE, THREE).success
    orders.days[TWO] = {1, 3}
    result = orders.run(TWO)
    assert result.success
    assert live(read) == [(TWO, 1), (ONE, 2), (TWO, 3), (THREE, 4)]
    assert green(orders.instance, "orders") == {ONE, TWO, THREE}
    told = metadata_by_partition(result, "orders")
    assert {*told} == {ONE, TWO}
    assert told[ONE]["moved_to"] == TWO
    assert (told[ONE]["rows_deleted"], told[ONE]["rows_unchanged"], told[ONE]["dagster/partition_row_count"]) == (
        1,
        1,
        1,
    )
    assert told[ONE]["publication_id"] == told[TWO]["publication_id"] == result.run_id
    assert told[ONE]["archive"] == told[TWO]["archive"]
    assert told[TWO]["moved_from"] == ONE
    assert told[TWO]["moves"] == f"rows move with their keys from {ONE} to {TWO}"
    (event,) = [one for one in result.asset_materializations_for_node("orders") if one.partition == ONE]
    assert str(event.description).startswith(f"1 row moved to {TWO}")
    # Again: nothing moves, and nobody is told that something did.
    again = metadata_by_partition(orders.run(TWO), "orders")
    assert {*again} == {TWO}
    assert "moved_from" not in again[TWO]
    assert (again[TWO]["rows_inserted"], again[TWO]["rows_unchanged"]) == (0, 2)


def test_a_partition_that_was_not_green_does_not_turn_green(orders: Orders, backend: Any, read: Read) -> None:
    assert orders.run(TWO, THREE).success
    backend.change(f"INSERT INTO orders VALUES (TIMESTAMP '{ONE}', 1), (TIMESTAMP '{ONE}', 2)")
    orders.days[TWO] = {1, 3}
    assert orders.run(TWO).success
    assert live(read)[0] == (TWO, 1)
    assert green(orders.instance, "orders") == {TWO, THREE}
    assert orders.observations()[ONE].metadata["rows_deleted"].value == 1


def test_batches_that_are_published_one_by_one(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    orders = Orders(io_manager, instance, batches=sb.Batches(size=1, publish_each=True))
    assert orders.run(ONE, THREE).success
    # A row of the third day moves to the second, whose batch is the first; and that of the third is broken.
    orders.days |= {TWO: {3, 4}, THREE: {5}}
    orders.broken = {THREE}
    failed = orders.run(TWO, THREE)
    assert not failed.success
    assert live(read) == [(ONE, 1), (ONE, 2), (TWO, 3), (TWO, 4)]
    # Not a materialization: Dagster would take it for the result of this run.
    records = instance.fetch_materializations(dg.AssetKey("orders"), limit=100).records
    assert [one.partition_key for one in records if one.run_id == failed.run_id] == [TWO]
    assert orders.observations()[THREE].metadata["moved_to"].value == TWO
    orders.broken = set()
    assert orders.run(THREE, again=failed.dagster_run).success
    assert live(read)[-1] == (THREE, 5)


def test_a_row_that_two_batches_of_a_run_exchange(
    io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read
) -> None:
    for each in (False, True):
        orders = Orders(io_manager, instance, batches=sb.Batches(size=1, publish_each=each))
        orders.days = {ONE: {1}, TWO: {2}, THREE: {3}} if each else {ONE: {3}, TWO: {1}, THREE: {2}}
        assert orders.run(ONE, THREE).success
        assert live(read) == sorted([(day, *ids) for day, ids in orders.days.items()], key=lambda row: row[1])


def test_a_key_that_two_batches_compute(orders: Orders) -> None:
    orders.options = {"batches": sb.Batches(size=1, publish_each=True)}
    orders.days = {ONE: {1}, TWO: {1}, THREE: {3}}
    assert "same run or backfill has published" in failure_of(orders.run(ONE, THREE), "orders")


def test_a_conflict_is_computed_again(orders: Orders, backend: Any, read: Read) -> None:
    """What is staged is reused only if the partition that its rows leave is as it was."""
    assert orders.run(ONE, THREE).success
    orders.options = {"batches": 1, "audits": [sb.expression("id < 100")], "retry_policy": None}
    orders.days |= {TWO: {1, 3}, THREE: {4}}
    orders.broken = {THREE}
    failed = orders.run(TWO, THREE)
    assert not failed.success
    backend.change("UPDATE orders SET id = 7 WHERE id = 2")
    orders.broken = set()
    result = orders.run(TWO, THREE, again=failed.dagster_run)
    assert result.success
    assert live(read) == [(TWO, 1), (TWO, 3), (THREE, 4), (ONE, 7)]


def test_what_is_staged_is_reused_with_its_moves(orders: Orders, read: Read, capfd: pytest.CaptureFixture[str]) -> None:
    assert orders.run(ONE, THREE).success
    orders.options = {"batches": 1}
    orders.days |= {TWO: {1, 3}}
    orders.broken = {THREE}
    failed = orders.run(TWO, THREE)
    orders.broken = set()
    capfd.readouterr()
    result = orders.run(TWO, THREE, again=failed.dagster_run)
    assert result.success
    assert "reusing 1 partitions" in capfd.readouterr().err
    assert live(read)[0] == (TWO, 1)


def test_staged_assets(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read) -> None:
    shop = Shop(io_manager, instance)
    shop.source.rows_per_day = 1
    by_value = {"unique_key": ["value"], "audits": [], "publish": MOVE}
    shop.source.spoiled |= {(ONE, 0): 1.0, (TWO, 0): 2.0}
    assert shop.run("shadow", "audit", "published", first=ONE, last=TWO, **by_value).success
    shop.source.spoiled |= {(TWO, 0): 1.0}
    shop.stage(TWO, **by_value)
    shop.audit(**by_value)
    result = shop.publish(TWO, **by_value)
    assert result.success
    assert read("SELECT day::DATE::TEXT, value FROM events") == [(TWO, 1.0)]
    told = metadata_by_partition(result, "events")
    assert told[ONE]["moved_to"] == TWO
    # The row went elsewhere after the audit.
    shop.source.spoiled |= {(THREE, 0): 1.0, (FOUR, 0): 1.0}
    shop.stage(THREE, **by_value)
    shop.audit(**by_value)
    assert shop.run("shadow", "audit", "published", first=FOUR, **by_value).success
    assert f"({FOUR}: published by" in shop.refused(THREE, **by_value)
    assert read("SELECT day::DATE::TEXT, value FROM events") == [(FOUR, 1.0)]


CITIES = dg.MultiPartitionsDefinition({"day": DAYS, "city": dg.StaticPartitionsDefinition(["oslo", "rome"])})


def test_multi_partitions(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read) -> None:
    rows: dict[int, tuple[str, str]] = {1: (ONE, "oslo"), 2: (ONE, "rome"), 3: (TWO, "oslo")}

    @sb.wap_asset(
        partitions_def=CITIES,
        partition_expr={"day": "day", "city": "city"},
        unique_key=["id"],
        publish=MOVE,
        code_version="1",
        table=sb.TableOptions(on_outside="drop"),
    )
    def orders(partitions: sb.PartitionSlice) -> pd.DataFrame:
        found = [(pd.Timestamp(day).date(), city, number) for number, (day, city) in rows.items()]
        return pd.DataFrame(found, columns=["day", "city", "id"])

    def run(day: str, city: str) -> dg.ExecuteInProcessResult:
        key = dg.MultiPartitionKey({"day": day, "city": city})
        return dg.materialize([orders], partition_key=key, resources={"io_manager": io_manager}, instance=instance)

    for day, city in ((ONE, "oslo"), (ONE, "rome"), (TWO, "oslo")):
        assert run(day, city).success
    rows[1] = (TWO, "oslo")
    told = metadata_by_partition(run(TWO, "oslo"), "orders")
    assert read("SELECT day::TEXT, city, id FROM orders ORDER BY id") == [
        (TWO, "oslo", 1),
        (ONE, "rome", 2),
        (TWO, "oslo", 3),
    ]
    assert told[f"oslo|{ONE}"]["moved_to"] == f"oslo|{TWO}"
    rows[1] = (TWO, "rome")
    run(TWO, "rome")
    assert read("SELECT day::TEXT, city FROM orders WHERE id = 1") == [(TWO, "rome")]


def test_a_row_of_a_deleted_partition(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance, read: Read) -> None:
    shops = dg.DynamicPartitionsDefinition(name="shops")
    where = {1: "a", 2: "b"}

    @sb.wap_asset(
        partitions_def=shops,
        partition_expr="shop",
        unique_key=["id"],
        publish=MOVE,
        code_version="1",
        table=sb.TableOptions(on_empty="allow"),
    )
    def orders(partitions: sb.PartitionSlice) -> pd.DataFrame:
        rows = [(shop, number) for number, shop in where.items() if shop in partitions.keys]
        return pd.DataFrame(rows, columns=["shop", "id"])

    def run(key: str) -> dg.ExecuteInProcessResult:
        return run_range([orders], key, key, io_manager=io_manager, instance=instance)

    instance.add_dynamic_partitions("shops", ["a", "b"])
    assert run("a").success
    assert run("b").success
    instance.delete_dynamic_partition("shops", "a")
    where[1] = "b"
    assert "in none of the partitions that the asset has" in failure_of(run("b"), "orders")
    instance.add_dynamic_partitions("shops", ["a"])
    assert run("b").success
    assert read("SELECT shop, id FROM orders ORDER BY id") == [("b", 1), ("b", 2)]


def test_the_rollback_job(orders: Orders, read: Read) -> None:
    assert orders.run(ONE, THREE).success
    before = live(read)
    orders.days[TWO] = {1, 3}
    assert orders.run(TWO).success
    job = sb.build_rollback_job(orders.asset)
    resources = {"io_manager": orders.io_manager}
    config = {"ops": {"rollback_orders_op": {"config": {"partitions": [TWO]}}}}
    part = job.execute_in_process(config, resources=resources, instance=orders.instance, raise_on_error=False)
    assert not part.success
    result = job.execute_in_process(resources=resources, instance=orders.instance)
    assert live(read) == before
    assert {one.partition for one in result.all_events if one.is_step_materialization} == {ONE, TWO}
