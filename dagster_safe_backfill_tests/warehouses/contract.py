"""What the contract tests share: a table `t` with one column `a`, and what is done to it."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from sqlglot import exp

from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.base import Session

T = TableRef(schema="main", name="t")


def fill(session: Session, name: str = "t", *values: int) -> None:
    """Create a table with one column `a`."""
    rows = pa.table({"a": list(values) or [1, 2]})
    with session.load(rows) as source:
        select = exp.select(terms.column("a")).from_(source)
        session.tables.create(TableRef(schema="main", name=name), select, kind="live")


def all_of(name: str) -> exp.Select:
    return exp.select("*").from_(terms.table(TableRef(schema="main", name=name)))


def added(value: int) -> exp.Update:
    changed = {"a": exp.Add(this=terms.column("a"), expression=terms.number(value))}
    return exp.update(terms.table(T), changed, where=exp.true())


ASIDE = TableRef(schema="main", name="aside")


VARCHAR = Column(name="a", type="VARCHAR")


def inserted(table: TableRef, *values: int) -> exp.Insert:
    rows = exp.union(*(numbers(value) for value in values), distinct=False) if len(values) > 1 else numbers(*values)
    return exp.Insert(
        this=exp.Schema(this=terms.table(table), expressions=[exp.to_identifier("a", quoted=True)]), expression=rows
    )


def numbers(value: int) -> exp.Select:
    return exp.select(*terms.named({"a": terms.number(value)}))


def rows_of_table(table: TableRef) -> exp.Select:
    return exp.select("*").from_(terms.table(table))


def endless(items: Mapping[str, exp.Expr]) -> exp.Select:
    """Return a SELECT that takes minutes, over a table of 3,000 rows."""
    select = exp.select(*terms.named(items)).from_(terms.table(T, alias="x"))
    for alias in ("y", "z"):
        on = exp.NEQ(
            this=terms.column("a", of="x"),
            expression=exp.Add(this=terms.column("a", of=alias), expression=terms.number(1)),
        )
        select = select.join(exp.Join(this=terms.table(T, alias=alias), on=on))
    return select
