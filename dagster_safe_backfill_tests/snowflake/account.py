"""A schema of an account, which the lines of the live script work in, and a small table of days in it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Strategy
from dagster_safe_backfill.model.states import Audited, Origin, Published, RolledBack
from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.audited import Row, frame, slice_of

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

PREFIX = "DSB_SNOWFLAKE_"
NEEDED = ("ACCOUNT", "USER", "DATABASE", "WAREHOUSE")
OPTIONAL = ("PASSWORD", "PRIVATE_KEY_PATH", "ROLE", "AUTHENTICATOR", "HOST", "PORT", "PROTOCOL")
COLUMNS = "DAY DATE, ID NUMBER(38,0), VALUE FLOAT, NOTE VARCHAR"


class AccountOnlyError(Exception):
    """Nothing but a real account can show it."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to log in.

    Attributes:
        options: What `RangeSnowflakeIOManager` takes.
        address: The server, if it isn't Snowflake's own, and what else the connector takes.
        is_emulated: True if the server is the emulator.
    """

    options: Mapping[str, Any]
    address: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_emulated: bool = False


def login_of_environment() -> Login | None:
    """Return how to log in as the variables `DSB_SNOWFLAKE_*` say, or None if one of those needed isn't set."""
    given = {name.lower(): os.environ[PREFIX + name] for name in (*NEEDED, *OPTIONAL) if PREFIX + name in os.environ}
    if any(name.lower() not in given for name in NEEDED):
        return None
    address = {name: given.pop(name) for name in ("host", "port", "protocol") if name in given}
    return Login(options=given, address=address)


def opened(login: Login, **parameters: Any) -> SnowflakeConnection:
    """Open a session, with session parameters."""
    import snowflake.connector

    names = {"private_key_path": "private_key_file"}
    options = {names.get(name, name): value for name, value in login.options.items()}
    address = dict(login.address)
    session = {**address.pop("session_parameters", {}), **parameters}
    return snowflake.connector.connect(**options, **address, session_parameters=session)


class Account:
    """A schema of its own, dropped at the end, with a session to look at it."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.schema = f"DSB_{uuid.uuid4().hex}".upper()
        self.io_manager = self.manager()
        self._session = opened(login)
        self.sql(f"CREATE SCHEMA {self.schema}")
        self.sql(f"USE SCHEMA {self.schema}")

    @property
    def is_emulated(self) -> bool:
        return self.login.is_emulated

    def account_only(self, what: str) -> None:
        """Give up on the emulator.

        Raises:
            AccountOnlyError: The account is the emulator.
        """
        if self.is_emulated:
            raise AccountOnlyError(what)

    def manager(self, **options: Any) -> sb.RangeSnowflakeIOManager:
        """Return an I/O manager of the schema."""
        return sb.RangeSnowflakeIOManager(
            schema=self.schema,
            additional_snowflake_connection_args=dict(self.login.address) or None,
            **{"lock_timeout": 1 if self.is_emulated else 5, **self.login.options, **options},
        )

    def sql(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement in a session that the library doesn't know of."""
        return run(self._session, sql)

    @contextmanager
    def session(self, **parameters: Any) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
        """Yield what runs statements in another session, in the schema."""
        connection = opened(self.login, **parameters)
        try:
            run(connection, f"USE SCHEMA {self.schema}")
            yield lambda sql: run(connection, sql)
        finally:
            connection.close()

    def close(self) -> None:
        """Drop the schema."""
        self.sql(f"DROP SCHEMA IF EXISTS {self.schema}")
        self._session.close()


def run(connection: SnowflakeConnection, sql: str) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows."""
    with connection.cursor() as cursor:
        found: Any = cursor.execute(sql)
        return found.fetchall()


class Table:
    """The table `t` of days, published by the library.

    Args:
        account: Where it is.
        name: Its name.
        columns: Its columns; None to let the first publication make it.
        io_manager: Whose sessions are used; the account's by default.
        has_key: Whether it has a unique key.
    """

    def __init__(
        self,
        account: Account,
        *,
        name: str = "t",
        columns: str | None = COLUMNS,
        kind: str = "TABLE",
        io_manager: sb.RangeSnowflakeIOManager | None = None,
        has_key: bool = True,
    ) -> None:
        self.account = account
        self.name = f"{account.schema}.{name.upper()}"
        self.warehouse = (io_manager or account.io_manager).warehouse()
        self.spec = TableSpec(
            table=TableRef(schema=account.schema.lower(), name=name),
            partition_expr={None: "day"},
            unique_key=("day", "id") if has_key else (),
            on_empty="allow",
        )
        if columns is not None:
            account.sql(f"CREATE {kind} {self.name} ({columns})")

    def staged(self, rows: Sequence[Row] | Query, days: Sequence[int], run_id: str, **spec: Any) -> Audited:
        """Stage and audit rows."""
        origin = Origin(run_id=run_id, publication_id=run_id)
        with self.warehouse.connect() as session:
            staged = write(
                session,
                rows if isinstance(rows, Query) else frame(rows),
                spec=replace(self.spec, **spec),
                partition_slice=slice_of(days),
                origin=origin,
            )
            audited = audit(session, staged, [], origin=origin, gate="run")
        assert isinstance(audited, Audited)
        return audited

    def publish(self, audited: Audited, run_id: str, *, strategy: Strategy = "merge") -> Published:
        """Publish what was staged."""
        origin = Origin(run_id=run_id, publication_id=run_id)
        with self.warehouse.connect() as session:
            return publish(session, audited, rules=PUBLISH_BY_NAME[strategy](), origin=origin)

    def published(
        self,
        rows: Sequence[Row] | Query,
        days: Sequence[int],
        run_id: str,
        *,
        strategy: Strategy = "merge",
        **spec: Any,
    ) -> Published:
        """Stage, audit and publish rows."""
        return self.publish(self.staged(rows, days, run_id, **spec), run_id, strategy=strategy)

    def rollback(self, publication_id: str, *, run_id: str = "back") -> RolledBack:
        """Undo a publication."""
        origin = Origin(run_id=run_id, publication_id=run_id)
        with self.warehouse.connect() as session:
            return rollback(
                session,
                Chosen(publication_id=publication_id),
                spec=self.spec,
                partition_slice=slice_of(),
                origin=origin,
                archive_for=timedelta(days=30),
            )

    def fact(self, column: str) -> Any:
        """Return what a column of INFORMATION_SCHEMA.TABLES says of the table."""
        where = f"TABLE_SCHEMA = '{self.account.schema}' AND TABLE_NAME = '{self.name.partition('.')[2]}'"
        ((found,),) = self.account.sql(f"SELECT {column} FROM INFORMATION_SCHEMA.TABLES WHERE {where}")
        return found

    def rows(self, columns: str = "DAY, ID, VALUE, NOTE") -> list[tuple[Any, ...]]:
        """Return the live rows, in order."""
        return self.account.sql(f"SELECT {columns} FROM {self.name} ORDER BY DAY, ID, VALUE")


def until(condition: Callable[[], object], *, seconds: float) -> bool:
    """Return True once a condition is true, or False if it isn't within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
