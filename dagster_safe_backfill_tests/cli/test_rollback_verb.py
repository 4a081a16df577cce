from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, held, materialize

LIVE = "SELECT day::DATE::VARCHAR, sum(amount) FROM shop.sales GROUP BY 1 ORDER BY 1"


def numbers(one: dict[str, Any]) -> tuple[int, ...]:
    return tuple(one["rows"][name] for name in ("inserted", "updated", "deleted", "unchanged"))


@pytest.fixture
def twice(offline: Terminal) -> tuple[str, str]:
    """Two publications: of two days, and of the second of them with other rows."""
    first = materialize(offline, "sales", "2024-01-01", "2024-01-02")
    offline.sql("UPDATE shop.sales SET amount = 1 WHERE day = DATE '2024-01-02'")
    return first, materialize(offline, "sales", "2024-01-02")


def test_a_dry_run_says_what_would_come_back(offline: Terminal, twice: tuple[str, str]) -> None:
    before = offline.sql(LIVE)
    told = offline("rollback", "sales", "--json")
    assert told.exit_code == 0
    assert told.data["dry_run"]
    assert (told.data["publication_ids"], told.data["job"]) == ([twice[1]], "rollback_sales")
    (day,) = told.data["partitions"]
    assert (day["partition"], numbers(day), day["removed"]) == ("2024-01-02", (0, 3, 0, 0), False)
    assert offline.sql(LIVE) == before
    shown = offline("rollback", "sales").out
    assert "nothing was changed; --yes does it" in shown
    assert offline("rollback", "sales", "-q").out.split() == [twice[1]]


def test_yes_runs_the_job_so_that_dagster_knows(offline: Terminal, twice: tuple[str, str]) -> None:
    told = offline("rollback", "sales", "--yes", "--in-process", "--json")
    assert (told.exit_code, told.data["status"], told.data["dry_run"]) == (0, "SUCCESS", False)
    assert offline.sql(LIVE) == [("2024-01-01", 60.0), ("2024-01-02", 3.0)]
    again = offline("rollback", "sales", "--yes", "--in-process", "--json")
    assert (again.exit_code, again.data["run_id"], again.data["partitions"]) == (0, None, [])
    assert again.data["already"] == {"2024-01-02": told.data["run_id"]}
    # The rollback itself can be undone.
    redone = offline("rollback", "sales", "--publication", told.data["run_id"], "--yes", "--in-process", "--json")
    assert redone.exit_code == 0
    assert offline.sql(LIVE) == [("2024-01-01", 60.0), ("2024-01-02", 60.0)]


def test_later_publications_are_in_the_way(offline: Terminal, twice: tuple[str, str]) -> None:
    first, second = twice
    told = offline("rollback", "sales", "--publication", first, "--yes", "--in-process", "--json")
    assert (told.exit_code, told.codes) == (3, ["rollback_conflict"])
    (one,) = told.data["conflicts"]
    assert (one["partition"], one["kind"], one["publication_id"]) == ("2024-01-02", "later_publication", second)
    # What --force would do is said, too.
    assert [numbers(day) for day in told.data["partitions"]] == [(0, 0, 3, 0), (0, 0, 3, 0)]
    assert len(offline.sql(LIVE)) == 2
    shown = offline("rollback", "sales", "--publication", first)
    assert f"published by {second}" in shown.out
    assert "--force" in shown.err
    one_day = offline("rollback", "sales", "--publication", first, "--partitions", "2024-01-01", "--json")
    assert (one_day.exit_code, [day["partition"] for day in one_day.data["partitions"]]) == (0, ["2024-01-01"])
    forced = offline("rollback", "sales", "--publication", first, "--force", "--yes", "--in-process", "--json")
    assert forced.exit_code == 0
    assert offline.sql(LIVE) == []


def test_changes_by_hand_are_in_the_way(offline: Terminal, twice: tuple[str, str]) -> None:
    offline.sql("UPDATE shop.sales SET amount = 7 WHERE day = DATE '2024-01-02'")
    told = offline("rollback", "sales", "--json")
    assert told.exit_code == 3
    (one,) = told.data["conflicts"]
    assert (one["partition"], one["kind"], one["publication_id"]) == ("2024-01-02", "changed_by_hand", None)
    assert "2024-01-02: changed by hand" in offline("rollback", "sales").out


def test_a_newer_publication_is_not_undone_instead(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job gets the ids that the dry run showed."""
    from dagster_safe_backfill.cli.upkeep import jobs

    first = materialize(offline, "sales", "2024-01-01")
    run_here = jobs.run_here

    def later(*given: object, **named: object) -> object:
        materialize(offline, "sales", "2024-01-05")
        return run_here(*given, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(jobs, "run_here", later)
    told = offline("rollback", "sales", "--yes", "--in-process", "--json")
    assert (told.exit_code, told.data["publication_ids"]) == (0, [first])
    assert offline.sql(LIVE) == [("2024-01-05", 60.0)]


def _before_the_run(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something after a person agreed, and before the job runs."""
    from dagster_safe_backfill.cli.upkeep import jobs

    run_here = jobs.run_here

    def later(*given: object, **named: object) -> object:
        work()
        return run_here(*given, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(jobs, "run_here", later)


FORCED = ("rollback", "sales", "--force", "--yes", "--in-process", "--json")


def test_force_says_what_it_undoes_as_well(offline: Terminal, twice: tuple[str, str]) -> None:
    told = offline("rollback", "sales", "--publication", twice[0], "--force", "--json")
    assert (told.exit_code, told.codes) == (0, [])
    assert told.data["also_undone"] == [twice[1]]
    assert [one["publication_id"] for one in told.data["conflicts"]] == [twice[1]]
    shown = offline("rollback", "sales", "--publication", twice[0], "--force").out
    assert f"it would also undo {twice[1]}" in shown
    assert "nothing was changed; --yes does it" in shown


def test_force_undoes_no_publication_that_was_not_shown(
    offline: Terminal, twice: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offline.sql("UPDATE shop.sales SET amount = 2 WHERE day = DATE '2024-01-02'")
    third: list[str] = []
    _before_the_run(monkeypatch, lambda: third.append(materialize(offline, "sales", "2024-01-02")))
    told = offline(*FORCED, "--publication", twice[0])
    assert (told.exit_code, told.codes) == (1, ["run_failed"]), told.out
    assert f"{third[0]} would be undone as well" in told.json["errors"][0]["message"]
    assert offline.sql(LIVE) == [("2024-01-01", 60.0), ("2024-01-02", 60.0)]


def test_force_replaces_no_rows_that_were_not_shown(
    offline: Terminal, twice: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change = "UPDATE shop.sales SET amount = {} WHERE day = DATE '2024-01-02'"
    offline.sql(change.format(7))
    _before_the_run(monkeypatch, lambda: offline.sql(change.format(8)))
    told = offline(*FORCED)
    assert (told.exit_code, told.codes) == (1, ["run_failed"]), told.out
    assert "no longer those that were shown" in told.json["errors"][0]["message"]
    assert offline.sql(LIVE) == [("2024-01-01", 60.0), ("2024-01-02", 24.0)]
    monkeypatch.undo()


def test_force_does_what_was_shown(offline: Terminal, twice: tuple[str, str]) -> None:
    offline.sql("UPDATE shop.sales SET amount = 7 WHERE day = DATE '2024-01-02'")
    assert offline(*FORCED, "--publication", twice[0]).exit_code == 0
    assert offline.sql(LIVE) == []


def test_all_publications_of_a_run_that_published_batch_by_batch(offline: Terminal) -> None:
    run = materialize(offline, "batched", "2024-01-01", "2024-01-03")
    told = offline("rollback", "batched", "--publication", run, "--yes", "--in-process", "--json")
    assert told.exit_code == 0
    assert len(told.data["publication_ids"]) == 3
    assert offline.sql("SELECT count(*) FROM shop.batched") == [(0,)]


def test_a_job_of_another_name_is_found(offline: Terminal, twice: tuple[str, str], tmp_path: Path) -> None:
    module = tmp_path / "renamed.py"
    module.write_text(
        "import dagster as dg, dagster_safe_backfill as sb\n"
        f"from {PROJECT} import sales, batched, defs as other\n"
        "jobs = [sb.build_rollback_job(batched), sb.build_rollback_job(sales, name='back_to_the_past')]\n"
        "defs = dg.Definitions(assets=[sales, batched], jobs=jobs, resources=other.resources)\n"
    )
    told = offline("rollback", "sales", "--yes", "--in-process", "--json", place=("-f", str(module), "-a", "defs"))
    assert (told.exit_code, told.data["job"], told.data["status"]) == (0, "back_to_the_past", "SUCCESS")


def test_without_a_job_the_line_of_code_is_said(offline: Terminal) -> None:
    materialize(offline, "by_shop", "2024-01-01|eu")
    told = offline("rollback", "by_shop", "--json")
    assert (told.exit_code, told.data["job"]) == (0, None)
    assert "sb.build_rollback_job(by_shop)" in told.json["warnings"][0]
    told = offline("rollback", "by_shop", "--yes", "--json")
    assert (told.exit_code, told.codes) == (3, ["no_rollback_job"])
    assert "sb.build_rollback_job(by_shop)" in told.json["errors"][0]["hint"]


def test_a_queue_that_no_daemon_serves(offline: Terminal, twice: tuple[str, str]) -> None:
    told = offline("rollback", "sales", "--yes", "--timeout", "0.1", "--json")
    assert (told.exit_code, told.codes, told.data["status"]) == (6, ["no_daemon"], "QUEUED")
    assert "dagster dev" in told.json["errors"][0]["hint"]
    told = offline("rollback", "sales", "--yes", "--no-wait")
    assert told.exit_code == 0
    assert "is launched" in told.err


def test_an_archive_that_is_gone(offline: Terminal, twice: tuple[str, str]) -> None:
    offline.sql(f"DROP TABLE shop.sales__archive_{twice[1].replace('-', '')}")
    told = offline("rollback", "sales", "--json")
    assert (told.exit_code, told.codes) == (1, ["ArchiveNotFoundError"])


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "two choices": (("--publication", "a", "--backfill", "b"), "contradiction"),
    "no such publication": (("--publication", "nope"), "unknown_publication"),
    "no such backfill": (("--backfill", "nope"), "unknown_backfill"),
    "no such partition": (("--partitions", "2024-13-01"), "unknown_partition"),
    "a partition that it left alone": (("--partitions", "2024-01-09"), "not_published"),
    "an inverted range": (("--from", "2024-01-02", "--to", "2024-01-01"), "inverted_range"),
    "no number": (("--timeout", "x"), "usage"),
}


@pytest.mark.parametrize("name", BAD)
def test_calls_that_are_wrong(offline: Terminal, twice: tuple[str, str], name: str) -> None:
    arguments, code = BAD[name]
    told = offline("rollback", "sales", *arguments, "--json")
    assert (told.exit_code, told.codes) == (2, [code])


def test_before_anything_was_published(offline: Terminal) -> None:
    assert offline("rollback", "sales", "--json").codes == ["unknown_publication"]
    assert offline("rollback", "prices", "--json").exit_code == 2
    # Looking makes no database.
    assert not (offline.folder / "warehouse.duckdb").exists()


def test_a_file_that_a_run_holds(offline: Terminal, twice: tuple[str, str]) -> None:
    offline.write("lock_timeout", "0.2")
    with held(offline) as pid:
        told = offline("rollback", "sales", "--json")
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])
    assert str(pid) in told.json["errors"][0]["message"]


def test_a_person_is_asked(offline: Terminal, twice: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_safe_backfill.cli.answers.output import Output

    monkeypatch.setattr(Output, "is_interactive", property(lambda _self: True))
    monkeypatch.setattr("click.confirm", lambda *_given, **_named: False)
    before = offline.sql(LIVE)
    told = offline("rollback", "sales", "--in-process")
    assert (told.exit_code, "nothing was rolled back" in told.err) == (3, True)
    assert "a rollback would bring back" in told.err
    assert offline.sql(LIVE) == before
    monkeypatch.setattr("click.confirm", lambda *_given, **_named: True)
    assert "rolled back" in offline("rollback", "sales", "--in-process").out
    assert offline.sql(LIVE) != before


def test_what_is_printed_can_be_pasted(offline: Terminal, twice: tuple[str, str]) -> None:
    done = offline("rollback", "sales", "--yes", "--in-process")
    (undo,) = (line.partition(": ")[2] for line in done.out.splitlines() if line.startswith("to undo that"))
    assert offline(*shlex.split(undo)[1:], place=()).exit_code == 0
    told = offline("rollback", "sales", "--publication", "nope", "--json")
    history = told.json["errors"][0]["hint"].split("`")[1]
    assert offline(*shlex.split(history)[1:], place=()).exit_code == 0


def test_with_a_daemon(online: Terminal) -> None:
    run = materialize(online, "sales", "2024-01-28")
    place = (*online.place, *CODE)
    arguments = ("rollback", "sales", "--publication", run, "--yes", "--json")
    told = online(*arguments, place=place)
    # A run of an earlier test may still hold the file.
    while told.codes == ["warehouse_locked"]:
        told = online(*arguments, place=place)
    assert (told.exit_code, told.data["status"]) == (0, "SUCCESS")
    assert online.sql("SELECT count(*) FROM shop.sales WHERE day = DATE '2024-01-28'") == [(0,)]
    told = online("rollback", "sales", "--publication", run, "--in-process", "--yes", "--json", place=place)
    assert (told.exit_code, told.codes) == (2, ["contradiction"])


def test_a_job_that_fails(online: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the dry run and the job, somebody changed the partition."""
    from dagster_safe_backfill.cli.upkeep import jobs

    run = materialize(online, "sales", "2024-01-27")
    launch = jobs.launch

    def later(*given: object) -> object:
        online.sql("UPDATE shop.sales SET amount = 5 WHERE day = DATE '2024-01-27'")
        return launch(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(jobs, "launch", later)
    told = online("rollback", "sales", "--publication", run, "--yes", "--json", place=(*online.place, *CODE))
    assert (told.exit_code, told.codes, told.data["status"]) == (1, ["run_failed"], "FAILURE")
    assert "changed since the last publication" in told.json["errors"][0]["message"]
    sys.modules.pop(PROJECT, None)
