"""Automation beside an open backfill, with a real daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from dagster_safe_backfill_tests.daemon.live import LiveDagster, live_dagster

WORKSPACE = "load_from:\n  - python_module: dagster_safe_backfill_tests.daemon.paused\n"


def test_a_reader_waits_for_the_end_of_the_backfill(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    with live_dagster(tmp_path / "home", workspace, {"DSB_TEST_FOLDER": str(tmp_path)}) as dagster:
        _wait_for(lambda: _ticks(dagster) > 0)
        backfill = dagster.launch(["table"], ["a", "b"])
        (tmp_path / "go_a").touch()
        _wait_for(lambda: _finished(dagster, "hasty") == 1)
        assert dagster.green("table") == {"a"}
        assert _runs(dagster, "patient") == []

        (tmp_path / "go_b").touch()
        dagster.ended(backfill)
        _wait_for(lambda: _finished(dagster, "patient") == 1 and _finished(dagster, "hasty") == 2)
        ticks = _ticks(dagster)
        _wait_for(lambda: _ticks(dagster) >= ticks + 2)
        assert len(_runs(dagster, "patient")) == 1
        assert len(_runs(dagster, "hasty")) == 2


def _runs(dagster: LiveDagster, asset: str) -> list[dg.DagsterRun]:
    return [run for run in dagster.instance.get_runs() if dg.AssetKey(asset) in (run.asset_selection or ())]


def _finished(dagster: LiveDagster, asset: str) -> int:
    return sum(run.is_finished for run in _runs(dagster, asset))


def _ticks(dagster: LiveDagster) -> int:
    (state,) = dagster.instance.all_instigator_state() or (None,)
    if state is None:
        return 0
    ticks = dagster.instance.get_ticks(state.instigator_origin_id, state.selector_id)
    return sum(tick.timestamp > 0 and tick.end_timestamp is not None for tick in ticks)


def _wait_for(condition: Callable[[], bool], *, timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.2)
