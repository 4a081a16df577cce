"""The verbs of backfills that were launched."""
