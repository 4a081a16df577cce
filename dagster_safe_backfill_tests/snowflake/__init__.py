"""What only a real account of Snowflake can show: `python -m dagster_safe_backfill_tests.snowflake.live`."""
