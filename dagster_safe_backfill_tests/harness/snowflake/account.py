"""One emulated Snowflake account: its databases, sessions, locks, and the record of all statements."""

from __future__ import annotations

import itertools
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
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
    is_described: bool = False
    """Whether it was only compiled."""
    repeated: int = 0
    """How often the client asked for it again by the same request id."""


@dataclass
class Begun:
    """A transaction that a session has begun: what SHOW and DESCRIBE TRANSACTION tell of it, also later."""

    number: int
    user: str
    session: int
    name: str
    started_on: str
    state: str = "running"
    ended_on: str | None = None

    def end(self, state: str) -> None:
        if self.state == "running":
            self.state, self.ended_on = state, moment()


def moment() -> str:
    return datetime.now(timezone.utc).isoformat(sep=" ")


class Account:
    """What all sessions share.

    Attributes:
        locks_changes_only: Whether a statement that changes no row takes no lock, and waits for none.
        is_restless: Whether SYSTEM$LAST_CHANGE_COMMIT_TIME has another answer each time, though nothing changed.
        is_stale: Whether the sessions that log in from now on see what others commit only late: as of their login, or
            of their own last commit (READ_CONSISTENCY_MODE = 'session').
    """

    def __init__(self, *, idle_abort: float = 300, time_zone: str = parameters.DEFAULTS["TIMEZONE"]) -> None:
        self.locks_changes_only = False
        self.is_stale = self.is_restless = False
        self.failing_clones = 0
        self.tokens: dict[str, int] = {}
        """The answers of SYSTEM$LAST_CHANGE_COMMIT_TIME."""
        self.transactions: dict[int, Begun] = {}
        self.logins = 0
        self.most_sessions: dict[str | None, int] = {}
        """The most sessions that were open at once with each database."""
        # Several threads for a few rows wait for each other.
        self.duck = duckdb.connect(config={"checkpoint_threshold": "1TB", "threads": 1})
        self.idle_abort = idle_abort
        self.defaults = {**parameters.DEFAULTS, "TIMEZONE": time_zone}
        self.users: dict[str, User] = {}
        self.policies: dict[str, Any] = {}
        self.future_grants: dict[tuple[str, str], tuple[str, ...]] = {}
        """What each new table of a schema is granted."""
        self.tags: dict[str, str | None] = {}
        """The masking policy of each tag."""
        self.commits = Commits()
        self.relations = catalog.Relations(Duck.hasty(self.duck))
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
        made = Duck.hasty(self.duck)
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
            catalog.create_database(Duck.hasty(self.duck), name)

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

    def touch(self, *names: catalog.Name) -> None:
        """Note that something of these tables was committed; of all, if none is named."""
        with self.commits.lock:
            for name in map(str, names) if names else [*self.tokens]:
                self.tokens.pop(name, None)

    def token(self, name: catalog.Name, seen: dict[str, int] | None = None) -> int:
        """Return the token of a table's last change, as it is now or as a session sees it that looks at a snapshot."""
        with self.commits.lock:
            if self.is_restless:
                self.touch(name)
            now = self.tokens.setdefault(str(name), time.time_ns() // 1000 * 1000 + self.next_number())
            return (seen or {}).get(str(name), now)

    def swap_tokens(self, one: catalog.Name, other: catalog.Name) -> None:
        """What changed last goes with the table."""
        with self.commits.lock:
            self.tokens[str(one)], self.tokens[str(other)] = self.token(other), self.token(one)

    def query_id(self) -> str:
        return f"01emu{secrets.token_hex(3)}-0000-0000-{self.next_number():012d}"

    def add(self, session: Any) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self.sessions[token] = session
            self.logins += 1
            count = sum(one.database == session.database for one in self.sessions.values())
            self.most_sessions[session.database] = max(count, self.most_sessions.get(session.database, 0))
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

    def end(self, session: int) -> None:
        """End a session: what it runs is cancelled, what it has open is rolled back, its locks are released."""
        with self._lock:
            token = next((token for token, one in self.sessions.items() if one.number == session), None)
            ended = self.sessions.pop(token) if token else None
        if ended:
            ended.close()

    def blocked_by(self, number: int) -> None:
        """Abort the transaction of a session that blocks others and has been idle for too long, as Snowflake does."""
        try:
            session = self.by_number(number)
        except errors.SnowflakeError:
            self.locks.release(number)
            return
        if session.idle_since and time.monotonic() - session.idle_since > self.idle_abort:
            session.abort()

    def abort(self, number: int, user: str | None = None) -> None:
        """Abort a running transaction, of a user if one is given; one that has ended stays as it is."""
        begun = self.transactions.get(number)
        if begun is None or user not in (None, begun.user):
            raise errors.no_transaction(number)
        if begun.state == "running":
            with suppress(errors.SnowflakeError):
                self.by_number(begun.session).abort(number)

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

    def switch(self, **switches: bool) -> None:
        """Set `locks_changes_only`, `is_restless` or `is_stale`."""
        for name, value in switches.items():
            setattr(self, name, value)

    def abort_of(self, token: str) -> None:
        """Abort what a session has open."""
        number = self.session(token).transaction.number
        if number in self.transactions:
            self.abort(number)

    def abort_idle_after(self, seconds: float) -> None:
        self.idle_abort = seconds

    def command(self, command: str, body: dict[str, Any]) -> Any:
        """Do what tests ask beside the connector's back."""
        known: dict[str, Callable[..., Any]] = {
            "database": self.create_database,
            "drop": self.drop_database,
            "history": self.recorded,
            "end": self.end,
            "sessions": self.open_sessions,
            "switch": self.switch,
            "abort": self.abort_of,
            "idle_abort": self.abort_idle_after,
        }
        if command not in known:
            raise errors.unsupported(command)
        return known[command](**body)

    def close(self) -> None:
        for session in [*self.sessions.values()]:
            self.end(session.number)
        self.duck.close()
        shutil.rmtree(LOCAL_BUCKET_PATH, ignore_errors=True)
