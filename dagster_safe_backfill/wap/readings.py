"""One scan of a table for the aggregates of all audits: a failing one does not spoil the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.errors import SafeBackfillError
from dagster_safe_backfill.sql import auditing
from dagster_safe_backfill.warehouses.base import Connection

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
    """

    values: Mapping[Position, Mapping[str, Any]]
    of_no_rows: Mapping[str, Any]
    problems: Mapping[str, str]

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
        return self.values.get(position, self.of_no_rows)[sql]


def readings(
    connection: Connection,
    rows: exp.Expr | None,
    aggregates: Mapping[str, exp.Expr],
    *,
    positions: int,
    is_overall: bool,
    like: exp.Expr | None = None,
) -> Readings:
    """Measure aggregates for each partition of a relation; each aggregate once, however many audits want it.

    Args:
        connection: An open session.
        rows: The relation, with the position of each row's partition; None if there is none, and so no rows.
        aggregates: Aggregates over its columns, by their SQL.
        positions: How many partitions there are.
        is_overall: Whether the aggregates of all rows together are wanted too.
        like: A relation with the same columns, for what the aggregates are of no rows; `rows`, if None.
    """
    wanted = _COUNT | dict(aggregates)
    values, problems = ({}, {}) if rows is None else _read(connection, rows, wanted, is_overall=is_overall)
    measured = {sql: expression for sql, expression in wanted.items() if sql not in problems}
    of_no_rows: dict[str, Any] = {}
    if len(values) - is_overall < positions and len(measured) > 1:
        source = like if rows is None else rows
        assert source is not None
        ((*found,),) = connection.run(auditing.of_no_rows(list(measured.values()), source.copy()))
        of_no_rows = dict(zip(measured, found, strict=True))
    return Readings(
        values=values,
        of_no_rows={_ROWS: 0, **of_no_rows},
        problems=problems,
    )


def _read(
    connection: Connection, rows: exp.Expr, wanted: Mapping[str, exp.Expr], *, is_overall: bool
) -> tuple[dict[Position, dict[str, Any]], dict[str, str]]:
    values: dict[Position, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    pieces = list(_pieces(list(wanted), size=connection.aggregates_at_once))
    while pieces:
        piece = pieces.pop(0)
        try:
            found = connection.run(auditing.grouped([wanted[sql] for sql in piece], rows.copy(), is_overall=is_overall))
        except SafeBackfillError as error:
            if len(piece) == 1:
                problems[piece[0]] = str(error)
            else:
                pieces += _pieces(piece, size=1)
            continue
        for position, *row in found:
            values.setdefault(position, {}).update(zip(piece, row, strict=True))
    return values, problems


def _pieces(items: Sequence[str], *, size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
