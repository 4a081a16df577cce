"""The command `safe-backfill`: plan, launch, watch and undo backfills from a terminal, through Dagster."""
