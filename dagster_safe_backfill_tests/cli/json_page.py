"""The page of the command's JSON, made from the types of the answers, recorded answers, and the codes of errors."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import get_original_bases, is_typeddict

from dagster_safe_backfill.cli.answers.data.envelope import Envelope, ErrorData
from dagster_safe_backfill.cli.main import VERBS
from dagster_safe_backfill_tests.cli.answers import data_type, nested
from dagster_safe_backfill_tests.cli.codes import MEANINGS, exits_of, of_library

PAGE = Path(__file__).parents[2] / "docs" / "command-json.md"
EXAMPLES = Path(__file__).parent / "examples"
"""An answer of each verb, as `record_examples.py` recorded it."""

_HEAD = """# The command: JSON

What each verb of [the command](command.md) prints with `--json`. Made from the types of the code, against which the
tests hold every answer: no key more, none less. Keys may be added later; one that is renamed or removed changes
`schema`.

- Every key is always there. What isn't known, or makes no sense in a case, is `null`, or an empty list.
- Times (`…_at`) are in seconds since the epoch.
- `partitions` lists objects in the data, each with its key as `partition`, and keys in an error. How many there are is
  a `partition_count`, as a number of rows is a `row_count`.
- Texts for people (`message`, `hint`, `warnings` and the like) may change.
"""
_ERRORS = """## Errors

The codes of `errors`, and the exit codes with which they come. Where there are several errors, the exit code is that of
the worst.
"""
_LIBRARY = """Errors of the library come by their names, with exit code 1:
"""
_PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean", types.NoneType: "null", object: "any"}


def page() -> str:
    """Return the page as Markdown."""
    parts = [_HEAD, "## The envelope\n", *_table(Envelope), "### Error\n", *_described(ErrorData)]
    for verb in VERBS:
        parts += _section(verb)
    parts.append(_ERRORS)
    parts.append("| code | exit code | meaning |\n|---|---|---|")
    parts += [f"| `{code}` | {', '.join(map(str, sorted(exits_of(code))))} | {MEANINGS[code]} |" for code in MEANINGS]
    parts += ["", _LIBRARY, "| code | meaning |\n|---|---|"]
    parts += [f"| `{name}` | {' '.join(meaning.split())} |" for name, meaning in of_library().items()]
    return "\n".join(parts).rstrip() + "\n"


def _section(verb: str) -> Iterator[str]:
    top, *inner = nested(data_type(verb))
    yield f"## {verb}\n"
    if _home_of(top) != verb:
        yield f"The same as [{_home_of(top)}](#{_home_of(top)}).\n"
    else:
        yield from _described(top)
        for kind in inner:
            if _home_of(kind) == verb:
                yield f"### {_name(kind)}\n"
                yield from _described(kind)
    call, answer = example(verb)
    yield f"```console\n$ {call}\n```\n"
    yield f"```json\n{json.dumps(answer, indent=2, ensure_ascii=False)}\n```\n"


def example(verb: str) -> tuple[str, Mapping[str, Any]]:
    """Return a call of a verb, and what it answered."""
    call, _, answer = (EXAMPLES / f"{verb}.txt").read_text().partition("\n")
    return call, json.loads(answer)


@cache
def _homes() -> Mapping[Any, str]:
    """Return a mapping from each type to the verb in whose section it is described."""
    homes: dict[Any, str] = {ErrorData: "the envelope"}
    # How far a backfill is belongs to `status`, though other verbs say it, too.
    for verb in ("status", *VERBS):
        for kind in nested(data_type(verb)):
            homes.setdefault(kind, verb)
    return homes


def _home_of(kind: Any) -> str:
    return _homes()[kind]


def _name(kind: Any) -> str:
    """Return the name of a type in the page: of a verb's whole data the verb's."""
    is_whole = kind is not ErrorData and next(nested(data_type(_home_of(kind)))) is kind
    return _home_of(kind) if is_whole else kind.__name__.removesuffix("Data")


def _described(kind: Any) -> Iterator[str]:
    summary = (inspect.getdoc(kind) or "").partition("Attributes:")[0]
    yield f"{_as_json(' '.join(summary.split()))}\n"
    yield from _table(kind)


def _table(kind: Any) -> Iterator[str]:
    meanings = keys_described(kind)
    yield "| key | value | meaning |\n|---|---|---|"
    for key, value in typing.get_type_hints(kind).items():
        yield f"| `{key}` | {_shown(value)} | {_as_json(meanings[key])} |"
    yield ""


def keys_described(kind: Any) -> dict[str, str]:
    """Return a mapping from each key of a `TypedDict` to what its docstring says of it."""
    found: dict[str, str] = {}
    for base in get_original_bases(kind):
        if is_typeddict(base):
            found |= keys_described(base)
    listed = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    for entry in re.split(r"\n(?=    \w)", listed.rstrip()):
        key, _, meaning = entry.strip().partition(": ")
        found[key] = " ".join(meaning.split())
    return found


def _as_json(text: str) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda match: f"`{words[match[1]]}`", text)


def _shown(kind: Any) -> str:
    """Return a type in words."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case types.UnionType | typing.Union:
            return " or ".join(map(_shown, arguments))
        case typing.Literal:
            return ", ".join(f"`{json.dumps(one)}`" for one in arguments)
        case origin if origin is list:
            return f"list of {_shown(arguments[0])}"
        case origin if origin is dict:
            return f"mapping from text to {_shown(arguments[1])}"
        case _:
            return _PLAIN[kind] if kind in _PLAIN else f"[{_name(kind)}](#{_name(kind).lower()})"
