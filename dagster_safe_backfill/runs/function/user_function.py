"""The user's function of an asset, and the function that Dagster gets in its place."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.runs.function.results import check_annotation, unpacked
from dagster_safe_backfill.runs.limits.allowed import no_vain_retries
from dagster_safe_backfill.runs.private_dagster import default_output, keep_function, take_metadata
from dagster_safe_backfill.runs.provenance.code import code_of

_CONTEXT_NAMES = ("context", "_context", "_", "__")
"""The names by which Dagster knows a function's context parameter."""
_SLICE_NAME = "partitions"
"""The name by which the slice's parameter is known if it has no annotation."""

Run = Callable[[dg.AssetExecutionContext, object, Mapping[str, object]], Iterator[object]]
"""Runs the asset: takes the context, the I/O manager, and the arguments of the user's function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What the user's function computed in one call.

    Attributes:
        rows: A frame or a `Query`.
        additions: What the function adds to the event of each partition, by key.
    """

    rows: object
    additions: Mapping[str, dg.AssetMaterialization]


class ComputeFunction:
    """A user's function, which may ask for the context and for the run's `PartitionSlice`.

    Args:
        function: Returns a frame or a `Query`, or one of these in a `dg.MaterializeResult` or a `dg.Output`. It may be
            a function, a bound method, a `functools.partial`, or a callable object.
        resource_key: Where the asset's I/O manager is found.
        inputs: The names of the parameters that are upstream assets, from `ins` and `deps`.

    Raises:
        ConfigurationError: The function is a generator or a coroutine, or a parameter can't be understood.
    """

    def __init__(self, function: Callable[..., object], *, resource_key: str, inputs: Collection[str] = ()) -> None:
        self._function = function
        self._core = _core_of(function)
        self._name = name_of(function) or type(function).__name__
        self._check_kind()
        self.resource_key = resource_key
        self._hints = _hints(self._core, self._name)
        self._returns: object = self._hints.pop("return", inspect.Signature.empty)
        self._parameters = _parameters(function, self._name)
        # Dagster recognises the context parameter by its name as well, with or without an annotation.
        self._context = next(iter(self._parameters.keys() & set(_CONTEXT_NAMES)), None)
        self._slices = [name for name in self._parameters if self._is_slice(name, inputs)]

    def _check_kind(self) -> None:
        core = self._core
        is_async = inspect.iscoroutinefunction(core) or inspect.isasyncgenfunction(core)
        if is_async or inspect.isgeneratorfunction(core):
            raise ConfigurationError(
                f"{self._name} must return a frame or an sb.Query, not yield or await; the events are"
                " logged when the rows are published"
            )

    def _is_slice(self, name: str, inputs: Collection[str]) -> bool:
        """Return True if a parameter takes the slice.

        Raises:
            ConfigurationError: It may be meant to, and is annotated with another type.
        """
        hint = self._hints.get(name)
        if _is_slice_type(hint):
            return True
        if name in inputs or name == self.resource_key:
            return False
        is_named_so = name == _SLICE_NAME
        if hint is None:
            return is_named_so
        if _mentions_slice(hint) or (is_named_so and _is_vague(hint)):
            shown = hint if not isinstance(hint, type) or typing.get_args(hint) else hint.__name__
            raise ConfigurationError(
                f"{self._name}: the parameter {name} is annotated with {shown}, so it isn't clear what it takes."
                f" For the run's partitions, write {name}: sb.PartitionSlice. For an upstream asset, name it in"
                f' ins={{"{name}": dg.AssetIn(…)}}.'
            )
        return False

    def __call__(
        self,
        context: dg.AssetExecutionContext,
        partition_slice: PartitionSlice,
        arguments: Mapping[str, object],
    ) -> Computed:
        """Call the user's function for one slice.

        Metadata that it adds to the context is of the slice's partitions, not of the whole run.

        Raises:
            ConfigurationError: It returned a result without rows, or of another asset.
        """
        given = dict(arguments) | dict.fromkeys(self._slices, partition_slice)
        if self._context is not None:
            is_op = self._hints.get(self._context) is dg.OpExecutionContext
            given[self._context] = context.op_execution_context if is_op else context
        with default_output(context):
            returned = self._function(**given)
        check_annotation(returned, self._returns, name=self._name)
        result = unpacked(returned, context, name=self._name)
        additions = {
            key: dg.AssetMaterialization(
                context.asset_key, partition=key, metadata={**result.metadata, **metadata}, tags=result.tags
            )
            for key, metadata in take_metadata(context, partition_slice.keys).items()
            if metadata or result.metadata or result.tags
        }
        return Computed(rows=result.rows, additions=additions)

    def digest(self) -> str | None:
        """Return a digest of the function's code and of the values that it works with; None if it can't be known."""
        digest = code_of(self._function)
        return None if digest is None else f"function {digest}"

    def replaced_by(self, run: Run, *, takes_resource: bool) -> Callable[..., Iterator[object]]:
        """Return the function for `@dg.asset`: the same parameters but for the slice, and events instead of rows.

        Args:
            run: What it does.
            takes_resource: Whether it asks for the I/O manager by a parameter. Dagster takes resources either
                so, or by `required_resource_keys`.
        """
        is_own = self.resource_key in self._parameters

        def compute(context: dg.AssetExecutionContext, **arguments: object) -> Iterator[object]:
            if not takes_resource:
                resource = getattr(context.resources, self.resource_key)
            elif is_own:
                resource = arguments[self.resource_key]
            else:
                resource = arguments.pop(self.resource_key)
            with no_vain_retries(context):
                yield from run(context, resource, arguments)

        parameters = self._outer_parameters()
        if takes_resource and not is_own:
            parameters[self.resource_key] = dg.ResourceParam[Any]
        self._dress(compute, parameters)
        keep_function(compute, self._function)
        return compute

    def _outer_parameters(self) -> dict[str, Any]:
        """Return the annotations of the parameters that Dagster fills, in order, without the context."""
        hidden = {self._context, *self._slices}
        return {name: self._hints.get(name, inspect.Parameter.empty) for name in self._parameters if name not in hidden}

    def _dress(self, compute: Callable[..., object], annotations: Mapping[str, Any]) -> None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        context = inspect.Parameter("context", kind, annotation=dg.AssetExecutionContext)
        others = [
            inspect.Parameter(name, kind, annotation=annotation, default=self._default_of(name))
            for name, annotation in annotations.items()
        ]
        # inspect.Signature refuses a parameter without a default after one with a default.
        vars(compute)["__signature__"] = inspect.Signature(
            sorted([context, *others], key=lambda parameter: parameter.default is not inspect.Parameter.empty)
        )
        compute.__annotations__ = {
            name: hint for name, hint in annotations.items() if hint is not inspect.Parameter.empty
        }
        compute.__name__ = self._name
        compute.__qualname__ = getattr(self._core, "__qualname__", self._name)
        compute.__module__ = getattr(self._core, "__module__", compute.__module__)
        compute.__doc__ = doc_of(self._function)

    def _default_of(self, name: str) -> object:
        parameter = self._parameters.get(name)
        return inspect.Parameter.empty if parameter is None else parameter.default


def name_of(function: object) -> str | None:
    """Return the name that an asset gets from its function; None if the function has none, as a callable object."""
    name = getattr(function, "__name__", None)
    return name_of(cast("Any", function).func) if name is None and isinstance(function, functools.partial) else name


def doc_of(function: Callable[..., object]) -> str | None:
    """Return the docstring of a function; of a callable object, that of `__call__` or of its class."""
    called, core = _without_partials(function), _core_of(function)
    if core is called:
        return inspect.getdoc(called)
    # getdoc would return what Python says of every __call__.
    return inspect.cleandoc(core.__doc__) if core.__doc__ else inspect.getdoc(cast("object", type(called)))


def _core_of(function: object) -> Callable[..., object]:
    """Return the function or method that a partial or a callable object calls.

    Raises:
        ConfigurationError: It isn't callable.
    """
    called = _without_partials(function)
    if not callable(called):
        raise ConfigurationError(f"the function of an asset must be callable, not {function!r}")
    has_code = inspect.isroutine(called) or inspect.isclass(called) or hasattr(called, "__wrapped__")
    return called if has_code else called.__call__


def _without_partials(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    return function


def _parameters(function: Callable[..., object], name: str) -> dict[str, inspect.Parameter]:
    """Return the parameters that a function is called with by name, without those that a partial has given.

    Raises:
        ConfigurationError: A parameter has no name, or can't be given by it.
    """
    try:
        parameters = dict(inspect.signature(function).parameters)
    except ValueError as error:
        raise ConfigurationError(f"{name}: its parameters can't be read. Wrap it in a def with parameters.") from error
    given: set[str] = set()
    core: Any = function
    while isinstance(core, functools.partial):
        given |= core.keywords.keys()
        core = core.func
    for parameter in parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigurationError(
                f"{name}: the parameter {parameter} can't be given by its name. Write each parameter by name, without *"
                " before and / after it."
            )
    return {parameter: kind for parameter, kind in parameters.items() if parameter not in given}


def _is_slice_type(hint: object) -> bool:
    """Return True for `PartitionSlice`, also if it is optional or annotated."""
    if typing.get_origin(hint) is typing.Annotated:
        return _is_slice_type(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not types.NoneType]
        return len(members) == 1 and _is_slice_type(members[0])
    return hint is PartitionSlice


def _mentions_slice(hint: object) -> bool:
    return hint is PartitionSlice or any(map(_mentions_slice, typing.get_args(hint)))


def _is_vague(hint: object) -> bool:
    """Return True for a type that no upstream table is loaded as, such as Any or list[str]."""
    kind = typing.get_origin(hint) or hint
    return getattr(kind, "__module__", "") in ("builtins", "typing", "collections.abc")


def _hints(function: Callable[..., object], name: str) -> dict[str, Any]:
    """Return the annotations of the parameters, and of the result."""
    try:
        # dg.ResourceParam[T] is Annotated[T, …]: without include_extras, Dagster would take the resource for an input.
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"an annotation of {name} can't be resolved ({error}); import its name where the module"
            " runs, not only for type checkers"
        ) from error
