"""Tests of dagster-safe-backfill."""
