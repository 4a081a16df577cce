"""Seven days of a web site's events, made up by SQL inside DuckDB: the same rows on every machine.

Some sessions go on over midnight, on purpose: who computes a session's length from the events of one day gets two
lengths of such a session, both too short.
"""

from datetime import date

import dagster_safe_backfill as sb
from example_project.order_data import drawn, sql_day

FIRST_DAY, END_DAY = date(2024, 5, 1), date(2024, 5, 8)
"""The days of the events, half-open."""

_SESSIONS = 400
"""Of a day."""
_MOST_EVENTS = 15
_LONGEST_GAP = 180
"""Seconds between two events of a session."""


def events() -> sb.Query:
    """Return the events as they came in: which user did what in which session, and when."""
    gap = f"CASE WHEN k = 1 THEN 0 ELSE 1 + {drawn('gap', 'session_id', 'k', below=_LONGEST_GAP)} END"
    started = f"CAST({sql_day(FIRST_DAY)} + d AS TIMESTAMP) + to_seconds({drawn('start', 'd', 'n', below=86_400)})"
    return sb.Query(f"""
        WITH sessions AS (
            SELECT 1000 * (d + 1) + n AS session_id, {drawn("user", "d", "n", below=900)} AS user_id,
                   {started} AS started
            FROM (SELECT CAST(d AS INTEGER) AS d FROM range({(END_DAY - FIRST_DAY).days}) AS days (d)),
                 (SELECT CAST(n AS INTEGER) AS n FROM range({_SESSIONS}) AS sessions (n))
        ),
        steps AS (
            SELECT session_id, user_id, started, k, sum({gap}) OVER (PARTITION BY session_id ORDER BY k) AS seconds
            FROM sessions, range(1, {_MOST_EVENTS + 1}) AS steps (k)
            WHERE k <= 1 + {drawn("events", "session_id", below=_MOST_EVENTS)}
        )
        SELECT 100 * session_id + k AS event_id, session_id, user_id, started + to_seconds(seconds) AS event_time,
               printf('/page/%d', {drawn("page", "session_id", "k", below=30)}) AS page
        FROM steps
        WHERE event_time < {sql_day(END_DAY)}
    """)
