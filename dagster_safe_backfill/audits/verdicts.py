"""Verdicts: the limits of audits, and the result of an audit for each partition."""

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
"""The outcome of an audit for one partition. `"failed"` blocks, and so does `"unmeasured"` if the audit can block."""

SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimits:
    """The numbers above which an audit warns and blocks. None if it never does.

    For numbers of rows, an int is a count and a float is a share of the partition's rows: 1 is one row, 0.01 is 1 %.
    """

    warn_above: float | None = None
    error_above: float | None = None

    def judge(self, value: float, *, of: int | None = None) -> Outcome:
        """Return the outcome for a number.

        Args:
            value: The number that is compared with the limits.
            of: If given, `value` is a number of rows out of these, and limits that are floats are shares of them.
        """
        share = value
        if of is not None:
            # Some rows out of none exceed every share.
            share = value / of if of else (math.inf if value else 0.0)
        levels: Sequence[tuple[Outcome, float | None]] = (("failed", self.error_above), ("warned", self.warn_above))
        for outcome, limit in levels:
            if limit is not None and (share if isinstance(limit, float) else value) > limit:
                return outcome
        return "passed"

    def described(self, *, share: bool) -> str:
        """Return the limits in words. Floats are shown as percentages if `share`, else as plain numbers."""
        parts: list[str] = []
        for word, limit in (("warns", self.warn_above), ("fails", self.error_above)):
            if limit is not None:
                amount = f"{limit:.10g}" if isinstance(limit, int) or not share else f"{limit * 100:.10g} %"
                parts.append(f"{word} above {amount}")
        return " and ".join(parts)


def check_severity(severity: Severity) -> None:
    """Raise if `severity` is unknown.

    Raises:
        ConfigurationError: The severity is neither `"ERROR"` nor `"WARN"`.
    """
    if severity not in ("ERROR", "WARN"):
        raise ConfigurationError(f'severity must be "ERROR" or "WARN", not {severity!r}.')


def limits(
    most: float | None,
    *,
    severity: Severity,
    warn_above: float | None,
    error_above: float | None,
    option: str,
    share: bool = True,
) -> FailureLimits:
    """Return the limits that a factory's arguments give: `most` with a severity, or a limit for each severity.

    Args:
        most: The largest number that passes. Defaults to 0, if no limit is given.
        severity: The effect of a number above `most`: `"ERROR"` blocks, `"WARN"` warns.
        warn_above: The number above which the audit warns.
        error_above: The number above which the audit blocks.
        option: The name of the argument that gave `most`, for messages.
        share: True if a float is a share, which is at most 1.

    Raises:
        ConfigurationError: Both kinds of limits are given, a limit is negative, a share is above 1, or `warn_above` is
            not less than `error_above`.
    """
    check_severity(severity)
    if warn_above is None and error_above is None:
        most = 0 if most is None else most
        warn_above, error_above = (None, most) if severity == "ERROR" else (most, None)
    elif most is not None or severity != "ERROR":
        raise ConfigurationError(f"Give warn_above and error_above, or {option} and severity, not both.")
    for limit in (warn_above, error_above):
        _check_limit(limit, option=option, share=share)
    if warn_above is not None and error_above is not None:
        # A count and a share can only be compared for a known number of rows.
        is_comparable = not share or type(warn_above) is type(error_above)
        if is_comparable and not warn_above < error_above:
            raise ConfigurationError(f"warn_above ({warn_above}) must be less than error_above ({error_above}).")
    return FailureLimits(warn_above=warn_above, error_above=error_above)


def _check_limit(limit: float | None, *, option: str, share: bool) -> None:
    if limit is None:
        return
    # bool is a subclass of int (PEP 285). `not >=` also refuses NaN (IEEE 754).
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
        raise ConfigurationError(f"{option}, warn_above and error_above must be numbers of 0 or more, not {limit!r}.")
    if share and isinstance(limit, float) and limit > 1:
        raise ConfigurationError(
            f"{option}, warn_above and error_above are counts if they are ints and shares if they are floats, and a"
            f" share is at most 1.0, not {limit}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one audit for one partition.

    Attributes:
        outcome: `"passed"`, `"warned"`, `"failed"` or `"unmeasured"`.
        failed_rows: The number of rows that break the rule, tolerated ones included. 0 if rows aren't counted.
        measured: The numbers on which the outcome is based, by name. None stands for NULL.
    """

    outcome: Outcome
    failed_rows: int = 0
    measured: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """The result of one audit: a verdict for each partition.

    Attributes:
        audit: The audit.
        verdicts: The verdicts by partition key. The key of an unpartitioned asset is `"*"`.
        overall: The verdict over all partitions together, for audits with `over="run"`.
        finding: The problem in words, for audits that don't count rows.
        sample: At most ten failing rows, as mappings from column to value.
        failing_rows_sql: A SELECT of all failing rows, for audits that count rows. It runs while the shadow exists.
        published_rows_sql: The same SELECT on the live table, which runs after the publication.
        problem: The reason why the audit could not be measured. None if it was.
        failed_rows: The number of rows that break the rule, each counted once. None if it could not be measured.
            Defaults to the sum over the verdicts, in which a row outside the slice counts once for each partition.
        failed_keys: The partitions that did not pass, warned and unmeasured ones included, in the slice's order.
        blocking_keys: The partitions that this result doesn't allow to publish, in the slice's order.
        passed: True if the audit passed for every partition.
        blocks: True if there are `blocking_keys`.
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
    passed: bool = field(init=False)
    blocks: bool = field(init=False)

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
        # Computed once, because the ledger, the report and the checks read them for each partition.
        object.__setattr__(self, "failed_keys", tuple(failed))
        object.__setattr__(self, "blocking_keys", tuple(blocking))
        object.__setattr__(self, "passed", not failed)
        object.__setattr__(self, "blocks", bool(blocking))
        if self.failed_rows is None and self.problem is None:
            object.__setattr__(self, "failed_rows", rows)

    @classmethod
    def of_batches(cls, parts: Sequence[AuditResult]) -> AuditResult:
        """Return one result from the results of one audit for several batches, which have no partition in common."""
        first, *others = parts
        if not others:
            return first
        # Each batch's SELECT reads that batch's shadow, so none of them returns the failing rows of all.
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
        """Return True if a verdict of this audit blocks the publication of its partition."""
        return verdict.outcome == "failed" or (verdict.outcome == "unmeasured" and self.audit.can_block)


def difference(here: float | None, there: float | None, *, absolute: bool) -> float:
    """Return the difference of two numbers: in their own unit if `absolute`, else as a share of `there`.

    NULL equals NULL and NaN equals NaN. The difference of NULL or NaN and a number is infinite, so that no tolerance
    allows it. So is the share, if `there` is 0 and `here` is not.
    """
    if here is None or there is None:
        return 0.0 if here is there else math.inf
    if here == there or (math.isnan(here) and math.isnan(there)):
        return 0.0
    # Decimal raises InvalidOperation for the difference of two infinities.
    if not math.isfinite(here) or not math.isfinite(there):
        return math.inf
    # In decimals, as the numbers are written: in floats 1.1 - 1.0 > 0.1, so a limit would not include its own value.
    apart = abs(Decimal(repr(here)) - Decimal(repr(there)))
    if absolute:
        return float(apart)
    return float(apart / abs(Decimal(repr(there)))) if there else math.inf
