"""Rows that are shown to a person: samples of failing rows, and the rows that differ from the live rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.audits.comparison import Comparison, Differences
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import (
    ConfigurationError,
    KeyViolationError,
    SafeBackfillError,
    StatementCancelledError,
)
from dagster_safe_backfill.redaction import MASK
from dagster_safe_backfill.sql import audited_rows, comparing
from dagster_safe_backfill.sql.audited_rows import AuditedRows
from dagster_safe_backfill.sql.comparing import KIND, Pairing
from dagster_safe_backfill.warehouses.base import Row, Session

_LIVE, _SHADOW = "in live", "in shadow"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Reads the first rows of a select.

    Attributes:
        session: An open session.
        shown: The columns whose values may be shown. If None, all values are shown.
    """

    session: Session
    shown: tuple[str, ...] | None

    def rows(self, select: exp.Query) -> Sequence[Mapping[str, Any]]:
        """Return up to ten rows, in which `MASK` replaces the values that may not be shown."""
        return [{name: self.masked(name, value) for name, value in row.items()} for row in self.unmasked(select)]

    def unmasked(self, select: exp.Query) -> Sequence[Mapping[str, Any]]:
        """Return up to ten rows without masks, for the caller only; empty if the rows can't be read.

        A column of a user's query may raise when it is read, even though its rows were counted.
        """
        sample = audited_rows.sampled(select)
        try:
            names = [column.name for column in self.session.describe(sample)]
            return [dict(zip(names, row, strict=True)) for row in self.session.query(sample)]
        # The batch was stopped at its time limit, so its other audits must not run either.
        except StatementCancelledError:
            raise
        except SafeBackfillError as error:
            _LOG.warning("a sample of failing rows can't be read: %s", error)
            return []

    def tuples(self, select: exp.Query) -> Sequence[Row]:
        """Return up to ten rows as tuples without masks, because column names may occur twice."""
        return self.session.query(audited_rows.sampled(select))

    def masked(self, name: str, value: Any) -> Any:
        """Return a value, or `MASK` if the values of its column may not be shown."""
        return self.masked_of([name], value)

    def masked_of(self, names: Sequence[str], value: Any) -> Any:
        """Return a value that was computed from columns, or `MASK` if one of them may not be shown."""
        is_shown = self.shown is None or {*map(str.casefold, names)} <= {*map(str.casefold, self.shown)}
        return value if is_shown or value is None else MASK


def compared(
    session: Session,
    audit: Comparison,
    batch: AuditedRows,
) -> AuditResult:
    """Compare the rows under audit with the live rows in one full join, after one statement that checks the keys.

    Raises:
        ConfigurationError: There is no key, or the key or a limit names a column that the table doesn't have.
        KeyViolationError: A value of the key is NULL, or occurs twice on one side.
        WarehouseError: The database refused a statement.
    """
    keys = batch.table_slice.keys
    pairing = _pairing(audit, batch)
    names = [column.name for column in pairing.compared]
    audit = _respelled(audit, names)
    # Also before a first publication, for which nothing is joined: the key must identify rows from the start.
    _check_keys(session, pairing, batch)
    if not batch.has_live:
        nothing = dict.fromkeys(names, 0)
        found = {
            i: Differences(added=batch.counts.get(key, 0), changed_by_column=nothing) for i, key in enumerate(keys)
        }
        return _result(audit, keys, found, names)
    found = {
        position: Differences(
            added=added,
            removed=removed,
            changed=changed,
            unchanged=unchanged,
            changed_by_column=dict(zip(names, by_column, strict=True)),
        )
        for position, added, removed, changed, unchanged, *by_column in session.query(comparing.differences(pairing))
    }
    result = _result(audit, keys, found, names)
    if not any(one.added or one.removed or one.changed for one in found.values()):
        return result
    sampler = Sampler(session=session, shown=batch.sample_columns)
    select = comparing.different_rows(pairing)
    return AuditResult(
        audit=audit,
        verdicts=result.verdicts,
        finding=result.finding,
        sample=[_shown(row, pairing, sampler) for row in sampler.tuples(select)],
        failing_rows_sql=select.sql(dialect=session.dialect.name, pretty=True),
    )


def _pairing(audit: Comparison, batch: AuditedRows) -> Pairing:
    spelled = {column.name.casefold(): column for column in batch.columns}
    key = audit.key or batch.key
    if not key:
        raise ConfigurationError("compare() needs a key. Set unique_key on the asset, or key=[…] in compare().")
    unknown = [name for name in key if name.casefold() not in spelled]
    if unknown:
        raise ConfigurationError(
            f"compare() names {', '.join(unknown)}, which the table doesn't have. Its columns are"
            f" {', '.join(batch.names)}."
        )
    of_key = [spelled[name.casefold()].name for name in key]
    # Each publication sets updated_at_column in changed rows, so a difference in it alone is no change.
    apart = {*of_key, batch.table_slice.spec.updated_at_column}
    return Pairing(
        here=batch.rows,
        there=audited_rows.live_rows(batch) if batch.has_live else None,
        key=tuple(of_key),
        compared=tuple([column for column in batch.columns if column.name not in apart]),
        absolute_tolerance=audit.absolute_tolerance,
        relative_tolerance=audit.relative_tolerance,
        dialect=batch.dialect,
        sameness=batch.sameness,
    )


def _respelled(audit: Comparison, names: Sequence[str]) -> Comparison:
    """Return the audit with the columns of its limits spelled as the table spells them."""
    spelled = {name.casefold(): name for name in names}
    unknown = [name for name, _ in audit.column_limits if name.casefold() not in spelled]
    if unknown:
        raise ConfigurationError(
            f"compare() limits changes of {', '.join(unknown)}, which it doesn't compare. It compares"
            f" {', '.join(names)}."
        )
    limits = tuple((spelled[name.casefold()], limit) for name, limit in audit.column_limits)
    return replace(audit, column_limits=limits)


def _check_keys(session: Session, pairing: Pairing, batch: AuditedRows) -> None:
    ((here, *others),) = session.query(comparing.broken_keys(pairing))
    there = sum(others)
    # A join would pair each row of a repeated key with all rows of that key, and count them several times.
    if here or there:
        raise KeyViolationError(
            f"{batch.live}: compare() can't compare rows by ({', '.join(pairing.key)}): {here} of its values in the"
            f" shadow and {there} in {batch.live} are NULL or occur twice. Set a key that identifies each row.",
            table=str(batch.live),
            count=here + there,
            sample=[],
        )


def _result(
    audit: Comparison, keys: Sequence[str], found: Mapping[int, Differences], names: Sequence[str]
) -> AuditResult:
    nothing = Differences(changed_by_column=dict.fromkeys(names, 0))
    every = [found.get(position, nothing) for position in range(len(keys))]
    columns = {name: sum(one.changed_by_column[name] for one in every) for name in names}
    changed = ", ".join(f"{name} in {count:,}" for name, count in columns.items() if count)
    finding = (
        f"{sum(one.added for one in every):,} rows added, {sum(one.removed for one in every):,} removed,"
        f" {sum(one.changed for one in every):,} changed{f' ({changed})' if changed else ''},"
        f" {sum(one.unchanged for one in every):,} unchanged"
    )
    verdicts = {key: audit.judge(one) for key, one in zip(keys, every, strict=True)}
    return AuditResult(audit=audit, verdicts=verdicts, finding=finding)


def _shown(row: Sequence[Any], pairing: Pairing, sampler: Sampler) -> dict[str, Any]:
    """Return a row that differs as its key, the kind of difference, and the different columns on both sides."""
    count = len(pairing.key)
    keys, kind = row[:count], row[count]
    different = different_values(row, pairing)
    shown = {
        side: ", ".join(f"{name}: {sampler.masked(name, pair[i])}" for name, pair in different.items())
        for i, side in enumerate((_SHADOW, _LIVE))
    }
    shown |= {"added": {_LIVE: ""}, "removed": {_SHADOW: ""}}.get(kind, {})
    of_key = {name: sampler.masked(name, value) for name, value in zip(pairing.key, keys, strict=True)}
    return {**of_key, KIND: kind, _LIVE: shown[_LIVE], _SHADOW: shown[_SHADOW]}


def different_values(row: Sequence[Any], pairing: Pairing) -> dict[str, Sequence[Any]]:
    """Return the columns of a row of `comparing.different_rows` that differ, each with its values on both sides.

    Of a row that only one side has, all columns are returned.
    """
    count = len(pairing.key)
    kind, sides = row[count], row[count + 1 :]
    # By position: a column of the table may be named like another item of the SELECT, for example `change`.
    pairs = {column.name: sides[2 * i : 2 * i + 2] for i, column in enumerate(pairing.compared)}
    different = {
        name: pair for name, pair in pairs.items() if kind != "changed" or not _is_same(pair[0], pair[1], pairing)
    }
    # Python calls some values equal that the comparison tells apart, such as 0.0 and -0.0.
    return different or {name: pair for name, pair in pairs.items() if name.casefold() in pairing.sameness.inexact}


def _is_same(here: Any, there: Any, pairing: Pairing) -> bool:
    if here is None or there is None:
        return here is there
    # In Python NaN differs from itself. In DuckDB it doesn't: NaN IS DISTINCT FROM NaN is false.
    if here == there or (here != here and there != there):  # noqa: PLR0124
        return True
    if not isinstance(here, int | float | Decimal) or not isinstance(there, int | float | Decimal):
        return False
    return math.isclose(here, there, rel_tol=pairing.relative_tolerance, abs_tol=pairing.absolute_tolerance)
