"""One session of the emulated Snowflake: takes a statement, refuses what Snowflake would, and runs it on DuckDB."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from fakesnow.statement_type import statement_type_id
from sqlglot import exp
from sqlglot.errors import ParseError

from dagster_safe_backfill_tests.harness.snowflake import (
    columns,
    errors,
    loading,
    odd,
    parameters,
    policies,
    properties,
    refusals,
    results,
    showing,
    tables,
    translate,
)
from dagster_safe_backfill_tests.harness.snowflake.account import Account, Begun, Record, moment
from dagster_safe_backfill_tests.harness.snowflake.catalog import Name, Relation
from dagster_safe_backfill_tests.harness.snowflake.duck import Duck
from dagster_safe_backfill_tests.harness.snowflake.locks import Waiter
from dagster_safe_backfill_tests.harness.snowflake.names import Resolver
from dagster_safe_backfill_tests.harness.snowflake.prepared import Statement
from dagster_safe_backfill_tests.harness.snowflake.results import Result, text
from dagster_safe_backfill_tests.harness.snowflake.stale import Stale
from dagster_safe_backfill_tests.harness.snowflake.transactions import Transaction
from dagster_safe_backfill_tests.harness.snowflake.translating_errors import translated

_TRANSACTION = re.compile(
    r"^\s*(?P<begin>(BEGIN(\s+(WORK|TRANSACTION))?|START\s+TRANSACTION)(\s+NAME\s+(?P<name>\w+))?)\s*;?\s*$"
    r"|^\s*(?P<commit>COMMIT)(\s+WORK)?\s*;?\s*$|^\s*(?P<rollback>ROLLBACK)(\s+WORK)?\s*;?\s*$",
    re.IGNORECASE,
)
_TCL = 0x5000
_CHANGES = (exp.Insert, exp.Update, exp.Delete, exp.Merge)


class Session:
    """A login: one current database and schema, parameters, temporary tables, at most one transaction."""

    def __init__(self, account: Account, *, user: str, database: str | None, schema: str | None) -> None:
        self.account = account
        self.number = account.next_number()
        self.user = user
        self.settings = account.user(user)
        self.database = database
        self.schema = schema
        self.warehouse: str | None = None
        self.role: str | None = None
        self.parameters: dict[str, Any] = {}
        self.temporary: dict[Name, Name] = {}
        self.duck = account.connection()
        self.transaction = Transaction(self.duck, account.commits)
        self.stale = Stale(account if account.is_stale else None)
        self.idle_since: float | None = None
        self.query_id = ""
        self._running = threading.RLock()
        self._cancelling = threading.Lock()
        self._is_busy = False
        self._thread: threading.Thread | None = None
        self._interrupted: errors.SnowflakeError | None = None
        self._closed = False
        self._purged: list[Path] = []
        self._loads: list[tuple[str, str, str]] = []
        self._deadline: float | None = None
        self._lists: list[str] = []
        """The long lists of literals of the statement that runs."""

    # --- one statement

    def execute(self, sql: str, *, query_id: str, base_url: str, describe_only: bool = False) -> Result:
        """Run one statement; raises SnowflakeError."""
        with self._running:
            if self._closed:
                raise errors.session_gone()
            self.query_id, self.idle_since, self._is_busy = query_id, None, True
            self._thread = threading.current_thread()
            record = self._record(sql)
            record.is_described = describe_only
            try:
                with self._timed():
                    return self._execute(sql, record, base_url, describe_only=describe_only)
            except errors.SnowflakeError as error:
                record.error = str(error)
                raise
            except (duckdb.Error, ParseError) as error:
                known = self._interrupted or translated(error)
                record.error = str(known)
                raise known from error
            finally:
                with self._cancelling:
                    self._interrupted, self._is_busy = None, False
                self.idle_since = time.monotonic()

    def _record(self, sql: str) -> Record:
        return self.account.record(
            session=self.number,
            query_id=self.query_id,
            database=self.database,
            sql=sql,
            in_transaction=self.transaction.open,
            warehouse=self.warehouse,
            query_tag=self.parameter("QUERY_TAG"),
            parameters=dict(self.parameters),
        )

    def _execute(self, sql: str, record: Record, base_url: str, *, describe_only: bool) -> Result:
        if found := _TRANSACTION.match(sql):
            record.kind = next(kind for kind, written in found.groupdict().items() if written)
            return self._control(record.kind, name=found["name"])
        refusals.check_text(sql)
        self.transaction.catch_up()
        for kind, (pattern, run) in _BY_TEXT.items():
            if found := pattern.match(sql):
                record.kind = kind
                return run(self, sql, found)
        statement = self.parsed(sql)
        record.kind = statement.shape.key
        if isinstance(statement.shape, exp.Put):
            return loading.put(self, statement.tree(), base_url)
        for kinds, run_tree in _BY_TREE.items():
            if isinstance(statement.shape, kinds):
                return run_tree(self, statement.tree(), sql)
        if isinstance(statement.shape, _CHANGES):
            return self._change(statement, describe_only=describe_only)
        return self._query(statement, describe_only=describe_only)

    def parsed(self, sql: str) -> Statement:
        """Parse one statement, its identifiers as Snowflake stores them."""
        if self.parameter("QUOTED_IDENTIFIERS_IGNORE_CASE"):
            sql = odd.folded(sql)
        short, self._lists, longest = translate.shortened(sql)
        refusals.check_length(longest)
        try:
            return Statement(short)
        except ParseError as error:
            raise translated(error) from error

    # --- transactions

    def _control(self, kind: str, *, name: str | None) -> Result:
        if kind == "begin":
            if not self.transaction.open:
                self._begin(name)
        elif self.transaction.open:
            self.end_transaction(commit=kind == "commit")
        return text(_TCL, status="Statement executed successfully.")

    def _begin(self, name: str | None = None) -> None:
        number = int(time.time() * 1000) * 1000 + self.account.next_number()
        self.transaction.begin(number)
        self.account.transactions[number] = Begun(
            number=number, user=self.user, session=self.number, name=name or str(uuid.uuid4()), started_on=moment()
        )

    def begin_implicitly(self) -> None:
        if not self.parameter("AUTOCOMMIT") and not self.transaction.open:
            self._begin()

    def end_transaction(self, *, commit: bool) -> None:
        """Commit or roll back, and release the locks, whatever happens."""
        try:
            written = self.transaction.written if commit else ()
            # In one, so that no token is of another moment than the rows.
            with self.account.commits.lock:
                (self.transaction.commit if commit else self.transaction.rollback)()
                if written:
                    self.account.touch(*written)
            if commit:
                self._settle()
                self.stale.renew()
            self._ended("committed" if commit else "rolled back")
        finally:
            self._ended("rolled back")
            self._purged.clear()
            self._loads.clear()
            self.account.locks.release(self.number)

    def _ended(self, state: str) -> None:
        begun = self.account.transactions.get(self.transaction.number)
        if begun is not None:
            begun.end(state)

    def set_policy(self, sql: str) -> Result:
        """Commit what is open, then define or set a policy."""
        if self.transaction.open:
            self.end_transaction(commit=True)
        with self.account.commits.lock, self.duck.sheltered(), self.account.relations.change():
            self.account.commits.count += 1
            return policies.run(self, sql)

    def ddl(self, sql: str) -> Result:
        """Commit what is open, then run."""
        if self.transaction.open:
            self.end_transaction(commit=True)
        copy_grants = bool(tables.COPY_GRANTS.search(refusals.without_literals(sql)))
        plain, variety = tables.of_variety(tables.COPY_GRANTS.sub("", sql) if copy_grants else sql)
        try:
            if properties.is_meant(sql):
                with self.account.commits.lock, self.duck.sheltered(), self.account.relations.change():
                    return properties.define(self, sql)
            tree = self.parsed(plain).tree()
            for name in tables.changed_by(self, tree):
                self.lock(name, alone=True)
            changing = self.account.relations.change(tables.named(tree))
            with self.account.commits.lock, self.duck.sheltered(), changing:
                return tables.run(self, tree, sql, copy_grants=copy_grants, variety=variety)
        finally:
            self.account.commits.count += 1
            self.account.locks.release(self.number)
            self.stale.renew()

    def lock(self, name: Name, *, alone: bool = False) -> None:
        """Take a table's lock, or wait for it; for DDL alone, with nobody's rows pending."""
        waiter = Waiter(
            session=self.number,
            transaction=self.transaction.number,
            query_id=self.query_id,
            patience=float(self.parameter("LOCK_TIMEOUT")),
            check=self.check_alive,
        )
        self.account.locks.acquire(str(name), waiter, on_blocked=self.account.blocked_by, alone=alone)

    def check_alive(self) -> None:
        if self._interrupted:
            raise self._interrupted
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise errors.timed_out(float(self.parameter("STATEMENT_TIMEOUT_IN_SECONDS")))

    # --- reading and writing

    def prepared(self, tree: exp.Expression) -> tuple[str, dict[str, str]]:
        """Return a query as DuckDB's text, and the Snowflake types of those columns that DuckDB can't tell."""
        duck_sql, kinds, _ = self._prepared(tree)
        return translate.lengthened(duck_sql, self._lists), kinds

    def _prepared(self, tree: exp.Expression) -> tuple[str, dict[str, str], Resolver]:
        resolver = Resolver(self)
        resolver.resolve(tree)
        resolver.check_columns(tree)
        self._check_try_casts(tree, resolver)
        kinds = showing.hidden_types(self, tree, resolver)
        if unusual := odd.of(self):
            tree = odd.applied(tree, unusual, self.account.defaults)
        return translate.to_duckdb(tree, self.context_values()), kinds, resolver

    def _compiled(self, statement: Statement) -> tuple[str, dict[str, str]]:
        """Return the same of a whole statement, which may have come before."""
        is_odd = bool(odd.of(self))
        known = None if is_odd else statement.recall(self)
        if known is None:
            tree = statement.tree()
            if isinstance(tree, exp.Merge):
                showing.returning(tree)
            duck_sql, kinds, resolver = self._prepared(tree)
            if not is_odd and not resolver.has_policies:
                statement.remember(self, duck_sql, kinds, resolver.written)
            known = duck_sql, kinds
        duck_sql, kinds = known
        return translate.lengthened(duck_sql, self._lists), kinds

    def relation(self, name: Name) -> Relation | None:
        """Return what a stored name is of."""
        return self.account.relations.find(name)

    def context_values(self) -> dict[str, Any]:
        return {
            "CURRENT_SESSION": str(self.number),
            "CURRENT_TRANSACTION": str(self.transaction.number) if self.transaction.open else None,
            "CURRENT_WAREHOUSE": self.warehouse,
            "CURRENT_ROLE": self.role or "SYSADMIN",
            "CURRENT_USER": self.user,
            "CURRENT_DATABASE": self.database,
            "CURRENT_SCHEMA": self.schema,
            "CURRENT_VERSION": "10.0.0",
        }

    def _query(self, statement: Statement, *, describe_only: bool) -> Result:
        duck_sql, kinds = self._compiled(statement)
        type_id = statement_type_id(statement.shape) or 0x1000
        described: list[tuple[str, str]] = []

        def run(duck: Duck) -> pa.Table | None:
            if describe_only:
                described[:] = duck.columns(duck_sql)
                return None
            described[:], rows = duck.query(duck_sql)
            return odd.cut(rows, self.parameter("ROWS_PER_RESULTSET"))

        table = self.stale.read(run, duck_sql, own=self.transaction.written)
        if table is None:
            table = self.transaction.read(run)
        rowtype = [results.column(name, kind, kinds.get(name)) for name, kind in described]
        return Result(type_id, rowtype, table=table if table is not None else pa.table({}))

    def _change(self, statement: Statement, *, describe_only: bool) -> Result:
        tree = statement.shape
        target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        name = Resolver(self).existing(statement.tree(target))
        relation = self.relation(name)
        assert relation is not None
        columns.check_written(relation, name, tree)
        words = showing.counted(tree)
        if describe_only:
            return Result(statement_type_id(tree), [results.column(word, "BIGINT") for word in words])
        self.begin_implicitly()
        had = self.account.locks.has(str(name), self.number)
        if not isinstance(tree, exp.Insert) and not self._changes_nothing(statement):
            self.lock(name)
        changed = 1
        try:
            type_id = statement_type_id(tree)
            duck_sql, _ = self._compiled(statement)
            counts: list[int] = []
            changed = self.run_write(name, duck_sql, counts, merge=isinstance(tree, exp.Merge), words=words)
            return text(type_id, **dict(zip(words, counts, strict=True)))
        finally:
            if not self.transaction.open:
                self.account.locks.release(self.number)
            elif self.account.locks_changes_only and not changed and not had:
                self.account.locks.release_one(str(name), self.number)

    def _changes_nothing(self, statement: Statement) -> bool:
        """Return whether an UPDATE or a DELETE takes no lock, as it finds no row."""
        tree = statement.shape
        if not self.account.locks_changes_only or not isinstance(tree, exp.Update | exp.Delete):
            return False
        tree = statement.tree()
        select = exp.select(exp.Literal.number(1)).from_(tree.this.copy()).limit(1)
        if where := tree.args.get("where"):
            select = select.where(where.this.copy())
        duck_sql, _ = self.prepared(select)
        return not self.transaction.read(lambda duck: duck.query(duck_sql)[1]).num_rows

    def run_write(
        self,
        name: Name,
        sql: str,
        counts: list[int] | None = None,
        *,
        merge: bool = False,
        words: tuple[str, ...] = (),
    ) -> int:
        """Run what writes to one table; returns how many rows, and fills in the count for each word."""

        def run(duck: Duck) -> int:
            rows = duck.execute(sql).fetchall()
            if merge:
                by_action = [sum(row[0] == showing.ACTIONS[word] for row in rows) for word in words]
            else:
                by_action = [rows[0][0], *[0 for _ in words[1:]]]
            if counts is not None:
                counts[:] = by_action
            return sum(by_action)

        with self.account.commits.lock:
            locked = str(name) in self.account.locks.held_by(self.number)
            changed = self.transaction.write(name, run, locked=locked)
            if not self.transaction.open:
                self.account.touch(name)
        if self.transaction.open:
            for table in self.transaction.written:
                self.account.locks.wrote(str(table), self.number, self.transaction.number, self.query_id)
        else:
            self.stale.renew()
        return changed

    def loaded(self, mark: tuple[str, str, str], file: Path | None) -> None:
        """Remember a load, and delete the file if one is given: at the transaction's end if one is open."""
        self._loads.append(mark)
        self._purged.extend([file] if file else [])
        if not self.transaction.open:
            self._settle()

    def _settle(self) -> None:
        self.account.loaded.update(self._loads)
        for file in self._purged:
            file.unlink(missing_ok=True)
        self._loads.clear()
        self._purged.clear()

    def _check_try_casts(self, tree: exp.Expression, resolver: Resolver) -> None:
        for argument in refusals.try_casts(tree):
            kind = showing.type_of(self, argument, resolver)
            if kind and kind != "VARCHAR" and not kind.startswith('"NULL'):
                raise refusals.not_a_text(kind)

    # --- parameters and its end

    def parameter(self, name: str) -> Any:
        found = self.parameters.get(name, self.settings.parameters.get(name))
        return self.account.defaults.get(name) if found is None else found

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        seconds = float(self.parameter("STATEMENT_TIMEOUT_IN_SECONDS"))
        self._deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, self.interrupt, [errors.timed_out(seconds)])
        timer.daemon = True
        if seconds < 3600:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._deadline = None

    def interrupt(self, why: errors.SnowflakeError) -> None:
        """Stop what runs, from another thread."""
        self._interrupted = why
        self.duck.interrupt()

    def cancel(self) -> bool:
        """Cancel what runs, and nothing that comes later; returns whether something does."""
        with self._cancelling:
            if self._is_busy:
                self.interrupt(errors.canceled())
            return self._is_busy

    def abort(self, number: int | None = None) -> None:
        """Roll back the open transaction of an idle session; one that is named, also if a statement of it runs.

        Its client isn't told: the next statements begin a transaction of their own, or commit one by one.
        """
        if number is not None:
            with self._cancelling:
                if self._is_busy and threading.current_thread() is not self._thread:
                    self.interrupt(errors.transaction_aborted(number))
        if self._running.acquire(blocking=number is not None):
            try:
                if self.transaction.open and number in (None, self.transaction.number):
                    self.end_transaction(commit=False)
            finally:
                self._running.release()

    def close(self) -> None:
        """End the session: cancel, roll back, drop what is temporary."""
        self.interrupt(errors.session_gone())
        with self._running:
            self._closed = True
            self.end_transaction(commit=False)
            temporary = {name.table for name in self.temporary}
            with self.account.commits.lock, self.account.relations.change(temporary):
                for name in self.temporary.values():
                    self.duck.execute(f"DROP TABLE IF EXISTS {name.sql}")
                for stage in [name for name, owner in self.account.stages.items() if owner == self.number]:
                    loading.drop_stage(self.account, stage)
            self.stale.close()
            self.account.put_back(self.duck)


def _copy(session: Session, sql: str, found: re.Match[str]) -> Result:
    session.begin_implicitly()
    return loading.copy_into(session, sql)


def _facts(session: Session, sql: str, found: re.Match[str]) -> Result:
    """What INFORMATION_SCHEMA tells of one table, the same until that is defined anew."""

    def ask() -> Result:
        return session._query(session.parsed(sql), describe_only=False)

    if session.temporary or session.database is None:
        return ask()
    return session.account.relations.answered(Name(session.database, found[2], found[3]), found[1], ask)


def _schemas_of(session: Session, sql: str) -> Result:
    """In which schemas a table of a name is; the schema MAIN has another name here, which nobody is to see."""
    duck_sql, _ = session.prepared(session.parsed(sql).tree())
    rows: list[list[str | None]] = [
        [name.removesuffix("_") if name == "MAIN_" else name] for (name,) in session.duck.execute(duck_sql).fetchall()
    ]
    return Result(0x1000, [results.column("TABLE_SCHEMA", "VARCHAR")], rows=rows)


def _schema(session: Session, sql: str, found: re.Match[str]) -> Result:
    """Whether there is a schema: one that is stays until all that is remembered is forgotten."""

    def ask() -> Result:
        return session._query(session.parsed(sql), describe_only=False)

    if session.database is None:
        return ask()
    known = session.account.relations.answered(Name(session.database, found[1], ""), sql, ask)
    return known if known.table is not None and known.table.num_rows else ask()


def _cancel_all(session: Session, number: int) -> Result:
    """SYSTEM$CANCEL_ALL_QUERIES, of a session of the same user."""
    found = [one for one in [*session.account.sessions.values()] if one.number == number and one.user == session.user]
    count = sum(one.cancel() for one in found)
    return text(0x1000, **{f"SYSTEM$CANCEL_ALL_QUERIES({number})": f"{count} cancelled."})


def _explain(session: Session, sql: str) -> Result:
    """Compile a statement that reads or changes rows."""
    refusals.check_text(sql)
    statement = session.parsed(sql)
    if isinstance(statement.shape, _CHANGES):
        session._change(statement, describe_only=True)
        session._compiled(statement)
    else:
        session._query(statement, describe_only=True)
    return text(0x1000, step="GlobalStats")


def _abort(session: Session, number: int) -> Result:
    """SYSTEM$ABORT_TRANSACTION, of a transaction of the same user."""
    session.account.abort(number, session.user)
    state = session.account.transactions[number].state
    return text(0x1000, **{f"SYSTEM$ABORT_TRANSACTION({number})": f"transaction {number} is {state}."})


_BY_TEXT: dict[str, tuple[re.Pattern[str], Callable[[Session, str, re.Match[str]], Result]]] = {
    "policy": (policies.STATEMENT, lambda session, sql, found: session.set_policy(sql)),
    "policies": (
        policies.REFERENCES,
        lambda session, sql, found: policies.references(session, found[1]),
    ),
    "schemas": (
        re.compile(r"SELECT TABLE_SCHEMA FROM INFORMATION_SCHEMA\.TABLES WHERE TABLE_NAME = '[^']+' ORDER BY \w+$"),
        lambda session, sql, found: _schemas_of(session, sql),
    ),
    "counted": (policies.COUNTED, lambda session, sql, found: policies.counted(session, found[1])),
    "ddl": (
        re.compile(r"\s*(CREATE|ALTER(?!\s+SESSION)|DROP|TRUNCATE|COMMENT|GRANT|REVOKE|UNDROP)\b", re.IGNORECASE),
        lambda session, sql, found: session.ddl(sql),
    ),
    "copy": (re.compile(r"\s*COPY\s+INTO\b", re.IGNORECASE), _copy),
    "remove": (
        re.compile(r"\s*(?:REMOVE|RM)\s+([^\s;]+)", re.IGNORECASE),
        lambda session, sql, found: loading.remove(session, found[1]),
    ),
    "select": (
        re.compile(
            r"SELECT ((?:COMMENT|IS_TRANSIENT)(?:, (?:COMMENT|IS_TRANSIENT))*) FROM INFORMATION_SCHEMA\.TABLES"
            r" WHERE TABLE_SCHEMA = '(\w+)' AND TABLE_NAME = '(\w+)'$"
        ),
        _facts,
    ),
    "schema": (
        re.compile(r"SELECT 1 FROM INFORMATION_SCHEMA\.SCHEMATA WHERE SCHEMA_NAME = '(\w+)'$"),
        _schema,
    ),
    "cancel": (
        re.compile(r"\s*SELECT\s+SYSTEM\$CANCEL_ALL_QUERIES\s*\(\s*(\d+)\s*\)\s*;?\s*$", re.IGNORECASE),
        lambda session, sql, found: _cancel_all(session, int(found[1])),
    ),
    "abort": (
        re.compile(r"\s*SELECT\s+SYSTEM\$ABORT_TRANSACTION\s*\(\s*(\d+)\s*\)\s*;?\s*$", re.IGNORECASE),
        lambda session, sql, found: _abort(session, int(found[1])),
    ),
    "token": (
        re.compile(r"\s*SELECT\s+SYSTEM\$LAST_CHANGE_COMMIT_TIME\s*\(\s*'([^']+)'\s*\)\s*;?\s*$", re.IGNORECASE),
        lambda session, sql, found: properties.last_change(session, found[1]),
    ),
    "streams": (
        re.compile(r"\s*SHOW\s+STREAMS\s+IN\s+ACCOUNT\s*;?\s*$", re.IGNORECASE),
        lambda session, sql, found: properties.streams(session),
    ),
    "explain": (
        re.compile(r"\s*EXPLAIN\s+(.*)$", re.IGNORECASE | re.DOTALL),
        lambda session, sql, found: _explain(session, found[1]),
    ),
    "transactions": (
        re.compile(r"\s*SHOW\s+TRANSACTIONS\s*;?\s*$", re.IGNORECASE),
        lambda session, sql, found: showing.transactions(session),
    ),
    "transaction": (
        re.compile(r"\s*DESC(?:RIBE)?\s+TRANSACTION\s+(\d+)\s*;?\s*$", re.IGNORECASE),
        lambda session, sql, found: showing.transactions(session, int(found[1])),
    ),
    "show": (
        re.compile(r"\s*SHOW\s+GRANTS\s+ON\s+TABLE\s+([^\s;]+)", re.IGNORECASE),
        lambda session, sql, found: showing.grants(session, found[1]),
    ),
}
_BY_TREE: dict[tuple[type[exp.Expression], ...], Callable[[Session, Any, str], Result]] = {
    (exp.ListStage,): lambda session, tree, sql: loading.listing(session, tree.this.name),
    (exp.Alter, exp.Use, exp.Set, exp.Command): parameters.set_session,
    (exp.Show, exp.Describe): lambda session, tree, sql: showing.show(session, tree),
}
