"""Calls that are wrong, and Dagsters and warehouses that are: never a traceback, always a code of the table."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.prepared import held, materialize

CALLS = {
    "an unknown verb": (("plam", "sales"), 2, "usage"),
    "an unknown option": (("plan", "sales", "--form", "2024-01-01"), 2, "usage"),
    "no asset": (("plan", "--all"), 2, "usage"),
    "an option without its value": (("list", "--limit"), 2, "usage"),
    "an unknown asset": (("plan", "saels", "--all"), 2, "unknown_asset"),
    "no partitions named": (("plan", "sales"), 2, "no_selection"),
    "a key that is none": (("plan", "sales", "--partitions", "2024-02-30"), 2, "unknown_partition"),
    "a time within a day": (("plan", "sales", "--from", "2024-01-05T12:00"), 2, "unknown_partition"),
    "a day before the first": (("plan", "sales", "--from", "2023-12-31"), 2, "unknown_partition"),
    "a day after the last": (("plan", "sales", "--to", "2024-02-01"), 2, "unknown_partition"),
    "a range backwards": (("plan", "sales", "--from", "2024-01-05", "--to", "2024-01-04"), 2, "inverted_range"),
    "two ways to name partitions": (("plan", "sales", "--all", "--last", "2"), 2, "contradiction"),
    "the last 0": (("plan", "sales", "--last", "0"), 2, "usage"),
    "reprocess and missing": (("plan", "sales", "--reprocess", "none", "--missing"), 2, "contradiction"),
    "a file that isn't there": (("plan", "sales", "--partitions-file", "no.txt"), 2, "unreadable_file"),
    "an empty file": (("plan", "sales", "--partitions-file", "empty.txt"), 2, "empty_file"),
    "a dimension of one-dimensional partitions": (("plan", "sales", "--dimension", "day=1"), 2, "no_dimensions"),
    "an unknown dimension": (("plan", "by_shop", "--dimension", "shp=eu"), 2, "unknown_dimension"),
    "an unknown key of a dimension": (("plan", "by_shop", "--dimension", "shop=mars"), 2, "unknown_partition"),
    "a dimension without keys": (("plan", "by_shop", "--dimension", "shop"), 2, "bad_dimension"),
    "partitions of an asset without any": (("plan", "prices", "--all"), 2, "no_partitions"),
    "a config that is none": (("plan", "sales", "--all", "--config", "empty.txt"), 2, "bad_config"),
    "a plan that isn't there": (("launch", "backfills/gone.json", "--yes"), 2, "unknown_plan"),
    "a plan that is something else": (("launch", "other.json", "--yes"), 2, "not_a_plan"),
    "a plan with options": (("launch", "other.json", "--last", "2", "--yes"), 2, "contradiction"),
    "a tag that is none": (("launch", "sales", "--last", "1", "--tag", "x", "--yes"), 2, "bad_tag"),
    "nobody says yes": (("launch", "sales", "--last", "1"), 3, "not_confirmed"),
    "too many partitions": (("launch", "batched", "--all", "--yes"), 3, "guard_count"),
    "a wrong confirmation": (("launch", "batched", "--all", "--yes", "--confirm", "3"), 3, "guard_count"),
    "an unknown backfill, status": (("status", "nothing"), 2, "unknown_backfill"),
    "an unknown backfill, watch": (("watch", "nothing"), 2, "unknown_backfill"),
    "an unknown backfill, cancel": (("cancel", "nothing"), 2, "unknown_backfill"),
    "an unknown backfill, retry": (("retry", "nothing"), 2, "unknown_backfill"),
    "an asset that isn't staged, approve": (("approve", "sales", "--yes"), 2, "not_staged"),
    "an unknown asset, history": (("history", "saels"), 2, "unknown_asset"),
    "an unknown asset, diff": (("diff", "saels"), 2, "unknown_asset"),
    "an unknown asset, rollback": (("rollback", "saels"), 2, "unknown_asset"),
    "an unknown publication": (("rollback", "sales", "--publication", "gone"), 2, "unknown_publication"),
    "an empty publication, rollback": (("rollback", "sales", "--publication", "", "--yes"), 2, "empty_value"),
    "an empty run, diff": (("diff", "sales", "--run", ""), 2, "empty_value"),
    "an empty asset, retention": (("retention", "", "--yes"), 2, "empty_value"),
    "empty partitions": (("launch", "sales", "--partitions", "", "--yes"), 2, "empty_value"),
    "a URL that is none": (("list", "--url", "localhost"), 2, "bad_url"),
    "a URL whose port is none": (("list", "--url", "http://localhost:abc"), 2, "bad_url"),
    "a URL whose host is none": (("list", "--url", "http://[::1"), 2, "bad_url"),
    "a token that is none": (("list", "--url", "http://localhost:1", "--token", "a\nb"), 2, "bad_token"),
    "a plan without assets": (("launch", "nothing.json", "--yes"), 2, "not_a_plan"),
    "a config with a date": (("plan", "sales", "--all", "--config", "date.yaml"), 2, "bad_config"),
    "no concurrency": (("launch", "sales", "--last", "1", "--concurrency", "0", "--yes"), 2, "usage"),
    "a time limit for nobody": (("launch", "sales", "--last", "1", "--timeout", "3", "--yes"), 2, "contradiction"),
    "a module that isn't there": (("list", "-m", "no_such_module"), 5, "code_not_loaded"),
    "a file of code that isn't there": (("list", "-f", "no_such_file.py"), 5, "code_not_loaded"),
    "a workspace that isn't there": (("list", "-w", "no_such_workspace.yaml"), 2, "usage"),
    "in process by URL": (
        ("launch", "sales", "--last", "1", "--in-process", "--url", "http://127.0.0.1:1", "--yes"),
        2,
        "contradiction",
    ),
    "the warehouse by URL alone": (("history", "sales", "--url", "http://127.0.0.1:1"), 2, "no_code"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for calls that change nothing."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty.txt").write_text("\n")
    (folder / "other.json").write_text("{}")
    (folder / "date.yaml").write_text("ops: {a: {config: {day: 2024-01-01}}}")
    (folder / "nothing.json").write_text('{"schema": "safe-backfill/plan/1", "plan_id": "x", "created_at": 1.0,'
                                         ' "assets": [], "launched": [], "dagster": "x"}')  # fmt: skip
    return folder


@pytest.mark.parametrize("call", CALLS)
def test_calls(offline: Terminal, project: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    arguments, exit_code, code = CALLS[call]
    monkeypatch.chdir(project)
    names_its_place = {"--url", "-m", "-f", "-w"}.intersection(arguments)
    told = offline(*arguments, "--json", place=() if names_its_place else None)
    assert (told.exit_code, told.codes) == (exit_code, [code]), told.out
    assert told.json["exit_code"] == exit_code
    assert told.json["errors"][0]["message"]
    assert not (offline.folder / "warehouse.duckdb").exists()


class TestWhatIsNear:
    def test_an_asset(self, offline: Terminal) -> None:
        assert "did you mean sales" in offline("plan", "saels", "--all").err

    def test_a_time_within_a_day(self, offline: Terminal) -> None:
        told = offline("plan", "sales", "--from", "2024-01-05T12:00")
        assert "the nearest are 2024-01-05 and 2024-01-06" in told.err

    def test_a_day_before_the_first(self, offline: Terminal) -> None:
        told = offline("plan", "sales", "--from", "2023-12-31")
        assert "they run from 2024-01-01 to 2024-01-31" in told.err


def test_nothing_says_where(offline: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert offline("list", "--json", place=()).codes == ["no_dagster"]
    monkeypatch.delenv("DAGSTER_HOME")
    assert offline("list", "--json").codes == ["no_dagster_home"]
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "gone"))
    assert offline("list", "--json").codes == ["no_dagster_home"]


@contextmanager
def answering(status: int, body: bytes, *, length: int | None = None) -> Iterator[str]:
    """Answer every request in the same way; `length` is what the header says, if that is another number."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://user:hunter2@127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "length", "code"),
    [
        (200, b"<html>Grafana</html>", None, "not_dagster"),
        (200, b"[]", None, "not_dagster"),
        (200, b'{"data": null}', None, "not_dagster"),
        (200, b'{"data": {}}', None, "not_dagster"),
        (200, b'{"errors": []}', None, "not_dagster"),
        (302, b"", None, "http_error"),
        (200, b'{"errors": [{"message": "boom\\nTraceback"}]}', None, "dagster_error"),
        (401, b"", None, "unauthorized"),
        (403, b"no", None, "unauthorized"),
        (404, b"not here", None, "http_error"),
        (500, b'{"errors": [{"message": "KeyError: sales"}]}', None, "dagster_error"),
        (500, b"Internal Server Error", None, "http_error"),
        (503, b"restarting", None, "http_error"),
        (200, b'{"data":', 5000, "unreachable"),
    ],
)
def test_what_a_server_may_answer(
    offline: Terminal, status: int, body: bytes, length: int | None, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with answering(status, body, length=length) as url:
        told = offline("list", "--json", place=("--url", url, "--token", "s3cret"))
    assert (told.exit_code, told.codes) == (5, [code]), told.out
    assert not any(secret in told.out + told.err for secret in ("hunter2", "s3cret"))


def test_a_url_without_its_scheme_shows_no_password(offline: Terminal) -> None:
    told = offline("list", "--json", place=("--url", "bob:hunter2@host:3000"))
    assert (told.exit_code, told.codes) == (2, ["bad_url"])
    assert "hunter2" not in told.out + told.err


def test_nobody_listens(offline: Terminal) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        told = offline("status", "abc", "--json", place=("--url", f"http://127.0.0.1:{probe.getsockname()[1]}"))
    assert (told.exit_code, told.codes) == (5, ["unreachable"])


@pytest.mark.parametrize("arguments", [("rollback", "sales"), ("history", "sales"), ("diff", "sales")])
def test_a_file_that_somebody_holds(offline: Terminal, arguments: tuple[str, ...]) -> None:
    materialize(offline, "sales", "2024-01-01", "2024-01-02")
    offline.write("lock_timeout", "0.5")
    with held(offline) as pid:
        told = offline(*arguments, "--json")
    assert (told.exit_code, told.codes) == (5, ["warehouse_locked"])
    assert str(pid) in told.json["errors"][0]["message"]


def test_no_ledger_yet(offline: Terminal) -> None:
    assert offline("history", "sales", "--json").exit_code == 0
    assert offline("diff", "sales", "--json").exit_code == 0
    assert offline("retention", "--json").exit_code == 0


def test_no_daemon(offline: Terminal) -> None:
    told = offline("launch", "sales", "--last", "1", "--yes", "--watch", "--timeout", "1", "--json")
    assert told.exit_code == 6
    assert "daemon" in json.dumps(told.json["warnings"])


def test_two_assets_at_one_table(offline: Terminal) -> None:
    """Another asset wrote the table, so its history is not rolled back as one's own."""
    materialize(offline, "sales", "2024-01-01", "2024-01-02")
    table = '"_safe_backfill_ledger"'
    offline.sql(f"UPDATE shop.{table} SET asset_key = 'another'")
    told = offline("rollback", "sales", "--json")
    assert told.exit_code == 1
    assert "another" in json.dumps(told.json["errors"])


def test_code_that_breaks_on_import(offline: Terminal, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('the code is broken')")
    told = offline("list", "--json", place=("-f", str(broken)))
    assert (told.exit_code, told.codes) == (5, ["code_not_loaded"])
    assert "the code is broken" in told.json["errors"][0]["message"]


def test_a_reader_that_has_enough(offline: Terminal) -> None:
    """`safe-backfill … | head -1` ends without a traceback."""
    command = f"{sys.executable} -c 'import sys; from dagster_safe_backfill.cli.main import main; main()'"
    done = subprocess.run(
        f"{command} plan sales --all --dry-run --json -m {PROJECT} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert done.stdout.strip() == "{"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
