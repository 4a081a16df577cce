"""`launch`: what was planned is done, by Dagster's own daemon or in this process; or it is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import dagster as dg
import pytest

from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, materialize

LIVE = "SELECT strftime(day, '%Y-%m-%d'), count(*) FROM shop.{} WHERE day BETWEEN '{}' AND '{}' GROUP BY 1 ORDER BY 1"


def _saved(terminal: Terminal, *arguments: str) -> str:
    told = terminal("plan", *arguments, "--out", str(terminal.folder / f"plan-{time.time_ns()}.json"), "--json")
    assert told.exit_code == 0, told.out
    return told.data["path"]


def test_a_plan_is_carried_out_by_the_daemon(online: Terminal) -> None:
    place = (*online.place, *CODE)
    plan = online("plan", "sales", "--from", "2024-01-01", "--to", "2024-01-03", "--reason", "a fix", "--owner", "ann",
                  "--out", str(online.folder / "first.json"), "--json", place=place)  # fmt: skip
    told = online("launch", plan.data["path"], "--yes", "--watch", "--json", place=place)
    assert told.exit_code == 0, told.out
    rows = online.sql(LIVE.format("sales", "2024-01-01", "2024-01-03"))
    assert rows == [("2024-01-01", 3), ("2024-01-02", 3), ("2024-01-03", 3)]
    backfills = online("list", "--json", "--limit", "50").data["backfills"]
    tags = next(
        one["tags"] for one in backfills if one["tags"].get("safe_backfill/plan") == plan.data["plan"]["plan_id"]
    )
    assert tags["safe_backfill/reason"] == "a fix"
    assert tags["safe_backfill/owner"] == "ann"


def test_a_launch_without_a_plan_prints_the_id_first(online: Terminal) -> None:
    told = online("launch", "batched", "--partitions", "2024-01-10", "--yes")
    assert told.exit_code == 0
    backfill_id = told.out.split()[1]
    for call in ("watch {}", "cancel {} --now", "rollback batched --backfill {}"):
        assert f"safe-backfill {call.format(backfill_id)} --url {online.place[1]}" in told.out
    assert "-m YOUR_DEFINITIONS" in told.out, "a rollback needs the code"
    assert online("watch", backfill_id, "--json").exit_code == 0


def test_in_process_no_daemon_is_needed(offline: Terminal) -> None:
    told = offline("launch", "staged", "--from", "2024-01-01", "--to", "2024-01-06", "--in-process", "--yes", "--json")
    assert told.exit_code == 0, told.out
    assert len(offline.sql(LIVE.format("staged", "2024-01-01", "2024-01-31"))) == 6
    with dg.DagsterInstance.get() as instance:
        (backfill,) = instance.get_backfills()
        assert backfill.status.value == "COMPLETED_SUCCESS", "it is closed, so that the next one isn't an overlap"


def test_in_process_whoever_stops_can_go_on(offline: Terminal) -> None:
    """No daemon: when the time is up, the backfill is cancelled, and a new launch isn't an overlap."""
    materialize(offline, "sales", "2024-01-01")
    # A run that somebody else has in the queue.
    queued = offline("rollback", "sales", "--yes", "--no-wait", "--json").data["run_id"]
    offline.write("slow", "30")
    arguments = ("launch", "batched", "--partitions", "2024-01-01", "--in-process", "--yes", "--json")
    told = offline(*arguments, "--timeout", "6")
    assert (told.exit_code, told.codes) == (6, ["stopped"])
    with dg.DagsterInstance.get() as instance:
        (backfill,) = instance.get_backfills()
        assert backfill.status.value == "CANCELED"
        assert all(
            run.is_finished for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
        )
        other = instance.get_run_by_id(queued)
        assert other is not None
        assert other.status is dg.DagsterRunStatus.QUEUED, "others' queued runs are left alone"
    (offline.folder / "slow").unlink()
    assert offline(*arguments).exit_code == 0


def test_without_a_daemon_a_cancelled_backfill_goes_on(offline: Terminal) -> None:
    backfill_id = offline("launch", "sales", "--from", "2024-01-01", "--to", "2024-01-03", "--yes", "-q").out.strip()
    told = offline("cancel", backfill_id, "--in-process", "--json")
    assert (told.exit_code, told.data["status"]) == (0, "CANCELED")
    told = offline("retry", backfill_id, "--in-process", "--json")
    assert told.exit_code == 0, told.out
    assert len(offline.sql(LIVE.format("sales", "2024-01-01", "2024-01-31"))) == 3


def test_in_process_beside_a_daemon_is_refused(online: Terminal) -> None:
    told = online("launch", "batched", "--last", "1", "--in-process", "--yes", "--json", place=CODE)
    assert (told.exit_code, told.codes) == (3, ["daemon_runs"])


@pytest.mark.parametrize("option", ["--missing", "--changed"])
def test_a_plan_of_some_of_all_partitions_holds_true(offline: Terminal, option: str) -> None:
    """It looks at all partitions to choose, and is compared by those that it chose."""
    materialize(offline, "sales", "2024-01-01", "2024-01-05")
    offline.sql("UPDATE shop.sales SET amount = 11 WHERE day = '2024-01-03'")
    plan = _saved(offline, "sales", option)
    told = offline("launch", plan, "--dry-run", "--json")
    assert told.exit_code == 0, told.out
    assert len(told.data["plan"]["assets"][0]["reasons"]) == (26 if option == "--missing" else 1)


def test_a_plan_of_the_code_needs_the_code(online: Terminal) -> None:
    plan = online(
        "plan", "sales", "--last", "1", "--out", str(online.folder / "code.json"), place=(*online.place, *CODE)
    )
    assert plan.exit_code == 0
    told = online("launch", str(online.folder / "code.json"), "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["needs_code"])


def test_a_plan_of_an_asset_without_partitions(offline: Terminal) -> None:
    plan = _saved(offline, "prices")
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("prices"))
    told = offline("launch", plan, "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])


def test_an_open_backfill_of_an_asset_without_partitions(offline: Terminal) -> None:
    assert offline("launch", "prices", "--yes").exit_code == 0
    told = offline("launch", "prices", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["guard_overlap"])


class TestPlansThatAreNoLongerTrue:
    def test_a_row_was_changed_by_hand(self, offline: Terminal) -> None:
        materialize(offline, "sales", "2024-01-01", "2024-01-04")
        plan = _saved(offline, "sales", "--from", "2024-01-01", "--to", "2024-01-03")
        offline.sql("UPDATE shop.sales SET amount = 98 WHERE day = '2024-01-04'")
        assert offline("launch", plan, "--json").codes == ["not_confirmed"], "a row outside of the plan doesn't matter"
        offline.sql("UPDATE shop.sales SET amount = 99 WHERE day = '2024-01-02' AND item = 0")
        told = offline("launch", plan, "--yes", "--json")
        assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])
        assert told.json["errors"][0]["partitions"] == ["2024-01-02"]
        with dg.DagsterInstance.get() as instance:
            assert not instance.get_backfills()

    def test_the_code_changed(self, offline: Terminal) -> None:
        plan = _saved(offline, "sales", "--last", "2")
        offline.write("version", "2")
        told = offline("launch", plan, "--yes", "--json")
        assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])
        assert "the code of sales changed" in told.json["errors"][0]["message"]

    def test_somebody_else_published(self, offline: Terminal) -> None:
        plan = _saved(offline, "sales", "--from", "2024-01-05", "--to", "2024-01-06")
        materialize(offline, "sales", "2024-01-06", "2024-01-06")
        told = offline("launch", plan, "--yes", "--json")
        assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])
        assert told.json["errors"][0]["partitions"] == ["2024-01-06"]

    def test_by_url_the_catalog_shows_it(self, online: Terminal) -> None:
        plan = _saved(online, "batched", "--partitions", "2024-01-12")
        warned = online("plan", "batched", "--partitions", "2024-01-12", "--dry-run", "--json").json["warnings"]
        assert any("without the definitions" in one for one in warned)
        materialize(online, "batched", "2024-01-12", "2024-01-12")
        told = online("launch", plan, "--yes", "--json")
        assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])

    def test_the_file_was_edited(self, offline: Terminal) -> None:
        plan = Path(_saved(offline, "sales", "--last", "2"))
        edited = plan.with_name("edited.json")
        edited.write_text(plan.read_text().replace("2024-01-30", "2024-01-29"))
        told = offline("launch", str(edited), "--yes", "--json")
        assert (told.exit_code, told.codes) == (3, ["edited_plan"])


def test_the_runs_refuse_what_changed_after_the_launch(online: Terminal) -> None:
    """Between the launch and its run, a row is changed by hand; only the run can notice."""
    place = (*online.place, *CODE)
    materialize(online, "sales", "2024-01-20", "2024-01-21")
    plan = online("plan", "sales", "--from", "2024-01-20", "--to", "2024-01-21", "--out",
                  str(online.folder / "late.json"), "--json", place=place)  # fmt: skip
    told = online("launch", plan.data["path"], "--yes", "--json", place=place)
    assert told.exit_code == 0
    online.sql("UPDATE shop.sales SET amount = 99 WHERE day = '2024-01-21' AND item = 0")
    watched = online("watch", told.data["backfill_id"], "--json")
    assert watched.exit_code == 1
    assert "PlanChangedError" in watched.out
    ((amount,),) = online.sql("SELECT max(amount) FROM shop.sales WHERE day = '2024-01-21'")
    assert amount == 99, "the plan's runs didn't overwrite it"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("launch", "sales", "--last", "1"), "not_confirmed"),
        (("launch", "sales", "--last", "1", "--yes", "--concurrency", "2"), "no_pool"),
    ],
)
def test_what_is_refused(offline: Terminal, arguments: tuple[str, ...], code: str) -> None:
    told = offline(*arguments, "--json")
    assert (told.exit_code, told.codes) == (3, [code])


def test_an_overlap_is_refused(online: Terminal) -> None:
    online.write("slow", "2")
    try:
        first = online("launch", "batched", "--from", "2024-01-14", "--to", "2024-01-16", "--yes", "--json")
        assert first.exit_code == 0
        second = online("launch", "batched", "--from", "2024-01-16", "--to", "2024-01-17", "--yes", "--json")
        assert (second.exit_code, second.codes) == (3, ["guard_overlap"])
        assert first.data["backfill_id"] in json.dumps(second.json["errors"])
        beside = online("plan", "batched", "--from", "2024-01-17", "--to", "2024-01-17", "--dry-run", "--json")
        assert next(one for one in beside.data["guards"] if one["name"] == "overlap")["holds"]
    finally:
        (online.folder / "slow").unlink()
    assert online("watch", first.data["backfill_id"], "--json").exit_code == 0


def test_multi_partitions_that_are_no_rectangle(online: Terminal) -> None:
    keys = "2024-01-01|us,2024-01-02|eu,2024-01-02|us,2024-01-03|eu"
    told = online("launch", "by_shop", "--partitions", keys, "--yes", "--json")
    assert told.exit_code == 0
    with dg.DagsterInstance.get() as instance:
        backfill = instance.get_backfill(told.data["backfill_id"])
        assert backfill is not None
        assert backfill.asset_backfill_data is not None
        subset = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key[dg.AssetKey("by_shop")]
        assert sorted(subset.get_partition_keys()) == keys.split(",")
    assert online("cancel", told.data["backfill_id"], "--now").exit_code == 0


def test_an_asset_without_partitions(online: Terminal) -> None:
    told = online("launch", "prices", "--yes", "--watch", "--json", place=(*online.place, *CODE))
    assert told.exit_code == 0, told.out
    assert online.sql("SELECT count(*) FROM shop.prices") == [(3,)]
