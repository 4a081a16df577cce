"""Which partitions a call means: excluded days, clocks that change, other formats, dimensions and texts."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from dagster_safe_backfill.cli.answers.answer import CommandError
from dagster_safe_backfill.cli.api.values import Asset, PartitionsKind
from dagster_safe_backfill.cli.selection import Selection, nearest, selection_of
from dagster_safe_backfill_tests.cli.calendars import PARTITIONS
from dagster_safe_backfill_tests.cli.conftest import Terminal

CODE = ("-m", "dagster_safe_backfill_tests.cli.calendars")
_HOURS = ["00:00", "01:00", "02:00", "03:00", "04:00", "05:00"]


@cache
def asset(name: str) -> Asset:
    partitions = PARTITIONS[name]
    kinds: dict[type, PartitionsKind] = {
        dg.StaticPartitionsDefinition: "static",
        dg.MultiPartitionsDefinition: "multi",
        dg.DynamicPartitionsDefinition: "dynamic",
    }
    kind = next((kind for known, kind in kinds.items() if isinstance(partitions, known)), "time")
    keys = () if kind == "dynamic" else tuple(map(str, partitions.get_partition_keys()))
    dimensions = ("day", "region") if kind == "multi" else ()
    return Asset(key=name, location="", repository="", kind=kind, keys=keys, dimensions=dimensions)


def keys(name: str, *, file: Path | None = None, **given: object) -> list[str]:
    """Return the keys that options choose, as `plan` reads them."""
    nothing = dict.fromkeys(("first", "last", "newest", "reprocess")) | dict.fromkeys(("names", "dimensions"), ())
    flags = dict.fromkeys(("is_all", "missing", "failed", "changed"), False)
    return selection_of(**{**nothing, **flags, "file": file and str(file), **given}).of(asset(name))


def refused(name: str, **given: object) -> tuple[str, str]:
    """Return the code and the hint of the error that options get."""
    with pytest.raises(CommandError) as caught:
        keys(name, **given)
    assert caught.value.exit_code == 2
    return caught.value.problem.code, caught.value.problem.hint or ""


@pytest.mark.parametrize(
    ("name", "first", "last", "expected"),
    [
        ("weekdays", "2024-01-04", "2024-01-09", ["2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09"]),
        ("workdays", "2024-01-03", "2024-01-08", ["2024-01-03", "2024-01-05", "2024-01-06", "2024-01-08"]),
        ("sao_paulo", "2018-11-03", "2018-11-05", ["2018-11-03", "2018-11-04", "2018-11-05"]),
        ("cairo", "2024-04-25", "2024-04-27", ["2024-04-25", "2024-04-26", "2024-04-27"]),
        ("weekly", "2024-01-07", "2024-01-21", ["2024-01-07", "2024-01-14", "2024-01-21"]),
        ("monthly", "2024-02-01", "2024-04-01", ["2024-02-01", "2024-03-01", "2024-04-01"]),
        ("american", "12/31/2023", "01/02/2024", ["12/31/2023", "01/01/2024", "01/02/2024"]),
        # In the definition's order, which isn't that of time.
        ("dates", "2024-01-10", "2024-01-05", ["2024-01-10", "2024-01-05"]),
    ],
)
def test_a_range_is_what_lies_between_in_the_definition(name: str, first: str, last: str, expected: list[str]) -> None:
    assert keys(name, first=first, last=last) == expected


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("new_york_spring", ["00:00", "01:00", "03:00", "04:00", "05:00"]),
        ("new_york_autumn", ["00:00", "01:00", "01:00-0500", *_HOURS[2:]]),
        ("berlin_spring", ["00:00", "01:00", "03:00", "04:00", "05:00"]),
        ("berlin_autumn", ["00:00", "01:00", "02:00", "02:00+0100", *_HOURS[3:]]),
    ],
)
def test_hours_that_come_twice_or_not_at_all(name: str, hours: list[str]) -> None:
    """Dagster 1.13.27 names the second of two equal hours with its offset, and the first without."""
    day = asset(name).keys[0][:10]
    assert keys(name, is_all=True) == [f"{day}-{hour}" for hour in hours]
    assert keys(name, newest=4) == [f"{day}-{hour}" for hour in hours[-4:]]
    assert keys(name, first=f"{day}-01:00", last=f"{day}-03:00") == [f"{day}-{hour}" for hour in hours[1:-2]]


@pytest.mark.parametrize(
    ("name", "key", "near"),
    [
        ("weekdays", "2024-01-06", ["2024-01-05", "2024-01-08"]),
        ("workdays", "2024-01-04", ["2024-01-03", "2024-01-05"]),
        ("workdays", "2024-01-07", ["2024-01-06", "2024-01-08"]),
        ("workdays", "2023-12-31", ["2024-01-01"]),
        ("workdays", "2024-02-30", ["2024-01-15"]),
        ("workdays", "2024-1-5", ["2024-01-05"]),
        ("workdays", "20240105", ["2024-01-05"]),
        ("workdays", "2024/01/05", ["2024-01-05"]),
        ("workdays", "2024-01-05T12:00:00", ["2024-01-05", "2024-01-06"]),
        ("workdays", "2024-01", ["2024-01-01"]),
        ("new_york_spring", "2024-03-10-02:00", ["2024-03-10-01:00", "2024-03-10-03:00"]),
        ("new_york_spring", "2024-03-10", ["2024-03-10-00:00"]),
        ("new_york_autumn", "2024-11-03-01:00-0400", ["2024-11-03-01:00", "2024-11-03-01:00-0500"]),
        ("new_york_autumn", "2024-11-03-01:30", ["2024-11-03-01:00-0500", "2024-11-03-02:00"]),
        ("berlin_spring", "2024-03-31-02:00", ["2024-03-31-01:00", "2024-03-31-03:00"]),
        ("berlin_autumn", "2024-10-27T02:00+02:00", ["2024-10-27-02:00", "2024-10-27-02:00+0100"]),
        ("weekly", "2024-01-10", ["2024-01-07", "2024-01-14"]),
        ("monthly", "2024-03-15", ["2024-03-01", "2024-04-01"]),
        ("monthly", "2024-07-01", ["2024-06-01"]),
        ("american", "2023-12-31", ["12/31/2023"]),
        ("american", "12/29/2023", ["12/30/2023"]),
        ("texts", "Paris", ["Paris, France"]),
        ("texts", "new york", ["New York", "New York, NY"]),
        ("dates", "2024-01-06", ["2024-01-05"]),
    ],
)
def test_what_is_no_key_is_told_the_nearest(name: str, key: str, near: list[str]) -> None:
    found = nearest(key, asset(name).keys)
    assert found[: len(near)] == near
    for option in ("first", "last"):
        code, hint = refused(name, **{option: key})
        assert code == "unknown_partition"
        assert near[0] in hint
    assert near[0] in refused(name, names=[key])[1]


def test_a_range_after_the_end_or_backwards() -> None:
    assert refused("workdays", first="2024-03-01")[0] == "unknown_partition"
    code, hint = refused("workdays", first="2024-01-09", last="2024-01-03")
    assert (code, hint) == ("inverted_range", "swap them: --from 2024-01-03 --to 2024-01-09")
    assert refused("new_york_autumn", first="2024-11-03-01:00-0500", last="2024-11-03-01:00")[0] == "inverted_range"


def test_keys_with_commas_and_spaces(tmp_path: Path) -> None:
    assert keys("texts", names=["Paris, France"]) == ["Paris, France"]
    assert keys("texts", names=["Zürich, NY"]) == ["NY", "Zürich"]
    assert keys("texts", names=["Paris, France", "NY"]) == ["Paris, France", "NY"]
    code, hint = refused("texts", names=["New York, NY"])
    assert (code, "--partitions-file" in hint) == ("ambiguous_keys", True)
    file = tmp_path / "keys.txt"
    file.write_text("\ufeffNew York, NY\r\n\r\n  NY  ", encoding="utf-8")
    assert keys("texts", file=file) == ["New York, NY", "NY"], "a line of a file is one key"
    # As a plan that was saved names them.
    assert Selection(keys=("New York, NY",)).of(asset("texts")) == ["New York, NY"]


def test_multi_partitions() -> None:
    found = keys("by_region", dimensions=["day=2024-01-02...2024-01-03", "region=us west"])
    assert found == ["2024-01-02|us west", "2024-01-03|us west"]
    assert keys("by_region", names=["2024-01-01|eu"]) == ["2024-01-01|eu"]
    code, hint = refused("by_region", dimensions=["day=2024-01-02...2024-02-03"])
    assert (code, "2024-01-05" in hint) == ("unknown_partition", True)
    assert refused("by_region", dimensions=["day=2024-01-03...2024-01-02"])[0] == "inverted_range"


@pytest.mark.parametrize("given", [{"first": "2024-01-01|eu", "last": "2024-01-03|eu"}, {"newest": 2}, {"last": "x"}])
def test_multi_partitions_have_no_one_order(given: dict[str, object]) -> None:
    """A range could mean the cells between, as they are listed, or a rectangle, as Dagster takes it."""
    code, hint = refused("by_region", **given)
    assert (code, "--dimension" in hint) == ("no_order", True)
    if "first" in given:
        assert "--dimension day=2024-01-01...2024-01-03 --dimension region=eu...eu" in hint


@pytest.fixture
def calendars(tmp_path: Path, offline: Terminal) -> Terminal:
    return Terminal(offline.folder, CODE, offline.capture)


def test_dynamic_partitions(calendars: Terminal) -> None:
    told = calendars("plan", "customers", "--all", "--dry-run", "--json")
    assert (told.exit_code, told.codes) == (2, ["no_partitions"])
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("customers", ["acme", "a, b", "zoo"])
    told = calendars("plan", "customers", "--partitions", "zoo", "--partitions", "a, b", "--dry-run", "--json")
    assert [*told.data["plan"]["assets"][0]["reasons"]] == ["a, b", "zoo"], told.out
    told = calendars("plan", "customers", "--partitions", "acne", "--dry-run", "--json")
    assert (told.exit_code, "acme" in told.json["errors"][0]["hint"]) == (2, True)


@pytest.mark.parametrize(
    ("name", "arguments", "runs"),
    [
        # A range without gaps is one run, though the calendar has some.
        ("workdays", ["--from", "2024-01-03", "--to", "2024-01-08"], [("2024-01-03", "2024-01-08", 4)]),
        ("new_york_autumn", ["--last", "6"], [("2024-11-03-01:00", "2024-11-03-05:00", 6)]),
        ("cairo", ["--partitions", "2024-04-26,2024-04-28"], [("2024-04-26",) * 2 + (1,), ("2024-04-28",) * 2 + (1,)]),
        ("tokyo", ["--to", "2024-01-02"], [("2024-01-01", "2024-01-02", 2)]),
        ("texts", ["--partitions", "Paris, France"], [("Paris, France", "Paris, France", 1)]),
        ("american", ["--last", "2"], [("01/01/2024", "01/02/2024", 2)]),
    ],
)
def test_a_plan_tells_the_keys_and_the_runs(
    calendars: Terminal, name: str, arguments: list[str], runs: list[tuple[str, str, int]]
) -> None:
    told = calendars("plan", name, *arguments, "--dry-run", "--json")
    assert told.exit_code == 0, told.out
    (planned,) = told.data["plan"]["assets"]
    assert [(run["first"], run["last"], run["partition_count"]) for run in planned["runs"]] == runs
    assert len(planned["reasons"]) == sum(run[2] for run in runs)


def test_what_was_planned_is_what_goes_live(calendars: Terminal, tmp_path: Path) -> None:
    """Over excluded days, the hour that comes twice, texts with commas and a rectangle's part, in one backfill each."""
    file = tmp_path / "cities.txt"
    file.write_text("New York, NY\n")
    wanted = {
        "workdays": (["--from", "2024-01-03", "--to", "2024-01-08"], 4),
        "new_york_autumn": (["--from", "2024-11-03-01:00-0500", "--to", "2024-11-03-02:00"], 2),
        "texts": (["--partitions-file", str(file)], 1),
        "by_region": (["--dimension", "region=eu", "--dimension", "day=2024-01-02,2024-01-04"], 2),
    }
    for name, (arguments, count) in wanted.items():
        path = str(tmp_path / f"{name}.json")
        assert calendars("plan", name, *arguments, "--out", path, "--json").exit_code == 0
        planned = [*json.loads(Path(path).read_text())["assets"][0]["reasons"]]
        assert len(planned) == count
        told = calendars("launch", path, "--in-process", "--yes", "--json")
        assert (told.exit_code, told.counts) == (0, {"live": count}), told.out
        with duckdb.connect(str(calendars.folder / "warehouse.duckdb"), read_only=True) as connection:
            found = connection.execute(f"SELECT key FROM shop.{name} ORDER BY key").fetchall()
        assert [key for (key,) in found] == sorted(planned)
