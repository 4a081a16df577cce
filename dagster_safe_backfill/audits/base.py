"""The base classes of audits, and the audit of column types."""

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
"""The values that a column can be compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(ABC):
    """A test of data that gives a verdict for each partition.

    Attributes:
        name: The name of its asset check, unique on the asset.
    """

    name: str

    @property
    @abstractmethod
    def can_block(self) -> bool:
        """True if the audit can block a publication."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The rule of the audit in a sentence, shown at its asset check."""

    @property
    def threshold(self) -> str | None:
        """The limits in words. None if the audit has no limits."""
        return None

    @property
    def is_over_run(self) -> bool:
        """True if all partitions of a run get the same verdict, measured on all rows of the run."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAudit(Audit):
    """An audit that passes or fails.

    Attributes:
        severity: The effect of a failure: `"ERROR"` blocks the publication, `"WARN"` only warns.
    """

    severity: Severity = "ERROR"

    def __post_init__(self) -> None:
        check_severity(self.severity)

    @property
    def can_block(self) -> bool:
        """True if the severity is `"ERROR"`."""
        return self.severity == "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAudit(Audit):
    """An audit that counts the rows that break a rule.

    Attributes:
        limits: The numbers or shares of failing rows in a partition above which the audit warns or blocks.
    """

    limits: FailureLimits

    @property
    def can_block(self) -> bool:
        """True if there is a limit above which the audit blocks."""
        return self.limits.error_above is not None

    @property
    def description(self) -> str:
        """The rule and the limits in a sentence, shown at the asset check."""
        is_strict = self.limits in (FailureLimits(error_above=0), FailureLimits(warn_above=0))
        return self.rule if is_strict else f"{self.rule} Failing rows of a partition: {self.threshold}."

    @property
    def threshold(self) -> str:
        """The limits in words."""
        return self.limits.described(share=True)

    @property
    @abstractmethod
    def rule(self) -> str:
        """The rule for each row, in a sentence."""

    def judge(self, failed_rows: int, *, rows: int) -> Verdict:
        """Return the verdict for a partition that has `rows` rows, of which `failed_rows` break the rule."""
        share = failed_rows / rows if rows else 0.0
        measured: dict[str, float | None] = {"rows": rows, "failed_share": share}
        return Verdict(outcome=self.limits.judge(failed_rows, of=rows), failed_rows=failed_rows, measured=measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTypes(GradedAudit):
    """See `column_types`."""

    # Pairs and not a dict, so that audits, and the options that hold them, have a hash.
    types: tuple[tuple[str, str], ...]

    @property
    def description(self) -> str:
        """The columns and their types, shown at the asset check."""
        return f"Types: {', '.join(f'{column} {kind}' for column, kind in self.types)}."


def column_types(types: Mapping[str, str], *, severity: Severity = "ERROR", name: str | None = None) -> ColumnTypes:
    """Require columns to exist and to have these types.

    Types are spelled as in the warehouse's SQL, and synonyms such as TEXT and VARCHAR are the same type. Columns that
    aren't named may have any type. All partitions get the same verdict, and the audit runs no statement. If the live
    table exists, its types are tested, because computed values are cast to them, or refused, before any audit.

    Args:
        types: The type of each column, by the column's name.
        severity: The effect of another type: `"ERROR"` blocks the publication, `"WARN"` only warns.
        name: The name of the asset check. Defaults to `column_types`.

    Raises:
        ConfigurationError: No column is named.
    """
    if not types:
        raise ConfigurationError("column_types needs at least one column.")
    return ColumnTypes(name=check_name(name, "column_types"), types=tuple(types.items()), severity=severity)


def bounds_in_words(least: Value | None, most: Value | None) -> str:
    """Return a range in words. Either limit may be None."""
    words = {"at least": least, "at most": most}
    return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)


def listed_names(names: Sequence[str]) -> str:
    """Return column names, separated by commas, for a message."""
    return ", ".join(names) if names else "none"


def column_names(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Return one column or several as a tuple."""
    # A text is a sequence, too: of letters.
    return (columns,) if isinstance(columns, str) else tuple(columns)


_OPERATORS = {
    # Longer operators come first, because they are replaced one after the other.
    "<=": " le ",
    ">=": " ge ",
    "<>": " ne ",
    "!=": " ne ",
    "<": " lt ",
    ">": " gt ",
    "=": " eq ",
}


def check_name(name: str | None, *parts: str) -> str:
    """Return the name of an asset check: `name`, or if None, `parts` joined by underscores."""
    text = name or "_".join(parts)
    # Dagster allows only letters, digits and underscores. Operators become words, so that `a < b` and `a > b` differ.
    for sign, word in _OPERATORS.items():
        text = text.replace(sign, word)
    # Without re.ASCII, \w would keep letters such as é, which Dagster refuses.
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
