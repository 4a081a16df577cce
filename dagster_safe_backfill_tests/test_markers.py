"""Markers in the columns that `sample_columns` doesn't name, and in secrets: nothing that anybody can read has one.

Each case ends in an error, or in a failed check. Then all that was left behind is searched: every row of Dagster's
storages, every file of the instance (what a step printed is in one), all that was logged at DEBUG, stdout and stderr.
"""

from __future__ import annotations

import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import DAYS, run_key
from dagster_safe_backfill_tests.harness.backends import Backend

TEXT, NUMBER, BORN = 'q7Z O\'Neil "x" q7Z\n\nLINE 1: q7Z', 780511209, date(2178, 5, 11)
SECRET = "hunter7Z"
MARKERS = ("q7Z", "780511209", "2178-05-11", "2178, 5, 11", SECRET)
QUOTED = TEXT.replace("'", "''")
SHOWN = ("day", "id")
_FOREIGN = ("snowflake.", "fakesnow", "sqlglot", "urllib3", "botocore")
"""Loggers of the driver and of the emulator: what they log at DEBUG is theirs."""

Compute = Callable[[sb.PartitionSlice], object]


def rows(key: str, **columns: Any) -> pd.DataFrame:
    """Return two rows of a day, with a marker in each column that isn't shown."""
    first, second = f"{TEXT} 1 {key}", f"{TEXT} 2 {key}"
    return pd.DataFrame(
        {
            "day": [date.fromisoformat(key)] * 2,
            "id": [1, 2],
            "name": [first, second],
            "amount": [NUMBER, NUMBER],
            "born": [BORN, BORN],
            **columns,
        }
    )


@dataclass(frozen=True, kw_only=True)
class Largest(sb.GroupAudit):
    """Repeats what it is given."""

    sql: str

    def aggregates(self) -> Mapping[str, str]:
        return {"it": self.sql}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        raise ValueError(f"what is {shadow.values}?")


@dataclass(frozen=True, kw_only=True)
class Case:
    """An asset whose second day fails.

    Attributes:
        says: What its failure says.
        bad: What the function returns on the second day.
        options: Options of the asset.
        between: Statements after the first day.
        only: The warehouse that has such an error.
        has_before: True if the table exists before, with a first day.
    """

    says: str
    bad: Compute | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    between: Sequence[str] = ()
    only: str | None = None
    has_before: bool = True


def frame(**columns: Any) -> Compute:
    return lambda partitions: rows(partitions.keys[0], **columns)


def query(sql: str) -> Compute:
    return lambda _: sb.Query(sql)


def lazy(partitions: sb.PartitionSlice) -> pl.LazyFrame:
    found = pl.from_pandas(rows(partitions.keys[0])).lazy()
    return found.with_columns(pl.col("name").str.to_integer())


def audited(*audits: Any, **options: Any) -> dict[str, Any]:
    return {"audits": list(audits), **options}


_ROW = f"SELECT DATE '2024-01-02' AS day, 1 AS id, DATE '{BORN}' AS born"
_FAILING = (
    *(sb.unique("amount"), sb.accepted_values("name", ["a"]), sb.in_range("amount", 0, 1)),
    *(sb.expression("amount < 5", name="small"), sb.expression("born < day", name="born")),
    sb.failing_rows("SELECT name AS day, amount AS id FROM batch", name="other_names"),
    sb.failing_rows("SELECT t.day, t.id FROM (SELECT born AS day, amount AS id FROM batch) AS t", name="nested"),
    sb.failing_rows("SELECT day, max(amount) AS id FROM batch GROUP BY day", name="aggregated"),
    sb.compare(max_changed=0, max_added=0),
)
_UNMEASURED = (
    sb.expression("CAST(name AS INTEGER) > 0", name="cast"),
    sb.failing_rows("SELECT * FROM batch WHERE CAST(name AS INTEGER) > 0", name="cast_rows"),
    sb.aggregate_between("sum(CAST(name AS INTEGER))", 0, None, name="cast_sum"),
    sb.failing_rows("SELECT day, id FROM batch UNION ALL SELECT born, amount FROM batch", name="union"),
)
_JUDGED = (Largest(sql="max(name)", name="largest"), Largest(sql="max(amount)", name="raises"))
_NAMED = {"partition_expr": "day", "unique_key": ["name"]}
CASES: Mapping[str, Case] = {
    "text_for_number": Case(says="SchemaMismatchError", bad=frame(amount=[TEXT, TEXT])),
    "fraction": Case(says="SchemaMismatchError", bad=frame(amount=[NUMBER + 0.5] * 2)),
    "mixed": Case(says="SchemaMismatchError", has_before=False, bad=frame(name=[TEXT, NUMBER])),
    "too_long": Case(
        says="SchemaMismatchError", has_before=False, bad=frame(amount=[Decimal(f"{NUMBER}.{'1' * 40}")] * 2)
    ),
    "complex": Case(says="SchemaMismatchError", has_before=False, bad=frame(amount=[complex(NUMBER, 1)] * 2)),
    "fine": Case(says="SchemaMismatchError", has_before=False, bad=frame(amount=[pd.Timedelta(NUMBER, unit="ns")] * 2)),
    "lazy": Case(says="SchemaMismatchError", has_before=False, bad=lazy),
    "outside": Case(
        says="RowsOutsideSliceError", has_before=False, bad=frame(day=[BORN, BORN]), options={"shown": ["id"]}
    ),
    "ties": Case(
        says="KeyViolationError",
        has_before=False,
        bad=lambda partitions: pd.concat([rows(partitions.keys[0])] * 2),
        options={"unique_key": ["day", "name"], "table": sb.TableOptions(on_duplicate=sb.keep_latest("amount"))},
    ),
    "repeated": Case(
        says="AuditFailedError",
        has_before=False,
        bad=frame(name=[TEXT, TEXT]),
        options={"unique_key": ["day", "name"], "audits": [sb.unique()]},
    ),
    "moved": Case(says="AuditFailedError", bad=frame(name=[f"{TEXT} 1 2024-01-01", "b"]), options=_NAMED),
    "moved_from_nowhere": Case(
        says="KeyViolationError",
        bad=frame(name=[f"{TEXT} 1 2024-01-01", "b"]),
        options={**_NAMED, "publish": sb.Merge(on_moved_key="move"), "audits": []},
        between=["UPDATE {table} SET day = DATE '1999-01-01'"],
    ),
    "failing": Case(says="AuditFailedError", has_before=False, options=audited(*_FAILING)),
    "unmeasured": Case(says="not measured", has_before=False, options=audited(*_UNMEASURED), only="duckdb"),
    "judged": Case(says="not measured", has_before=False, options=audited(*_JUDGED)),
    "cast": Case(says="WarehouseError", bad=query(f"{_ROW}, 'a' AS name, CAST('{QUOTED}' AS BIGINT) AS amount")),
    "two_statements": Case(says="ConfigurationError", has_before=False, bad=query(f"{_ROW}; SELECT '{QUOTED}'")),
    "syntax": Case(
        says="WarehouseError",
        only="duckdb",
        has_before=False,
        bad=query(f"{_ROW}, '{QUOTED}' AS name FROM FROM '{QUOTED}'"),
    ),
    "raised_in_sql": Case(
        says="WarehouseError",
        bad=query(f"{_ROW}, 1 AS amount, error('{QUOTED}') AS name"),
        only="duckdb",
    ),
    "json": Case(
        says="WarehouseError",
        has_before=False,
        bad=query(f"{_ROW}, 1 AS amount, CAST(CAST('{QUOTED}' AS JSON) AS VARCHAR) AS name"),
        only="duckdb",
    ),
    "index": Case(
        says="WarehouseError",
        between=["CREATE UNIQUE INDEX one ON {table}(born, id)"],
        only="duckdb",
    ),
    "changed_meanwhile": Case(says="PublishConflictError", options={"meanwhile": True}),
    "secret": Case(
        says="Error",
        only="duckdb",
        has_before=False,
        bad=query(f"SELECT * FROM nosuch('postgres://me:{SECRET}@h/d', password='{SECRET}')"),
    ),
    "secrets": Case(
        says="Error",
        has_before=False,
        bad=query(f"CREATE SECRET s (TYPE s3, KEY_ID '{SECRET}', SECRET '{SECRET}', REGION 'x')"),
    ),
    "secret_shown": Case(
        says="Error",
        only="duckdb",
        has_before=False,
        bad=query(f"SELECT * FROM nosuch(api_key => '{SECRET}', 'host=h password={SECRET}')"),
        options={"shown": None, "markers": "none"},
    ),
    "secret_in_audit": Case(
        says="AuditFailedError",
        has_before=False,
        options={
            "audits": [sb.failing_rows(f"SELECT day, id FROM batch WHERE name <> 'token={SECRET}'", name="hidden")]
        },
    ),
}


def asset_of(name: str, case: Case, backend: Backend, shown: Sequence[str] | None) -> dg.AssetsDefinition:
    options = dict(case.options)
    meanwhile = options.pop("meanwhile", False)
    shown = options.pop("shown", SHOWN) if shown is not None else None
    has_markers = options.pop("markers", None) is None
    given: dict[str, Any] = {"partition_expr": "day", "unique_key": ["day", "id"], **options}

    @sb.wap_asset(name=name, partitions_def=DAYS, checks=sb.Checks(sample_columns=shown), code_version="1", **given)
    def computed(partitions: sb.PartitionSlice) -> object:
        key = partitions.keys[0]
        if key == "2024-01-01":
            return rows(key) if has_markers else rows(key, name="a", amount=1, born=date(2000, 1, 1))
        if meanwhile:
            backend.change(f"UPDATE {name} SET day = DATE '2024-01-02', amount = 1")
        return rows(key) if case.bad is None else case.bad(partitions)

    return computed


@dataclass
class Places:
    """All that can be read afterwards."""

    folder: Path
    records: list[str] = field(default_factory=list[str])
    streams: list[str] = field(default_factory=list[str])

    def texts(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.suffix == ".db":
                yield from _rows_of(path)
            elif path.is_file():
                yield path.name, path.read_bytes().decode("utf-8", "replace")
        for number, text in enumerate((*self.records, *self.streams)):
            yield f"log {number}", text

    def searched(self) -> tuple[int, list[str]]:
        """Return the number of places, and what was found in them."""
        count, found = 0, list[str]()
        for place, text in self.texts():
            count += 1
            plain = text.replace("_", "").replace(",", "")
            for marker in MARKERS:
                for one in (text, plain):
                    at = one.find(marker)
                    if at >= 0:
                        found.append(f"{place}: …{one[max(0, at - 400) : at + 60]}…")
                        break
        return count, found


def _rows_of(path: Path) -> Iterator[tuple[str, str]]:
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield f"{path.name} {table}", "\n".join(map(str, row))


class _Kept(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_FOREIGN):
            return
        error = "" if record.exc_info is None else "".join(traceback.format_exception(*record.exc_info))
        self._kept.append(f"{record.name}: {record.getMessage()}\n{error}")


@pytest.fixture
def places(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Places]:
    found = Places(folder=tmp_path / "instance")
    found.folder.mkdir()
    handler, root = _Kept(found.records), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("dagster_safe_backfill.sql").setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.getLogger("dagster_safe_backfill.sql").setLevel(logging.NOTSET)


def told(result: dg.ExecuteInProcessResult) -> str:
    """Return all that a run's failures and checks say."""
    said = [f"{check.description}" for check in result.get_asset_check_evaluations()]
    for event in result.all_events:
        if event.is_step_failure:
            said.append(event.step_failure_data.error.to_string())  # pyright: ignore[reportOptionalMemberAccess]
    return "\n".join(said)


def run(
    case: Case, name: str, backend: Backend, instance: dg.DagsterInstance, shown: Sequence[str] | None
) -> Iterator[str]:
    """Run both days, and yield what didn't come as the case says."""
    asset = asset_of(name, case, backend, shown)
    if case.has_before:
        first = run_key([asset], "2024-01-01", io_manager=backend.io_manager, instance=instance)
        if not first.success:
            yield f"{name}, first day: {told(first)}"
    backend.change(*(statement.format(table=name) for statement in case.between))
    second = run_key([asset], "2024-01-02", io_manager=backend.io_manager, instance=instance)
    if second.success or case.says not in told(second):
        yield f"{name} doesn't say {case.says}: {told(second)}"


@pytest.mark.every_warehouse
def test_no_marker_is_left_anywhere(backend: Backend, places: Places, capfd: pytest.CaptureFixture[str]) -> None:
    name = "duckdb" if type(backend).__name__.startswith("DuckDB") else "snowflake"
    cases = {key: case for key, case in CASES.items() if case.only in (None, name)}
    with dg.DagsterInstance.local_temp(str(places.folder)) as instance:
        others = [one for key, case in cases.items() for one in run(case, f"case_{key}", backend, instance, SHOWN)]
    places.streams += capfd.readouterr()
    count, found = places.searched()
    with capfd.disabled():
        print(f"\n{name}: {count:,} places searched, after {len(cases)} cases")  # noqa: T201 - it is what the test reports
    assert others == []
    assert not found, f"{len(found)} of {count} places: " + "\n".join(found)
    assert count > 20 * len(cases)


def test_the_search_finds_them_where_all_columns_are_shown(
    backend: Backend, places: Places, capfd: pytest.CaptureFixture[str]
) -> None:
    for key in ("fraction", "failing", "cast"):
        before = len(places.records)
        with dg.DagsterInstance.local_temp(str(places.folder)) as instance:
            assert not [*run(CASES[key], f"case_{key}", backend, instance, None)]
        _, found = places.searched()
        assert found, key
        assert len(places.records) > before
