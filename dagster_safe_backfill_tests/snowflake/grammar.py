"""Whether a statement is Snowflake's: sqlfluff's grammar of it, and checks for what that grammar lets through."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp

from dagster_safe_backfill_tests.snowflake import refusals
from dagster_safe_backfill_tests.snowflake.errors import SnowflakeError

if TYPE_CHECKING:
    from sqlfluff.core import Parser

_LONG_LIST = re.compile(r"\((?:\s*(?:'[^']*'|[\w.:+-]+)\s*,){50,}[^()]*\)")


@functools.cache
def _parser() -> tuple[object, Parser]:
    from sqlfluff.core import FluffConfig, Lexer, Parser

    config = FluffConfig(overrides={"dialect": "snowflake", "templater": "raw", "large_file_skip_byte_limit": 0})
    return Lexer(config=config), Parser(config=config)


def snowflake_problems(sql: str) -> list[str]:
    """Return what Snowflake would refuse of one statement's syntax; an empty list if nothing was found.

    Names and types are not looked at: the emulator does that.
    """
    return [*_unparsable(sql), *_own(sql)]


def _unparsable(sql: str) -> list[str]:
    # The length of a list of literals is no matter of grammar, and sqlfluff is slow.
    shortened = _LONG_LIST.sub("(1, 2)", sql)
    lexer, parser = _parser()
    tokens, mistakes = lexer.lex(shortened)  # type: ignore[attr-defined]
    problems = [str(mistake) for mistake in mistakes]
    try:
        tree = parser.parse(tokens)
    except Exception as error:
        return [*problems, str(error)]
    found = tree.recursive_crawl("unparsable") if tree is not None else []
    return [*problems, *(f"not Snowflake's grammar: {part.raw[:200]!r}" for part in found)]


def _own(sql: str) -> list[str]:
    """What the grammar misses; each is refused by the emulator, too."""
    problems: list[str] = []
    for check in (refusals.check_text, _check_tree):
        try:
            check(sql)
        except SnowflakeError as error:
            problems.append(error.message)
    bare = refusals.without_literals(sql)
    for pattern, why in _MISSED:
        if pattern.search(bare):
            problems.append(why)
    return problems


_MISSED = (
    (
        re.compile(r"\bCREATE\s+(OR\s+REPLACE\s+)?(LOCAL\s+|GLOBAL\s+)?TEMP(ORARY)?\s+(RECURSIVE\s+)?VIEW\b", re.I),
        "Snowflake's temporary views last for the session only: use a CTE or a table.",
    ),
    (re.compile(r"\bMATCH_BY_COLUMN_NAME\b(?!\s*=)", re.I), "MATCH_BY_COLUMN_NAME needs a value."),
    (re.compile(r"\bUPDATE\b[\s\S]*\bSET\b[\s\S]*\bLIMIT\b\s+\d", re.I), "UPDATE has no LIMIT."),
    (re.compile(r"\bDELETE\s+FROM\b(?![\s\S]*\bSELECT\b)[\s\S]*\bLIMIT\b\s+\d", re.I), "DELETE has no LIMIT."),
    (re.compile(r"^\s*DELETE\s+(?!FROM\b)", re.I), "DELETE wants FROM."),
    (re.compile(r"^\s*(BEGIN|COMMIT|ROLLBACK)\b.*?;\s*\S", re.I | re.S), "One statement at a time."),
    (
        re.compile(r"\bALTER\s+TABLE\b[\s\S]*\bRENAME\s+TO\b[\s\S]*,\s*\bADD\b", re.I),
        "One action at a time in ALTER TABLE.",
    ),
)


def _check_tree(sql: str) -> None:
    if re.match(
        r"\s*(COPY|PUT|LIST|LS|REMOVE|RM|GET|GRANT|REVOKE|SHOW|DESC|DESCRIBE|USE|ALTER\s+SESSION)\b", sql, re.I
    ):
        return
    plain = re.sub(r"\s+COPY\s+GRANTS\b", "", sql, flags=re.I)
    try:
        tree = sqlglot.parse_one(plain, read="snowflake")
    except sqlglot.ParseError as error:
        raise SnowflakeError(1003, "42000", str(error)) from error
    refusals.check_tree(plain, tree)
    for select in tree.find_all(exp.Select):
        if select.args.get("qualify") and not (select.find(exp.Window)):
            raise SnowflakeError(1003, "42000", "QUALIFY needs a window function.")
    for cast in tree.find_all(exp.TryCast):
        if _is_no_text(cast.this):
            raise refusals.not_a_text(cast.this.sql(dialect="snowflake"))


def _is_no_text(argument: exp.Expression) -> bool:
    """Tell what is surely no text, by its form; a column's type only the emulator knows."""
    if isinstance(argument, exp.Literal):
        return not argument.is_string
    if isinstance(argument, exp.Cast):
        return argument.to.this not in exp.DataType.TEXT_TYPES
    return isinstance(argument, exp.Binary | exp.Boolean) and not isinstance(argument, exp.DPipe | exp.Dot)
