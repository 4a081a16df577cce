"""One walk through a statement for several questions: a walk is what takes the time."""

from __future__ import annotations

from typing import Any

from sqlglot import exp


def found(tree: exp.Expression, *kinds: Any) -> list[list[Any]]:
    """Return the nodes of each kind, which `isinstance` takes."""
    by_kind: list[list[Any]] = [[] for _ in kinds]
    for node in tree.dfs():
        for nodes, kind in zip(by_kind, kinds, strict=True):
            if isinstance(node, kind):
                nodes.append(node)
    return by_kind
