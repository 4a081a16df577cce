"""What is known of statements that came before, for the next of the same text: to parse and translate takes longest.

The ids of runs, which a text may have in names and values, are taken out of it first and put back at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from dagster_safe_backfill_tests.harness.snowflake import errors, refusals, translate, walking
from dagster_safe_backfill_tests.harness.snowflake.catalog import Name, Relation

_ID = re.compile(
    r"(?<=_)(?:[0-9a-f]{32}|[0-9A-F]{32})(?![0-9A-Za-z])"
    r"|(?<=')[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?=')"
)
_OF_A_SESSION = re.compile(r"CURRENT_|SYSTEM\$|INFORMATION_SCHEMA", re.IGNORECASE)
_MOST_TEMPLATES = 4
_LONG = 20_000


@dataclass(frozen=True)
class Template:
    """A statement as DuckDB's, for tables that are defined as they were, wherever they are."""

    sql: str
    """With a mark for each table."""
    kinds: dict[str, str]
    schema: str | None
    """The session's, where unqualified names are."""
    tables: Sequence[tuple[Name, bool, Relation]]
    """Each as it was written, its database left out if it is the session's; whether it was temporary; what it was."""


@dataclass
class _Parsed:
    tree: exp.Expression
    templates: list[Template] = field(default_factory=list)


class Statement:
    """One statement, parsed."""

    def __init__(self, sql: str) -> None:
        self._marks: dict[str, str] = {}
        self._text = _ID.sub(self._mark, sql)
        try:
            self._parsed = _parsed(self._text) if len(sql) < _LONG else _parsed.__wrapped__(self._text)
        except ParseError:
            # Its message is of the text as it was written.
            self._marks, self._text = {}, sql
            self._parsed = _parsed(sql)

    @property
    def shape(self) -> exp.Expression:
        """The tree to look at; others share it, and its names are no names."""
        return self._parsed.tree

    def tree(self, part: exp.Expression | None = None) -> exp.Expression:
        """Return a tree of one's own, or a part of it."""
        tree = (part or self._parsed.tree).copy()
        if self._marks:
            for node in tree.walk():
                if isinstance(node.this, str):
                    node.set("this", self._put_back(node.this))
        return tree

    def recall(self, session: Any) -> tuple[str, dict[str, str]] | None:
        """Return the statement as DuckDB's, and the types that DuckDB can't tell, if it came before."""
        for template in self._parsed.templates:
            if template.schema != session.schema:
                continue
            names = [self._found(session, *table) for table in template.tables]
            if all(names):
                sql = self._put_back(template.sql)
                for place, name in enumerate(names):
                    sql = sql.replace(_place(place), name.sql)
                return sql, template.kinds
        return None

    def remember(self, session: Any, sql: str, kinds: dict[str, str], tables: Sequence[tuple[Name, Name]]) -> None:
        """Keep what a statement came to; of each table, the name as written and as stored."""
        is_known = len(self._parsed.templates) >= _MOST_TEMPLATES
        if is_known or session.database is None or session.database in self._text or _OF_A_SESSION.search(self._text):
            return
        known: list[tuple[Name, bool, Relation]] = []
        for place, (asked, stored) in enumerate(dict(tables).items()):
            sql = sql.replace(stored.sql, _place(place))
            known.append((self._taken_out(asked, session), asked != stored, session.relation(stored)))
        for mark, written in self._folded():
            sql = sql.replace(written, mark)
        if session.database not in sql:
            self._parsed.templates.append(Template(sql, kinds, session.schema, known))

    def _mark(self, found: re.Match[str]) -> str:
        written = found[0]
        number = len(self._marks)
        if "-" in written:
            mark = f"aaaaaaaa-0000-0000-0000-{number:012}"
        else:
            mark = f"{'A' if written.isupper() else 'a'}{number:031}"
        known = next((mark for mark, of in self._marks.items() if of == written), None)
        if known is None:
            self._marks[mark] = written
        return known or mark

    def _put_back(self, text: str) -> str:
        for mark, written in self._folded():
            text = text.replace(mark, written)
        return text

    def _folded(self) -> Iterator[tuple[str, str]]:
        """Yield each mark and what it is of, as written and as an unquoted name is stored."""
        for mark, written in self._marks.items():
            yield mark, written
            yield mark.upper(), written.upper()

    def _taken_out(self, name: Name, session: Any) -> Name:
        table = name.table
        for mark, written in self._folded():
            table = table.replace(written, mark)
        return Name("" if name.database == session.database else name.database, name.schema, table)

    def _found(self, session: Any, asked: Name, is_temporary: bool, relation: Relation) -> Any:
        name = Name(asked.database or session.database, asked.schema, self._put_back(asked.table))
        stored = session.temporary.get(name, name)
        is_same = (stored != name) == is_temporary and session.relation(stored) == relation
        return stored if is_same else None


def _place(number: int) -> str:
    return f"\0{number}\0"


@lru_cache(maxsize=2000)
def _parsed(sql: str) -> _Parsed:
    trees = [tree for tree in sqlglot.parse(sql, read="snowflake") if tree is not None]
    trees = [tree for tree in trees if not isinstance(tree, exp.Semicolon)]
    if len(trees) != 1:
        message = f"Actual statement count {len(trees)} did not match the desired statement count 1."
        raise errors.SnowflakeError(8, "0A000", message)
    refusals.check_tree(sql, trees[0])
    fold(trees[0])
    return _Parsed(trees[0])


def fold(tree: exp.Expression) -> None:
    """Write identifiers as Snowflake stores them."""
    identifiers, everything = walking.found(tree, exp.Identifier, exp.Ordered)
    for ordered in everything:
        if isinstance(ordered.this, exp.Column) and ordered.this.sql().upper() == "ALL":
            ordered.set("this", exp.Var(this="ALL"))
    translate.fold_identifiers(identifiers)
