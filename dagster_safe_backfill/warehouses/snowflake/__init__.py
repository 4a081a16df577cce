"""Snowflake, where users go who outgrow one machine."""
