"""Jobs on the live tables: rolling publications back, and dropping archives and shadows that are no longer needed."""
# No `from __future__ import annotations` (PEP 563): Dagster reads the annotations of the ops' configurations.

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_safe_backfill.assets.metadata import options_of_asset
from dagster_safe_backfill.errors import ConfigurationError, OtherAssetError
from dagster_safe_backfill.model.options import MOST_DAYS, UNKNOWN_RUN_DAYS, AssetOptions
from dagster_safe_backfill.model.text import is_blank
from dagster_safe_backfill.model.validation import check_number
from dagster_safe_backfill.runs.declared import KEPT_UNKNOWN_DAYS, RETENTION_OF, ROLLBACK_OF, SHADOW_DAYS, table_io_of
from dagster_safe_backfill.runs.partitions import order_of

# As in the partition field of Dagster's UI and in `dagster asset materialize --partition-range`.
_RANGE = "..."


class RollbackConfig(dg.Config):
    """The configuration of a rollback job; without an id, the job rolls back the newest publication.

    Rollbacks don't count as the newest publication. To undo a rollback, name its own `publication_id`.

    Attributes:
        publication_id: The id of the publication, or of the rollback, to roll back.
        publication_ids: The ids of several publications to roll back together, as `safe-backfill rollback` shows them.
        backfill_id: The id of a backfill of which all publications are rolled back. Set at most one of the three.
        partitions: The partitions to roll back: keys, and ranges `"first...last"` that include both ends. If None, all
            partitions of the publication are rolled back.
        dry_run: If True, the job only reports what would change.
        force: If True, later publications of the partitions and changes made outside the library are undone too.
            Otherwise the job refuses such partitions.
        shown_publications: All publications that `safe-backfill rollback --force` showed before somebody said yes. If
            it isn't None, the job refuses to undo others as well.
        shown_live: A digest of the live rows that it showed. If it isn't None, the job refuses to replace other rows.

    Example:
        ```python
        run_config = dg.RunConfig(ops={"rollback_flights_op": sb.RollbackConfig(dry_run=True)})
        ```
    """

    publication_id: str | None = Field(default=None, description="The publication, or the rollback, to roll back.")
    publication_ids: list[str] | None = Field(default=None, description="Roll back these publications together.")
    backfill_id: str | None = Field(default=None, description="Roll back all publications of this backfill.")
    partitions: list[str] | None = Field(
        default=None,
        description='Roll back these partitions only: keys, and ranges "first...last". If left out, all of them.',
    )
    dry_run: bool = Field(default=False, description="Only report what would change.")
    force: bool = Field(
        default=False, description="Also undo later publications of the partitions, and changes made by hand."
    )
    shown_publications: list[str] | None = Field(default=None, description="Undo no others, even with force.")
    shown_live: str | None = Field(default=None, description="The digest of the only live rows to replace.")


class RetentionConfig(dg.Config):
    """The configuration of a retention job.

    Attributes:
        dry_run: If True, the job only reports what it would drop.
        assets: The keys of the assets, as `a/b`, of which it drops tables. If None, all that the schedule is for.
        shadow_days: How many days shadows are kept. If None, as the schedule says.
        unknown_run_days: How many days what unknown runs made is kept. If None, as the schedule says.
    """

    dry_run: bool = Field(default=False, description="Only report what would be dropped.")
    assets: list[str] | None = Field(default=None, description="The keys of the assets. If left out, all of them.")
    shadow_days: float | None = Field(default=None, description="How many days shadows are kept.")
    unknown_run_days: float | None = Field(
        default=None, description="How many days what runs made that this Dagster doesn't know is kept."
    )


def build_rollback_job(
    asset: dg.AssetsDefinition,
    *,
    name: str | None = None,
    archive_days: float = 30,
    io_manager_key: str = "io_manager",
) -> dg.JobDefinition:
    """Make a job that rolls back publications of an asset; launch it from the launchpad or the command line.

    One transaction puts back the rows that the publications replaced and archives the current live rows, so that a
    rollback can itself be rolled back. Without `force`, the job fails and changes nothing if a partition was published
    again or changed by hand after the publication. Partitions that are already rolled back stay unchanged. Then the
    job logs a materialization for each partition, which says what was rolled back. `RollbackConfig` documents the
    job's configuration.

    Args:
        asset: The asset whose publications are rolled back.
        name: The job's name. If None, it is `rollback_` and the asset's key.
        archive_days: How many days the rows that a rollback replaces are kept.
        io_manager_key: The key of the resource that is the I/O manager.

    Raises:
        ConfigurationError: The asset has no partitions, or `archive_days` isn't allowed.

    Example:
        ```python
        defs = dg.Definitions(
            assets=[flights],
            jobs=[sb.build_rollback_job(flights)],
            resources={"io_manager": sb.RangeDuckDBIOManager(database="warehouse.duckdb", schema="nyc")},
        )
        ```
    """
    key = asset.key
    if asset.partitions_def is None:
        raise ConfigurationError(f"{key.to_user_string()} has no partitions, so it has no publications to roll back")
    check_number("archive_days", archive_days, of="days", most=MOST_DAYS)
    options = options_of_asset(asset)
    job_name = name or f"rollback_{key.to_python_identifier()}"

    # Dagster 1.13.27 refuses an op with the same name as its job.
    @dg.op(name=f"{job_name}_op", required_resource_keys={io_manager_key})
    def roll_back(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
        _check_given(config)
        if sum(map(bool, (config.publication_id, config.publication_ids, config.backfill_id))) > 1:
            raise ConfigurationError("give a publication_id, publication_ids or a backfill_id, not both")
        if bool(config.shown_publications) != bool(config.shown_live):
            raise ConfigurationError("give shown_publications and shown_live together, or neither")
        upkeep = _upkeep()
        table_io = table_io_of(getattr(context.resources, io_manager_key), key)
        order = _order(asset, context.instance)
        upkeep.roll_back(
            context,
            table_io,
            asset=asset,
            options=options,
            order=order,
            chosen=upkeep.Chosen(
                publication_id=config.publication_id,
                publication_ids=tuple(config.publication_ids or ()),
                backfill_id=config.backfill_id,
                keys=_expanded(config.partitions or (), order, asset=key),
                shown=upkeep.Shown(publications=tuple(config.shown_publications), live=config.shown_live)
                if config.shown_publications and config.shown_live
                else None,
            ),
            archive_for=timedelta(days=archive_days),
            force=config.force,
            dry_run=config.dry_run,
        )

    @dg.job(  # pyright: ignore[reportUnknownMemberType]: untyped in Dagster
        name=job_name,
        description=f"Roll back publications of {key.to_user_string()}.",
        metadata={ROLLBACK_OF: key.to_user_string()},
    )
    def job() -> None:
        roll_back()

    return job


def build_retention_schedule(
    assets: Iterable[dg.AssetsDefinition],
    *,
    cron_schedule: str = "0 3 * * *",
    name: str = "safe_backfill_retention",
    shadow_days: float = 7,
    unknown_run_days: float = UNKNOWN_RUN_DAYS,
    dry_run: bool = False,
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    io_manager_key: str = "io_manager",
) -> dg.ScheduleDefinition:
    """Make a schedule, with its job, that drops expired archives and the shadows of runs that have ended.

    The job never drops the shadow of a run that is still running, or a table that isn't in the ledger. It drops nothing
    if the clock and the ledger disagree by more than a day, and says so.

    Args:
        assets: The assets whose archives and shadows are dropped.
        cron_schedule: The cron expression of the schedule.
        name: The schedule's name; its job is `<name>_job`.
        shadow_days: How many days the shadow of a failed run is kept, so that its rejected rows can be examined.
        unknown_run_days: How many days, at least, what a run made is kept that Dagster doesn't know, counted from the
            last row that the run wrote to the ledger. Such a run was deleted from Dagster, or is another Dagster's that
            works with the same warehouse: then it may go on.
        dry_run: If True, the scheduled job only reports what it would drop. `RetentionConfig(dry_run=…)` sets it for a
            single run.
        execution_timezone: The time zone of the cron expression. If None, it is UTC.
        default_status: Whether the schedule is on when it is deployed.
        io_manager_key: The key of the resource that is the I/O manager.

    Raises:
        ConfigurationError: There are no assets, or a number of days isn't allowed.

    Example:
        ```python
        defs = dg.Definitions(
            assets=[flights],
            schedules=[sb.build_retention_schedule([flights], shadow_days=3)],
            resources={"io_manager": sb.RangeDuckDBIOManager(database="warehouse.duckdb", schema="nyc")},
        )
        ```
    """
    # Read once, because `assets` may be an iterator and the job runs often.
    tables = {asset.key: options_of_asset(asset) for asset in assets}
    if not tables:
        raise ConfigurationError("build_retention_schedule needs at least one asset")
    _days("shadow_days", shadow_days)
    _days("unknown_run_days", unknown_run_days)

    @dg.op(name=f"{name}_op", required_resource_keys={io_manager_key})
    def drop_what_is_over(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
        _check_given(config)
        upkeep = _upkeep()
        dropped: dict[str, str] = {}
        refused: list[OtherAssetError] = []
        shadows_for = _days("shadow_days", shadow_days, config.shadow_days)
        unknown_for = _days("unknown_run_days", unknown_run_days, config.unknown_run_days)
        for key, options in _chosen(tables, config.assets or ()).items():
            table_io = table_io_of(getattr(context.resources, io_manager_key), key)
            table = str(table_io.spec_of(key, options).table)
            try:
                dropped[table] = upkeep.drop_expired(
                    context,
                    table_io,
                    key=key,
                    options=options,
                    shadows_for=shadows_for,
                    unknown_for=unknown_for,
                    dry_run=config.dry_run,
                )
            except OtherAssetError as error:
                # The tables of the other assets are cleaned up all the same.
                refused.append(error)
        context.add_output_metadata(dropped)
        for error in refused:
            raise error

    @dg.job(  # pyright: ignore[reportUnknownMemberType]: untyped in Dagster
        name=f"{name}_job",
        description="Drop expired archives, and shadows of runs that have ended.",
        metadata={
            RETENTION_OF: dg.MetadataValue.json([key.to_user_string() for key in tables]),
            SHADOW_DAYS: float(shadow_days),
            KEPT_UNKNOWN_DAYS: float(unknown_run_days),
        },
    )
    def job() -> None:
        drop_what_is_over()

    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
        run_config=dg.RunConfig(ops={f"{name}_op": RetentionConfig(dry_run=dry_run)}),
    )


def _check_given(config: dg.Config) -> None:
    """Refuse what is given and empty: it would mean all or the newest, and mostly comes from an unset variable.

    Raises:
        ConfigurationError: A text or a list is empty, or a text in a list is.
    """
    for name, value in config:
        if value == [] or is_blank(value):
            raise ConfigurationError(
                f"{name} is {value!r}, which names nothing; a variable in a template may be unset. Nothing was changed."
                f" Give {name} a value, or leave it out."
            )


def _days(name: str, of_schedule: float, of_run: float | None = None) -> timedelta:
    """Return a time that is given in days, for a run or for the schedule.

    Raises:
        ConfigurationError: The number isn't allowed.
    """
    days = of_schedule if of_run is None else of_run
    check_number(name, days, of="days", most=MOST_DAYS)
    return timedelta(days=days)


def _chosen(tables: Mapping[dg.AssetKey, AssetOptions], names: Sequence[str]) -> Mapping[dg.AssetKey, AssetOptions]:
    """Return the tables of the assets that a retention run is for.

    Raises:
        ConfigurationError: A name isn't that of one of the schedule's assets.
    """
    known = {key.to_user_string(): key for key in tables}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"the schedule isn't for {', '.join(unknown)}, but for {', '.join(known)}")
    return {known[name]: tables[known[name]] for name in names} if names else tables


def _upkeep():
    """Load the engine with the first run that needs it, so that definitions are cheap to load."""
    from dagster_safe_backfill.runs import upkeep

    return upkeep


def _order(asset: dg.AssetsDefinition, instance: dg.DagsterInstance) -> dict[str, int]:
    definition: dg.PartitionsDefinition[Any] | None = asset.partitions_def
    return {} if definition is None else order_of(definition, instance)


def _expanded(names: Sequence[str], order: Mapping[str, int], *, asset: dg.AssetKey) -> tuple[str, ...]:
    """Return partition keys, with ranges "first...last" expanded.

    Raises:
        ConfigurationError: An end of a range isn't a key of the asset, or the range is reversed.
    """
    every = [*order]
    keys: dict[str, None] = {}
    for name in names:
        first, is_range, last = name.partition(_RANGE)
        # A key may contain "..." itself. The rollback refuses unknown keys, because it knows which were published.
        if name in order or not is_range:
            keys[name] = None
            continue
        if first not in order or last not in order or order[last] < order[first]:
            raise ConfigurationError(
                f"{asset.to_user_string()}: {name} is not a range of its partitions. Name the first and the last key,"
                " the earlier one first."
            )
        keys |= dict.fromkeys(every[order[first] : order[last] + 1])
    return tuple(keys)
