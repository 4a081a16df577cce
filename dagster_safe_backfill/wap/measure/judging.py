"""What users' audits return and raise, checked before it is reported."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, SupportsIndex, get_args

from dagster_safe_backfill.audits.verdicts import Outcome, Verdict
from dagster_safe_backfill.errors import SafeBackfillError
from dagster_safe_backfill.redaction import foreign_text, is_masking, masked
from dagster_safe_backfill.wap.measure.readings import Unmeasured


def checked(verdict: Any) -> Verdict:
    """Return the verdict of a user's audit with its numbers as Python's own.

    Raises:
        Unmeasured: `judge` returned something else. An outcome that isn't known would otherwise count as passed.
    """
    if not isinstance(verdict, Verdict) or verdict.outcome not in get_args(Outcome):
        raise Unmeasured(
            f"judge returned {masked(repr(verdict))}, not a Verdict whose outcome is one of {get_args(Outcome)}"
        )
    try:
        measured = {str(name): number(value, str(name)) for name, value in verdict.measured.items()}
        return replace(verdict, failed_rows=int(verdict.failed_rows), measured=measured)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unmeasured(f"judge returned {masked(repr(verdict))}: {foreign_text(error)}") from error


def number(value: Any, name: str) -> float | None:
    """Return a number as Python's own.

    Raises:
        Unmeasured: The value isn't a number.
    """
    if value is None or isinstance(value, int | float):
        return value
    # NumPy's integers are not `int`, and a warehouse returns exact sums as `Decimal`.
    if isinstance(value, SupportsIndex):
        return int(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise Unmeasured(f"{name} is {masked(repr(value))}, which is not a number")


def said(error: Exception) -> str:
    """Return what an error says. That of a user's audit gets values of rows."""
    if isinstance(error, SafeBackfillError):
        return str(error)
    return foreign_text(error) if is_masking() else f"{type(error).__name__}: {error}"
