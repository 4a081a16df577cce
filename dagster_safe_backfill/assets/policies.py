"""How many runs a backfill is cut into."""

from __future__ import annotations

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError


def single_run() -> dg.BackfillPolicy:
    """All contiguous partitions of a backfill in one run: the fastest; published whole or not at all."""
    return dg.BackfillPolicy.single_run()


def batched(partitions_per_run: int) -> dg.BackfillPolicy:
    """Runs of at most so many contiguous partitions; each is published by itself.

    Raises:
        ConfigurationError: The number is below 1.
    """
    if partitions_per_run < 1:
        raise ConfigurationError(f"batched() needs at least one partition a run, not {partitions_per_run}")
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=partitions_per_run)


def per_partition() -> dg.BackfillPolicy:
    """A run for each partition: the finest to retry, about 4 s of process start each."""
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
