"""The options in the metadata of plain assets and op outputs: `dagster_duckdb`'s keys, and those of this library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import AssetOptions, Replace
from dagster_safe_backfill.model.table_options import TableOptions
from dagster_safe_backfill.model.tables import KeepLatest, TableRef
from dagster_safe_backfill.model.validation import check_text, column_names, refused, sql_by_name
from dagster_safe_backfill.runs.declared import options_of

_DEFAULT_SCHEMA = "public"  # as in dagster_duckdb, whose tables users already have
_TABLE = (
    "schema",
    "column_timezone",
    "updated_at_column",
    "on_empty",
    "on_outside",
    "on_missing_column",
    "renamed_from",
)
_PUBLISH = ("on_schema_change", "column_defaults")
TABLE_KEYS = (*_TABLE, *_PUBLISH, "partition_expr", "unique_key", "keep_latest")
"""The metadata keys that are options of a plain asset's table."""
_OURS = [key for key in TABLE_KEYS if key != "schema"]
"""The keys that other libraries are unlikely to use, so that a similar key is probably a typo."""
_CLOSE = 0.85
"""The similarity from 0 to 1 (`difflib`'s) at which a key is taken for a typo: `on_emtpy`, `unique_keys`."""


def options_of_asset(asset: dg.AssetsDefinition) -> AssetOptions:
    """Return an asset's options: those that its factory kept, or those in the metadata of a plain asset.

    Raises:
        ConfigurationError: The metadata has a wrong value, a typo, or options that contradict each other.
    """
    found = options_of(asset)
    # The metadata of such an asset only informs readers: it can be changed after the options have been checked.
    if found is not None:
        return found
    metadata = asset.metadata_by_key[asset.key]
    check_names(metadata)
    options = options_of_metadata(metadata)
    check_former_keys(asset.key, options)
    return options


def options_of_metadata(metadata: Mapping[str, Any]) -> AssetOptions:
    """Return the options in the metadata of an asset or an op output.

    Raises:
        ConfigurationError: A value isn't allowed, or options contradict each other.
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
    """Refuse keys that are probably typos of an option, which would be ignored otherwise.

    Raises:
        ConfigurationError: There is such a key.
    """
    for key in metadata:
        # TableOptions calls it on_duplicate; its value keep_latest(…) can't be metadata, a column's name can.
        near = "keep_latest" if key == "on_duplicate" else next(iter(get_close_matches(key, _OURS, 1, _CLOSE)), key)
        if near != key and key not in TABLE_KEYS:
            raise ConfigurationError(f"metadata {key!r} is not an option of a table; did you mean {near!r}?")


def check_former_keys(key: dg.AssetKey, options: AssetOptions) -> None:
    """Refuse an asset that names its own key in `renamed_from`.

    Raises:
        ConfigurationError: It does.
    """
    own = key.to_user_string()
    if own in options.table.former_keys:
        raise ConfigurationError(
            f"{own}: renamed_from names the asset's own key. Name the key that the asset had before it was renamed."
        )


def former_keys(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the former keys of an asset with this metadata, the oldest first; empty if it wasn't renamed.

    Raises:
        ConfigurationError: The value isn't a key or a list of keys.
    """
    return TableOptions(renamed_from=_plain(metadata.get("renamed_from")) or ()).former_keys


def metadata_of(options: AssetOptions) -> dict[str, Any]:
    """Return the metadata of an asset with these options, which downstream inputs and Dagster's UI read."""
    expressions, shown = dict(options.partition_expr), options.checks.sample_columns
    told: dict[str, Any] = {
        "partition_expr": expressions.get(None, expressions),
        "unique_key": [*options.unique_key] or None,
        "updated_at_column": options.table.updated_at_column,
        "column_timezone": options.table.column_timezone,
        "schema": options.table.schema,
        "renamed_from": [*options.table.former_keys] or None,
        "sample_columns": None if shown is None else [*shown],
    }
    return {key: value for key, value in told.items() if value is not None}


def sample_columns_of(metadata: Mapping[str, Any]) -> Sequence[str] | None:
    """Return the columns whose values may be shown of an asset with the metadata of `metadata_of`; None for all."""
    return _plain(metadata.get("sample_columns"))


def table_of_asset(key: dg.AssetKey, *, schema: str | None, default_schema: str | None) -> TableRef:
    """Return an asset's table, in the first schema that is given: the options', the I/O manager's, the key's prefix.

    Otherwise the schema is `public`.
    """
    # The order is that of dagster_duckdb, so that users who change the I/O manager keep their tables.
    prefix = key.path[-2] if len(key.path) > 1 else None
    return TableRef(schema=schema or default_schema or prefix or _DEFAULT_SCHEMA, name=key.path[-1])


def table_of_output(name: str, *, metadata: Mapping[str, Any], default_schema: str | None) -> TableRef:
    """Return an op output's table, in the schema of its metadata, or else the I/O manager's, or else `public`."""
    schema, table = (_name(metadata, key) for key in ("schema", "table"))
    return TableRef(schema=schema or default_schema or _DEFAULT_SCHEMA, name=table or name)


def names(metadata: Mapping[str, Any], option: str) -> tuple[str, ...]:
    """Return the column names of a metadata key: a list of names, or one name; empty if the key isn't there.

    Raises:
        ConfigurationError: The value isn't a list of names.
    """
    value = _plain(metadata.get(option))
    return () if value is None else column_names(option, value)


def wap_schema_of(table: TableRef, option: str | None) -> str | None:
    """Return the schema of a table's shadows, archives, ledger and lock, as the I/O manager's option names it.

    Raises:
        ConfigurationError: The option is blank, or it names the table's own schema.
    """
    if option is None:
        return None
    check_text("wap_schema", option, what="the name of a schema")
    if option.casefold() == table.schema.casefold():
        raise ConfigurationError(
            f"{table}: wap_schema is {option!r}, the schema of the table itself. Name a schema that has no assets'"
            " tables, or leave wap_schema out."
        )
    return option


def schema_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the schema in metadata; None if there is none.

    Raises:
        ConfigurationError: The value isn't a name.
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
    # Users may wrap metadata themselves, as in dg.MetadataValue.text("day").
    return cast("Any", value).value if isinstance(value, dg.MetadataValue) else value
