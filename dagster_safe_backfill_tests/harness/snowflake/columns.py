"""The columns of a table as Snowflake defines them: collations, defaults, identities, virtual ones, and their types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors, translate
from dagster_safe_backfill_tests.harness.snowflake.catalog import Facts, Name, Relation

TYPE = translate.TYPE
_TEXTS = {TYPE.VARCHAR, TYPE.TEXT}
_TIMES = {
    TYPE.TIMESTAMP: "TIMESTAMP_NTZ",
    TYPE.TIMESTAMPNTZ: "TIMESTAMP_NTZ",
    TYPE.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
    TYPE.TIMESTAMPTZ: "TIMESTAMP_TZ",
    TYPE.TIME: "TIME",
}
_SEQUENCE = "_identity"


def _constraints(item: exp.ColumnDef) -> list[Any]:
    return [constraint.kind for constraint in item.args.get("constraints") or []]


def _of_kind(item: exp.ColumnDef, *kinds: Any) -> Any:
    return next((one for one in _constraints(item) if isinstance(one, kinds)), None)


def _collation(item: exp.ColumnDef) -> str | None:
    found = _of_kind(item, exp.CollateColumnConstraint)
    return None if found is None else found.this.name


def _identity(item: exp.ColumnDef) -> tuple[str, str] | None:
    """Return start and increment of an AUTOINCREMENT or IDENTITY column."""
    found = _of_kind(item, exp.AutoIncrementColumnConstraint, exp.GeneratedAsIdentityColumnConstraint)
    if found is None:
        return None
    return tuple(part.name if (part := found.args.get(name)) else "1" for name in ("start", "increment"))  # type: ignore[return-value]


def facts(session: Any, definitions: Sequence[exp.Expression], known: Facts) -> Facts:
    """Return what is known of a table, with that of some columns of it that DuckDB would forget."""
    types, defaults, virtual = dict(known.types), dict(known.defaults), dict(known.virtual)
    for item in definitions:
        if not isinstance(item, exp.ColumnDef):
            continue
        if shown := _shown_type(item):
            types[item.name] = shown
        if (identity := _identity(item)) is not None:
            defaults[item.name] = "IDENTITY START {} INCREMENT {} NOORDER".format(*identity)
        elif (default := _of_kind(item, exp.DefaultColumnConstraint)) is not None:
            defaults[item.name] = default.this.sql(dialect="snowflake")
        if (computed := _of_kind(item, exp.ComputedColumnConstraint)) is not None:
            virtual[item.name] = translate.to_duckdb(computed.this.copy(), session.context_values())
    return replace(known, types=types, defaults=defaults, virtual=virtual)


def _shown_type(item: exp.ColumnDef) -> str | None:
    """Return the type of a column that DuckDB would forget."""
    kind = item.args.get("kind")
    if kind is None:
        return None
    size = kind.expressions[0].name if kind.expressions else None
    if kind.this in _TEXTS:
        collation = _collation(item)
        length = f"VARCHAR({size or 16777216})"
        return f"{length} COLLATE '{collation}'" if collation else length if size else None
    if kind.this in _TIMES and (size or kind.this == TYPE.TIMESTAMPTZ):
        return f"{_TIMES[kind.this]}({size or 9})"
    return kind.this.name if kind.this in {TYPE.ARRAY, TYPE.OBJECT} else None


def defined(session: Any, item: exp.ColumnDef, table: Name) -> str:
    """Return a column's definition for DuckDB, its keys left out: Snowflake doesn't enforce them."""
    item = item.copy()
    collation, identity = _collation(item), _identity(item)
    known = None if collation is None else translate.collation(collation)
    # Before a default, which would have the collation otherwise.
    kept = [exp.ColumnConstraint(kind=exp.CollateColumnConstraint(this=exp.Var(this=known)))] if known else []
    for constraint in item.args.get("constraints") or []:
        if isinstance(constraint.kind, exp.PrimaryKeyColumnConstraint):
            kept.append(exp.ColumnConstraint(kind=exp.NotNullColumnConstraint()))
        elif isinstance(
            constraint.kind,
            exp.NotNullColumnConstraint | exp.DefaultColumnConstraint | exp.ComputedColumnConstraint,
        ):
            kept.append(constraint)
    item.set("constraints", kept)
    text = translate.to_duckdb(item, session.context_values())
    if identity is not None:
        text += f" DEFAULT nextval({catalog.literal(_sequence(table, item.name))})"
    return text


def _sequence(table: Name, column: str) -> str:
    parts = (table.database, table.schema, f"{table.table}{_SEQUENCE}_{column}")
    return ".".join(map(catalog.quoted, parts))


def make_sequences(session: Any, definitions: Sequence[exp.Expression], table: Name) -> None:
    """Make what the identity columns among some columns of a table count with."""
    for item in definitions:
        if isinstance(item, exp.ColumnDef) and (identity := _identity(item)) is not None:
            start, increment = identity
            session.duck.execute(
                f"CREATE OR REPLACE SEQUENCE {_sequence(table, item.name)} START {start} INCREMENT {increment}"
            )


def again(column: str, kind: str, null: str, default: str | None, known: Facts) -> str:
    """Return the definition of a column for DuckDB, as it was described."""
    name = f"{catalog.quoted(column)} {kind}"
    if column in known.virtual:
        return f"{name} AS ({known.virtual[column]})"
    written = re.search(r"COLLATE '(.*)'$", known.types.get(column, ""))
    collation = translate.collation(written[1]) if written else None
    return (
        name
        + (f" COLLATE {collation}" if collation else "")
        + (f" DEFAULT {default}" if default else "")
        + ("" if null == "YES" else " NOT NULL")
    )


def check_written(relation: Relation, table: Name, tree: exp.Expression) -> None:
    """Refuse DML that gives a virtual column a value, or that is of a view or a dynamic table."""
    if relation.kind == "view" or relation.is_dynamic or relation.variety in ("EXTERNAL", "EVENT"):
        what = "View" if relation.kind == "view" else f"{(relation.variety or 'DYNAMIC').title()} Table"
        raise errors.SnowflakeError(
            2118, "42601", f"SQL compilation error:\nThe target of DML, {table.table}, is a {what} and not a table."
        )
    if not relation.virtual:
        return
    inserted = [
        one
        for part in tree.find_all(exp.Insert)
        if isinstance(part.this, exp.Schema | exp.Tuple)
        for one in part.this.expressions
    ]
    updated = [item.this for part in tree.find_all(exp.Update) for item in part.expressions]
    for name in relation.virtual.intersection(one.name for one in [*inserted, *updated]):
        raise errors.SnowflakeError(
            2123, "0A000", f"SQL compilation error:\nThe virtual column '{name}' can't be given a value."
        )
