"""DDL on tables as Snowflake has it: kinds, comments, CLONE, SWAP WITH, and no enforced keys."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, columns, errors, loading, prepared, translate
from dagster_safe_backfill_tests.harness.snowflake.catalog import Facts, Kind, Name, Relation
from dagster_safe_backfill_tests.harness.snowflake.names import Resolver
from dagster_safe_backfill_tests.harness.snowflake.results import Result, text

DDL = 0x6000
_VARIETY = re.compile(
    r"^\s*CREATE\s+(?P<replace>OR\s+REPLACE\s+)?(?P<variety>ICEBERG|HYBRID|EXTERNAL|EVENT)\s+TABLE\b", re.IGNORECASE
)
_RETENTION = re.compile(r"\bDATA_RETENTION_TIME_IN_DAYS\s*=\s*(\d+)", re.IGNORECASE)
COPY_GRANTS = re.compile(r"\s+COPY\s+GRANTS\b", re.IGNORECASE)


def of_variety(sql: str) -> tuple[str, str | None]:
    """Return CREATE TABLE without the word that says what other kind of table it makes, and that word."""
    found = _VARIETY.match(sql)
    if found is None:
        return sql, None
    variety, rest = found["variety"].upper(), sql[found.end() :]
    if variety == "EVENT" and "(" not in rest:
        rest += " (TIMESTAMP TIMESTAMP_NTZ, RECORD VARIANT, VALUE VARIANT)"
    return f"CREATE {found['replace'] or ''}TABLE{rest}", variety


def create_table(session: Any, tree: exp.Create, sql: str, *, copy_grants: bool, variety: str | None = None) -> Result:
    """CREATE TABLE in all its forms: columns, AS, LIKE, CLONE."""
    resolver = Resolver(session)
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    shown = resolver.name(target)
    kind, comment = _properties(tree)
    is_dynamic = any(isinstance(item, exp.DynamicProperty) for item in tree.find_all(exp.Property))
    if not session.account.relations.has_schema(session.duck, shown.database, shown.schema):
        raise errors.does_not_exist("Schema", f"{shown.database}.{shown.schema}")
    session.settings.check(f"CREATE TABLE ON {shown.schema}", f"schema '{shown.schema}'")
    name = session.temporary.get(shown, shown)
    if kind == "TEMPORARY":
        name = replace(shown, table=f"{shown.table}~{session.number}")
    there = session.account.relations.before(name)
    if there and tree.args.get("exists"):
        return text(DDL, status=f"{shown.table} already exists, statement succeeded.")
    if there and (there.kind == "view" or not tree.args.get("replace")):
        raise errors.already_exists(str(shown))
    old = there.facts if there else Facts()
    retention = _RETENTION.search(sql)
    known = Facts(
        kind=kind,
        comment=comment,
        created=catalog.now(),
        is_dynamic=is_dynamic,
        variety=variety,
        retention=int(retention[1]) if retention else 1,
        owner=_creator(session),
    )
    if kind == "TEMPORARY":
        known = replace(known, session=session.number, shown=shown.table)
    source = tree.args.get("clone") or next(iter(tree.find_all(exp.LikeProperty)), None)
    if source is not None:
        known = _like(session, name, resolver.existing(source.this), known, clone=bool(tree.args.get("clone")))
    else:
        known = _defined(session, tree, name, known)
    if copy_grants and there:
        # Of the table that is replaced, and not of the one that is cloned:
        # https://docs.snowflake.com/en/sql-reference/sql/create-table
        known = replace(known, grants=old.grants)
    future = session.account.future_grants.get((name.database, name.schema), ()) if kind != "TEMPORARY" else ()
    catalog.record(session.duck, name, replace(known, grants=(*(known.grants if copy_grants else ()), *future)))
    session.account.forget_loads(str(name))
    session.account.touch(name)
    if kind == "TEMPORARY":
        session.temporary[shown] = name
    return text(DDL, status=f"Table {shown.table} successfully created.")


def _creator(session: Any) -> str:
    return session.role or "SYSADMIN"


def _properties(tree: exp.Create) -> tuple[Kind, str | None]:
    kind: Kind = "PERMANENT"
    comment = None
    properties = tree.args.get("properties")
    for item in properties.expressions if properties else []:
        if isinstance(item, exp.TransientProperty):
            kind = "TRANSIENT"
        elif isinstance(item, exp.TemporaryProperty):
            kind = "TEMPORARY"
        elif isinstance(item, exp.SchemaCommentProperty):
            comment = item.this.name
    return kind, comment


def _like(session: Any, name: Name, source: Name, known: Facts, *, clone: bool) -> Facts:
    """Make a table with another's columns, defaults and nullability; a clone has its rows, comment and types too."""
    relation = _table_before(session, source)
    theirs = relation.facts
    if clone and session.account.failing_clones:
        session.account.failing_clones -= 1
        raise errors.no_time_travel(str(source))
    if clone and theirs.variety:
        raise errors.unsupported(f"CLONE of an {theirs.variety} table to a standard table")
    if clone and theirs.kind != "PERMANENT" and known.kind == "PERMANENT":
        raise errors.SnowflakeError(
            2119,
            "0A000",
            f"SQL compilation error:\n{theirs.kind.title()} object cannot be cloned to a permanent object.",
        )
    parts = [
        columns.again(column, kind, null, default, theirs) for column, kind, null, _, default, _ in relation.described
    ]
    written = ", ".join(catalog.quoted(column) for column in relation.columns if column not in theirs.virtual)
    temporary = name == source
    session.duck.execute("BEGIN")
    try:
        session.duck.execute(f"CREATE OR REPLACE TABLE {name.sql} ({', '.join(parts)})")
        if clone and not temporary:
            with session.duck.sheltered(shelter=False):
                session.duck.execute(f"INSERT INTO {name.sql} ({written}) SELECT {written} FROM {source.sql}")
    except BaseException:
        session.duck.execute("ROLLBACK")
        raise
    session.duck.execute("COMMIT")
    comment = known.comment or (theirs.comment if clone else None)
    of_columns = {"types": theirs.types, "defaults": theirs.defaults, "virtual": theirs.virtual}
    policies = theirs.policies if clone else ()
    # Automatic Clustering is suspended for the new table, and no stream is on it.
    kept = {"grants": theirs.grants, "policies": policies, "cluster_by": theirs.cluster_by}
    return replace(known, comment=comment, **kept, **of_columns)


def _table_before(session: Any, name: Name) -> Relation:
    """Return the table that had a name when the statement began."""
    found = session.account.relations.before(name)
    if found is None or found.kind != "table":
        raise errors.does_not_exist("Object", str(name))
    return found


def _defined(session: Any, tree: exp.Create, name: Name, known: Facts) -> Facts:
    """Make a table of a list of columns, of a query, or of both."""
    query = tree.expression
    definitions = list(tree.this.expressions) if isinstance(tree.this, exp.Schema) else []
    known = columns.facts(session, definitions, known)
    types = dict(known.types)
    or_replace = "OR REPLACE " if tree.args.get("replace") else ""
    if query is None:
        columns.make_sequences(session, definitions, name)
        parts = [columns.defined(session, item, name) for item in definitions if isinstance(item, exp.ColumnDef)]
        session.duck.execute(f"CREATE {or_replace}TABLE {name.sql} ({', '.join(parts)})")
        return known
    sql, kinds = session.prepared(query)
    described = session.duck.execute(f"DESCRIBE {sql}").fetchall()
    named = [item.name for item in definitions] or [row[0] for row in described]
    if len(named) != len(described):
        raise errors.SnowflakeError(2026, "42601", "SQL compilation error:\nInvalid column definition list")
    parts = []
    for place, (column, row) in enumerate(zip(named, described, strict=True)):
        wanted = definitions[place].args.get("kind") if definitions else None
        kind = translate.to_duckdb(wanted.copy(), {}) if wanted else {'"NULL"': "VARCHAR"}.get(row[1], row[1])
        parts.append(f"CAST({catalog.quoted(row[0])} AS {kind}) AS {catalog.quoted(column)}")
        if not definitions and row[0] in kinds:
            types[column] = kinds[row[0]]
    with session.duck.sheltered(shelter=False):
        session.duck.execute(f"CREATE {or_replace}TABLE {name.sql} AS SELECT {', '.join(parts)} FROM ({sql})")
    return replace(known, types=types)


def swap(session: Any, one: Name, other: Name) -> Result:
    """ALTER TABLE one SWAP WITH other: the names change places, all else stays with its table."""
    if (one.database, one.schema) != (other.database, other.schema):
        raise errors.unsupported("SWAP WITH across schemas in the emulator")
    aside = replace(one, table=f"{one.table}~swap")
    duck = session.duck
    kinds = {name: _table_before(session, name).facts.kind for name in (one, other)}
    if "TEMPORARY" in kinds.values() and len(set(kinds.values())) > 1:
        raise errors.unsupported("SWAP of a temporary table with another")
    duck.execute("BEGIN")
    try:
        for old, new in ((one, aside), (other, one), (aside, other)):
            duck.execute(f"ALTER TABLE {old.sql} RENAME TO {catalog.quoted(new.table)}")
    except BaseException:
        duck.execute("ROLLBACK")
        raise
    duck.execute("COMMIT")
    session.account.swap_tokens(one, other)
    return text(DDL, status="Statement executed successfully.")


def set_comment(session: Any, name: Name, comment: str | None) -> Result:
    known = catalog.facts(session.duck, name)
    catalog.record(session.duck, name, replace(known, comment=comment))
    return text(DDL, status="Statement executed successfully.")


def alter_table(session: Any, tree: exp.Alter) -> Result:
    """ALTER TABLE: SWAP WITH, RENAME TO, SET COMMENT, ADD, DROP and alter a column."""
    resolver = Resolver(session)
    if tree.args.get("exists"):
        try:
            resolver.existing(tree.this)
        except errors.SnowflakeError:
            return text(DDL, status="Statement executed successfully.")
    name = resolver.existing(tree.this)
    for action in tree.args["actions"]:
        if not isinstance(action, exp.SwapTable):
            session.account.touch(name)
        _alter(session, resolver, name, action)
    return text(DDL, status="Statement executed successfully.")


def _alter(session: Any, resolver: Resolver, name: Name, action: exp.Expression) -> None:
    duck = session.duck
    if isinstance(action, exp.SwapTable):
        swap(session, name, resolver.existing(action.this))
    elif isinstance(action, exp.AlterRename):
        new = resolver.name(action.this)
        if catalog.relation_kind(duck, new):
            raise errors.already_exists(str(new))
        if (new.database, new.schema) != (name.database, name.schema):
            raise errors.unsupported("RENAME across schemas in the emulator")
        duck.execute(f"ALTER TABLE {name.sql} RENAME TO {catalog.quoted(new.table)}")
    elif isinstance(action, exp.AlterSet):
        comment = action.find(exp.SchemaCommentProperty)
        if comment is not None:
            set_comment(session, name, comment.this.name)
    elif isinstance(action, exp.ColumnDef):
        _check_default(action)
        known = columns.facts(session, [action], catalog.facts(duck, name))
        if action.name in catalog.columns(duck, name) and not action.args.get("exists"):
            raise errors.SnowflakeError(1430, "42601", f"SQL compilation error:\ncolumn '{action.name}' already exists")
        exists = "IF NOT EXISTS " if action.args.get("exists") else ""
        action.set("exists", False)
        columns.make_sequences(session, [action], name)
        duck.execute(f"ALTER TABLE {name.sql} ADD COLUMN {exists}{columns.defined(session, action, name)}")
        catalog.record(duck, name, known)
    else:
        duck.execute(f"ALTER TABLE {name.sql} {translate.to_duckdb(action.copy(), {})}")


def _check_default(column: exp.ColumnDef) -> None:
    """Refuse what ADD COLUMN doesn't take: a DEFAULT that is no literal, and one with IF NOT EXISTS."""
    default = next(
        (item.kind.this for item in column.constraints if isinstance(item.kind, exp.DefaultColumnConstraint)), None
    )
    if default is None:
        return
    if column.args.get("exists"):
        raise errors.unsupported("IF NOT EXISTS with DEFAULT")
    number = default.this if isinstance(default, exp.Neg) else default
    if not isinstance(number, exp.Literal | exp.Boolean | exp.Null):
        message = (
            f"SQL compilation error:\nCannot add column '{column.name}' with non-constant default to non-empty table"
        )
        raise errors.SnowflakeError(1911, "0A000", message)


def _dropped(tree: exp.Drop) -> exp.Table:
    """Return what DROP names; sqlglot takes a list of tables."""
    named = [tree.this] if tree.this is not None else tree.args["tables"]
    if len(named) != 1:
        raise errors.syntax_error(",")
    return named[0]


def drop(session: Any, tree: exp.Drop) -> Result:
    """DROP TABLE, VIEW or SCHEMA; of two tables of one name the temporary one goes."""
    resolver = Resolver(session)
    kind = tree.args["kind"].upper()
    if kind == "SCHEMA":
        return _drop_schema(session, tree)
    if kind == "STAGE":
        loading.drop_stage(session.account, resolver.name(_dropped(tree)))
        return text(DDL, status=f"{_dropped(tree).name} successfully dropped.")
    shown = resolver.name(_dropped(tree))
    name = session.temporary.get(shown, shown)
    relation = session.account.relations.before(name)
    there = relation and relation.kind
    if there != kind.lower():
        if tree.args.get("exists") and there is None:
            return text(DDL, status="Drop statement executed successfully (object already dropped).")
        raise errors.does_not_exist(kind.title(), str(shown))
    session.duck.execute(f"DROP {kind} {name.sql}")
    session.temporary.pop(shown, None)
    return text(DDL, status=f"{shown.table} successfully dropped.")


def _drop_schema(session: Any, tree: exp.Drop) -> Result:
    target = _dropped(tree)
    database, schema = target.catalog or session.database, target.db or target.name
    if not session.account.relations.has_schema(session.duck, database, schema):
        if tree.args.get("exists"):
            return text(DDL, status="Drop statement executed successfully (object already dropped).")
        raise errors.does_not_exist("Schema", f"{database}.{schema}")
    session.duck.execute(f"DROP SCHEMA {catalog.quoted(database)}.{catalog.quoted(schema)} CASCADE")
    return text(DDL, status=f"{schema} successfully dropped.")


def create_schema(session: Any, tree: exp.Create) -> Result:
    database, schema = tree.this.catalog or session.database, tree.this.db or tree.this.name
    # Also where it is there, and IF NOT EXISTS says so.
    session.settings.check("CREATE SCHEMA", f"database '{database}'")
    there = session.account.relations.has_schema(session.duck, database, schema)
    if there and not tree.args.get("exists"):
        raise errors.already_exists(schema)
    if not there:
        session.duck.execute(f"CREATE SCHEMA {catalog.quoted(database)}.{catalog.quoted(schema)}")
    # Snowflake makes it the session's own.
    session.database, session.schema = database, schema
    said = f"{schema} already exists, statement succeeded." if there else f"Schema {schema} successfully created."
    return text(DDL, status=said)


def changed_by(session: Any, tree: exp.Expression) -> list[Name]:
    """Return the tables that are there and that a DDL statement changes, replaces or drops."""
    resolver = Resolver(session)
    written: list[exp.Expression | None] = []
    if isinstance(tree, exp.Alter) and tree.args.get("kind") == "TABLE":
        written = [tree.this, *(action.this for action in tree.args["actions"] if isinstance(action, exp.SwapTable))]
    elif isinstance(tree, exp.TruncateTable):
        written = [*tree.expressions]
    elif isinstance(tree, exp.Drop) and tree.args["kind"].upper() == "TABLE":
        written = [_dropped(tree)]
    elif isinstance(tree, exp.Create) and tree.args["kind"].upper() == "TABLE":
        written = [tree.this.this if isinstance(tree.this, exp.Schema) else tree.this]
    names = [resolver.name(table) for table in written if isinstance(table, exp.Table)]
    names = [session.temporary.get(name, name) for name in names]
    # In one order, lest two swaps wait for each other.
    return sorted((name for name in names if session.relation(name)), key=str)


def named(tree: exp.Expression) -> set[str] | None:
    """Return the names of the tables that a DDL statement may define anew; None, if that may be all."""
    kind = str(tree.args.get("kind") or "").upper()
    if kind == "SCHEMA" and isinstance(tree, exp.Create):
        return set()
    if kind == "TABLE" and isinstance(tree, exp.Create):
        # What it is made of stays as it is.
        return {table.name for table in tree.this.find_all(exp.Table)}
    return {table.name for table in tree.find_all(exp.Table)} or None if kind in {"TABLE", "VIEW"} else None


def run(session: Any, tree: exp.Expression, sql: str, *, copy_grants: bool, variety: str | None = None) -> Result:
    """Run one DDL statement."""
    if isinstance(tree, exp.Create):
        is_table = tree.args["kind"].upper() == "TABLE"
        made = partial(create_table, sql=sql, copy_grants=copy_grants, variety=variety) if is_table else _create
        return made(session, tree)
    if isinstance(tree, exp.Drop):
        return drop(session, tree)
    if isinstance(tree, exp.Grant) or _FUTURE.match(sql):
        return grant(session, sql)
    if str(tree.args.get("kind") or "TABLE").upper() == "TABLE":
        if isinstance(tree, exp.Alter):
            return alter_table(session, tree)
        if isinstance(tree, exp.Comment):
            return set_comment(session, Resolver(session).existing(tree.this), tree.expression.name)
        if isinstance(tree, exp.TruncateTable):
            name = Resolver(session).existing(tree.expressions[0])
            session.duck.execute(f"DELETE FROM {name.sql}")
            session.account.touch(name)
            return text(DDL, status="Statement executed successfully.")
    raise errors.unsupported(f"{sql[:100]} in the emulator")


def _create(session: Any, tree: exp.Create) -> Result:
    kind = tree.args["kind"].upper()
    if kind == "SCHEMA":
        return create_schema(session, tree)
    if kind == "STAGE":
        return loading.create_stage(session, tree)
    if kind == "VIEW":
        return _create_view(session, tree)
    if kind == "DATABASE":
        session.account.create_database(tree.this.name)
        session.database, session.schema = tree.this.name, "PUBLIC"
        return text(DDL, status=f"Database {tree.this.name} successfully created.")
    raise errors.unsupported(f"CREATE {kind} in the emulator")


def _create_view(session: Any, tree: exp.Create) -> Result:
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    name = Resolver(session).name(target)
    if catalog.relation_kind(session.duck, name) and not tree.args.get("replace"):
        raise errors.already_exists(str(name))
    sql, _ = session.prepared(tree.expression)
    columns = ""
    if isinstance(tree.this, exp.Schema):
        columns = f" ({', '.join(catalog.quoted(item.name) for item in tree.this.expressions)})"
    session.duck.execute(f"CREATE OR REPLACE VIEW {name.sql}{columns} AS {sql}")
    return text(DDL, status=f"View {name.table} successfully created.")


_GRANT = re.compile(
    r"^\s*GRANT\s+(?P<what>.+?)\s+ON\s+(?:TABLE\s+)?(?P<table>\S+)\s+TO\s+(?:ROLE\s+)?(?P<role>\S+?)\s*;?\s*$", re.I
)


_FUTURE = re.compile(
    r"^\s*GRANT\s+(?P<what>.+?)\s+ON\s+FUTURE\s+TABLES\s+IN\s+SCHEMA\s+(?P<schema>\S+)"
    r"\s+TO\s+(?:ROLE\s+)?(?P<role>\S+?)\s*;?\s*$",
    re.I,
)


def grant(session: Any, sql: str) -> Result:
    """GRANT on a table, kept as text so that a test can read what a swap or a clone did to it."""
    found = _FUTURE.match(sql)
    if found is not None:
        key = (session.database, found["schema"].strip('"').upper())
        made = f"{found['what'].upper()} TO {found['role'].upper()}"
        session.account.future_grants[key] = (*session.account.future_grants.get(key, ()), made)
        return text(DDL, status="Statement executed successfully.")
    found = _GRANT.match(sql)
    if found is None:
        raise errors.unsupported(f"{sql[:100]} in the emulator")
    table = exp.to_table(found["table"], dialect="snowflake")
    prepared.fold(table)
    name = Resolver(session).existing(table)
    known = catalog.facts(session.duck, name)
    made = f"{found['what'].upper()} TO {found['role'].upper()}"
    catalog.record(session.duck, name, replace(known, grants=(*known.grants, made)))
    return text(DDL, status="Statement executed successfully.")
