"""The audit that compares the rows of a shadow with live rows, matched by a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagster_safe_backfill.audits.base import GradedAudit, check_name, column_names, listed_names
from dagster_safe_backfill.audits.verdicts import FailureLimits, Severity, Verdict, limits
from dagster_safe_backfill.errors import ConfigurationError

# Pairs and not a dict, so that audits, and the options that hold them, have a hash.
Limited = tuple[tuple[str, FailureLimits], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """The numbers of rows of a partition that differ between the shadow and the live table.

    Attributes:
        added: Rows that only the shadow has.
        removed: Rows that only the live table has.
        changed: Rows that both have, with different values in at least one column.
        unchanged: Rows that both have, with equal values within the tolerances.
        changed_by_column: The number of rows with different values in each column, by column name.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    changed_by_column: Mapping[str, int]

    @property
    def live_rows(self) -> int:
        """The number of rows in the live table."""
        return self.removed + self.changed + self.unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(GradedAudit):
    """See `compare`.

    Attributes:
        key: The columns by which rows are matched. Empty for the asset's `unique_key`.
        limits: The limits of `"added"`, `"removed"` and `"changed"` rows.
        column_limits: The limits of rows with different values in a column, by column name.
        absolute_tolerance: The largest difference within which numbers are equal.
        relative_tolerance: The same, as a share of the larger of the two absolute values.
    """

    key: tuple[str, ...]
    limits: Limited
    column_limits: Limited
    absolute_tolerance: float
    relative_tolerance: float

    @property
    def description(self) -> str:
        """The rule and the limits in a sentence, shown at the asset check."""
        by = listed_names(self.key) if self.key else "the unique key"
        return f"Rows against the live table's, by {by}{f': {self.threshold}' if self.threshold else ', as a report'}."

    @property
    def threshold(self) -> str | None:
        """The limits in words. None if there are no limits, so that the audit only reports."""
        every = [f"{name} rows: {limit.described(share=True)}" for name, limit in self.limits]
        every += [f"rows with another {name}: {limit.described(share=True)}" for name, limit in self.column_limits]
        return "; ".join(every) or None

    def judge(self, found: Differences) -> Verdict:
        """Return the verdict for a partition. Limits that are floats are shares of its live rows."""
        counts = {"added": found.added, "removed": found.removed, "changed": found.changed}
        judged = [limit.judge(counts[name], of=found.live_rows) for name, limit in self.limits]
        judged += [limit.judge(found.changed_by_column[name], of=found.live_rows) for name, limit in self.column_limits]
        outcome = "failed" if "failed" in judged else "warned" if "warned" in judged else "passed"
        columns = {f"changed_{name}": count for name, count in found.changed_by_column.items() if count}
        return Verdict(outcome=outcome, measured={**counts, "unchanged": found.unchanged, **columns})


def compare(
    *,
    key: str | Sequence[str] = (),
    max_added: float | None = None,
    max_removed: float | None = None,
    max_changed: float | None = None,
    max_changed_by_column: Mapping[str, float] | None = None,
    absolute_tolerance: float = 0.0,
    relative_tolerance: float = 0.0,
    severity: Severity = "ERROR",
    name: str = "compare",
) -> Comparison:
    """Compare the rows of the shadow with the live rows of each partition, matched by a key.

    The audit reports the numbers of added, removed and changed rows, and how many rows differ in each column. It fails
    only for the limits that are given. NULL equals NULL. A row that moves to another partition is removed from one
    partition and added to the other. If a key is NULL or occurs twice in the shadow or in the live rows, the audit is
    unmeasured, which blocks the publication unless `severity` is `"WARN"`.

    Limits are counts if they are ints, and shares of the partition's live rows if they are floats (0.02 is 2 %).

    Args:
        key: The columns by which rows are matched. Defaults to the asset's `unique_key`.
        max_added: The most rows that only the shadow has.
        max_removed: The most rows that only the live table has.
        max_changed: The most rows that differ in at least one column.
        max_changed_by_column: The most rows that differ in a column, by column name.
        absolute_tolerance: The largest difference within which numbers are equal.
        relative_tolerance: The same, as a share of the larger of the two absolute values. As for Python's
            `math.isclose`, numbers are equal if they are within one of the two tolerances.
        severity: The effect of exceeding a limit: `"ERROR"` blocks the publication, `"WARN"` only warns.
        name: The name of the asset check.

    Raises:
        ConfigurationError: A limit or a tolerance is negative or not a number, or a share is above 1.
    """
    for option, value in (("absolute_tolerance", absolute_tolerance), ("relative_tolerance", relative_tolerance)):
        # Not `value < 0`, which would let NaN pass: every comparison with NaN is false (IEEE 754).
        if not value >= 0:
            raise ConfigurationError(f"{option} must be a number of 0 or more, not {value!r}.")
    rows = {"added": max_added, "removed": max_removed, "changed": max_changed}
    return Comparison(
        name=check_name(name),
        key=column_names(key),
        limits=_limited(rows, "max_", severity),
        column_limits=_limited(max_changed_by_column or {}, "max_changed_by_column of ", severity),
        absolute_tolerance=absolute_tolerance,
        relative_tolerance=relative_tolerance,
        severity=severity,
    )


def _limited(given: Mapping[str, float | None], option: str, severity: Severity) -> Limited:
    return tuple(
        (
            name,
            limits(most, severity=severity, warn_above=None, error_above=None, option=f"{option}{name}"),
        )
        for name, most in given.items()
        if most is not None
    )
