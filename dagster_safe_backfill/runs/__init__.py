"""What a run does as Dagster calls it: contexts in, events out."""
