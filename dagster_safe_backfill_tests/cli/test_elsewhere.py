"""`--url` with `-m`, and a DAGSTER_HOME that is another instance, or none: what Dagster knows comes through the URL."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.upkeep.undoing import preview
from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, materialize
from dagster_safe_backfill_tests.e2e.dagster_dev import home_in


@pytest.fixture(params=["none", "another"])
def elsewhere(
    online: Terminal, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    """The command away from the server: what it publishes is made beforehand, by `_on_server`."""
    online.place = (*online.place, *CODE)
    monkeypatch.setenv("ELSEWHERE", str(home_in(tmp_path)) if request.param == "another" else "")
    return online


class _Away:
    """While the block runs, DAGSTER_HOME isn't the server's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch, self._home, self._other = monkeypatch, os.environ["DAGSTER_HOME"], os.environ["ELSEWHERE"]

    def __enter__(self) -> None:
        if self._other:
            self._monkeypatch.setenv("DAGSTER_HOME", self._other)
        else:
            self._monkeypatch.delenv("DAGSTER_HOME")

    def __exit__(self, *_error: object) -> None:
        self._monkeypatch.setenv("DAGSTER_HOME", self._home)


def _reasons(terminal: Terminal, *arguments: str, place: tuple[str, ...] | None = None) -> dict[str, list[str]]:
    told = terminal("plan", *arguments, "--dry-run", "--json", place=place)
    assert told.exit_code == 0, told.out
    assets = (told.data["plan"] or {"assets": []})["assets"]
    return assets[0]["reasons"] if assets else {}


def test_dynamic_partitions(elsewhere: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (f"region-{time.time_ns()}-{number}" for number in (1, 2))
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("regions", [first, second])
    run = materialize(elsewhere, "by_region", first)
    with _Away(monkeypatch):
        reasons = _reasons(elsewhere, "by_region", "--partitions", f"{first},{second}")
        assert reasons == {first: ["asked for"], second: ["never materialized"]}
        told = elsewhere("diff", "by_region", "--publication", run, "--json")
        assert (told.exit_code, [one["partition"] for one in told.data["partitions"]]) == (4, [first])
        told = elsewhere("rollback", "by_region", "--publication", run, "--json")
        assert (told.exit_code, [one["partition"] for one in told.data["partitions"]]) == (0, [first])
        told = elsewhere("history", "by_region", "nowhere", "--json")
        assert told.codes == ["unknown_partition"]


def test_upstream_assets_that_changed(elsewhere: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(elsewhere, "prices", "")
    materialize(elsewhere, "sales", "2024-01-15", "2024-01-16")
    materialize(elsewhere, "by_day", "2024-01-15")
    materialize(elsewhere, "by_day", "2024-01-16")
    days = ("--partitions", "2024-01-15,2024-01-16")
    with _Away(monkeypatch):
        assert _reasons(elsewhere, "sales", *days, "--changed") == {}
        assert _reasons(elsewhere, "by_day", *days, "--changed") == {}
    materialize(elsewhere, "sales", "2024-01-16")
    with _Away(monkeypatch):
        changed = _reasons(elsewhere, "by_day", *days, "--changed")
        assert changed["2024-01-16"] == ["sales changed since"]
    assert _reasons(elsewhere, "by_day", *days, "--changed", place=CODE) == changed, "as on the instance itself"
    materialize(elsewhere, "prices", "")
    with _Away(monkeypatch):
        changed = _reasons(elsewhere, "sales", *days, "--changed")
        assert changed == {key: ["prices changed since"] for key in ("2024-01-15", "2024-01-16")}
    assert _reasons(elsewhere, "sales", *days, "--changed", place=CODE) == changed, "as on the instance itself"


def test_what_the_instance_of_the_home_says_is_not_told(elsewhere: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(elsewhere, "sales", "2024-01-17")
    with _Away(monkeypatch):
        if os.environ.get("DAGSTER_HOME"):
            with dg.DagsterInstance.get() as instance:
                instance.report_runless_asset_event(dg.AssetMaterialization("prices"))
        assert _reasons(elsewhere, "sales", "--partitions", "2024-01-17", "--changed") == {}


def test_which_runs_have_ended_is_asked_of_the_url(elsewhere: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    run = materialize(elsewhere, "sales", "2024-01-18")
    with _Away(monkeypatch), Connection(url=elsewhere.place[1], modules=[CODE[1]]) as connection:
        assert connection.instance.is_ephemeral
        with connection.definitions.asset("sales") as loaded:
            found = preview(loaded, connection, publication=run, backfill_id=None, keys=None, force=False)
    assert [*found.publications] == [run]
