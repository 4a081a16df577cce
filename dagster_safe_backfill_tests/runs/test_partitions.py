"""Slices against Dagster's own enumeration, from every kind of definition and every kind of run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.slices import KeyDimension, TimeDimension
from dagster_safe_backfill.runs.partitions import slice_of_keys, slice_of_run
from dagster_safe_backfill_tests.harness.assets import RANGE_END, RANGE_START

ZONES = ("UTC", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "America/Havana", "Asia/Kolkata")
# Beginnings just before nights on which the clocks of some of the zones change.
STARTS = tuple(datetime.fromisoformat(day) for day in ("2017-10-12", "2024-03-07", "2024-04-04", "2024-10-31"))
SECOND = timedelta(seconds=1)

cron_schedules = st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 0 * * 1,4", "0 9-17 * * 1-5", "5 0 1,15 * *"])


@st.composite
def definitions(draw: st.DrawFn) -> dg.TimeWindowPartitionsDefinition:
    """Return a definition of some weeks, of any cadence, zone, offset and exclusions."""
    zone = draw(st.sampled_from(ZONES))
    start = draw(st.sampled_from(STARTS))
    kind = draw(st.sampled_from(["hourly", "daily", "weekly", "monthly", "cron"]))
    minute = draw(st.sampled_from([0, 30]))
    hour = draw(st.sampled_from([0, 3]))
    end = start + timedelta(days={"hourly": 6, "cron": 8, "daily": 30}.get(kind, 200))
    common: dict[str, Any] = {"timezone": zone, "fmt": "%Y-%m-%d-%H:%M%z"}
    if kind == "cron":
        return dg.TimeWindowPartitionsDefinition(
            start=start, end=end, cron_schedule=draw(cron_schedules), exclusions=_excluded(draw, start, zone), **common
        )
    if kind == "hourly":
        return dg.HourlyPartitionsDefinition(start, end_date=end, minute_offset=minute, **common)
    offsets = {"minute_offset": minute, "hour_offset": hour}
    if kind == "daily":
        excluded = _excluded(draw, start, zone)
        return dg.DailyPartitionsDefinition(start, end_date=end, exclusions=excluded, **offsets, **common)
    if kind == "weekly":
        return dg.WeeklyPartitionsDefinition(
            start, end_date=end, day_offset=draw(st.integers(0, 6)), **offsets, **common
        )
    return dg.MonthlyPartitionsDefinition(start, end_date=end, day_offset=draw(st.integers(1, 28)), **offsets, **common)


def _excluded(draw: st.DrawFn, start: datetime, zone: str) -> Sequence[str] | None:
    return draw(st.sampled_from([None, ["0 0 * * 6"], ["0 0 * * 0", "30 3 * * 2"]]))


@st.composite
def slices(draw: st.DrawFn) -> tuple[dg.TimeWindowPartitionsDefinition, list[str]]:
    """Return a definition and some of its keys: a range, or any subset."""
    definition = draw(definitions())
    keys = list(definition.get_partition_keys())
    if draw(st.booleans()):
        first = draw(st.integers(0, len(keys) - 1))
        return definition, keys[first : first + draw(st.integers(1, 40))]
    chosen = draw(st.sets(st.integers(0, len(keys) - 1), min_size=1, max_size=20))
    return definition, [keys[i] for i in sorted(chosen)]


def holds(windows: Sequence[sb.TimeWindow], instant: datetime) -> bool:
    return any(window.start <= instant < window.end for window in windows)


@given(slices())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_windows_are_dagsters_and_merge_to_the_fewest(
    case: tuple[dg.TimeWindowPartitionsDefinition, list[str]],
) -> None:
    definition, keys = case
    partition_slice = slice_of_keys(definition, keys)
    (dimension,) = partition_slice.dimensions
    assert isinstance(dimension, TimeDimension)
    # Compared in UTC: a wall-clock time in a gap equals no time of another zone (PEP 495).
    dagsters = [
        (window.start.astimezone(timezone.utc), window.end.astimezone(timezone.utc))
        for window in map(definition.time_window_for_partition_key, keys)
    ]
    assert partition_slice.keys == tuple(keys)
    assert [(window.start, window.end) for window in dimension.windows] == dagsters
    assert all(window.start.tzinfo is timezone.utc for window in dimension.windows)
    merged = partition_slice.windows
    assert all(earlier.end < later.start for earlier, later in pairwise(merged))
    for window in dimension.windows:
        for instant in (window.start - SECOND, window.start, window.end - SECOND, window.end):
            assert holds(merged, instant) == holds(dimension.windows, instant)
    assert partition_slice.start.astimezone(timezone.utc) == min(start for start, _ in dagsters)
    assert partition_slice.end.astimezone(timezone.utc) == max(end for _, end in dagsters)
    assert str(partition_slice.start.tzinfo) == definition.timezone


@given(slices())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_instant_belongs_to_two_partitions(case: tuple[dg.TimeWindowPartitionsDefinition, list[str]]) -> None:
    definition, keys = case
    (dimension,) = slice_of_keys(definition, keys).dimensions
    assert isinstance(dimension, TimeDimension)
    windows = sorted(dimension.windows)
    assert all(earlier.end <= later.start for earlier, later in pairwise(windows))


def test_static_and_dynamic_keys_are_taken_as_they_are() -> None:
    keys = ["b", "it's", "a"]
    for definition in (dg.StaticPartitionsDefinition(keys), dg.DynamicPartitionsDefinition(name="d")):
        (dimension,) = slice_of_keys(definition, keys).dimensions
        assert dimension == KeyDimension(values=tuple(keys))


def test_multi_partitions_have_a_value_for_each_dimension() -> None:
    definition = dg.MultiPartitionsDefinition(
        {
            "day": dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04"),
            "region": dg.StaticPartitionsDefinition(["eu", "us"]),
        }
    )
    keys = ["2024-01-01|us", "2024-01-03|eu"]
    partition_slice = slice_of_keys(definition, keys)
    day, region = partition_slice.dimensions
    assert isinstance(day, TimeDimension)
    assert (day.name, region.name) == ("day", "region")
    assert region == KeyDimension(values=("us", "eu"), name="region")
    assert [window.start.day for window in day.windows] == [1, 3]


def scope_of(definition: Any, tags: dict[str, str], *, keys: Sequence[str] = ()) -> sb.PartitionSlice:
    """Return the slice that an asset's run with these tags has."""
    found: list[sb.PartitionSlice] = []

    @dg.asset(partitions_def=definition, backfill_policy=sb.single_run())
    def asset(context) -> None:  # no annotation: Dagster does not resolve those of nested functions
        found.append(slice_of_run(context))

    with dg.DagsterInstance.ephemeral() as instance:
        if keys:
            instance.add_dynamic_partitions("dynamic", list(keys))
        dg.materialize([asset], instance=instance, tags=tags)
    return found[0]


def ends(first: str, last: str) -> dict[str, str]:
    return {RANGE_START: first, RANGE_END: last}


MONTH = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01", exclusions=["0 0 * * 6", "0 0 * * 0"])
GRID = dg.MultiPartitionsDefinition({"day": MONTH, "region": dg.StaticPartitionsDefinition(["a", "b", "c"])})
PAIRS = dg.MultiPartitionsDefinition(
    {"color": dg.StaticPartitionsDefinition(["red", "blue"]), "size": dg.StaticPartitionsDefinition(["s", "m", "l"])}
)
DYNAMIC = dg.DynamicPartitionsDefinition(name="dynamic")


@pytest.mark.parametrize(
    ("definition", "tags", "expected"),
    [
        (MONTH, {"dagster/partition": "2024-01-02"}, ["2024-01-02"]),
        (MONTH, ends("2024-01-04", "2024-01-09"), ["2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09"]),
        (MONTH, ends("2024-01-04", "2024-01-04"), ["2024-01-04"]),
        (GRID, {"dagster/partition": "2024-01-02|b"}, ["2024-01-02|b"]),
        (
            GRID,
            ends("2024-01-05|a", "2024-01-08|b"),
            ["2024-01-05|a", "2024-01-05|b", "2024-01-08|a", "2024-01-08|b"],
        ),
        (PAIRS, ends("blue|m", "red|s"), None),
        (PAIRS, ends("blue|s", "blue|m"), ["blue|s", "blue|m"]),
        (DYNAMIC, {"dagster/partition": "it's"}, ["it's"]),
        (DYNAMIC, ends("z", "it's"), ["z", "it's"]),
        (dg.StaticPartitionsDefinition(["x", "y", "z"]), ends("x", "y"), ["x", "y"]),
    ],
)
def test_a_run_has_the_partitions_that_its_tags_ask(
    definition: Any, tags: dict[str, str], expected: list[str] | None
) -> None:
    if expected is None:
        with pytest.raises(sb.SliceError):
            scope_of(definition, tags)
    else:
        assert sorted(scope_of(definition, tags, keys=["z", "it's", "b"]).keys) == sorted(expected)


@pytest.mark.parametrize(
    ("definition", "tags"),
    [
        (MONTH, ends("2024-01-09", "2024-01-02")),
        (GRID, ends("2024-01-02|b", "2024-01-03|a")),
        (GRID, ends("2024-01-03|a", "2024-01-02|b")),
        (DYNAMIC, ends("b", "z")),
        (dg.StaticPartitionsDefinition(["x", "y", "z"]), ends("z", "x")),
    ],
    ids=["reversed days", "L-shaped", "reversed grid", "re-ordered dynamic", "reversed static"],
)
def test_a_range_that_resolves_to_nothing_is_an_error(definition: Any, tags: dict[str, str]) -> None:
    with pytest.raises(sb.EmptySliceError, match="put the earlier key first"):
        scope_of(definition, tags, keys=["z", "it's", "b"])


def test_a_scope_other_than_asked_is_an_error() -> None:
    class Context:
        asset_key = dg.AssetKey("asset")
        partition_keys = ("2024-01-04",)
        instance = None

        class run:  # noqa: N801
            tags = ends("2024-01-04", "2024-01-05")

        class assets_def:  # noqa: N801
            partitions_def = MONTH

    with pytest.raises(sb.ScopeMismatchError, match="asks for 2024-01-04 to 2024-01-05") as caught:
        slice_of_run(Context)  # type: ignore[arg-type]
    assert caught.value.asked == ("2024-01-04", "2024-01-05")
    assert caught.value.resolved == ("2024-01-04",)


@pytest.mark.parametrize("make", [lambda s: s.start, lambda s: s.end, lambda s: s.windows])
def test_partitions_that_are_not_cut_by_time_have_no_start(make: Callable[[sb.PartitionSlice], object]) -> None:
    partition_slice = slice_of_keys(dg.StaticPartitionsDefinition(["a"]), ["a"])
    with pytest.raises(sb.SliceError, match="not time partitions"):
        make(partition_slice)


def test_a_slice_without_a_warehouse_cannot_write_sql() -> None:
    with pytest.raises(sb.SliceError, match="belongs to no warehouse"):
        slice_of_keys(dg.StaticPartitionsDefinition(["a"]), ["a"]).where("x")


def test_a_slice_is_never_empty() -> None:
    with pytest.raises(sb.EmptySliceError):
        slice_of_keys(dg.StaticPartitionsDefinition(["a"]), [])
