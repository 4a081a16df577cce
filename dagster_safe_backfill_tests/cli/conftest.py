"""The command on a project of its own: with a real `dagster dev`, and on an instance without one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dagster_safe_backfill.cli.main import VERBS, run
from dagster_safe_backfill_tests.cli.answers import check_answer
from dagster_safe_backfill_tests.e2e.dagster_dev import ROOT, home_in, served

PROJECT = "dagster_safe_backfill_tests.cli.project"


@dataclass(frozen=True)
class Told:
    """What a call of the command printed, and its exit code."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The envelope."""
        return json.loads(self.out)

    @property
    def data(self) -> Any:
        """The data of the envelope."""
        return self.json["data"]

    @property
    def counts(self) -> dict[str, int]:
        """How many partitions are in each state, without those in which none is; of `launch` as it was followed."""
        counts = (self.data.get("progress") or self.data)["counts"]
        return {state: count for state, count in counts.items() if count}

    @property
    def codes(self) -> list[str]:
        """The codes of the errors of the envelope."""
        return [one["code"] for one in self.json["errors"]]


@dataclass
class Terminal:
    """Calls the command as a shell does, on one project.

    Attributes:
        folder: The project's folder.
        place: How Dagster is reached: `--url …` or `-m …`.
    """

    folder: Path
    place: tuple[str, ...]
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, place: tuple[str, ...] | None = None) -> Told:
        self.capture.readouterr()
        # Loaded anew, as each call of a shell does: the project's code may have changed.
        sys.modules.pop(PROJECT, None)
        code = run([*arguments, *(self.place if place is None else place)])
        out, err = self.capture.readouterr()
        assert "Traceback" not in out + err
        if "--json" in arguments:
            check_answer(out, exit_code=code, verb=next((one for one in arguments if one in VERBS), None))
        return Told(code, out, err)

    def write(self, name: str, text: str) -> None:
        """Tell the project's source what to deliver."""
        (self.folder / name).write_text(text)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL in the warehouse, by a connection of its own."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            return connection.execute(statement).fetchall()


def reset(folder: Path) -> None:
    """Let the project's source deliver what it does by itself, for the next test on the same server."""
    for name in ("slow", "bad", "broken"):
        (folder / name).unlink(missing_ok=True)


def _stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls work in a folder, where plans are saved; code servers find the project as this process does."""
    monkeypatch.chdir(folder)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), before))))


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Run one `dagster dev` for all tests of a process; each works on partitions of its own."""
    folder = tmp_path_factory.mktemp("served")
    before = os.environ.get("SALES_FOLDER")
    os.environ["SALES_FOLDER"] = str(folder)
    with served(folder, ["-m", PROJECT]) as address:
        yield folder, address
    if before is None:
        del os.environ["SALES_FOLDER"]


@pytest.fixture
def online(
    _server: tuple[Path, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """The command, with a webserver, a daemon and a code server that are running; the source is reset at the end."""
    folder, address = _server
    _stand_in(folder, monkeypatch)
    monkeypatch.setenv("SALES_FOLDER", str(folder))
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "home"))
    yield Terminal(folder, ("--url", address), capsys)
    reset(folder)


@pytest.fixture
def offline(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """The command, on an instance that no daemon and no webserver serves."""
    _stand_in(tmp_path, monkeypatch)
    monkeypatch.setenv("SALES_FOLDER", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(home_in(tmp_path)))
    return Terminal(tmp_path, ("-m", PROJECT), capsys)
