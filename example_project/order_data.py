"""Three months of a shop's orders, made up by SQL inside DuckDB: the same rows on every machine.

Every number is drawn from the MD5 of a seed and of what it belongs to. DuckDB's own `hash` may change with its version,
and `random` depends on the order of the threads.

Two traps are in the costs on purpose. Two windows of one SKU overlap: a join by the window doubles its orders of those
days. Between two windows of another there is a gap: its orders of those days find no cost. `costs(mended=True)` has
neither.
"""

from datetime import date

import dagster_safe_backfill as sb

FIRST_DAY, END_DAY = date(2024, 1, 1), date(2024, 4, 1)
"""The days of the orders, half-open."""

OVERLAPPING_SKU, OVERLAP = "SKU-07", (date(2024, 2, 8), date(2024, 2, 12))
"""The SKU that has two costs, and its days, half-open."""
GAPPY_SKU, GAP = "SKU-23", (date(2024, 3, 10), date(2024, 3, 14))
"""The SKU that has no cost, and its days, half-open."""

_SEED = 2024
_SKUS = 40
_FEWEST_ORDERS, _MOST_ORDERS = 180, 220
"""Of a day. Orders take the SKUs in turn, so each day sells each of them."""


def order_items() -> sb.Query:
    """Return the items of the orders: one to three of an order, all of its SKU, at the SKU's price."""
    return sb.Query(f"""
        WITH days AS (SELECT CAST(d AS INTEGER) AS d FROM range({(END_DAY - FIRST_DAY).days}) AS days (d)),
        orders AS (
            SELECT 1000 * (d + 1) + n AS order_id, {sql_day(FIRST_DAY)} + d AS order_date, n % {_SKUS} AS s
            FROM days, range({_MOST_ORDERS}) AS orders (n)
            WHERE n < {_FEWEST_ORDERS} + {drawn("orders", "d", below=_MOST_ORDERS - _FEWEST_ORDERS + 1)}
        )
        SELECT order_id, item_id, order_date, {_sku("s")} AS sku,
               1 + {drawn("quantity", "order_id", "item_id", below=4)} AS quantity, {_price("s")} AS price
        FROM orders, range(1, 4) AS items (item_id)
        WHERE item_id <= 1 + {drawn("items", "order_id", below=3)}
    """)


def orders() -> sb.Query:
    """Return the orders: the sums of their items, less a discount of 0, 5 or 10 %."""
    discount = f"5 * {drawn('discount', 'order_id', below=3)}"
    return sb.Query(f"""
        SELECT order_id, order_date, sku, CAST(sum(quantity) AS INTEGER) AS quantity,
               CAST(sum(quantity * price) * CAST(1 - {discount} / 100 AS DECIMAL(3, 2)) AS DECIMAL(12, 2)) AS revenue
        FROM ({order_items().sql})
        GROUP BY order_id, order_date, sku
    """)


def costs(*, mended: bool) -> sb.Query:
    """Return the unit costs of each SKU: three windows, `effective_from <= day < effective_to`, the last one open.

    Args:
        mended: Whether each window ends where the next begins; else two of them don't.
    """
    second_change = f"""
        CASE {_sku("s")}
            WHEN '{OVERLAPPING_SKU}' THEN {sql_day(OVERLAP[0])}
            WHEN '{GAPPY_SKU}' THEN {sql_day(GAP[1])}
            ELSE {sql_day(date(2024, 2, 5))} + {drawn("second change", "s", below=40)}
        END"""
    return sb.Query(f"""
        WITH starts AS (
            SELECT s, k, CASE k
                WHEN 0 THEN {sql_day(date(2023, 12, 1))}
                WHEN 1 THEN {sql_day(date(2024, 1, 5))} + {drawn("first change", "s", below=25)}
                ELSE {second_change}
            END AS effective_from
            FROM range({_SKUS}) AS skus (s), range(3) AS windows (k)
        ),
        windows AS (
            SELECT s, k, effective_from,
                   lead(effective_from) OVER (PARTITION BY s ORDER BY effective_from) AS effective_to
            FROM starts
        )
        SELECT {_sku("s")} AS sku,
               CAST({_price("s")} * (45 + {drawn("cost", "s", "k", below=30)}) * 0.01 AS DECIMAL(8, 2)) AS unit_cost,
               effective_from, {"effective_to" if mended else _spoiled_end()} AS effective_to
        FROM windows
    """)


def _spoiled_end() -> str:
    overlap, gap = ((end - start).days for start, end in (OVERLAP, GAP))
    return f"""
        CASE
            WHEN {_sku("s")} = '{OVERLAPPING_SKU}' AND k = 1 THEN effective_to + {overlap}
            WHEN {_sku("s")} = '{GAPPY_SKU}' AND k = 1 THEN effective_to - {gap}
            ELSE effective_to
        END"""


def _sku(number: str) -> str:
    return f"printf('SKU-%02d', {number})"


def _price(number: str) -> str:
    return f"CAST(5 + 0.01 * {drawn('price', number, below=4_500)} AS DECIMAL(8, 2))"


def drawn(what: str, *of: str, below: int) -> str:
    """Return SQL for a whole number from 0 to before `below`, drawn once for each value of the columns `of`."""
    return f"CAST(md5_number_lower(concat_ws('/', {_SEED}, '{what}', {', '.join(of)})) % {below} AS INTEGER)"


def sql_day(day: date) -> str:
    """Return SQL for a day."""
    return f"DATE '{day}'"
