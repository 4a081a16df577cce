"""Audits of groups: aggregates of each partition, judged by themselves or against the live table's."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dagster_safe_backfill.audits.base import GradedAudit, bounds_in_words, check_name
from dagster_safe_backfill.audits.verdicts import FailureLimits, Severity, Verdict, difference, limits
from dagster_safe_backfill.errors import ConfigurationError

Total = Literal["total", "mean", "distinct", "median"]
Over = Literal["partition", "run"]
"""Whether an audit of groups looks at each partition, or at all of the run's rows together."""
OnNewPartition = Literal["pass", "fail"]

_VALUE = "value"
_NUMBER_WORDS = {"total": "total", "mean": "mean", "distinct": "number of distinct values", "median": "median"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """An aggregate over rows.

    Attributes:
        sql: `"*"` for a number of rows; an expression over a row for a named aggregate or a percentile; else an
            aggregate in the warehouse's SQL.
        of: What is made of the expression: a name, a percentile from 0 to 1, or None if `sql` is all.
    """

    sql: str
    of: Total | float | None = None


ROWS = Aggregate(sql="*")
"""The number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one table holds of a partition.

    Attributes:
        rows: The number of its rows.
        values: The audit's aggregates by name; None for SQL's NULL.
    """

    rows: int
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAudit(GradedAudit):
    """Base of audits over groups of rows, for your own too.

    A subclass says which aggregates it needs, and judges them for each partition (or once, with `over="run"`). The
    aggregates of all audits are measured together, in one scan of each table.

    Attributes:
        over: What is a group: a partition, or all rows of the run.
        needs_live: Whether the same aggregates are wanted of the live table.

    Example:
        ```python
        from collections.abc import Mapping
        from dataclasses import dataclass

        @dataclass(frozen=True, slots=True, kw_only=True)
        class Balanced(sb.GroupAudit):
            def aggregates(self) -> Mapping[str, str]:
                return {"debit": "sum(debit)", "credit": "sum(credit)"}

            def judge(self, shadow: sb.Side, live: sb.Side | None) -> sb.Verdict:
                is_balanced = shadow.values["debit"] == shadow.values["credit"]
                return sb.Verdict(outcome="passed" if is_balanced else "failed", measured=shadow.values)
        ```
    """

    over: Over = "partition"
    needs_live: bool = False

    def __post_init__(self) -> None:
        # Not super(), which finds another class where slots made this one anew.
        GradedAudit.__post_init__(self)
        if self.over not in ("partition", "run"):
            raise ConfigurationError(f'over is "partition" or "run", not {self.over!r}')

    @property
    def is_over_run(self) -> bool:
        """Whether all partitions of a run have one verdict together."""
        return self.over == "run"

    @property
    def description(self) -> str:
        """What it demands, in a sentence."""
        return (type(self).__doc__ or type(self).__name__).partition("\n")[0]

    @abstractmethod
    def aggregates(self) -> Mapping[str, str | Aggregate]:
        """Return the aggregates to measure, by name: SQL over the batch's columns, such as `sum(revenue)`."""

    @abstractmethod
    def judge(self, shadow: Side, live: Side | None) -> Verdict:
        """Return the verdict for one group. With severity WARN, `"failed"` is taken for `"warned"`.

        Args:
            shadow: What is staged. A partition without rows has the aggregates of no rows: 0 for counts, else None.
            live: What is live; None if `needs_live` is false.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateBetween(GroupAudit):
    """See `aggregate_between` and `row_count_between`."""

    aggregate: Aggregate
    least: float | None
    most: float | None

    @property
    def description(self) -> str:
        """What it demands, in a sentence."""
        what = "The number of rows" if self.aggregate == ROWS else self.aggregate.sql
        return f"{what} is {self.threshold}{_where(self.over)}."

    @property
    def threshold(self) -> str:
        """The bounds in words."""
        return bounds_in_words(self.least, self.most)

    def aggregates(self) -> Mapping[str, Aggregate]:
        """Return the one aggregate."""
        return {_VALUE: self.aggregate}

    def judge(self, shadow: Side, live: Side | None) -> Verdict:  # noqa: ARG002
        """Return whether the value is in bounds; SQL's NULL is not known to be, and NaN isn't."""
        value = shadow.values[_VALUE]
        is_inside = (
            value is not None
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and not math.isnan(value)
        )
        return Verdict(outcome="passed" if is_inside else "failed", measured={"value": value})


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateDrift(GroupAudit):
    """See `aggregate_drift` and `row_count_drift`."""

    aggregate: Aggregate
    limits: FailureLimits
    absolute: bool
    on_new_partition: OnNewPartition
    needs_live: bool = True

    @property
    def can_block(self) -> bool:
        """Whether it can forbid publishing."""
        return self.limits.can_block

    @property
    def description(self) -> str:
        """What it demands, in a sentence."""
        return f"{self.what.capitalize()} against the live table's{_where(self.over)}: {self.threshold}."

    @property
    def threshold(self) -> str:
        """The limits in words."""
        return f"{'difference' if self.absolute else 'change'} {self.limits.described(share=not self.absolute)}"

    @property
    def what(self) -> str:
        """What is compared, in words."""
        if self.aggregate == ROWS:
            return "number of rows"
        of = self.aggregate.of
        words = f"percentile {of:.10g}" if isinstance(of, int | float) else _NUMBER_WORDS.get(of or "", "value")
        return f"{words} of {self.aggregate.sql}"

    def aggregates(self) -> Mapping[str, Aggregate]:
        """Return the one aggregate."""
        return {_VALUE: self.aggregate}

    def judge(self, shadow: Side, live: Side | None) -> Verdict:
        """Return whether both sides are near enough."""
        assert live is not None
        here, there = shadow.values[_VALUE], live.values[_VALUE]
        apart = difference(here, there, absolute=self.absolute)
        if not live.rows and shadow.rows:
            outcome = "passed" if self.on_new_partition == "pass" else "failed"
        else:
            outcome = self.limits.judge(apart)
        name = "difference" if self.absolute else "change"
        return Verdict(outcome=outcome, measured={"shadow": here, "live": there, name: apart})


def row_count_between(
    least: int | None = None,
    most: int | None = None,
    *,
    over: Over = "partition",
    severity: Severity = "ERROR",
    name: str | None = None,
) -> AggregateBetween:
    """Each partition (or the whole run, with `over="run"`) has at least `least` and at most `most` rows.

    A partition without rows has 0, so `row_count_between(1)` refuses empty days.

    Raises:
        ConfigurationError: No bound is given, or they exclude each other.
    """
    _check_bounds(least, most, option="row_count_between")
    return AggregateBetween(
        name=check_name(name, _named("row_count_between", over=over)),
        aggregate=ROWS,
        least=least,
        most=most,
        over=over,
        severity=severity,
    )


def aggregate_between(
    sql: str,
    least: float | None = None,
    most: float | None = None,
    *,
    over: Over = "partition",
    severity: Severity = "ERROR",
    name: str | None = None,
) -> AggregateBetween:
    """An aggregate of each partition (or of the whole run) is at least `least` and at most `most`, both included.

    NULL, such as the sum of no rows, is not known to be in bounds, and fails.

    Args:
        sql: An aggregate in the warehouse's SQL, such as `sum(cost) / sum(revenue)`.
        least: The lower bound.
        most: The upper bound.
        over: Whether the rows of each partition are aggregated, or all rows of the run.
        severity: Whether a value out of bounds blocks ("ERROR") or is shown ("WARN").
        name: The name of the asset check.

    Raises:
        ConfigurationError: No bound is given, or they exclude each other.
    """
    _check_bounds(least, most, option=f"aggregate_between of {sql}")
    return AggregateBetween(
        name=check_name(name, _named("aggregate_between", over=over), sql),
        aggregate=Aggregate(sql=sql),
        least=least,
        most=most,
        over=over,
        severity=severity,
    )


def row_count_drift(
    *,
    max_change: float | None = None,
    absolute: bool = False,
    over: Over = "partition",
    on_new_partition: OnNewPartition = "pass",
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> AggregateDrift:
    """Each partition's row count differs from the live table's by at most this share of it (0.02 is 2 %).

    A partition that live has and the batch lacks has 0 rows, a change of 1. See `aggregate_drift`.

    Raises:
        ConfigurationError: A limit is negative or not a number, or the limits can't work together.
    """
    _check_new(on_new_partition)
    return AggregateDrift(
        name=check_name(name, _named("row_count_drift", over=over)),
        aggregate=ROWS,
        limits=_drift_limits(max_change, severity, warn_above, error_above),
        absolute=absolute,
        on_new_partition=on_new_partition,
        over=over,
    )


def aggregate_drift(
    column: str,
    aggregate: Total | float,
    *,
    max_change: float | None = None,
    absolute: bool = False,
    over: Over = "partition",
    on_new_partition: OnNewPartition = "pass",
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> AggregateDrift:
    """An aggregate of each partition (or of the whole run) differs from the live table's by at most this share of it.

    NULLs in the column are left out, as SQL's aggregates do. Where one side has a value and the other none (a
    partition that live has and the batch lacks, or NULLs only), the change is infinite; where neither has, it is 0.

    Args:
        column: A column or an expression over a row.
        aggregate: `"total"`, `"mean"`, `"distinct"` (values), `"median"`, or a percentile: 0.95. Percentiles
            interpolate, as SQL's PERCENTILE_CONT does.
        max_change: The largest change that passes; none, if no limit is given.
        absolute: Whether limits are differences in the aggregate's own unit, not shares of live's value.
        over: Whether the rows of each partition are aggregated, or all rows of the run.
        on_new_partition: Whether a partition that live has no rows of passes or fails.
        severity: Whether more than `max_change` blocks ("ERROR") or is shown ("WARN").
        warn_above: In place of `max_change` and `severity`: the change above which the audit warns.
        error_above: The change above which it blocks; never, if just `warn_above` is given.
        name: The name of the asset check.

    Raises:
        ConfigurationError: No such aggregate, or the limits can't work together.
    """
    is_known = aggregate in _NUMBER_WORDS if isinstance(aggregate, str) else 0 <= aggregate <= 1
    if not is_known:
        known = ", ".join(_NUMBER_WORDS)
        raise ConfigurationError(f"aggregate_drift knows {known} and percentiles from 0 to 1, not {aggregate!r}")
    _check_new(on_new_partition)
    words = aggregate if isinstance(aggregate, str) else f"p{aggregate * 100:.10g}"
    return AggregateDrift(
        name=check_name(name, _named(f"{words}_drift", over=over), column),
        aggregate=Aggregate(sql=column, of=aggregate),
        limits=_drift_limits(max_change, severity, warn_above, error_above),
        absolute=absolute,
        on_new_partition=on_new_partition,
        over=over,
    )


def _named(kind: str, *, over: Over) -> str:
    return kind if over == "partition" else f"run_{kind}"


def _check_new(on_new_partition: OnNewPartition) -> None:
    if on_new_partition not in ("pass", "fail"):
        raise ConfigurationError(f'on_new_partition is "pass" or "fail", not {on_new_partition!r}')


def _where(over: Over) -> str:
    return ", by partition" if over == "partition" else ", over the whole run"


def _check_bounds(least: float | None, most: float | None, *, option: str) -> None:
    if least is None and most is None:
        raise ConfigurationError(f"{option} needs a least or a most value")
    if least is not None and most is not None and not least <= most:
        raise ConfigurationError(f"{option}: nothing is at least {least} and at most {most}")


def _drift_limits(
    max_change: float | None, severity: Severity, warn_above: float | None, error_above: float | None
) -> FailureLimits:
    return limits(
        max_change,
        severity=severity,
        warn_above=warn_above,
        error_above=error_above,
        option="max_change",
        share=False,
    )
