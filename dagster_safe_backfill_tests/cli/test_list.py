from __future__ import annotations

from dagster_safe_backfill_tests.cli.conftest import Terminal


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
    told = online("list", "--json")
    assert told.exit_code == 0
    assert "backfills" in told.data
