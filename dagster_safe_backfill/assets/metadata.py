"""What asset and op definitions say about their tables, in `dagster_duckdb`'s metadata keys and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.tables import OnEmpty, OnOutside, OnSchemaChange, TableRef, TableSpec

_DEFAULT_SCHEMA = "public"


def table_of_asset(key: dg.AssetKey, *, metadata: Mapping[str, Any], schema: str | None) -> TableRef:
    """Return an asset's table: schema by metadata, else the I/O manager's, else the key's prefix, else `public`."""
    prefix = key.path[-2] if len(key.path) > 1 else None
    chosen = _text(metadata, "schema") or schema or prefix or _DEFAULT_SCHEMA
    return TableRef(schema=chosen, name=key.path[-1])


def table_of_output(name: str, *, metadata: Mapping[str, Any], schema: str | None) -> TableRef:
    """Return an op output's table: schema by metadata, else the I/O manager's, else `public`."""
    chosen = _text(metadata, "schema") or schema or _DEFAULT_SCHEMA
    return TableRef(schema=chosen, name=_text(metadata, "table") or name)


def table_spec(table: TableRef, metadata: Mapping[str, Any]) -> TableSpec:
    """Read how a table is kept from definition metadata.

    Raises:
        ConfigurationError: A value is of the wrong kind.
    """
    return TableSpec(
        table=table,
        partition_expr=_partition_expr(table, _plain(metadata.get("partition_expr"))),
        column_timezone=_text(metadata, "column_timezone"),
        unique_key=names(metadata, "unique_key"),
        updated_at_column=_text(metadata, "updated_at_column"),
        on_empty=cast("OnEmpty", _text(metadata, "on_empty") or "refuse"),
        on_outside=cast("OnOutside", _text(metadata, "on_outside") or "refuse"),
        on_schema_change=cast("OnSchemaChange", _text(metadata, "on_schema_change") or "raise"),
        column_defaults=_texts(table, _plain(metadata.get("column_defaults")), "column_defaults"),
        keep_latest=_text(metadata, "keep_latest"),
    )


def names(metadata: Mapping[str, Any], option: str) -> tuple[str, ...]:
    """Read a list of columns; one name may stand alone.

    Raises:
        ConfigurationError: It isn't a list of texts.
    """
    value = _plain(metadata.get(option))
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    found = tuple(cast("Sequence[object]", value)) if isinstance(value, Sequence) else ()
    columns = tuple(name for name in found if isinstance(name, str))
    if not columns or columns != found:
        raise ConfigurationError(f"{option} is a list of column names, not {value!r}")
    return columns


def _partition_expr(table: TableRef, value: Any) -> dict[str | None, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {None: value}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str | None, str]", value))
    raise ConfigurationError(f"{table}: partition_expr is a SQL expression, or one for each dimension, not {value!r}")


def _texts(table: TableRef, value: Any, option: str) -> dict[str, str]:
    if value is None:
        return {}
    found = dict(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else {None: value}
    texts = {name: text for name, text in found.items() if isinstance(name, str) and isinstance(text, str)}
    if texts != found:
        raise ConfigurationError(f"{table}: {option} is a mapping of texts to texts, not {value!r}")
    return texts


def _text(metadata: Mapping[str, Any], option: str) -> str | None:
    value = _plain(metadata.get(option))
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{option} is a text, not {value!r}")
    return value


def _plain(value: Any) -> Any:
    return cast("Any", value).value if isinstance(value, dg.MetadataValue) else value
