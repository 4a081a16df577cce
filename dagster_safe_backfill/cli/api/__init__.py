"""Dagster's GraphQL API: the queries that the command sends, over HTTP or inside its own process."""
