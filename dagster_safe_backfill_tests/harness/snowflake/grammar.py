"""What Snowflake would refuse in a statement, as far as it can be told without it.

sqlfluff's grammar of Snowflake finds what can't be parsed. It lets through what is only wrong there: types and
functions that Snowflake hasn't, and clauses that other dialects have too; rules of our own find these, and what the
emulator refuses by a statement's text. The rules see a statement as words in capitals, with a space between any two,
each text as '' and each quoted name as "".

sqlfluff takes Snowflake's TIMESTAMPTZ, ORDER BY ALL and LEFT of ASOF for mistakes, too; the library needs none of them.
It also does so with an empty NULL_IF, which the library needs, so it sees one that isn't empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import sqlglot
from sqlglot.tokens import Token, TokenType

from dagster_safe_backfill_tests.harness.snowflake import refusals
from dagster_safe_backfill_tests.harness.snowflake.duckdb_functions import duckdbs_own
from dagster_safe_backfill_tests.harness.snowflake.errors import SnowflakeError

if TYPE_CHECKING:
    from sqlfluff.core.parser import Lexer, Parser

LONGEST_LIST = refusals.LONGEST_LIST
"""How many expressions Snowflake takes in a list, and rows in VALUES."""

_TYPES = """
    NUMBER DECIMAL DEC NUMERIC INT INTEGER BIGINT SMALLINT TINYINT BYTEINT FLOAT FLOAT4 FLOAT8 DOUBLE REAL DECFLOAT
    VARCHAR CHAR CHARACTER NCHAR STRING TEXT NVARCHAR NVARCHAR2 BINARY VARBINARY BOOLEAN DATE DATETIME TIME TIMESTAMP
    TIMESTAMP_LTZ TIMESTAMP_NTZ TIMESTAMP_TZ TIMESTAMPLTZ TIMESTAMPNTZ TIMESTAMPTZ VARIANT OBJECT ARRAY MAP GEOGRAPHY
    GEOMETRY VECTOR
"""
_TEXTS = ("VARCHAR", "CHAR", "CHARACTER", "NCHAR", "STRING", "TEXT", "NVARCHAR", "NVARCHAR2", "VARIANT")
"""The types that TRY_CAST takes."""

_RESERVED = """
    ALL ALTER AND ANY AS BETWEEN BY CHECK COLUMN CONNECT CREATE CURRENT DELETE DISTINCT DROP ELSE EXISTS FOLLOWING FOR
    FROM GRANT GROUP HAVING IN INCREMENT INSERT INTERSECT INTO IS LIKE MINUS NOT NULL OF ON OR ORDER QUALIFY REGEXP
    REVOKE RLIKE ROW ROWS SAMPLE SELECT SET SOME START TABLE TABLESAMPLE THEN TO TRIGGER UNION UNIQUE UPDATE VALUES
    WHENEVER WHERE WITH
"""
_NO_NAME = "|".join(_RESERVED.split())
_NO_ALIAS = "|".join(word for word in _RESERVED.split() if word not in ("SELECT", "VALUES", "WITH", "TABLE"))

_RULES: Mapping[str, str] = {
    r"\bASOF\b(?:(?!\bMATCH_CONDITION\b).)*(?:\bASOF\b|$)": "ASOF JOIN has no MATCH_CONDITION",
    r"\bNOT MATCHED BY (SOURCE|TARGET)\b": "MERGE has no NOT MATCHED BY SOURCE or TARGET",
    r"\bWHEN MATCHED THEN .*\bWHEN MATCHED\b": "an unconditional WHEN MATCHED isn't the last one",
    r"\bWHEN NOT MATCHED THEN .*\bWHEN NOT MATCHED\b": "an unconditional WHEN NOT MATCHED isn't the last one",
    r"\bON CONFLICT\b": "there is no ON CONFLICT",
    r"\) FILTER \( WHERE\b": "aggregates have no FILTER",
    r"^CREATE OR REPLACE (?:\w+ )*IF NOT EXISTS\b": "OR REPLACE and IF NOT EXISTS exclude each other",
    r"\bCOPY GRANTS .*\bCLONE\b": "COPY GRANTS comes after CLONE",
    r"^DROP \w+ (?:IF EXISTS )?[^,]*,": "DROP takes one object",
    r"\b(SEMI|ANTI|POSITIONAL) JOIN\b": "there is no such JOIN",
    r"\b(EXCEPT|INTERSECT|MINUS) ALL\b": "this has no ALL",
    r"\bDISTINCT ON \(": "there is no DISTINCT ON",
    r"^VALUES\b": "VALUES stands in FROM only",
    r"\bINTERVAL (?!''|AS\b|,|FROM\b)": "an INTERVAL is one text",
    r"\b(TIMESTAMP_?(NTZ|LTZ|TZ)|DATETIME|BOOLEAN) ''": "only DATE, TIME and TIMESTAMP have literals",
    r"(?<!@ )~": "there is no such operator",
    r"\bPERCENTILE_(CONT|DISC) \((?! [^()]*\) WITHIN GROUP \()": "a percentile is of WITHIN GROUP",
    r"(?:^|[(,=]|\b(?:SELECT|IN|THEN|ELSE|WHEN|AND|OR|BY)) \[": "a list in brackets is an ARRAY",
    r"\[ [^\[\]]*: [^\[\]]*\]": "there are no slices",
    r"\[ \]": "there are no list types",
    r"\{": "a struct in braces is an OBJECT",
    r"\bLAMBDA \w+ :": "there is no lambda",
    r"^(?!.*\b(?:TRANSFORM|FILTER|REDUCE) \().*->": "there is no ->, but in TRANSFORM, FILTER and REDUCE",
    rf"\. (?:{_NO_NAME})\b(?! \()": "a reserved word is a name without quotes",
    rf"\bAS (?:{_NO_ALIAS})\b": "a reserved word is an alias without quotes",
    r"\bROWID\b": "there is no rowid",
    r"^CREATE (?:OR REPLACE )?(?:LOCAL |GLOBAL )?TEMP(?:ORARY)? (?:RECURSIVE )?VIEW\b": "views are not temporary",
    r"\bMATCH_BY_COLUMN_NAME\b(?! =)": "MATCH_BY_COLUMN_NAME needs a value",
    r"^UPDATE .*\bSET .*\bLIMIT [\d.]": "UPDATE has no LIMIT",
    r"^DELETE FROM (?!.*\bSELECT\b).*\bLIMIT [\d.]": "DELETE has no LIMIT",
    r"^DELETE (?!FROM\b)": "DELETE wants FROM",
    r"^ALTER TABLE .*\bRENAME TO\b.*, ADD\b": "ALTER TABLE does one thing at a time",
    r"^(?!.*\bOVER \().*\bQUALIFY\b": "QUALIFY is about a window function",
    r"; .": "this is more than one statement",
}
_DDL = re.compile(r"^(CREATE|DROP|ALTER(?! SESSION)|TRUNCATE|COMMENT|RENAME|UNDROP|GRANT|REVOKE)\b")
_BEGINS, _ENDS = re.compile(r"^(BEGIN|START TRANSACTION)\b"), re.compile(r"^(COMMIT|ROLLBACK)\b")
_CALLED = re.compile(r"(?<![.$\"])(?<!\bINTO )(?<!\bTABLE )(?<!\bAS )(?<!\bEXISTS )(?<!\. )\b([A-Z_]\w*) \(")
_NO_TEXT = re.compile(
    r"^(?:(?:- )?[\d.]+|TRUE|FALSE|(?:CURRENT|LOCAL)_?(?:DATE|TIME|TIMESTAMP)|(?:DATE|TIME|TIMESTAMP) '')$"
    r"| [-+*/%] "
)
_NO_TREE = re.compile(
    r"\s*(COPY|LIST|LS|REMOVE|RM|GRANT|REVOKE|SHOW|DESC|DESCRIBE|USE|ALTER\s+SESSION)\b", re.IGNORECASE
)
"""What sqlglot can't read."""
_TYPED = re.compile(r":: (\w+)(?: \( [\d ,]*\))?$|^CAST \( .* AS (\w+)(?: \( [\d ,]*\))? \)$")


_UNKNOWN = re.compile(r"DESCRIBE TRANSACTION \d+")
"""What sqlfluff can't read: https://docs.snowflake.com/en/sql-reference/sql/desc-transaction"""


def snowflake_problems(sql: str, *, columns: Mapping[str, str] | None = None) -> list[str]:
    """Return what is wrong with a statement; nothing, if nothing was found.

    Args:
        sql: One statement, as it is sent.
        columns: The types of columns, by their names in capitals, to find TRY_CAST of what isn't text.
    """
    if _UNKNOWN.fullmatch(sql):
        return []
    tokens = sqlglot.tokenize(sql, dialect="snowflake")
    found = [f"can't be parsed: {text!r}" for text in unparsable(shortened(sql, tokens))]
    if tokens and tokens[0].text.upper() in ("PUT", "GET"):
        return found
    words = _words(tokens)
    found += [f"{why}: {match.group()[:80]!r}" for rule, why in _RULES.items() if (match := re.search(rule, words))]
    found += [f"there is no function {name}" for name in _CALLED.findall(words) if name.lower() in duckdbs_own()]
    found += [f"a list of {size} is too long" for size in _lists(tokens) if size > LONGEST_LIST]
    found += [f"there is no type {name}" for name in _cast_types(words) if name not in _TYPES.split()]
    found += [f"TRY_CAST takes texts only: {value!r}" for value in _tried(words) if _is_no_text(value, columns or {})]
    starts = [*(token.start for token in tokens[1:]), len(sql)]
    gaps = (sql[token.end + 1 : start] for token, start in zip(tokens, starts, strict=True))
    found += ["// begins a comment"] if any("//" in gap for gap in gaps) else []
    return found + list(_refused(sql))


def transaction_problems(statements: Sequence[str]) -> list[str]:
    """Return what is wrong with the transactions in the statements of one session, in order."""
    found: list[str] = []
    is_open = False
    for sql in statements:
        words = " ".join(sql.upper().split(maxsplit=3)[:3])
        if is_open and (_DDL.match(words) or _BEGINS.match(words)):
            found.append(f"it commits the transaction, or is ignored: {sql[:80]!r}")
        if not is_open and _ENDS.match(words):
            found.append(f"no transaction was begun: {sql[:80]!r}")
        is_open = (is_open and not _ENDS.match(words)) or _BEGINS.match(words) is not None
    return found + (["the last transaction isn't ended"] if is_open else [])


def _refused(sql: str) -> Iterator[str]:
    """Return what the emulator refuses by a statement's text alone."""
    for check in (refusals.check_text, _check_tree):
        try:
            check(sql)
        except SnowflakeError as error:
            yield error.message


def _check_tree(sql: str) -> None:
    if re.match(
        r"\s*(COPY|LIST|LS|REMOVE|RM|GRANT|REVOKE|SHOW|DESC|DESCRIBE|USE|ALTER\s+SESSION)\b", sql, re.IGNORECASE
    ):
        return
    plain = re.sub(r"\s+COPY\s+GRANTS\b", "", sql, flags=re.IGNORECASE)
    try:
        tree = sqlglot.parse_one(plain, read="snowflake")
    except sqlglot.ParseError as error:
        raise SnowflakeError(1003, "42000", str(error)) from error
    refusals.check_tree(plain, tree)


def unparsable(sql: str) -> list[str]:
    """Return what sqlfluff can't parse."""
    lexer, parser = _sqlfluff()
    segments, errors = lexer.lex(sql)
    tree = parser.parse(segments)
    found = [] if tree is None else list(tree.recursive_crawl("unparsable"))
    return [*(str(error) for error in errors), *(segment.raw for segment in found)]


@cache
def _sqlfluff() -> tuple[Lexer, Parser]:
    from sqlfluff.core import FluffConfig
    from sqlfluff.core.parser import Lexer, Parser

    config = FluffConfig(overrides={"dialect": "snowflake"})
    return Lexer(config=config), Parser(config=config)


def _words(tokens: Sequence[Token]) -> str:
    return " ".join(map(_word, tokens))


def _word(token: Token) -> str:
    if token.token_type in (TokenType.STRING, TokenType.RAW_STRING, TokenType.NATIONAL_STRING, TokenType.HEX_STRING):
        return "''"
    return '""' if token.token_type == TokenType.IDENTIFIER else token.text.upper()


def _arguments(words: str, function: str) -> Iterator[str]:
    """Return what is between the parentheses of a function's calls."""
    for call in re.finditer(rf"\b{function} \( ", words):
        depth = 1
        for end in re.finditer(r"[()]", words[call.end() :]):
            depth += 1 if end.group() == "(" else -1
            if depth == 0:
                yield words[call.end() : call.end() + end.start()].strip()
                break


def _casts(words: str, function: str) -> Iterator[tuple[str, str]]:
    """Return the values and types of the calls of CAST or TRY_CAST."""
    for argument in _arguments(words, function):
        value, _, kind = argument.rpartition(" AS ")
        yield value, kind


def _cast_types(words: str) -> Iterator[str]:
    yield from re.findall(r":: (\w+)", words)
    for function in ("(?<!TRY_)CAST", "TRY_CAST"):
        yield from (kind.split(" ")[0] for _, kind in _casts(words, function))


def _tried(words: str) -> Iterator[str]:
    return (value for value, _ in _casts(words, "TRY_CAST"))


def _is_no_text(value: str, columns: Mapping[str, str]) -> bool:
    outside = value
    while "(" in outside and (shorter := re.sub(r"\([^()]*\)", "()", outside)) != outside:
        outside = shorter.replace("()", "")
    if _NO_TEXT.search(outside.strip()):
        return True
    found = _TYPED.search(value)
    kind = (found.group(1) or found.group(2)) if found else columns.get(value.rsplit(" ", 1)[-1])
    return kind is not None and kind.split("(")[0] not in _TEXTS


_Shape = tuple[object, ...]
_SEPARATORS = ("COMMA", "OR", "WHEN", "UNION")
_LITERALS = ("STRING", "NUMBER", "PLACEHOLDER")


def shortened(sql: str, tokens: Sequence[Token] | None = None) -> str:
    """Return a statement with three of each series of list items, conditions or rows that differ in literals only.

    sqlfluff takes 2 ms for each item of a list. What is bound by question mark, which it doesn't know, is NULL.
    """
    tokens = sqlglot.tokenize(sql, dialect="snowflake") if tokens is None else tokens
    cuts: list[tuple[int, int]] = []
    _walk(tokens, 0, cuts)
    bound = [(at, at) for at, token in enumerate(tokens) if token.token_type == TokenType.PLACEHOLDER]
    kept, end = "", 0
    for first, last in sorted([*cuts, *bound]):
        if tokens[first].start >= end:
            kept += sql[end : tokens[first].start] + ("NULL" if first == last else "")
            end = tokens[last].end + 1
    return (kept + sql[end:]).replace("NULL_IF = ()", "NULL_IF = ('')")


def _walk(tokens: Sequence[Token], at: int, cuts: list[tuple[int, int]]) -> tuple[int, _Shape]:
    """Note what may be cut from `at` to the end of the parentheses; return where they end, and what is in them."""
    items: list[tuple[int, _Shape]] = []
    item: list[object] = []
    first = at
    while at < len(tokens) and tokens[at].token_type != TokenType.R_PAREN:
        token = tokens[at]
        if token.token_type.name in _SEPARATORS:
            items.append((first, tuple(item)))
            first, item = at, []
        is_literal = token.token_type.name in _LITERALS
        item.append(token.token_type.name if is_literal else token.text.upper())
        at += 1
        if token.token_type == TokenType.L_PAREN:
            at, inner = _walk(tokens, at, cuts)
            item.append(inner)
    items.append((first, tuple(item)))
    ends = [*(start - 1 for start, _ in items[1:]), at - 1]
    shapes = [shape for _, shape in items]
    is_cut = [n > 2 and shapes[n - 2] == shapes[n - 1] == shapes[n] for n in range(len(items))]
    cuts += [(start, end) for (start, _), end, cut in zip(items, ends, is_cut, strict=True) if cut]
    return at + 1, tuple(shape for shape, cut in zip(shapes, is_cut, strict=True) if not cut)


def _lists(tokens: Sequence[Token]) -> Iterator[int]:
    """Return how many items each list in parentheses has, and last how many the statement has outside of them."""
    counts = [1]
    for token in tokens:
        if token.token_type == TokenType.L_PAREN:
            counts.append(1)
        elif token.token_type == TokenType.R_PAREN and len(counts) > 1:
            yield counts.pop()
        elif token.token_type == TokenType.COMMA:
            counts[-1] += 1
    yield counts[0]
