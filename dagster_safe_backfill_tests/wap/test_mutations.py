"""A correct batch of orders, and the ways to spoil it: each is caught by the audit that the table states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.states import Audited, Origin, Rejected
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.runs.partitions import slice_of_keys
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill.warehouses.base import Warehouse
from dagster_safe_backfill_tests.conftest import Read

BEGIN = date(2024, 3, 1)
FIRST, LAST = 3, 9
"""The numbers of the slice's days, counted from BEGIN; live also has days before and after."""
EVERY = range(LAST - FIRST + 1)
KEYS = [str(BEGIN + timedelta(days=FIRST + day)) for day in EVERY]
SLICE = slice_of_keys(dg.DailyPartitionsDefinition(start_date=str(BEGIN)), KEYS)
LIVE = "SELECT rowid, * FROM orders ORDER BY rowid"

COUNTRIES = {"DE": "Germany", "FR": "France", "NL": "Netherlands", "PL": "Poland", "SE": "Sweden"}
STATUSES = ["placed", "shipped", "delivered", "delivered", "delivered"]
SCHEMA = pa.schema(
    {
        "order_id": pa.int64(),
        "line": pa.int32(),
        "ordered_at": pa.timestamp("us"),
        "day": pa.date32(),
        "customer": pa.string(),
        "country": pa.string(),
        "sku": pa.string(),
        "quantity": pa.int32(),
        "price": pa.float64(),
        "cost": pa.decimal128(10, 2),
        "discount": pa.float64(),
        "status": pa.string(),
        "note": pa.string(),
        "tracking": pa.string(),
        "delivered_at": pa.timestamp("us"),
    }
)


def ordered(order: int, line: int) -> dict[str, Any]:
    """Return a line of the order with this number; a day has ten, the first at 00:30 and the last at 23:27."""
    day, of_day = divmod(order, 10)
    ordered_at = datetime.combine(BEGIN, datetime.min.time()) + timedelta(days=day, minutes=30 + 153 * of_day)
    customer, product, status = order * 7 % 40, (order * 5 + line * 4) % 12, STATUSES[order % 5]
    return {
        "order_id": 1000 + order,
        "line": line,
        "ordered_at": ordered_at,
        "day": ordered_at.date(),
        "customer": f"C{customer:03}",
        "country": list(COUNTRIES)[customer % 5],
        "sku": f"S{product:02}",
        "quantity": 1 + (order * 2 + line * 3) % 5,
        "price": round(4.99 + 2.5 * product, 2),
        "cost": (Decimal("4.99") + Decimal("2.5") * product).quantize(Decimal(1)) * Decimal("0.61"),
        "discount": [0.0, 0.2, None][line - 1],
        "status": status,
        "note": None if (order + line) % 4 == 0 else f"Café on the corner, ring twice for C{customer:03}",
        "tracking": None if status == "placed" else f"T{1000 + order}-{line}",
        "delivered_at": ordered_at + timedelta(days=2) if status == "delivered" else None,
    }


def as_live_has_it(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as it was when live was written: the last order of a day was still on its way."""
    is_late = row["order_id"] % 10 == 9
    return {**row, "status": "shipped", "delivered_at": None} if is_late else {**row}


EVER = [ordered(order, line) for order in range(120) for line in (1, 2, 3)]
CORRECT = pa.Table.from_pylist([row for row in EVER if str(row["day"]) in KEYS], SCHEMA)
# A line that came late isn't live, and one that was cancelled still is.
OLD = [as_live_has_it(row) for row in EVER if (row["order_id"], row["line"]) != (1059, 3)]
CANCELLED = {**ordered(70, 1), "line": 4, "tracking": None}
# Two products are new in the slice, and one has a second entry since then.
MIDDLE = BEGIN + timedelta(days=FIRST + 3)
PRODUCTS = [{"sku": f"S{n:02}", "since": MIDDLE if n in (7, 8) else BEGIN} for n in range(12)]
TABLES = {
    "source": CORRECT,
    "orders": pa.Table.from_pylist([*OLD, CANCELLED], SCHEMA),
    "products": pa.Table.from_pylist([*PRODUCTS, {"sku": "S03", "since": MIDDLE}]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLines(sb.GroupAudit):
    """Every order has a first line."""

    def aggregates(self) -> Mapping[str, str]:
        return {"orders": "count(DISTINCT order_id)", "first": "count(DISTINCT order_id) FILTER (WHERE line = 1)"}

    def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
        is_whole = shadow.values["orders"] == shadow.values["first"]
        return sb.Verdict(outcome="passed" if is_whole else "failed", measured=shadow.values)


COLUMN_TYPES = sb.column_types(
    {"order_id": "BIGINT", "ordered_at": "TIMESTAMP", "day": "DATE", "quantity": "INTEGER", "price": "DOUBLE"}
)
NOT_UNDONE = """
    SELECT batch.* FROM batch JOIN live USING (order_id, line)
    WHERE batch.delivered_at IS NULL AND live.delivered_at IS NOT NULL
"""
AUDITS: list[sb.Audit] = [
    sb.unique(),
    sb.unique("tracking"),
    sb.not_null("customer", "quantity", "price", "status", name="not_null"),
    sb.not_null("note", max_failures=0.4, name="note_given"),
    sb.accepted_values("country", list(COUNTRIES)),
    sb.accepted_values("status", ["placed", "shipped", "delivered"]),
    sb.in_range("quantity", 1, 20),
    sb.in_range("discount", 0.0, 0.5),
    sb.in_range("delivered_at", None, date(2024, 4, 1)),
    sb.expression("cost < price", name="cost_below_price"),
    sb.expression("delivered_at >= ordered_at", name="delivered_later"),
    sb.expression("trim(note) <> ''", name="note_not_blank"),
    sb.references("sku", table="products"),
    sb.failing_rows("SELECT * FROM batch WHERE day <> CAST(ordered_at AS DATE)", name="day_of_order"),
    sb.failing_rows(NOT_UNDONE, name="no_delivery_undone"),
    COLUMN_TYPES,
    sb.row_count_between(25, 35),
    sb.row_count_between(205, 215, over="run"),
    sb.row_count_drift(max_change=0.05),
    sb.aggregate_between("sum(cost) / sum(price)", 0.5, 0.7, name="margin"),
    sb.aggregate_between("count(DISTINCT country)", 5, over="run", name="run_countries"),
    sb.aggregate_drift("quantity", "total", max_change=0.1),
    sb.aggregate_drift("customer", "distinct", max_change=0.1),
    sb.aggregate_drift("price", "median", max_change=0.1),
    sb.aggregate_drift("price", 0.95, max_change=0.1),
    sb.aggregate_drift("discount", "mean", absolute=True, max_change=0.01),
    sb.aggregate_drift("length(note)", "total", max_change=0.1, name="note_lengths"),
    sb.aggregate_drift("price * quantity", "total", over="run", max_change=0.01, name="run_revenue"),
    FirstLines(name="first_lines"),
    sb.compare(max_added=2, max_removed=2, name="rows_kept"),
    sb.compare(
        max_changed=0.2,
        max_changed_by_column=dict.fromkeys(["ordered_at", "quantity", "price", "cost", "note"], 0),
        relative_tolerance=1e-9,
        name="values_kept",
    ),
]

Choice = Callable[[Any], Any]
"""From a pandas frame to which of its rows are meant. Pandas' own types would be in the way here."""
New = Callable[[Any], Any] | str | float | Decimal | date | None
"""What a column becomes: a constant, or a function of all rows."""
Spoil = Callable[[Any], object]
"""From the correct batch, as a pandas frame, to a frame or a query."""


@dataclass(frozen=True)
class Mutation:
    """How a batch is spoiled, the audit that must catch it, and the days of the slice in which."""

    name: str
    audit: str
    days: Sequence[int]
    spoil: Spoil


def of(*days: int) -> Choice:
    """Choose the rows of some days of the slice."""
    return lambda r: r.day.isin([BEGIN + timedelta(days=FIRST + day) for day in days])


def first(day: int) -> Choice:
    """Choose the first row of a day."""
    return lambda r: of(day)(r) & ~r.duplicated("day")


def changed(which: Choice, **values: New) -> Spoil:
    """Give some rows other values."""
    return lambda r: r.assign(
        **{name: r[name].mask(which(r), new(r) if callable(new) else new) for name, new in values.items()}
    )


def everywhere(**values: New) -> Spoil:
    """Give all rows other values."""
    return lambda r: r.assign(**values)


def twice(which: Choice) -> Spoil:
    return lambda r: r.loc[r.index.repeat(1 + which(r))].reset_index(drop=True)


def without(which: Choice) -> Spoil:
    return lambda r: r[~which(r)]


def later(hours: int) -> Choice:
    return lambda r: r.ordered_at + pd.Timedelta(hours=hours)


def query(sql: str) -> Spoil:
    return lambda r: sb.Query(sql)


def retyped(name: str, kind: pa.DataType) -> Spoil:
    return lambda r: CORRECT.set_column(CORRECT.schema.get_field_index(name), name, CORRECT[name].cast(kind))


def nan_for_null(r: Any) -> pa.Table:
    # pandas would make NULLs of them.
    given = [math.nan if value is None else value for value in CORRECT["discount"].to_pylist()]
    return CORRECT.set_column(CORRECT.schema.get_field_index("discount"), "discount", pa.array(given))


def over_midnight(r: Any) -> Any:
    """Move the last order of a day into the next, and let it be of that day."""
    moved: Any = changed(of(1), ordered_at=later(1))(r)
    return moved.assign(day=moved.ordered_at.dt.date)


def copied(r: Any) -> Any:
    """Add the rows of a day to another, as orders of their own."""
    both: Any = twice(of(2))(r)
    is_copy = both.duplicated(["order_id", "line"])
    then = both.ordered_at + pd.Timedelta(days=2)
    moved = {"ordered_at": then, "day": then.dt.date, "order_id": both.order_id + 5000, "tracking": None}
    return changed(lambda _: is_copy, **moved)(both)


def values_of_yesterday(r: Any) -> Any:
    values = ["customer", "country", "sku", "quantity", "price", "cost", "note"]
    return changed(of(4), **r[values].shift(30, fill_value=0))(r)


def swapped(at: Any) -> Any:
    return at.replace(month=at.day, day=at.month)


def misread(text: str | None) -> str | None:
    return None if text is None else text.encode().decode("latin-1")


MUTATIONS = [
    # Keys
    Mutation("a row twice", "unique_key", [2], twice(first(2))),
    Mutation("every row twice", "unique_key", EVERY, twice(of(*EVERY))),
    Mutation(
        "a join that fans out", "unique_key", EVERY, query("SELECT s.* FROM source AS s JOIN products USING (sku)")
    ),
    Mutation("a key is NULL", "unique_key", [3], changed(first(3), order_id=None)),
    Mutation("keys of days before the slice", "unique_key", [0], changed(of(0), order_id=lambda r: r.order_id - 10)),
    Mutation("a parcel of a day before the slice", "unique_tracking", [6], changed(first(6), tracking="T1021-1")),
    Mutation("parcels filled downwards", "unique_tracking", EVERY, everywhere(tracking=lambda r: r.tracking.ffill())),
    # Rows
    Mutation("a customer is NULL", "not_null", [4], changed(first(4), customer=None)),
    Mutation("pandas' NaN, which is NULL", "not_null", [5], changed(of(5), price=math.nan)),
    Mutation("more NULLs than usual", "note_given", [6], changed(lambda r: of(6)(r) & (r.line < 3), note=None)),
    Mutation("lower case", "accepted_values_country", [1], changed(of(1), country=lambda r: r.country.str.lower())),
    Mutation("a space behind", "accepted_values_country", [4], changed(first(4), country=lambda r: r.country + " ")),
    Mutation(
        "names, not codes", "accepted_values_country", EVERY, everywhere(country=lambda r: r.country.map(COUNTRIES))
    ),
    Mutation("an unknown status", "accepted_values_status", [0], changed(first(0), status="returned")),
    Mutation("a sign flipped", "in_range_quantity", [3], changed(first(3), quantity=lambda r: -r.quantity)),
    Mutation("NaN for NULL", "in_range_discount", EVERY, nan_for_null),
    Mutation("percents for shares", "in_range_discount", EVERY, everywhere(discount=lambda r: r.discount * 100)),
    Mutation("in 200 years", "in_range_delivered_at", [2], changed(first(2), delivered_at=pd.Timestamp(2224, 3, 8))),
    Mutation(
        "day and month swapped",
        "in_range_delivered_at",
        EVERY,
        everywhere(delivered_at=lambda r: r.delivered_at.map(swapped, na_action="ignore")),
    ),
    Mutation(
        "columns swapped", "cost_below_price", EVERY, lambda r: r.rename(columns={"price": "cost", "cost": "price"})
    ),
    Mutation(
        "1970 for NULL",
        "delivered_later",
        EVERY,
        everywhere(delivered_at=lambda r: r.delivered_at.fillna(pd.Timestamp(0))),
    ),
    Mutation("empty text for NULL", "note_not_blank", EVERY, everywhere(note=lambda r: r.note.fillna(""))),
    Mutation("an unknown product", "references_sku_products", [2], changed(first(2), sku="S99")),
    Mutation("zeros lost", "references_sku_products", EVERY, everywhere(sku=lambda r: r.sku.str.replace("S0", "S"))),
    Mutation("days of another zone", "day_of_order", EVERY, everywhere(day=lambda r: later(9)(r).dt.date)),
    Mutation("a day an hour later, over midnight", "day_of_order", [2], changed(of(1), ordered_at=later(1))),
    Mutation("deliveries forgotten", "no_delivery_undone", [5], changed(of(5), delivered_at=None)),
    # Numbers of rows
    Mutation("the first day dropped", "row_count_between", [0], without(of(0))),
    Mutation("the last day dropped", "row_count_between", [6], without(of(6))),
    Mutation("a day dropped between", "row_count_between", [3], without(of(3))),
    Mutation(
        "up to the last midnight",
        "row_count_between",
        [6],
        query(f"SELECT * FROM source WHERE ordered_at BETWEEN '{KEYS[0]}' AND '{KEYS[-1]}'"),
    ),
    Mutation(
        "the first page", "row_count_between", [3, 4, 5, 6], query("SELECT * FROM source ORDER BY order_id LIMIT 100")
    ),
    Mutation("a day copied to another", "row_count_between", [4], copied),
    Mutation("every row on one day", "row_count_between", EVERY, everywhere(ordered_at=pd.Timestamp(KEYS[0]))),
    Mutation(
        "the last row of each day dropped",
        "run_row_count_between",
        EVERY,
        lambda r: r[r.duplicated("day", keep="last")],
    ),
    Mutation("an order dropped", "row_count_drift", [5], without(lambda r: r.order_id == 1085)),
    Mutation("an hour over midnight, and the day with it", "row_count_drift", [1, 2], over_midnight),
    Mutation("a filter that drops NULLs", "row_count_drift", EVERY, query("SELECT * FROM source WHERE note <> 'x'")),
    Mutation(
        "a join that loses rows",
        "row_count_drift",
        [0, 1, 2],
        query("SELECT * FROM source AS s SEMI JOIN products AS p ON p.sku = s.sku AND p.since <= s.day"),
    ),
    # Aggregates
    Mutation("nothing costs anything", "margin", [3], changed(of(3), cost=Decimal(0))),
    Mutation("a constant column", "run_countries", EVERY, everywhere(country="DE")),
    Mutation("a day doubled", "total_drift_quantity", [6], changed(of(6), quantity=lambda r: r.quantity * 2)),
    Mutation("ids cut short", "distinct_drift_customer", EVERY, everywhere(customer=lambda r: r.customer.str[:2])),
    Mutation("one customer's day", "distinct_drift_customer", [1], changed(of(1), customer="C007")),
    Mutation("cents for units", "median_drift_price", [4], changed(of(4), price=lambda r: r.price * 100)),
    Mutation("another currency", "median_drift_price", [1, 2], changed(of(1, 2), price=lambda r: r.price * 1.15)),
    Mutation("prices capped", "p95_drift_price", [2], changed(of(2), price=lambda r: r.price.clip(upper=25))),
    Mutation("0 for unknown", "mean_drift_discount", EVERY, everywhere(discount=lambda r: r.discount.fillna(0))),
    Mutation("text cut short", "note_lengths", EVERY, everywhere(note=lambda r: r.note.str[:5])),
    Mutation("2 % everywhere", "run_revenue", EVERY, everywhere(price=lambda r: r.price * 1.02)),
    Mutation("one first line dropped", "first_lines", [1], without(first(1))),
    # Row by row
    Mutation("new ids for an order", "rows_kept", [2], changed(lambda r: r.order_id == 1050, order_id=6000)),
    Mutation("lines counted from 0", "rows_kept", EVERY, everywhere(line=lambda r: r.line - 1)),
    Mutation("one quantity doubled", "values_kept", [3], changed(first(3), quantity=lambda r: r.quantity * 2)),
    Mutation("keys backwards", "values_kept", [5], changed(of(5), order_id=lambda r: 2 * 1080 + 9 - r.order_id)),
    Mutation("decimals rounded", "values_kept", EVERY, everywhere(cost=lambda r: r.cost.map(round))),
    Mutation("floats rounded", "values_kept", EVERY, everywhere(price=lambda r: r.price.round(1))),
    Mutation("hours only", "values_kept", [1], changed(of(1), ordered_at=lambda r: r.ordered_at.dt.floor("h"))),
    Mutation("text read in another encoding", "values_kept", EVERY, everywhere(note=lambda r: r.note.map(misread))),
    Mutation("yesterday's values again", "values_kept", [4], values_of_yesterday),
]
UPSETTING = ["a key is NULL", "NaN for NULL", "every row on one day"]
"""Mutations that leave other audits without an answer, or have many fail."""
# Into a new table, as the columns of one that exists keep their types.
IN_UTC = everywhere(ordered_at=lambda r: r.ordered_at.dt.tz_localize("UTC"))
RETYPED = [
    Mutation("numbers as text", "column_types", EVERY, retyped("order_id", pa.string())),
    Mutation("integers as floats", "column_types", EVERY, retyped("quantity", pa.float64())),
    Mutation("floats of half the size", "column_types", EVERY, retyped("price", pa.float32())),
    Mutation("days as times", "column_types", EVERY, retyped("day", pa.timestamp("us"))),
    Mutation("times in a zone", "column_types", EVERY, IN_UTC),
    Mutation("a column missing", "column_types", EVERY, lambda r: r.drop(columns="price")),
]
REFUSED: dict[str, tuple[type[sb.SafeBackfillError], Spoil]] = {
    "an hour later": (sb.RowsOutsideSliceError, everywhere(ordered_at=later(1))),
    "an hour earlier": (sb.RowsOutsideSliceError, everywhere(ordered_at=later(-1))),
    "a time is NULL": (sb.RowsOutsideSliceError, changed(first(3), ordered_at=None)),
    "days around the slice": (sb.RowsOutsideSliceError, query("SELECT * FROM orders")),
    "no rows": (sb.EmptyFrameError, lambda r: r[:0]),
    "no columns": (sb.EmptyFrameError, lambda r: pd.DataFrame()),
    "a column missing": (sb.SchemaMismatchError, lambda r: r.drop(columns="note")),
    "a column renamed": (sb.SchemaMismatchError, lambda r: r.rename(columns={"note": "notes"})),
    "a column more": (sb.SchemaMismatchError, everywhere(margin=0.3)),
    "a column twice": (sb.SchemaMismatchError, everywhere(NOTE="")),
    "numbers as text": (sb.SchemaMismatchError, retyped("quantity", pa.string())),
    "times as text": (sb.SchemaMismatchError, retyped("ordered_at", pa.string())),
    "times as numbers": (sb.SchemaMismatchError, retyped("ordered_at", pa.int64())),
    "times in a zone": (sb.SchemaMismatchError, IN_UTC),
    "half a piece": (sb.SchemaMismatchError, everywhere(quantity=lambda r: r.quantity / 2)),
    "too many pieces": (sb.SchemaMismatchError, everywhere(quantity=2**40)),
    "parts of a cent": (sb.SchemaMismatchError, everywhere(cost=Decimal("1.005"))),
}
HARMLESS: dict[str, Spoil] = {
    "as it is": lambda r: r,
    "a query": query("SELECT * FROM source"),
    "other orders and capitals": lambda r: r.loc[::-1, r.columns[::-1]].rename(columns=str.upper),
    "negative zeros": changed(lambda r: r.discount == 0, discount=-0.0),
    "noise of floats": everywhere(price=lambda r: r.price * (1 + 1e-12), quantity=lambda r: r.quantity.astype(float)),
}

Judge = Callable[..., Audited | Rejected]


@pytest.fixture
def judge(warehouse: Warehouse) -> Iterator[Judge]:
    """Fill the warehouse, and yield what stages a spoiled batch there and audits it, in a session that stays open."""
    origin = Origin(run_id="run", publication_id="publication")
    with warehouse.connect() as connection:

        def judged(spoil: Spoil, audits: Sequence[sb.Audit], *, table: str = "orders") -> Audited | Rejected:
            spec = TableSpec(
                table=TableRef(schema="main", name=table),
                partition_expr={None: "ordered_at"},
                unique_key=("order_id", "line"),
            )
            batch = spoil(cast("Any", CORRECT).to_pandas())
            staged = write(connection, batch, spec=spec, partition_slice=SLICE, origin=origin)
            return audit(connection, staged, audits, origin=origin, gate="run")

        with connection.transaction():
            for name, rows in TABLES.items():
                with connection.load(rows) as source:
                    select = exp.select("*").from_(source)
                    connection.tables.create(TableRef(schema="main", name=name), select, kind="live")
        yield judged


def check_caught(found: Audited | Rejected, mutation: Mutation) -> None:
    """Assert that the stated audit, and so the batch, failed in just the stated days."""
    assert isinstance(found, Rejected)
    (result,) = (result for result in found.results if result.audit.name == mutation.audit)
    outcomes = {key: verdict.outcome for key, verdict in result.verdicts.items()}
    assert outcomes == {key: "failed" if day in mutation.days else "passed" for day, key in enumerate(KEYS)}


def name_of(mutation: Mutation) -> str:
    return mutation.name


@pytest.mark.parametrize("mutation", MUTATIONS, ids=name_of)
def test_the_stated_audit_alone_catches_it(mutation: Mutation, judge: Judge, read: Read) -> None:
    before = read(LIVE)
    stated = [one for one in AUDITS if one.name == mutation.audit]
    check_caught(judge(mutation.spoil, stated), mutation)
    assert read(LIVE) == before


@pytest.mark.parametrize("mutation", [one for one in MUTATIONS if one.name in UPSETTING], ids=name_of)
def test_among_all_audits_the_stated_one_still_catches_it(mutation: Mutation, judge: Judge) -> None:
    check_caught(judge(mutation.spoil, AUDITS), mutation)


@pytest.mark.parametrize("mutation", RETYPED, ids=name_of)
def test_another_type_in_a_new_table_is_caught(mutation: Mutation, judge: Judge, read: Read) -> None:
    check_caught(judge(mutation.spoil, [COLUMN_TYPES], table="fresh"), mutation)
    assert read("SELECT table_name FROM duckdb_tables() WHERE table_name = 'fresh'") == []


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_not_even_written(name: str, judge: Judge, read: Read) -> None:
    before = read(LIVE)
    error, spoil = REFUSED[name]
    with pytest.raises(error):
        judge(spoil, [])
    assert read(LIVE) == before
    assert read("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%shadow%'") == []


@pytest.mark.parametrize("name", HARMLESS)
def test_a_correct_batch_passes_every_audit(name: str, judge: Judge, read: Read) -> None:
    before = read(LIVE)
    found = judge(HARMLESS[name], AUDITS)
    assert isinstance(found, Audited)
    assert [result for result in found.results if not result.passed] == []
    assert read(LIVE) == before


def test_a_correct_batch_passes_in_a_new_table(judge: Judge) -> None:
    assert isinstance(judge(HARMLESS["as it is"], [COLUMN_TYPES], table="fresh"), Audited)


def test_no_audit_is_idle() -> None:
    assert {mutation.audit for mutation in [*MUTATIONS, *RETYPED]} == {one.name for one in AUDITS}
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 40
