import dagster as dg
from dagster_safe_backfill.domain.slices import *
def _s(pd, keys):
    keys=list(keys)
    if not keys: raise EmptySliceError("no partitions")
    if isinstance(pd, dg.TimeWindowPartitionsDefinition):
        ws=[pd.time_window_for_partition_key(k) for k in keys]
        d=TimeDimension(windows=tuple(TimeWindow(start=w.start,end=w.end) for w in ws),timezone=pd.timezone)
    else: d=KeyDimension(values=tuple(keys))
    return PartitionSlice(keys=tuple(keys),dimensions=(d,))
def slice_of_run(context): return _s(context.assets_def.partitions_def, context.partition_keys)
def slice_of_output(context): return _s(context.asset_partitions_def, context.asset_partition_keys) if context.has_asset_partitions else None
def slice_of_input(context): return _s(context.asset_partitions_def, context.asset_partition_keys) if context.has_asset_partitions else None
