"""Publishing 365 days of 2,406 and taking them back, against bare DuckDB doing the same writes.

Each turn is on a fresh copy of the warehouse, beside the other contenders' turns, and what is live is checked.
Run as `python -m bench.publications TURNS`; the result is JSON on standard output.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import data

if TYPE_CHECKING:
    import duckdb

    from dagster_safe_backfill.model.options import Strategy
    from dagster_safe_backfill.model.slices import PartitionSlice

DAYS = 365
INSIDE = data.between(data.FIRST_DAY, data.end_of(DAYS))
KEY = ("l_orderkey", "l_linenumber")
KEPT_FOR = timedelta(days=30)

ALL, TENTH = "all rows changed", "a tenth changed"
_OTHER = "l_extendedprice * (0.99 - l_discount)"
CASES = {ALL: _OTHER, TENTH: f"CASE WHEN l_orderkey % 10 = 0 THEN {_OTHER} ELSE {data.WRONG} END"}
"""The revenue that is staged."""

LIBRARY: dict[str, Strategy] = {"library, merge": "merge", "library, replace": "replace", "library, swap": "swap"}
MERGE, REWRITE, NEW_TABLE = "bare, MERGE", "bare, DELETE and INSERT", "bare, new table"
RIVALS = {"library, merge": (MERGE, REWRITE), "library, replace": (REWRITE,), "library, swap": (NEW_TABLE,)}
"""What does the same in bare DuckDB; the quickest counts."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step took: seconds, seconds of all cores, the library's statements, and seconds of the fingerprints."""

    wall: float
    cpu: float
    statements: int
    fingerprints: float


Steps = dict[str, Step]
"""By name: `write`, `publish` and, of the library, `rollback`."""


class _Stopwatch(logging.Handler):
    """Times steps, and the statements that the library logs in them, each until the next."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Steps = {}
        self._statements: list[tuple[float, str]] = []

    def handle(self, record: logging.LogRecord) -> bool:
        self._statements.append((time.perf_counter(), record.getMessage()))
        return True

    @contextmanager
    def step(self, name: str) -> Generator[None, None, None]:
        self._statements.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        ended, cpu_ended = time.perf_counter(), time.process_time()
        spans = pairwise([*self._statements, (ended, "")])
        self.steps[name] = Step(
            wall=ended - wall,
            cpu=cpu_ended - cpu,
            statements=len(self._statements),
            fingerprints=sum(end - begun for (begun, sql), (end, _) in spans if "_sb_hash" in sql),
        )


def library(database: str, case: str, *, strategy: Strategy) -> Steps:
    """Write and publish, without audits, and then roll back."""
    from dagster_safe_backfill.model.options import PUBLISH_BY_NAME
    from dagster_safe_backfill.model.states import Audited, Origin
    from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
    from dagster_safe_backfill.wap.audit import audit
    from dagster_safe_backfill.wap.publish import publish
    from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
    from dagster_safe_backfill.wap.write import write
    from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

    definition = _days()
    slice_of = partial(_slice_of, definition)
    table = TableRef(schema="main", name="order_items")
    spec = TableSpec(table=table, partition_expr={None: "o_orderdate"}, unique_key=KEY)
    query = Query(data.order_items(INSIDE, revenue=CASES[case]))
    partition_slice = slice_of(definition.get_partition_keys()[:DAYS])
    warehouse = DuckDBWarehouse(database, config=data.CONFIG)
    with _stopwatch() as watch:
        origin = Origin(run_id="first", publication_id="first")
        with warehouse.connect() as connection:
            with watch.step("write"):
                staged = write(connection, query, spec=spec, partition_slice=partition_slice, origin=origin)
            audited = audit(connection, staged, [], origin=origin, gate="run")
            assert isinstance(audited, Audited)
            with watch.step("publish"):
                rules = PUBLISH_BY_NAME[strategy](archive_days=KEPT_FOR / timedelta(days=1))
                publish(connection, audited, rules=rules, origin=origin)
        _check(database, CASES[case])
        origin = Origin(run_id="second", publication_id="second")
        chosen = Chosen(publication_id="first")
        with warehouse.connect() as connection, watch.step("rollback"):
            rollback(
                connection, chosen, spec=spec, partition_slice=partition_slice, origin=origin, archive_for=KEPT_FOR
            )
        _check(database, data.WRONG)
    return watch.steps


@contextmanager
def _stopwatch() -> Generator[_Stopwatch, None, None]:
    watch = _Stopwatch()
    logger = logging.getLogger("dagster_safe_backfill.sql")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(watch)
    try:
        yield watch
    finally:
        logger.removeHandler(watch)


def _days() -> Any:
    import dagster as dg

    return dg.DailyPartitionsDefinition(str(data.FIRST_DAY), end_date=str(data.end_of(data.ALL_DAYS)))


def _slice_of(definition: Any, keys: Sequence[str]) -> PartitionSlice:
    from dagster_safe_backfill.runs.partitions import slice_of_keys

    return slice_of_keys(definition, keys)


def bare(database: str, case: str, *, published: Callable[[duckdb.DuckDBPyConnection], None]) -> Steps:
    """Write and publish by plain SQL, in two transactions as the library does: audits would come in between."""
    import duckdb

    watch = _Stopwatch()
    with closing(duckdb.connect(database, config=data.CONFIG)) as warehouse:
        warehouse.execute("SET enable_progress_bar = false")
        with watch.step("write"):
            warehouse.execute(f"CREATE TABLE shadow AS {data.order_items(INSIDE, revenue=CASES[case])}")
        with watch.step("publish"):
            warehouse.execute("BEGIN")
            published(warehouse)
            warehouse.execute("DROP TABLE shadow")
            warehouse.execute("COMMIT")
    _check(database, CASES[case])
    return watch.steps


def _merged(warehouse: duckdb.DuckDBPyConnection) -> None:
    others = [name for name in data.COLUMNS if name not in KEY]
    differs = " OR ".join(f"live.{name} IS DISTINCT FROM shadow.{name}" for name in others)
    _archive(warehouse)
    warehouse.execute(
        f"MERGE INTO order_items AS live USING shadow"
        f" ON {' AND '.join(f'live.{name} = shadow.{name}' for name in KEY)} AND {INSIDE.replace('o_', 'live.o_')}"
        f" WHEN MATCHED AND ({differs}) THEN UPDATE SET {', '.join(f'{name} = shadow.{name}' for name in others)}"
        f" WHEN NOT MATCHED THEN INSERT ({data.LISTED})"
        f" VALUES ({', '.join(f'shadow.{name}' for name in data.COLUMNS)})"
    )


def _rewritten(warehouse: duckdb.DuckDBPyConnection) -> None:
    _archive(warehouse)
    warehouse.execute(f"DELETE FROM order_items WHERE {INSIDE}")
    warehouse.execute(f"INSERT INTO order_items ({data.LISTED}) SELECT {data.LISTED} FROM shadow")


def _made_anew(warehouse: duckdb.DuckDBPyConnection) -> None:
    warehouse.execute("ALTER TABLE order_items RENAME TO archive")
    outside = f"SELECT {data.LISTED} FROM archive WHERE NOT ({INSIDE})"
    warehouse.execute(f"CREATE TABLE order_items AS {outside} UNION ALL SELECT {data.LISTED} FROM shadow")


def _archive(warehouse: duckdb.DuckDBPyConnection) -> None:
    warehouse.execute(f"CREATE TABLE archive AS SELECT {data.LISTED} FROM order_items WHERE {INSIDE}")


def _check(database: str, revenue: str) -> None:
    """Check that live holds this revenue within the slice, and the old one elsewhere."""
    data.verify(database, DAYS, revenue=revenue)


CONTENDERS: dict[str, Callable[[str, str], Steps]] = {
    **{name: partial(library, strategy=strategy) for name, strategy in LIBRARY.items()},
    MERGE: partial(bare, published=_merged),
    REWRITE: partial(bare, published=_rewritten),
    NEW_TABLE: partial(bare, published=_made_anew),
}


def main(turns: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return the medians of all turns, by case, contender, step and quantity."""
    data.prepare()
    found: dict[tuple[str, str], list[Steps]] = defaultdict(list)
    for case, name in _runs(turns):
        with tempfile.TemporaryDirectory() as folder:
            database = str(Path(folder, "warehouse.duckdb"))
            shutil.copyfile(data.PREPARED, database)
            found[case, name].append(CONTENDERS[name](database, case))
        line = ", ".join(f"{step} {one.wall:.2f} s ({one.cpu:.2f})" for step, one in found[case, name][-1].items())
        print(f"{case}: {name}: {line}", file=sys.stderr, flush=True)
    return {case: {name: _medians(found[case, name]) for at, name in found if at == case} for case in CASES}


def _runs(turns: int) -> Iterator[tuple[str, str]]:
    """Return what to measure; each turn begins with another contender, so that none is always in one's wake."""
    names = [*CONTENDERS]
    for turn in range(turns):
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            for case in CASES:
                if case == ALL or name in ("library, merge", *RIVALS["library, merge"]):
                    yield case, name


def _medians(several: Sequence[Steps]) -> dict[str, dict[str, float]]:
    turns = [{step: asdict(one) for step, one in steps.items()} for steps in several]
    return {
        step: {quantity: median(turn[step][quantity] for turn in turns) for quantity in values}
        for step, values in turns[0].items()
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
