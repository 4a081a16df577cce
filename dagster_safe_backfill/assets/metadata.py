"""What metadata says of a table: of plain assets and op outputs, in `dagster_duckdb`'s keys and ours."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import AssetOptions, Replace, TableOptions
from dagster_safe_backfill.model.tables import KeepLatest, TableRef
from dagster_safe_backfill.model.validation import check_text, column_names, refused, sql_by_name
from dagster_safe_backfill.runs.private_dagster import options_of

_DEFAULT_SCHEMA = "public"
_TABLE = ("schema", "column_timezone", "updated_at_column", "on_empty", "on_outside")
_PUBLISH = ("on_schema_change", "column_defaults")
TABLE_KEYS = (*_TABLE, *_PUBLISH, "partition_expr", "unique_key", "keep_latest")
"""The keys that say how the table of a plain asset is kept."""
_OURS = [key for key in TABLE_KEYS if key != "schema"]
"""Those that nobody else is likely to use, nor a name that is close to one."""
_CLOSE = 0.85
"""How alike a key must be to one of ours, from 0 to 1, to be taken for a slip: `on_emtpy`, `unique_keys`."""


def options_of_asset(asset: dg.AssetsDefinition) -> AssetOptions:
    """Return an asset's options: as its factory was given them, or as the metadata of a plain asset says.

    Raises:
        ConfigurationError: The metadata isn't allowed.
    """
    found = options_of(asset)
    if found is not None:
        return found
    metadata = asset.metadata_by_key[asset.key]
    check_names(metadata)
    return options_of_metadata(metadata)


def options_of_metadata(metadata: Mapping[str, Any]) -> AssetOptions:
    """Return the options that metadata says.

    Raises:
        ConfigurationError: A value isn't allowed, or some can't be said together.
    """
    given = {key: _plain(metadata[key]) for key in TABLE_KEYS if key in metadata}
    given = {key: value for key, value in given.items() if value is not None}
    table = {key: given[key] for key in _TABLE if key in given}
    if "keep_latest" in given:
        table["on_duplicate"] = KeepLatest(given["keep_latest"])
    return AssetOptions(
        partition_expr=_partition_expr(given.get("partition_expr")),
        unique_key=column_names("unique_key", given.get("unique_key", ())),
        publish=Replace(**{key: given[key] for key in _PUBLISH if key in given}),
        table=TableOptions(**table),
    )


def check_names(metadata: Mapping[str, Any]) -> None:
    """Refuse keys that are a slip of one of ours, which would be ignored otherwise.

    Raises:
        ConfigurationError: There is one.
    """
    for key in metadata:
        near = "keep_latest" if key == "on_duplicate" else next(iter(get_close_matches(key, _OURS, 1, _CLOSE)), key)
        if near != key and key not in TABLE_KEYS:
            raise ConfigurationError(f"metadata {key!r} is no option of a table; did you mean {near!r}?")


def metadata_of(options: AssetOptions) -> dict[str, Any]:
    """Return what readers of an asset's table, and people, are told of it as metadata."""
    expressions = dict(options.partition_expr)
    told: dict[str, Any] = {
        "partition_expr": expressions.get(None, expressions),
        "unique_key": [*options.unique_key] or None,
        "updated_at_column": options.table.updated_at_column,
        "column_timezone": options.table.column_timezone,
        "schema": options.table.schema,
    }
    return {key: value for key, value in told.items() if value is not None}


def table_of_asset(key: dg.AssetKey, *, schema: str | None, default_schema: str | None) -> TableRef:
    """Return an asset's table: in the schema of its options, else the I/O manager's, the key's prefix, or `public`."""
    prefix = key.path[-2] if len(key.path) > 1 else None
    return TableRef(schema=schema or default_schema or prefix or _DEFAULT_SCHEMA, name=key.path[-1])


def table_of_output(name: str, *, metadata: Mapping[str, Any], default_schema: str | None) -> TableRef:
    """Return an op output's table: in the schema of its metadata, else the I/O manager's, or `public`."""
    schema, table = (_name(metadata, key) for key in ("schema", "table"))
    return TableRef(schema=schema or default_schema or _DEFAULT_SCHEMA, name=table or name)


def names(metadata: Mapping[str, Any], option: str) -> tuple[str, ...]:
    """Read a list of columns; one name may stand alone.

    Raises:
        ConfigurationError: It isn't a list of names.
    """
    value = _plain(metadata.get(option))
    return () if value is None else column_names(option, value)


def schema_of(metadata: Mapping[str, Any]) -> str | None:
    """Read the schema that metadata names.

    Raises:
        ConfigurationError: It is no name.
    """
    return _name(metadata, "schema")


def _name(metadata: Mapping[str, Any], option: str) -> str | None:
    value = _plain(metadata.get(option))
    if value is not None:
        check_text(option, value, what=f"the name of a {option}")
    return value


def _partition_expr(value: object) -> Mapping[str | None, str]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {**sql_by_name("partition_expr", cast("object", value), of="dimensions")}
    if not isinstance(value, str) or not value.strip():
        raise refused("partition_expr", "a SQL expression, or a mapping of dimensions to one each", value)
    return {None: value}


def _plain(value: Any) -> Any:
    return cast("Any", value).value if isinstance(value, dg.MetadataValue) else value
