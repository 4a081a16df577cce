from __future__ import annotations

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus

from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.launched import at, launch


def test_no_backfills_without_a_webserver(offline: Terminal) -> None:
    told = offline("list", "--json")
    assert told.exit_code == 0
    assert told.json == {
        "schema": "safe-backfill/1",
        "verb": "list",
        "exit_code": 0,
        "data": {"backfills": []},
        "warnings": [],
        "errors": [],
    }


def test_with_a_webserver(online: Terminal) -> None:
    tags = {"safe_backfill/plan": "p2", "safe_backfill/owner": "bob"}
    backfill_id = launch(at(online.place[1]), ["by_day"], "18", "18", **tags)
    told = online("list", "--asset", "by_day", "--json")
    assert told.exit_code == 0
    (one,) = [one for one in told.data["backfills"] if one["backfill_id"] == backfill_id]
    assert (one["plan_id"], one["owner"], one["reason"]) == ("p2", "bob", None)
    assert backfill_id in online("list", "-q").out.splitlines()
    assert backfill_id not in [
        one["backfill_id"] for one in online("list", "--asset", "staged", "--json").data["backfills"]
    ]


def test_what_is_open_comes_first(offline: Terminal) -> None:
    with Connection(modules=[PROJECT]) as connection:
        dagster = connection.dagster
        tags = {"safe_backfill/plan": "p1", "safe_backfill/owner": "ann", "safe_backfill/reason": "a fix"}
        older = launch(dagster, ["sales"], "01", "02", **tags)
        newer = launch(dagster, ["batched"], "01", "02")
    with dg.DagsterInstance.get() as instance:
        backfill = instance.get_backfill(newer)
        assert backfill is not None
        instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    told = offline("list", "--json")
    assert [one["backfill_id"] for one in told.data["backfills"]] == [older, newer]
    assert [one["is_over"] for one in told.data["backfills"]] == [False, True]
    first = told.data["backfills"][0]
    assert (first["plan_id"], first["owner"], first["reason"]) == ("p1", "ann", "a fix")
    assert [one["backfill_id"] for one in offline("list", "--open", "--json").data["backfills"]] == [older]
    assert [one["backfill_id"] for one in offline("list", "--asset", "batched", "--json").data["backfills"]] == [newer]
    assert [one["backfill_id"] for one in offline("list", "--limit", "1", "--json").data["backfills"]] == [older]
    assert offline("list", "-q").out == f"{older}\n{newer}\n"
    shown = offline("list").out
    assert "ann" in shown
    assert "a fix" in shown


def test_wrong_filters(offline: Terminal) -> None:
    assert offline("list", "--asset", "nix", "--json").codes == ["unknown_asset"]
    assert offline("list", "--limit", "0", "--json").codes == ["usage"]
