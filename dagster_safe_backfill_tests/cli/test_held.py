"""A DuckDB file that another process holds: what Dagster knows is shown, who holds it, and what isn't known."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import pytest

from dagster_safe_backfill.model.plans import Expected
from dagster_safe_backfill_tests.cli.conftest import Terminal, Told
from dagster_safe_backfill_tests.cli.prepared import held, materialize


@pytest.fixture
def project(offline: Terminal) -> Terminal:
    offline.write("lock_timeout", "0.2")
    materialize(offline, "sales", "2024-01-01", "2024-01-02")
    return offline


def _expected(told: Told) -> Expected:
    """Return what the runs of a backfill that was launched are to check."""
    with dg.DagsterInstance.get() as instance:
        backfill = instance.get_backfill(told.data["backfill_id"])
    assert backfill is not None
    found = Expected.parse(backfill.tags)
    assert found is not None
    return found


def _warned(told: Told, pid: int) -> str:
    (found,) = (one for one in told.json["warnings"] if f"{pid}" in one)
    return found


def test_a_plan_goes_on_by_what_dagster_knows(project: Terminal) -> None:
    arguments = ("plan", "sales", "--from", "2024-01-01", "--to", "2024-01-03")
    with held(project) as pid:
        told = project(*arguments, "--json")
        shown = project(*arguments, "--dry-run")
        launched = project("launch", told.data["path"], "--yes", "--json")
    assert told.exit_code == 0
    (asset,) = told.data["plan"]["assets"]
    assert asset["reasons"]["2024-01-01"] == ["asked for"]
    assert asset["reasons"]["2024-01-03"] == ["never materialized"]
    assert (asset["live"], asset["code"], asset["table"]) == ({}, "code_version 1", "shop.sales")
    assert str(pid) in asset["live_unknown"]
    assert "the runs of this plan don't check whether live rows changed" in _warned(told, pid)
    assert "live rows   not known" in shown.out
    assert launched.exit_code == 0
    assert "no fingerprints of live rows of sales either" in _warned(launched, pid)
    expected = _expected(launched)
    assert expected.is_code("sales", "code_version 1"), "the code is known, and the runs check it"
    assert not expected.knows_live("sales")


def test_a_limit_is_known_while_the_file_is_held(project: Terminal) -> None:
    materialize(project, "batched", "2024-01-01")
    with held(project):
        told = project("launch", "batched", "--all", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["guard_count"])


def test_launching_assets(project: Terminal) -> None:
    with held(project) as pid:
        told = project("launch", "sales", "--last", "2", "--yes", "--json")
    assert told.exit_code == 0
    assert "neither changes by hand nor of the code" in _warned(told, pid)
    assert not any("its runs don't check" in one for one in told.json["warnings"]), "it is said once"


def test_a_plan_with_fingerprints_is_compared_by_its_runs(project: Terminal) -> None:
    path = project("plan", "sales", "--from", "2024-01-01", "--to", "2024-01-02", "--json").data["path"]
    with held(project) as pid:
        told = project("launch", path, "--yes", "--json")
    assert told.exit_code == 0
    assert "isn't compared now; its runs compare them before they compute" in _warned(told, pid)
    assert _expected(told).knows_live("sales")


def test_other_code_is_refused_while_the_file_is_held(project: Terminal) -> None:
    path = project("plan", "sales", "--last", "1", "--json").data["path"]
    project.write("version", "2")
    with held(project):
        told = project("launch", path, "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])


def test_a_plan_without_fingerprints_is_compared_by_materializations(project: Terminal) -> None:
    with held(project):
        path = project("plan", "sales", "--from", "2024-01-01", "--to", "2024-01-02", "--json").data["path"]
    materialize(project, "sales", "2024-01-02")
    told = project("launch", path, "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])
    assert told.json["errors"][0]["partitions"] == ["2024-01-02"]


@pytest.mark.parametrize("arguments", [("diff", "sales"), ("rollback", "sales"), ("rollback", "sales", "--yes")])
def test_what_needs_the_ledger_shows_what_dagster_knows(project: Terminal, arguments: tuple[str, ...]) -> None:
    newest = materialize(project, "sales", "2024-01-05")
    with held(project) as pid:
        told = project(*arguments, "--json")
        one_day = project(*arguments, "--partitions", "2024-01-01", "--json")
        shown = project(*arguments)
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])
    assert str(pid) in told.json["errors"][0]["message"]
    unknown = {"diff": ("different", None), "rollback": ("dry_run", True)}
    key, value = unknown[arguments[0]]
    assert (told.data[key], told.data["partitions"]) == (value, [])
    first, second = told.data["known"]
    assert (first["publication_id"], first["run_id"], first["row_count"]) == (newest, newest, 3)
    assert (second["ranges"], second["row_count"]) == ([["2024-01-01", "2024-01-02"]], 6)
    assert [one["ranges"] for one in one_day.data["known"]] == [[["2024-01-01", "2024-01-01"]]]
    assert "the newest that Dagster knows" in shown.out


def test_retention_waits_once_for_all_assets_of_a_file(project: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("lock_timeout", "1.5")
    with held(project) as pid:
        started = time.monotonic()
        told = project("retention", "--json")
        took = time.monotonic() - started
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])
    assert str(pid) in told.json["errors"][0]["message"]
    assert took < 4.5, "six assets are in that file"


def test_approve_needs_no_warehouse(project: Terminal) -> None:
    materialize(project, "staged__shadow", "2024-01-01")
    with held(project):
        told = project("approve", "staged", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["not_audited"])


def test_it_is_waited_for_five_seconds_at_most(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's patience, of 20 s in this project, isn't that of a person."""
    from dagster_safe_backfill.cli import definitions

    materialize(offline, "sales", "2024-01-01")
    monkeypatch.setattr(definitions, "_PATIENCE", 0.3)
    with held(offline):
        started = time.monotonic()
        told: Any = offline("plan", "sales", "--last", "1", "--dry-run", "--json")
        took = time.monotonic() - started
    assert told.exit_code == 0
    assert took < 10
