"""`x__audit` and `x` refuse by name what isn't what `x__shadow` would compute now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import DAYS, JANUARY, MONTHS, Rates, times_rates

pytestmark = pytest.mark.every_warehouse

D = JANUARY
Door = Literal["audit", "published"]
DOORS = pytest.mark.parametrize("door", ["audit", "published"])
DAY_BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


class Staged(Rates):
    """The three assets of `revenue`, and runs of each."""

    def assets(self, body: Callable[..., object] | None = None, **options: Any) -> sb.StagedWapAssets:
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            return self.rows(partitions.keys, self.held["rates"])

        arguments: dict[str, Any] = {
            "partitions_def": DAYS,
            "partition_expr": "day",
            "unique_key": "day",
            "backfill_policy": sb.single_run(),
            "limits": sb.Limits(retry_wait=0.0),
            "code_version": "1",
        }
        return sb.build_staged_wap_assets(body or revenue, **(arguments | options))

    def step(
        self,
        which: str,
        assets: sb.StagedWapAssets,
        *beside: dg.AssetsDefinition | dg.AssetSpec,
        keys: tuple[str, ...] = D[:3],
        **options: Any,
    ) -> dg.ExecuteInProcessResult | None:
        ends = () if which == "audit" else (keys[0], keys[-1])
        name = {"shadow": "revenue__shadow", "audit": "revenue__audit", "published": "revenue"}[which]
        return self.run([*assets, *beside], *ends, select=f'key:"{name}"', **options)

    def refused(
        self, door: Door, first: sb.StagedWapAssets, second: sb.StagedWapAssets, *beside: Any, mended: bool = True
    ) -> str:
        """Stage by the first definition; return why the second's audit or publication refuses; then stage again."""
        if door == "published":
            self.passes("audit", first, *beside)
        message = self.said(self.step(door, second, *beside), "revenue__audit" if door == "audit" else "revenue")
        assert not self.backend.read("SELECT 1 FROM duckdb_tables() WHERE table_name = 'revenue'")
        if mended:
            for which in ("shadow", "audit", "published"):
                self.passes(which, second, *beside)
        return message

    def passes(self, which: str, assets: sb.StagedWapAssets, *beside: Any, **options: Any) -> None:
        result = self.step(which, assets, *beside, **options)
        assert result is not None
        assert result.success


@pytest.fixture
def rates(backend: Backend, instance: dg.DagsterInstance) -> Staged:
    return Staged(backend, instance)


@DOORS
def test_an_upstream_with_other_partitions(rates: Staged, door: Door) -> None:
    """All six days read the month, and not only the one of the same key."""
    upstream, assets = rates.upstream(), rates.assets(times_rates(rates))
    rates.refresh(upstream, "2024-01-01", to=100)
    rates.passes("shadow", assets, upstream, keys=D[:6])
    if door == "published":
        rates.passes("audit", assets, upstream)
    rates.refresh(upstream, "2024-01-01", to=1)
    refused = rates.step(door, assets, upstream, keys=D[:6])
    assert "6 of 6 staged partitions" in rates.said(refused, "revenue__audit" if door == "audit" else "revenue")
    for which in ("shadow", "audit", "published"):
        rates.passes(which, assets, upstream, keys=D[:6])
    assert rates.values() == [1, 2, 3, 4, 5, 6]


@DOORS
def test_an_upstream_that_was_refreshed_while_it_was_read(rates: Staged, door: Door) -> None:
    upstream, assets = rates.upstream(), rates.assets(times_rates(rates), batches=1)
    rates.refresh(upstream, "2024-01-01", to=100)
    rates.passes("shadow", assets, upstream)
    rates.during[D[0]] = lambda: rates.refresh(upstream, "2024-01-01", to=1)
    rates.passes("shadow", assets, upstream)
    assert "3 of 3 staged partitions" in rates.refused("audit", assets, assets, upstream)
    assert rates.values() == [1, 2, 3]


@DOORS
def test_an_observed_source(rates: Staged, door: Door) -> None:
    source = dg.AssetSpec("source", partitions_def=MONTHS)
    assets = rates.assets(deps=[source])

    def observe(version: str) -> None:
        tags = {"dagster/data_version": version}
        event = dg.AssetObservation("source", partition="2024-01-01", tags=tags)
        rates.instance.report_runless_asset_event(event)

    observe("1")
    rates.held["rates"] = 3
    rates.passes("shadow", assets, source)
    if door == "published":
        rates.passes("audit", assets, source)
    rates.held["rates"] = 1
    observe("2")
    refused = rates.step(door, assets, source)
    assert "source changed since" in rates.said(refused, "revenue__audit" if door == "audit" else "revenue")
    for which in ("shadow", "audit", "published"):
        rates.passes(which, assets, source)
    assert rates.values() == [1, 2, 3]


ZONE = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01", timezone="America/New_York")
LATER = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01", hour_offset=6)
DATES = {"partition_expr": "CAST(day AS DATE)"}


@DOORS
@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({}, {"partitions_def": ZONE}, "the partition was 2024-01-01 00:00:00 to 2024-01-02 00:00:00 UTC in UTC, and"),
        ({**DATES}, {**DATES, "partitions_def": ZONE}, "UTC in America/New_York now"),
        ({"code_version": "0"}, {}, "the code changed from code_version 0 to code_version 1"),
        ({"table": sb.TableOptions(on_outside="drop")}, {}, "the table's options changed"),
        ({"table": sb.TableOptions(on_duplicate=sb.keep_latest("value"))}, {}, "the table's options changed"),
        ({"unique_key": ["day", "value"]}, {}, "the table's options changed"),
        ({"deps": ["source"]}, {}, "the asset reads other upstream assets, or other partitions of them"),
        ({}, {"deps": ["source"]}, "the asset reads other upstream assets, or other partitions of them"),
        (
            {"deps": ["source"]},
            {"deps": [dg.AssetDep("source", partition_mapping=DAY_BEFORE)]},
            "the asset reads other upstream assets, or other partitions of them",
        ),
    ],
    ids=["zone", "zone of dates", "code", "outside", "duplicates", "key", "not read", "read", "mapping"],
)
def test_a_changed_definition(
    rates: Staged, door: Door, before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    source = dg.AssetSpec("source", partitions_def=DAYS)
    rates.held["rates"] = 3
    first, second = rates.assets(**before), rates.assets(**after)
    rates.passes("shadow", first, source)
    rates.held["rates"] = 1
    is_possible = after.get("partitions_def") is None or "partition_expr" in after
    message = rates.refused(door, first, second, source, mended=is_possible)
    assert reason in message
    assert "Materialize these partitions of revenue__shadow again." in message
    if is_possible:
        assert rates.values() == [1, 2, 3]


@DOORS
def test_weeks_instead_of_days(rates: Staged, door: Door) -> None:
    """A partition that the asset no longer has can't be published; a week isn't published with the rows of a day."""
    weeks = dg.WeeklyPartitionsDefinition("2024-01-07", end_date="2024-03-03")

    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
        rates.called(partitions.keys)
        days = pd.date_range(partitions.start, partitions.end, freq="1D", inclusive="left").tz_localize(None)
        return pd.DataFrame({"day": days.as_unit("us"), "value": [day.dayofyear for day in days]})

    first, second = rates.assets(revenue), rates.assets(revenue, partitions_def=weeks)
    rates.passes("shadow", first, keys=("2024-01-07",))
    if door == "published":
        rates.passes("audit", first)
    refused = rates.step(door, second, keys=("2024-01-07",))
    message = rates.said(refused, "revenue__audit" if door == "audit" else "revenue")
    assert "2024-01-07: the partition was" in message
    for which in ("shadow", "audit", "published"):
        rates.passes(which, second, keys=("2024-01-07",))
    assert rates.values() == [*range(7, 14)]


def test_days_that_are_no_more_do_not_keep_a_week_from_being_published(rates: Staged) -> None:
    """They were staged in the same group, and the asset no longer has them."""
    weeks = dg.WeeklyPartitionsDefinition("2024-01-07", end_date="2024-03-03")

    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
        days = pd.date_range(partitions.start, partitions.end, freq="1D", inclusive="left").tz_localize(None)
        return pd.DataFrame({"day": days.as_unit("us"), "value": [day.dayofyear for day in days]})

    rates.passes("shadow", rates.assets(revenue), keys=("2024-01-07", "2024-01-08"))
    second = rates.assets(revenue, partitions_def=weeks)
    for which in ("shadow", "audit", "published"):
        rates.passes(which, second, keys=("2024-01-07",))
    assert rates.values() == [*range(7, 14)]


def test_runs_of_other_config_in_one_backfill(rates: Staged) -> None:
    """They are mixed as other versions are, and refused unless that is allowed."""

    class Factor(dg.Config):
        factor: int

    def revenue(config: Factor, partitions: sb.PartitionSlice) -> pd.DataFrame:
        return world.rows(partitions.keys, config.factor)

    revenue.__annotations__["config"] = Factor
    world = rates
    assets, mixed = rates.assets(revenue), rates.assets(revenue, publish=sb.Merge(allow_mixed_versions=True))
    for key, factor in zip(D[:3], (1, 10, 100), strict=True):
        config = {"ops": {"revenue__shadow": {"config": {"factor": factor}}}}
        rates.passes("shadow", assets, keys=(key,), run_config=config)
    assert "were staged with config" in rates.said(rates.step("audit", assets), "revenue__audit")
    rates.passes("audit", mixed)
    assert "were staged with config" in rates.said(rates.step("published", assets))
    rates.passes("published", mixed)
    assert rates.values() == [1, 20, 300]


def test_what_is_accepted_is_of_inputs_only(rates: Staged) -> None:
    source = dg.AssetSpec("source", partitions_def=DAYS)
    first, second = rates.assets(deps=[source]), rates.assets(deps=[source], code_version="2")
    rates.passes("shadow", first, source)
    rates.instance.report_runless_asset_event(dg.AssetMaterialization("source", partition=D[1]))
    accept = {"safe_backfill/outdated_inputs": "accept"}
    message = rates.said(rates.step("audit", second, source, tags=accept), "revenue__audit")
    assert "3 of 3 staged partitions are not what would be computed now" in message
    rates.passes("audit", first, source, tags=accept)
    rates.passes("published", first, source, tags=accept)
    assert rates.values() == [1, 2, 3]


def test_an_audit_that_came_after_the_audit_of_all(rates: Staged) -> None:
    """What passed other audits than the asset has now isn't published."""
    strict = [sb.expression("value < 2", name="smaller")]
    rates.passes("shadow", rates.assets())
    rates.passes("audit", rates.assets())
    refused = rates.step("published", rates.assets(audits=strict))
    assert "Materialize revenue__audit again" in rates.said(refused)
    assert not rates.backend.read("SELECT 1 FROM duckdb_tables() WHERE table_name = 'revenue'")
    wide = rates.assets(audits=[sb.expression("value < 9", name="smaller")])
    rates.passes("audit", wide)
    rates.passes("published", wide)
    assert rates.values() == [1, 2, 3]
