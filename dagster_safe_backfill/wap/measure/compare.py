"""compare: the row-level difference of the rows under audit and live, as an audit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from dagster_safe_backfill.audits.comparison import Comparison, Differences
from dagster_safe_backfill.audits.verdicts import AuditResult
from dagster_safe_backfill.errors import ConfigurationError, KeyViolationError
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.sql import comparing
from dagster_safe_backfill.sql.auditing import AuditedRows
from dagster_safe_backfill.sql.comparing import KIND, Pairing
from dagster_safe_backfill.wap.measure.samples import Sampler
from dagster_safe_backfill.warehouses.base import Connection

_LIVE, _SHADOW = "in live", "in shadow"


def compared(
    connection: Connection,
    audit: Comparison,
    batch: AuditedRows,
    *,
    keys: Sequence[str],
    columns: Sequence[Column],
    rows: Mapping[str, int],
    sampler: Sampler,
) -> AuditResult:
    """Compare in one full join, after one statement that proves the keys.

    Raises:
        ConfigurationError: There is no key, or it or a limit names no column.
        KeyViolationError: The key is NULL or comes twice on a side.
        WarehouseError: The database refused.
    """
    pairing = _pairing(audit, batch, columns)
    names = [column.name for column in pairing.compared]
    audit = _respelled(audit, names)
    _check_keys(connection, pairing, batch)
    if not batch.has_live:
        nothing = dict.fromkeys(names, 0)
        found = {i: Differences(added=rows.get(key, 0), changed_by_column=nothing) for i, key in enumerate(keys)}
        return _result(audit, keys, found, names)
    found = {
        position: Differences(
            added=added,
            removed=removed,
            changed=changed,
            unchanged=unchanged,
            changed_by_column=dict(zip(names, by_column, strict=True)),
        )
        for position, added, removed, changed, unchanged, *by_column in connection.run(
            comparing.differences(pairing, batch)
        )
    }
    result = _result(audit, keys, found, names)
    if not any(one.added or one.removed or one.changed for one in found.values()):
        return result
    select = comparing.different_rows(pairing, batch)
    return AuditResult(
        audit=audit,
        verdicts=result.verdicts,
        finding=result.finding,
        sample=[_shown(row, pairing, sampler) for row in sampler.tuples(select)],
        failing_rows_sql=select.sql(dialect=connection.dialect, pretty=True),
    )


def _pairing(audit: Comparison, batch: AuditedRows, columns: Sequence[Column]) -> Pairing:
    spelled = {column.name.casefold(): column for column in columns}
    key = audit.key or batch.key
    if not key:
        raise ConfigurationError("compare() needs a key: the asset's unique_key, or its own key=[…]")
    unknown = [name for name in key if name.casefold() not in spelled]
    if unknown:
        raise ConfigurationError(f"compare() names {', '.join(unknown)}, which is no column of the table")
    of_key = [spelled[name.casefold()].name for name in key]
    return Pairing(
        key=tuple(of_key),
        compared=tuple(column for column in columns if column.name not in (*of_key, batch.stamp)),
        absolute_tolerance=audit.absolute_tolerance,
        relative_tolerance=audit.relative_tolerance,
        dialect=batch.dialect,
    )


def _respelled(audit: Comparison, names: Sequence[str]) -> Comparison:
    """Return the audit with the columns of its limits spelled as the table spells them."""
    spelled = {name.casefold(): name for name in names}
    unknown = [name for name, _ in audit.column_limits if name.casefold() not in spelled]
    if unknown:
        raise ConfigurationError(f"compare() limits changes of {', '.join(unknown)}, which is no compared column")
    limits = tuple((spelled[name.casefold()], limit) for name, limit in audit.column_limits)
    return replace(audit, column_limits=limits)


def _check_keys(connection: Connection, pairing: Pairing, batch: AuditedRows) -> None:
    ((here, *others),) = connection.run(comparing.broken_keys(pairing, batch))
    there = sum(others)
    if here or there:
        raise KeyViolationError(
            f"rows can't be compared by ({', '.join(pairing.key)}): {here} of its values in the shadow and {there} in"
            f" {batch.live} are NULL or come twice; compare by a key that tells rows apart",
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
    """Return a row that differs as its key, what is different, and both sides of just that."""
    count = len(pairing.key)
    keys, kind, sides = row[:count], row[count], row[count + 1 :]
    pairs = {column.name: sides[2 * i : 2 * i + 2] for i, column in enumerate(pairing.compared)}
    different = {
        name: pair for name, pair in pairs.items() if kind != "changed" or not _is_same(pair[0], pair[1], pairing)
    }
    shown = {
        side: ", ".join(f"{name}: {sampler.masked(name, pair[i])}" for name, pair in different.items())
        for i, side in enumerate((_SHADOW, _LIVE))
    }
    shown |= {"added": {_LIVE: ""}, "removed": {_SHADOW: ""}}.get(kind, {})
    of_key = {name: sampler.masked(name, value) for name, value in zip(pairing.key, keys, strict=True)}
    return {**of_key, KIND: kind, _LIVE: shown[_LIVE], _SHADOW: shown[_SHADOW]}


def _is_same(here: Any, there: Any, pairing: Pairing) -> bool:
    if here is None or there is None:
        return here is there
    if here == there or (here != here and there != there):  # noqa: PLR0124
        return True
    if not isinstance(here, int | float | Decimal) or not isinstance(there, int | float | Decimal):
        return False
    return math.isclose(here, there, rel_tol=pairing.relative_tolerance, abs_tol=pairing.absolute_tolerance)
