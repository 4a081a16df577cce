"""Checks of the arguments of `wap_asset` and `build_staged_wap_assets`, including those that go to `@dg.asset`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar, cast

import dagster as dg
from typing_extensions import TypedDict

from dagster_safe_backfill.assets.metadata import TABLE_KEYS
from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.audits.rows import Unique, unique
from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.options import (
    PUBLISH_BY_NAME,
    AssetOptions,
    Batches,
    Checks,
    Limits,
    Merge,
    Publish,
    Replace,
    Strategy,
    Swap,
)
from dagster_safe_backfill.model.table_options import TableOptions
from dagster_safe_backfill.model.validation import (
    check_choice,
    check_count,
    check_text,
    closest,
    column_names,
    refused,
    sql_by_name,
)
from dagster_safe_backfill.runs.function.user_function import name_of

_Value = TypeVar("_Value")

AssetDep = dg.AssetKey | str | Sequence[str] | dg.AssetSpec | dg.AssetsDefinition | dg.SourceAsset | dg.AssetDep


class AssetArguments(TypedDict, total=False):
    """The arguments of `@dg.asset` that `wap_asset` and `build_staged_wap_assets` accept; Dagster documents them."""

    name: str | None
    key: dg.AssetKey | str | Sequence[str] | None
    key_prefix: str | Sequence[str] | None
    ins: Mapping[str, dg.AssetIn] | None
    deps: Iterable[AssetDep] | None
    metadata: Mapping[str, Any] | None
    tags: Mapping[str, str] | None
    description: str | None
    group_name: str | None
    owners: Sequence[str] | None
    kinds: AbstractSet[str] | None
    code_version: str | None
    automation_condition: dg.AutomationCondition[Any] | None
    freshness_policy: dg.FreshnessPolicy | None
    retry_policy: dg.RetryPolicy | None
    pool: str | None
    op_tags: Mapping[str, Any] | None
    hooks: AbstractSet[dg.HookDefinition] | None
    required_resource_keys: AbstractSet[str] | None


_OWN = (
    *("partitions_def", "partition_expr", "unique_key", "audits", "backfill_policy", "io_manager_key"),
    *("publish", "batches", "limits", "table", "checks"),
)
_NOT_TAKEN = {
    "check_specs": "the asset's checks are its audits: write audits=[…], or checks of their own with @dg.asset_check",
    "config_schema": "annotate a parameter of the function with a dg.Config class",
    "resource_defs": "give the resources to dg.Definitions",
    "io_manager_def": "give the I/O manager to dg.Definitions, and its name in io_manager_key",
    "dagster_type": "the function returns a frame or an sb.Query",
    "output_required": "the function always returns rows",
    "is_virtual": "the asset is a table",
    "compute_fn": "write it as a decorator: @sb.wap_asset(…)",
}
"""The other arguments of `@dg.asset`, and what to write instead."""
_MOVED = {
    **dict.fromkeys(
        ("on_conflict", "archive_days", "on_schema_change", "column_defaults", "allow_mixed_versions"),
        "publish=Merge({}=…) (or Replace, or Swap)",
    ),
    "batch_size": "batches=Batches(size=…), or batches=… alone",
    "publish_per": "batches=Batches(publish_each=True)",
    **dict.fromkeys(("canary", "resume"), "batches=Batches({}=…)"),
    **dict.fromkeys(("timeout_seconds", "max_retries", "retry_wait", "allowed_hours"), "limits=Limits({}=…)"),
    **dict.fromkeys(("max_partitions_per_backfill", "max_partitions"), "limits=Limits(max_partitions=…)"),
    **dict.fromkeys(
        ("schema", "column_timezone", "updated_at_column", "on_empty", "on_outside", "on_duplicate", "renamed_from"),
        "table=TableOptions({}=…)",
    ),
    "keep_latest": 'table=TableOptions(on_duplicate=keep_latest("a_column"))',
    **dict.fromkeys(("partitioned_checks", "partitioned"), "checks=Checks(partitioned=…)"),
    "sample_columns": "checks=Checks(sample_columns=…)",
}
"""How to write options that belong to a value, and arguments of earlier versions."""
_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "ins": (Mapping, "a mapping of input names to dg.AssetIn"),
    "deps": (Iterable, 'a list of assets or keys, such as ["orders"]'),
    "metadata": (Mapping, "a mapping of names to values"),
    "tags": (Mapping, "a mapping of names to texts"),
    "owners": (Sequence, 'a list of owners, such as ["team:sales"]'),
    "kinds": ((AbstractSet, Sequence), 'a set of kinds, such as {"duckdb"}'),
    "op_tags": (Mapping, "a mapping of names to values"),
    "hooks": (AbstractSet, "a set of hooks"),
    "required_resource_keys": (AbstractSet, 'a set of resource keys, such as {"api"}'),
    "automation_condition": (dg.AutomationCondition, "a condition, such as dg.AutomationCondition.eager()"),
    "freshness_policy": (dg.FreshnessPolicy, "a policy, such as dg.FreshnessPolicy.cron(…)"),
    "retry_policy": (dg.RetryPolicy, "a policy, such as dg.RetryPolicy(max_retries=2)"),
}
"""The types of arguments of `@dg.asset`. Dagster accepts some wrong values and misreads them (it takes a text for a
sequence of letters), and refuses others without naming the argument."""
_KEY = 'a text or a list of texts, such as ["nyc", "flights"]'
_TEXTS = ("name", "description", "group_name", "code_version", "pool")


def asset_options(
    *,
    partitions_def: object,
    partition_expr: object,
    unique_key: object,
    audits: object,
    backfill_policy: object,
    publish: object,
    batches: object,
    limits: object,
    table: object,
    checks: object,
    io_manager_key: object,
) -> AssetOptions:
    """Return the library's options of an asset, made from the arguments of a factory.

    Raises:
        ConfigurationError: An option isn't allowed, or options contradict each other.
    """
    if not isinstance(partitions_def, dg.PartitionsDefinition):
        example = 'a partitions definition, such as dg.DailyPartitionsDefinition("2024-01-01")'
        raise refused("partitions_def", example, partitions_def)
    _check_policy(backfill_policy)
    check_text("io_manager_key", io_manager_key, what='the key of a resource, such as "io_manager"')
    key = column_names("unique_key", unique_key)
    how = _publish(publish, has_key=bool(key))
    return AssetOptions(
        partition_expr=_partition_expr(partition_expr, cast("dg.PartitionsDefinition[str]", partitions_def)),
        unique_key=key,
        audits=_with_key_audit(checked_audits(audits), has_key=bool(key)),
        publish=how,
        batches=_batches(batches),
        limits=_value("limits", limits, Limits, example="Limits(max_retries=5)"),
        table=_value("table", table, TableOptions, example='TableOptions(schema="sales")'),
        checks=_value("checks", checks, Checks, example="Checks(partitioned=True)"),
    )


def check_asset_arguments(given: Mapping[str, object]) -> None:
    """Check the names of all arguments, and the types of those that go to `@dg.asset`.

    Raises:
        ConfigurationError: An argument is unknown, or has a type that Dagster would misread. The message suggests what
            was probably meant.
    """
    taken = (*_OWN, *AssetArguments.__annotations__)
    for name in given:
        if name not in taken:
            raise ConfigurationError(f"there is no argument {name!r}{_instead(name, taken)}")
    for name, (kind, what) in _KINDS.items():
        value = given.get(name)
        # A text is a sequence, too: Dagster reads deps="raw" as the assets r, a and w.
        if value is not None and (not isinstance(value, kind) or isinstance(value, str)):
            raise refused(name, what, value)
    for name in _TEXTS:
        if given.get(name) is not None:
            check_text(name, given[name], what="a text")
    for name in ("key", "key_prefix"):
        _check_key(name, given.get(name))
    # In metadata, options have an effect only on plain assets, so here they would be ignored.
    for name in cast("Mapping[str, object]", given.get("metadata") or {}):
        if name in TABLE_KEYS:
            instead = f"{name}=…" if name in _OWN else _MOVED[name].format(name)
            raise ConfigurationError(f"metadata: {name} is an option, not metadata; write {instead}")


def _check_key(name: str, given: object) -> None:
    if given is None or (name == "key" and isinstance(given, dg.AssetKey)):
        return
    parts = [given] if isinstance(given, str) else cast("Sequence[object]", given)
    if isinstance(given, dg.AssetKey) or not isinstance(given, Sequence) or not parts:
        raise refused(name, _KEY, cast("object", given))
    for part in parts:
        check_text(name, part, what=_KEY)


def _instead(name: str, taken: Sequence[str]) -> str:
    if name in _MOVED:
        return f"; write {_MOVED[name].format(name)}"
    if name in _NOT_TAKEN:
        return f": {_NOT_TAKEN[name]}"
    near = closest(name, [*taken, *_MOVED])
    if near is None:
        return ""
    return f"; did you mean {_MOVED[near].format(near) if near in _MOVED else near}?"


def only(given: AssetArguments, *names: str) -> dict[str, Any]:
    """Return the given arguments that have one of these names."""
    return {name: value for name, value in given.items() if name in names}


def asset_key_of(function: Callable[..., object], given: AssetArguments) -> dg.AssetKey:
    """Return the key of a function's asset.

    Raises:
        ConfigurationError: `key` is given together with `name` or `key_prefix`, or the function has no name.
    """
    name, key, key_prefix = given.get("name"), given.get("key"), given.get("key_prefix")
    if key is not None:
        if name is not None or key_prefix is not None:
            raise ConfigurationError("give either key, or name and key_prefix, not both")
        return dg.AssetKey.from_coercible(key)
    prefix = [key_prefix] if isinstance(key_prefix, str) else list(key_prefix or [])
    name = name or name_of(function)
    if name is None:
        raise ConfigurationError(
            f"the function, a {type(function).__name__}, has no name for its asset to take. Give the asset a name=… or"
            " a key=…"
        )
    return dg.AssetKey([*prefix, name])


def input_names(given: AssetArguments) -> set[str]:
    """Return the names by which `ins` and `deps` name upstream assets."""
    # deps may be an iterator, which Dagster has to read, too.
    deps = given["deps"] = [dg.AssetDep.from_coercible(dep) for dep in given.get("deps") or ()]
    return {*(given.get("ins") or {}), *(dep.asset_key.path[-1] for dep in deps)}


def _check_policy(policy: object) -> None:
    if policy is None or isinstance(policy, dg.BackfillPolicy):
        return
    hint = f"did you mean batched({policy})?" if isinstance(policy, int) and not isinstance(policy, bool) else None
    name = getattr(policy, "__name__", policy)
    near = closest(name, ["single_run", "batched", "per_partition"])
    hint = f"did you mean {near}({'10' if near == 'batched' else ''})?" if near else hint
    raise refused("backfill_policy", "single_run(), batched(n) or per_partition()", policy, hint=hint)


def _partition_expr(given: object, definition: dg.PartitionsDefinition[str]) -> Mapping[str | None, str]:
    """Return a mapping from dimension name to expression; the name is None if there is one dimension."""
    if not isinstance(definition, dg.MultiPartitionsDefinition):
        check_text("partition_expr", given, what='a column or SQL expression, such as "day"')
        return {None: cast("str", given)}
    dimensions = [dimension.name for dimension in definition.partitions_defs]
    wanted = "{" + ", ".join(f'"{name}": …' for name in dimensions) + "}"
    if isinstance(given, Mapping):
        found = sql_by_name("partition_expr", cast("object", given), of="dimensions")
        for name in found:
            if name not in dimensions:
                near = closest(name, dimensions)
                hint = f'did you mean "{near}"?' if near else None
                raise refused(f"a dimension of partition_expr ({wanted})", " or ".join(dimensions), name, hint=hint)
        if len(found) == len(dimensions):
            return {**found}
    raise refused("partition_expr", f"a SQL expression for each dimension, {wanted}", cast("object", given))


def checked_audits(given: object) -> tuple[Audit, ...]:
    """Return the audits as a tuple.

    Raises:
        ConfigurationError: The value isn't a list, or an item isn't an audit.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        hint = "did you forget the brackets?" if isinstance(given, Audit) else None
        raise refused("audits", "a list of audits, such as [sb.unique()]", given, hint=hint)
    audits = tuple(cast("Sequence[object]", given))
    for audit in audits:
        if not isinstance(audit, Audit):
            hint = f"did you mean {getattr(audit, '__name__', '')}(…)?" if callable(audit) else None
            raise refused("audits", "a list of audits, such as [sb.unique()]", audit, hint=hint)
    return cast("tuple[Audit, ...]", audits)


def _with_key_audit(audits: Sequence[Audit], *, has_key: bool) -> tuple[Audit, ...]:
    """Return the audits, with that of the unique key added unless it is among them.

    Raises:
        ConfigurationError: An audit of the unique key needs a `unique_key`, or could let duplicates pass.
    """
    of_key = [audit for audit in audits if isinstance(audit, Unique) and not audit.columns]
    if not has_key:
        if of_key:
            raise ConfigurationError("audits: unique() without columns needs a unique_key, or name its columns")
        return tuple(audits)
    if any(audit.limits != unique().limits for audit in of_key):
        raise ConfigurationError(
            "audits: unique() of the unique_key has severity ERROR and tolerates no failures, because rows with"
            " duplicate keys can't be merged. Leave out its severity and limits."
        )
    # Snowflake's MERGE inserts all source rows of a new key, and DuckDB's since 2.0 fails if a key occurs twice.
    return tuple(audits) if of_key else (unique(), *audits)


def _publish(given: object, *, has_key: bool) -> Publish:
    if given is None:
        return Merge() if has_key else Replace()
    if isinstance(given, Merge | Replace | Swap):
        return given
    if isinstance(given, str):
        check_choice("publish", given, tuple(PUBLISH_BY_NAME))
        return PUBLISH_BY_NAME[cast("Strategy", given)]()
    raise refused("publish", '"merge", "replace", "swap" or a Merge, Replace or Swap', given, hint=_called(given))


def _batches(given: object) -> Batches:
    # bool is a subclass of int (PEP 285), and batches=True means nothing.
    if isinstance(given, int) and not isinstance(given, bool):
        check_count("batches", given, of="partitions", at_least=1)
        return Batches(size=given)
    return _value("batches", given, Batches, example="Batches(size=10), or a whole number of partitions")


def _value(option: str, given: object, kind: type[_Value], *, example: str) -> _Value:
    if given is None:
        return kind()
    if not isinstance(given, kind):
        hint = _as_call(kind, cast("Mapping[object, object]", given)) if isinstance(given, Mapping) else _called(given)
        raise refused(option, f"a {kind.__name__}, such as {example}", cast("object", given), hint=hint)
    return given


def _as_call(kind: type, given: Mapping[object, object]) -> str:
    return f"did you mean {kind.__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})?"


def _called(given: object) -> str | None:
    """Return a hint if a class, such as `Swap`, was given instead of a value, such as `Swap()`."""
    known: tuple[object, ...] = (Merge, Replace, Swap, Batches, Limits, TableOptions, Checks)
    is_one = isinstance(given, type) and given in known
    return f"did you mean {getattr(given, '__name__', '')}()?" if is_one else None
