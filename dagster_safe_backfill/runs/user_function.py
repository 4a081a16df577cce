"""The user's function of an asset, and the function that Dagster gets in its place."""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.slices import PartitionSlice
from dagster_safe_backfill.runs.limits.allowed import no_vain_retries

_CONTEXT_NAMES = ("context", "_context", "_", "__")
"""The names by which Dagster knows a function's context parameter."""

_DIGITS = 12

Run = Callable[[dg.AssetExecutionContext, object, Mapping[str, object]], Iterator[object]]
"""Runs the asset: takes the context, the I/O manager, and the arguments of the user's function."""


class ComputeFunction:
    """A user's function, which may ask for the context and for the run's `PartitionSlice`.

    Args:
        function: Returns a frame or a `Query`.
        resource_key: Where the asset's I/O manager is found.

    Raises:
        ConfigurationError: The function is a generator or a coroutine.
    """

    def __init__(self, function: Callable[..., object], *, resource_key: str) -> None:
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"{function.__name__} must return a frame or an sb.Query, not yield or await; the events are"
                " logged when the rows are published"
            )
        self._function = function
        self._resource_key = resource_key
        self._hints = _hints(function)
        self._parameters = dict(inspect.signature(function).parameters)
        # Dagster recognises the context parameter by its name as well, with or without an annotation.
        self._context = next(iter(self._parameters.keys() & set(_CONTEXT_NAMES)), None)
        self._slices = [name for name, hint in self._hints.items() if hint is PartitionSlice]

    def __call__(
        self,
        context: dg.AssetExecutionContext,
        partition_slice: PartitionSlice,
        arguments: Mapping[str, object],
    ) -> object:
        """Call the user's function for one slice."""
        given = dict(arguments) | dict.fromkeys(self._slices, partition_slice)
        if self._context is not None:
            is_op = self._hints.get(self._context) is dg.OpExecutionContext
            given[self._context] = context.op_execution_context if is_op else context
        return self._function(**given)

    def digest(self) -> str | None:
        """Return a digest of the function's code and of the values that it works with; None if it can't be known."""
        return f"function {_digest(self._function)}"

    def replaced_by(self, run: Run, *, takes_resource: bool) -> Callable[..., Iterator[object]]:
        """Return the function for `@dg.asset`: the same parameters but for the slice, and events instead of rows.

        Args:
            run: What it does.
            takes_resource: Whether it asks for the I/O manager by a parameter. Dagster takes resources either
                so, or by `required_resource_keys`.
        """
        is_own = self._resource_key in self._parameters

        def compute(context: dg.AssetExecutionContext, **arguments: object) -> Iterator[object]:
            if not takes_resource:
                resource = getattr(context.resources, self._resource_key)
            elif is_own:
                resource = arguments[self._resource_key]
            else:
                resource = arguments.pop(self._resource_key)
            with no_vain_retries(context):
                yield from run(context, resource, arguments)

        parameters = self._outer_parameters()
        if takes_resource and not is_own:
            parameters[self._resource_key] = dg.ResourceParam[Any]
        self._dress(compute, parameters)
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
        for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(compute, attribute, getattr(self._function, attribute))

    def _default_of(self, name: str) -> object:
        parameter = self._parameters.get(name)
        return inspect.Parameter.empty if parameter is None else parameter.default


def _digest(function: Callable[..., object]) -> str:
    """Return a digest of a function's source, or of what it was compiled to where there is none."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code: Any = getattr(function, "__code__", None)
        text = repr(function) if code is None else repr((code.co_code, code.co_consts, code.co_names))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    """Return the parameters' annotations."""
    try:
        # dg.ResourceParam[T] is Annotated[T, …]: without include_extras, Dagster would take the resource for an input.
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"an annotation of {function.__name__} can't be resolved ({error}); import its name where the module"
            " runs, not only for type checkers"
        ) from error
    hints.pop("return", None)
    return hints
