"""A graph of values, and its digest: the same for graphs that hold the same values, whatever their objects share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

Child = int | bytes
"""A node, by its position in the graph, or the token of a plain value."""


def token(tag: str, *parts: str | bytes) -> bytes:
    """Return parts under a tag as one text; different parts or tags give different texts."""
    encoded = [part if isinstance(part, bytes) else part.encode(errors="surrogatepass") for part in (tag, *parts)]
    return b"".join(b"%d:%s" % (len(part), part) for part in encoded)


@dataclass(frozen=True, slots=True)
class Node:
    """A value that holds others.

    Attributes:
        label: What is compared of the value itself.
        children: The values that it holds, in order.
        group: How many children make one entry of a set (1) or a mapping (2), whose order doesn't matter. None if
            their order matters.
    """

    label: bytes
    children: Sequence[Child] = ()
    group: int | None = None


def digest_of(nodes: Sequence[Node]) -> str:
    """Return the digest of the graph whose root is its first node.

    The digests of the nodes are refined by those of their children until no two nodes become different (colour
    refinement). So cycles end, and it doesn't matter whether equal values are one object or several.
    """
    digests = [_hash([node.label]) for node in nodes]
    while True:
        refined = [_refined(node, before, digests) for node, before in zip(nodes, digests, strict=True)]
        if len({*refined}) == len({*digests}):
            return _hash([refined[0], *sorted({*refined})]).hex()
        digests = refined


def _refined(node: Node, before: bytes, digests: Sequence[bytes]) -> bytes:
    children = [child if isinstance(child, bytes) else digests[child] for child in node.children]
    if node.group is not None:
        entries = [_hash(children[i : i + node.group]) for i in range(0, len(children), node.group)]
        children = sorted(entries)
    return _hash([before, *children])


def _hash(parts: Sequence[bytes]) -> bytes:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(b"%d:" % len(part))
        hasher.update(part)
    return hasher.digest()
