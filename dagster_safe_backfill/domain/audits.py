"""Audits as values, and their verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dagster_safe_backfill.errors import ConfigurationError

Severity = Literal["ERROR", "WARN"]
Outcome = Literal["passed", "failed", "unmeasured"]

SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """See `unique`. `columns` is empty for the asset's `unique_key`."""

    columns: tuple[str, ...] = ()
    severity: Severity = "ERROR"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNull:
    """See `not_null`."""

    columns: tuple[str, ...]
    severity: Severity = "ERROR"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExpression:
    """See `expression`."""

    sql: str
    severity: Severity = "ERROR"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """See `references`."""

    columns: tuple[str, ...]
    table: str
    referenced: tuple[str, ...]
    severity: Severity = "ERROR"
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCountDrift:
    """See `row_count_drift`."""

    max_change: float
    severity: Severity = "ERROR"
    name: str = ""


Audit = Unique | NotNull | RowExpression | References | RowCountDrift


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one audit for one partition.

    Attributes:
        outcome: Only `"passed"` lets the partition be published, where the audit's severity is ERROR.
        failed_rows: Rows that broke the rule; for a drift, by how many rows the counts differ.
        measured: Numbers that the outcome was drawn from, by name.
    """

    outcome: Outcome
    failed_rows: int = 0
    measured: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """One audit over a whole slice: a verdict for every partition key.

    Attributes:
        audit: What was tested.
        verdicts: By partition key; the key of an unpartitioned asset is None.
        sample: Up to ten failing rows, as mappings from column to value.
        failing_rows_sql: A SELECT of all failing rows, where rows fail one by one; runs while the shadow stands.
        problem: Why the audit could not be measured, if so.
    """

    audit: Audit
    verdicts: Mapping[str, Verdict]
    sample: Sequence[Mapping[str, Any]] = ()
    failing_rows_sql: str | None = None
    problem: str | None = None

    @property
    def failed_keys(self) -> tuple[str, ...]:
        """The partitions that did not pass, unmeasured ones among them, in the slice's order."""
        return tuple(key for key, verdict in self.verdicts.items() if verdict.outcome != "passed")

    @property
    def passed(self) -> bool:
        """Whether the audit passed for every partition."""
        return not self.failed_keys

    @property
    def blocks(self) -> bool:
        """Whether this result forbids publishing: severity ERROR and not passed everywhere."""
        return self.audit.severity == "ERROR" and not self.passed

    @property
    def failed_rows(self) -> int | None:
        """Rows that broke the rule in all partitions; None if unmeasured."""
        if self.problem is not None:
            return None
        return sum(verdict.failed_rows for verdict in self.verdicts.values())


def unique(*columns: str, severity: Severity = "ERROR", name: str | None = None) -> Unique:
    """No two rows share these columns; without any, the asset's `unique_key`.

    Counted: every row of the batch whose values stand in another row of the batch, or in a live row outside
    the slice. As in SQL's UNIQUE, a row with NULL in one of the columns equals no other. The `unique_key` is
    stricter: there a NULL fails too, since a row without a key can't be merged.
    """
    return Unique(columns=columns, severity=severity, name=_named(name, "unique", *(columns or ("key",))))


def not_null(*columns: str, severity: Severity = "ERROR", name: str | None = None) -> NotNull:
    """None of these columns is NULL. NaN and the empty string aren't NULL.

    Counted: rows with NULL in at least one of them.

    Raises:
        ConfigurationError: No column is named.
    """
    if not columns:
        raise ConfigurationError("not_null needs at least one column")
    return NotNull(columns=columns, severity=severity, name=_named(name, "not_null", *columns))


def expression(sql: str, *, severity: Severity = "ERROR", name: str | None = None) -> RowExpression:
    """The SQL condition holds for every row. As in SQL's CHECK, NULL (unknown) passes.

    Counted: rows for which it is false.
    """
    return RowExpression(sql=sql, severity=severity, name=_named(name, "expression", sql))


def references(
    columns: str | Sequence[str],
    *,
    table: str,
    column: str | Sequence[str] | None = None,
    severity: Severity = "ERROR",
    name: str | None = None,
) -> References:
    """Every value stands in the other table, as for SQL's FOREIGN KEY: a row with NULL in it passes.

    Counted: rows whose values don't. The other table is read as it is at the time of the audit.

    Args:
        columns: One column of the asset, or several that are looked up together.
        table: `"schema.table"`, or `"table"` in the asset's own schema.
        column: The columns of the other table; the same names, if None.

    Raises:
        ConfigurationError: Both sides don't have the same number of columns, or none.
    """
    own = _column_names(columns)
    other = own if column is None else _column_names(column)
    if not own or len(own) != len(other):
        raise ConfigurationError(
            f"references needs as many columns here ({listed_names(own)}) as in {table} ({listed_names(other)})"
        )
    return References(
        columns=own,
        table=table,
        referenced=other,
        severity=severity,
        name=_named(name, "references", *own, table),
    )


def row_count_drift(*, max_change: float, severity: Severity = "ERROR", name: str | None = None) -> RowCountDrift:
    """Each partition's row count differs from the live table's by at most this share of it (0.02 is 2 %).

    A partition that live doesn't have passes, as there is nothing to drift from; one that live has and the
    batch lacks is a change of 1. Counted: by how many rows the counts differ, where that is too many.

    Raises:
        ConfigurationError: The share is negative or not a number.
    """
    if not max_change >= 0:
        raise ConfigurationError(f"max_change is a share of 0 or more, not {max_change}")
    return RowCountDrift(max_change=max_change, severity=severity, name=name or "row_count_drift")


def listed_names(names: Sequence[str]) -> str:
    """Return column names for a message."""
    return ", ".join(names) if names else "none"


def _column_names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


_OPERATORS = {
    "<=": " le ",
    ">=": " ge ",
    "<>": " ne ",
    "!=": " ne ",
    "<": " lt ",
    ">": " gt ",
    "=": " eq ",
}


def _named(name: str | None, *parts: str) -> str:
    """Return an asset check's name: Dagster allows letters, digits and underscores."""
    text = name or "_".join(parts)
    for sign, word in _OPERATORS.items():
        text = text.replace(sign, word)
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
