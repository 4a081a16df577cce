"""kill -9 in each batch of a run of 90 days: live is old until the end, a re-execution computes what isn't audited.

A new launch computes all.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import dagster as dg
import duckdb
import pytest

from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.wap.retention import RetentionRules, owners, retire
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill_tests.faults.batch_victim import (
    KEYS,
    ROWS,
    Kill,
    Order,
    Phase,
    PublishPer,
    Victims,
    new_value,
    victims,
)
from dagster_safe_backfill_tests.harness.assets import green

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="victims are forked")

Way = Literal["re-executed", "relaunched"]
Rows = list[tuple[str, int, float]]

FIRST, LAST, SIZE = 5, 94, 10
IN_RUN = KEYS[FIRST : LAST + 1]
BATCHES = [IN_RUN[start : start + SIZE] for start in range(0, len(IN_RUN), SIZE)]
BOTH: tuple[Way, ...] = ("re-executed", "relaunched")
KILLS: list[tuple[int, Phase, tuple[Way, ...]]] = [
    (1, "computing", ("re-executed",)),
    (2, "writing", ("relaunched",)),
    (3, "written", ("re-executed",)),
    (4, "auditing", ("relaunched",)),
    (5, "computing", ("relaunched",)),
    (6, "written", BOTH),
    (7, "auditing", ("re-executed",)),
    (8, "computing", ("relaunched",)),
    (9, "written", ("re-executed",)),
    (9, "collecting", BOTH),
    (9, "collected", ("re-executed",)),
    (9, "publishing", BOTH),
]
KILLS_BY_BATCH: list[tuple[int, Phase]] = [(2, "publishing"), (5, "telling"), (8, "written")]


def rows(*, new: frozenset[str]) -> Rows:
    """Return the table of which some days are new."""
    return [
        (key, i, float(new_value(key) if key in new else day + 1)) for day, key in enumerate(KEYS) for i in range(ROWS)
    ]


@dataclass(frozen=True, slots=True)
class World:
    """A warehouse and Dagster's files."""

    folder: Path

    def copied(self, folder: Path) -> World:
        shutil.copytree(self.folder, folder)
        return World(folder)

    @property
    def warehouse(self) -> str:
        return str(self.folder / "warehouse.duckdb")

    @property
    def live(self) -> Rows:
        with duckdb.connect(self.warehouse) as connection:
            columns = "strftime(day, '%Y-%m-%d'), id, value"
            return connection.execute(f"SELECT {columns} FROM events ORDER BY ALL").fetchall()

    @property
    def shadows(self) -> list[str]:
        with duckdb.connect(self.warehouse) as connection:
            found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE contains(table_name, '__shadow_')")
            return [name for (name,) in found.fetchall()]

    @property
    def green(self) -> set[str]:
        with self.instance() as instance:
            return green(instance, "events")

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.folder / "home"))

    def calls(self) -> list[list[str]]:
        """Return the partitions of each call of the function since the last time."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        ends = [[KEYS.index(key) for key in line.split()] for line in lines]
        return [KEYS[first : last + 1] for first, last in ends]

    def dead_run(self, way: Way) -> str:
        """Return the run that was killed: to be executed again, Dagster has to have noticed."""
        with self.instance() as instance:
            (run,) = instance.get_runs()
            assert run.status == dg.DagsterRunStatus.STARTED
            if way == "re-executed":
                instance.report_run_failed(run, "its process is gone")
            return run.run_id

    def drop_shadows(self) -> None:
        """Do what retention does once all runs are over."""
        with DuckDBWarehouse(self.warehouse).connect() as connection:
            table = TableRef(schema="main", name="events")
            retire(
                connection,
                table,
                rules=RetentionRules(runs=KnownRuns(ended=owners(connection, table)), shadows_for=timedelta(0)),
                origin=Origin(run_id="retention", publication_id="retention", asset_key="events"),
            )


@pytest.fixture(scope="module")
def doomed() -> Iterator[Victims]:
    with victims() as found:
        yield found


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a table that holds other days too, and of which Dagster knows nothing yet."""
    folder = tmp_path / "world"
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    world = World(folder)
    with duckdb.connect(world.warehouse) as connection:
        connection.execute("CREATE TABLE events (day TIMESTAMP, id BIGINT, value DOUBLE)")
        values = ", ".join(map(str, rows(new=frozenset())))
        connection.execute(f"INSERT INTO events VALUES {values}")
    return world


def order(world: World, *, publish_per: PublishPer, first: int = FIRST, parent: str | None = None) -> Order:
    return Order(folder=str(world.folder), publish_per=publish_per, first=first, last=LAST, parent=parent)


def killed(doomed: Victims, world: World, batch: int, phase: Phase, *, publish_per: PublishPer) -> str:
    """Kill a run, and return how it was cut."""
    one = order(world, publish_per=publish_per)
    kill = Kill(call=batch, phase=phase)
    assert doomed.run(Order(**{name: getattr(one, name) for name in one.__slots__} | {"kill": kill}))
    calls = world.calls()
    assert calls == BATCHES[:batch]
    return f"batch {batch}, {phase}: {len(calls)} calls, killed"


@pytest.mark.parametrize(("batch", "phase", "ways"), KILLS, ids=[f"{batch}-{phase}" for batch, phase, _ in KILLS])
def test_a_re_execution_computes_the_batches_that_were_not_audited_and_a_launch_all(
    doomed: Victims,
    world: World,
    tmp_path: Path,
    record_property: pytest.RecordProperty,
    batch: int,
    phase: Phase,
    ways: tuple[Way, ...],
) -> None:
    told = [killed(doomed, world, batch, phase, publish_per="run")]
    assert world.live == rows(new=frozenset())
    assert world.green == set()
    missing = [] if phase in ("collecting", "collected", "publishing") else BATCHES[batch - 1 :]
    for way in ways:
        one = world.copied(tmp_path / way)
        dead = one.dead_run(way)
        parent = dead if way == "re-executed" else None
        assert not doomed.run(order(one, publish_per="run", parent=parent))
        calls = one.calls()
        assert calls == (missing if way == "re-executed" else BATCHES)
        assert one.live == rows(new=frozenset(IN_RUN))
        assert one.green == set(IN_RUN)
        left = one.shadows
        if way == "re-executed":
            assert left == []
        # For all that Dagster knows, the run goes on, and may want what it has staged.
        assert all(dead[:8] in name for name in left)
        told.append(f"{way}: {len(calls)} calls, {len(left)} shadows left")
        one.drop_shadows()
        assert one.shadows == []
        assert one.live == rows(new=frozenset(IN_RUN))
    sys.stdout.write(f"{'; '.join(told)}\n")
    record_property("calls", "; ".join(told))


@pytest.mark.parametrize(("batch", "phase"), KILLS_BY_BATCH)
def test_what_was_published_before_stays_live_and_green(
    doomed: Victims, world: World, tmp_path: Path, record_property: pytest.RecordProperty, batch: int, phase: Phase
) -> None:
    told = [killed(doomed, world, batch, phase, publish_per="batch")]
    published = [key for done in BATCHES[: batch - 1] for key in done]
    # Dagster is told of a publication once it is made.
    half = BATCHES[batch - 1][:4] if phase == "telling" else []
    live = {*published, *(BATCHES[batch - 1] if half else [])}
    assert world.live == rows(new=frozenset(live))
    assert world.green == {*published, *half}
    dead = world.dead_run("re-executed")
    # A new launch is for what isn't green; a re-execution is for the same partitions as its run.
    first = FIRST + len(published) + len(half)
    missing = KEYS[first : LAST + 1]
    # What was audited, and not published, is reused by both: the run that staged it was killed.
    reused = SIZE if phase == "publishing" else 0
    launched = [missing[start : start + SIZE] for start in range(reused, len(missing), SIZE)]
    # What was published is done for a re-execution.
    re_executed = BATCHES[batch if phase in ("publishing", "telling") else batch - 1 :]
    for way, start, parent, expected in (
        ("relaunched", first, None, launched),
        ("re-executed", FIRST, dead, re_executed),
    ):
        one = world.copied(tmp_path / way)
        assert not doomed.run(order(one, publish_per="batch", first=start, parent=parent))
        calls = one.calls()
        assert calls == expected
        assert one.live == rows(new=frozenset(IN_RUN))
        assert one.green == set(IN_RUN)
        assert all(dead[:8] in name for name in one.shadows)
        assert one.shadows == [] or (way == "relaunched" and phase == "publishing")
        told.append(f"{way}: {len(calls)} calls")
        one.drop_shadows()
        assert one.shadows == []
    told.append(f"{len(published) + len(half)} were green")
    sys.stdout.write(f"{'; '.join(told)}\n")
    record_property("calls", "; ".join(told))
