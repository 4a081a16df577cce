"""A copy of the example project that the command is tried on, with what its assets read in the warehouse already."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_safe_backfill_tests.cli.conftest import Terminal, Told
from dagster_safe_backfill_tests.e2e.dagster_dev import ROOT, environment_of, home_in

MODULE = "example_project.definitions"
_READ = ("airlines", "airports", "planes", "orders", "costs", "staging/events")
"""The assets that the partitioned ones read."""
_QUERY = 'return sb.Query(f"""\n        SELECT o.order_id'
_HELD = f"""
    import os, pathlib, time
    folder = pathlib.Path(os.environ["SAFE_BACKFILL_DUCKDB"]).parent
    while set(partitions.keys) & set((folder / "hold").read_text().split()):
        (folder / "held").touch()
        time.sleep(0.1)
    with (folder / "computed").open("a") as file:
        file.writelines(key + "\\n" for key in partitions.keys)
    {_QUERY}"""
"""How the copy's `fact_orders_daily` begins: it waits while `hold` names its day, and notes it in `computed`."""


@dataclass
class Flights(Terminal):
    """Calls the command on a copy of the example.

    Attributes:
        launching: What `launch`, `retry` and `approve` are given to be followed to the end.
        code: How the definitions are named, beside a URL or instead of it.
    """

    launching: tuple[str, ...]
    code: tuple[str, ...]

    def __call__(self, *arguments: str, place: tuple[str, ...] | None = None) -> Told:
        forget()
        return super().__call__(*arguments, place=place)

    @property
    def is_served(self) -> bool:
        """True if a webserver and a daemon run."""
        return self.place[0] == "--url"

    @property
    def both(self) -> tuple[str, ...]:
        """Where it is, with the definitions."""
        return (*self.place, *self.code) if self.is_served else self.code

    def saved(self, *arguments: str) -> str:
        """Plan something with the definitions, and return the plan's file."""
        path = str(self.folder / f"plan-{time.time_ns()}.json")
        told = self("plan", *arguments, "--out", path, "--json", place=self.both)
        assert told.exit_code == 0, told.out
        assert told.data["path"] == path
        return path

    def computed(self) -> list[str]:
        """Return the days that `fact_orders_daily` has computed, in order."""
        file = self.folder / "computed"
        return file.read_text().split() if file.exists() else []

    @property
    def is_holding(self) -> bool:
        """True if a day has been held that `hold` names."""
        return (self.folder / "held").exists()

    @contextmanager
    def edited(self, before: str, after: str) -> Iterator[None]:
        """Let the copy's definitions have other code in the block."""
        file = self.folder / "example_project" / "definitions.py"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after, 1))
        try:
            yield
        finally:
            file.write_text(text)

    def interrupted(self, *arguments: str, when: Callable[[], bool]) -> int:
        """Press Ctrl-C in a call of a shell once something is so, and return the call's exit code."""
        command = "from dagster_safe_backfill.cli.main import main; main()"
        with subprocess.Popen(
            [sys.executable, "-c", command, *arguments, *self.place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                until(when)
                process.send_signal(signal.SIGINT)
                return process.wait(60)
            finally:
                # Leaving the block waits for it, and without a Ctrl-C it never ends.
                process.kill()


def forget() -> None:
    """Let the example be loaded anew, as each call of a shell does: its code may have changed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "example_project"]:
        del sys.modules[name]


def until(look: Callable[[], bool], *, within: float = 180) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def copy_example(folder: Path) -> Path:
    """Copy the example into a folder, with a home of Dagster, and materialize there what others read."""
    shutil.copytree(
        ROOT / "example_project", folder / "example_project", ignore=shutil.ignore_patterns("data", "__py*")
    )
    orders = folder / "example_project" / "orders.py"
    text = orders.read_text()
    assert text.count(_QUERY) == 1
    orders.write_text(text.replace(f"\n    {_QUERY}", _HELD))
    (folder / "hold").write_text("")
    home_in(folder)
    with inside(folder):
        import example_project.definitions as example

        names = [dg.AssetKey.from_user_string(name) for name in _READ]
        assets: list[Any] = [example.defs.get_assets_def(name) for name in names]
        with dg.DagsterInstance.get() as instance:
            done = dg.materialize(assets, resources=example.defs.resources, instance=instance)
        assert done.success
        assert example.__file__.startswith(str(folder))
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Let this process and those that it starts find the example, its home and its warehouse in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name, value in environment_of(folder).items():
            patch.setenv(name, value)
        # Plans are saved where a call is made.
        patch.chdir(folder)
        paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        before = {name: one for name, one in sys.modules.items() if name.split(".")[0] == "example_project"}
        forget()
        try:
            yield
        finally:
            forget()
            sys.modules.update(before)
