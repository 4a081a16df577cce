"""What exact comparison costs: fingerprints and a comparison of rows, beside the same by the database's own equality.

Run as `python -m bench.sameness TURNS`; the result is JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from contextlib import closing
from statistics import median
from tempfile import TemporaryDirectory

ROWS = 1_000_000
COLUMNS = {
    "DOUBLE": ", ".join(f"sin(i * {n}.0) AS v{n}" for n in range(1, 7)),
    "INTERVAL": "to_days(CAST(i % 100 AS INTEGER)) + to_seconds(i % 3600) AS v1, to_microseconds(i * 1000) AS v2",
    "FLOAT[]": "list_transform(range(8), lambda x: CAST(sin(x * 1.0 + i) AS FLOAT)) AS v1",
}
"""The columns beside the key, all of one type whose equality isn't identity."""
EXACT, PLAIN, DATA_PART = "exact", "plain", "data part"


def main(turns: int) -> dict[str, dict[str, float]]:
    """Return the median CPU seconds by type: of the exact statements, the plain ones, and the writes of a merge."""
    return {kind: _measured(columns, kind, turns) for kind, columns in COLUMNS.items()}


def _measured(columns: str, kind: str, turns: int) -> dict[str, float]:
    import duckdb
    from sqlglot import exp

    from dagster_safe_backfill.model.tables import Column
    from dagster_safe_backfill.sql.sameness import Sameness
    from dagster_safe_backfill.warehouses.duckdb.dialect import DuckDBDialect

    dialect, found = DuckDBDialect(), defaultdict[str, list[float]](list)
    with TemporaryDirectory() as folder, closing(duckdb.connect(f"{folder}/w.duckdb")) as warehouse:
        warehouse.execute(f"CREATE TABLE live AS SELECT i AS k, {columns} FROM range({ROWS}) r(i)")
        warehouse.execute("CREATE TABLE shadow AS FROM live")
        names = [row[0] for row in warehouse.execute("DESCRIBE live").fetchall()]
        columns = [Column(name=name, type=kind) for name in names[1:]]
        exact = Sameness.of(columns, dialect)
        statements: dict[str, list[str]] = {}
        for which, sameness in ((EXACT, exact), (PLAIN, Sameness())):
            forms = sameness.all_forms(names)
            rare = [form for form in forms if isinstance(form, exp.Case)]
            row_hash = dialect.row_hash([form for form in forms if form not in rare], rare=rare)
            differ = sameness.differ(names[1:], left="live", right="shadow")
            compared = exp.select(exp.Count(this=exp.Star())).from_("live").join("shadow", using="k").where(differ)
            hashed = exp.select(exp.Sum(this=row_hash)).from_("live")
            # A publication hashes twice, before and after it, and compares once.
            statements[which] = [one.sql("duckdb") for one in (hashed, compared, hashed)]
        # What else a merge does of which all rows are read, and a tenth is written.
        listed, update = ", ".join(names), f"UPDATE SET {', '.join(f'{one} = changed.{one}' for one in names[1:])}"
        statements[DATA_PART] = [
            "CREATE OR REPLACE TABLE staged AS SELECT * FROM shadow",
            f"CREATE OR REPLACE TABLE archive AS SELECT {listed} FROM live",
            f"MERGE INTO live USING (FROM shadow WHERE k % 10 = 0) AS changed USING (k) WHEN MATCHED THEN {update}",
        ]
        for turn in range(turns):
            for which in sorted(statements, reverse=bool(turn % 2)):
                begun = time.process_time()
                for sql in statements[which]:
                    warehouse.execute(sql).fetchall()
                found[which].append(time.process_time() - begun)
    return {which: median(seconds) for which, seconds in found.items()}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
