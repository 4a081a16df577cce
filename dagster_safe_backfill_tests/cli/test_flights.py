"""Each verb on the example's flights, orders and events: with a running `dagster dev`, and on an instance without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_safe_backfill_tests.cli.flights import MODULE, Flights, copy_example, inside, until
from dagster_safe_backfill_tests.e2e.dagster_dev import served

# Runs in other processes write to the file.
pytestmark = pytest.mark.cold

_UNITED = "UPDATE nyc.flights SET distance = distance {} 1 WHERE flight_date = '2013-01-02' AND carrier = 'UA'"


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_example(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def _served(_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("flights") / "served"
    shutil.copytree(_prepared, folder)
    with inside(folder), served(folder, ["-m", MODULE, "-d", str(folder)]) as address:
        yield folder, address


@pytest.fixture(scope="module")
def _alone(_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(_prepared, tmp_path_factory.mktemp("flights") / "alone")


@pytest.fixture(params=["served", "alone"])
def flights(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Flights]:
    """The command on flights: by the URL of a webserver, or on an instance without one, in this process."""
    if request.param == "served":
        folder, address = request.getfixturevalue("_served")
        place, launching = ("--url", address), ("--watch",)
    else:
        folder, place, launching = request.getfixturevalue("_alone"), (), ("--in-process",)
    code = ("-m", MODULE, "-d", str(folder))
    with inside(folder):
        yield Flights(folder, place or code, capsys, launching=launching, code=code)


def test_a_range_from_its_plan_until_it_is_undone(flights: Flights) -> None:
    days = ("flights", "--from", "2013-01-01", "--to", "2013-01-02")
    plan, late = flights.saved(*days), flights.saved("flights", "--partitions", "2013-01-02")

    told = flights("launch", plan, "--yes", *flights.launching, "--json", place=flights.both)
    assert (told.exit_code, told.counts) == (0, {"live": 2}), told.out
    backfill_id = told.data["backfill_id"]
    assert f"backfill {backfill_id}" in told.err, "the id comes first"
    told = flights("status", backfill_id, "--json")
    assert (told.exit_code, told.data["partition_count"], told.data["is_over"]) == (0, 2, True)
    told = flights("list", "--asset", "flights", "--json")
    assert (told.exit_code, [one["backfill_id"] for one in told.data["backfills"]]) == (0, [backfill_id])
    told = flights("history", "flights", "2013-01-02", "--json", place=flights.both)
    assert told.exit_code == 0, told.out
    told = flights("diff", "flights", "--publication", "newest", "--json", place=flights.both)
    assert (told.exit_code, told.data["total"]["new"]) == (4, 842 + 943)
    told = flights("diff", "flights", "--json", place=flights.both)
    assert told.exit_code == 0, "nothing is staged that isn't live"

    # Published by another after the plan was made.
    _is_refused(flights, late, ["2013-01-02"])
    _is_refused_after_changes(flights, days)

    told = flights("rollback", "flights", "--json", place=flights.both)
    assert (told.exit_code, told.data["dry_run"], len(told.data["partitions"])) == (0, True, 2)
    assert flights.sql("SELECT count(*) FROM nyc.flights") == [(842 + 943,)]
    here = () if flights.is_served else ("--in-process",)
    told = flights("rollback", "flights", "--yes", *here, "--json", place=flights.both)
    assert (told.exit_code, told.data["dry_run"]) == (0, False), told.out
    assert flights.sql("SELECT count(*) FROM nyc.flights") == [(0,)]
    told = flights("rollback", "flights", "--publication", told.data["run_id"], "--json", place=flights.both)
    assert (told.exit_code, told.data["rows"]["inserted"]) == (0, 842 + 943), "a rollback can be undone, too"


def _is_refused(flights: Flights, plan: str, partitions: list[str]) -> None:
    before = flights("list", "--json").data
    told = flights("launch", plan, "--yes", "--json", place=flights.both)
    assert (told.exit_code, told.codes) == (3, ["plan_no_longer_true"])
    assert told.json["errors"][0]["partitions"] == partitions
    assert flights("list", "--json").data == before


def _is_refused_after_changes(flights: Flights, days: tuple[str, ...]) -> None:
    """A row is changed by hand after the plan, and so is the code; once both are as they were, so is the plan."""
    plan = flights.saved(*days)
    flights.sql(_UNITED.format("+"))
    _is_refused(flights, plan, ["2013-01-02"])
    told = flights("plan", *days, "--changed", "--dry-run", "--json", place=flights.both)
    (asset,) = told.data["plan"]["assets"]
    assert asset["reasons"] == {"2013-01-02": ["its rows were changed outside of this library"]}
    told = flights("rollback", "flights", "--json", place=flights.both)
    assert (told.exit_code, [one["partition"] for one in told.data["conflicts"]]) == (3, ["2013-01-02"])
    flights.sql(_UNITED.format("-"))
    with flights.edited('code_version="1",\n)\ndef flights', 'code_version="2",\n)\ndef flights'):
        _is_refused(flights, plan, [])
        told = flights("plan", "flights", "--changed", "--dry-run", "--json", place=flights.both)
        assert [*told.data["plan"]["assets"][0]["reasons"]] == ["2013-01-01", "2013-01-02"]
    told = flights("launch", plan, "--dry-run", "--json", place=flights.both)
    assert told.exit_code == 0, told.out


def test_a_cancelled_backfill_goes_on_with_what_is_missing(flights: Flights) -> None:
    """Of three days one goes live, one is rejected (an order has two costs), and one is held until it is cancelled."""
    days = ("2024-02-06", "2024-02-08", "2024-02-12")
    launch = ("launch", "fact_orders_daily", "--partitions", ",".join(days), "--yes")
    hold = flights.folder / "hold"
    hold.write_text(days[2])

    def backfill_id() -> str:
        return flights("list", "--asset", "fact_orders_daily", "-q").out.strip()

    def is_held() -> bool:
        if not (flights.is_holding and len(flights.computed()) == 2):
            return False
        counts = flights("status", backfill_id(), "--json").counts
        return counts == {"live": 1, "rejected": 1, "running": 1}

    if flights.is_served:
        assert flights(*launch, "-q").exit_code == 0
        until(is_held)
    else:
        # Whoever carries it out stops it: Ctrl-C cancels it, and ends its runs.
        assert flights.interrupted(*launch, "--in-process", when=is_held) == 130
    first = backfill_id()
    told = flights("cancel", first, "--now", "--wait", "--json")
    assert (told.exit_code, told.data["was_over"]) == (0, not flights.is_served), told.out
    told = flights("status", first, "--json")
    assert (told.exit_code, told.data["status"]) == (1, "CANCELED")
    assert told.counts == {"live": 1, "rejected": 1, "cancelled": 1}
    assert sorted(told.codes) == ["partitions_cancelled", "partitions_rejected"]
    assert sorted(flights.computed()) == [*days[:2]]

    hold.write_text("")
    told = flights("retry", first, *flights.launching)
    # The screen of a backfill of which a day was rejected again.
    assert told.exit_code == 1
    assert "unique_key" in told.out
    assert "fact_orders_daily__shadow" in told.out, "where the rows are"
    assert "safe-backfill diff fact_orders_daily" in told.out, "and the next command"
    assert sorted(flights.computed()[2:]) == [*days[1:]], "what was live isn't computed again"
    told = flights("status", flights("list", "--limit", "1", "-q").out.strip(), "--json")
    assert (told.exit_code, told.counts) == (1, {"live": 1, "rejected": 1})
    assert (told.codes, told.json["errors"][0]["partitions"]) == (["partitions_rejected"], [days[1]])
    _is_dropped(flights)


def _is_dropped(flights: Flights) -> None:
    """What was rejected is kept for a while, to be looked at; then it goes."""
    arguments = ("retention", "fact_orders_daily", "--shadow-days", "0")
    shadows = "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'fact_orders_daily__shadow%'"
    ((count,),) = flights.sql(shadows)
    assert count > 0
    told = flights("retention", "fact_orders_daily", "--json", place=flights.both)
    assert (told.exit_code, told.data["dry_run"]) == (0, True)
    told = flights(*arguments, "-q", place=flights.both)
    assert len(told.out.split()) == count
    assert flights.sql(shadows) == [(count,)]
    told = flights(*arguments, "--yes", "--in-process", "--json", place=flights.both)
    assert (told.exit_code, told.data["dry_run"]) == (0, False), told.out
    assert flights.sql(shadows) == [(0,)]


def test_events_are_staged_and_audited_and_a_person_says_yes(flights: Flights) -> None:
    launch = ("--yes", *flights.launching, "--json")
    told = flights("launch", "events__shadow", "--partitions", "2024-05-01", *launch)
    assert (told.exit_code, told.counts) == (0, {"staged": 1}), told.out
    told = flights("approve", "events", "--json")
    assert told.exit_code == 3, "it isn't audited yet"
    told = flights("launch", "events__audit", *launch)
    assert told.exit_code == 0, told.out
    told = flights("diff", "events", "--aggregate", "count(*)", "--json", place=flights.both)
    assert (told.exit_code, told.data["total"]["new"]) == (4, 3223)
    told = flights("approve", "events", "--json")
    assert (told.exit_code, told.codes) == (3, ["not_confirmed"])
    told = flights("approve", "events", "--owner", "ann", *launch)
    assert (told.exit_code, told.counts) == (0, {"live": 1}), told.out
    assert flights.sql("SELECT count(*) FROM web.events") == [(3223,)]
    told = flights("watch", told.data["backfill_id"], "--json")
    assert (told.exit_code, told.data["tags"]["safe_backfill/owner"]) == (0, "ann")
    told = flights("diff", "events", "--json", place=flights.both)
    assert told.exit_code == 0, "nothing waits any more"


def test_the_doctor_finds_the_example_well(flights: Flights) -> None:
    told = flights("doctor", "--json", place=flights.both)
    bad = {one["check"] for one in told.data["checks"] if one["verdict"] != "ok"}
    # Dagster deploys schedules stopped, and a person starts them.
    expected = {"retention"} if flights.is_served else {"retention", "daemons"}
    assert (told.exit_code, bad) == (4, expected), told.out


@pytest.mark.parametrize("verb", ["diff", "rollback", "history", "retention"])
def test_what_reads_the_warehouse_needs_more_than_a_url(flights: Flights, verb: str) -> None:
    place = flights.place if flights.is_served else ("--url", "http://127.0.0.1:9")
    told = flights(verb, "flights", "--json", place=place)
    assert (told.exit_code, told.codes) == (2, ["no_code"])
