"""The shapes of statements, so that each statement that any test sends can be looked for in the golden rows.

DDL, PUT, COPY, SHOW and the like keep every word; names, values and types are left out of them. A statement that reads
or changes rows is its clauses, those of each subquery, and its *pieces*: each item of a list, each condition, and each
argument of a function. These come together freely, so that a new column, audit or type of partition needs a golden row
only if it brings something new.

All is done in one pass over the tokens of one regular expression, with a memo: every statement is looked at.

A test that sends a new shape fails. Golden rows are added by what the tests note, and then read before a commit::

    SNOWFLAKE_SHAPES=/tmp/new python -m pytest …
    python -m dagster_safe_backfill_tests.harness.snowflake.shapes /tmp/new
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "sql" / "golden" / "snowflake_session.sql"
"""Statements, one a row, that together have every shape and piece that the tests send."""

_TOOL = "dagster-safe-backfill"
_OF_A_USER = re.compile(r'\(\n.*?\n\) AS "_SB_SOURCE"', re.DOTALL)
"""The text of a `Query`."""
_TOKEN = re.compile(
    r"(?P<string>'(?:[^'\\]|''|\\.)*')|(?P<name>\"(?:[^\"]|\"\")*\"(?:\s*\.\s*(?:\"(?:[^\"]|\"\")*\"|\w+))*)"
    r"|(?P<skip>\s+|--[^\n]*|/\*.*?\*/)|(?P<number>\d[\d.]*(?:[eE][+-]?\d+)?)|(?P<stage>@\S+)"
    r"|(?P<word>[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*(?:\.\"(?:[^\"]|\"\")*\")?)|(?P<sign>::|<>|<=|>=|\|\||.)",
    re.DOTALL,
)
_MARKS = {"string": "''", "name": "N", "number": "9", "stage": "@"}
_TYPES_TEXT = """
    NUMBER DECIMAL INT BIGINT FLOAT DOUBLE VARCHAR TEXT BOOLEAN DATE TIME BINARY VARIANT OBJECT ARRAY TIMESTAMP
    TIMESTAMP_NTZ TIMESTAMP_LTZ TIMESTAMP_TZ TIMESTAMPNTZ TIMESTAMPLTZ TIMESTAMPTZ
"""
_TYPES = frozenset(_TYPES_TEXT.split())
_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES")
_CLAUSES_TEXT = """
    SELECT DISTINCT FROM WHERE GROUP HAVING QUALIFY ORDER LIMIT UNION EXCEPT INTERSECT WITH JOIN LEFT FULL INNER CROSS
    ASOF ON USING INSERT UPDATE DELETE MERGE SET VALUES WHEN MATCHED
"""
_CLAUSES = frozenset(_CLAUSES_TEXT.split())
_WORDS_TEXT = """
    ALL AND AS ASC BETWEEN BY CASE DESC ELSE END ESCAPE EXISTS FALSE FIRST FOR ILIKE IN INTERVAL INTO IS LAST LATERAL
    LIKE NOT NULL NULLS OR OVER PARTITION ROWS THEN TRUE WITHIN
"""
_WORDS = frozenset(_WORDS_TEXT.split())


SENT: deque[str] = deque()
"""The statements that emulators of this process got, and nobody has looked at."""

SEEN: set[str] = set()
"""What the tests of this process sent."""

ADDED_IN = "SNOWFLAKE_SHAPES"
"""The environment variable that names a file: unknown shapes are noted there, and `main` makes golden rows of them."""


class UnknownShapeError(AssertionError):
    """A statement was sent that has a shape or a piece of no golden row."""


@dataclass
class _Level:
    """What is between two parentheses, or the whole statement."""

    is_query: bool
    clauses: list[str] = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    cases: int = 0


@lru_cache(maxsize=20_000)
def shapes(sql: str) -> frozenset[str]:
    """Return the shape of a statement, and its pieces."""
    return _shapes(_OF_A_USER.sub('"Q" AS "_SB_SOURCE"', sql))


@lru_cache(maxsize=5_000)
def _shapes(sql: str) -> frozenset[str]:
    tokens = _tokens(sql)
    if not tokens:
        return frozenset()
    if tokens[:3] == ["BEGIN", "TRANSACTION", "NAME"]:
        # Its name has the run's id.
        return frozenset({"BEGIN TRANSACTION NAME N"})
    created = next((at for at, token in enumerate(tokens) if token == "AS" and tokens[at + 1] in _ROWS), None)
    if tokens[0] == "CREATE" and created is not None:
        clauses, pieces = _query(tokens[created + 1 :])
        return frozenset({f"{_words(tokens[:created])} AS …", clauses, *pieces})
    if tokens[0] in _ROWS and not tokens[1].startswith("SYSTEM$"):
        clauses, pieces = _query(tokens)
        return frozenset({clauses, *pieces})
    return frozenset({_words(tokens)})


def _tokens(sql: str) -> list[str]:
    found: list[str] = []
    for token in _TOKEN.finditer(sql):
        kind = token.lastgroup
        if kind == "word":
            word = token[0].upper()
            found.append("T" if word in _TYPES else word)
        elif kind != "skip":
            found.append(_MARKS.get(kind or "", token[0]))
    return found


def _words(tokens: Sequence[str]) -> str:
    """Return every word; the columns of a list are one, whatever they are."""
    words = re.sub(r"\bT \( 9(?: , 9)? \)", "T", " ".join(tokens))
    return re.sub(r"N T(?: , N T)*", "N T", words)


def _query(tokens: Sequence[str]) -> tuple[str, set[str]]:
    pieces: set[str] = set()
    levels = [_Level(is_query=True)]
    for at, token in enumerate(tokens):
        level = levels[-1]
        if token == "(":
            after = tokens[at + 1]
            levels.append(_Level(is_query=after in _ROWS or (after == "(" and level.is_query and not level.item)))
        elif token == ")":
            _ended(levels, pieces)
        elif token == "CASE" or (level.cases and token in ("WHEN", "THEN", "ELSE", "END")):
            level.cases += {"CASE": 1, "END": -1}.get(token, 0)
            _flushed(level, pieces)
            level.item.append(token)
        elif not level.cases and _is_clause(tokens, at, level):
            _flushed(level, pieces)
            level.clauses.append(token)
        elif token in (",", "AND", "OR") or (token == "THEN" and not level.cases):
            _flushed(level, pieces)
        else:
            level.item.append(_named(tokens, at))
    _flushed(levels[0], pieces)
    return _skeleton(levels[0].clauses), pieces


def _skeleton(clauses: Sequence[str]) -> str:
    return _once(" ".join(clauses))


def _once(shape: str) -> str:
    """Return a shape with the branches of a UNION, of which there is one for each partition or audit, once."""
    return re.sub(r"(UNION SELECT(?: (?!UNION\b)[^ ]+)*)(?: \1(?= UNION|$))+", r"\1", shape)


def _ended(levels: list[_Level], pieces: set[str]) -> None:
    """End what is in parentheses."""
    inner = levels.pop()
    _flushed(inner, pieces)
    outer = levels[-1]
    outer.item.append("(…)" if inner.is_query else "( )")
    if inner.is_query:
        pieces.add(_skeleton(inner.clauses))
    # One for each column or audit, often.
    if inner.clauses and outer.clauses[-1:] != ["(…)"]:
        outer.clauses.append("(…)")


def _flushed(level: _Level, pieces: set[str]) -> None:
    """End an item of a list, a condition, or an argument."""
    if level.item:
        piece = re.sub(r"(?<=.)(?: AS)? N$", "", " ".join(level.item))
        pieces.add(piece)
    level.item.clear()


def _named(tokens: Sequence[str], at: int) -> str:
    """Return a word if SQL has it, as a function too; else it is a name that a user wrote without quotes."""
    token = tokens[at]
    is_name = token[0].isalpha() or token[0] == "_"
    if not is_name or token in _WORDS or token in _CLAUSES or token in ("T", "N") or "INFORMATION_SCHEMA" in token:
        return token
    return token if tokens[at + 1 : at + 2] == ["("] else "N"


def _is_clause(tokens: Sequence[str], at: int, level: _Level) -> bool:
    token, after, before = tokens[at], tokens[at + 1 : at + 2], tokens[at - 1] if at else ""
    if token not in _CLAUSES or not level.is_query:
        return False
    match token:
        case "LEFT" | "INSERT":
            return after != ["("] or token == "INSERT"
        case "FROM":
            return before != "DISTINCT"
        case "DISTINCT":
            return before == "SELECT"
        case "GROUP":
            return before != "WITHIN"
        case _:
            return True


@cache
def known() -> frozenset[str]:
    """Return what the golden rows have."""
    return frozenset[str]().union(*map(shapes, rows()))


def rows() -> list[str]:
    """Return the statements of the golden rows."""
    return read(GOLDEN.read_text()) if GOLDEN.exists() else []


def read(text: str) -> list[str]:
    """Return the statements of a golden file's text."""
    return [part.strip().removesuffix(";") for part in re.split(r"^--.*\n", text, flags=re.MULTILINE) if part.strip()]


def unknown(statements: Iterable[str], among: Collection[str] | None = None) -> dict[str, str]:
    """Return a mapping from each shape and piece that no golden row has to one statement that has it."""
    there = known() if among is None else among
    return {found: sql for sql in statements for found in shapes(sql) if found not in there}


def of_the_library(history: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the statements of the library's own sessions."""
    return [one["sql"] for one in history if _TOOL in one["query_tag"]]


def check(statements: Iterable[str]) -> None:
    """Note what was sent, and refuse what has a shape that no golden row has."""
    sent = [*statements]
    SEEN.update(piece for sql in sent for piece in shapes(sql))
    found = unknown(sent)
    place = os.environ.get(ADDED_IN)
    if found and place:
        with open(place, "a") as file:
            file.writelines(json.dumps([piece, sql]) + "\n" for piece, sql in found.items())
    elif found:
        told = "\n\n".join(f"{piece}\n  in: {sql[:1000]}" for piece, sql in found.items())
        raise UnknownShapeError(f"{len(found)} shapes are in no row of {GOLDEN.name}; see {__name__}:\n\n{told}")


def check_sent(*, is_drawn: bool = False) -> None:
    """Check what emulators of this process got since the last time, unless SQL of the test's own was drawn."""
    if not SENT:
        return
    sent = [SENT.popleft() for _ in range(len(SENT))]
    if is_drawn:
        SEEN.update(piece for sql in sent for piece in shapes(sql))
    else:
        check(sent)


def note(sql: str, *, query_tag: str) -> None:
    """Note one statement for `check_sent`, if it is of a session of the library."""
    if _TOOL in query_tag:
        SENT.append(sql)


def dead() -> list[str]:
    """Return the golden rows that have nothing that was sent."""
    return [sql for sql in rows() if not shapes(sql) <= SEEN]


def added(text: str, found: Iterable[tuple[str, str]]) -> str:
    """Return a golden file's text with as many more rows as it takes to have the shapes that were found."""
    there = set[str]().union(*map(shapes, read(text)))
    plain = {_without_ids(_OF_A_USER.sub('(\nSELECT 1 AS one\n) AS "_SB_SOURCE"', sql)) for _, sql in found}
    statements = sorted(plain, key=lambda sql: (len(shapes(sql)), len(sql), sql))
    parts = [text.rstrip()] if text.strip() else []
    for sql in statements:
        new = sorted(shapes(sql) - there, key=len, reverse=True)
        if new:
            there.update(new)
            parts.append(f"-- {new[0]}\n{sql};")
    return "\n\n".join(parts) + "\n"


def _without_ids(sql: str) -> str:
    """Return a statement without what differs from run to run, and with the schema's own name."""
    sql = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", "0a", sql)
    return re.sub(r"[0-9A-F]{32}", "0A", sql).replace("MAIN_", "MAIN")


def main() -> None:
    """Add to the golden rows what the tests noted in files: to be read before it is committed."""
    found = [tuple(json.loads(line)) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    GOLDEN.write_text(added(GOLDEN.read_text() if GOLDEN.exists() else "", found))


if __name__ == "__main__":
    main()
