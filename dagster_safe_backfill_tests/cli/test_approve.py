"""`approve`: the yes to what was staged and audited together, and to nothing else."""

from __future__ import annotations

import pytest

from dagster_safe_backfill.cli.answers.answer import CommandError
from dagster_safe_backfill.cli.api.reading import ranges_to_launch
from dagster_safe_backfill.cli.api.values import Asset
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.following.waiting import AuditReport, StagedAssets, covered_by
from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.launched import at, launch
from dagster_safe_backfill_tests.cli.prepared import materialize


def _audit(terminal: Terminal) -> str:
    """Audit what is staged, in this process."""
    import importlib

    import dagster as dg

    project = importlib.import_module(PROJECT)
    with dg.DagsterInstance.get() as instance:
        done = dg.materialize(
            [project.staged.audit], resources=project.defs.resources, instance=instance, raise_on_error=False
        )
    return done.run_id


def test_the_yes_to_a_staged_backfill(online: Terminal) -> None:
    dagster = at(online.place[1])
    staged = launch(dagster, ["staged__shadow", "staged__audit"], "21", "24")
    told = online("watch", staged, "--interval", "0.3", "--json")
    assert (told.exit_code, told.counts) == (0, {"staged": 4})
    assert told.data["commands"]["approve"].startswith("safe-backfill approve staged --url")
    days = "FROM shop.staged WHERE day BETWEEN '2024-01-21' AND '2024-01-24'"

    shown = online("approve", "staged__shadow", "--json")
    assert (shown.exit_code, shown.codes) == (3, ["not_confirmed"])
    keys = [f"2024-01-{day}" for day in (21, 22, 23, 24)]
    assert [one["partition"] for one in shown.data["partitions"]] == keys
    assert shown.data["staged_by"] == [staged]
    verdicts = {one["audit"]: one["verdict"] for one in shown.data["audit"]["audits"]}
    assert verdicts == {"amount_positive": "passed", "unique_key": "passed"}

    told = online("approve", "staged", "--yes", "--reason", "it is right", "--owner", "ann", "--watch", "--json")
    assert (told.exit_code, told.data["progress"]["counts"]["live"]) == (0, 4)
    assert told.data["progress"]["tags"]["safe_backfill/reason"] == "it is right"
    assert told.data["progress"]["tags"]["safe_backfill/approved_audit"] == shown.data["audit"]["run_id"]
    first = told.err.splitlines()[0]
    assert first == f"backfill {told.data['backfill_id']} publishes 4 partitions of staged"
    assert online.sql(f"SELECT count(*) {days}") == [(12,)]
    assert online("status", told.data["backfill_id"], "--json").exit_code == 0


def test_multi_partitions_are_launched_key_by_key(offline: Terminal) -> None:
    """Of two corners, a range would take the whole rectangle."""
    with Connection(modules=[PROJECT]) as connection:
        by_shop, by_day = connection.dagster.assets(["by_shop", "by_day"])
    keys = ["2024-01-01|eu", "2024-01-02|us"]
    assert ranges_to_launch(by_shop, keys) == [(key, key) for key in keys]
    days = ["2024-01-01", "2024-01-02", "2024-01-04"]
    assert ranges_to_launch(by_day, days) == [("2024-01-01", "2024-01-02"), ("2024-01-04", "2024-01-04")]


def test_nothing_waits(offline: Terminal) -> None:
    told = offline("approve", "staged", "--json")
    assert (told.exit_code, told.data["backfill_id"]) == (0, None)
    assert "nothing to do" in offline("approve", "staged", "--yes").out


def test_what_isnt_audited_is_refused(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-03")
    told = offline("approve", "staged", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["not_audited"])
    hint = told.json["errors"][0]["hint"]
    assert hint.endswith(f": safe-backfill launch staged__audit -m {PROJECT}"), "it can be pasted"


def test_an_audit_whose_partitions_cant_be_looked_up_covers_none() -> None:
    """Else all that is staged, except what the audit left out, would be published."""
    days = Asset(key="x", location="here", repository="r", kind="static", keys=("a", "b", "c"), partitions_per_run=None)
    assets = StagedAssets(live=days, shadow=days, audit=days)
    report = AuditReport(
        run_id="r", scope="abcdefgh", audited=2, at=0.0, left_out=["c"], checks=[], rows=[{"partition": "a"}]
    )
    with pytest.raises(CommandError) as caught:
        covered_by(at("http://127.0.0.1:9"), assets, report)
    assert caught.value.problem.code == "unreachable"


def test_an_audit_that_is_older_than_what_is_staged_is_refused(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-03")
    _audit(offline)
    assert offline("approve", "staged", "--json").codes == ["not_confirmed"]
    materialize(offline, "staged__shadow", "2024-01-02", "2024-01-02")
    told = offline("approve", "staged", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["audit_outdated"])
    assert told.json["errors"][0]["partitions"] == ["2024-01-02"]


def test_an_audit_that_failed_is_refused(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-03")
    _audit(offline)
    ((shadow,),) = offline.sql("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'staged__shadow_%'")
    offline.sql(f"UPDATE shop.{shadow} SET amount = -1 WHERE day = '2024-01-02'")
    run_id = _audit(offline)
    told = offline("approve", "staged", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["audit_failed"])
    assert run_id[:8] in told.json["errors"][0]["message"]


def test_what_is_staged_besides_stays_staged(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-03")
    _audit(offline)
    materialize(offline, "staged__shadow", "2024-01-09", "2024-01-10")
    told = offline("approve", "staged", "--json")
    assert [one["partition"] for one in told.data["partitions"]] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert [one["verdict"] for one in told.data["partitions"]] == ["passed"] * 3
    assert told.data["other_staged_partitions"] == ["2024-01-09", "2024-01-10"]
    (warning,) = told.json["warnings"]
    assert warning.startswith("2 partitions are staged besides")


def test_twice_is_refused_while_it_is_published(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-03")
    _audit(offline)
    first = offline("approve", "staged", "--yes", "--json")
    assert first.exit_code == 0
    assert {name for name, call in first.data["commands"].items() if call} == {"watch", "stop", "undo"}
    told = offline("approve", "staged", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["already_publishing"])
    assert first.data["backfill_id"] in told.json["errors"][0]["message"]


def test_quiet_prints_the_id(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-01")
    _audit(offline)
    backfill_id = offline("approve", "staged", "--yes", "-q").out.strip()
    with Connection(modules=[PROJECT]) as connection:
        found = connection.dagster.backfill(backfill_id)
    assert found.assets.keys() == {"staged"}
    assert found.title == "staged: publish 1 staged partitions"


@pytest.mark.parametrize(
    ("asset", "code"), [("sales", "not_staged"), ("prices", "not_staged"), ("no", "unknown_asset")]
)
def test_other_assets(offline: Terminal, asset: str, code: str) -> None:
    told = offline("approve", asset, "--yes", "--json")
    assert (told.exit_code, told.codes) == (2, [code])
