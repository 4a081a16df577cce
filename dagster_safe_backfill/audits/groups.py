"""Audits of groups: aggregates of each partition, compared with limits or with the live table's aggregates."""

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
"""The group of rows that is aggregated: each partition, or all rows of the run."""
OnNewPartition = Literal["pass", "fail"]

_VALUE = "value"
_NUMBER_WORDS = {"total": "total", "mean": "mean", "distinct": "number of distinct values", "median": "median"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """An aggregate over rows.

    Attributes:
        sql: `"*"` for the number of rows. With `of`, an expression over a row. Otherwise an aggregate in the
            warehouse's SQL, such as `sum(revenue)`.
        of: The aggregate of the expression: a name, or a percentile from 0 to 1. None if `sql` is an aggregate.
    """

    sql: str
    of: Total | float | None = None


ROWS = Aggregate(sql="*")
"""The number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The rows of one group in the shadow or in the live table, as numbers.

    Attributes:
        rows: The number of rows.
        values: The values of the audit's aggregates, by name. None stands for NULL.
    """

    rows: int
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAudit(GradedAudit):
    """The base class of audits over groups of rows, from which you can derive your own.

    A subclass names the aggregates that it needs, and returns a verdict on their values for each partition, or with
    `over="run"` one verdict for all rows of the run. The aggregates of all audits are measured in one scan of each
    table.

    Attributes:
        over: The group of rows that is aggregated: `"partition"` or `"run"`.
        needs_live: True if the aggregates are also measured on the live rows.

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
        # Not super(): dataclass(slots=True) creates a second class, and super() would refer to the first one.
        GradedAudit.__post_init__(self)
        if self.over not in ("partition", "run"):
            raise ConfigurationError(f'over must be "partition" or "run", not {self.over!r}.')

    @property
    def is_over_run(self) -> bool:
        """True if all partitions of a run get the same verdict, measured on all rows of the run."""
        return self.over == "run"

    @property
    def description(self) -> str:
        """The first line of the class's docstring, shown at the asset check."""
        return (type(self).__doc__ or type(self).__name__).partition("\n")[0]

    @abstractmethod
    def aggregates(self) -> Mapping[str, str | Aggregate]:
        """Return the aggregates to measure by name, each as SQL over the columns, such as `sum(revenue)`."""

    @abstractmethod
    def judge(self, shadow: Side, live: Side | None) -> Verdict:
        """Return the verdict for one group. With `severity="WARN"`, the outcome `"failed"` becomes `"warned"`.

        Args:
            shadow: The staged rows. If the group has no rows, its counts are 0 and all other aggregates are None.
            live: The live rows. None if `needs_live` is false.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateBetween(GroupAudit):
    """See `aggregate_between` and `row_count_between`."""

    aggregate: Aggregate
    least: float | None
    most: float | None

    @property
    def description(self) -> str:
        """The rule and the limits in a sentence, shown at the asset check."""
        what = "The number of rows" if self.aggregate == ROWS else self.aggregate.sql
        return f"{what} is {self.threshold}{_where(self.over)}."

    @property
    def threshold(self) -> str:
        """The smallest and the largest value in words."""
        return bounds_in_words(self.least, self.most)

    def aggregates(self) -> Mapping[str, Aggregate]:
        """Return the audit's only aggregate."""
        return {_VALUE: self.aggregate}

    def judge(self, shadow: Side, live: Side | None) -> Verdict:  # noqa: ARG002
        """Return `"passed"` if the value is in the range. NULL and NaN fail."""
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
        """True if there is a limit above which the audit blocks."""
        return self.limits.error_above is not None

    @property
    def description(self) -> str:
        """The rule and the limits in a sentence, shown at the asset check."""
        return f"{self.what.capitalize()} against the live table's{_where(self.over)}: {self.threshold}."

    @property
    def threshold(self) -> str:
        """The limits in words."""
        return f"{'difference' if self.absolute else 'change'} {self.limits.described(share=not self.absolute)}"

    @property
    def what(self) -> str:
        """The compared aggregate in words, for example `mean of revenue`."""
        if self.aggregate == ROWS:
            return "number of rows"
        of = self.aggregate.of
        words = f"percentile {of:.10g}" if isinstance(of, int | float) else _NUMBER_WORDS.get(of or "", "value")
        return f"{words} of {self.aggregate.sql}"

    def aggregates(self) -> Mapping[str, Aggregate]:
        """Return the audit's only aggregate."""
        return {_VALUE: self.aggregate}

    def judge(self, shadow: Side, live: Side | None) -> Verdict:
        """Return the outcome of the difference between the staged and the live value."""
        assert live is not None
        here, there = shadow.values[_VALUE], live.values[_VALUE]
        apart = difference(here, there, absolute=self.absolute)
        # As a share of no live rows every change is infinite, so no limit could let a new partition pass.
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
    """Require that each partition has at least `least` and at most `most` rows, both included.

    A partition without rows has the count 0, so `row_count_between(1)` refuses empty partitions.

    Args:
        least: The smallest number of rows that passes. None for no lower limit.
        most: The largest number of rows that passes. None for no upper limit.
        over: The rows that are counted: those of each `"partition"`, or all rows of the `"run"`.
        severity: The effect of another number: `"ERROR"` blocks the publication, `"WARN"` only warns.
        name: The name of the asset check. Defaults to a name made of the audit's arguments.

    Raises:
        ConfigurationError: Neither `least` nor `most` is given, or `least` is above `most`.
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
    """Require that an aggregate of each partition is at least `least` and at most `most`, both included.

    NULL fails, for example the sum of no rows.

    Args:
        sql: An aggregate in the warehouse's SQL, such as `sum(cost) / sum(revenue)`.
        least: The smallest value that passes. None for no lower limit.
        most: The largest value that passes. None for no upper limit.
        over: The rows that are aggregated: those of each `"partition"`, or all rows of the `"run"`.
        severity: The effect of another value: `"ERROR"` blocks the publication, `"WARN"` only warns.
        name: The name of the asset check. Defaults to a name made of the audit's arguments.

    Raises:
        ConfigurationError: Neither `least` nor `most` is given, or `least` is above `most`.
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
    """Require that the row count of each partition is near that of the live partition.

    The change is a share of the live partition's row count: 0.02 is 2 %. If a partition has live rows and no staged
    rows, the change is 1.

    Args:
        max_change: The largest change that passes. Defaults to 0.
        absolute: True if limits are differences in rows, not shares.
        over: See `aggregate_drift`.
        on_new_partition: See `aggregate_drift`.
        severity: See `aggregate_drift`.
        warn_above: See `aggregate_drift`.
        error_above: See `aggregate_drift`.
        name: See `aggregate_drift`.

    Raises:
        ConfigurationError: A limit is negative or not a number, or the limits contradict each other.
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
    """Require that an aggregate of each partition is near that of the live partition.

    The change is a share of the live value: 0.02 is 2 %. Aggregates ignore NULLs, as in SQL. If only one of the two
    partitions has a value, because the other has no rows or only NULLs, the change is infinite. If neither has a value,
    the change is 0.

    Args:
        column: A column, or a SQL expression over a row.
        aggregate: `"total"`, `"mean"`, `"distinct"` (the number of distinct values), `"median"`, or a percentile from 0
            to 1, such as 0.95. Percentiles are interpolated, as by SQL's PERCENTILE_CONT.
        max_change: The largest change that passes. Defaults to 0.
        absolute: True if limits are differences in the aggregate's own unit, not shares of the live value.
        over: The rows that are aggregated: those of each `"partition"`, or all rows of the `"run"`.
        on_new_partition: The outcome for a partition that has staged rows and no live rows: `"pass"` or `"fail"`.
        severity: The effect of a change above `max_change`: `"ERROR"` blocks the publication, `"WARN"` only warns.
        warn_above: The change above which the audit warns. Replaces `max_change` and `severity`.
        error_above: The change above which the audit blocks. Replaces `max_change` and `severity`. If only `warn_above`
            is given, the audit never blocks.
        name: The name of the asset check. Defaults to a name made of the audit's arguments.

    Raises:
        ConfigurationError: The aggregate is unknown, a limit is negative or not a number, or the limits contradict each
            other.
    """
    if isinstance(aggregate, str):
        is_known = aggregate in _NUMBER_WORDS
    else:  # bool is a subclass of int (PEP 285)
        is_known = isinstance(aggregate, int | float) and not isinstance(aggregate, bool) and 0 <= aggregate <= 1  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
    if not is_known:
        known = ", ".join(_NUMBER_WORDS)
        raise ConfigurationError(f"aggregate must be one of {known}, or a percentile from 0 to 1, not {aggregate!r}.")
    _check_new(on_new_partition)
    # Rounded to ten digits, because 0.29 * 100 is 28.999999999999996 in floats.
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
        raise ConfigurationError(f'on_new_partition must be "pass" or "fail", not {on_new_partition!r}.')


def _where(over: Over) -> str:
    return ", by partition" if over == "partition" else ", over the whole run"


def _check_bounds(least: float | None, most: float | None, *, option: str) -> None:
    if least is None and most is None:
        raise ConfigurationError(f"{option} needs a value for least or for most.")
    # Not `least > most`, which would let NaN pass (IEEE 754).
    if least is not None and most is not None and not least <= most:
        raise ConfigurationError(f"{option}: nothing is at least {least} and at most {most}.")


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
