"""Reading from Dagster how far a backfill is."""
