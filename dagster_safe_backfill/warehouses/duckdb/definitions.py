"""What only the catalog's CREATE TABLE text shows of a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|[\w.]+|\S""")


def collations_of(definition: str) -> dict[str, str]:
    """Return a mapping from column name to collation, from the catalog's CREATE TABLE text.

    DuckDB 2.0 shows collations nowhere else. Only columns of texts have them.
    """
    return {name: words[2] for name, words in _columns_of(definition) if words[:2] == ["VARCHAR", "COLLATE"]}


def generated_of(definition: str) -> tuple[str, ...]:
    """Return the names of the generated columns, from the catalog's CREATE TABLE text.

    DuckDB before 2.0 shows nowhere else which columns are generated.
    """
    return tuple(name for name, words in _columns_of(definition) if "GENERATED" in words)


def _columns_of(definition: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each column of a CREATE TABLE text, and the words after it that are not in parentheses.

    Constraints of the table are yielded, too. A name or text in quotes is one word, with its quotes.
    """
    depth = 0
    words: list[str] = []
    for token in _TOKEN.findall(definition):
        if token == ")":
            depth -= 1
        if depth == 1 and token not in ("(", ")", ","):
            words.append(token)
        elif words and (depth == 0 or (depth == 1 and token == ",")):
            yield _unquoted(words[0]), words[1:]
            words = []
        if token == "(":
            depth += 1


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
