"""TPC-H order items at scale 1, by order date; the live table starts with a wrong revenue."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

FOLDER = Path(".bench")
PREPARED = FOLDER / "prepared.duckdb"
FIRST_DAY = date(1992, 1, 1)
ALL_DAYS = 2406
MEMORY_LIMIT_MB = 1000
CONFIG: dict[str, Any] = {"memory_limit": f"{MEMORY_LIMIT_MB}MB"}

COLUMNS = ("l_orderkey", "l_linenumber", "o_orderdate", "o_custkey", "l_partkey", "l_quantity", "revenue")
LISTED = ", ".join(COLUMNS)
_SOURCES = {
    "lineitem": "l_orderkey, l_linenumber, l_partkey, l_quantity, l_extendedprice, l_discount",
    "orders": "o_orderkey, o_custkey, o_orderdate",
    "part": "p_partkey, p_name",
}
RIGHT, WRONG = "l_extendedprice * (1 - l_discount)", "l_extendedprice"


def order_items(where: str, *, revenue: str = RIGHT, from_files: bool = False) -> str:
    """Return the SELECT of the rows, from the warehouse's tables or from the files that they were made of."""
    lineitem, orders = (f"'{_file(name)}'" if from_files else name for name in ("lineitem", "orders"))
    return f"""SELECT l_orderkey, l_linenumber, o_orderdate, o_custkey, l_partkey,
        CAST(l_quantity AS DOUBLE) AS l_quantity, CAST({revenue} AS DOUBLE) AS revenue
    FROM {lineitem} JOIN {orders} ON l_orderkey = o_orderkey WHERE {where}"""


def between(start: date, end: date) -> str:
    """Return the condition of a half-open range of days."""
    return f"o_orderdate >= DATE '{start}' AND o_orderdate < DATE '{end}'"


def end_of(days: int) -> date:
    """Return the first day after a slice of so many days."""
    return FIRST_DAY + timedelta(days)


def prepare() -> None:
    """Generate the tables and the warehouse, unless they are there."""
    import duckdb

    if PREPARED.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    command = shutil.which("tpchgen-cli", path=str(Path(sys.executable).parent)) or "tpchgen-cli"
    options = ("-s", "1", "--tables", ",".join(_SOURCES), "--output-dir", str(FOLDER), "--overwrite")
    subprocess.run([command, "parquet", *options], check=True)
    unfinished = PREPARED.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with duckdb.connect(str(unfinished)) as warehouse:
        for table, columns in _SOURCES.items():
            warehouse.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM '{_file(table)}'")
        wrong = order_items("true", revenue=WRONG)
        warehouse.execute(f"CREATE TABLE order_items AS {wrong} ORDER BY o_orderdate")
    unfinished.rename(PREPARED)


def verify(database: str, days: int, *, revenue: str = RIGHT) -> None:
    """Check that the live table holds this revenue within the slice, and the old one elsewhere."""
    import duckdb

    with duckdb.connect(database, read_only=True) as warehouse:
        if _digest(warehouse, "order_items") != _expected(days, revenue):
            raise SystemExit(f"{database}: order_items isn't what {days} days of {revenue} make it")


@cache
def _expected(days: int, revenue: str) -> tuple[Any, ...]:
    import duckdb

    inside = between(FIRST_DAY, end_of(days))
    rows = f"{order_items(inside, revenue=revenue)} UNION ALL {order_items(f'NOT ({inside})', revenue=WRONG)}"
    with duckdb.connect(str(PREPARED), read_only=True) as warehouse:
        return _digest(warehouse, f"({rows})")


def _digest(warehouse: duckdb.DuckDBPyConnection, relation: str) -> tuple[Any, ...]:
    ((*found,),) = warehouse.execute(
        f"SELECT count(*), bit_xor(hash({LISTED})), sum(hash({LISTED})) FROM {relation}"
    ).fetchall()
    return tuple(found)


def _file(table: str) -> Path:
    return FOLDER / f"{table}.parquet"


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare()
    else:
        verify(sys.argv[2], int(sys.argv[3]))
