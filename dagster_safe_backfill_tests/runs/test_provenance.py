"""Staged rows are reused only for the partitions, inputs and definitions that they were computed from."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.observe import observe

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import DAYS, JANUARY, MONTHS, Rates, defined, times_rates

pytestmark = pytest.mark.every_warehouse

D = JANUARY
MONTH = "2024-01-01"


@pytest.fixture
def rates(backend: Backend, instance: dg.DagsterInstance) -> Rates:
    return Rates(backend, instance)


class TestUpstreamWithOtherPartitions:
    """The rate 100 passes for four days and then fails; once it is 1, a re-execution reuses nothing of it."""

    def again(self, rates: Rates, upstream: dg.AssetsDefinition, key: str | None, **options: Any) -> None:
        keys = () if key is None else (key,)
        revenue = defined(rates, times_rates(rates), **options)
        rates.refresh(upstream, *keys, to=100)
        assert "small" in rates.said(rates.run([upstream, revenue], D[0], D[5], select="revenue"))
        rates.refresh(upstream, *keys, to=1)
        again = rates.run([upstream, revenue], D[0], D[5], again=rates.last, select="revenue")
        assert again is not None
        assert again.success
        assert rates.values() == [1, 2, 3, 4, 5, 6]
        assert [key for call in rates.calls for key in call] == [*D[:6]]

    def test_months_feed_days(self, rates: Rates) -> None:
        self.again(rates, rates.upstream(), MONTH)

    def test_the_month_of_the_day_before(self, rates: Rates) -> None:
        def revenue(rates: pd.DataFrame, partitions: sb.PartitionSlice) -> pd.DataFrame:
            (key,) = partitions.keys
            month = (pd.Timestamp(key) - pd.Timedelta(days=1)).replace(day=1)
            return world.rows(partitions.keys, float(rates.set_index("period")["rate"][month]))

        world = rates
        before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
        upstream = rates.upstream()
        asset = defined(rates, revenue, ins={"rates": dg.AssetIn(partition_mapping=before)})
        rates.refresh(upstream, "2024-01-01", "2024-02-01", to=2)
        rates.breaks("2024-02-03")
        rates.run([upstream, asset], "2024-01-31", "2024-02-03", select="revenue")
        rates.refresh(upstream, "2024-01-01", to=1)
        rates.run([upstream, asset], "2024-01-31", "2024-02-03", again=rates.last, select="revenue")
        assert rates.calls == [("2024-01-31",), ("2024-02-01",), ("2024-02-03",)]
        assert rates.values() == [31, 32, 66, 68]

    def test_all_partitions(self, rates: Rates) -> None:
        ins = {"rates": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())}
        self.again(rates, rates.upstream(), "2024-02-01", ins=ins)

    def test_the_last_partition(self, rates: Rates) -> None:
        ins = {"rates": dg.AssetIn(partition_mapping=dg.LastPartitionMapping())}
        self.again(rates, rates.upstream(), "2024-02-01", ins=ins)

    def test_an_upstream_without_partitions(self, rates: Rates) -> None:
        self.again(rates, rates.upstream(partitions_def=None), None)

    def test_static_partitions_by_name(self, rates: Rates) -> None:
        def revenue(rates: pd.DataFrame, partitions: sb.PartitionSlice) -> pd.DataFrame:
            world.called(partitions.keys)
            by_half = dict(zip(rates["period"], rates["rate"], strict=True))
            values = [int(key) * by_half["low" if key < "4" else "high"] for key in partitions.keys]
            return pd.DataFrame({"day": list(partitions.keys), "value": values})

        world = rates
        mapping = dg.StaticPartitionMapping({"low": [*"123"], "high": [*"456"]})
        upstream = rates.upstream(partitions_def=dg.StaticPartitionsDefinition(["low", "high"]))
        asset = defined(
            rates,
            revenue,
            ins={"rates": dg.AssetIn(partition_mapping=mapping)},
            partitions_def=dg.StaticPartitionsDefinition([*"123456"]),
        )
        rates.refresh(upstream, "low", "high", to=100)
        assert "small" in rates.said(rates.run([upstream, asset], "1", "6", select="revenue"))
        rates.refresh(upstream, "high", to=1)
        rates.run([upstream, asset], "1", "6", again=rates.last, select="revenue")
        assert rates.calls == [("4",), ("5",), ("6",)]
        assert rates.values() == [100, 200, 300, 4, 5, 6]

    def test_only_the_partitions_that_read_the_changed_one(self, rates: Rates) -> None:
        """Two months, one of which changed: the days of the other are reused."""
        upstream, revenue = rates.upstream(), defined(rates, times_rates(rates))
        rates.refresh(upstream, "2024-01-01", "2024-02-01", to=1)
        rates.breaks("2024-02-02")
        rates.run([upstream, revenue], "2024-01-30", "2024-02-02", select="revenue")
        rates.refresh(upstream, "2024-02-01", to=2)
        rates.run([upstream, revenue], "2024-01-30", "2024-02-02", again=rates.last, select="revenue")
        assert rates.calls == [("2024-02-01",), ("2024-02-02",)]
        assert rates.values() == [30, 31, 64, 66]

    def test_one_of_two_upstreams(self, rates: Rates) -> None:
        def revenue(rates: pd.DataFrame, fees: pd.DataFrame, partitions: sb.PartitionSlice) -> pd.DataFrame:
            return world.rows(partitions.keys, float(rates["rate"].iloc[0]) + float(fees["rate"].iloc[0]))

        world = rates
        one, two = rates.upstream(), rates.upstream("fees", None)
        asset = defined(rates, revenue)
        rates.refresh(one, MONTH, to=1)
        rates.refresh(two, to=100)
        assert "small" in rates.said(rates.run([one, two, asset], D[0], D[5], select="revenue"))
        rates.refresh(two, to=0)
        rates.run([one, two, asset], D[0], D[5], again=rates.last, select="revenue")
        assert rates.values() == [1, 2, 3, 4, 5, 6]

    def test_a_partitioned_upstream_that_is_materialized_as_a_whole(self, rates: Rates) -> None:
        """An event without a partition may be of any partition."""
        upstream = dg.AssetSpec("rates", partitions_def=DAYS)
        revenue = defined(rates, deps=[upstream])
        rates.breaks(D[2])
        rates.run([upstream, revenue], D[0], D[2])
        rates.held["rates"] = 2
        rates.instance.report_runless_asset_event(dg.AssetMaterialization("rates"))
        rates.run([upstream, revenue], D[0], D[2], again=rates.last)
        assert rates.values() == [2, 4, 6]


class TestUpstreamThatChangesMeanwhile:
    def test_loaded_before(self, rates: Rates) -> None:
        upstream, revenue = rates.upstream(), defined(rates, times_rates(rates))
        rates.refresh(upstream, MONTH, to=100)
        rates.during[D[0]] = lambda: rates.refresh(upstream, MONTH, to=1)
        rates.breaks(D[2])
        assert "gone" in rates.said(rates.run([upstream, revenue], D[0], D[2], select="revenue"))
        rates.run([upstream, revenue], D[0], D[2], again=rates.last, select="revenue")
        assert rates.values() == [1, 2, 3]

    def test_loaded_before_and_then_killed(self, rates: Rates) -> None:
        upstream, revenue = rates.upstream(), defined(rates, times_rates(rates))
        rates.refresh(upstream, MONTH, to=100)
        rates.during[D[1]] = lambda: rates.refresh(upstream, MONTH, to=1)
        rates.kills(D[2])
        assert rates.run([upstream, revenue], D[0], D[2], select="revenue") is None
        rates.run([upstream, revenue], D[0], D[2], select="revenue")
        assert rates.values() == [1, 2, 3]

    def test_loaded_before_and_again_by_a_retry_of_the_step(self, rates: Rates) -> None:
        upstream = rates.upstream()
        revenue = defined(rates, times_rates(rates), retry_policy=dg.RetryPolicy(max_retries=1))
        rates.refresh(upstream, MONTH, to=100)
        rates.during[D[0]] = lambda: rates.refresh(upstream, MONTH, to=1)
        rates.breaks(D[2])
        result = rates.run([upstream, revenue], D[0], D[2], select="revenue")
        assert result is not None
        assert result.success
        assert rates.values() == [1, 2, 3]

    def test_read_by_the_function(self, rates: Rates) -> None:
        """Each batch reads anew: those after the change keep their rows, the one during which it changed doesn't."""
        upstream = rates.upstream(partitions_def=None)
        revenue = defined(rates, deps=[upstream])
        rates.refresh(upstream, to=2)
        rates.during[D[1]] = lambda: rates.refresh(upstream, to=1)
        rates.breaks(D[3])
        rates.run([upstream, revenue], D[0], D[3], select="revenue")
        rates.run([upstream, revenue], D[0], D[3], again=rates.last, select="revenue")
        assert rates.calls == [D[:1], D[1:2], D[3:4]]
        assert rates.values() == [1, 2, 3, 4]

    def test_materialized_in_the_same_run(self, rates: Rates) -> None:
        """Both are materialized again by a re-execution of all, and only the asset by one from failure."""
        upstream = rates.upstream(partitions_def=DAYS)
        revenue = defined(rates, times_rates(rates))
        rates.held["rates"] = 3
        rates.breaks(D[2])
        rates.run([upstream, revenue], D[0], D[2])
        rates.held["rates"] = 1
        rates.run([upstream, revenue], D[0], D[2], again=rates.last, select="revenue")
        assert rates.calls == [D[2:3]]
        assert rates.values() == [3, 6, 9]
        rates.breaks(D[2])
        rates.run([upstream, revenue], D[0], D[2])
        rates.run([upstream, revenue], D[0], D[2], again=rates.last, from_failure=False)
        assert rates.values() == [1, 2, 3]


class TestObservedInputs:
    """Dagster knows the source only by its data version, which an observation records."""

    def observe(self, rates: Rates, version: str, *keys: str) -> None:
        for key in keys or (None,):
            tags = {"dagster/data_version": version}
            event = dg.AssetObservation("rates", partition=key, tags=tags)
            rates.instance.report_runless_asset_event(event)

    @pytest.mark.parametrize("is_killed", [False, True], ids=["re-executed", "launched"])
    def test_an_observable_source(self, rates: Rates, is_killed: bool) -> None:
        @dg.observable_source_asset(name="rates")
        def source() -> dg.DataVersion:
            return dg.DataVersion(str(rates.held["rates"]))

        revenue = defined(rates, deps=[source])
        rates.held["rates"] = 3
        observe([source], instance=rates.instance)
        (rates.kills if is_killed else rates.breaks)(D[2])
        rates.run([source, revenue], D[0], D[2])
        rates.held["rates"] = 1
        observe([source], instance=rates.instance)
        rates.run([source, revenue], D[0], D[2], again=None if is_killed else rates.last)
        assert rates.values() == [1, 2, 3]

    def test_of_partitions(self, rates: Rates) -> None:
        source = dg.AssetSpec("rates", partitions_def=MONTHS)
        revenue = defined(rates, deps=[source])
        self.observe(rates, "1", "2024-01-01", "2024-02-01")
        rates.held["rates"] = 3
        rates.breaks("2024-02-02")
        rates.run([source, revenue], "2024-01-31", "2024-02-02")
        rates.held["rates"] = 1
        self.observe(rates, "2", "2024-02-01")
        rates.run([source, revenue], "2024-01-31", "2024-02-02", again=rates.last)
        assert rates.values() == [93, 32, 33]

    def test_of_all_partitions_at_once(self, rates: Rates) -> None:
        source = dg.AssetSpec("rates", partitions_def=MONTHS)
        revenue = defined(rates, deps=[source])
        self.observe(rates, "1", "2024-01-01")
        rates.held["rates"] = 3
        rates.breaks(D[2])
        rates.run([source, revenue], D[0], D[2])
        rates.held["rates"] = 1
        self.observe(rates, "2")
        rates.run([source, revenue], D[0], D[2], again=rates.last)
        assert rates.values() == [1, 2, 3]

    def test_the_same_version_again_is_no_change(self, rates: Rates) -> None:
        source = dg.AssetSpec("rates")
        revenue = defined(rates, deps=[source])
        self.observe(rates, "1")
        rates.breaks(D[2])
        rates.run([source, revenue], D[0], D[2])
        self.observe(rates, "1")
        rates.run([source, revenue], D[0], D[2], again=rates.last)
        assert rates.calls == [D[2:3]]
        assert rates.values() == [1, 2, 3]
