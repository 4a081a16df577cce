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
        levels: Sequence[tuple[Outcome, float | None]] = (("failed", self.error_above), ("warned", self.warn_above))
        for outcome, limit in levels:
            if limit is not None and (share if isinstance(limit, float) else count) > limit:
                return outcome
        return "passed"

    def described(self, *, share: bool) -> str:
        """Return the limits in words; floats are shares if `share`, else plain numbers."""
        parts: list[str] = []
        for word, limit in (("warns", self.warn_above), ("fails", self.error_above)):
            if limit is not None:
                amount = f"{limit:.10g}" if isinstance(limit, int) or not share else f"{limit * 100:.10g} %"
                parts.append(f"{word} above {amount}")
        return " and ".join(parts)


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
        failed_rows: Rows that broke the rule, each counted once; None if unmeasured. If it isn't given, those that the
            verdicts count: more than one of them counts a row that belongs to no partition.
        failed_keys: The partitions that did not pass, warned and unmeasured ones among them, in the slice's order.
        blocking_keys: The partitions that this result forbids to publish.
    """

    audit: Audit
    verdicts: Mapping[str, Verdict]
    overall: Verdict | None = None
    finding: str | None = None
    sample: Sequence[Mapping[str, Any]] = ()
    failing_rows_sql: str | None = None
    published_rows_sql: str | None = None
    problem: str | None = None
    failed_rows: int | None = None
    failed_keys: tuple[str, ...] = field(init=False)
    blocking_keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        failed: list[str] = []
        blocking: list[str] = []
        rows = 0
        for key, verdict in self.verdicts.items():
            rows += verdict.failed_rows
            if verdict.outcome != "passed":
                failed.append(key)
                if self.is_blocking(verdict):
                    blocking.append(key)
        object.__setattr__(self, "failed_keys", tuple(failed))
        object.__setattr__(self, "blocking_keys", tuple(blocking))
        if self.failed_rows is None and self.problem is None:
            object.__setattr__(self, "failed_rows", rows)

    @classmethod
    def of_batches(cls, parts: Sequence[AuditResult]) -> AuditResult:
        """Return the result of one audit over all of several batches, which are distinct partitions."""
        first, *others = parts
        if not others:
            return first
        shown = next((part for part in parts if part.failing_rows_sql is not None), first)
        problems = list(dict.fromkeys(part.problem for part in parts if part.problem is not None))
        measured = [part.failed_rows for part in parts if part.failed_rows is not None]
        findings = list(dict.fromkeys(part.finding for part in parts if part.finding is not None))
        return cls(
            audit=first.audit,
            verdicts={key: verdict for part in parts for key, verdict in part.verdicts.items()},
            finding="; ".join(findings) or None,
            sample=[row for part in parts for row in part.sample][:SAMPLE_SIZE],
            failing_rows_sql=shown.failing_rows_sql,
            published_rows_sql=shown.published_rows_sql,
            problem="; ".join(problems) or None,
            failed_rows=sum(measured) if measured else None,
        )

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
