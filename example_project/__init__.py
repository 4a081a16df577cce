"""A year of New York's flights, kept in one DuckDB file and backfilled safely."""
