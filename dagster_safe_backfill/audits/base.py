"""Audits as values: what all have in common, and the one of column types."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from dagster_safe_backfill.audits.verdicts import FailureLimits, Severity, Verdict, check_severity
from dagster_safe_backfill.errors import ConfigurationError

Value = str | int | float | bool | Decimal | date | datetime
"""What a column can be compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(ABC):
    """A data test, with a verdict for every partition.

    Attributes:
        name: The name of its asset check, unique on the asset.
    """

    name: str

    @property
    @abstractmethod
    def can_block(self) -> bool:
        """Whether it can forbid publishing."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it demands, in a sentence."""

    @property
    def threshold(self) -> str | None:
        """The limits in words, if it has some."""
        return None

    @property
    def is_over_run(self) -> bool:
        """Whether all partitions of a run have one verdict together."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAudit(Audit):
    """An audit that passes or doesn't, of one severity.

    Attributes:
        severity: Whether a failure blocks ("ERROR") or is shown ("WARN").
    """

    severity: Severity = "ERROR"

    def __post_init__(self) -> None:
        check_severity(self.severity)

    @property
    def can_block(self) -> bool:
        """Whether it can forbid publishing."""
        return self.severity == "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAudit(Audit):
    """An audit that counts the rows that break a rule.

    Attributes:
        limits: How many may, in a partition.
    """

    limits: FailureLimits

    @property
    def can_block(self) -> bool:
        """Whether it can forbid publishing."""
        return self.limits.can_block

    @property
    def description(self) -> str:
        """What it demands, in a sentence."""
        is_strict = self.limits in (FailureLimits(error_above=0), FailureLimits(warn_above=0))
        return self.rule if is_strict else f"{self.rule} Failing rows of a partition: {self.threshold}."

    @property
    def threshold(self) -> str:
        """The limits in words."""
        return self.limits.described(share=True)

    @property
    @abstractmethod
    def rule(self) -> str:
        """What each row must keep, in a sentence."""

    def judge(self, failed_rows: int, *, rows: int) -> Verdict:
        """Return the verdict for a partition of `rows` rows, of which `failed_rows` break the rule."""
        share = failed_rows / rows if rows else 0.0
        measured: dict[str, float | None] = {"rows": rows, "failed_share": share}
        return Verdict(outcome=self.limits.judge_rows(failed_rows, of=rows), failed_rows=failed_rows, measured=measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTypes(GradedAudit):
    """See `column_types`."""

    types: tuple[tuple[str, str], ...]

    @property
    def description(self) -> str:
        """What it demands, in a sentence."""
        return f"Types: {', '.join(f'{column} {kind}' for column, kind in self.types)}."


def column_types(types: Mapping[str, str], *, severity: Severity = "ERROR", name: str | None = None) -> ColumnTypes:
    """The columns have these types, in the warehouse's spelling; synonyms such as TEXT and VARCHAR are one type.

    Every partition has the same verdict. Costs no statement. Columns that aren't named may have any type. Where there
    is a live table, its types are those tested: rows of other types are cast to them unchanged, or refused before any
    audit.

    Raises:
        ConfigurationError: No column is named.
    """
    if not types:
        raise ConfigurationError("column_types needs at least one column")
    return ColumnTypes(name=check_name(name, "column_types"), types=tuple(types.items()), severity=severity)


def bounds_in_words(least: Value | None, most: Value | None) -> str:
    """Return what a value between two bounds is, either of which may be None."""
    words = {"at least": least, "at most": most}
    return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)


def listed_names(names: Sequence[str]) -> str:
    """Return column names for a message."""
    return ", ".join(names) if names else "none"


def column_names(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Return one column or several as a tuple."""
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


def check_name(name: str | None, *parts: str) -> str:
    """Return an asset check's name: Dagster allows letters, digits and underscores."""
    text = name or "_".join(parts)
    for sign, word in _OPERATORS.items():
        text = text.replace(sign, word)
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
