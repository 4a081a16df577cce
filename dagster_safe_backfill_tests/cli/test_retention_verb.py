from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, held, materialize
from dagster_safe_backfill_tests.e2e.dagster_dev import home_in

TABLES = "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%\\_\\_archive%' ESCAPE '\\' OR table_name LIKE"
SHADOWS = f"{TABLES} '%\\_\\_shadow%' ESCAPE '\\' ORDER BY 1"


def of(told: Any, asset: str) -> Any:
    (one,) = (one for one in told["assets"] if one["asset"] == asset)
    return one


@pytest.fixture
def rejected(offline: Terminal) -> str:
    """A publication whose archive has expired, and a run whose rows were rejected."""
    materialize(offline, "sales", "2024-01-01")
    offline.sql("UPDATE shop.sales SET amount = 1")
    materialize(offline, "sales", "2024-01-01")
    offline.write("bad", "2024-01-03")
    run = materialize(offline, "sales", "2024-01-03")
    offline.sql("UPDATE shop._safe_backfill_ledger SET archive_expires_at = recorded_at WHERE archive IS NOT NULL")
    return run


def test_a_dry_run_says_what_is_over_and_what_is_kept(offline: Terminal, rejected: str) -> None:
    before = offline.sql(SHADOWS)
    told = offline("retention", "--json")
    assert (told.exit_code, told.data["dry_run"]) == (0, True)
    sales = of(told.data, "sales")
    assert (sales["job"], sales["shadow_days"]) == ("safe_backfill_retention_job", 7.0)
    assert sales["state"] == "would_drop"
    (archive,) = sales["drops"]
    assert (archive["kind"], archive["row_count"]) == ("archive", 3)
    (shadow,) = sales["keeps"]
    assert (shadow["kind"], shadow["why"], shadow["row_count"], shadow["run_id"]) == ("shadow", "recent", 3, rejected)
    assert of(told.data, "by_day") == {
        "asset": "by_day",
        "table": "shop.by_day",
        "job": None,
        "shadow_days": 7.0,
        "unknown_run_days": 7.0,
        "state": None,
        "clock_problem": None,
        "drops": [],
        "keeps": [],
    }
    assert offline.sql(SHADOWS) == before
    shown = offline("retention", "sales").out
    assert "would be dropped" in shown
    assert "--yes does it" in shown


def test_yes_drops_it(offline: Terminal, rejected: str) -> None:
    told = offline("retention", "sales", "--shadow-days", "0", "--yes", "--in-process", "--json")
    assert (told.exit_code, told.data["dry_run"], told.data["runs"]) == (0, False, [])
    assert [one["kind"] for one in of(told.data, "sales")["drops"]] == ["archive", "shadow"]
    assert of(told.data, "sales")["state"] == "dropped"
    assert offline.sql(SHADOWS) == []
    assert offline.sql("SELECT count(*) FROM shop.sales") == [(3,)]
    events = offline.sql("SELECT event FROM shop._safe_backfill_ledger ORDER BY recorded_at DESC LIMIT 2")
    assert {event for (event,) in events} == {"expired", "discarded"}
    assert "nothing to drop" in offline("retention", "sales").out


def test_without_a_job_it_is_done_here(offline: Terminal) -> None:
    materialize(offline, "by_day", "2024-01-01")
    offline.sql("UPDATE shop.by_day SET amount = 1")
    materialize(offline, "by_day", "2024-01-01")
    offline.sql("UPDATE shop._safe_backfill_ledger SET archive_expires_at = recorded_at WHERE archive IS NOT NULL")
    told = offline("retention", "by_day", "--yes", "-q")
    assert told.exit_code == 0
    assert told.out.startswith("shop.by_day__archive_")
    assert offline.sql(SHADOWS) == []


def test_the_job_needs_a_daemon(offline: Terminal, rejected: str) -> None:
    told = offline("retention", "--yes", "--timeout", "0.1", "--json")
    assert (told.exit_code, told.codes) == (6, ["no_daemon"])
    assert told.data["runs"][0]["assets"] == ["sales"]
    assert of(told.data, "sales")["state"] == "requested"
    shown = offline("retention", "--yes", "--timeout", "0.1")
    assert shown.out.startswith("requested", shown.out.index("\n") + 1)
    assert "dropped" not in shown.out
    assert offline("retention", "--yes", "--timeout", "0", "-q").out == ""
    assert of(offline("retention", "--json").data, "sales")["state"] == "would_drop"


def test_a_job_that_fails(offline: Terminal, rejected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_safe_backfill.cli.upkeep import jobs

    ran = jobs.Ran(run_id="a", status="FAILURE", error="the disk is full")
    monkeypatch.setattr(jobs, "wait", lambda *_given, **_named: ran)
    told = offline("retention", "--yes", "--json")
    assert (told.exit_code, told.codes, of(told.data, "sales")["state"]) == (1, ["run_failed"], "failed")


def test_dropping_here_that_fails(offline: Terminal, rejected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_safe_backfill.cli.upkeep import retiring
    from dagster_safe_backfill.errors import WarehouseError

    def full(*given: Any, **named: Any) -> Any:
        raise WarehouseError("the disk is full")

    monkeypatch.setattr(retiring, "drop_found", full)
    told = offline("retention", "sales", "--yes", "--in-process", "--json")
    assert (told.exit_code, told.codes, of(told.data, "sales")["state"]) == (1, ["WarehouseError"], "failed")


def test_what_runs_of_another_dagster_made_is_kept(
    offline: Terminal, rejected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may go on there. The archive, which has expired, is dropped."""
    (tmp_path / "another").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home_in(tmp_path / "another")))
    over = ("retention", "sales", "--shadow-days", "0")
    told = offline(*over, "--yes", "--in-process", "--json")
    assert (told.exit_code, told.data["runs"]) == (0, [])
    sales = of(told.data, "sales")
    assert [one["kind"] for one in sales["drops"]] == ["archive"]
    assert all(one["expires_at"] > time.time() + 6 * 86400 for one in sales["keeps"])
    assert [(one["kind"], one["why"], one["run_id"]) for one in sales["keeps"] if one["kind"] == "shadow"] == [
        ("shadow", "run_unknown", rejected)
    ]
    assert [name.startswith("sales__shadow") for (name,) in offline.sql(SHADOWS)] == [True]
    screen = offline(*over).out
    assert all(word in screen for word in ("isn't known to", "--unknown-runs"))
    told = offline(*over, "--unknown-runs", "--yes", "--in-process", "--json")
    assert [one["kind"] for one in of(told.data, "sales")["drops"]] == ["shadow"]
    assert offline.sql(SHADOWS) == []


def test_one_table_that_can_not_be_read_does_not_hide_the_others(offline: Terminal, rejected: str) -> None:
    offline.sql("UPDATE shop._safe_backfill_ledger SET asset_key = 'another'")
    told = offline("retention", "--json")
    assert (told.exit_code, told.codes) == (1, ["OtherAssetError"])
    assert {one["asset"] for one in told.data["assets"]} == {"batched", "by_day", "by_region", "by_shop", "staged"}


def test_a_file_that_a_run_holds(offline: Terminal, rejected: str) -> None:
    offline.write("lock_timeout", "0.1")
    with held(offline):
        told = offline("retention", "sales", "--json")
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])


def test_calls_that_are_wrong(offline: Terminal) -> None:
    assert offline("retention", "nope", "--json").codes == ["unknown_asset"]
    assert offline("retention", "--shadow-days", "-1", "--json").codes == ["usage"]
    assert offline("retention", "--json", place=("--url", "http://127.0.0.1:9")).codes == ["no_code"]
    assert offline("retention", "--json").exit_code == 0


def test_the_schedules_job(online: Terminal) -> None:
    """Of its assets, only those that are named; and the run that goes on keeps its shadow."""
    online.write("bad", "2024-01-26")
    try:
        materialize(online, "sales", "2024-01-26")
        materialize(online, "staged__shadow", "2024-01-26")
    finally:
        # The server is that of other tests, too.
        online.write("bad", "")
    place = (*online.place, *CODE)
    told = online("retention", "sales", "--shadow-days", "0", "--yes", "--json", place=place)
    assert told.exit_code == 0
    assert of(told.data, "sales")["state"] == "dropped"
    (run,) = told.data["runs"]
    assert (run["job"], run["status"], run["assets"]) == ("safe_backfill_retention_job", "SUCCESS", ["sales"])
    left = online.sql(SHADOWS)
    assert not [name for (name,) in left if name.startswith("sales__shadow")]
    assert [name for (name,) in left if name.startswith("staged__shadow")]
