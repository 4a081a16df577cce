"""Backfill policies: into how many runs Dagster splits a backfill."""

from __future__ import annotations

import dagster as dg

from dagster_safe_backfill.model.validation import check_count


def single_run() -> dg.BackfillPolicy:
    """Run all contiguous partitions of a backfill in one run, which is the fastest policy.

    Dagster starts one run for each contiguous range. A run is published as a whole or not at all, unless the asset
    has `Batches(publish_each=True)`.

    Example:
        ```python
        @sb.wap_asset(partitions_def=days, partition_expr="day", backfill_policy=sb.single_run())
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame: ...
        ```
    """
    return dg.BackfillPolicy.single_run()


def batched(partitions_per_run: int) -> dg.BackfillPolicy:
    """Split a backfill into runs of at most `partitions_per_run` contiguous partitions, each published separately.

    Raises:
        ConfigurationError: `partitions_per_run` isn't a whole number of 1 or more.

    Example:
        ```python
        policy = sb.batched(30)
        ```
    """
    check_count("partitions_per_run", partitions_per_run, of="partitions", at_least=1)
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=partitions_per_run)


def per_partition() -> dg.BackfillPolicy:
    """Start one run for each partition, so that each is published and retried separately.

    This is the slowest policy: starting the process of a run takes about 4 seconds.

    Example:
        ```python
        policy = sb.per_partition()
        ```
    """
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
