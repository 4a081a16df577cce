"""Staged rows aren't reused or published under another definition of their asset than the one that computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import DAYS, JANUARY, Rates, defined

pytestmark = pytest.mark.every_warehouse

D = JANUARY
NEW_YORK = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01", timezone="America/New_York")


@pytest.fixture
def rates(backend: Backend, instance: dg.DagsterInstance) -> Rates:
    return Rates(backend, instance)


def by_time(rates: Rates, step: str, *, is_naive: bool = True) -> Callable[..., object]:
    """Return a function with a row for each step of its partitions' windows, whose value is its number since 2024."""

    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
        world.called(partitions.keys)
        start = pd.Timestamp("2024-01-01", tz="UTC")
        times = pd.date_range(partitions.start, partitions.end, freq=step, inclusive="left").tz_convert("UTC")
        values = [int((time - start) / pd.Timedelta(step)) for time in times]
        return pd.DataFrame({"day": times.tz_localize(None).as_unit("us"), "value": values})

    world = rates
    return revenue


class TestPartitionsThatMeanSomethingElse:
    """The first of three partitions is staged when the run breaks; then the keys stand for other windows or values."""

    def again(
        self,
        rates: Rates,
        function: Callable[..., object],
        first: tuple[dg.PartitionsDefinition[str], str, str],
        second: tuple[dg.PartitionsDefinition[str], str, str],
        **options: Any,
    ) -> None:
        # Audits don't get in the way, and neither does the number of rows that the same time has in both.
        further: dict[str, Any] = {"audits": [], **options}
        rates.breaks(first[2])
        rates.run([defined(rates, function, partitions_def=first[0], **further)], first[1], first[2])
        assert rates.calls[0] == (first[1],)
        result = rates.run(
            [defined(rates, function, partitions_def=second[0], **further)], second[1], second[2], again=rates.last
        )
        assert result is not None
        assert result.success, rates.said(result)

    def test_days_become_weeks(self, rates: Rates) -> None:
        weeks = dg.WeeklyPartitionsDefinition("2024-01-07", end_date="2024-03-03")
        self.again(rates, by_time(rates, "1D"), (DAYS, "2024-01-07", "2024-01-08"), (weeks, "2024-01-07", "2024-01-07"))
        assert rates.values() == [*range(6, 13)]

    def test_weeks_become_days(self, rates: Rates) -> None:
        weeks = dg.WeeklyPartitionsDefinition("2024-01-07", end_date="2024-03-03")
        self.again(rates, by_time(rates, "1D"), (weeks, "2024-01-07", "2024-01-14"), (DAYS, "2024-01-07", "2024-01-08"))
        assert rates.values() == [6, 7]

    def test_another_time_zone(self, rates: Rates) -> None:
        self.again(
            rates,
            by_time(rates, "1h"),
            (DAYS, D[1], D[2]),
            (NEW_YORK, D[1], D[1]),
            table=sb.TableOptions(column_timezone="UTC"),
        )
        assert rates.values() == [*range(29, 53)]

    def test_another_time_zone_of_dates(self, rates: Rates) -> None:
        """The dates are the same, and what is of a date isn't."""

        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            world.called(partitions.keys)
            starts = [window.start for window in partitions.dimensions[0].windows]  # type: ignore[union-attr]
            return pd.DataFrame(
                {
                    "day": [pd.Timestamp(key).date() for key in partitions.keys],
                    "value": [start.hour for start in starts],
                }
            )

        world = rates
        self.again(rates, revenue, (DAYS, D[0], D[2]), (NEW_YORK, D[0], D[2]))
        assert rates.values() == [5, 5, 5]

    def test_another_hour(self, rates: Rates) -> None:
        later = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01", hour_offset=6)
        self.again(rates, by_time(rates, "1h"), (DAYS, D[0], D[1]), (later, D[0], D[0]))
        assert rates.values() == [*range(6, 30)]

    def test_another_minute(self, rates: Rates) -> None:
        def hours(minute: int) -> dg.HourlyPartitionsDefinition:
            return dg.HourlyPartitionsDefinition(
                "2024-01-01-00", end_date="2024-01-03-00", minute_offset=minute, fmt="%Y-%m-%d-%H"
            )

        first, last = "2024-01-01-01", "2024-01-01-02"
        self.again(rates, by_time(rates, "15min"), (hours(0), first, last), (hours(30), first, last))
        assert rates.values() == [*range(6, 14)]

    def test_a_static_key_of_another_kind_of_partition(self, rates: Rates) -> None:
        static = dg.StaticPartitionsDefinition([*D[:3]])

        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            world.called(partitions.keys)
            is_text = hasattr(partitions.dimensions[0], "values")
            values = [(100 if is_text else 1) * int(key[-2:]) for key in partitions.keys]
            return pd.DataFrame({"day": [*partitions.keys], "value": values})

        world = rates
        expr = {"partition_expr": "CAST(day AS DATE)"}
        rates.breaks(D[1])
        rates.run([defined(rates, revenue, audits=[], partitions_def=DAYS, **expr)], D[0], D[1])
        rates.run([defined(rates, revenue, audits=[], partitions_def=static)], D[0], D[1], again=rates.last)
        assert rates.values() == [100, 200]

    def test_a_dimension_becomes_weekly(self, rates: Rates) -> None:
        weeks = dg.WeeklyPartitionsDefinition("2024-01-07", end_date="2024-03-03")
        shops = dg.StaticPartitionsDefinition(["a", "b"])

        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            world.called(partitions.keys)
            rows: list[tuple[Any, ...]] = []
            dates, names = partitions.dimensions
            for window, shop in zip(dates.windows, names.values, strict=True):  # type: ignore[union-attr]
                times = pd.date_range(window.start, window.end, freq="1D", inclusive="left").tz_localize(None)
                rows += [(time, shop, time.dayofyear) for time in times]
            return pd.DataFrame(rows, columns=["day", "shop", "value"]).astype({"day": "datetime64[us]"})

        world = rates
        options: dict[str, Any] = {
            "partition_expr": {"date": "day", "shop": "shop"},
            "unique_key": ["day", "shop"],
            "audits": [],
        }
        key = "2024-01-07|a"
        for dates in (DAYS, weeks):
            both = dg.MultiPartitionsDefinition({"date": dates, "shop": shops})
            rates.kills("2024-01-07|b") if dates is DAYS else None
            asset = defined(rates, revenue, partitions_def=both, **options)
            rates.run([asset], *(("2024-01-07|a", "2024-01-07|b") if dates is DAYS else (key,)))
        assert rates.values() == [*range(7, 14)]

    def test_more_partitions_at_the_end_change_none(self, rates: Rates) -> None:
        rates.breaks(D[1])
        rates.run([defined(rates)], D[0], D[1])
        more = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01", end_offset=1)
        rates.run([defined(rates, partitions_def=more)], D[0], D[1], again=rates.last)
        assert rates.calls == [D[1:2]]
        assert rates.values() == [1, 2]


def one_row(rates: Rates, **columns: list[Any]) -> Callable[..., object]:
    """Return a function whose rows of each day have these columns, too."""

    def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
        world.called(partitions.keys)
        length = len(next(iter(columns.values())))
        days = [pd.Timestamp(key) for key in partitions.keys for _ in range(length)]
        every = {name: values * len(partitions.keys) for name, values in columns.items()}
        return pd.DataFrame({"day": pd.DatetimeIndex(days).as_unit("us"), **every})

    world = rates
    return revenue


class TestRulesOfTheTable:
    def broken(self, rates: Rates, function: Callable[..., object], **options: Any) -> None:
        rates.breaks(D[1])
        assert "gone" in rates.said(rates.run([defined(rates, function, audits=[], **options)], D[0], D[1]))

    def again(self, rates: Rates, function: Callable[..., object], **options: Any) -> Any:
        return rates.run([defined(rates, function, audits=[], **options)], D[0], D[1], again=rates.last)

    def test_the_unique_key(self, rates: Rates) -> None:
        latest = sb.TableOptions(on_duplicate=sb.keep_latest("value"))
        function = one_row(rates, id=[1, 2], value=[10, 20])
        self.broken(rates, function, unique_key="day", table=latest)
        self.again(rates, function, unique_key=["day", "id"], table=latest)
        assert rates.values() == [10, 20, 10, 20]

    def test_what_is_a_duplicate(self, rates: Rates) -> None:
        function = one_row(rates, value=[10, 20])
        self.broken(rates, function, table=sb.TableOptions(on_duplicate=sb.keep_latest("value")))
        assert "unique_key" in rates.said(self.again(rates, function))
        assert rates.calls == [D[:1], D[1:2]]

    def test_by_which_column_the_latest_is_known(self, rates: Rates) -> None:
        function = one_row(rates, value=[10, 20], other=[2, 1])
        self.broken(rates, function, table=sb.TableOptions(on_duplicate=sb.keep_latest("value")))
        self.again(rates, function, table=sb.TableOptions(on_duplicate=sb.keep_latest("other")))
        assert rates.values() == [10, 10]

    def test_the_partition_column(self, rates: Rates) -> None:
        """Rows of the day before by another column are no rows of the day."""
        function = one_row(rates, value=[1], other=[pd.Timestamp("2024-01-01")])
        options: dict[str, Any] = {"table": sb.TableOptions(on_outside="drop", on_empty="allow")}
        self.broken(rates, function, **options)
        self.again(rates, function, partition_expr="other", **options)
        assert rates.calls == [D[:1], D[1:2]]
        assert rates.values() == [1]

    def test_rows_outside(self, rates: Rates) -> None:
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            world.called(partitions.keys)
            days = [pd.Timestamp(partitions.keys[0]), pd.Timestamp("2024-02-20")]
            return pd.DataFrame({"day": pd.DatetimeIndex(days).as_unit("us"), "value": [1, 2]})

        world = rates
        self.broken(rates, revenue, table=sb.TableOptions(on_outside="drop"))
        assert "outside" in rates.said(self.again(rates, revenue))
        assert rates.calls == [D[:1]]

    def test_the_time_zone_of_the_column(self, rates: Rates) -> None:
        """The rows of the first five hours belong to the day before in New York."""
        hours = [pd.Timestamp("2024-01-02") + pd.Timedelta(hours=hour) for hour in range(-24, 24)]

        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame:
            world.called(partitions.keys)
            return pd.DataFrame({"day": pd.DatetimeIndex(hours).as_unit("us"), "value": [*range(-24, 24)]})

        world = rates
        options: dict[str, Any] = {"partitions_def": NEW_YORK}
        drop: dict[str, Any] = {"on_outside": "drop"}
        self.broken(rates, revenue, table=sb.TableOptions(column_timezone="America/New_York", **drop), **options)
        self.again(rates, revenue, table=sb.TableOptions(column_timezone="UTC", **drop), **options)
        assert rates.values() == [*range(-19, 24)]

    def test_the_column_of_the_last_change(self, rates: Rates) -> None:
        self.broken(rates, one_row(rates, value=[1]), table=sb.TableOptions(updated_at_column="updated_at"))
        self.again(rates, one_row(rates, value=[1]), table=sb.TableOptions(updated_at_column="changed_at"))
        assert rates.calls == [D[:1], D[1:2]]
        assert rates.values(column="changed_at IS NOT NULL") == [True, True]

    def test_what_has_no_part_in_the_rows(self, rates: Rates) -> None:
        """Audits judge what is reused again, and how rows are published doesn't change them."""
        self.broken(rates, one_row(rates, value=[1]))
        further: dict[str, Any] = {"publish": "replace", "limits": sb.Limits(max_retries=1)}
        self.again(rates, one_row(rates, value=[1]), **further)
        assert rates.calls == [D[1:2]]
        assert rates.values() == [1, 1]


def test_new_audits_judge_what_is_reused(rates: Rates) -> None:
    rates.breaks(D[2])
    rates.run([defined(rates)], D[0], D[2])
    strict = [sb.expression("value < 2", name="smaller")]
    assert "smaller" in rates.said(rates.run([defined(rates, audits=strict)], D[0], D[2], again=rates.last))


@pytest.mark.parametrize("change", ["added", "removed", "another mapping", "of other partitions"])
def test_upstream_assets(rates: Rates, change: str) -> None:
    days, months = (
        dg.AssetSpec("source", partitions_def=DAYS),
        dg.AssetSpec("source", partitions_def=dg.MonthlyPartitionsDefinition("2024-01-01", end_date="2024-03-01")),
    )
    before = dg.AssetDep(days, partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1))
    plain: list[Any] = [dg.AssetDep(days)]
    first, second, source = {
        "added": ([], plain, days),
        "removed": (plain, [], days),
        "another mapping": (plain, [before], days),
        "of other partitions": (plain, plain, months),
    }[change]
    rates.held["rates"] = 2
    rates.breaks(D[1])
    rates.run([defined(rates, deps=first), days], D[0], D[1])
    rates.held["rates"] = 1
    rates.run([defined(rates, deps=second), source], D[0], D[1], again=rates.last)
    assert rates.values() == [1, 2]


@pytest.mark.parametrize("part", ["config", "resource"])
@pytest.mark.parametrize("is_changed", [False, True])
def test_what_a_run_is_given(rates: Rates, part: str, is_changed: bool) -> None:
    class Factor(dg.Config):
        factor: int

    class Api(dg.ConfigurableResource):
        factor: int

    def by_config(config: Factor, partitions: sb.PartitionSlice) -> pd.DataFrame:
        return world.rows(partitions.keys, config.factor)

    def by_resource(api: dg.ResourceParam[Api], partitions: sb.PartitionSlice) -> pd.DataFrame:
        return world.rows(partitions.keys, api.factor)

    # Dagster reads the annotations by their names, and these aren't global.
    by_config.__annotations__["config"], by_resource.__annotations__["api"] = Factor, Api
    world = rates
    asset = defined(rates, by_config if part == "config" else by_resource)

    def run(factor: int) -> None:
        config = {"ops": {"revenue": {"config": {"factor": factor}}}} if part == "config" else None
        resources = {"api": Api(factor=factor)} if part == "resource" else None
        rates.run([asset], D[0], D[1], again=rates.last, run_config=config, resources=resources)

    rates.breaks(D[1])
    run(3)
    run(1 if is_changed else 3)
    assert rates.calls == ([D[:1], D[1:2]] if is_changed else [D[1:2]])
    assert rates.values() == ([1, 2] if is_changed else [3, 6])
