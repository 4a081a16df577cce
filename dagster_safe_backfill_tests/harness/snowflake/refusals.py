"""What DuckDB, or sqlglot's lenient parser, would accept and Snowflake refuses."""

from __future__ import annotations

import re

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import errors, functions, walking

LONGEST_LIST = 16384
QUOTED = re.compile(r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_FORBIDDEN = (
    (re.compile(r"\bON\s+CONFLICT\b", re.IGNORECASE), "CONFLICT"),
    (re.compile(r"\)\s*FILTER\s*\(\s*WHERE\b", re.IGNORECASE), "FILTER"),
    (re.compile(r"\bNOT\s+MATCHED\s+BY\s+SOURCE\b", re.IGNORECASE), "BY"),
    (
        re.compile(
            r"\bASOF\s+(LEFT|INNER|RIGHT|FULL|ANTI|SEMI)?\s*JOIN\b(?![\s\S]*\bMATCH_CONDITION\b)", re.IGNORECASE
        ),
        "ON",
    ),
    (re.compile(r"\bINSERT\s+OR\s+(REPLACE|IGNORE)\b", re.IGNORECASE), "OR"),
    (re.compile(r"\bRETURNING\b", re.IGNORECASE), "RETURNING"),
    (re.compile(r"\bDISTINCT\s+ON\s*\(", re.IGNORECASE), "ON"),
    (re.compile(r"\bIS\s+(NOT\s+)?(TRUE|FALSE|UNKNOWN)\s+AND\s+VALID\b", re.IGNORECASE), "IS"),
    (re.compile(r"\bUSING\s+SAMPLE\b", re.IGNORECASE), "SAMPLE"),
    (re.compile(r"\b(SEMI|ANTI|POSITIONAL)\s+JOIN\b", re.IGNORECASE), "JOIN"),
    (re.compile(r"\bCREATE\s+(OR\s+REPLACE\s+)?(TEMP|TEMPORARY)\s+MACRO\b|\bCREATE\s+MACRO\b", re.IGNORECASE), "MACRO"),
    (re.compile(r"\b(LIST|STRUCT|MAP|ROW)\s*\(|\bLAMBDA\s+\w+\s*:", re.IGNORECASE), "LIST"),
    (re.compile(r"//"), "//"),
    (
        re.compile(
            r"^\s*(ATTACH|DETACH|PRAGMA|INSTALL|LOAD|VACUUM|CHECKPOINT|SUMMARIZE|PIVOT|UNPIVOT|FROM)\b", re.IGNORECASE
        ),
        "statement",
    ),
)
_NOT_CALLED = re.compile(r"[A-Za-z_][\w$]*")
_TYPES_DUCKDB_ONLY = {"HUGEINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT", "UHUGEINT", "BLOB", "UUID", "INT128"}


def without_literals(sql: str) -> str:
    """Return a statement's text with its strings, quoted identifiers and comments emptied."""
    return QUOTED.sub(lambda found: found[0][0] * 2 if found[0][0] in "'\"" else " ", sql)


def check_text(sql: str) -> None:
    """Refuse syntax that Snowflake hasn't."""
    bare = without_literals(sql)
    if re.match(r"\s*(COPY|PUT|LIST|LS|REMOVE|RM|GET|COMMENT|GRANT|REVOKE)\b", bare, re.IGNORECASE):
        return
    for pattern, word in _FORBIDDEN:
        if pattern.search(bare):
            raise errors.syntax_error(word)
    unknown = {word.upper() for word in re.findall(r"(?:::|\bAS\s+)(\w+)", bare)} & _TYPES_DUCKDB_ONLY
    if unknown and not re.search(r"\bAS\s+\w+\s*(,|FROM|$)", bare, re.IGNORECASE):
        raise errors.SnowflakeError(2040, "42601", f"SQL compilation error:\nUnsupported data type '{unknown.pop()}'.")


def check_tree(sql: str, tree: exp.Expression) -> None:
    """Refuse functions that Snowflake hasn't, IN-lists longer than it takes, and a MERGE that it can't read."""
    calls, lists, values = walking.found(tree, exp.Func, exp.In, exp.Values)
    for call in calls:
        start, end = call.meta.get("start"), call.meta.get("end")
        if start is None or end is None:
            continue
        name = sql[start : end + 1]
        if _NOT_CALLED.fullmatch(name) and name.lower() not in functions.KNOWN:
            raise errors.unknown_function(name.upper())
    for listed in (*lists, *values):
        check_length(len(listed.expressions))
    if isinstance(tree, exp.Merge):
        _check_merge(tree)


def check_length(length: int) -> None:
    if length > LONGEST_LIST:
        message = (
            "SQL compilation error: error line 1\nmaximum number of expressions in a list exceeded, "
            f"expected at most {LONGEST_LIST:,}, got {length:,}"
        )
        raise errors.SnowflakeError(1795, "42601", message)


def _check_merge(tree: exp.Merge) -> None:
    """An unconditional clause must be the last of its kind."""
    whens = tree.args["whens"].expressions
    for matched in (True, False):
        of_kind = [when for when in whens if bool(when.args.get("matched")) is matched]
        if any(when.args.get("condition") is None for when in of_kind[:-1]):
            raise errors.SnowflakeError(
                1003, "42000", "SQL compilation error:\nan unconditional WHEN clause must be the last of its kind."
            )
    for when in whens:
        if not when.args.get("matched") and not isinstance(when.args.get("then"), exp.Insert):
            raise errors.syntax_error("UPDATE")


def try_casts(tree: exp.Expression) -> list[exp.Expression]:
    """Return what a statement tries to cast; Snowflake wants a text there."""
    return [cast.this for cast in tree.find_all(exp.TryCast)]


def not_a_text(type_name: str) -> errors.SnowflakeError:
    return errors.SnowflakeError(
        1065, "22023", f"SQL compilation error:\nFunction TRY_CAST cannot be used with arguments of types {type_name}"
    )
