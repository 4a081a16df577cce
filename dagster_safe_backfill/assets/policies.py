"""How many runs a backfill is cut into."""

from __future__ import annotations

import dagster as dg

from dagster_safe_backfill.model.validation import check_count


def single_run() -> dg.BackfillPolicy:
    """All contiguous partitions of a backfill in one run: the fastest; published whole or not at all."""
    return dg.BackfillPolicy.single_run()


def batched(partitions_per_run: int) -> dg.BackfillPolicy:
    """Runs of at most so many contiguous partitions; each is published by itself.

    Raises:
        ConfigurationError: It is no whole number, or below 1.
    """
    check_count("partitions_per_run", partitions_per_run, of="partitions", at_least=1)
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=partitions_per_run)


def per_partition() -> dg.BackfillPolicy:
    """A run for each partition: the finest to retry, about 4 s of process start each."""
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
