"""The digest of a function's code, and of the values that it works with."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, cast

from dagster_safe_backfill.runs.provenance.definitions import attributes_of, constants_of, globals_of
from dagster_safe_backfill.runs.provenance.graph import Child, Node, digest_of, token
from dagster_safe_backfill.runs.provenance.origins import OwnCode
from dagster_safe_backfill.runs.provenance.values import (
    IncomparableError,
    kind_of,
    name_of,
    pickled,
    plain_token,
    stand_in,
)

_BUILTIN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
_WRAPPERS: Mapping[type, Sequence[str]] = {
    functools.partial: ("func", "args", "keywords"),
    types.MethodType: ("__func__", "__self__"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    type(functools.lru_cache(len)): ("__wrapped__",),
}
"""The types of what wraps a function, and their attributes that are compared."""

_Read = Callable[[object], Child]


def code_of(function: Callable[..., object]) -> str | None:
    """Return a digest of a function's code and of the values it works with; None if a value can't be compared.

    Two functions with the same digest return the same rows for the same arguments, as far as your own code and its
    values determine them. The digest is the same in every process. It counts:

    - the bytecode, constants and names of the function and of the functions in it;
    - the values of its closure and of its defaults; of a `functools.partial`, the function and the arguments; of a
      bound method, the object; of a callable object, its class and attributes; of a decorated function, also the
      function that it wraps;
    - the functions, classes and values of its module (globals) that it names, also as `module.name`, and what those
      name in turn. This goes as far as your own code: the package of the function, `__main__`, and modules that aren't
      installed, which means that they are outside of site-packages.

    Values are compared by type and content: plain values and collections, enums, dataclasses, pydantic models (their
    fields, not their private attributes), frames and arrays, SQL expressions, instances of your own classes (as they
    would be pickled), and instances of other classes that define equality. The order of a set or a dict doesn't count.

    It doesn't count:

    - comments, docstrings, annotations, line numbers, file names, and the function's name;
    - what a third-party library or Python itself does: these count by name, not by version;
    - what the function imports in its body, finds by a computed name, or reads from files, the environment or the
      network;
    - globals and attributes of classes that can't be compared, such as loggers, clients and connections: of them, only
      the type counts.

    Set the asset's `code_version` where one of these matters, or where the result is None. Another version of Python
    compiles to other bytecode, which counts as other code.

    Args:
        function: A function, a method, a `functools.partial`, or another callable object.

    Returns:
        The digest as hexadecimal digits. None if a value of a closure, a default or a partial can't be compared, or an
        attribute of an object among these: the code then counts as changed.
    """
    try:
        return digest_of(_CodeGraph(OwnCode.of(function)).nodes_from(function))
    except (IncomparableError, RecursionError):
        return None


def value_digest(value: object) -> str | None:
    """Return a digest of a value, compared as `code_of` compares the values of a closure; None if it can't be."""
    try:
        return digest_of(_CodeGraph(OwnCode.of(type(value))).nodes_from(value))
    except (IncomparableError, RecursionError):
        return None


class _CodeGraph:
    """The graph of a function and of all values that it works with.

    Values are read strictly or leniently. Strictly, a value that can't be compared is an error. Leniently, as among
    globals, its type stands for it.
    """

    def __init__(self, own: OwnCode) -> None:
        self._own = own
        # Objects that were read live on here: the id of a dead one would be given to another.
        self._values: list[tuple[object, bool]] = []
        self._places: dict[tuple[int, bool], int] = {}
        self._types: dict[int, Node] = {}
        """What stands for each value that is read leniently, if it can't be compared."""

    def nodes_from(self, function: object) -> Sequence[Node]:
        """Return the nodes of the graph, beginning with the root.

        Raises:
            IncomparableError: A value that must be compared can't be.
        """
        nodes: list[Node | None] = [Node(token("root"), [self._read(function)])]
        # Each node may add to the values. Read by recursion, they nest more deeply than Python's stack allows.
        for value, is_strict in self._values:
            try:
                nodes.append(self._node(value, is_strict=is_strict))
            except IncomparableError:
                nodes.append(None)
        self._replace_incomparable(nodes)
        return _reachable(nodes)

    def _replace_incomparable(self, nodes: list[Node | None]) -> None:
        """Let its type stand for each value that is read leniently and that can't be compared as a whole."""
        holders: dict[int, list[int]] = {}
        for place, node in enumerate(nodes):
            for child in () if node is None else node.children:
                if isinstance(child, int):
                    holders.setdefault(child, []).append(place)
        failed = [place for place, node in enumerate(nodes) if node is None]
        while failed:
            place = failed.pop()
            nodes[place] = self._types.get(place)
            # What holds code of which a part can't be compared isn't replaced: that code may be called.
            if place not in self._types and not self._is_code(self._values[place - 1][0]):
                failed += [one for one in holders.get(place, ()) if one and nodes[one] is not None]

    def _read(self, value: object, *, is_strict: bool = True) -> Child:
        """Return a value as a child of a node."""
        plain = plain_token(value)
        if plain is not None:
            return plain
        if isinstance(value, types.ModuleType):
            # Of a module in a closure, it isn't known which of its values are read.
            if is_strict and self._own.has_module(value.__name__):
                raise IncomparableError
            return token("module", value.__name__)
        key = id(value), is_strict
        if key not in self._places:
            self._values.append((value, is_strict))
            # The first place is the root's.
            self._places[key] = len(self._values)
        return self._places[key]

    def _node(self, value: Any, *, is_strict: bool) -> Node:
        if isinstance(value, types.FunctionType):
            is_own = self._own.has_function(value)
            return self._of_own_function(value) if is_own else self._of_foreign_function(value)
        if self._is_code(value):
            return self._of_class(value)
        kind = kind_of(value)
        if not is_strict:
            self._types[self._places[id(value), False]] = Node(token("incomparable"), [self._read(kind)])
        # The other parts of these count even if one of them can't be compared.
        is_read_in_parts = kind in (list, tuple, set, frozenset, dict, *_WRAPPERS) or self._own.has(kind)
        read = functools.partial(self._read, is_strict=is_strict or not is_read_in_parts)
        for node_of in (_of_collection, _of_bytecode, _of_name, _of_wrapper, _of_content, self._of_instance):
            node = node_of(value, read)
            if node is not None:
                return node
        raise IncomparableError(kind)

    def _is_code(self, value: object) -> bool:
        """Return True for a function, and for a class of the user's own."""
        # Before Python 3.11, list[int] said that it is a type.
        is_class = issubclass(kind_of(value), type)
        return isinstance(value, types.FunctionType) or (is_class and self._own.has(cast("type", value)))

    def _of_own_function(self, function: types.FunctionType) -> Node:
        named = globals_of(function, self._own)
        values = [self._read(value, is_strict=False) for value in named.values()]
        parts = [self._read(part) for part in (function.__code__, function.__defaults__, function.__kwdefaults__)]
        return Node(token("function", *named), [*parts, *self._cells(function, is_strict=True), *values])

    def _of_foreign_function(self, function: types.FunctionType) -> Node:
        """Return the node of a library's function; what it was given, such as a function to decorate, counts."""
        return Node(token("foreign", *name_of(function)), self._cells(function, is_strict=False))

    def _cells(self, function: types.FunctionType, *, is_strict: bool) -> list[Child]:
        cells: list[Child] = []
        for cell in function.__closure__ or ():
            try:
                cells.append(self._read(cell.cell_contents, is_strict=is_strict))
            except ValueError:
                cells.append(token("empty"))
        return cells

    def _of_class(self, cls: type) -> Node:
        attributes = attributes_of(cls)
        values = [self._read(value, is_strict=False) for value in attributes.values()]
        return Node(token("class", cls.__name__, *attributes), [*map(self._read, cls.__bases__), *values])

    def _of_instance(self, value: Any, read: _Read) -> Node | None:
        found = pickled(value)
        if isinstance(found, str):
            return Node(token("named", found), [read(kind_of(value))])
        if not (found.is_value or self._own.has(kind_of(value))):
            return None
        return Node(token("object"), [read(kind_of(value)), *map(read, found.parts())])


def _reachable(nodes: Sequence[Node | None]) -> Sequence[Node]:
    """Return the nodes that the root holds, directly or not.

    Raises:
        IncomparableError: One of them isn't known.
    """
    order, places = [0], {0: 0}
    reachable: list[Node] = []
    for place in order:
        node = nodes[place]
        if node is None:
            raise IncomparableError
        for child in node.children:
            if isinstance(child, int) and child not in places:
                places[child] = len(order)
                order.append(child)
        children = [places[child] if isinstance(child, int) else child for child in node.children]
        reachable.append(replace(node, children=children))
    return reachable


def _of_collection(value: Any, read: _Read) -> Node | None:
    kind = kind_of(value)
    if kind in (list, tuple):
        return Node(token(kind.__name__), [*map(read, value)])
    if kind in (set, frozenset):
        return Node(token(kind.__name__), [*map(read, value)], group=1)
    if kind in (dict, types.MappingProxyType):
        return Node(token("dict"), [read(one) for entry in value.items() for one in entry], group=2)
    return None


def _of_bytecode(value: Any, read: _Read) -> Node | None:
    if not isinstance(value, types.CodeType):
        return None
    counts = (value.co_flags, value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount)
    names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
    # Since Python 3.11, the bytecode of `try` doesn't hold where its handlers begin.
    handlers = getattr(value, "co_exceptiontable", b"")
    return Node(token("code", value.co_code, handlers), [read(one) for one in (counts, *names, *constants_of(value))])


def _of_name(value: Any, read: _Read) -> Node | None:
    """Return the node of a library's class or function, an enum's member, or a path."""
    if issubclass(kind_of(value), type):
        return Node(token("type", *name_of(value)))
    kind = kind_of(value)
    if isinstance(value, _BUILTIN) or kind.__name__ == "cython_function_or_method":
        return Node(token("builtin", *name_of(value)), [read(getattr(value, "__self__", None))])
    if isinstance(value, enum.Enum):
        return Node(token("enum", f"{value.name}"), [read(kind), read(value.value)])
    if isinstance(value, PurePath):
        return Node(token("path", str(value)), [read(kind)])
    return None


def _of_wrapper(value: Any, read: _Read) -> Node | None:
    """Return the node of what wraps a function."""
    names = next((names for kind, names in _WRAPPERS.items() if isinstance(value, kind)), None)
    if names is None:
        return None
    return Node(token("wrapper", *name_of(kind_of(value))), [read(getattr(value, name, None)) for name in names])


def _of_content(value: Any, read: _Read) -> Node | None:
    """Return the node of a frame or the like by the plain values that stand for it."""
    try:
        content = stand_in(value)
    except Exception as error:
        raise IncomparableError(kind_of(value)) from error
    return None if content is None else Node(token("content"), [read(kind_of(value)), read(content)])
