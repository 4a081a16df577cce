"""Whose names a statement uses: tables resolved, temporary ones found, columns told apart by their case."""

from __future__ import annotations

from typing import Any

import sqlglot
from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors, walking
from dagster_safe_backfill_tests.harness.snowflake.catalog import Name


class Resolver:
    """Resolves the tables of one statement as the session sees them."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._columns: dict[str, set[str]] = {}
        self.written: list[tuple[Name, Name]] = []
        """The tables, each as it is written and as it is stored."""
        self.has_policies = False

    @property
    def tables(self) -> list[Name]:
        """The tables as they are stored."""
        return [stored for _, stored in self.written]

    def name(self, table: exp.Table) -> Name:
        """Return the whole name of a table as written, without looking whether it is there."""
        database = table.catalog or self._session.database
        if not database:
            raise errors.SnowflakeError(
                90105, "22000", "Cannot perform operation. This session does not have a current database."
            )
        schema = table.db or (self._session.schema if not table.catalog else None)
        if not schema:
            raise errors.SnowflakeError(
                90106, "22000", "Cannot perform operation. This session does not have a current schema."
            )
        return Name(database, schema, table.name)

    def existing(self, table: exp.Table) -> Name:
        """Return the stored name of a table or view that must be there; a temporary table comes first."""
        name = self.name(table)
        name = self._session.temporary.get(name, name)
        if self._session.account.relations.find(name) is None:
            if not self._session.account.relations.has_schema(self._session.duck, name.database, name.schema):
                raise errors.does_not_exist("Schema", f"{name.database}.{name.schema}")
            raise errors.does_not_exist("Object", str(self.name(table)))
        return name

    def resolve(self, tree: exp.Expression) -> None:
        """Point every table of a statement at what is stored."""
        ctes, tables = walking.found(tree, exp.CTE, exp.Table)
        defined = {cte.alias for cte in ctes}
        for table in tables:
            if not isinstance(table.this, exp.Identifier) or self._is_relation_alias(table):
                continue
            if table.name in defined and not table.db:
                self._columns.setdefault(table.name, set())
                continue
            self._point(table)

    def _is_relation_alias(self, table: exp.Table) -> bool:
        return isinstance(table.parent, exp.TableAlias)

    def _point(self, table: exp.Table) -> None:
        written = table.name
        if table.db == "INFORMATION_SCHEMA":
            table.set("catalog", table.args.get("catalog") or exp.to_identifier(self._session.database, quoted=True))
            self._columns[written] = set()
            table.replace(self._information_schema(table))
            return
        name = self.existing(table)
        self.written.append((self.name(table), name))
        relation = self._session.account.relations.find(name)
        self._columns[str(name)] = set(relation.columns)
        if name.table != written and not table.alias and not isinstance(table.parent, exp.Insert | exp.Schema):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(written, quoted=True)))
        table.set("this", exp.to_identifier(name.table, quoted=True))
        table.set("db", exp.to_identifier(name.schema, quoted=True))
        table.set("catalog", exp.to_identifier(name.database, quoted=True))
        if relation.policies:
            self.has_policies = True
            self._seen(table, relation)

    def _seen(self, table: exp.Table, relation: catalog.Relation) -> None:
        from dagster_safe_backfill_tests.harness.snowflake import policies

        policies.seen(self._session, table, relation)

    def _information_schema(self, table: exp.Table) -> exp.Subquery:
        """Return the emulated view, without other sessions' temporary tables."""
        view = exp.table_(table.name, catalog.INFORMATION_SCHEMA, table.catalog, quoted=True)
        query = exp.select("*").from_(view)
        if table.name in {"TABLES", "COLUMNS"}:
            session = self._session.number
            query = sqlglot.parse_one(
                f"SELECT * EXCLUDE (_SESSION) FROM {view.sql(dialect='duckdb')}"
                f" WHERE coalesce(_SESSION, {session}) = {session}",
                read="duckdb",
            )
        alias = exp.to_identifier(table.alias or table.name, quoted=True)
        return exp.Subquery(this=query, alias=exp.TableAlias(this=alias))

    def check_columns(self, tree: exp.Expression) -> None:
        """Refuse a column that is there in another case only: DuckDB doesn't tell the cases apart."""
        exact = set().union(*self._columns.values()) if self._columns else set()
        named, aliases, definitions, columns, schemas = walking.found(
            tree, exp.Alias | exp.CTE | exp.Subquery, exp.TableAlias, exp.ColumnDef, exp.Column, exp.Schema
        )
        exact |= {node.alias for node in named}
        for alias in aliases:
            exact |= {column.name for column in alias.columns}
            exact.add(alias.name)
        exact |= {definition.name for definition in definitions}
        folded = {name.upper() for name in exact}
        for column in columns:
            if column.name not in exact and column.name.upper() in folded:
                raise errors.invalid_identifier(column.sql(dialect="snowflake"))
        for schema in schemas:
            for item in schema.expressions:
                if isinstance(item, exp.Identifier) and item.name not in exact and item.name.upper() in folded:
                    raise errors.invalid_identifier(item.sql(dialect="snowflake"))
