"""The options of an asset: values that are checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.hours import AllowedHours
from dagster_safe_backfill.model.table_options import TableOptions
from dagster_safe_backfill.model.tables import Loss, OnMovedKey, OnSchemaChange, TableRef, TableSpec
from dagster_safe_backfill.model.validation import (
    check_choice,
    check_count,
    check_flag,
    check_number,
    choices,
    closest,
    column_names,
    refused,
    sql_by_name,
)

if TYPE_CHECKING:
    from dagster_safe_backfill.audits.base import Audit

Strategy = Literal["merge", "replace", "swap"]
OnConflict = Literal["raise", "overwrite"]

UNKNOWN_RUN_DAYS = 7.0
"""For how many days retention keeps what runs made that Dagster doesn't know, if nobody says otherwise."""

MOST_DAYS = 36_500
_MOST_SECONDS = 366 * 24 * 3600
"""The largest numbers of days and seconds for an option: dates and timers up to them work in Python and in SQL."""

_SYNC = (
    'it rewrites the whole table, which only @wap_asset(publish="swap") does. Write'
    ' publish=Swap(on_schema_change="sync")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _HowToPublish:
    """The options that `Merge`, `Replace` and `Swap` share."""

    strategy: ClassVar[Strategy]

    on_conflict: OnConflict = "raise"
    archive_days: float = 30
    on_schema_change: OnSchemaChange = "raise"
    # A dict has no hash. Equal values still have equal hashes without this field.
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
                'column_defaults are for columns that are added, but on_schema_change is "raise", which adds none.'
                ' Also set it to "add_columns".'
            )

    @property
    def archive_for(self) -> timedelta:
        """`archive_days` as a timedelta."""
        return timedelta(days=self.archive_days)

    def _check_schema_change(self) -> None:
        hint = _SYNC if self.on_schema_change == "sync" else None
        check_choice("on_schema_change", self.on_schema_change, ("raise", "add_columns"), hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(_HowToPublish):
    """Publish by the unique key: insert new rows, update rows that differ, delete live rows that were not computed.

    Only rows of the slice change, in one transaction; rows that are equal are not written. This is the default for an
    asset with a `unique_key`, and needs one.

    Attributes:
        on_conflict: What happens if a live partition changed after its rows were computed: `"raise"` refuses to
            publish, `"overwrite"` replaces the partition and archives its rows.
        archive_days: How many days the rows that a publication replaces are kept for a rollback; 0 keeps none.
        on_schema_change: What happens to computed columns that the table doesn't have: `"raise"` refuses the rows,
            `"add_columns"` adds the columns when the rows are published.
        column_defaults: A mapping from the name of an added column to the SQL expression that fills it in existing
            rows. Columns that it doesn't name are NULL there. Needs `on_schema_change="add_columns"`.
        allow_mixed_versions: True if one backfill may publish partitions that were computed with different values of
            `code_version`.
        on_moved_key: What happens to a computed row whose key is live in another partition: `"raise"` fails the audit
            of the unique key, `"move"` deletes the live row there. The other partition is then part of the
            publication: it is archived, recorded and rolled back with it, and nothing is published if it changed
            after the rows were computed.

    Raises:
        ConfigurationError: A value isn't allowed, or `column_defaults` are given while no columns are added.

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
    on_moved_key: OnMovedKey = "raise"

    def __post_init__(self) -> None:
        # Not `super()`, which means the class that `dataclass(slots=True)` makes this one from.
        _HowToPublish.__post_init__(self)
        check_choice("on_moved_key", self.on_moved_key, get_args(OnMovedKey))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace(_HowToPublish):
    """Publish by deleting the slice's rows and inserting the computed ones, in one transaction.

    This is the default for an asset without a `unique_key`. `Merge` documents the attributes.

    Raises:
        ConfigurationError: A value isn't allowed, or `column_defaults` are given while no columns are added.

    Example:
        ```python
        publish = sb.Replace(on_schema_change="add_columns", column_defaults={"tax": "0.0"})
        ```
    """

    strategy: ClassVar[Strategy] = "replace"

    on_schema_change: Literal["raise", "add_columns"] = "raise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap(_HowToPublish):
    """Publish by cloning the whole table, replacing the slice in the clone, and swapping the two tables.

    The previous table becomes the archive. Use it for new schemas and full rebuilds. `Merge` documents the attributes;
    `on_schema_change` has one more choice.

    Attributes:
        on_schema_change: `"raise"`, `"add_columns"`, or `"sync"`, which gives the table the computed columns: it adds
            the missing ones, drops those that weren't computed, and changes types that don't fit.
        may_lose: What the table may lose in a swap on Snowflake, which otherwise refuses: `"streams"`, because streams
            follow the old table into the archive, and `"owner"`, if the role can't give the new table to the owner of
            the old one. A rollback that swaps the table obeys it, too.

    Raises:
        ConfigurationError: A value isn't allowed, or `column_defaults` are given while no columns are added.

    Example:
        ```python
        publish = sb.Swap(on_schema_change="sync", archive_days=90)
        ```
    """

    strategy: ClassVar[Strategy] = "swap"

    may_lose: Sequence[Loss] = ()

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is another class than the one that this method was written in.
        _HowToPublish.__post_init__(self)
        object.__setattr__(self, "may_lose", choices("may_lose", self.may_lose, get_args(Loss)))

    def _check_schema_change(self) -> None:
        check_choice("on_schema_change", self.on_schema_change, get_args(OnSchemaChange))


Publish = Merge | Replace | Swap
"""How audited rows are published."""

PUBLISH_BY_NAME: Mapping[Strategy, type[Publish]] = {kind.strategy: kind for kind in (Merge, Replace, Swap)}
"""The class for each name that `publish=` accepts; a name stands for the class with its defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How a run is split into batches; `batches=10` is short for `batches=Batches(size=10)`.

    Attributes:
        size: The maximum number of partitions that the function computes at once, which limits memory. If None, it
            computes all partitions of the run at once. Partitions that aren't adjacent are never in one batch.
        publish_each: True to publish, after each batch, its partitions that pass; those that fail stay in the shadow,
            and the run fails at its end and names them. False to publish the whole run in one transaction, or nothing.
        canary: True if the run stops when its first batch fails its audits.
        resume: True to reuse what an earlier run staged and didn't publish, if what made it is unchanged: after an
            interruption (killed, timed out, database lost, out of allowed hours), and in a re-execution from failure.
            `"always"` reuses it also in a new launch after a failure or a rejection. False computes everything.
        resume_within: The maximum age of the rows that are reused from another run, counted from their computation.

    Raises:
        ConfigurationError: A value isn't allowed.

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
    resume: bool | Literal["always"] = True
    resume_within: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        if self.size is not None:
            check_count("Batches: size", self.size, of="partitions", at_least=1)
        check_flag("publish_each", self.publish_each)
        check_flag("canary", self.canary)
        if not isinstance(self.resume, bool) and self.resume != "always":  # pyright: ignore[reportUnnecessaryComparison]: users' own
            hint = 'did you mean "always"?' if closest(self.resume, ["always"]) else None
            raise refused("resume", 'True, False or "always"', self.resume, hint=hint)
        if not isinstance(self.resume_within, timedelta) or self.resume_within <= timedelta(0):  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            raise refused("resume_within", "a positive datetime.timedelta", self.resume_within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a run: seconds for each batch, retries, hours of the day and number of partitions.

    Attributes:
        timeout_seconds: The maximum duration of a batch, in seconds. A batch that takes longer is stopped: its
            statement is cancelled, and the run fails. Earlier batches are kept.
        max_retries: How often a batch is retried after an error that may be temporary, such as a lock.
        retry_wait: The maximum wait before the first retry, in seconds. This maximum doubles with each retry.
        allowed_hours: The hours in which batches may start: a text such as `"22:00-06:00 America/New_York"`, or an
            `AllowedHours`. Outside these hours the run stops before its next batch.
        max_partitions: The maximum number of partitions of a backfill. A larger backfill must be confirmed with the tag
            `safe_backfill/confirmed_partitions`, set to its exact number of partitions.

    Raises:
        ConfigurationError: A value isn't allowed.

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
            # Parsed here, so that a wrong text is refused where the asset is defined and not in a run.
            object.__setattr__(self, "allowed_hours", AllowedHours.parse(hours))
        elif not isinstance(hours, AllowedHours | None):
            raise refused("allowed_hours", 'a text such as "22:00-06:00 America/New_York"', hours)

    @property
    def hours(self) -> AllowedHours | None:
        """The parsed `allowed_hours`; None if batches may start at any time."""
        return cast("AllowedHours | None", self.allowed_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """How the asset checks of the audits are shown in Dagster.

    Attributes:
        partitioned: True if each check has a status for every partition, which costs one Dagster event per partition.
            `"auto"` turns it on if the backfill policy limits a run to at most 31 partitions.
        sample_columns: The columns whose values are shown in samples of failing rows, errors and logs. Values of other
            columns are masked. If None, all values are shown.

    Raises:
        ConfigurationError: A value isn't allowed.

    Example:
        ```python
        checks = sb.Checks(partitioned=True, sample_columns=["day", "shop"])
        ```
    """

    # On SQLite, nine checks of 365 partitions took 65 s with a status for each, and 8.5 s without (Dagster 1.13).
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
    """All options of one asset, which its runs, jobs and checks read.

    Attributes:
        partition_expr: A mapping from dimension name to the SQL expression of a row's partition. The name is None if
            the partitions have one dimension; the mapping is empty if the asset has no partitions.
        unique_key: The columns that identify a row; empty if there is no key.
        audits: The audits that rows must pass before they are published, including that of the unique key.

    Raises:
        ConfigurationError: Options contradict each other.
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
        # DuckDB ignores the case of column names, and so does Snowflake for unquoted ones.
        key = {name.casefold() for name in self.unique_key}
        stamp, latest = self.table.updated_at_column, self.table.keep_latest
        if isinstance(self.publish, Merge) and not key:
            raise ConfigurationError(
                'publish="merge" needs a unique_key to match rows by. Give one, or write publish="replace".'
            )
        if self.table.on_missing_column == "fill" and self.publish.on_schema_change == "sync":
            raise ConfigurationError(
                'on_missing_column="fill" fills columns that aren\'t computed, and on_schema_change="sync" drops them.'
                ' Set one of the two; with publish=Swap(on_schema_change="add_columns"), the table keeps its columns.'
            )
        if stamp is not None and stamp.casefold() in key:
            raise ConfigurationError(
                f"updated_at_column {stamp!r} can't be part of unique_key, because each publication changes its values"
            )
        if latest is not None and not key:
            raise ConfigurationError("keep_latest (on_duplicate) needs a unique_key, by which it finds duplicate rows")
        if latest is not None and latest.casefold() in key:
            raise ConfigurationError(
                f"keep_latest (on_duplicate) names {latest!r}, which is part of unique_key, so all rows of a key have"
                " the same value. Name a column that shows which row is the latest."
            )

    def table_spec(self, table: TableRef) -> TableSpec:
        """Return the `TableSpec` of the asset for its live table."""
        return TableSpec(
            table=table,
            partition_expr=self.partition_expr,
            column_timezone=self.table.column_timezone,
            unique_key=self.unique_key,
            updated_at_column=self.table.updated_at_column,
            on_empty=self.table.on_empty,
            on_outside=self.table.on_outside,
            on_missing_column=self.table.on_missing_column,
            on_schema_change=self.publish.on_schema_change,
            on_moved_key=self.publish.on_moved_key if isinstance(self.publish, Merge) else "raise",
            column_defaults=self.publish.column_defaults,
            keep_latest=self.table.keep_latest,
            may_lose=tuple(self.publish.may_lose) if isinstance(self.publish, Swap) else (),
        )
