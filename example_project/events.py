"""The web site's assets: events by day that gain a column, staged a day at a time and published once.

`web.events` is live without `session_length_sec`. The backfill of seven days adds it: two runs at a time stage a day
each, an audit compares all of them with what is live, and a swap puts the new table in the old one's place.
"""

from typing import Any

import dagster as dg
from pydantic import Field

import dagster_safe_backfill as sb
from example_project import event_data
from example_project.warehouse import made_up

DAYS = dg.DailyPartitionsDefinition(str(event_data.FIRST_DAY), end_date=str(event_data.END_DAY))


class EventsConfig(dg.Config):
    """Which version of the code runs."""

    with_session_length: bool = Field(default=True, description="Whether it computes the column; before, it didn't.")


@dg.asset(key=["staging", "events"], group_name="web", metadata={"schema": "staging", "unique_key": ["event_id"]})
def staging_events() -> Any:
    """The events of seven days, as they came in."""
    return made_up(event_data.events())


def events(config: EventsConfig, partitions: sb.PartitionSlice) -> sb.Query:
    """The web site's events, each with the length of its session."""
    # Over the whole session and not over the day: some sessions go on over midnight.
    session = "OVER (PARTITION BY session_id)"
    length = f"datediff('second', min(event_time) {session}, max(event_time) {session})"
    added = f", CAST({length} AS INTEGER) AS session_length_sec" if config.with_session_length else ""
    return sb.Query(f"""
        SELECT * FROM (
            SELECT event_id, session_id, user_id, CAST(event_time AS DATE) AS event_date, event_time, page{added}
            FROM staging.events
        )
        WHERE {partitions.where()}
    """)


staged = sb.build_staged_wap_assets(
    events,
    partitions_def=DAYS,
    partition_expr="event_date",
    unique_key=["event_id"],
    audits=[
        sb.unique(),
        sb.not_null("event_time"),
        sb.row_count_drift(max_change=0.02),
        sb.aggregate_drift("event_id", "distinct", max_change=0.02),
        # Live can't tell it as long as it lacks the column: a warning then, and no obstacle.
        sb.aggregate_drift("session_length_sec", "median", max_change=0.05, severity="WARN"),
        sb.compare(),
    ],
    # A run a day; the pool's limit is how many at a time.
    backfill_policy=sb.per_partition(),
    pool="warehouse",
    publish=sb.Swap(on_schema_change="add_columns", archive_days=30),
    table=sb.TableOptions(schema="web", updated_at_column="updated_at"),
    deps=[staging_events],
    group_name="web",
    code_version="1",
)


@dg.asset(
    deps=[staged.published],
    group_name="web",
    metadata={"schema": "web", "unique_key": ["event_date"]},
    # Not at each day of a backfill, but once, when it has ended.
    automation_condition=sb.pause_during_backfill(dg.AutomationCondition.eager()),
)
def daily_traffic() -> sb.Query:
    """Each day's events, sessions and users, read from what is live."""
    return sb.Query("""
        SELECT event_date, count(*) AS events, count(DISTINCT session_id) AS sessions,
               count(DISTINCT user_id) AS users
        FROM web.events
        GROUP BY event_date
    """)
