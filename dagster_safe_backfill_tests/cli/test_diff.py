from __future__ import annotations

import shlex

import pytest

from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, held, materialize


@pytest.fixture
def rejected(offline: Terminal) -> str:
    """Five days that are live, and the run whose new rows of two of them were rejected."""
    materialize(offline, "sales", "2024-01-01", "2024-01-05")
    offline.write("bad", "2024-01-03")
    return materialize(offline, "sales", "2024-01-02", "2024-01-03")


def numbers(one: dict[str, int]) -> tuple[int, ...]:
    return tuple(one[name] for name in ("new", "changed", "gone", "unchanged"))


def test_what_was_rejected_against_live(offline: Terminal, rejected: str) -> None:
    told = offline("diff", "sales", "--aggregate", "sum(amount)", "--rows", "--json")
    assert told.exit_code == 4
    assert told.data["run_ids"] == [rejected]
    assert numbers(told.data["total"]) == (0, 3, 0, 3)
    first, second = told.data["partitions"]
    assert (first["partition"], first["different"], first["event"]) == ("2024-01-02", False, "rejected")
    assert (second["partition"], numbers(second)) == ("2024-01-03", (0, 3, 0, 0))
    assert second["aggregates"] == {"sum(amount)": {"before": 60.0, "after": -3.0}}
    assert told.data["total"]["aggregates"] == {"sum(amount)": {"before": 120.0, "after": 57.0}}
    assert told.data["columns"]["changed"] == {"amount": 3}
    row = told.data["samples"][0]
    assert (row["kind"], row["key"]["item"], row["before"], row["after"]) == (
        *("changed", 0),
        {"amount": 10.0},
        {"amount": -1.0},
    )
    shown = offline("diff", "sales", "--aggregate", "sum(amount)", "--rows").out
    assert "60 -> -3" in shown
    assert "amount: 10.0 -> -1.0" in shown


def test_some_partitions_and_some_runs(offline: Terminal, rejected: str) -> None:
    told = offline("diff", "sales", "--partitions", "2024-01-02", "--json")
    assert (told.exit_code, [one["partition"] for one in told.data["partitions"]]) == (0, ["2024-01-02"])
    assert offline("diff", "sales", "--run", rejected, "-q").out == "0 3 0\n"
    assert offline("diff", "sales", "--from", "2024-01-03", "--to", "2024-01-04", "--json").exit_code == 4
    told = offline("diff", "sales", "--from", "2024-01-04", "--json")
    assert (told.exit_code, told.data["partitions"]) == (0, [])


def test_what_was_mended_and_published_does_not_wait(offline: Terminal, rejected: str) -> None:
    offline.write("bad", "")
    materialize(offline, "sales", "2024-01-02", "2024-01-03")
    told = offline("diff", "sales", "--json")
    assert (told.exit_code, told.data["partitions"]) == (0, [])
    assert "nothing of sales is staged" in told.data["nothing"]


def test_what_a_publication_changed(offline: Terminal) -> None:
    first = materialize(offline, "sales", "2024-01-01", "2024-01-02")
    offline.sql("UPDATE shop.sales SET amount = 1 WHERE day = DATE '2024-01-01'")
    newest = materialize(offline, "sales", "2024-01-01", "2024-01-02")
    told = offline("diff", "sales", "--publication", "newest", "--json")
    assert told.exit_code == 4
    assert told.data["publication_ids"] == [newest]
    assert [numbers(one) for one in told.data["partitions"]] == [(0, 3, 0, 0), (0, 0, 0, 3)]
    told = offline("diff", "sales", "--publication", first, "--json")
    assert numbers(told.data["total"]) == (6, 0, 0, 0)
    assert any("changed by hand" in one for one in told.json["warnings"])
    offline.sql("DROP TABLE shop.sales__archive_" + newest.replace("-", ""))
    told = offline("diff", "sales", "--publication", newest, "--json")
    assert (told.exit_code, told.codes) == (1, ["ArchiveNotFoundError"])


def test_a_staged_backfill(offline: Terminal) -> None:
    materialize(offline, "staged__shadow", "2024-01-01", "2024-01-02")
    told = offline("diff", "staged", "--json")
    assert (told.exit_code, numbers(told.data["total"])) == (4, (6, 0, 0, 0))


def test_without_a_key(offline: Terminal) -> None:
    materialize(offline, "by_shop", "2024-01-01|eu")
    told = offline("diff", "by_shop", "--publication", "newest", "--dimension", "shop=eu", "--rows", "--json")
    assert told.exit_code == 4
    assert told.data["matched_by"] == []
    assert told.data["total"]["changed"] is None
    assert told.data["samples"][0]["after"]["shop"] == "eu"
    assert offline("diff", "by_shop", "--publication", "newest").exit_code == 4


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "two choices": (("--run", "a", "--publication", "b"), "contradiction"),
    "no such run": (("--run", "nope"), "nothing_staged"),
    "no such backfill": (("--backfill", "nope"), "nothing_staged"),
    "no such publication": (("--publication", "nope"), "unknown_publication"),
    "no such partition": (("--partitions", "2024-13-01"), "unknown_partition"),
    "a statement": (("--aggregate", "1; DROP TABLE shop.sales"), "bad_aggregate"),
    "no aggregate": (("--aggregate", "amount"), "bad_aggregate"),
    "no such column": (("--aggregate", "sum(nope)"), "bad_aggregate"),
}


def test_a_hint_can_be_pasted(offline: Terminal, rejected: str) -> None:
    told = offline("diff", "sales", "--publication", "nope", "--json")
    history = told.json["errors"][0]["hint"].split("`")[1]
    assert offline(*shlex.split(history)[1:], place=()).exit_code == 0


@pytest.mark.parametrize("name", BAD)
def test_calls_that_are_wrong(offline: Terminal, rejected: str, name: str) -> None:
    arguments, code = BAD[name]
    told = offline("diff", "sales", *arguments, "--json")
    assert (told.exit_code, told.codes) == (2, [code])
    assert offline.sql("SELECT count(*) FROM shop.sales") == [(15,)]


def test_an_asset_without_partitions_and_a_database_that_is_not_there(offline: Terminal) -> None:
    assert offline("diff", "prices", "--json").codes == ["no_partitions"]
    told = offline("diff", "sales", "--json")
    assert (told.exit_code, told.data["nothing"]) == (0, "nothing was published yet: shop.sales has no ledger")


def test_a_file_that_a_run_holds(offline: Terminal, rejected: str) -> None:
    offline.write("lock_timeout", "0.2")
    with held(offline) as pid:
        told = offline("diff", "sales", "--json")
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])
    assert str(pid) in told.json["errors"][0]["message"]


def test_with_a_webserver(online: Terminal) -> None:
    run = materialize(online, "sales", "2024-01-29")
    told = online("diff", "sales", "--publication", run, "--json", place=(*online.place, *CODE))
    assert (told.exit_code, [one["partition"] for one in told.data["partitions"]]) == (4, ["2024-01-29"])
