from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.launched import at
from dagster_safe_backfill_tests.cli.prepared import CODE, held, materialize


def verdicts(told: Any, asset: str | None) -> dict[str, str]:
    return {one["check"]: one["verdict"] for one in told.data["checks"] if one["asset"] == asset}


def message(told: Any, check: str, asset: str | None = None) -> str:
    (found,) = (one for one in told.data["checks"] if (one["check"], one["asset"]) == (check, asset))
    return f"{found['message']} -> {found['hint']}"


def test_an_instance_without_a_daemon(offline: Terminal) -> None:
    materialize(offline, "sales", "2024-01-01")
    told = offline("doctor", "--json")
    assert told.exit_code == 4
    assert verdicts(told, None) == {
        "dagster": "ok",
        "daemons": "problem",
        "storage": "ok",
        "run_queue": "ok",
        "code_location": "ok",
        "disk": "ok",
        "warehouse": "ok",
    }
    assert "backfills are not started" in message(told, "daemons")
    assert verdicts(told, "sales") == {
        "io_manager": "ok",
        "rollback_job": "ok",
        "retention": "warning",
        "ledger": "ok",
        "archives": "ok",
        "shadows": "ok",
        "staged": "ok",
        "green": "ok",
    }
    assert verdicts(told, "by_shop")["rollback_job"] == "warning"
    assert verdicts(told, "batched")["retention"] == "warning"
    shown = offline("doctor")
    assert "-> start `dagster dev`" in shown.out
    assert "io_manager" not in shown.out
    assert "io_manager" in offline("doctor", "--all").out
    assert "problem: no heartbeat" in offline("doctor", "-q").out


def test_what_is_left_behind(offline: Terminal) -> None:
    materialize(offline, "sales", "2024-01-01")
    offline.sql("UPDATE shop.sales SET amount = 1")
    materialize(offline, "sales", "2024-01-01")
    offline.write("bad", "2024-01-03")
    materialize(offline, "sales", "2024-01-03")
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-02")
    offline.sql("CREATE TABLE shop.sales__shadow_mine (precious INT)")
    offline.sql(
        "UPDATE shop._safe_backfill_ledger SET archive_expires_at = recorded_at,"
        " recorded_at = recorded_at - INTERVAL 9 DAY WHERE table_name = 'shop.sales'"
    )
    told = offline("doctor", "--json")
    assert "1 archives have expired" in message(told, "archives", "sales")
    assert verdicts(told, "sales")["shadows"] == "warning"
    texts = [one["message"] for one in told.data["checks"] if (one["check"], one["asset"]) == ("shadows", "sales")]
    assert any("shop.sales__shadow_mine" in text for text in texts)
    assert any("1 shadows are of runs that ended" in text for text in texts)
    assert "2 partitions passed their audits" in message(told, "staged", "staged")
    assert "approve staged" in message(told, "staged", "staged")
    hints = " ".join(
        one["hint"] for one in told.data["checks"] if one["check"] in ("archives", "staged") and one["hint"]
    )
    for call in (f"retention --yes -m {PROJECT}", f"diff staged -m {PROJECT}", f"approve staged -m {PROJECT}"):
        assert f"`safe-backfill {call}`" in hints
    offline.sql("DROP TABLE shop.sales__shadow_mine")


def test_what_is_green_without_a_publication(offline: Terminal) -> None:
    materialize(offline, "sales", "2024-01-01", "2024-01-03")
    offline.sql("DELETE FROM shop._safe_backfill_ledger WHERE partition_key = '2024-01-02'")
    told = offline("doctor", "--json")
    assert "1 partitions are green in Dagster" in message(told, "green", "sales")
    assert "2024-01-02" in message(told, "green", "sales")


def test_a_file_that_a_run_holds(offline: Terminal) -> None:
    materialize(offline, "sales", "2024-01-01")
    offline.write("lock_timeout", "0.2")
    with held(offline) as pid:
        told = offline("doctor", "--json")
    assert told.exit_code == 4
    every = [one for one in told.data["checks"] if one["check"] == "warehouse"]
    assert [one["verdict"] for one in every] == ["problem"] * 6
    assert str(pid) in every[0]["message"]


def test_whether_the_retention_schedule_is_on(online: Terminal) -> None:
    place = (*online.place, *CODE)
    told = online("doctor", "--json", place=place)
    assert "the schedule safe_backfill_retention is stopped" in message(told, "retention", "sales")
    selector = {"repositoryName": "__repository__", "scheduleName": "safe_backfill_retention"}
    start = """
    mutation ($selector: ScheduleSelector!) {
      startSchedule(scheduleSelector: $selector) { ... on ScheduleStateResult { scheduleState { id status } } }
    }
    """
    dagster = at(online.place[1])
    (asset,) = dagster.assets(["sales"])
    state = dagster.ask(start, selector={**selector, "repositoryLocationName": asset.location})["startSchedule"]
    try:
        assert state["scheduleState"]["status"] == "RUNNING"
        told = online("doctor", "--json", place=place)
        assert verdicts(told, "sales")["retention"] == "ok", told.out
        assert "safe_backfill_retention is on" in message(told, "retention", "sales")
    finally:
        stop = "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
        dagster.ask(stop, id=state["scheduleState"]["id"])


def test_a_schedule_that_no_daemon_runs(offline: Terminal) -> None:
    with Connection(modules=[PROJECT]) as connection:
        (asset,) = connection.dagster.assets(["sales"])
        assert connection.dagster.schedules_of_job(asset, "safe_backfill_retention_job") == {
            "safe_backfill_retention": False
        }
        assert connection.dagster.schedules_of_job(asset, "sales_job") == {}


ANOTHER = f"""
import dagster as dg, dagster_safe_backfill as sb
from {PROJECT} import sales, batched, defs as other

@sb.wap_asset(partitions_def=sales.partitions_def, partition_expr="day", io_manager_key="pickles")
def lost(partitions: sb.PartitionSlice):
    ...

defs = dg.Definitions(
    assets=[lost, sales], resources={{**other.resources, "pickles": dg.mem_io_manager}}
)
"""


def test_one_asset_that_can_not_be_checked_does_not_hide_the_others(offline: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "another.py"
    file.write_text(ANOTHER)
    told = offline("doctor", "--json", place=("-f", str(file), "-a", "defs"))
    assert told.exit_code == 4
    assert "which has no ledger" in message(told, "not_ours", "lost")
    assert verdicts(told, "sales")["warehouse"] == "ok"


def test_code_that_can_not_be_loaded(offline: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    told = offline("doctor", "--json", place=("-f", str(file)))
    assert told.exit_code == 5
    assert "division by zero" in told.json["errors"][0]["message"]


def test_a_dagster_that_can_not_be_reached(offline: Terminal) -> None:
    told = offline("doctor", "--json", place=("--url", "http://127.0.0.1:9"))
    assert (told.exit_code, told.codes) == (5, ["unreachable"])


def test_by_url_alone_dagster_is_checked(online: Terminal) -> None:
    told = online("doctor", "--json")
    assert told.exit_code == 0, told.out
    assert verdicts(told, None) == dict.fromkeys(("dagster", "daemons", "storage", "run_queue", "code_location"), "ok")
    assert "need the definitions" in told.json["warnings"][0]
    with_code = online("doctor", "--json", place=(*online.place, *CODE))
    assert with_code.exit_code == 4, with_code.out
    assert verdicts(with_code, "sales")["io_manager"] == "ok"


_LOADED = """
import sys
from dagster_safe_backfill.cli.main import run
code = run(["doctor", "--url", sys.argv[1], "-q"])
assert code == 0, code
assert not [name for name in ("dagster", "sqlglot", "duckdb") if name in sys.modules]
"""


def test_by_url_alone_dagster_is_not_imported(online: Terminal) -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED, online.place[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["history", "diff", "rollback", "retention", "doctor"])
def test_help(offline: Terminal, verb: str) -> None:
    told = offline(verb, "--help", place=())
    assert told.exit_code == 0
    assert "Usage: safe-backfill" in told.out
