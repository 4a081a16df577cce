"""One scan of a table for the aggregates of all audits; an aggregate that fails doesn't affect the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, SupportsIndex, get_args

from sqlglot import exp

from dagster_safe_backfill.audits.verdicts import Outcome, Verdict
from dagster_safe_backfill.errors import (
    ConfigurationError,
    SafeBackfillError,
    StatementCancelledError,
)
from dagster_safe_backfill.model.transient import is_transient
from dagster_safe_backfill.redaction import foreign_text, is_masking, masked
from dagster_safe_backfill.sql import audited_rows
from dagster_safe_backfill.warehouses.base import Row, Session

Position = int | None
"""A partition's position in the slice; None for all rows together."""

_ROWS = "COUNT(*)"
_COUNT = {_ROWS: exp.Count(this=exp.Star())}


class Unmeasured(Exception):  # noqa: N818
    """An audit can't be measured; the message gives the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The values of aggregates in each partition of one table.

    Attributes:
        values: A mapping from position to the value of each aggregate, by its SQL. It has no entry for a partition
            without rows.
        of_no_rows: The value of each aggregate over no rows, by its SQL.
        problems: The warehouse's error for each aggregate that it refused, by its SQL.
        problems_of_no_rows: The warehouse's error for each aggregate that it refused only over no rows, by its SQL.
    """

    values: Mapping[Position, Mapping[str, Any]]
    of_no_rows: Mapping[str, Any]
    problems: Mapping[str, str]
    problems_of_no_rows: Mapping[str, str]

    def rows(self, position: Position) -> int:
        """Return the number of rows.

        Raises:
            Unmeasured: The rows could not be counted.
        """
        return self.value(position, _ROWS)

    def value(self, position: Position, sql: str) -> Any:
        """Return an aggregate's value.

        Raises:
            Unmeasured: The warehouse refused the aggregate.
        """
        if sql in self.problems:
            raise Unmeasured(self.problems[sql])
        if position in self.values:
            return self.values[position][sql]
        if sql in self.problems_of_no_rows:
            raise Unmeasured(f"over no rows: {self.problems_of_no_rows[sql]}")
        if sql not in self.of_no_rows:
            raise Unmeasured("over no rows, the SQL gives no value")
        return self.of_no_rows[sql]


def readings(
    session: Session,
    rows: exp.Expr | None,
    aggregates: Mapping[str, exp.Expr],
    *,
    positions: int,
    is_overall: bool,
    like: exp.Expr | None = None,
) -> Readings:
    """Compute aggregates for each partition of a relation, in one statement where the warehouse allows that.

    Args:
        session: An open session.
        rows: The relation, with the position of each row's partition. None stands for a relation without rows.
        aggregates: Aggregates over its columns, by their SQL.
        positions: The number of partitions.
        is_overall: True to compute the aggregates of all rows together as well.
        like: A relation with the same columns, over no rows of which the aggregates are computed. Defaults to `rows`.
    """
    wanted = _COUNT | dict(aggregates)
    values: Mapping[Position, Mapping[str, Any]] = {}
    problems: Mapping[str, str] = {}
    if rows is not None:
        select = partial(audited_rows.grouped, rows=rows, is_overall=is_overall)
        values, problems = _read(session, wanted, select)
    of_no_rows: Mapping[Position, Mapping[str, Any]] = {}
    problems_of_no_rows: Mapping[str, str] = {}
    # Aggregates over no rows are needed only if a partition has no rows. The grouping set of all rows is always there.
    if len(values) - is_overall < positions and len(wanted) - len(problems) > 1:
        measured = {sql: expression for sql, expression in wanted.items() if sql not in problems}
        # Without a live table there are no live columns, and `like` has the same ones.
        source = like if rows is None else rows
        assert source is not None
        of_no_rows, problems_of_no_rows = _read(session, measured, partial(audited_rows.of_no_rows, rows=source))
    return Readings(
        values=values,
        of_no_rows={_ROWS: 0, **of_no_rows.get(None, {})},
        problems=problems,
        problems_of_no_rows=problems_of_no_rows,
    )


def _read(
    session: Session, wanted: Mapping[str, exp.Expr], select: Callable[[Sequence[exp.Expr]], exp.Select]
) -> tuple[dict[Position, dict[str, Any]], dict[str, str]]:
    """Return the values of aggregates by position, and the error of each aggregate that the warehouse refused.

    Raises:
        SafeBackfillError: The warehouse can't be read now; another try may succeed.
    """
    values: dict[Position, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    names, size = list(wanted), session.dialect.aggregates_at_once
    pieces: list[Sequence[str]] = []
    for start in range(0, len(names), size):
        pieces.append(names[start : start + size])
    while pieces:
        piece = pieces.pop(0)
        try:
            found = session.query(select(list(map(wanted.__getitem__, piece))))
            _check_one_row_each(found, width=len(piece) + 1)
        # The statement was stopped, not refused, so its aggregates aren't tried one by one.
        except StatementCancelledError:
            raise
        except SafeBackfillError as error:
            if is_transient(error):
                raise
            if len(piece) == 1:
                problems[piece[0]] = str(error)
            else:
                # One by one, so that a misspelt column costs only the verdict of its own audit.
                pieces += ([one] for one in piece)
            continue
        for position, *row in found:
            values.setdefault(position, {}).update(zip(piece, row, strict=True))
    return values, problems


def _check_one_row_each(rows: Sequence[Row], *, width: int) -> None:
    """Refuse rows that don't have one value of each aggregate for each group.

    Raises:
        ConfigurationError: The SQL of an aggregate makes several rows or columns.
    """
    groups: set[Any] = set()
    for row in rows:
        # In DuckDB, unnest() gives several rows for a group, and COLUMNS(*) several columns.
        if row[0] in groups or len(row) != width:
            raise ConfigurationError("the SQL gives several values for a group, but an aggregate has one value")
        groups.add(row[0])


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
