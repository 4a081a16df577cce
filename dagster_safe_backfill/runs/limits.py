"""What bounds a run: how much it does at once, how long, how often, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeVar

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError, OutsideAllowedHoursError, SafeBackfillError, is_transient
from dagster_safe_backfill.model.hours import AllowedHours
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.runs.table_io import TableIO

if TYPE_CHECKING:
    from dagster_safe_backfill.runs.deadlines import Deadline
    from dagster_safe_backfill.runs.retries import Retries
    from dagster_safe_backfill.warehouses.base import Connection

_Result = TypeVar("_Result")

PublishPer = Literal["run", "batch"]
"""What goes live at once: all of a run, or each of its batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """How a run is cut into batches, and what bounds each.

    Attributes:
        batch_size: Partitions in a batch; all of the run, if None.
        canary: Whether the rest isn't computed if the first batch fails its audits.
        resume: Whether partitions that an earlier run staged and audited are taken up.
        timeout_seconds: The most that a batch may take; no bound, if None.
        max_retries: How often a batch is tried again after an error that can pass.
        retry_wait: Seconds of the first wait before that, at most.
        allowed_hours: When batches may start; always, if None.
        max_partitions: The most partitions of a backfill; no bound, if None.
    """

    batch_size: int | None = None
    canary: bool = True
    resume: bool = True
    timeout_seconds: float | None = None
    max_retries: int = 3
    retry_wait: float = 1.0
    allowed_hours: AllowedHours | None = None
    max_partitions: int | None = None

    def __post_init__(self) -> None:
        for option, value in (("batch_size", self.batch_size), ("max_partitions_per_backfill", self.max_partitions)):
            if value is not None and not (_is_count(value) and value >= 1):
                raise ConfigurationError(f"{option} is a number of partitions, at least 1, and not {value!r}")
        if not (_is_count(self.max_retries) and self.max_retries >= 0):
            raise ConfigurationError(f"max_retries is a number, at least 0, and not {self.max_retries!r}")
        if not (_is_number(self.retry_wait) and 0 <= self.retry_wait < math.inf):
            raise ConfigurationError(f"retry_wait is a number of seconds, at least 0, and not {self.retry_wait!r}")
        seconds = self.timeout_seconds
        if seconds is not None and not (_is_number(seconds) and 0 < seconds < math.inf):
            raise ConfigurationError(f"timeout_seconds is a number of seconds, more than 0, and not {seconds!r}")

    @property
    def retries(self) -> Retries:
        """The retries, as a policy."""
        from dagster_safe_backfill.runs.retries import Retries

        return Retries(max_retries=self.max_retries, first_wait=self.retry_wait)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def no_vain_retries(context: dg.AssetExecutionContext) -> Generator[None, None, None]:
    """Keep an asset's retry policy from repeating what would fail again.

    Raises:
        dagster.Failure: In place of such an error, which is its cause, where there is a retry policy.
    """
    try:
        yield
    except SafeBackfillError as error:
        if context.op_execution_context.op_def.retry_policy is None or is_transient(error):
            raise
        raise dg.Failure(str(error), allow_retries=False) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one run.

    Attributes:
        publication_id: Under which all of it goes live, where that is known before its sessions are opened.
    """

    rules: BatchRules
    context: dg.AssetExecutionContext
    manager: TableIO
    spec: TableSpec
    publication_id: str | None = None

    def deadline(self, what: str) -> Deadline:
        """Return the deadline of something that begins now."""
        from dagster_safe_backfill.runs.deadlines import Deadline

        return Deadline(self.rules.timeout_seconds, what)

    def computed(self, compute: Callable[[], object], *, deadline: Deadline) -> object:
        """Return what the user's function computes, as rows that can be read again.

        Raises:
            BatchTimeoutError: It took too long.
        """
        from dagster_safe_backfill.warehouses.frames import rereadable

        def work() -> object:
            with deadline.over_python():
                return compute()

        return rereadable(self.rules.retries.call(work, on_retry=self._say_retry))

    def connected(
        self, work: Callable[[Connection], _Result], *, deadline: Deadline, read_only: bool = False
    ) -> _Result:
        """Return what `work` makes in a session of its own; after an error that can pass, in another one.

        Raises:
            BatchTimeoutError: It took too long.
        """

        def tried() -> _Result:
            session = self.manager.connected(
                self.spec.table,
                run_id=self.context.run_id,
                publication_id=self.publication_id,
                read_only=read_only,
            )
            with session as connection, deadline.over(connection):
                return work(connection)

        return self.rules.retries.call(tried, on_retry=self._say_retry)

    def check_hours(self, what: str) -> None:
        """Refuse to begin something at a time when nothing may.

        Raises:
            OutsideAllowedHoursError: It is such a time.
        """
        hours = self.rules.allowed_hours
        now = _now()
        if hours is None or hours.allows(now):
            return
        opens_at = hours.opens_after(now)
        raise OutsideAllowedHoursError(
            f"{self.spec.table}: batches start in allowed_hours, {hours}, and there it is"
            f" {now.astimezone(opens_at.tzinfo):%H:%M}, so {what} were not computed. What was staged before is kept:"
            f" run the partitions again from {opens_at:%Y-%m-%d %H:%M %Z} on, and they go on from there",
            opens_at=opens_at,
        )

    def _say_retry(self, error: BaseException, attempt: int, seconds: float) -> None:
        most = self.rules.max_retries
        self.context.log.warning(f"retry {attempt} of {most} in {seconds:.1f} s, after {type(error).__name__}: {error}")


def _now() -> datetime:
    return datetime.now(timezone.utc)
