"""compare: the row-level difference of the rows under audit and live, as an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster_safe_backfill.domain.comparison import Comparison, Differences
from dagster_safe_backfill.domain.tables import Column
from dagster_safe_backfill.domain.verdicts import AuditResult
from dagster_safe_backfill.errors import ConfigurationError, KeyViolationError
from dagster_safe_backfill.sql import comparing
from dagster_safe_backfill.sql.auditing import Batch
from dagster_safe_backfill.sql.comparing import KIND, Pairing
from dagster_safe_backfill.wap.samples import Sampler
from dagster_safe_backfill.warehouses.base import Connection

_LIVE = "live_"


def compared(
    connection: Connection,
    audit: Comparison,
    batch: Batch,
    *,
    keys: Sequence[str],
    columns: Sequence[Column],
    rows: Mapping[str, int],
    has_live: bool,
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
    if not has_live:
        nothing = dict.fromkeys(names, 0)
        found = {i: Differences(added=rows.get(key, 0), changed_by_column=nothing) for i, key in enumerate(keys)}
        return _result(audit, keys, found, names)
    _check_keys(connection, pairing, batch)
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
        sample=[_shown(row, pairing, sampler) for row in sampler.unmasked(select)],
        failing_rows_sql=select.sql(dialect=connection.dialect, pretty=True),
    )


def _pairing(audit: Comparison, batch: Batch, columns: Sequence[Column]) -> Pairing:
    spelled = {column.name.casefold(): column for column in columns}
    key = audit.key or batch.key
    if not key:
        raise ConfigurationError("compare() needs a key: the asset's unique_key, or its own key=[…]")
    unknown = [name for name in (*key, *(name for name, _ in audit.column_limits)) if name.casefold() not in spelled]
    if unknown:
        raise ConfigurationError(f"compare() names {', '.join(unknown)}, which is no column of the table")
    of_key = [spelled[name.casefold()].name for name in key]
    return Pairing(
        key=tuple(of_key),
        compared=tuple(column for column in columns if column.name not in of_key),
        absolute_tolerance=audit.absolute_tolerance,
        relative_tolerance=audit.relative_tolerance,
        dialect=batch.dialect,
    )


def _check_keys(connection: Connection, pairing: Pairing, batch: Batch) -> None:
    ((here, there),) = connection.run(comparing.broken_keys(pairing, batch))
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


def _shown(row: Mapping[str, Any], pairing: Pairing, sampler: Sampler) -> dict[str, Any]:
    """Return a row that differs as its key, what is different, and both sides of just that."""
    different = {
        column.name: (row[f"{_LIVE}{column.name}"], row[column.name])
        for column in pairing.compared
        if row[KIND] != "changed" or row[f"{_LIVE}{column.name}"] != row[column.name]
    }
    sides = {
        side: ", ".join(f"{name}: {sampler.masked(name, values[i])}" for name, values in different.items())
        for i, side in enumerate(("live", "shadow"))
    }
    sides |= {"added": {"live": ""}, "removed": {"shadow": ""}}.get(row[KIND], {})
    return {**{name: sampler.masked(name, row[name]) for name in pairing.key}, KIND: row[KIND], **sides}
