"""Policies of the emulated account: what a role sees of a table, and whom POLICY_REFERENCES tells of them.

A query reads a table that has policies as a masked, filtered selection of it. CLONE copies the rows as they are, with
the policies; CREATE TABLE AS copies what is seen, without them. UPDATE, DELETE and MERGE find the rows that are seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors, prepared, results
from dagster_safe_backfill_tests.harness.snowflake.catalog import Name, Relation
from dagster_safe_backfill_tests.harness.snowflake.names import Resolver
from dagster_safe_backfill_tests.harness.snowflake.results import Result, text

DDL = 0x6000
_MASKING, _ROW_ACCESS = "MASKING", "ROW ACCESS"
_FLAGS = re.IGNORECASE | re.DOTALL
_CREATE = re.compile(
    r"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(MASKING|ROW\s+ACCESS|AGGREGATION|PROJECTION)\s+POLICY\s+([\w.]+)"
    r"\s+AS\s*\((.*?)\)\s*RETURNS\s+\w+\s*->\s*(.*?);?\s*$",
    _FLAGS,
)
_TAG = re.compile(
    r"\s*(?:CREATE\s+TAG\s+([\w.]+)|ALTER\s+TAG\s+([\w.]+)\s+SET\s+MASKING\s+POLICY\s+([\w.]+))\s*;?\s*$", _FLAGS
)
_OF_COLUMN = re.compile(
    r"\s*ALTER\s+TABLE\s+(\S+)\s+(?:MODIFY|ALTER)\s+COLUMN\s+(\S+)\s+(SET|UNSET)"
    r"\s+(?:(MASKING|PROJECTION)\s+POLICY(?:\s+([\w.]+))?|TAG\s+([\w.]+)(?:\s*=\s*'[^']*')?)\s*;?\s*$",
    _FLAGS,
)
_OF_TABLE = re.compile(
    r"\s*ALTER\s+TABLE\s+(\S+)\s+(ADD|DROP|SET|UNSET)\s+(ROW\s+ACCESS|AGGREGATION)\s+POLICY(?:\s+([\w.]+))?"
    r"(?:\s+ON\s*\((.*?)\))?\s*;?\s*$",
    _FLAGS,
)
STATEMENT = re.compile("|".join(one.pattern for one in (_CREATE, _TAG, _OF_COLUMN, _OF_TABLE)), _FLAGS)
REFERENCES = re.compile(
    r"\s*SELECT\s+\*\s+FROM\s+TABLE\(INFORMATION_SCHEMA\.POLICY_REFERENCES\(REF_ENTITY_NAME\s*=>\s*'((?:[^']|'')+)',"
    r"\s*REF_ENTITY_DOMAIN\s*=>\s*'TABLE'\)\)\s*;?\s*$",
    re.IGNORECASE,
)
COUNTED = re.compile(
    r"\s*SELECT ROW_COUNT, \(SELECT COUNT\(\*\) FROM (\S+)\) AS SEEN FROM INFORMATION_SCHEMA\.TABLES WHERE .*$", _FLAGS
)


class Applied(NamedTuple):
    """A policy on a table, or on a column of it."""

    kind: str
    policy: str
    column: str | None = None
    arguments: Sequence[str] = ()
    tag: str | None = None


@dataclass(frozen=True)
class Policy:
    """What a policy says: an expression over its arguments."""

    arguments: Sequence[str]
    body: str

    def of(self, columns: Sequence[exp.Expression]) -> exp.Expression:
        """Return the expression for a table's columns."""
        tree = sqlglot.parse_one(self.body, read="snowflake")
        prepared.fold(tree)
        known = dict(zip(self.arguments, columns, strict=False))

        def put(node: exp.Expression) -> exp.Expression:
            return known[node.name].copy() if isinstance(node, exp.Column) and node.name in known else node

        return tree.transform(put)


def applied(relation: Relation) -> list[Applied]:
    return [Applied(*one) for one in relation.policies]


def run(session: Any, sql: str) -> Result:
    """CREATE, SET and UNSET a policy or a tag."""
    known: dict[str, Policy] = session.account.policies
    tags: dict[str, str | None] = session.account.tags
    if found := _CREATE.match(sql):
        names = [item.split()[0].upper() for item in found[3].split(",") if item.strip()]
        known[_key(session, found[2])] = Policy(names, found[4])
    elif found := _TAG.match(sql):
        tags[_key(session, found[1] or found[2])] = _key(session, found[3]) if found[3] else None
    elif found := _OF_COLUMN.match(sql):
        _set(session, found[1], _for_column(session, found), is_set=found[3].upper() == "SET")
    elif found := _OF_TABLE.match(sql):
        columns = [one.strip().strip('"').upper() for one in (found[5] or "").split(",") if one.strip()]
        policy = _key(session, found[4]) if found[4] else ""
        one = Applied(" ".join(found[3].upper().split()), policy, arguments=columns)
        _set(session, found[1], one, is_set=found[2].upper() in ("ADD", "SET"))
    return text(DDL, status="Statement executed successfully.")


def _for_column(session: Any, found: re.Match[str]) -> Applied:
    column = found[2].strip('"') if found[2].startswith('"') else found[2].upper()
    if found[6]:
        tag = _key(session, found[6])
        return Applied(_MASKING, session.account.tags[tag] or "", column, [column], tag)
    return Applied(found[4].upper(), _key(session, found[5]) if found[5] else "", column, [column])


def _set(session: Any, written: str, one: Applied, *, is_set: bool) -> None:
    if is_set and one.policy not in session.account.policies:
        raise errors.does_not_exist("Policy", one.policy)
    name = _table(session, written)
    known = catalog.facts(session.duck, name)
    rest = [was for was in map(Applied._make, known.policies) if (was.kind, was.column) != (one.kind, one.column)]
    catalog.record(session.duck, name, replace(known, policies=(*rest, *([one] if is_set else []))))


def _table(session: Any, written: str) -> Name:
    table = exp.to_table(written, dialect="snowflake")
    prepared.fold(table)
    return Resolver(session).existing(table)


def _key(session: Any, written: str) -> str:
    parts = written.upper().split(".")
    return ".".join([session.database, session.schema, ""][: 3 - len(parts)] + parts)


def seen(session: Any, table: exp.Table, relation: Relation) -> None:
    """Let a statement read a table as the role sees it, or change what it sees of it."""
    found = applied(relation)
    known: Mapping[str, Policy] = session.account.policies
    parent = table.parent
    if table.arg_key == "this" and isinstance(parent, exp.Insert | exp.Schema):
        return
    is_target = table.arg_key == "this" and isinstance(parent, exp.Update | exp.Delete | exp.Merge)
    of = table.alias_or_name if is_target else None
    conditions = [
        known[one.policy].of([exp.column(name, of, quoted=True) for name in one.arguments])
        for one in found
        if one.kind == _ROW_ACCESS
    ]
    condition = exp.and_(*conditions) if conditions else None
    if is_target:
        if isinstance(parent, exp.Merge) and condition is not None:
            parent.set("on", exp.and_(parent.args["on"], condition))
        elif condition is not None:
            parent.where(condition, copy=False)  # type: ignore[union-attr]
        return
    masked = {one.column: known[one.policy] for one in found if one.kind == _MASKING and one.policy}
    written = ", ".join(f"NULL AS {catalog.quoted(column)}" for column in masked if column)
    select = sqlglot.parse_one(f"SELECT *{f' REPLACE ({written})' if written else ''} FROM t", read="duckdb")
    assert isinstance(select, exp.Select)
    for item in select.find_all(exp.Alias):
        item.set("this", masked[item.alias].of([exp.column(item.alias, quoted=True)]))
    alias = exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True))
    inner = table.copy()
    inner.set("alias", None)
    select = select.from_(inner, copy=False)
    if condition is not None:
        select = select.where(condition, copy=False)
    table.replace(exp.Subquery(this=select, alias=alias))


def may_see(session: Any, name: Name) -> bool:
    """Return whether a session's role is told of a table's policies: it owns the table, or may apply policies."""
    is_owner = (session.role or "SYSADMIN") == catalog.facts(session.duck, name).owner
    return is_owner or "APPLY POLICY" not in session.settings.denied


def shown_of_column(session: Any, name: Name, column: str) -> str | None:
    """Return what DESCRIBE TABLE shows: a masking policy that was set on the column, and not on a tag of it."""
    policies = map(Applied._make, catalog.facts(session.duck, name).policies)
    found = [one.policy for one in policies if (one.kind, one.column, one.tag) == (_MASKING, column, None)]
    return found[0] if found and may_see(session, name) else None


def references(session: Any, written: str) -> Result:
    """POLICY_REFERENCES of a table: https://docs.snowflake.com/en/sql-reference/functions/policy_references"""
    session.settings.check("POLICY_REFERENCES", "function 'POLICY_REFERENCES'")
    name = _table(session, written.replace("''", "'"))
    found = map(Applied._make, catalog.facts(session.duck, name).policies) if may_see(session, name) else ()
    rows: list[list[str | None]] = []
    for one in found:
        database, schema, policy = one.policy.split(".")
        tag = one.tag.split(".") if one.tag else [None] * 3
        kind = f"{one.kind.replace(' ', '_')}_POLICY"
        of = [name.database, name.schema, name.table, "TABLE", one.column]
        rows.append([database, schema, policy, kind, *of, *tag, "ACTIVE"])
    names = (
        *("policy_db", "policy_schema", "policy_name", "policy_kind"),
        *("ref_database_name", "ref_schema_name", "ref_entity_name", "ref_entity_domain", "ref_column_name"),
        *("tag_database", "tag_schema", "tag_name", "policy_status"),
    )
    return Result(0x1000, [results.column(one.upper(), "VARCHAR") for one in names], rows=rows)


def counted(session: Any, written: str) -> Result:
    """ROW_COUNT, which has all rows, beside the number of those that the role sees."""
    name = _table(session, written)
    there = session.duck.execute(f"SELECT count(*) FROM {name.sql}").fetchone()[0]
    tree = session.parsed(f"SELECT COUNT(*) FROM {written}").tree()
    found = session.duck.execute(session.prepared(tree)[0]).fetchone()[0]
    is_hidden = "ROW_COUNT" in session.settings.denied
    rows: list[list[str | None]] = [[None if is_hidden else str(there), str(found)]]
    return Result(0x1000, [results.column(one, "BIGINT") for one in ("ROW_COUNT", "SEEN")], rows=rows)
