"""What bounds a run: how much it does at once, how long, how often, and when."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from dagster_safe_backfill.errors import OutsideAllowedHoursError, SafeBackfillError, is_transient
from dagster_safe_backfill.model.options import Limits
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.runs.table_io import TableIO

if TYPE_CHECKING:
    from dagster_safe_backfill.runs.deadlines import Deadline
    from dagster_safe_backfill.runs.retries import Retries
    from dagster_safe_backfill.warehouses.base import Connection

_Result = TypeVar("_Result")


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

    limits: Limits
    context: dg.AssetExecutionContext
    manager: TableIO
    spec: TableSpec
    publication_id: str | None = None

    def deadline(self, what: str) -> Deadline:
        """Return the deadline of something that begins now."""
        from dagster_safe_backfill.runs.deadlines import Deadline

        return Deadline(self.limits.timeout_seconds, what)

    def computed(self, compute: Callable[[], object], *, deadline: Deadline) -> object:
        """Return what the user's function computes, as rows that can be read again.

        Raises:
            BatchTimeoutError: It took too long.
        """
        from dagster_safe_backfill.warehouses.frames import rereadable

        def work() -> object:
            with deadline.over_python():
                return compute()

        return rereadable(self._retries.call(work, on_retry=self._say_retry))

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

        return self._retries.call(tried, on_retry=self._say_retry)

    def check_hours(self, what: str) -> None:
        """Refuse to begin something at a time when nothing may.

        Raises:
            OutsideAllowedHoursError: It is such a time.
        """
        hours = self.limits.hours
        now = _now()
        if hours is None or hours.allows(now):
            return
        opens_at = hours.opens_after(now)
        raise OutsideAllowedHoursError(
            f"{self.spec.table}: batches start in allowed_hours, {hours}, and there it is"
            f" {now.astimezone(opens_at.tzinfo):%H:%M}, so {what} were not computed. What was staged before is kept:"
            f" re-execute the run from {opens_at:%Y-%m-%d %H:%M %Z} on, and it goes on from there",
            opens_at=opens_at,
        )

    @property
    def _retries(self) -> Retries:
        from dagster_safe_backfill.runs.retries import Retries

        return Retries(max_retries=self.limits.max_retries, first_wait=self.limits.retry_wait)

    def _say_retry(self, error: BaseException, attempt: int, seconds: float) -> None:
        most = self.limits.max_retries
        self.context.log.warning(f"retry {attempt} of {most} in {seconds:.1f} s, after {type(error).__name__}: {error}")


def _now() -> datetime:
    return datetime.now(timezone.utc)
