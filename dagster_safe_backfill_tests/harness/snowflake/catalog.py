"""What Snowflake knows of its tables and DuckDB doesn't: their kind, comment, grants, and types that DuckDB lacks.

It is kept as JSON in DuckDB's own comment on each table, so that it moves with the table when that is renamed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal, TypeVar

import duckdb

from dagster_safe_backfill_tests.harness.snowflake import errors
from dagster_safe_backfill_tests.harness.snowflake.duck import Duck

Kind = Literal["PERMANENT", "TRANSIENT", "TEMPORARY"]
INFORMATION_SCHEMA = "_SF_INFORMATION_SCHEMA"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Name:
    """A table's whole name, each part as Snowflake stores it."""

    database: str
    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.database}.{self.schema}.{self.table}"

    @property
    def sql(self) -> str:
        return ".".join(quoted(part) for part in (self.database, self.schema, self.table))


@dataclass(frozen=True)
class Facts:
    """What is known of one table beside its columns in DuckDB."""

    kind: Kind = "PERMANENT"
    comment: str | None = None
    types: dict[str, str] = field(default_factory=dict)
    """Columns whose Snowflake type DuckDB can't tell, such as VARCHAR(10) and TIMESTAMP_TZ(9)."""
    defaults: dict[str, str] = field(default_factory=dict)
    """The defaults of columns as Snowflake writes them, where DuckDB's are other ones."""
    virtual: dict[str, str] = field(default_factory=dict)
    """The expressions of virtual columns, in DuckDB's words."""
    is_dynamic: bool = False
    variety: str | None = None
    """What it is if it isn't a standard table: ICEBERG, HYBRID, EXTERNAL or EVENT."""
    retention: int = 1
    policies: tuple[Any, ...] = ()
    """The policies on it; see `policies.Applied`."""
    owner: str = "SYSADMIN"
    grants: tuple[str, ...] = ()
    cluster_by: str | None = None
    reclusters: bool = False
    """Whether Automatic Clustering is on."""
    streams: tuple[str, ...] = ()
    """The streams on the table, which go with it whatever it is called."""
    created: str = ""
    session: int | None = None
    """The only session that sees a temporary table."""
    shown: str | None = None
    """The name of a temporary table in its session."""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def create_database(duck: Duck, name: str) -> None:
    """Create a database with its INFORMATION_SCHEMA and PUBLIC; one that is there stays as it is."""
    if duck.execute("SELECT 1 FROM duckdb_databases() WHERE database_name = ?", [name]).fetchone():
        return
    duck.execute(f"ATTACH ':memory:' AS {quoted(name)}")
    duck.execute(f"CREATE SCHEMA {quoted(name)}.{INFORMATION_SCHEMA}")
    duck.execute(f'CREATE SCHEMA {quoted(name)}."PUBLIC"')
    for view, query in _views(name).items():
        duck.execute(f"CREATE VIEW {quoted(name)}.{INFORMATION_SCHEMA}.{view} AS {query}")


def _views(database: str) -> dict[str, str]:
    of_json = "json_extract_string(t.comment, '$.{}')".format
    hidden = f"t.database_name = {literal(database)} AND t.schema_name NOT IN ('main', '{INFORMATION_SCHEMA}')"
    tables = f"""
        SELECT t.database_name AS TABLE_CATALOG, t.schema_name AS TABLE_SCHEMA,
               coalesce({of_json("shown")}, t.table_name) AS TABLE_NAME,
               coalesce({of_json("owner")}, 'SYSADMIN') AS TABLE_OWNER,
               CASE WHEN {of_json("kind")} = 'TEMPORARY' THEN 'LOCAL TEMPORARY'
                    WHEN {of_json("variety")} IN ('EXTERNAL', 'EVENT') THEN {of_json("variety")} || ' TABLE'
                    ELSE 'BASE TABLE' END AS TABLE_TYPE,
               CASE {of_json("kind")} WHEN 'TRANSIENT' THEN 'YES' ELSE 'NO' END AS IS_TRANSIENT,
               t.estimated_size AS ROW_COUNT, 0 AS BYTES,
               coalesce({of_json("retention")}::BIGINT, 1) AS RETENTION_TIME,
               {of_json("created")}::TIMESTAMPTZ AS CREATED, {of_json("created")}::TIMESTAMPTZ AS LAST_ALTERED,
               {of_json("comment")} AS COMMENT,
               CASE {of_json("kind")} WHEN 'TEMPORARY' THEN 'YES' ELSE 'NO' END AS IS_TEMPORARY,
               CASE {of_json("is_dynamic")} WHEN 'true' THEN 'YES' ELSE 'NO' END AS IS_DYNAMIC,
               CASE {of_json("variety")} WHEN 'ICEBERG' THEN 'YES' ELSE 'NO' END AS IS_ICEBERG,
               CASE {of_json("variety")} WHEN 'HYBRID' THEN 'YES' ELSE 'NO' END AS IS_HYBRID,
               {of_json("cluster_by")} AS CLUSTERING_KEY,
               CASE {of_json("reclusters")} WHEN 'true' THEN 'YES' ELSE 'NO' END AS AUTO_CLUSTERING_ON,
               {of_json("session")}::BIGINT AS _SESSION
        FROM duckdb_tables() AS t WHERE {hidden}
        UNION ALL
        SELECT t.database_name, t.schema_name, t.view_name, 'SYSADMIN', 'VIEW', 'NO', NULL, NULL, NULL,
               NULL, NULL, t.comment, 'NO', 'NO', 'NO', 'NO', NULL, 'NO', NULL
        FROM duckdb_views() AS t WHERE {hidden}"""
    shown_type = "json_extract_string(t.comment, '$.types.' || to_json(c.column_name))"
    data_type = f"""
        CASE WHEN {shown_type} IS NOT NULL THEN regexp_replace(replace({shown_type}, 'VARCHAR', 'TEXT'), '[(].*', '')
             WHEN c.data_type LIKE '%INT' OR c.data_type LIKE 'DECIMAL%' THEN 'NUMBER'
             WHEN c.data_type = 'VARCHAR' THEN 'TEXT' WHEN c.data_type = 'DOUBLE' THEN 'FLOAT'
             WHEN c.data_type = 'BLOB' THEN 'BINARY' WHEN c.data_type = 'JSON' THEN 'VARIANT'
             WHEN c.data_type LIKE 'TIMESTAMP WITH%' THEN 'TIMESTAMP_LTZ'
             WHEN c.data_type LIKE 'TIMESTAMP%' THEN 'TIMESTAMP_NTZ' ELSE c.data_type END"""
    number = "(c.data_type LIKE '%INT' OR c.data_type LIKE 'DECIMAL%')"
    columns = f"""
        SELECT c.database_name AS TABLE_CATALOG, c.schema_name AS TABLE_SCHEMA,
               coalesce({of_json("shown")}, c.table_name) AS TABLE_NAME, c.column_name AS COLUMN_NAME,
               c.column_index AS ORDINAL_POSITION, c.column_default AS COLUMN_DEFAULT,
               CASE WHEN c.is_nullable THEN 'YES' ELSE 'NO' END AS IS_NULLABLE, {data_type} AS DATA_TYPE,
               CASE WHEN c.data_type = 'VARCHAR' THEN
                    coalesce(regexp_extract({shown_type}, '[0-9]+')::BIGINT, 16777216) END AS CHARACTER_MAXIMUM_LENGTH,
               CASE WHEN {number} THEN CASE WHEN c.data_type LIKE 'DECIMAL%' THEN c.numeric_precision ELSE 38 END END
                    AS NUMERIC_PRECISION,
               CASE WHEN {number} THEN CASE WHEN c.data_type LIKE 'DECIMAL%' THEN c.numeric_scale ELSE 0 END END
                    AS NUMERIC_SCALE,
               CASE WHEN c.data_type LIKE 'TIME%' THEN 9 END AS DATETIME_PRECISION, c.comment AS COMMENT,
               {of_json("session")}::BIGINT AS _SESSION
        FROM duckdb_columns() AS c
        LEFT JOIN duckdb_tables() AS t USING (database_name, schema_name, table_name)
        WHERE c.database_name = {literal(database)} AND c.schema_name NOT IN ('main', '{INFORMATION_SCHEMA}')"""
    schemata = f"""
        SELECT t.database_name AS CATALOG_NAME,
               CASE t.schema_name WHEN '{INFORMATION_SCHEMA}' THEN 'INFORMATION_SCHEMA' ELSE t.schema_name END
                    AS SCHEMA_NAME, 'SYSADMIN' AS SCHEMA_OWNER, 'NO' AS IS_TRANSIENT, t.comment AS COMMENT
        FROM duckdb_schemas() AS t WHERE t.database_name = {literal(database)}
          AND t.schema_name NOT IN ('main', 'information_schema', 'pg_catalog')"""
    views = f"""
        SELECT t.database_name AS TABLE_CATALOG, t.schema_name AS TABLE_SCHEMA, t.view_name AS TABLE_NAME,
               t.sql AS VIEW_DEFINITION, t.comment AS COMMENT FROM duckdb_views() AS t WHERE {hidden}"""
    return {"TABLES": tables, "COLUMNS": columns, "SCHEMATA": schemata, "VIEWS": views}


def schema_exists(duck: Duck, database: str, schema: str) -> bool:
    sql = "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name = ?"
    return duck.execute(sql, [database, schema]).fetchone() is not None


def relation_kind(duck: Duck, name: Name) -> Literal["table", "view"] | None:
    """Return what has exactly this name, upper and lower case told apart."""
    found = _kind_and_comment(duck, name) if _described(duck, name) else None
    return found[0] if found else None


def _described(duck: Duck, name: Name) -> list[tuple[Any, ...]] | None:
    """Return what DuckDB says of the columns of what has a name, in which it doesn't tell the cases apart."""
    try:
        return duck.execute(f"DESCRIBE {name.sql}").fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        return None


def _kind_and_comment(duck: Duck, name: Name) -> tuple[Literal["table", "view"], str | None] | None:
    values = [name.database, name.schema, name.table]
    where = "WHERE database_name = $1 AND schema_name = $2"
    table = duck.execute(f"SELECT comment FROM duckdb_tables() {where} AND table_name = $3", values).fetchone()
    if table is not None:
        return "table", table[0]
    view = duck.execute(f"SELECT 1 FROM duckdb_views() {where} AND view_name = $3", values).fetchone()
    return None if view is None else ("view", None)


def columns(duck: Duck, name: Name) -> dict[str, str]:
    """Return the columns of a table or view with DuckDB's types."""
    sql = """SELECT column_name, data_type FROM duckdb_columns()
             WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index"""
    return dict(duck.execute(sql, [name.database, name.schema, name.table]).fetchall())


def facts(duck: Duck, name: Name) -> Facts:
    sql = """SELECT comment FROM duckdb_tables()
             WHERE database_name = ? AND schema_name = ? AND table_name = ?"""
    found = duck.execute(sql, [name.database, name.schema, name.table]).fetchone()
    if found is None:
        raise errors.does_not_exist("Object", str(name))
    return _read(found[0])


def _read(comment: str | None) -> Facts:
    if not comment:
        return Facts()
    read = json.loads(comment)
    return Facts(**{**read, **{name: tuple(read[name]) for name in ("grants", "streams", "policies")}})


@dataclass(frozen=True)
class Relation:
    """A table or view as it is defined now."""

    kind: Literal["table", "view"]
    columns: dict[str, str]
    """With DuckDB's types."""
    types: dict[str, str]
    """See `Facts`."""
    virtual: frozenset[str] = frozenset()
    is_dynamic: bool = False
    variety: str | None = None
    policies: tuple[Any, ...] = ()
    facts: Facts = field(default_factory=Facts, compare=False)
    described: tuple[tuple[Any, ...], ...] = field(default=(), compare=False)
    """What DuckDB's DESCRIBE says of the columns."""


class Relations:
    """What is defined, remembered until a DDL of any session: to ask DuckDB takes longer than most queries.

    It is asked on a connection beside the sessions', as a name that is not there ends DuckDB's transaction.
    """

    def __init__(self, duck: Duck) -> None:
        self._duck = duck
        self._known: dict[Name, Relation | None] = {}
        self._before: dict[Name, Relation | None] = {}
        self._answers: dict[tuple[Name, str], Any] = {}
        self._schemas: set[tuple[str, str]] = set()
        self._changing = self._changes = 0
        self._lock, self._asking = threading.Lock(), threading.Lock()

    def find(self, name: Name) -> Relation | None:
        """Return what has exactly this name."""
        with self._lock:
            if name in self._known:
                return self._known[name]
            before = self._changes
        with self._asking:
            found = _relation(self._duck, name)
        with self._lock:
            if self._changes == before and not self._changing:
                self._known[name] = found
        return found

    def before(self, name: Name) -> Relation | None:
        """Return what had exactly this name when the DDL began that asks. DDL comes one at a time."""
        with self._lock:
            if name in self._before:
                return self._before[name]
        return self.find(name)

    def answered(self, name: Name, asked: str, answer: Callable[[], _Answer]) -> _Answer:
        """Return what a query says of this table alone, and nothing of its rows."""
        with self._lock:
            if (name, asked) in self._answers:
                return self._answers[name, asked]
            before = self._changes
        found = answer()
        with self._lock:
            if self._changes == before and not self._changing:
                self._answers[name, asked] = found
        return found

    def has_schema(self, duck: Duck, database: str, schema: str) -> bool:
        with self._lock:
            if (database, schema) in self._schemas:
                return True
            before = self._changes
        found = schema_exists(duck, database, schema)
        with self._lock:
            if found and self._changes == before:
                self._schemas.add((database, schema))
        return found

    @contextmanager
    def change(self, tables: Collection[str] | None = None) -> Iterator[None]:
        """Remember nothing while something is being defined, and no tables of these names; nothing at all, if None."""
        with self._lock:
            self._changing += 1
            self._changes += 1
            self._before = self._known.copy()
            if tables is None:
                self._known.clear()
                self._answers.clear()
                self._schemas.clear()
            else:
                self._known = {name: one for name, one in self._known.items() if not _may_change(name, one, tables)}
                self._answers = {key: one for key, one in self._answers.items() if key[0].table not in tables}
        try:
            yield
        finally:
            with self._lock:
                self._changing -= 1
                # Who asked during the change was told of what was before it.
                self._changes += 1
                self._before = {}


def _may_change(name: Name, known: Relation | None, tables: Collection[str]) -> bool:
    """A temporary table has its session's number in its name; a view changes with what it reads."""
    return name.table.partition("~")[0] in tables or (known is not None and known.kind == "view")


def _relation(duck: Duck, name: Name) -> Relation | None:
    described = _described(duck, name)
    found = _kind_and_comment(duck, name) if described is not None else None
    if described is None or found is None:
        return None
    kind, comment = found
    known = _read(comment)
    return Relation(
        kind=kind,
        columns={column: duck_type for column, duck_type, *_ in described},
        types=known.types,
        virtual=frozenset(known.virtual),
        is_dynamic=known.is_dynamic,
        variety=known.variety,
        policies=known.policies,
        facts=known,
        described=tuple(described),
    )


def record(duck: Duck, name: Name, known: Facts) -> None:
    known = known if known.created else replace(known, created=now())
    duck.execute(f"COMMENT ON TABLE {name.sql} IS {literal(json.dumps(asdict(known)))}")
