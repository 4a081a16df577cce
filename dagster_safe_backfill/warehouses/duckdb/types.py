"""DuckDB's types: what a type is made of, and which values of one type another one can hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

UNTYPED = '"NULL"'
"""The type of an Arrow column that holds only NULL."""

_NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    *("FLOAT", "DOUBLE", "DECIMAL"),
)
WALL_CLOCKS = ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMP_NS")
INSTANT = "TIMESTAMP WITH TIME ZONE"
INSTANT_NS = "TIMESTAMPTZ_NS"
"""The type of Arrow's nanosecond instants since DuckDB 2.0."""
TEXTS = ("VARCHAR", "ENUM")
READ_AS_TEXT = ("BIT", "TIME WITH TIME ZONE")
"""The types that Arrow has no type for: it would have the bytes of a BIT, and a time without its zone."""
_BY_TEXT = (*READ_AS_TEXT, "BIGNUM")
_FAMILIES = (
    _NUMBERS,
    ("DATE", *WALL_CLOCKS),
    (INSTANT, INSTANT_NS),
    ("TIME", "TIME_NS"),
    (*TEXTS, "JSON", "UUID", *_BY_TEXT),
    ("BLOB", "GEOMETRY"),
)
_WORD = re.compile(r'"(?:[^"]|"")*"|\w+')


@dataclass(frozen=True, slots=True)
class Type:
    """A type of DuckDB.

    Attributes:
        name: The type without its parameters: DECIMAL, STRUCT, LIST, ARRAY.
        fields: A mapping from the name to the type of each field of a nested type, without the quotes of names.
        text: The type as DuckDB spells it.
    """

    name: str
    text: str
    fields: Mapping[str, Type] = field(default_factory=dict[str, "Type"])

    def leaves(self) -> Iterator[Type]:
        """Yield the types that aren't nested."""
        if not self.fields:
            yield self
        for one in self.fields.values():
            yield from one.leaves()

    def holds(self, *names: str) -> bool:
        """Return True if the type, or one within it, has one of the names."""
        return self.name in names or any(one.holds(*names) for one in self.fields.values())

    def with_text(self, *names: str) -> str:
        """Return the type with VARCHAR in place of the types of these names."""
        if self.name in names:
            return "VARCHAR"
        parts = [one.with_text(*names) for one in self.fields.values()]
        match self.name:
            case "LIST" | "ARRAY":
                return parts[0] + self.text[len(self.fields["item"].text) :]
            case "MAP":
                return f"MAP({', '.join(parts)})"
            case "STRUCT":
                named = zip(self.fields, parts, strict=True)
                return f"STRUCT({', '.join(f'{_quoted(name)} {part}' for name, part in named)})"
            case _:
                return self.text


@cache
def parsed(text: str) -> Type:
    """Return a type from its name, as DuckDB spells it."""
    if text.endswith("]"):
        item, _, size = text.rpartition("[")
        return Type("LIST" if size == "]" else "ARRAY", text, {"item": parsed(item)})
    name, _, rest = text.partition("(")
    parts = _parts(rest.removesuffix(")")) if name in ("STRUCT", "MAP", "UNION") else []
    if name == "MAP":
        return Type(name, text, dict(zip(("key", "value"), map(parsed, parts), strict=True)))
    fields: dict[str, Type] = {}
    for part in parts:
        word = _WORD.match(part)
        if word is not None:
            fields[_unquoted(word.group())] = parsed(part[word.end() :].strip())
    return Type(name, text, fields)


def fits(source: Type, target: Type) -> bool:
    """Return True if values of one type can be cast to the other, so that a comparison shows which ones change."""
    if source.fields or target.fields:
        lists = {"LIST", "ARRAY"}
        is_alike = source.name == target.name or {source.name, target.name} <= lists
        # In another order, or with a field less, DuckDB's cast fills what it doesn't find with NULL.
        if not is_alike or source.name == "UNION" or [*source.fields] != [*target.fields]:
            return False
        pairs = zip(source.fields.values(), target.fields.values(), strict=True)
        return all(one.text in (other.text, UNTYPED) or fits(one, other) for one, other in pairs)
    return any(source.name in family and target.name in family for family in _FAMILIES)


def is_cast_back(target: str) -> bool:
    """Return True if a cast value has to be cast back to show whether it is the same."""
    kind = parsed(target)
    return bool(kind.fields) or kind.name in (*_NUMBERS, *_BY_TEXT, "GEOMETRY", "TIME")


def _parts(text: str) -> list[str]:
    """Split a text at its commas that are in no parentheses, brackets and quotes."""
    parts, depth, quote, start = list[str](), 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _unquoted(word: str) -> str:
    return word[1:-1].replace('""', '"') if word.startswith('"') else word


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
