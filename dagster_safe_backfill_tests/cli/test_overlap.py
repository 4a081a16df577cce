"""Backfills and runs that work on the same partitions: before a launch, and of calls at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_safe_backfill.cli.answers.answer import CommandError
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.plans.confirming import Confirmed
from dagster_safe_backfill.cli.plans.launching import launch_alone
from dagster_safe_backfill.cli.plans.plan import load, path_of
from dagster_safe_backfill.cli.verbs.backfills.retry_verb import go_on
from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.launched import at, ended, launch, launch_job
from dagster_safe_backfill_tests.cli.prepared import materialize

DAY = "dagster/partition"


@pytest.fixture
def dagster(offline: Terminal) -> Iterator[Dagster]:
    with Connection(modules=[PROJECT]) as connection:
        yield connection.dagster


def _overlap(terminal: Terminal, asset: str, days: str) -> tuple[bool, str]:
    told = terminal("plan", asset, "--partitions", days, "--dry-run", "--json")
    guard = next(one for one in told.data["guards"] if one["name"] == "overlap")
    return not guard["holds"], guard["message"]


def test_a_backfill_of_a_job(offline: Terminal, dagster: Dagster) -> None:
    backfill_id = launch_job(dagster, PROJECT, "by_day_job", "01", "02")
    told = offline("launch", "by_day", "--partitions", "2024-01-02,2024-01-03", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["guard_overlap"])
    assert f"backfill {backfill_id} is requested and covers 1 of these" in told.json["errors"][0]["message"]
    assert not _overlap(offline, "by_day", "2024-01-03")[0]
    assert not _overlap(offline, "sales", "2024-01-02")[0], "the job is of another asset"


def test_a_run_that_is_queued(offline: Terminal, dagster: Dagster) -> None:
    (asset,) = dagster.assets(["by_day"])
    run_id = dagster.launch_job(asset, "by_day_job", run_config={}, tags={DAY: "2024-01-04"})
    is_one, message = _overlap(offline, "by_day", "2024-01-04,2024-01-05")
    assert is_one
    assert f"run {run_id} of by_day_job is queued" in message
    assert not _overlap(offline, "by_day", "2024-01-05")[0]


def test_a_run_of_a_range(offline: Terminal, dagster: Dagster) -> None:
    (asset,) = dagster.assets(["sales"])
    ends = {"dagster/asset_partition_range_start": "2024-01-04", "dagster/asset_partition_range_end": "2024-01-08"}
    dagster.launch_job(asset, "sales_job", run_config={}, tags=ends)
    assert _overlap(offline, "sales", "2024-01-06")[0]
    assert not _overlap(offline, "sales", "2024-01-09")[0]


def test_what_stages_the_same_partitions(offline: Terminal, dagster: Dagster) -> None:
    launch(dagster, ["staged__shadow"], "01", "03")
    assert _overlap(offline, "staged", "2024-01-03")[0]
    assert not _overlap(offline, "staged", "2024-01-04")[0]


def _cancelled(terminal: Terminal, first: str, last: str) -> str:
    backfill_id = terminal("launch", "by_day", "--from", first, "--to", last, "--yes", "-q").out.strip()
    assert terminal("cancel", backfill_id, "--in-process", "--json").data["status"] == "CANCELED"
    return backfill_id


def test_retry_looks_for_overlaps(offline: Terminal, dagster: Dagster) -> None:
    backfill_id = _cancelled(offline, "2024-01-01", "2024-01-03")
    other = launch_job(dagster, PROJECT, "by_day_job", "03", "04")
    told = offline("retry", backfill_id, "--json")
    assert (told.exit_code, told.codes) == (3, ["guard_overlap"])
    assert other in told.json["errors"][0]["message"]
    assert offline("retry", backfill_id, "--allow-overlap", "--json").exit_code == 0


def test_what_is_done_is_no_overlap_of_a_retry(offline: Terminal, dagster: Dagster) -> None:
    backfill_id = _cancelled(offline, "2024-01-01", "2024-01-02")
    launch_job(dagster, PROJECT, "by_day_job", "05")
    assert offline("retry", backfill_id, "--json").exit_code == 0


def _together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two calls of a method of `Dagster` both be done before either goes on."""
    both, method = threading.Barrier(2), getattr(Dagster, name)

    def call(*given: object, **named: object) -> object:
        done = method(*given, **named)
        both.wait(timeout=60)
        return done

    monkeypatch.setattr(Dagster, name, call)


def _two(work: Callable[[Connection], str], address: str) -> tuple[list[str], list[CommandError]]:
    """Do the same twice at the same time, and return what was launched, and what was refused."""

    def once(_number: int) -> str | CommandError:
        with Connection(url=address) as connection:
            try:
                return work(connection)
            except CommandError as error:
                return error

    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(once, range(2))]
    return [one for one in found if isinstance(one, str)], [one for one in found if isinstance(one, CommandError)]


def test_of_two_retries_at_the_same_time_one_goes_on(online: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster = at(online.place[1])
    online.write("broken", "2024-01-26 2024-01-27")
    parent = launch(dagster, ["by_day"], "26", "27")
    ended(dagster, [parent])
    (online.folder / "broken").unlink()
    _together("reexecute_backfill", monkeypatch)
    launched, refused = _two(lambda one: go_on(one, parent, [], in_process=False), online.place[1])
    assert (len(launched), [one.problem.code for one in refused]) == (1, ["already_retried"])
    assert launched[0] in refused[0].problem.message
    monkeypatch.undo()
    monkeypatch.setenv("DAGSTER_HOME", str(online.folder / "home"))
    ended(dagster, launched)
    assert dagster.backfill(*launched).status == "COMPLETED_SUCCESS"
    children = [one for one in dagster.backfills(limit=50) if one.tags.get("dagster/parent_backfill_id") == parent]
    assert sorted(one.status for one in children if one.id not in launched) in (["CANCELED"], ["CANCELING"])
    again = online("retry", parent, "--json")
    assert again.codes == ["already_retried"]
    assert launched[0] in again.json["errors"][0]["message"], "the one that was taken back isn't named"


def test_of_two_launches_of_a_plan_one_goes_on(online: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster, plan = at(online.place[1]), str(online.folder / "twice.json")
    assert online("plan", "by_day", "--partitions", "2024-01-28", "--out", plan).exit_code == 0
    _together("launch_backfill", monkeypatch)

    def work(connection: Connection) -> str:
        path = path_of(plan)
        assert path is not None
        return launch_alone(
            connection, load(path), tags={}, confirmed=Confirmed(), allows_overlap=True, in_process=False
        )

    launched, refused = _two(work, online.place[1])
    assert (len(launched), [one.problem.code for one in refused]) == (1, ["already_launched"])
    assert launched[0] in refused[0].problem.message
    ended(dagster, launched)
    assert dagster.backfill(*launched).status == "COMPLETED_SUCCESS"


def test_of_two_launches_of_the_same_partitions_one_goes_on(online: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(online.folder / f"of_the_same_{number}.json") for number in (1, 2)]
    for path, last in zip(paths, ("2024-01-30", "2024-01-31"), strict=True):
        assert online("plan", "by_day", "--from", "2024-01-30", "--to", last, "--out", path).exit_code == 0
    _together("launch_backfill", monkeypatch)

    def work(connection: Connection) -> str:
        path = path_of(paths.pop())
        assert path is not None
        return launch_alone(
            connection, load(path), tags={}, confirmed=Confirmed(), allows_overlap=False, in_process=False
        )

    launched, refused = _two(work, online.place[1])
    assert (len(launched), [one.problem.code for one in refused]) == (1, ["guard_overlap"])
    ended(at(online.place[1]), launched)


def test_a_plan_that_was_launched_before_is_told(offline: Terminal) -> None:
    plan = offline("plan", "sales", "--last", "1", "--json").data["path"]
    first = offline("launch", plan, "--yes", "--json")
    assert first.exit_code == 0
    again = offline("launch", plan, "--yes", "--allow-overlap", "--json")
    assert (again.exit_code, again.codes) == (3, ["already_launched"])
    assert first.data["backfill_id"] in again.json["errors"][0]["message"]


def test_a_plan_that_ended_and_is_still_true_may_be_launched_again(offline: Terminal) -> None:
    offline.write("broken", "2024-01-31")
    plan = offline("plan", "sales", "--last", "1", "--json").data["path"]
    first = offline("launch", plan, "--yes", "--in-process", "--json")
    assert first.exit_code == 1
    (offline.folder / "broken").unlink()
    again = offline("launch", plan, "--yes", "--in-process", "--json")
    assert again.exit_code == 0, again.out
    assert any(f"by backfill {first.data['backfill_id']} (COMPLETED_FAILED)" in one for one in again.json["warnings"])
    third = offline("launch", plan, "--yes", "--json")
    assert (third.exit_code, third.codes) == (3, ["plan_no_longer_true"]), "it was published"


def test_an_asset_is_no_overlap_of_its_own_past(offline: Terminal) -> None:
    materialize(offline, "by_day", "2024-01-10")
    assert not _overlap(offline, "by_day", "2024-01-10")[0]
