"""Shell completion of asset keys and partition keys, which Dagster is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

_MOST = 200
_PLACE = ("url", "token", "modules", "files", "workspaces", "working_directory", "attribute")


def complete_asset(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the asset keys that begin as the word on the command line does."""
    return _items(ctx, incomplete, lambda dagster: dagster.asset_keys())


def complete_key(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the partition keys, of the assets on the command line, that begin as its last word does."""
    params = _params(ctx)
    given: Any = params.get("assets") or params.get("targets") or params.get("asset") or ()
    names: Sequence[str] = [given] if isinstance(given, str) else [*given]
    # Of "a,b,c", only what follows the last comma is completed.
    before, comma, last = incomplete.rpartition(",")

    def keys(dagster: Any) -> list[str]:
        return [f"{before}{comma}{key}" for key in dagster.assets(names[:1])[0].keys if key.startswith(last)]

    return _items(ctx, incomplete, keys) if names else []


def _items(ctx: click.Context, incomplete: str, read: Callable[[Any], Sequence[str]]) -> list[CompletionItem]:
    params = _params(ctx)
    given = {name: value for name in _PLACE if (value := params.get(name)) is not None}
    try:
        with ctx.find_root().obj(**given) as connection:
            found = read(connection.dagster)
    except Exception:
        # A shell that completes has no place for errors; the call itself tells them.
        return []
    return [CompletionItem(one) for one in found if one.startswith(incomplete)][:_MOST]


def _params(ctx: click.Context) -> dict[str, Any]:
    """Return the parameters that are given before the word that is completed."""
    if not ctx.args:
        return ctx.params
    # Where that word is an option's value, click 8 stops at the option, and leaves the arguments unparsed.
    rest = ctx.command.make_context(ctx.info_name, [*ctx.args], parent=ctx.parent, resilient_parsing=True)
    return {**ctx.params, **{name: value for name, value in rest.params.items() if value}}
