"""The result of a user's function: rows, and what it wants on the events of their partitions."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.runs.private_dagster import version_tags

_NO_VALUE: object = dg.MaterializeResult[object]().value
_RESULTS = "a frame or an sb.Query, or one of these in dg.MaterializeResult(value=…) or dg.Output(…)"
_OTHER_EVENTS = (
    dg.AssetCheckResult,
    dg.AssetMaterialization,
    dg.AssetObservation,
    dg.DynamicOutput,
    dg.ExpectationResult,
    dg.ObserveResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a user's function returned.

    Attributes:
        rows: A frame or a `Query`.
        metadata: The metadata that it returned beside them.
        tags: The tags, with those of the data version.
    """

    rows: object
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


def unpacked(returned: object, context: dg.AssetExecutionContext, *, name: str) -> Result:
    """Return the rows in what a function returned, and what stands beside them.

    Raises:
        ConfigurationError: There are no rows, or what stands beside them can't be used.
    """
    result: Any = returned
    if isinstance(returned, dg.MaterializeResult):
        _check_result(result, context.asset_key, name=name)
    elif isinstance(returned, dg.Output):
        _check_output(result, context, name=name)
    elif isinstance(returned, _OTHER_EVENTS):
        raise ConfigurationError(f"{name} returned a dg.{type(result).__name__}. Return {_RESULTS}.")
    else:
        return Result(rows=returned)
    tags: dict[str, str] = {**version_tags(result.data_version), **(result.tags or {})}
    return Result(rows=result.value, metadata=result.metadata or {}, tags=tags)


def _check_result(result: dg.MaterializeResult[Any], asset: dg.AssetKey, *, name: str) -> None:
    if result.value is _NO_VALUE:
        raise ConfigurationError(
            f"{name} returned a dg.MaterializeResult without a value, so there are no rows to publish. Return"
            " dg.MaterializeResult(value=rows, …)."
        )
    if result.check_results:
        raise ConfigurationError(
            f"{name} returned a dg.MaterializeResult with check_results. The asset's checks are its audits: write"
            " audits=[…], or checks of their own with @dg.asset_check."
        )
    if result.asset_key not in (None, asset):
        raise ConfigurationError(
            f"{name} returned a dg.MaterializeResult for {result.asset_key.to_user_string()}, and it computes"
            f" {asset.to_user_string()}. Leave asset_key out."
        )


def _check_output(output: dg.Output[Any], context: dg.AssetExecutionContext, *, name: str) -> None:
    own = context.assets_def.get_output_name_for_asset_key(context.asset_key)
    if output.output_name not in ("result", own):
        raise ConfigurationError(
            f"{name} returned a dg.Output named {output.output_name}, and the asset has no such output. Leave"
            " output_name out."
        )


def check_annotation(returned: object, annotation: Any, *, name: str) -> None:
    """Check an Output against the annotation of the result, as Dagster does for a plain asset.

    Raises:
        ConfigurationError: One of them is an Output, and the other isn't.
    """
    if annotation is inspect.Signature.empty:
        return
    is_annotated = dg.Output in (annotation, typing.get_origin(annotation))
    if isinstance(returned, dg.Output) and not is_annotated:
        raise ConfigurationError(
            f"{name} returned a dg.Output, and is annotated with {annotation}. Annotate it with dg.Output[…], or with"
            " nothing."
        )
    if is_annotated and not isinstance(returned, dg.Output):
        raise ConfigurationError(f"{name} is annotated with dg.Output, and returned a {type(returned).__name__}.")
