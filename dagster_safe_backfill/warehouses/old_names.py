"""The names of before `Dialect`, `Session` and `Tables`, until `wap/` calls these; then this module goes."""
# pyright: basic
# ruff: noqa: D101, D102

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from sqlglot import exp

from dagster_safe_backfill.model.tables import SHADOW_INFIX, TableRef


class OldTables:
    def __call__(self: Any, schema: str, prefix: str) -> Any:
        return self.list(schema, prefix)


class OldNames:
    ddl_is_transactional = True
    holds_off_inserts = True
    window_join = "asof"
    _renamed: dict[tuple[str, str], TableRef] | None = None

    @property
    def aggregates_at_once(self: Any) -> int:
        return self.dialect.aggregates_at_once

    @property
    def hash_algorithm(self: Any) -> str:
        return self.dialect.hash_algorithm

    def _meant(self, table: TableRef) -> TableRef:
        return (self._renamed or {}).get((table.schema.casefold(), table.name.casefold()), table)

    def _applied(self, statement: Any) -> Any:
        if not self._renamed:
            return statement
        statement = statement.copy()
        for found in statement.find_all(exp.Table):
            named = TableRef(schema=found.db, name=found.name)
            meant = self._meant(named)
            if meant != named:
                found.set("this", exp.to_identifier(meant.name, quoted=True))
                found.set("db", exp.to_identifier(meant.schema, quoted=True))
        return statement

    def run(self: Any, statement: Any) -> Any:
        statement = self._applied(statement)
        if isinstance(statement, exp.Query):
            return self.query(statement)
        if isinstance(statement, exp.Create):
            rows = statement.expression
            if not rows:
                schema = statement.this
                table = TableRef(schema=schema.this.db, name=schema.this.name)
                self.tables.ensure_table(table, {one.name: one.kind.sql() for one in schema.expressions})
                return []
            name = statement.this
            table = TableRef(schema=name.db, name=name.name)
            is_scratch = statement.find(exp.TemporaryProperty) is not None
            is_shadow = SHADOW_INFIX.upper() in name.name.upper()
            self.tables.create(table, rows, kind="scratch" if is_scratch else "shadow" if is_shadow else "live")
            return []
        if isinstance(statement, exp.Drop):
            name = statement.args["tables"][0]
            self.tables.drop(TableRef(schema=name.db, name=name.name))
            return []
        if isinstance(statement, exp.Alter):
            table = TableRef(schema=statement.this.db, name=statement.this.name)
            self.tables.ensure_table(table, {one.name: one.kind.sql() for one in statement.args["actions"]})
            return []
        return [(self.execute(statement),)]

    def columns(self: Any, table: TableRef) -> Any:
        return self.tables.columns(self._meant(table))

    def described(self: Any, select: Any) -> Any:
        return self.describe(self._applied(select))

    def source(self: Any, data: object) -> Any:
        return self.load(data)

    def ensure_schema(self: Any, schema: str) -> None:
        self.tables.ensure_schema(schema)

    def derived(self: Any, name: str, select: Any, *, kind: str = "TABLE") -> Any:
        return self.derive(name, self._applied(select), kind="rows" if kind == "TABLE" else "view")

    def keep(self: Any, table: TableRef, archive: TableRef, rows: Any) -> None:
        self.tables.archive(table, archive, rows)

    def hold(self: Any, table: TableRef) -> Any:
        return self.tables.hold(table)

    def add_columns(self: Any, table: TableRef, columns: Any) -> None:
        self.tables.add_columns(self._meant(table), columns)

    def reshape(self: Any, table: TableRef, **changes: Any) -> None:
        self.tables.reshape(self._meant(table), **changes)

    @contextmanager
    def cloned(self: Any, table: TableRef, *, aside: TableRef, kept: Any = None) -> Any:
        with self.tables.replace(table, aside=aside, kept=kept) as new:
            self._renamed = {
                (table.schema.casefold(), table.name.casefold()): new.clone,
                (aside.schema.casefold(), aside.name.casefold()): new.old,
            }
            try:
                yield
            finally:
                self._renamed = None

    def put_back(self: Any, table: TableRef, **others: Any) -> None:
        self.tables.put_back(table, **others)

    def recover(self: Any, table: TableRef, **others: Any) -> Any:
        return self.tables.recover(table, **others)

    def row_hash(self: Any, values: Any) -> Any:
        return self.dialect.row_hash(values)

    def fit(self: Any, **types: str) -> Any:
        return self.dialect.fit(**types)

    def is_lost(self: Any, value: Any, **types: str) -> Any:
        return self.dialect.is_lost(value, **types)

    def created_as(self: Any, source: str) -> Any:
        return self.dialect.created_as(source)

    def is_type(self: Any, type_name: str, wanted: str) -> Any:
        return self.dialect.is_type(type_name, wanted)

    def keeps(self: Any, type_name: str) -> Any:
        return self.dialect.keeps(type_name)
