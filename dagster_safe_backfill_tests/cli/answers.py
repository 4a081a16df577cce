"""The types of the answers' data, taken from the verbs, and answers held against them."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import click
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import is_typeddict

from dagster_safe_backfill.cli.answers.answer import Answer
from dagster_safe_backfill.cli.answers.data.envelope import Envelope
from dagster_safe_backfill.cli.main import VERBS, group
from dagster_safe_backfill_tests.cli.codes import exits_of

STRICT = ConfigDict(extra="forbid", strict=True)


@cache
def data_type(verb: str) -> Any:
    """Return the type of a verb's data: what its function says that it answers."""
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    assert command.callback is not None
    answer = typing.get_type_hints(inspect.unwrap(command.callback))["return"]
    assert typing.get_origin(answer) is Answer, verb
    return typing.get_args(answer)[0]


def nested(kind: Any) -> Iterator[Any]:
    """Yield the `TypedDict`s in a type, each once, in the order in which they are met."""
    seen: dict[Any, None] = {}
    waiting = [kind]
    while waiting:
        one = waiting.pop(0)
        if is_typeddict(one):
            if one not in seen:
                seen[one] = None
                waiting = [*typing.get_type_hints(one).values(), *waiting]
        else:
            waiting = [*typing.get_args(one), *waiting]
    yield from seen


@cache
def _adapter(verb: str | None) -> TypeAdapter[Any]:
    kind = Envelope if verb is None else data_type(verb)
    for one in nested(kind):
        one.__pydantic_config__ = STRICT
    return TypeAdapter(kind)


def check_answer(out: str, *, exit_code: int, verb: str | None) -> None:
    """Hold what a call printed with `--json` against the types: no key more, none less, each code in the table."""
    answer: dict[str, Any] = json.loads(out)
    _adapter(None).validate_json(out)
    assert answer["exit_code"] == exit_code
    assert answer["verb"] == verb
    codes = [error["code"] for error in answer["errors"]]
    # Of several errors, the worst decides.
    exits = [exits_of(code) for code in codes]
    assert any(exit_code in one for one in exits) if exit_code not in (0, 4) else not codes, (exit_code, codes)
    if answer["data"] is not None:
        assert verb in VERBS
        _adapter(verb).validate_json(json.dumps(answer["data"]))
    else:
        assert answer["errors"], answer
