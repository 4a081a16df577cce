"""Verdicts: how much is too much, and what an audit found for each partition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from dagster_safe_backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from dagster_safe_backfill.audits.base import Audit

Severity = Literal["ERROR", "WARN"]
Outcome = Literal["passed", "warned", "failed", "unmeasured"]
"""Only `"failed"` and, where the audit can block, `"unmeasured"` forbid publishing."""

SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimits:
    """From where on a number is shown as a warning, and from where on it blocks.

    Of rows, an int is a count and a float a share of the partition's rows: 1 is one row, 0.01 is 1 %.
    """

    warn_above: float | None = None
    error_above: float | None = None

    @property
    def can_block(self) -> bool:
        """Whether some number forbids publishing."""
        return self.error_above is not None

    def judge(self, value: float) -> Outcome:
        """Return the outcome for a number that is compared as it is."""
        return self._outcome(value, value)

    def judge_rows(self, rows: int, *, of: int) -> Outcome:
        """Return the outcome for a number of rows out of `of`."""
        # Of no rows at all, some are above any share.
        share = rows / of if of else (math.inf if rows else 0.0)
        return self._outcome(rows, share)

    def _outcome(self, count: float, share: float) -> Outcome:
        if _is_above(self.error_above, count, share):
            return "failed"
        return "warned" if _is_above(self.warn_above, count, share) else "passed"

    def described(self, *, share: bool) -> str:
        """Return the limits in words; floats are shares if `share`, else plain numbers."""
        parts = [
            f"{word} above {_amount(limit, share=share)}"
            for word, limit in (("warns", self.warn_above), ("fails", self.error_above))
            if limit is not None
        ]
        return " and ".join(parts)


def _is_above(limit: float | None, count: float, share: float) -> bool:
    return limit is not None and (share if isinstance(limit, float) else count) > limit


def _amount(limit: float, *, share: bool) -> str:
    return f"{limit:.10g}" if isinstance(limit, int) or not share else f"{limit * 100:.10g} %"


def check_severity(severity: Severity) -> None:
    """Refuse what is no severity, as it would block nothing.

    Raises:
        ConfigurationError: It is none.
    """
    if severity not in ("ERROR", "WARN"):
        raise ConfigurationError(f'severity is "ERROR" or "WARN", not {severity!r}')


def limits(
    most: float | None,
    *,
    severity: Severity,
    warn_above: float | None,
    error_above: float | None,
    option: str,
    share: bool = True,
) -> FailureLimits:
    """Return limits from what a factory was given: `most` with a severity, or one limit for each severity.

    Raises:
        ConfigurationError: Both ways at once, a limit below 0, a share above 1, or a warning that comes too late.
    """
    check_severity(severity)
    if warn_above is None and error_above is None:
        most = 0 if most is None else most
        warn_above, error_above = (None, most) if severity == "ERROR" else (most, None)
    elif most is not None or severity != "ERROR":
        raise ConfigurationError(f"give warn_above and error_above, or {option} and severity, not both")
    for limit in (warn_above, error_above):
        _check_limit(limit, option=option, share=share)
    if warn_above is not None and error_above is not None:
        is_comparable = not share or type(warn_above) is type(error_above)
        if is_comparable and not warn_above < error_above:
            raise ConfigurationError(f"warn_above ({warn_above}) must be less than error_above ({error_above})")
    return FailureLimits(warn_above=warn_above, error_above=error_above)


def _check_limit(limit: float | None, *, option: str, share: bool) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not limit >= 0:
        raise ConfigurationError(f"{option}, warn_above and error_above are numbers of 0 or more, not {limit!r}")
    if share and isinstance(limit, float) and limit > 1:
        raise ConfigurationError(
            f"{option}, warn_above and error_above are counts if ints and shares if floats, and a share is at most"
            f" 1.0, not {limit}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one audit for one partition.

    Attributes:
        outcome: `"passed"`, `"warned"`, `"failed"` or `"unmeasured"`.
        failed_rows: Rows that broke the rule, tolerated ones among them; 0 for audits that don't count rows.
        measured: Numbers that the outcome was drawn from, by name; None where SQL gave NULL.
    """

    outcome: Outcome
    failed_rows: int = 0
    measured: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """One audit over a whole slice: a verdict for every partition key.

    Attributes:
        audit: What was tested.
        verdicts: By partition key; that of an unpartitioned asset is `"*"`.
        overall: What was measured over all partitions together, where that was asked.
        finding: What is wrong in words, for audits that don't count rows.
        sample: Up to ten failing rows, as mappings from column to value.
        failing_rows_sql: A SELECT of all failing rows, where rows fail one by one; runs while the shadow stands.
        published_rows_sql: The same of the live table, for when the rows have been published and the shadow is gone.
        problem: Why the audit could not be measured, if so.
        stray_rows: Failing rows of no partition, which the verdict of each counts.
        parts: The results that this one is of, if it is one of several batches.
    """

    audit: Audit
    verdicts: Mapping[str, Verdict]
    overall: Verdict | None = None
    finding: str | None = None
    sample: Sequence[Mapping[str, Any]] = ()
    failing_rows_sql: str | None = None
    published_rows_sql: str | None = None
    problem: str | None = None
    stray_rows: int = 0
    parts: Sequence[AuditResult] = ()

    @classmethod
    def of_batches(cls, parts: Sequence[AuditResult]) -> AuditResult:
        """Return the result of one audit over all of several batches, which are distinct partitions."""
        first, *others = parts
        if not others:
            return first
        shown = next((part for part in parts if part.failing_rows_sql is not None), first)
        problems = list(dict.fromkeys(part.problem for part in parts if part.problem is not None))
        findings = list(dict.fromkeys(part.finding for part in parts if part.finding is not None))
        return cls(
            audit=first.audit,
            verdicts={key: verdict for part in parts for key, verdict in part.verdicts.items()},
            finding="; ".join(findings) or None,
            sample=[row for part in parts for row in part.sample][:SAMPLE_SIZE],
            failing_rows_sql=shown.failing_rows_sql,
            published_rows_sql=shown.published_rows_sql,
            problem="; ".join(problems) or None,
            parts=tuple(parts),
        )

    @property
    def failed_keys(self) -> tuple[str, ...]:
        """The partitions that did not pass, warned and unmeasured ones among them, in the slice's order."""
        return tuple(key for key, verdict in self.verdicts.items() if verdict.outcome != "passed")

    @property
    def blocking_keys(self) -> tuple[str, ...]:
        """The partitions that this result forbids to publish."""
        return tuple(key for key, verdict in self.verdicts.items() if self.is_blocking(verdict))

    def is_blocking(self, verdict: Verdict) -> bool:
        """Whether a verdict of this audit forbids publishing."""
        return verdict.outcome == "failed" or (verdict.outcome == "unmeasured" and self.audit.can_block)

    @property
    def passed(self) -> bool:
        """Whether the audit passed for every partition."""
        return not self.failed_keys

    @property
    def blocks(self) -> bool:
        """Whether this result forbids publishing."""
        return bool(self.blocking_keys)

    @property
    def failed_rows(self) -> int | None:
        """Rows that broke the rule in all partitions; None if unmeasured."""
        if self.parts:
            return sum(part.failed_rows or 0 for part in self.parts)
        if self.problem is not None:
            return None
        counted_again = self.stray_rows * (len(self.verdicts) - 1)
        return sum(verdict.failed_rows for verdict in self.verdicts.values()) - counted_again


def difference(here: float | None, there: float | None, *, absolute: bool) -> float:
    """Return by how much `here` differs from `there`: plainly, or as a share of `there`.

    NULL equals NULL and NaN equals NaN; one of them and a number, or 0 and another number as a share, differ
    infinitely, so that no tolerance hides them.
    """
    if here is None or there is None:
        return 0.0 if here is there else math.inf
    if here == there or (math.isnan(here) and math.isnan(there)):
        return 0.0
    if not math.isfinite(here) or not math.isfinite(there):
        return math.inf
    # As written: in floats 1.1 is more than 0.1 above 1.0, and an edge would not be included.
    apart = abs(Decimal(repr(here)) - Decimal(repr(there)))
    if absolute:
        return float(apart)
    return float(apart / abs(Decimal(repr(there)))) if there else math.inf
