"""What is compared of the definition of a function or a class."""

from __future__ import annotations

import dis
import enum
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dagster_safe_backfill.runs.provenance.origins import OwnCode

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_MARKS_DOCSTRINGS = "HAS_DOCSTRING" in dis.COMPILER_FLAG_NAMES.values()
_HAS_DOCSTRING = 0x4000000
"""CO_HAS_DOCSTRING, a flag of Python 3.13's code objects."""
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def constants_of(code: types.CodeType) -> Sequence[object]:
    """Return the constants of a code object without its docstring."""
    constants = code.co_consts
    has_docstring = bool(code.co_flags & _HAS_DOCSTRING)
    if not _MARKS_DOCSTRINGS:
        # There, the first constant of a function is its docstring or None; comprehensions have names as <listcomp>.
        has_docstring = bool(code.co_flags & inspect.CO_OPTIMIZED) and not code.co_name.startswith("<")
    if has_docstring and constants and isinstance(constants[0], str):
        return [None, *constants[1:]]
    return constants


def globals_of(function: types.FunctionType, own: OwnCode) -> Mapping[str, object]:
    """Return the globals that a function names, in the order of their names.

    A name of a module of the user's own, as `module.name`, stands for itself. Builtins are left out.
    """
    paths = sorted({*_paths_in(function.__code__)})
    return dict(_resolved(path, function, own) for path in paths if path[0] in function.__globals__)


def _resolved(path: Sequence[str], function: types.FunctionType, own: OwnCode) -> tuple[str, object]:
    name, *rest = path
    value = function.__globals__[name]
    for attribute in rest:
        is_module = isinstance(value, types.ModuleType) and own.has_module(value.__name__)
        if not is_module or attribute not in vars(value):
            break
        name, value = f"{name}.{attribute}", vars(value)[attribute]
    return name, value


def _paths_in(code: types.CodeType) -> Iterator[tuple[str, ...]]:
    """Yield the names of globals in a code object, each with the names of the attributes that directly follow."""
    path: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path = (*path, instruction.argval)
            continue
        if path:
            yield path
        path = (instruction.argval,) if instruction.opname in _LOADS else ()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _paths_in(constant)


def attributes_of(cls: type[object]) -> Mapping[str, object]:
    """Return the functions and attributes of a class, without those that Python or pydantic adds."""
    attributes = sorted(vars(cls).items())
    if issubclass(cls, enum.Enum):
        members: dict[str, object] = {name: member.value for name, member in cls.__members__.items()}
        return members | {name: value for name, value in attributes if isinstance(value, types.FunctionType)}
    found = {name: value for name, value in attributes if _is_compared(name, value)}
    fields: Mapping[str, Any] = vars(cls).get("__pydantic_fields__", {})
    return found | {f"field {name}": (field.default, field.default_factory) for name, field in sorted(fields.items())}


def _is_compared(name: str, value: object) -> bool:
    if name == "_abc_impl" or isinstance(value, _DESCRIPTORS):
        return False
    is_special = name.startswith("__") and name.endswith("__")
    return not is_special or isinstance(value, types.FunctionType | staticmethod | classmethod)
