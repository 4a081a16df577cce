"""What exact comparison costs: a write and a merge of a million rows, beside the same by the database's own equality.

Both are this library's, from the load of the rows to COMMIT; a tenth of the rows changes. Nothing is timed but the
processor, and the two take turns, so that a machine's other work touches both.

Run as `python -m bench.sameness TURNS`; the result is JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest import mock

ROWS, DAYS = 1_000_000, 100
FIRST_DAY = date(2024, 1, 1)
COLUMNS = {
    "DOUBLE": [f"sin(i * {n}.0)" for n in range(1, 7)],
    "INTERVAL": ["to_days(CAST(i % 100 AS INTEGER)) + to_seconds(i % 3600)", "to_microseconds(i * 1000)"],
    "FLOAT[]": ["list_transform(range(8), lambda x: CAST(sin(x * 1.0 + i) AS FLOAT))"],
}
"""The columns beside day and key, all of one type whose equality isn't identity."""
OTHERS = {"DOUBLE": "0.5", "INTERVAL": "INTERVAL 7 MINUTES", "FLOAT[]": "[CAST(0.5 AS FLOAT)]"}
"""The value that a changed row has in its first column."""
EXACT, PLAIN = "exact", "plain"


def main(turns: int) -> dict[str, dict[str, float]]:
    """Return the median CPU seconds of a write and a publication, exact and plain, by type."""
    return {kind: _measured(kind, turns) for kind in COLUMNS}


def _measured(kind: str, turns: int) -> dict[str, float]:
    found = defaultdict[str, list[float]](list)
    for turn in range(turns):
        for which in (EXACT, PLAIN) if turn % 2 else (PLAIN, EXACT):
            found[which].append(_published(kind, is_exact=which == EXACT))
            print(f"{kind}, {which}: {found[which][-1]:.3f} s", file=sys.stderr, flush=True)
    return {which: median(seconds) for which, seconds in found.items()}


def _published(kind: str, *, is_exact: bool) -> float:
    """Return the CPU seconds of a write of all rows and of their publication, without audits."""
    import dagster as dg
    import duckdb

    from dagster_safe_backfill.model.options import Merge
    from dagster_safe_backfill.model.states import Audited, Origin
    from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
    from dagster_safe_backfill.runs.partitions import slice_of_keys
    from dagster_safe_backfill.sql.dialect import Dialect
    from dagster_safe_backfill.wap.audit import audit
    from dagster_safe_backfill.wap.publish import publish
    from dagster_safe_backfill.wap.write import write
    from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect
    from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

    definition = dg.DailyPartitionsDefinition(str(FIRST_DAY), end_date=str(FIRST_DAY + timedelta(days=DAYS)))
    partition_slice = slice_of_keys(definition, definition.get_partition_keys())
    spec = TableSpec(table=TableRef(schema="main", name="live"), partition_expr={None: "day"}, unique_key=("day", "k"))
    origin = Origin(run_id="run", publication_id="publication")
    with TemporaryDirectory() as folder, ExitStack() as patched:
        path = str(Path(folder, "w.duckdb"))
        with duckdb.connect(path) as connection:
            connection.execute(f"CREATE TABLE live AS {_rows(kind)}")
            connection.execute(f"CREATE TABLE source AS {_rows(kind, changed=OTHERS[kind])}")
        if not is_exact:
            for name in ("exact", "hashed"):
                patched.enter_context(mock.patch.object(DuckDBDialect, name, getattr(Dialect, name)))
        with DuckDBWarehouse(path).connect() as session:
            begun = time.process_time()
            rows = Query("SELECT * FROM source")
            staged = write(session, rows, spec=spec, partition_slice=partition_slice, origin=origin)
            audited = audit(session, staged, [], origin=origin, gate="run")
            assert isinstance(audited, Audited)
            published = publish(session, audited, rules=Merge(), origin=origin)
            seconds = time.process_time() - begun
        assert sum(one.updated for one in published.row_counts.values()) == ROWS // 10
    return seconds


def _rows(kind: str, *, changed: str | None = None) -> str:
    """Return a SELECT of the rows, of which a tenth has the value `changed` in its first column."""
    first, *others = COLUMNS[kind]
    first = first if changed is None else f"CASE WHEN i % 10 = 0 THEN {changed} ELSE {first} END"
    columns = ", ".join(f"{column} AS v{n}" for n, column in enumerate([first, *others], 1))
    day = f"DATE '{FIRST_DAY}' + CAST(i // {ROWS // DAYS} AS INTEGER)"
    return f"SELECT {day} AS day, i AS k, {columns} FROM range({ROWS}) r(i)"


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
