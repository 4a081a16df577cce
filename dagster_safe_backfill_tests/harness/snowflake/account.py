"""One emulated Snowflake account: its databases, sessions, locks, and the record of all statements."""

from __future__ import annotations

import itertools
import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import duckdb
from fakesnow.transforms.stage import LOCAL_BUCKET_PATH

from dagster_safe_backfill_tests.harness.snowflake import catalog, errors, odd, parameters, shapes, translate
from dagster_safe_backfill_tests.harness.snowflake.duck import Duck
from dagster_safe_backfill_tests.harness.snowflake.locks import TableLocks
from dagster_safe_backfill_tests.harness.snowflake.transactions import Commits
from dagster_safe_backfill_tests.harness.snowflake.users import User


@dataclass
class Record:
    """One statement that reached the server."""

    number: int
    session: int
    query_id: str
    database: str | None
    sql: str
    kind: str = ""
    in_transaction: bool = False
    warehouse: str | None = None
    query_tag: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The session's parameters that aren't the defaults."""
    error: str | None = None
    repeated: int = 0
    """How often the client asked for it again by the same request id."""


class Account:
    """What all sessions share."""

    def __init__(self, *, idle_abort: float = 300, timezone: str = parameters.DEFAULTS["TIMEZONE"]) -> None:
        # Several threads for a few rows wait for each other.
        self.duck = duckdb.connect(config={"checkpoint_threshold": "1TB", "threads": 1})
        self.idle_abort = idle_abort
        self.defaults = {**parameters.DEFAULTS, "TIMEZONE": timezone}
        self.users: dict[str, User] = {}
        self.commits = Commits()
        self.relations = catalog.Relations(Duck(self.duck.cursor()))
        self.locks = TableLocks()
        self.history: list[Record] = []
        self.sessions: dict[str, Any] = {}
        self.stages: dict[catalog.Name, int | None] = {}
        """Each stage, with the session that alone sees it if it is temporary."""
        self.loaded: set[tuple[str, str, str]] = set()
        """Table, file and checksum of all that COPY INTO loaded: it loads none twice."""
        self._numbers = itertools.count(1)
        self._records = itertools.count(1)
        self._lock = threading.Lock()
        self._spare: list[Duck] = []

    def connection(self) -> Duck:
        """Return a connection for a session, with the macros."""
        with suppress(IndexError):
            return self._spare.pop()
        made = Duck(self.duck.cursor())
        made.execute(translate.macros() + odd.MACROS)
        return made

    def put_back(self, duck: Duck) -> None:
        """Keep a connection for another session: the macros take longer than the rest of a login."""
        self._spare.append(duck.another())

    def user(self, name: str) -> User:
        """Return a user, who is made with what most have."""
        return self.users.setdefault(name.upper(), User())

    def create_database(self, name: str) -> None:
        with self.commits.lock:
            catalog.create_database(Duck(self.duck.cursor()), name)

    def drop_database(self, name: str) -> None:
        """Forget a database with all its sessions."""
        for session in [*self.sessions.values()]:
            if session.database == name:
                self.end(session.number)
        with self.commits.lock, self.relations.change():
            Duck(self.duck.cursor()).execute(f"DETACH {catalog.quoted(name)}")
        with self._lock:
            self.history = [record for record in self.history if record.database != name]
        shutil.rmtree(f"{LOCAL_BUCKET_PATH}/{name}", ignore_errors=True)

    def next_number(self) -> int:
        return next(self._numbers)

    def forget_loads(self, table: str) -> None:
        """A table that is made anew has loaded nothing."""
        self.loaded = {mark for mark in self.loaded if mark[0] != table}

    def query_id(self) -> str:
        return f"01emu{secrets.token_hex(3)}-0000-0000-{self.next_number():012d}"

    def add(self, session: Any) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self.sessions[token] = session
        return token

    def session(self, token: str) -> Any:
        found = self.sessions.get(token)
        if found is None:
            raise errors.session_gone()
        return found

    def by_number(self, number: int) -> Any:
        found = next((session for session in [*self.sessions.values()] if session.number == number), None)
        if found is None:
            raise errors.session_gone()
        return found

    def end(self, number: int) -> None:
        """End a session: what it runs is cancelled, what it has open is rolled back, its locks are released."""
        with self._lock:
            token = next((token for token, session in self.sessions.items() if session.number == number), None)
            session = self.sessions.pop(token) if token else None
        if session:
            session.close()

    def blocked_by(self, number: int) -> None:
        """Abort the transaction of a session that blocks others and has been idle for too long, as Snowflake does."""
        try:
            session = self.by_number(number)
        except errors.SnowflakeError:
            self.locks.release(number)
            return
        if session.idle_since and time.monotonic() - session.idle_since > self.idle_abort:
            session.abort()

    def record(self, **known: Any) -> Record:
        with self._lock:
            made = Record(number=next(self._records), **known)
            self.history.append(made)
        shapes.note(made.sql, query_tag=made.query_tag)
        return made

    def repeated(self, query_id: str) -> None:
        for record in reversed(self.history):
            if record.query_id == query_id:
                record.repeated += 1
                return

    def open_sessions(self) -> list[dict[str, Any]]:
        locks = self.locks.held()
        return [
            {
                "session": session.number,
                "database": session.database,
                "in_transaction": session.transaction.open,
                "locks": sorted(table for table, holder in locks.items() if holder == session.number),
            }
            for session in [*self.sessions.values()]
        ]

    def recorded(self, database: str | None = None) -> list[dict[str, Any]]:
        return [dict(vars(record)) for record in [*self.history] if database is None or record.database == database]

    def command(self, command: str, body: dict[str, Any]) -> Any:
        """Do what tests ask beside the connector's back."""
        if command == "database":
            return self.create_database(body["name"])
        if command == "drop":
            return self.drop_database(body["name"])
        if command == "history":
            return self.recorded(body.get("database"))
        if command == "end":
            return self.end(body["session"])
        if command == "sessions":
            return self.open_sessions()
        if command == "idle_abort":
            self.idle_abort = body["seconds"]
            return None
        raise errors.unsupported(command)

    def close(self) -> None:
        for session in [*self.sessions.values()]:
            self.end(session.number)
        self.duck.close()
        shutil.rmtree(LOCAL_BUCKET_PATH, ignore_errors=True)
