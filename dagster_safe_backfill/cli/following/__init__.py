"""How far a backfill is: reading it partition by partition, showing it, and following it until it ends."""

from dagster_safe_backfill.cli.following.watching import follow

__all__ = ["follow"]
