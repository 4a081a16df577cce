"""`watch`: to the end, for a time, until Ctrl-C; with a server that goes away, and without a daemon."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dagster_safe_backfill_tests.cli.conftest import PROJECT, Terminal
from dagster_safe_backfill_tests.cli.launched import at, launch
from dagster_safe_backfill_tests.cli.prepared import materialize

COMMAND = [sys.executable, "-c", "from dagster_safe_backfill.cli.main import main; main()"]


def test_for_a_time_until_ctrl_c_and_to_the_end(online: Terminal) -> None:
    """One backfill for all, as each takes two ticks of Dagster's daemon."""
    dagster = at(online.place[1])
    online.write("slow", "60")
    backfill_id = launch(dagster, ["sales"], "11", "12")

    soon = online("watch", backfill_id, "--timeout", "0.5", "--interval", "0.2", "--json")
    assert (soon.exit_code, soon.codes) == (6, ["time_is_up"])
    assert not soon.data["is_over"]
    assert sum(soon.data["counts"].values()) == 2
    assert f"safe-backfill watch {backfill_id} --url" in soon.json["errors"][0]["hint"]

    screen, code = _detached(backfill_id, online.place)
    assert code == 130
    assert f"backfill {backfill_id} of sales" in screen
    assert "Ctrl-C detaches" in screen
    assert f"safe-backfill watch {backfill_id} --url" in screen

    online.write("slow", "0")
    told = online("watch", backfill_id, "--interval", "0.3", "--json")
    assert told.exit_code == 0, "the backfill went on"
    assert told.counts == {"live": 2}
    assert told.data["is_over"]
    # No terminal, so no bar: lines, each with something new, on stderr.
    lines = told.err.splitlines()
    assert any(f"{backfill_id}: 2 live; 6 rows" in line for line in lines)
    assert len({line[10:] for line in lines}) == len(lines)
    assert "\x1b" not in told.err


def _detached(backfill_id: str, place: tuple[str, ...]) -> tuple[str, int]:
    """Watch in a terminal, press Ctrl-C once the bar is there, and return what was seen, and the exit code."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "watch", backfill_id, *place, "--interval", "0.3"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
        start_new_session=True,
    )
    os.close(terminal)
    seen = b""
    while b"Ctrl-C detaches" not in seen:
        seen += os.read(controller, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(controller, 4096):
            seen += chunk
    except OSError:  # Linux says so at the end of a terminal whose process has ended
        pass
    os.close(controller)
    return seen.decode(), process.wait()


def test_one_that_has_ended_is_told_at_once(offline: Terminal) -> None:
    offline.write("bad", "2024-01-02")
    run_id = materialize(offline, "batched", "2024-01-01", "2024-01-03")
    told = offline("watch", run_id)
    assert told.exit_code == 1
    assert "batched: 3 partitions, 2 live, 1 rejected" in told.out
    assert "amount_positive: 3 rows" in told.out
    assert f"safe-backfill rollback batched --backfill {run_id} -m {PROJECT}" in told.out


def test_without_a_daemon_it_says_what_it_waits_for(offline: Terminal) -> None:
    from dagster_safe_backfill.cli.connection import Connection

    with Connection(modules=[PROJECT]) as connection:
        backfill_id = launch(connection.dagster, ["sales"], "01", "03")
    told = offline("watch", backfill_id, "--timeout", "5", "--interval", "0.5", "--json")
    assert (told.exit_code, told.codes) == (6, ["time_is_up"])
    (warning,) = told.json["warnings"]
    assert "BACKFILL daemon isn't alive (it never ran here)" in warning
    assert warning in told.err
    # Whoever reads only the id gets no more than that.
    assert offline("watch", backfill_id, "--timeout", "0", "-q").out == "REQUESTED\n"


class Relay:
    """Stands before a webserver, and breaks off connections.

    Attributes:
        asked: How many requests came.
        broken_off: The numbers of the requests that it breaks off, the first of which is 1.
    """

    def __init__(self, target: str) -> None:
        self.asked = 0
        self.broken_off = range(0)
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                relay.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if relay.asked in relay.broken_off:
                    self.close_connection = True
                    return
                headers = {"Content-Type": "application/json"}
                with urllib.request.urlopen(urllib.request.Request(target + self.path, body, headers)) as answer:
                    told = answer.read()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def relay(online: Terminal) -> Iterator[Relay]:
    made = Relay(online.place[1])
    yield made
    made.close()


def test_a_server_that_goes_away(online: Terminal, relay: Relay) -> None:
    backfill_id = launch(at(online.place[1]), ["sales"], "16", "16")
    place = ("--url", relay.address)
    # While it is followed: the first request looks the backfill up. Each is sent three times before it has failed.
    relay.broken_off = range(5, 10)
    told = online("watch", backfill_id, "--interval", "0.3", "--json", place=place)
    assert told.exit_code == 0, told.out
    assert "asking again for 60 s" in told.err
    assert f"{relay.address} answers again" in told.err


def test_a_server_that_stays_away(online: Terminal, relay: Relay) -> None:
    backfill_id = launch(at(online.place[1]), ["sales"], "17", "17")
    relay.broken_off = range(5, 1_000_000)
    told = online(
        "watch", backfill_id, "--interval", "0.3", "--patience", "1", "--json", place=("--url", relay.address)
    )
    assert (told.exit_code, told.codes) == (5, ["unreachable"])
    assert (
        told.json["errors"][0]["hint"] == f"watch it again by: safe-backfill watch {backfill_id} --url {relay.address}"
    )


def test_a_server_that_isnt_there_from_the_start(online: Terminal) -> None:
    started = time.monotonic()
    told = online("watch", "whatever", "--json", place=("--url", "http://127.0.0.1:9"))
    assert (told.exit_code, told.codes) == (5, ["unreachable"])
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("wrong", ["--timeout=-1", "--interval=0", "--interval=often", "--patience=-1"])
def test_numbers_that_are_none(offline: Terminal, wrong: str) -> None:
    told = offline("watch", "abcdefgh", wrong, "--json")
    assert (told.exit_code, told.codes) == (2, ["usage"])
