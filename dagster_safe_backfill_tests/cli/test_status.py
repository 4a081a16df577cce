"""`status`: each partition's state, run, publication, counts and failed audits, of backfills that ended in all ways."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import Materialization, Run
from dagster_safe_backfill.cli.following.reading.failures import AssetOutcome, CheckOutcome, RunOutcome
from dagster_safe_backfill.cli.following.reading.judging import Known, judged
from dagster_safe_backfill.cli.following.reading.targets import OwnRun
from dagster_safe_backfill.cli.following.screen import show
from dagster_safe_backfill.cli.following.states import AssetProgress, FailedAudit, PartitionState, Progress
from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal, reset
from dagster_safe_backfill_tests.cli.launched import at, ended, launch, launch_job
from dagster_safe_backfill_tests.cli.prepared import materialize


@pytest.fixture(scope="session")
def ids(_server: tuple[Path, str]) -> Mapping[str, str]:
    """Launch backfills that end in all ways, at once, as each takes two ticks of the daemon."""
    folder, address = _server
    dagster = at(address)
    (folder / "bad").write_text("2024-01-08 2024-01-13 2024-01-21")
    (folder / "broken").write_text("2024-01-02")
    try:
        found = _launched(dagster)
        ended(dagster, found.values())
    finally:
        reset(folder)
    return found


def _launched(dagster: Dagster) -> dict[str, str]:
    return {
        "rejected": launch(dagster, ["sales"], "06", "10"),
        "partly": launch(dagster, ["batched"], "20", "23", **{"safe_backfill/owner": "ann"}),
        "broken": launch(dagster, ["by_day"], "01", "02"),
        "staged": launch(dagster, ["staged__shadow", "staged__audit"], "11", "15"),
        "whole": launch(dagster, ["staged__shadow", "staged__audit", "staged"], "03", "04"),
        "two": launch(dagster, ["batched", "prices"], "30", "30"),
        "job": launch_job(dagster, PROJECT, "sales_job", "14", "15"),
    }


def _status(terminal: Terminal, wanted: str) -> tuple[int, Any]:
    told = terminal("status", wanted, "--json")
    return told.exit_code, told.data


def _counts(data: Any) -> dict[str, int]:
    return {state: count for state, count in data["counts"].items() if count}


def _states(data: Any) -> dict[str | None, str]:
    (asset,) = data["assets"]
    return {one["partition"]: one["state"] for one in asset["partitions"]}


def test_audits_rejected_a_run(online: Terminal, ids: Mapping[str, str]) -> None:
    told = online("status", ids["rejected"], "--json")
    assert told.exit_code == 1
    assert told.counts == {"staged": 4, "rejected": 1}
    (asset,) = told.data["assets"]
    bad = next(one for one in asset["partitions"] if one["state"] == "rejected")
    assert bad["partition"] == "2024-01-08"
    assert bad["failed_audits"] == [{"audit": "amount_positive", "failed_rows": 3, "blocks": True, "message": None}]
    (failure,) = asset["failures"]
    assert failure["run_id"] == bad["run_id"]
    assert failure["is_rejection"]
    (shadow,) = failure["shadows"]
    assert online.sql(f"SELECT count(*) FROM {shadow}") == [(15,)]
    rejected, not_live = told.json["errors"]
    assert (rejected["code"], rejected["partitions"]) == ("partitions_rejected", ["2024-01-08"])
    assert (not_live["code"], len(not_live["partitions"])) == ("partitions_not_live", 4)
    assert told.data["commands"]["retry"].startswith(f"safe-backfill retry {ids['rejected']} --url http://")


def test_the_screen_of_a_rejected_run(online: Terminal, ids: Mapping[str, str]) -> None:
    told = online("status", ids["rejected"])
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert "sales: 5 partitions, 4 staged, 1 rejected" in lines
    assert any(line.startswith("2024-01-06 to 2024-01-07 2 staged 6") for line in lines)
    assert "2024-01-08 amount_positive: 3 rows" in lines
    assert any(line.startswith("the rejected rows are in shop.sales__shadow_") for line in lines)
    assert any(line.startswith("safe-backfill diff sales --url ") for line in lines)
    assert "error: 1 of 5 partitions of sales were rejected by audits" in told.err


def test_what_passed_of_a_batched_run_is_live(online: Terminal, ids: Mapping[str, str]) -> None:
    code, data = _status(online, ids["partly"])
    assert code == 1
    states = _states(data)
    assert states == {f"2024-01-{day}": "rejected" if day == "21" else "live" for day in ("20", "21", "22", "23")}
    live = [one for one in data["assets"][0]["partitions"] if one["state"] == "live"]
    assert len({one["publication_id"] for one in live}) == 3
    assert [one["rows"]["inserted"] for one in live] == [3, 3, 3]
    assert data["computed"]["row_count"] == 12
    assert data["commands"]["undo"].startswith(f"safe-backfill rollback batched --backfill {ids['partly']}")


def test_an_error_of_the_users_code(online: Terminal, ids: Mapping[str, str]) -> None:
    code, data = _status(online, ids["broken"])
    assert code == 1
    assert _states(data) == {"2024-01-01": "live", "2024-01-02": "failed"}
    (failure,) = data["assets"][0]["failures"]
    assert failure["message"] == "ValueError: the source has no 2024-01-02"
    assert not failure["is_rejection"]
    assert "ValueError: the source has no 2024-01-02" in online("status", ids["broken"]).out


def test_a_staged_backfill_in_which_one_was_rejected(online: Terminal, ids: Mapping[str, str]) -> None:
    code, data = _status(online, ids["staged"])
    assert code == 1
    (asset,) = data["assets"]
    assert (asset["asset"], asset["goal"], asset["is_staged"]) == ("staged", "staged", True)
    assert _counts(data) == {"staged": 4, "rejected": 1}
    assert asset["audit"]["run_id"] is None
    assert "audit of all together: not run" in online("status", ids["staged"]).out


def test_a_staged_backfill_that_went_live(online: Terminal, ids: Mapping[str, str]) -> None:
    code, data = _status(online, ids["whole"])
    assert code == 0
    assert _states(data) == {"2024-01-03": "live", "2024-01-04": "live"}
    assert {one["publication_id"] for one in data["assets"][0]["partitions"]} == {ids["whole"]}
    assert data["assets"][0]["audit"]["state"] == "passed"
    assert data["is_over"]


def test_several_assets_one_without_partitions(online: Terminal, ids: Mapping[str, str]) -> None:
    code, data = _status(online, ids["two"])
    assert code == 0
    states = {
        (asset["asset"], one["partition"]): one["state"] for asset in data["assets"] for one in asset["partitions"]
    }
    assert states == {("batched", "2024-01-30"): "live", ("prices", None): "live"}


def test_a_backfill_of_a_job(online: Terminal, ids: Mapping[str, str]) -> None:
    code, data = _status(online, ids["job"])
    assert code == 0
    assert data["assets"][0]["asset"] == "sales_job"
    assert _states(data) == {"2024-01-14": "live", "2024-01-15": "live"}


def test_a_run_by_its_id_and_by_its_beginning(online: Terminal, ids: Mapping[str, str]) -> None:
    _, data = _status(online, ids["partly"])
    run_id = data["runs"][0]["run_id"]
    code, of_run = _status(online, run_id)
    assert (code, of_run["run_id"], of_run["counts"]) == (1, run_id, data["counts"])
    assert _status(online, run_id[:13])[1]["run_id"] == run_id
    assert of_run["commands"]["retry"] is None, "Dagster's own re-execution is for runs"


def test_a_backfill_by_the_beginning_of_its_id(online: Terminal, ids: Mapping[str, str]) -> None:
    assert _status(online, ids["whole"][:7])[1]["backfill_id"] == ids["whole"]


def test_quiet_prints_the_status(online: Terminal, ids: Mapping[str, str]) -> None:
    assert online("status", ids["whole"], "-q").out == "COMPLETED_SUCCESS\n"


def test_a_rollback_is_seen_and_can_be_looked_at(online: Terminal, ids: Mapping[str, str]) -> None:
    dagster = at(online.place[1])
    (asset,) = dagster.assets(["by_day"])
    config = {"ops": {"rollback_by_day_op": {"config": {"backfill_id": ids["broken"]}}}}
    run_id = dagster.launch_job(asset, "rollback_by_day", run_config=config, tags={})
    watched = online("watch", run_id, "--interval", "0.3", "--json")
    assert watched.exit_code == 0
    assert _states(watched.data) == {"2024-01-01": "live"}
    (partition, _failed) = _status(online, ids["broken"])[1]["assets"][0]["partitions"]
    assert (partition["state"], partition["superseded_by"]) == ("live", run_id)


def test_a_run_without_partitions_is_refused_by_name(online: Terminal) -> None:
    dagster = at(online.place[1])
    (asset,) = dagster.assets(["sales"])
    run_id = dagster.launch_job(asset, "safe_backfill_retention_job", run_config={}, tags={})
    while dagster.run(run_id).is_open:
        time.sleep(0.3)
    told = online("status", run_id, "--json")
    assert (told.exit_code, told.codes) == (2, ["no_partitions"])
    assert f"run {run_id} of safe_backfill_retention_job" in told.json["errors"][0]["message"]


@pytest.mark.parametrize("wanted", ["nosuchid", "12345678-1234-1234-1234-123456789012", "nosuch'id\"{}"])
def test_an_unknown_id(online: Terminal, wanted: str) -> None:
    told = online("status", wanted, "--json")
    assert (told.exit_code, told.codes) == (2, ["unknown_backfill"])


def test_an_id_that_several_begin_with(offline: Terminal) -> None:
    from dagster_safe_backfill.cli.connection import Connection

    with Connection(modules=[PROJECT]) as connection:
        # There are 26 letters, so two of these begin with the same.
        found = [launch(connection.dagster, ["sales"], "01", "01") for _ in range(27)]
    letter = next(one[0] for one in found if sum(other[0] == one[0] for other in found) > 1)
    told = offline("status", letter, "--json")
    assert (told.exit_code, told.codes) == (2, ["ambiguous_id"])


def test_a_run_in_this_process_needs_no_webserver(offline: Terminal) -> None:
    offline.write("bad", "2024-01-02")
    run_id = materialize(offline, "sales", "2024-01-01", "2024-01-03")
    code, data = _status(offline, run_id)
    assert (code, _counts(data)) == (1, {"staged": 2, "rejected": 1})


def test_by_url_neither_dagster_nor_the_code_is_imported(online: Terminal, ids: Mapping[str, str]) -> None:
    program = (
        "import sys; from dagster_safe_backfill.cli.main import run; code = run(sys.argv[1:]);"
        f" loaded = [one for one in ('dagster', 'pandas', 'duckdb', '{PROJECT}') if one in sys.modules];"
        " sys.exit(str(loaded) if loaded else code)"
    )
    command = [sys.executable, "-c", program, "status", ids["whole"], *online.place, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["backfill_id"] == ids["whole"]


def _large(count: int) -> Progress:
    """Return a backfill whose every third partition was rejected, and every fifth failed."""
    partitions: list[PartitionState] = []
    for number in range(count):
        state: Any = "rejected" if number % 3 == 0 else "failed" if number % 5 == 0 else "live"
        audits = [FailedAudit(name="positive", failed_rows=number)] if state == "rejected" else []
        partitions.append(PartitionState(partition=f"{number:05}", state=state, run_id=f"{number:032}", audits=audits))
    return Progress(
        id="abcdefgh", backfill=None, runs=[_run_of("abcdefgh", "FAILURE")], assets=[_asset(partitions)], at=time.time()
    )


def _asset(partitions: list[PartitionState]) -> AssetProgress:
    return AssetProgress(asset="sales", partitions=partitions)


def test_the_screen_stays_readable_at_thousands_of_partitions() -> None:
    text = io.StringIO()
    show(Console(file=text, width=110), _large(2406), [])
    lines = text.getvalue().splitlines()
    assert len(lines) < 80
    assert "sales: 2,406 partitions, 1,283 live, 802 rejected, 321 failed" in lines
    assert sum("more ranges; --json has every partition" in line for line in lines) == 1
    assert "    and 772 more; --json has all" in lines


def test_an_audit_of_all_together_that_names_partitions_is_rejected() -> None:
    """It has no partitions itself, so what its audits name must not make it, or the others, look staged."""
    keys = ("2024-01-01", "2024-01-02")
    runs = {name: _run_of(name, status) for name, status in (("shadow", "SUCCESS"), ("audit", "FAILURE"))}
    own = [OwnRun(run=runs["shadow"], assets=("x__shadow",), created_at=1.0, keys=frozenset(keys)),
           OwnRun(run=runs["audit"], assets=("x__audit",), created_at=2.0)]  # fmt: skip
    check = CheckOutcome(name="unique_key", passed=False, blocks=True, keys=frozenset(keys[1:]), audited=2)
    outcome = RunOutcome(
        run_id="audit",
        assets={"x__audit": AssetOutcome(run_id="audit", message="blocked", checks=[check])},
        message="blocked",
    )
    staged = {key: Materialization(partition=key, run_id="shadow", at=1.0) for key in keys}
    known = Known(
        backfill=None,
        runs=own,
        targets={"x__shadow": keys, "x__audit": (None,)},
        newest={"x__shadow": {**staged}},
        outcomes={"audit": outcome},
        is_of_job=False,
    )
    (asset,) = judged(known)
    assert asset.audit is not None
    assert asset.audit.state == "rejected"
    assert {one.partition: one.state for one in asset.partitions} == dict(
        zip(keys, ("staged", "rejected"), strict=True)
    )


def _run_of(name: str, status: str) -> Run:
    return Run(id=name, status=status, job="job", tags={}, started_at=0.0, ended_at=9.0)
