"""`plan`: which partitions, why, in which runs; and the file, which doesn't change."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import dagster as dg
import pytest

from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import materialize


@pytest.fixture
def project(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.chdir(offline.folder)
    return offline


def test_a_first_plan(project: Terminal) -> None:
    told = project("plan", "sales", "--from", "2024-01-03", "--to", "2024-01-05", "--json")
    assert told.exit_code == 0
    plan = told.data["plan"]
    (asset,) = plan["assets"]
    assert asset["reasons"] == {key: ["never materialized"] for key in ["2024-01-03", "2024-01-04", "2024-01-05"]}
    assert asset["runs"] == [{"first": "2024-01-03", "last": "2024-01-05", "partition_count": 3}]
    assert asset["table"] == "shop.sales"
    assert asset["code"] == "code_version 1"
    assert asset["estimate"] == {"row_count": None, "seconds": None, "partition_count": 0}
    assert plan["launched"] == ["sales"]
    assert plan["outdated"] == ["by_day"]
    assert {guard["name"]: guard["holds"] for guard in told.data["guards"]} == {
        "count": True,
        "overlap": True,
        "daemon": False,
    }
    saved = Path(told.data["path"])
    assert saved == Path("backfills") / f"{plan['plan_id']}.json"
    assert json.loads(saved.read_text()) == plan
    assert stat.S_IMODE(saved.stat().st_mode) == 0o444
    assert not (project.folder / "warehouse.duckdb").exists(), "a plan touches nothing"


def test_why_each_partition(project: Terminal) -> None:
    materialize(project, "sales", "2024-01-01", "2024-01-04")
    project.sql("UPDATE shop.sales SET amount = 99 WHERE day = '2024-01-02' AND item = 1")
    told = project("plan", "sales", "--from", "2024-01-01", "--to", "2024-01-05", "--json", "--dry-run")
    (asset,) = told.data["plan"]["assets"]
    assert asset["reasons"] == {
        "2024-01-01": ["asked for"],
        "2024-01-02": ["its rows were changed outside of this library"],
        "2024-01-03": ["asked for"],
        "2024-01-04": ["asked for"],
        "2024-01-05": ["never materialized"],
    }
    assert asset["estimate"]["row_count"] == 15
    project.write("version", "2")
    told = project("plan", "sales", "--changed", "--json", "--dry-run")
    (asset,) = told.data["plan"]["assets"]
    assert list(asset["reasons"]) == ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
    assert asset["reasons"]["2024-01-01"] == ["the code changed from code_version 1 to code_version 2"]


def test_a_newer_upstream_asset(project: Terminal) -> None:
    materialize(project, "sales", "2024-01-01", "2024-01-02")
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("prices"))
    told = project("plan", "sales", "--changed", "--json", "--dry-run")
    (asset,) = told.data["plan"]["assets"]
    assert asset["reasons"] == {key: ["prices changed since"] for key in ["2024-01-01", "2024-01-02"]}


def test_what_failed_and_what_is_missing(project: Terminal) -> None:
    materialize(project, "sales", "2024-01-01", "2024-01-02")
    project.write("bad", "2024-01-04")
    materialize(project, "sales", "2024-01-03", "2024-01-04")
    failed = project("plan", "sales", "--failed", "--json", "--dry-run").data["plan"]["assets"][0]
    assert failed["reasons"] == {key: ["its last run failed"] for key in ["2024-01-03", "2024-01-04"]}
    missing = project("plan", "sales", "--missing", "--to", "2024-01-06", "--json", "--dry-run")
    assert list(missing.data["plan"]["assets"][0]["reasons"]) == ["2024-01-05", "2024-01-06"]
    both = project("plan", "sales", "--reprocess", "failed", "--to", "2024-01-06", "--json", "--dry-run")
    assert list(both.data["plan"]["assets"][0]["reasons"]) == ["2024-01-03", "2024-01-04", "2024-01-05", "2024-01-06"]


def test_nothing_to_do(project: Terminal) -> None:
    told = project("plan", "sales", "--failed")
    assert told.exit_code == 0
    assert "nothing to do" in told.out


def test_staged_assets_are_planned_as_three(project: Terminal) -> None:
    told = project("plan", "staged", "--last", "12", "--json", "--dry-run")
    plan = told.data["plan"]
    assert plan["launched"] == ["staged__shadow", "staged__audit", "staged"]
    (asset,) = plan["assets"]
    assert asset["asset"] == "staged"
    assert [run["partition_count"] for run in asset["runs"]] == [5, 5, 2]
    assert "all of it goes live together" in asset["goes_live"]


def test_what_is_named_is_launched(project: Terminal) -> None:
    """`x__shadow` alone stages, and `x__audit` alone audits: nothing of either goes live."""
    plan = project("plan", "staged__shadow", "--last", "12", "--json", "--dry-run").data["plan"]
    assert plan["launched"] == ["staged__shadow"]
    (asset,) = plan["assets"]
    assert (asset["asset"], asset["live_asset"], asset["table"]) == ("staged__shadow", "staged", "shop.staged")
    assert len(asset["live"]) == 12
    assert "nothing goes live" in asset["goes_live"]
    plan = project("plan", "staged__audit", "--json", "--dry-run").data["plan"]
    assert plan["launched"] == ["staged__audit"]


def test_what_failed_while_it_was_staged(project: Terminal) -> None:
    project.write("bad", "2024-01-04")
    materialize(project, "staged__shadow", "2024-01-04")
    told = project("plan", "staged", "--failed", "--json", "--dry-run")
    assert list(told.data["plan"]["assets"][0]["reasons"]) == ["2024-01-04"]


def test_runs_of_one_partition_and_gaps(project: Terminal) -> None:
    told = project("plan", "by_day", "--partitions", "2024-01-01,2024-01-03", "--json", "--dry-run")
    assert [run["first"] for run in told.data["plan"]["assets"][0]["runs"]] == ["2024-01-01", "2024-01-03"]
    told = project("plan", "sales", "--partitions", "2024-01-01,2024-01-02,2024-01-05", "--json", "--dry-run")
    assert told.data["plan"]["assets"][0]["runs"] == [
        {"first": "2024-01-01", "last": "2024-01-02", "partition_count": 2},
        {"first": "2024-01-05", "last": "2024-01-05", "partition_count": 1},
    ]


def test_multi_partitions_by_dimension(project: Terminal) -> None:
    dimensions = ("--dimension", "day=2024-01-01...2024-01-02", "--dimension", "shop=eu")
    told = project("plan", "by_shop", *dimensions, "--json", "--dry-run")
    assert list(told.data["plan"]["assets"][0]["reasons"]) == ["2024-01-01|eu", "2024-01-02|eu"]


def test_keys_of_a_file(project: Terminal) -> None:
    project.write("keys.txt", "2024-01-09\n\n2024-01-07\n")
    told = project("plan", "sales", "--partitions-file", "keys.txt", "--json", "--dry-run")
    assert list(told.data["plan"]["assets"][0]["reasons"]) == ["2024-01-07", "2024-01-09"]


def test_the_count_guard(project: Terminal) -> None:
    told = project("plan", "batched", "--last", "25", "--json", "--dry-run")
    guard = next(one for one in told.data["guards"] if one["name"] == "count")
    assert guard["holds"] is False
    assert guard["hint"] == "--confirm 25 allows exactly these"
    told = project("launch", "batched", "--last", "25", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["guard_count"])


def test_a_saved_plan_is_never_overwritten(project: Terminal) -> None:
    arguments = ("plan", "sales", "--last", "1", "--out", "mine.json")
    assert project(*arguments).exit_code == 0
    before = Path("mine.json").read_bytes()
    again = project(*arguments, "--json")
    assert (again.exit_code, again.codes) == (2, ["file_exists"])
    assert Path("mine.json").read_bytes() == before


def test_the_screen(project: Terminal) -> None:
    told = project("plan", "sales", "--last", "2")
    assert "2: 2024-01-30 to 2024-01-31, both included" in told.out
    assert f"safe-backfill launch backfills/{told.out.split()[1]}.json -m " in told.out
    quiet = project("plan", "sales", "--last", "3", "-q")
    assert quiet.out.strip().startswith("backfills/")
    assert len(quiet.out.splitlines()) == 1
