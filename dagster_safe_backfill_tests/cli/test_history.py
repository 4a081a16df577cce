from __future__ import annotations

from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import CODE, held, materialize


def test_before_anything_was_published(offline: Terminal) -> None:
    told = offline("history", "sales", "--json")
    assert told.exit_code == 0
    assert told.data == {
        "asset": "sales",
        "table": "shop.sales",
        "partition": None,
        "source": "ledger",
        "has_ledger": False,
        "entries": [],
    }
    assert "nothing was published yet" in offline("history", "sales").out


def test_publications_rejections_and_rollbacks_the_newest_first(offline: Terminal) -> None:
    first = materialize(offline, "sales", "2024-01-01", "2024-01-03")
    offline.write("bad", "2024-01-02")
    rejected = materialize(offline, "sales", "2024-01-02")
    offline.write("bad", "")
    again = materialize(offline, "sales", "2024-01-05")
    assert offline("rollback", "sales", "--publication", first, "--partitions", "2024-01-01", "--yes", "--in-process")
    told = offline("history", "sales", "--json")
    assert told.exit_code == 0
    back, published, bad, oldest = told.data["entries"]
    assert (oldest["event"], oldest["publication_id"], oldest["undone"]) == ("published", first, "partly")
    assert (oldest["partition_count"], oldest["ranges"]) == (3, [["2024-01-01", "2024-01-03"]])
    assert oldest["rows"] == {"staged": 9, "inserted": 9, "updated": 0, "deleted": 0, "unchanged": 0}
    assert (bad["event"], bad["run_id"], bad["rejected_by"]) == ("rejected", rejected, ["amount_positive"])
    assert (published["event"], published["publication_id"], published["undone"]) == ("published", again, "no")
    assert (back["event"], back["undoes"], back["rows"]["deleted"]) == ("rolled_back", [first], 3)
    assert back["archive_exists"]
    assert back["archive_expires_at"] > back["recorded_at"]
    assert offline("history", "sales", "--limit", "2", "-q").out.split() == [back["publication_id"], again]
    shown = " ".join(offline("history", "sales").out.split())
    assert "partly undone since" in shown
    assert "failed: amount_positive" in shown


def test_one_partition(offline: Terminal) -> None:
    first = materialize(offline, "sales", "2024-01-01", "2024-01-03")
    offline("rollback", "sales", "--yes", "--in-process")
    told = offline("history", "sales", "2024-01-02", "--json")
    assert [(one["event"], one["partition_count"]) for one in told.data["entries"]] == [
        ("rolled_back", 1),
        ("published", 1),
    ]
    assert told.data["entries"][1]["publication_id"] == first
    assert offline("history", "sales", "2024-01-09", "--json").data["entries"] == []


def test_what_is_staged_and_waits(offline: Terminal) -> None:
    run = materialize(offline, "staged__shadow", "2024-01-01", "2024-01-02")
    (one,) = offline("history", "staged", "--json").data["entries"]
    assert (one["event"], one["run_id"], one["partition_count"], one["rows"]["staged"]) == ("staged", run, 2, 6)
    assert offline("history", "staged__shadow", "--json").data["asset"] == "staged"


def test_names_that_are_none(offline: Terminal) -> None:
    told = offline("history", "sales", "2024-03-01", "--json")
    assert (told.exit_code, told.codes) == (2, ["unknown_partition"])
    assert "2024-01-31" in told.json["errors"][0]["hint"]
    assert offline("history", "nope", "--json").codes == ["unknown_asset"]
    assert offline("history", "sales", "--limit", "0", "--json").codes == ["usage"]


def test_by_url_alone_there_is_no_ledger(offline: Terminal) -> None:
    for verb in ("history", "diff", "rollback"):
        told = offline(verb, "sales", "--json", place=("--url", "http://127.0.0.1:9"))
        assert (told.exit_code, told.codes) == (2, ["no_code"])
        assert "-m" in told.json["errors"][0]["hint"]


def test_a_file_that_a_run_holds(offline: Terminal) -> None:
    run = materialize(offline, "sales", "2024-01-01", "2024-01-02")
    offline.write("lock_timeout", "0.2")
    with held(offline) as pid:
        told = offline("history", "sales", "--json")
        shown = offline("history", "sales")
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])
    assert str(pid) in told.json["errors"][0]["message"]
    assert told.data["source"] == "dagster"
    (one,) = told.data["entries"]
    assert (one["publication_id"], one["ranges"]) == (run, [["2024-01-01", "2024-01-02"]])
    assert (one["row_count"], one["rows"]) == (6, None)
    assert "the newest that Dagster knows" in shown.out
    assert str(pid) in shown.err


def test_with_a_webserver(online: Terminal) -> None:
    run = materialize(online, "sales", "2024-01-30")
    told = online("history", "sales", "2024-01-30", "--json", place=(*online.place, *CODE))
    assert told.exit_code == 0
    assert told.data["entries"][0]["publication_id"] == run
