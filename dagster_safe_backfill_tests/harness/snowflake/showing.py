"""SHOW and DESCRIBE, the types that DuckDB can't tell, and what a change says of its rows."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors, policies, prepared, results, translate
from dagster_safe_backfill_tests.harness.snowflake.catalog import literal
from dagster_safe_backfill_tests.harness.snowflake.names import Resolver
from dagster_safe_backfill_tests.harness.snowflake.results import Result

INSERTED, UPDATED, DELETED = "number of rows inserted", "number of rows updated", "number of rows deleted"
ACTIONS = {INSERTED: "INSERT", UPDATED: "UPDATE", DELETED: "DELETE"}


_TYPE = translate.TYPE
_CAST = {_TYPE.TIMESTAMPTZ: "TIMESTAMP_TZ(9)", _TYPE.ARRAY: "ARRAY", _TYPE.OBJECT: "OBJECT"}
"""The types that a cast shows and DuckDB can't tell."""


def counted(tree: exp.Expression) -> tuple[str, ...]:
    """Return the names of the counts that a change gives back."""
    if isinstance(tree, exp.Insert):
        return (INSERTED,)
    if isinstance(tree, exp.Update):
        return (UPDATED, "number of multi-joined rows updated")
    if isinstance(tree, exp.Delete):
        return (DELETED,)
    thens = [when.args["then"] for when in tree.args["whens"].expressions]
    kinds = {INSERTED: exp.Insert, UPDATED: exp.Update, DELETED: exp.Var}
    return tuple(word for word, kind in kinds.items() if any(isinstance(then, kind) for then in thens))


def returning(tree: exp.Merge) -> None:
    """Let DuckDB's MERGE say what it did, and name no table on the left of SET, which DuckDB hasn't."""
    for when in tree.args["whens"].expressions:
        then = when.args["then"]
        if isinstance(then, exp.Update):
            for item in then.expressions:
                item.this.set("table", None)
        elif isinstance(then, exp.Insert) and then.this is not None:
            for named in then.this.expressions:
                if isinstance(named, exp.Column):
                    named.set("table", None)
    tree.set("returning", exp.Returning(expressions=[exp.column("merge_action")]))


def hidden_types(session: Any, tree: exp.Expression, resolver: Resolver) -> dict[str, str]:
    """Return the types that DuckDB can't tell of a query's columns: by the name of the table's column, or by a cast."""
    known: dict[str, str] = {}
    for name in resolver.tables:
        known.update(session.account.relations.find(name).types)
    # What is within comes last, and is what the rest selects from.
    for query in reversed([*tree.find_all(exp.Select)]):
        _note_types(query, known)
    return known


def _note_types(query: exp.Select, known: dict[str, str]) -> None:
    for item in query.selects:
        inner = item.unalias()
        if isinstance(inner, exp.Cast):
            known.pop(item.alias_or_name, None)
            if inner.to.this in _CAST:
                known[item.alias_or_name] = _CAST[inner.to.this]
        elif isinstance(inner, exp.Collate):
            known[item.alias_or_name] = f"VARCHAR(16777216) COLLATE '{inner.expression.name}'"
        elif isinstance(inner, exp.Column) and inner.name in known:
            known[item.alias_or_name] = known[inner.name]


def type_of(session: Any, argument: exp.Expression, resolver: Resolver) -> str | None:
    """Return DuckDB's type of what is cast, if it can be found out without its context."""
    if isinstance(argument, exp.Literal):
        return "VARCHAR" if argument.is_string else "NUMBER"
    if isinstance(argument, exp.Column):
        kinds = {session.account.relations.find(name).columns.get(argument.name) for name in resolver.tables} - {None}
        return kinds.pop() if len(kinds) == 1 else None
    try:
        sql = translate.to_duckdb(argument.copy(), session.context_values())
        return str(session.duck.sql(f"SELECT {sql} AS x").types[0])
    except Exception:
        return None


def snowflake_type(duck_type: str, known: str | None) -> str:
    """Return the type as DESCRIBE TABLE writes it."""
    if known:
        return known
    info = results.column("x", duck_type)
    plain = {
        "text": "VARCHAR(16777216)",
        "binary": "BINARY(8388608)",
        "real": "FLOAT",
        "timestamp_ntz": "TIMESTAMP_NTZ(9)",
        "timestamp_ltz": "TIMESTAMP_LTZ(9)",
        "time": "TIME(9)",
    }
    if info["type"] == "fixed":
        return f"NUMBER({info['precision']},{info['scale']})"
    return plain.get(info["type"], info["type"].upper())


def grants(session: Any, written: str) -> Result:
    """SHOW GRANTS ON TABLE: the privilege and the role of each."""
    table = exp.to_table(written, dialect="snowflake")
    prepared.fold(table)
    name = Resolver(session).existing(table)
    relation = session.relation(name)
    if relation.kind != "table":
        raise errors.does_not_exist("Object", str(name))
    known = relation.facts
    rows: list[list[str | None]] = [[*grant.split(" TO ")] for grant in known.grants]
    return Result(0x4400, [results.column(one, "VARCHAR") for one in ("privilege", "grantee_name")], rows=rows)


def transactions(session: Any, number: int | None = None) -> Result:
    """SHOW TRANSACTIONS, those that run of the session's user; or DESCRIBE TRANSACTION, one of any state."""
    known = session.account.transactions
    if number is not None and number not in known:
        raise errors.no_transaction(number)
    found = [one for one in [*known.values()] if one.user == session.user and one.state == "running"]
    rows: list[list[str | None]] = []
    for one in found if number is None else [known[number]]:
        common = [str(one.number), one.user, str(one.session)]
        rows.append(
            [*common, one.name, one.started_on, one.state, "0"]
            if number is None
            else [*common, one.started_on, one.state, one.ended_on]
        )
    names = ("name", "started_on", "state", "scope") if number is None else ("started_on", "state", "ended_on")
    return Result(0x4400, [results.column(name, "VARCHAR") for name in ("id", "user", "session", *names)], rows=rows)


def show(session: Any, tree: exp.Expression) -> Result:
    if isinstance(tree, exp.Describe):
        return _describe(session, tree)
    kind = tree.name.upper()
    if kind in {"TABLES", "VIEWS", "SCHEMAS", "COLUMNS"}:
        return _listing(session, tree, kind)
    if kind == "LOCKS":
        rows: list[list[str | None]] = [
            [table, "PARTITIONS", str(holder), "HOLDING"]
            for table, holder in session.account.locks.transactions().items()
        ]
        names = ("resource", "type", "transaction", "status")
        return Result(0x4400, [results.column(name, "VARCHAR") for name in names], rows=rows)
    raise errors.unsupported(f"SHOW {kind} in the emulator")


def _describe(session: Any, tree: exp.Describe) -> Result:
    table = tree.find(exp.Table)
    kind = str(tree.args.get("kind") or "TABLE").upper()
    if table is None or kind not in {"TABLE", "VIEW"}:
        raise errors.unsupported(f"DESCRIBE {kind} in the emulator")
    resolver = Resolver(session)
    name = resolver.existing(table)
    relation = session.relation(name)
    known = relation.facts
    rows: list[list[str | None]] = []
    for column, duck_type, null, _, plain, _ in relation.described:
        shown = snowflake_type(duck_type, known.types.get(column))
        expression = known.virtual.get(column)
        column_kind = "VIRTUAL" if expression else "COLUMN"
        default = None if expression else known.defaults.get(column, plain)
        is_null = "Y" if null == "YES" else "N"
        policy = policies.shown_of_column(session, name, column) if known.policies else None
        rows.append([column, shown, column_kind, is_null, default, "N", "N", None, expression, None, policy])
    names = "name", "type", "kind", "null?", "default", "primary key", "unique key", "check", "expression", "comment"
    return Result(0x4500, [results.column(one, "VARCHAR") for one in (*names, "policy name")], rows=rows)


def _listing(session: Any, tree: exp.Expression, kind: str) -> Result:
    """SHOW TABLES, SCHEMAS or COLUMNS, by INFORMATION_SCHEMA."""
    scope = tree.args.get("scope")
    database, schema = session.database, session.schema
    if isinstance(scope, exp.Table):
        scope_kind = str(tree.args.get("scope_kind") or "SCHEMA").upper()
        parts = [part.name for part in scope.parts]
        if scope_kind == "DATABASE":
            database, schema = parts[-1], None
        elif scope_kind in {"SCHEMA", "TABLE"}:
            database, schema = (parts[0] if len(parts) > 1 else session.database), parts[-1]
    elif str(tree.args.get("scope_kind") or "").upper() in {"ACCOUNT", "DATABASE"}:
        schema = None
    if schema and kind != "SCHEMAS" and not session.account.relations.has_schema(session.duck, database, schema):
        raise errors.does_not_exist("Object", f"{database}.{schema}")
    shown = {
        "TABLES": """SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_CATALOG AS "database_name",
                     TABLE_SCHEMA AS "schema_name", CASE WHEN IS_TEMPORARY = 'YES' THEN 'TEMPORARY'
                     WHEN IS_TRANSIENT = 'YES' THEN 'TRANSIENT' ELSE 'TABLE' END AS "kind",
                     coalesce(COMMENT, '') AS "comment", coalesce(CLUSTERING_KEY, '') AS "cluster_by",
                     ROW_COUNT AS "rows", TABLE_OWNER AS "owner", RETENTION_TIME::VARCHAR AS "retention_time",
                     CASE AUTO_CLUSTERING_ON WHEN 'YES' THEN 'ON' ELSE 'OFF' END AS "automatic_clustering",
                     CASE TABLE_TYPE WHEN 'EXTERNAL TABLE' THEN 'Y' ELSE 'N' END AS "is_external",
                     CASE TABLE_TYPE WHEN 'EVENT TABLE' THEN 'Y' ELSE 'N' END AS "is_event",
                     IS_ICEBERG[1] AS "is_iceberg", IS_HYBRID[1] AS "is_hybrid", IS_DYNAMIC[1] AS "is_dynamic",
                     'ROLE' AS "owner_role_type" """,
        "VIEWS": """SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_SCHEMA AS "schema_name",
                    coalesce(COMMENT, '') AS "comment", 'false' AS "is_materialized" """,
        "SCHEMAS": 'SELECT SCHEMA_NAME AS "name", CATALOG_NAME AS "database_name"',
        "COLUMNS": 'SELECT TABLE_NAME AS "table_name", TABLE_SCHEMA AS "schema_name", COLUMN_NAME AS "column_name"',
    }[kind]
    if tree.args.get("terse"):
        shown = {
            "TABLES": 'SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_TYPE AS "kind"',
            "VIEWS": 'SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_TYPE AS "kind"',
            "SCHEMAS": 'SELECT NULL AS "created_on", SCHEMA_NAME AS "name", NULL AS "kind"',
            "COLUMNS": shown,
        }[kind]
    source = {"SCHEMAS": "SCHEMATA", "VIEWS": "TABLES"}.get(kind, kind)
    view = f"{catalog.quoted(database)}.{catalog.INFORMATION_SCHEMA}.{source}"
    conditions = ["TRUE"]
    if kind == "VIEWS":
        conditions.append("TABLE_TYPE = 'VIEW'")
    if kind == "TABLES":
        conditions += ["TABLE_TYPE <> 'VIEW'", f"coalesce(_SESSION, {session.number}) = {session.number}"]
    if schema and kind != "SCHEMAS":
        conditions.append(f"TABLE_SCHEMA = {literal(schema)}")
    conditions += _of_names(tree, {"SCHEMAS": "SCHEMA_NAME", "COLUMNS": "COLUMN_NAME"}.get(kind, "TABLE_NAME"))
    _, table = session.duck.query(f"{shown} FROM {view} WHERE {' AND '.join(conditions)} ORDER BY ALL")
    rows = [
        [None if value is None else shown_schema(str(value)) for value in row.values()] for row in table.to_pylist()
    ]
    return Result(0x4400, [results.column(one, "VARCHAR") for one in table.column_names], rows=rows)


def _of_names(tree: exp.Expression, name: str) -> list[str]:
    """Return the conditions of LIKE, and of STARTS WITH, which tells cases apart and has no wildcards."""
    found: list[str] = []
    if like := tree.args.get("like"):
        found.append(f"{name} ILIKE {literal(like.name if isinstance(like, exp.Expression) else like)}")
    if start := tree.args.get("starts_with"):
        found.append(f"starts_with({name}, {literal(start.name)})")
    return found


def shown_schema(name: str) -> str:
    """Return a schema's name: DuckDB has one called main in each database."""
    return "MAIN" if name == "MAIN_" else name
