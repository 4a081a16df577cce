"""The options of an asset, as values that are checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.hours import AllowedHours
from dagster_safe_backfill.model.tables import KeepLatest, OnEmpty, OnOutside, OnSchemaChange, TableRef, TableSpec
from dagster_safe_backfill.model.validation import (
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_text,
    check_time_zone,
    closest,
    column_names,
    refused,
    sql_by_name,
)

if TYPE_CHECKING:
    from dagster_safe_backfill.audits.base import Audit

Strategy = Literal["merge", "replace", "swap"]
OnConflict = Literal["raise", "overwrite"]

MOST_DAYS = 36_500
_MOST_SECONDS = 366 * 24 * 3600
"""The most days and seconds that an option may say: dates and timers in this range work in Python and in databases."""

_SYNC = (
    'it rewrites the whole table, and only @wap_asset(publish="swap") does that: write'
    ' publish=Swap(on_schema_change="sync")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _HowToPublish:
    """What `Merge`, `Replace` and `Swap` have in common."""

    strategy: ClassVar[Strategy]

    on_conflict: OnConflict = "raise"
    archive_days: float = 30
    on_schema_change: OnSchemaChange = "raise"
    # A mapping has no hash, and two values that differ only in it may share theirs.
    column_defaults: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    allow_mixed_versions: bool = False

    def __post_init__(self) -> None:
        check_choice("on_conflict", self.on_conflict, get_args(OnConflict))
        check_number("archive_days", self.archive_days, of="days", most=MOST_DAYS)
        self._check_schema_change()
        check_flag("allow_mixed_versions", self.allow_mixed_versions)
        defaults = sql_by_name("column_defaults", self.column_defaults, of="column names")
        object.__setattr__(self, "column_defaults", defaults)
        if defaults and self.on_schema_change == "raise":
            raise ConfigurationError(
                'column_defaults are for columns that are added, and on_schema_change is "raise"; set it to'
                ' "add_columns" as well'
            )

    @property
    def archive_for(self) -> timedelta:
        """How long what a publication replaces is kept; no time at all if zero."""
        return timedelta(days=self.archive_days)

    def _check_schema_change(self) -> None:
        hint = _SYNC if self.on_schema_change == "sync" else None
        check_choice("on_schema_change", self.on_schema_change, ("raise", "add_columns"), hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(_HowToPublish):
    """Publish by the unique key: insert new rows, update rows that differ, delete the slice's rows that are gone.

    The default for an asset with a `unique_key`, which it needs. Rows that are the same stay untouched.

    Attributes:
        on_conflict: What happens if a live partition changed since its rows were computed: "raise" refuses to publish,
            "overwrite" replaces the partition and archives what it held.
        archive_days: How many days the rows that a publication replaces are kept for a rollback; 0 keeps none.
        on_schema_change: What happens if computed columns are missing in the table: "raise" refuses them,
            "add_columns" adds them when the rows are published.
        column_defaults: SQL expressions that fill added columns in existing rows, by column name; columns without one
            are filled with NULL. Needs `on_schema_change="add_columns"`.
        allow_mixed_versions: Whether one backfill may publish partitions that several values of `code_version`
            computed.

    Raises:
        ConfigurationError: A value that isn't allowed.

    Example:
        ```python
        @sb.wap_asset(
            partitions_def=days,
            partition_expr="day",
            unique_key=["day", "shop"],
            publish=sb.Merge(on_conflict="overwrite", archive_days=7),
        )
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame: ...
        ```
    """

    strategy: ClassVar[Strategy] = "merge"

    on_schema_change: Literal["raise", "add_columns"] = "raise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace(_HowToPublish):
    """Publish by deleting the slice's rows and inserting the computed ones, in one transaction.

    The default for an asset without a `unique_key`. Its attributes are those of `Merge`.

    Raises:
        ConfigurationError: A value that isn't allowed.
    """

    strategy: ClassVar[Strategy] = "replace"

    on_schema_change: Literal["raise", "add_columns"] = "raise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap(_HowToPublish):
    """Publish by putting a clone of the whole table in its place, in which the slice is replaced.

    The old table becomes the archive. For new schemas and full rebuilds. Its attributes are those of `Merge`, but for:

    Attributes:
        on_schema_change: Also "sync", which gives the table the computed columns: it adds those that are missing, drops
            those that aren't computed, and changes types that don't fit.

    Raises:
        ConfigurationError: A value that isn't allowed.
    """

    strategy: ClassVar[Strategy] = "swap"

    def _check_schema_change(self) -> None:
        check_choice("on_schema_change", self.on_schema_change, get_args(OnSchemaChange))


Publish = Merge | Replace | Swap
"""How audited rows go live."""

PUBLISH_BY_NAME: Mapping[Strategy, type[Publish]] = {kind.strategy: kind for kind in (Merge, Replace, Swap)}
"""The values by the names that stand for their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How a run is cut into batches; `batches=10` is short for `batches=Batches(size=10)`.

    Attributes:
        size: The most partitions that the function gets at once, which bounds memory; all of the run's, if None.
            Partitions that aren't adjacent are never in one batch.
        publish_each: Whether each batch goes live as soon as it passes. Then partitions that pass are published, those
            that fail stay in the shadow, and the run fails at its end and names them. If False, the whole run goes live
            in one transaction, or nothing does. Only for `wap_asset`.
        canary: Whether the run stops if its first batch fails its audits.
        resume: Whether a retry or a re-execution of a run that crashed takes up the partitions which that run had
            staged and audited, and not published, instead of computing them again. It computes them again if an audit
            rejected that run, if the code or its config changed, if live changed, or if an upstream asset was
            materialized since. A new launch computes everything.

    Raises:
        ConfigurationError: A value that isn't allowed.

    Example:
        ```python
        @sb.wap_asset(
            partitions_def=days, partition_expr="day", batches=sb.Batches(size=10, publish_each=True)
        )
        def revenue(partitions: sb.PartitionSlice) -> pd.DataFrame: ...
        ```
    """

    size: int | None = None
    publish_each: bool = False
    canary: bool = True
    resume: bool = True

    def __post_init__(self) -> None:
        if self.size is not None:
            check_count("Batches: size", self.size, of="partitions", at_least=1)
        check_flag("publish_each", self.publish_each)
        check_flag("canary", self.canary)
        check_flag("resume", self.resume)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a run: time, retries, hours of the day and number of partitions.

    Attributes:
        timeout_seconds: The most that a batch may take; then its statement is cancelled and the run fails, and the
            batches before it are kept. No limit, if None.
        max_retries: How often a batch is tried again after an error that may pass, such as a lock.
        retry_wait: The most seconds before the first retry; the bound doubles with each retry.
        allowed_hours: When batches may start, such as "22:00-06:00 America/New_York" or an `AllowedHours`. Outside
            these hours the run stops before its next batch, and the batches before it are kept. Always, if None.
        max_partitions: The most partitions that a backfill may have; larger ones must be confirmed by the tag
            `safe_backfill/confirmed_partitions`. No limit, if None.

    Raises:
        ConfigurationError: A value that isn't allowed.

    Example:
        ```python
        limits = sb.Limits(timeout_seconds=600, allowed_hours="22:00-06:00 America/New_York", max_partitions=90)
        ```
    """

    timeout_seconds: float | None = None
    max_retries: int = 3
    retry_wait: float = 1.0
    allowed_hours: str | AllowedHours | None = None
    max_partitions: int | None = None

    def __post_init__(self) -> None:
        if self.timeout_seconds is not None:
            check_number("timeout_seconds", self.timeout_seconds, of="seconds", most=_MOST_SECONDS, is_positive=True)
        check_count("max_retries", self.max_retries, of="retries", at_least=0)
        check_number("retry_wait", self.retry_wait, of="seconds", most=_MOST_SECONDS)
        if self.max_partitions is not None:
            check_count("max_partitions", self.max_partitions, of="partitions", at_least=1)
        hours = cast("object", self.allowed_hours)
        if isinstance(hours, str):
            object.__setattr__(self, "allowed_hours", AllowedHours.parse(hours))
        elif not isinstance(hours, AllowedHours | None):
            raise refused("allowed_hours", 'a text such as "22:00-06:00 America/New_York"', hours)

    @property
    def hours(self) -> AllowedHours | None:
        """`allowed_hours` as a value."""
        return cast("AllowedHours | None", self.allowed_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How the asset's table is kept, and which rows it takes.

    Attributes:
        schema: The table's schema; if None, the I/O manager's, else the key's prefix.
        column_timezone: The time zone of wall-clock columns (TIMESTAMP), such as "America/New_York"; if None, that of
            the partitions definition.
        updated_at_column: A column that is set to the time of the publication in rows that it changed.
        on_empty: What happens if no rows at all are computed: "refuse" is an error, "allow" empties the slice.
        on_outside: What happens to computed rows outside the slice: "refuse" is an error, "drop" leaves them out and
            counts them.
        on_duplicate: What happens if a unique key is computed twice: "raise" is an error,
            `keep_latest("ingested_at")` keeps the latest row and counts the others.

    Raises:
        ConfigurationError: A value that isn't allowed.

    Example:
        ```python
        table = sb.TableOptions(schema="sales", on_outside="drop", on_duplicate=sb.keep_latest("ingested_at"))
        ```
    """

    schema: str | None = None
    column_timezone: str | None = None
    updated_at_column: str | None = None
    on_empty: OnEmpty = "refuse"
    on_outside: OnOutside = "refuse"
    on_duplicate: Literal["raise"] | KeepLatest = "raise"

    def __post_init__(self) -> None:
        if self.schema is not None:
            check_text("schema", self.schema, what="the name of a schema")
        if self.column_timezone is not None:
            check_time_zone("column_timezone", self.column_timezone)
        if self.updated_at_column is not None:
            check_text("updated_at_column", self.updated_at_column, what="the name of a column")
        check_choice("on_empty", self.on_empty, get_args(OnEmpty))
        check_choice("on_outside", self.on_outside, get_args(OnOutside))
        if self.on_duplicate != "raise" and not isinstance(self.on_duplicate, KeepLatest):  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            hint = 'did you mean "raise"?' if closest(self.on_duplicate, ["raise"]) else None
            raise refused("on_duplicate", '"raise" or keep_latest("a_column")', self.on_duplicate, hint=hint)

    @property
    def keep_latest(self) -> str | None:
        """The column that tells which row of a key is kept; None if no key may come twice."""
        return None if self.on_duplicate == "raise" else self.on_duplicate.column


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What the asset checks of the audits show.

    Attributes:
        partitioned: Whether each check has a status for every partition, which costs an event each; "auto" turns it on
            where the backfill policy bounds a run to 31 partitions.
        sample_columns: The columns whose values samples of failing rows may show; the values of others are masked. All
            are shown, if None.

    Raises:
        ConfigurationError: A value that isn't allowed.

    Example:
        ```python
        checks = sb.Checks(partitioned=True, sample_columns=["day", "shop"])
        ```
    """

    partitioned: bool | Literal["auto"] = "auto"
    sample_columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.partitioned, bool) and self.partitioned != "auto":  # pyright: ignore[reportUnnecessaryComparison]: users' own
            hint = 'did you mean "auto"?' if closest(self.partitioned, ["auto"]) else None
            raise refused("partitioned", 'True, False or "auto"', self.partitioned, hint=hint)
        if self.sample_columns is not None:
            object.__setattr__(self, "sample_columns", column_names("sample_columns", self.sample_columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetOptions:
    """All that the library is told of one asset: what a run gets, and jobs and checks find on the asset.

    Attributes:
        partition_expr: The SQL expression that tells a row's partition, by dimension name; under None where the
            partitions have one dimension. Empty for unpartitioned assets.
        unique_key: The columns that identify a row; empty if there is no key.
        audits: What is tested before publishing, the unique key included.

    Raises:
        ConfigurationError: Options that can't be said together.
    """

    partition_expr: Mapping[str | None, str] = field(default_factory=dict[str | None, str], hash=False)
    unique_key: tuple[str, ...] = ()
    audits: tuple[Audit, ...] = ()
    publish: Publish = field(default_factory=Replace)
    batches: Batches = field(default_factory=Batches)
    limits: Limits = field(default_factory=Limits)
    table: TableOptions = field(default_factory=TableOptions)
    checks: Checks = field(default_factory=Checks)

    def __post_init__(self) -> None:
        key = {name.casefold() for name in self.unique_key}
        stamp, latest = self.table.updated_at_column, self.table.keep_latest
        if isinstance(self.publish, Merge) and not key:
            raise ConfigurationError('publish="merge" needs a unique_key to match rows by')
        if stamp is not None and stamp.casefold() in key:
            raise ConfigurationError(
                f"updated_at_column {stamp!r} can't be part of unique_key, as it changes with each publication"
            )
        if latest is not None and not key:
            raise ConfigurationError("keep_latest (on_duplicate) needs a unique_key, whose rows come twice")
        if latest is not None and latest.casefold() in key:
            raise ConfigurationError(
                f"keep_latest (on_duplicate) names {latest!r}, which is part of unique_key and so the same in all rows"
                " of a key; name a column that tells which one is the latest"
            )

    def table_spec(self, table: TableRef) -> TableSpec:
        """Return how the asset is kept in a table."""
        return TableSpec(
            table=table,
            partition_expr=self.partition_expr,
            column_timezone=self.table.column_timezone,
            unique_key=self.unique_key,
            updated_at_column=self.table.updated_at_column,
            on_empty=self.table.on_empty,
            on_outside=self.table.on_outside,
            on_schema_change=self.publish.on_schema_change,
            column_defaults=self.publish.column_defaults,
            keep_latest=self.table.keep_latest,
        )
