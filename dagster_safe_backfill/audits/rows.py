"""Audits of rows: rules that each row must keep, and how many may break them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_safe_backfill.audits.base import RowAudit, Value, bounds_in_words, check_name, column_names, listed_names
from dagster_safe_backfill.audits.verdicts import FailureLimits, Severity, limits
from dagster_safe_backfill.errors import ConfigurationError

_SHOWN_VALUES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique(RowAudit):
    """See `unique`. `columns` is empty for the asset's `unique_key`."""

    columns: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """What each row must keep."""
        return f"No two rows share {listed_names(self.columns) if self.columns else 'the unique key'}."


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNull(RowAudit):
    """See `not_null`."""

    columns: tuple[str, ...]

    @property
    def rule(self) -> str:
        """What each row must keep."""
        return f"No NULL in {listed_names(self.columns)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedValues(RowAudit):
    """See `accepted_values`."""

    column: str
    values: tuple[Value, ...]

    @property
    def rule(self) -> str:
        """What each row must keep."""
        shown = ", ".join(map(repr, self.values[:_SHOWN_VALUES]))
        more = len(self.values) - _SHOWN_VALUES
        return f"{self.column} is one of {shown}{f' and {more:,} more' if more > 0 else ''}."


@dataclass(frozen=True, slots=True, kw_only=True)
class InRange(RowAudit):
    """See `in_range`."""

    column: str
    least: Value | None
    most: Value | None

    @property
    def rule(self) -> str:
        """What each row must keep."""
        return f"{self.column} is {bounds_in_words(self.least, self.most)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExpression(RowAudit):
    """See `expression`."""

    sql: str

    @property
    def rule(self) -> str:
        """What each row must keep."""
        return f"Every row: {self.sql}."


@dataclass(frozen=True, slots=True, kw_only=True)
class References(RowAudit):
    """See `references`."""

    columns: tuple[str, ...]
    table: str
    referenced: tuple[str, ...]

    @property
    def rule(self) -> str:
        """What each row must keep."""
        return f"{listed_names(self.columns)} stands in {self.table} ({listed_names(self.referenced)})."


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingRows(RowAudit):
    """See `failing_rows`."""

    sql: str
    about: str = ""

    @property
    def rule(self) -> str:
        """What each row must keep."""
        return self.about or "The query finds no row."


def unique(
    *columns: str,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> Unique:
    """No two rows share these columns; without any, the asset's `unique_key`.

    Counted: every row of the batch whose values stand in another row of the batch, or in a live row outside
    the slice. As in SQL's UNIQUE, a row with NULL in one of the columns equals no other. The `unique_key` is
    stricter: there a NULL fails too, since a row without a key can't be merged, and no failure is tolerated.

    Args:
        columns: Columns whose values identify a row together.
        max_failures: Failing rows that are tolerated in a partition: a count if an int, a share of its rows if a
            float (0.01 is 1 %).
        severity: Whether more than that block ("ERROR") or are shown ("WARN").
        warn_above: In place of the two before: failing rows above which the audit warns.
        error_above: Failing rows above which it blocks; never, if just `warn_above` is given.
        name: The name of the asset check.

    Raises:
        ConfigurationError: The limits can't work together.
    """
    return Unique(
        name=check_name(name, "unique", *(columns or ("key",))),
        columns=columns,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def not_null(
    *columns: str,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> NotNull:
    """None of these columns is NULL. NaN and the empty string aren't NULL.

    Counted: rows with NULL in at least one of them. Limits, severity and name as of `unique`.

    Raises:
        ConfigurationError: No column is named, or the limits can't work together.
    """
    if not columns:
        raise ConfigurationError("not_null needs at least one column")
    return NotNull(
        name=check_name(name, "not_null", *columns),
        columns=columns,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def accepted_values(
    column: str,
    values: Sequence[Value],
    *,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> AcceptedValues:
    """The column holds one of these values. As with SQL's IN, NULL (unknown) passes; add `not_null`.

    Counted: rows with another value. Limits, severity and name as of `unique`.

    Raises:
        ConfigurationError: No value is given, one is None, or the limits can't work together.
    """
    given = () if isinstance(values, str) else tuple(values)
    if not given or not all(map(_is_value, given)):
        raise ConfigurationError(
            f"accepted_values of {column} needs a list of values, other than None and NaN; see not_null"
        )
    return AcceptedValues(
        name=check_name(name, "accepted_values", column),
        column=column,
        values=given,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def in_range(
    column: str,
    least: Value | None = None,
    most: Value | None = None,
    *,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> InRange:
    """The column is at least `least` and at most `most`, both included. As in SQL's CHECK, NULL (unknown) passes.

    Counted: rows below or above. NaN is above every number, as in the warehouse's own order. Limits, severity and
    name as of `unique`.

    Raises:
        ConfigurationError: No bound is given, or the limits can't work together.
    """
    if least is None and most is None:
        raise ConfigurationError(f"in_range of {column} needs a least or a most value")
    if not all(_is_value(bound) for bound in (least, most) if bound is not None):
        raise ConfigurationError(f"in_range of {column}: nothing is at least {least} and at most {most}")
    return InRange(
        name=check_name(name, "in_range", column),
        column=column,
        least=least,
        most=most,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def expression(
    sql: str,
    *,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> RowExpression:
    """The SQL condition holds for every row. As in SQL's CHECK, NULL (unknown) passes.

    Counted: rows for which it is false. Limits, severity and name as of `unique`.
    """
    return RowExpression(
        name=check_name(name, "expression", sql),
        sql=sql,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def references(
    columns: str | Sequence[str],
    *,
    table: str,
    column: str | Sequence[str] | None = None,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> References:
    """Every value stands in the other table, as for SQL's FOREIGN KEY: a row with NULL in it passes.

    Counted: rows whose values don't. The other table is read as it is at the time of the audit. Limits, severity
    and name as of `unique`.

    Args:
        columns: One column of the asset, or several that are looked up together.
        table: `"schema.table"`, or `"table"` in the asset's own schema.
        column: The columns of the other table; the same names, if None.

    Raises:
        ConfigurationError: Both sides don't have the same number of columns, or none.
    """
    own = column_names(columns)
    other = own if column is None else column_names(column)
    if not own or len(own) != len(other):
        raise ConfigurationError(
            f"references needs as many columns here ({listed_names(own)}) as in {table} ({listed_names(other)})"
        )
    return References(
        name=check_name(name, "references", *own, table),
        columns=own,
        table=table,
        referenced=other,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def failing_rows(
    sql: str,
    *,
    name: str,
    description: str = "",
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
) -> FailingRows:
    """A SELECT of your own finds no row.

    In its SQL, `batch` is the rows under audit and `live` the live table; it must return the columns that
    `partition_expr` needs, as `SELECT *` does. Counted: the rows that it returns. A row of no partition of the slice
    counts for each of them. Limits and severity as of `unique`.

    Args:
        sql: One SELECT in the warehouse's dialect.
        name: The name of the asset check.
        description: What the rows must keep, for the check's page.

    Example:
        ```python
        sb.failing_rows(
            "SELECT * FROM batch WHERE day <> CAST(created_at AS DATE)",
            name="created_that_day",
        )
        ```
    """
    return FailingRows(
        name=check_name(name),
        sql=sql,
        about=description,
        limits=_row_limits(max_failures, severity, warn_above, error_above),
    )


def _is_value(value: Value | None) -> bool:
    """Return whether a value can be compared with: not None, nor NaN or NaT, which differ from themselves."""
    return value is not None and value == value  # noqa: PLR0124


def _row_limits(
    max_failures: float | None, severity: Severity, warn_above: float | None, error_above: float | None
) -> FailureLimits:
    return limits(
        max_failures, severity=severity, warn_above=warn_above, error_above=error_above, option="max_failures"
    )
