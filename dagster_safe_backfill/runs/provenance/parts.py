"""What a run adds to the provenance that its asset's definition says: its config and its resources; and audits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import dagster as dg

from dagster_safe_backfill.audits.base import Audit
from dagster_safe_backfill.model.provenance import digest_of_text
from dagster_safe_backfill.runs.private_dagster import resource_config
from dagster_safe_backfill.runs.provenance.code import value_digest


def audits_digest(audits: Sequence[Audit]) -> str:
    """Return a digest of audits."""
    # Of audits of a user's own classes whose values can't be compared, the names are.
    return value_digest(tuple(audits)) or digest_of_text(json.dumps([audit.name for audit in audits]))


def run_parts(
    context: dg.AssetExecutionContext, arguments: Mapping[str, object], *, io_manager_key: str = "io_manager"
) -> dict[str, str | None]:
    """Return what a run adds to the definition: the parts `config` and `resources`.

    The asset's own I/O manager doesn't count: what its table is kept in is not what its rows are computed from.
    """
    config: Any = context.op_execution_context.op_config
    return {
        "config": digest_of_text(json.dumps(config, sort_keys=True, default=str)) if config else "",
        "resources": _resources(context, arguments, own=io_manager_key),
    }


def _resources(context: dg.AssetExecutionContext, arguments: Mapping[str, object], *, own: str) -> str | None:
    """Return a digest of the resources that the function takes; None if one of them can't be compared."""
    digests: dict[str, str | None] = {}
    for name, config in resource_config(context).items():
        if name == own:
            continue
        resource: Any = arguments.get(name, getattr(context.resources, name, None))
        # An I/O manager loads inputs, and its configuration says from where.
        is_loader = isinstance(resource, dg.IOManager)
        is_configurable = isinstance(cast("object", resource), dg.ConfigurableResource)
        by_config = is_loader or (bool(config) and not is_configurable)
        compared: Any = config if by_config else resource
        digests[name] = value_digest(compared)
    if None in digests.values():
        return None
    return digest_of_text(json.dumps(digests, sort_keys=True)) if digests else ""
