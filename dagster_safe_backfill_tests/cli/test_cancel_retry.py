"""`cancel` and `retry`: what is live stays live, and what goes on computes only what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.verbs.backfills.cancel_verb import Ending
from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.launched import at, computed, launch, launch_job
from dagster_safe_backfill_tests.cli.prepared import materialize


def _until(look: Callable[[], bool], *, within: float = 90) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def _live(terminal: Terminal, backfill_id: str) -> set[str]:
    (asset,) = terminal("status", backfill_id, "--json").data["assets"]
    return {one["partition"][-2:] for one in asset["partitions"] if one["state"] == "live"}


def _is_starting(terminal: Terminal, backfill_id: str) -> bool:
    """Return True while the process of a run only starts, which Dagster can't end."""
    return any(run["status"] == "STARTING" for run in terminal("status", backfill_id, "--json").data["runs"])


def test_a_cancelled_backfill_goes_on_with_what_is_missing(online: Terminal) -> None:
    """One of many runs, and one of a run that publishes batch by batch; at once, as each takes ticks of the daemon."""
    dagster = at(online.place[1])
    online.write("slow", "4")
    days = [f"{day:02}" for day in range(11, 17)]
    ids = {name: launch(dagster, [name], days[0], days[-1], flavour="mint") for name in ("by_day", "batched")}
    for backfill_id in ids.values():
        refused = online("retry", backfill_id, "--json")
        assert (refused.exit_code, refused.codes) == (3, ["still_running"])
    # The one whose days take turns in one run is the first to be done with all of them.
    for backfill_id in reversed(ids.values()):
        _until(lambda backfill_id=backfill_id: bool(_live(online, backfill_id)))
        _until(lambda backfill_id=backfill_id: not _is_starting(online, backfill_id))
        told = online("cancel", backfill_id, "--now", "--json")
        assert (told.exit_code, told.data["was_over"]) == (0, False)
        assert online("cancel", backfill_id, "--json").exit_code == 0, "twice is fine"
    live: dict[str, set[str]] = {}
    for name, backfill_id in ids.items():
        told = online("cancel", backfill_id, "--now", "--wait", "--json")
        assert (told.exit_code, told.data["status"]) == (0, "CANCELED"), told.out
        code, data = _ended(online, backfill_id)
        assert code == 1
        assert {state for state, count in data["counts"].items() if count} == {"live", "cancelled"}
        live[name] = _live(online, backfill_id)
    online.write("slow", "0")

    before = {name: len(computed(online.folder, name)) for name in ids}
    again = {name: online("retry", backfill_id, "--json").data for name, backfill_id in ids.items()}
    for name, new in again.items():
        assert new["parent_id"] == ids[name]
        assert new["partition_count"] == 6 - len(live[name])
        assert {name for name, call in new["commands"].items() if call} == {"watch", "stop", "undo"}
        told = online("watch", new["backfill_id"], "--interval", "0.3", "--json")
        assert told.exit_code == 0
        assert told.data["tags"]["flavour"] == "mint"
        since = computed(online.folder, name)[before[name] :]
        assert sorted(since) == sorted({*days} - live[name]), "each that was missing, once, and nothing else"

    refused = online("retry", ids["by_day"], "--json")
    assert (refused.exit_code, refused.codes) == (3, ["already_retried"])
    nothing = online("retry", again["by_day"]["backfill_id"], "--json")
    assert (nothing.exit_code, nothing.data["backfill_id"]) == (0, None)


def _ended(terminal: Terminal, backfill_id: str) -> tuple[int, Any]:
    told = terminal("status", backfill_id, "--json")
    return told.exit_code, told.data


def test_what_has_ended_is_left_as_it_is(online: Terminal) -> None:
    dagster = at(online.place[1])
    online.write("bad", "2024-01-06")
    backfill_id = launch(dagster, ["sales"], "05", "06")
    assert online("watch", backfill_id, "--interval", "0.3").exit_code == 1
    online.write("bad", "")
    # Dagster 1.13.27 would call it CANCELED from then on.
    status = dagster.backfill(backfill_id).status
    told = online("cancel", backfill_id, "--now", "--json")
    assert (told.exit_code, told.data["was_over"]) == (0, True)
    assert dagster.backfill(backfill_id).status == status == "COMPLETED_FAILED"
    assert "had ended already" in online("cancel", backfill_id).out

    # What was rejected is computed again, once the source is mended; and it is followed.
    told = online("retry", backfill_id, "--watch", "--json")
    assert (told.exit_code, told.data["progress"]["counts"]["live"]) == (0, 2)
    assert told.data["progress"]["tags"]["dagster/parent_backfill_id"] == backfill_id
    assert f"goes on with 2 of 2 partitions of {backfill_id}" in told.err


def test_a_backfill_of_a_job_over_ranges_cant_be_retried(online: Terminal) -> None:
    dagster = at(online.place[1])
    online.write("broken", "2024-01-22")
    backfill_id = launch_job(dagster, PROJECT, "sales_job", "22", "23")
    assert online("watch", backfill_id, "--interval", "0.3").exit_code == 1
    online.write("broken", "")
    told = online("retry", backfill_id, "--json")
    assert (told.exit_code, told.codes) == (3, ["not_retryable"])
    assert "launch ASSET" in told.json["errors"][0]["hint"]


def test_without_a_daemon_the_cancelling_waits(offline: Terminal) -> None:
    with Connection(modules=[PROJECT]) as connection:
        backfill_id = launch(connection.dagster, ["sales"], "01", "03")
    told = offline("cancel", backfill_id, "--wait", "--timeout", "1", "--json")
    assert (told.exit_code, told.codes) == (6, ["time_is_up"])
    assert told.data["status"] == "CANCELING"
    told = offline("cancel", backfill_id)
    assert told.exit_code == 0
    assert "what is live stays live" in told.out
    assert f"safe-backfill retry {backfill_id} -m {PROJECT}" in told.out
    assert offline("retry", backfill_id, "--json").codes == ["still_running"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_too_little_of_an_id_changes_nothing(offline: Terminal, verb: str) -> None:
    with Connection(modules=[PROJECT]) as connection:
        backfill_id = launch(connection.dagster, ["sales"], "01", "03")
        for little in (backfill_id[:1], backfill_id[:5]):
            told = offline(verb, little, "--json")
            assert (told.exit_code, told.codes) == (2, ["short_id"])
            assert "at least 6 characters" in told.json["errors"][0]["hint"]
        assert offline(verb, "", "--json").codes == ["empty_value"]
        assert [one.status for one in connection.dagster.backfills(limit=9)] == ["REQUESTED"]
    # `status` changes nothing, so there a letter is enough.
    assert offline("status", backfill_id[:1], "--json").data["backfill_id"] == backfill_id
    told = offline(verb, backfill_id[:6], "--json")
    assert told.codes == (["still_running"] if verb == "retry" else []), "6 characters are enough"


def test_a_run_is_ended_by_its_whole_id_only(offline: Terminal) -> None:
    run_id = _add_run(None)
    told = offline("cancel", run_id[:20], "--json")
    assert (told.exit_code, told.codes) == (2, ["short_id"])
    assert run_id in told.json["errors"][0]["hint"]
    assert offline("cancel", run_id, "--json").data["run_id"] == run_id


def _add_run(backfill_id: str | None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
    """Add a run of no process: one that is queued can be ended, one that has started can't."""
    tags = {} if backfill_id is None else {"dagster/backfill": backfill_id}
    run = dg.DagsterRun(job_name="sales_job", run_id=str(uuid4()), status=status, tags=tags)
    with dg.DagsterInstance.get() as instance:
        instance.add_run(run)
    return run.run_id


def _start(run_id: str) -> None:
    """Let a run start, as Dagster's daemon does with one that it had taken from the queue before it was cancelled."""
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        event = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name)
        instance.report_dagster_event(event, run_id=run_id)


@pytest.mark.parametrize("flags", [["--now"], ["--now", "--wait", "--timeout", "1"]])
def test_runs_that_couldnt_be_ended_are_told(offline: Terminal, flags: list[str]) -> None:
    with Connection(modules=[PROJECT]) as connection:
        backfill_id = launch(connection.dagster, ["sales"], "01", "03")
    run_id = _add_run(backfill_id)
    told = offline("cancel", backfill_id, *flags, "--json")
    assert (told.exit_code, told.codes[0]) == (1, "not_ended")
    assert told.codes[1:] == (["time_is_up"] if "--wait" in flags else [])
    assert (told.data["ended_run_ids"], told.data["not_ended_run_ids"]) == ([], [run_id])
    assert run_id in told.json["errors"][0]["message"]


def test_a_run_that_couldnt_be_ended_is_told(offline: Terminal) -> None:
    run_id = _add_run(None)
    told = offline("cancel", run_id, "--json")
    assert (told.exit_code, told.codes, told.data["not_ended_run_ids"]) == (1, ["not_ended"], [run_id])


def test_it_is_told_how_to_wait_and_end_what_starts_meanwhile(offline: Terminal) -> None:
    with Connection(modules=[PROJECT]) as connection:
        dagster = connection.dagster
        backfill_id = launch(dagster, ["sales"], "01", "03")
        (asset,) = dagster.assets(["sales"])
        tags = {"dagster/backfill": backfill_id, "dagster/partition": "2024-01-01"}
        run_id = dagster.launch_job(asset, "sales_job", run_config={}, tags=tags)
        assert dagster.run(run_id).status == "QUEUED"
        told = offline("cancel", backfill_id, "--now", "--json")
        assert (told.exit_code, told.data["ended_run_ids"], told.data["not_ended_run_ids"]) == (0, [run_id], [])
        assert told.data["commands"]["wait"] == f"safe-backfill cancel {backfill_id} --now --wait -m {PROJECT}"
        assert dagster.run(run_id).status == "CANCELED"
    assert "end what starts meanwhile" in offline("cancel", backfill_id, "--now").out


def test_what_was_ended_is_ended_again_once_it_started(offline: Terminal) -> None:
    """A run that the daemon had taken from the queue can start though it was cancelled, 17 s later in one case."""
    with Connection(modules=[PROJECT]) as connection:
        dagster = connection.dagster
        (asset,) = dagster.assets(["sales"])
        run_id = dagster.launch_job(asset, "sales_job", run_config={}, tags={"dagster/partition": "2024-01-01"})
        ending = Ending(dagster=dagster, subject=dagster.run(run_id))
        assert ending.end_what_runs()
        assert not ending.end_what_runs(), "it has ended"
        _start(run_id)
        assert ending.end_what_runs(), "and runs again"
        # Nobody can end a process that isn't there; what counts is that it was asked to.
        assert [*ending.refused] == [run_id]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_an_unknown_id(offline: Terminal, verb: str) -> None:
    told = offline(verb, "nosuchid", "--json")
    assert (told.exit_code, told.codes) == (2, ["unknown_backfill"])


def test_runs(offline: Terminal) -> None:
    run_id = materialize(offline, "sales", "2024-01-01")
    told = offline("retry", run_id, "--json")
    assert (told.exit_code, told.codes) == (2, ["not_a_backfill"])
    told = offline("cancel", run_id, "--json")
    assert (told.exit_code, told.data["was_over"], told.data["run_id"]) == (0, True, run_id)
