"""compare: the row-level difference of shadow and live, by the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagster_safe_backfill.audits.base import GradedAudit, check_name, column_names, listed_names
from dagster_safe_backfill.audits.verdicts import FailureLimits, Severity, Verdict, limits
from dagster_safe_backfill.errors import ConfigurationError

Limited = tuple[tuple[str, FailureLimits], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """How many rows of a partition differ, by the key.

    Attributes:
        added: Rows that only the shadow has.
        removed: Rows that only live has.
        changed: Rows that both have, with another value in at least one column.
        unchanged: Rows that both have and that are equal, within the tolerance.
        changed_by_column: How many of the changed rows differ in each column.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    changed_by_column: Mapping[str, int]

    @property
    def live_rows(self) -> int:
        """Rows of the live side."""
        return self.removed + self.changed + self.unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(GradedAudit):
    """See `compare`.

    Attributes:
        key: The columns that match rows; empty for the asset's `unique_key`.
        limits: For `"added"`, `"removed"` or `"changed"`, how many rows may be.
        column_limits: For a column, in how many rows it may differ.
    """

    key: tuple[str, ...]
    limits: Limited
    column_limits: Limited
    absolute_tolerance: float
    relative_tolerance: float

    @property
    def description(self) -> str:
        """What it demands, in a sentence."""
        by = listed_names(self.key) if self.key else "the unique key"
        return f"Rows against the live table's, by {by}{f': {self.threshold}' if self.threshold else ', as a report'}."

    @property
    def threshold(self) -> str | None:
        """The limits in words; None for a report."""
        every = [f"{name} rows: {limit.described(share=True)}" for name, limit in self.limits]
        every += [f"rows with another {name}: {limit.described(share=True)}" for name, limit in self.column_limits]
        return "; ".join(every) or None

    def judge(self, found: Differences) -> Verdict:
        """Return the verdict for a partition. Shares are of live's rows there; of no rows, any is too many."""
        counts = {"added": found.added, "removed": found.removed, "changed": found.changed}
        judged = [limit.judge_rows(counts[name], of=found.live_rows) for name, limit in self.limits]
        judged += [
            limit.judge_rows(found.changed_by_column[name], of=found.live_rows) for name, limit in self.column_limits
        ]
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
    """Shadow and live differ, row by row on the key, by no more than this in each partition.

    Without limits it is a report: what was added, removed and changed, and in which columns. NULL equals NULL. A row
    that moved from one partition to another was removed from the one and added to the other. A key
    that is NULL, or that either side has twice, makes it unmeasured, which blocks unless its severity is WARN.

    Args:
        key: Columns that match a row of the shadow to one of live; the asset's `unique_key`, if empty.
        max_added: Rows that live doesn't have: a count if an int, a share of live's rows if a float.
        max_removed: Rows that the shadow doesn't have.
        max_changed: Rows that differ in any column.
        max_changed_by_column: Rows that differ in one column, by its name.
        absolute_tolerance: By how much numbers may differ and count as equal.
        relative_tolerance: The same, as a share of the larger magnitude of the two. As of Python's `math.isclose`,
            either tolerance is enough.
        severity: Whether more than the limits block ("ERROR") or are shown ("WARN").
        name: The name of the asset check.

    Raises:
        ConfigurationError: A limit or a tolerance is negative or not a number.
    """
    for option, value in (("absolute_tolerance", absolute_tolerance), ("relative_tolerance", relative_tolerance)):
        if not value >= 0:
            raise ConfigurationError(f"{option} is a number of 0 or more, not {value!r}")
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
