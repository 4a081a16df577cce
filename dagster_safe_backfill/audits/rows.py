"""Audits of rows: a rule for each row, and limits for the number of rows that break it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_safe_backfill.audits.base import RowAudit, Value, bounds_in_words, check_name, column_names, listed_names
from dagster_safe_backfill.audits.verdicts import FailureLimits, Severity, limits
from dagster_safe_backfill.errors import ConfigurationError

_SHOWN_VALUES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique(RowAudit):
    """See `unique`. If `columns` is empty, the columns are the asset's `unique_key`."""

    columns: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The rule for each row, in a sentence."""
        return f"No two rows share {listed_names(self.columns) if self.columns else 'the unique key'}."


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNull(RowAudit):
    """See `not_null`."""

    columns: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The rule for each row, in a sentence."""
        return f"No NULL in {listed_names(self.columns)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedValues(RowAudit):
    """See `accepted_values`."""

    column: str
    values: tuple[Value, ...]

    @property
    def rule(self) -> str:
        """The rule for each row, in a sentence."""
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
        """The rule for each row, in a sentence."""
        return f"{self.column} is {bounds_in_words(self.least, self.most)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExpression(RowAudit):
    """See `expression`."""

    sql: str

    @property
    def rule(self) -> str:
        """The rule for each row, in a sentence."""
        return f"Every row: {self.sql}."


@dataclass(frozen=True, slots=True, kw_only=True)
class References(RowAudit):
    """See `references`."""

    columns: tuple[str, ...]
    table: str
    referenced: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The rule for each row, in a sentence."""
        return f"{listed_names(self.columns)} occurs in {self.table} ({listed_names(self.referenced)})."


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingRows(RowAudit):
    """See `failing_rows`."""

    sql: str
    about: str = ""

    @property
    def rule(self) -> str:
        """The rule for each row, in a sentence."""
        return self.about or "The query finds no row."


def unique(
    *columns: str,
    max_failures: float | None = None,
    severity: Severity = "ERROR",
    warn_above: float | None = None,
    error_above: float | None = None,
    name: str | None = None,
) -> Unique:
    """Require that no two rows have the same values in these columns.

    A row fails if another row of the batch, or a live row outside the slice, has the same values. Each of the rows
    counts. As in SQL's UNIQUE, a row with NULL in one of the columns equals no other row. The audit of the `unique_key`
    is stricter: a NULL fails too, since a row without a key can't be merged, and no failing row is tolerated.

    Args:
        columns: The columns whose values together identify a row. Defaults to the asset's `unique_key`.
        max_failures: The most failing rows in a partition that pass: a count if an int, a share of the partition's rows
            if a float (0.01 is 1 %). Defaults to 0.
        severity: The effect of more failing rows: `"ERROR"` blocks the publication, `"WARN"` only warns.
        warn_above: The failing rows above which the audit warns. Replaces `max_failures` and `severity`.
        error_above: The failing rows above which the audit blocks. Replaces `max_failures` and `severity`. If only
            `warn_above` is given, the audit never blocks.
        name: The name of the asset check. Defaults to a name made of the audit's arguments.

    Raises:
        ConfigurationError: A limit is negative, a share is above 1, or the limits contradict each other.
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
    """Require that none of these columns is NULL. NaN and the empty string aren't NULL.

    A row fails if at least one of the columns is NULL. For the other arguments, see `unique`.

    Raises:
        ConfigurationError: No column is named, or one of the reasons listed at `unique`.
    """
    if not columns:
        raise ConfigurationError("not_null needs at least one column.")
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
    """Require that a column has one of these values.

    A row fails if it has another value. As with SQL's IN, NULL passes; add `not_null` to refuse it. For the other
    arguments, see `unique`.

    Args:
        column: A column, or a SQL expression over a row.
        values: The accepted values.
        max_failures: See `unique`.
        severity: See `unique`.
        warn_above: See `unique`.
        error_above: See `unique`.
        name: See `unique`.

    Raises:
        ConfigurationError: No value is given, one is None or NaN, or one of the reasons listed at `unique`.
    """
    # A text is a sequence of letters: "open" would accept o, p, e and n.
    given = () if isinstance(values, str) else tuple(values)
    # In SQL, NOT IN is never true if the list has a NULL, so such an audit could never fail.
    if not given or not all(map(_is_value, given)):
        raise ConfigurationError(
            f"accepted_values of {column} needs a list of values, none of which is None or NaN."
            " To refuse NULL, use not_null."
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
    """Require that a column is at least `least` and at most `most`, both included.

    A row fails if its value is below or above. As in SQL's CHECK, NULL passes. NaN is above every number, as in the
    warehouse's own order. For the other arguments, see `unique`.

    Args:
        column: A column, or a SQL expression over a row.
        least: The smallest value that passes. None for no lower limit.
        most: The largest value that passes. None for no upper limit.
        max_failures: See `unique`.
        severity: See `unique`.
        warn_above: See `unique`.
        error_above: See `unique`.
        name: See `unique`.

    Raises:
        ConfigurationError: Neither `least` nor `most` is given, one is NaN, or one of the reasons listed at `unique`.
    """
    if least is None and most is None:
        raise ConfigurationError(f"in_range of {column} needs a value for least or for most.")
    if not all(_is_value(bound) for bound in (least, most) if bound is not None):
        raise ConfigurationError(f"in_range of {column}: nothing is at least {least} and at most {most}.")
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
    """Require that a SQL condition holds for every row.

    A row fails if the condition is false for it. As in SQL's CHECK, a row for which it is NULL passes. For the other
    arguments, see `unique`.

    Args:
        sql: A condition over the columns of a row, in the warehouse's dialect.
        max_failures: See `unique`.
        severity: See `unique`.
        warn_above: See `unique`.
        error_above: See `unique`.
        name: See `unique`.

    Raises:
        ConfigurationError: One of the reasons listed at `unique`.
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
    """Require that the values of columns occur in another table.

    A row fails if no row of the other table has its values. As for SQL's FOREIGN KEY, a row with NULL in one of the
    columns passes. The other table is read as it is when the audit runs. If it is the asset's own table, it is read as
    it will be after the publication. For the other arguments, see `unique`.

    Args:
        columns: One column of the asset, or several whose values are looked up together.
        table: The other table: `"schema.table"`, or `"table"` in the asset's own schema.
        column: The columns of the other table. Defaults to the same names.
        max_failures: See `unique`.
        severity: See `unique`.
        warn_above: See `unique`.
        error_above: See `unique`.
        name: See `unique`.

    Raises:
        ConfigurationError: The numbers of columns differ, no column is named, or one of the reasons listed at `unique`.
    """
    own = column_names(columns)
    other = own if column is None else column_names(column)
    if not own or len(own) != len(other):
        raise ConfigurationError(
            f"references needs as many columns here ({listed_names(own)}) as in {table} ({listed_names(other)})."
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
    """Require that a SELECT of your own returns no row.

    In its SQL, `batch` is the audited rows and `live` is the live table. It must return the columns that
    `partition_expr` needs, as `SELECT *` does. Each row that it returns counts as failing in its partition. A row
    outside the slice counts in every partition of the slice. For the other arguments, see `unique`.

    Args:
        sql: One SELECT in the warehouse's dialect.
        name: The name of the asset check.
        description: The rule in a sentence, shown at the asset check.
        max_failures: See `unique`.
        severity: See `unique`.
        warn_above: See `unique`.
        error_above: See `unique`.

    Raises:
        ConfigurationError: One of the reasons listed at `unique`.

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
    """Return True if a column can be compared with a value: it is not None, NaN or NaT."""
    # NaN and NaT differ from themselves.
    return value is not None and value == value  # noqa: PLR0124


def _row_limits(
    max_failures: float | None, severity: Severity, warn_above: float | None, error_above: float | None
) -> FailureLimits:
    return limits(
        max_failures, severity=severity, warn_above=warn_above, error_above=error_above, option="max_failures"
    )
