"""One scan of a table for the aggregates of all audits: a failing one does not spoil the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.errors import (
    ConfigurationError,
    SafeBackfillError,
    StatementCancelledError,
    is_transient,
)
from dagster_safe_backfill.sql import auditing
from dagster_safe_backfill.warehouses.base import Row, Session

Position = int | None
"""A partition's position in the slice; None for all rows together."""

_ROWS = "COUNT(*)"
_COUNT = {_ROWS: exp.Count(this=exp.Star())}


class Unmeasured(Exception):  # noqa: N818
    """An audit has no answer; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the aggregates are of each partition of one table.

    Attributes:
        values: By position, the value of each aggregate by its SQL; a partition without rows isn't there.
        of_no_rows: What the aggregates are of no rows.
        problems: By the SQL of an aggregate that the warehouse refused, what it said.
        problems_of_no_rows: The same, where just its value of no rows was refused.
    """

    values: Mapping[Position, Mapping[str, Any]]
    of_no_rows: Mapping[str, Any]
    problems: Mapping[str, str]
    problems_of_no_rows: Mapping[str, str]

    def rows(self, position: Position) -> int:
        """Return the number of rows.

        Raises:
            Unmeasured: They could not be counted.
        """
        return self.value(position, _ROWS)

    def value(self, position: Position, sql: str) -> Any:
        """Return an aggregate's value.

        Raises:
            Unmeasured: The warehouse refused it.
        """
        if sql in self.problems:
            raise Unmeasured(self.problems[sql])
        if position in self.values:
            return self.values[position][sql]
        if sql in self.problems_of_no_rows:
            raise Unmeasured(f"of no rows: {self.problems_of_no_rows[sql]}")
        if sql not in self.of_no_rows:
            raise Unmeasured("of no rows, the SQL gives no value")
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
    """Measure aggregates for each partition of a relation; each aggregate once, however many audits want it.

    Args:
        session: An open session.
        rows: The relation, with the position of each row's partition; None if there is none, and so no rows.
        aggregates: Aggregates over its columns, by their SQL.
        positions: How many partitions there are.
        is_overall: Whether the aggregates of all rows together are wanted too.
        like: A relation with the same columns, for what the aggregates are of no rows; `rows`, if None.
    """
    wanted = _COUNT | dict(aggregates)
    values: Mapping[Position, Mapping[str, Any]] = {}
    problems: Mapping[str, str] = {}
    if rows is not None:
        select = partial(auditing.grouped, rows=rows, is_overall=is_overall)
        values, problems = _read(session, wanted, select)
    of_no_rows: Mapping[Position, Mapping[str, Any]] = {}
    problems_of_no_rows: Mapping[str, str] = {}
    measured = {sql: expression for sql, expression in wanted.items() if sql not in problems}
    if len(values) - is_overall < positions and len(measured) > 1:
        source = like if rows is None else rows
        assert source is not None
        of_no_rows, problems_of_no_rows = _read(session, measured, partial(auditing.of_no_rows, rows=source))
    return Readings(
        values=values,
        of_no_rows={_ROWS: 0, **of_no_rows.get(None, {})},
        problems=problems,
        problems_of_no_rows=problems_of_no_rows,
    )


def _read(
    session: Session, wanted: Mapping[str, exp.Expr], select: Callable[[Sequence[exp.Expr]], exp.Select]
) -> tuple[dict[Position, dict[str, Any]], dict[str, str]]:
    """Return the values of aggregates by position, and what is wrong with those that have none.

    Raises:
        SafeBackfillError: The warehouse can't be read for now.
    """
    values: dict[Position, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    pieces = list(_pieces(list(wanted), size=session.dialect.aggregates_at_once))
    while pieces:
        piece = pieces.pop(0)
        try:
            found = _one_row_each(session.query(select([wanted[sql] for sql in piece])), width=len(piece) + 1)
        except StatementCancelledError:
            raise
        except SafeBackfillError as error:
            if is_transient(error):
                raise
            if len(piece) == 1:
                problems[piece[0]] = str(error)
            else:
                pieces += _pieces(piece, size=1)
            continue
        for position, *row in found:
            values.setdefault(position, {}).update(zip(piece, row, strict=True))
    return values, problems


def _one_row_each(rows: Sequence[Row], *, width: int) -> Sequence[Row]:
    """Refuse what isn't one value of each aggregate for each group, as of SQL that makes several rows or columns.

    Raises:
        ConfigurationError: It isn't.
    """
    groups: set[Any] = set()
    for row in rows:
        if row[0] in groups or len(row) != width:
            raise ConfigurationError("the SQL gives several values for a group, where one is expected")
        groups.add(row[0])
    return rows


def _pieces(items: Sequence[str], *, size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
