"""Connections with Snowflake, which run statements, return rows and translate the driver's errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster_safe_backfill.errors import ConfigurationError, WarehouseError
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.redaction import statement_text
from dagster_safe_backfill.warehouses.base import STATEMENTS, Row
from dagster_safe_backfill.warehouses.snowflake.errors import is_lost, not_logged_in, translated
from dagster_safe_backfill.warehouses.snowflake.generator import shown
from dagster_safe_backfill.warehouses.snowflake.types import spelled

if TYPE_CHECKING:
    import pyarrow as pa
    from snowflake.connector import SnowflakeConnection as Driver

_LOG = logging.getLogger(__name__)


class _TokenCache(NamedTuple):
    """How the connector keeps the token that spares a person the next login.

    Attributes:
        option: The connector's option that turns the cache on.
        token: The connector's name of the token.
        parameter: The account's parameter that lets Snowflake issue tokens.
    """

    option: str
    token: str
    parameter: str


_TOKEN_CACHES: Mapping[str, _TokenCache] = {
    "externalbrowser": _TokenCache("client_store_temporary_credential", "ID_TOKEN", "ALLOW_ID_TOKEN"),
    "username_password_mfa": _TokenCache("client_request_mfa_token", "MFA_TOKEN", "ALLOW_CLIENT_MFA_CACHING"),
}
"""The authenticators that ask a person."""


def asking_once(given: Mapping[str, Any], *, authenticator: str | None) -> dict[str, bool]:
    """Return further arguments of a login, so that a person is asked once and not by each session of a run.

    Args:
        given: The arguments that the user gives.
        authenticator: How to log in.

    Raises:
        ConfigurationError: The login has a passcode, which serves once.
    """
    if given.get("passcode") or given.get("passcode_in_password"):
        raise ConfigurationError(
            "a passcode is for one login, and a run logs in several times. Use a private key, or"
            ' authenticator="username_password_mfa", which asks once.'
        )
    cache = _TOKEN_CACHES.get((authenticator or "").lower())
    # On Linux, the connector caches no token unless it is told to.
    return {} if cache is None or cache.option in given else {cache.option: True}


def check_asks_once(driver: Driver, *, authenticator: str | None, given: Mapping[str, Any]) -> None:
    """Close a connection whose login would ask a person again for each session.

    Raises:
        ConfigurationError: There is no token for the next login. Nothing is raised if the user turned the cache off.
    """
    cache = _TOKEN_CACHES.get((authenticator or "").lower())
    if cache is None or given.get(cache.option) is False or _has_token(driver, cache.token):
        return
    driver.close()
    raise ConfigurationError(
        f"authenticator={authenticator!r} asks a person at each login, a run logs in several times, and no token was"
        f" kept for the next login. Let an administrator run ALTER ACCOUNT SET {cache.parameter} = TRUE (on macOS and"
        " Windows, also install snowflake-connector-python[secure-local-storage]), or use a private key. To be asked"
        f" each time, set {cache.option}=False in additional_snowflake_connection_args."
    )


def _has_token(driver: Driver, kind: str) -> bool:
    from snowflake.connector.token_cache import TokenCache, TokenKey, TokenType

    cache: Any = TokenCache.make()
    of_kind = TokenType[kind]
    # The connector 4 gives host and user to TokenKey in this order, though its fields are the other way round.
    keys = [TokenKey(driver.host, driver.user, of_kind), TokenKey(driver.user, driver.host, of_kind)]
    return any(cache.retrieve(key) is not None for key in keys)


class Connection:
    """A connection of the driver, which is one session of Snowflake. Other threads may only read `running`.

    Args:
        driver: The driver's connection, with `paramstyle="qmark"`.
        stopping: A lock that is held while the value of `running` changes.

    Attributes:
        is_lost: True if the server has ended the session.
    """

    def __init__(self, driver: Driver, *, stopping: threading.Lock) -> None:
        self._driver = driver
        self._stopping = stopping
        self._is_stoppable = False
        self._is_autocommitting = True
        self.is_lost = False

    @property
    def schema(self) -> str | None:
        """The session's current schema."""
        return self._driver.schema

    @property
    def role(self) -> str | None:
        """The session's role."""
        return self._driver.role

    @property
    def running(self) -> int | None:
        """The session's id if a statement runs that may be stopped, else None. Read it while you hold the lock."""
        return self._driver.session_id if self._is_stoppable else None

    def execute(self, sql: str, *, is_stoppable: bool = True, lock_timeout: int | None = None) -> list[Row]:
        """Run one statement and return its rows: integers as `int`, times with a zone in UTC.

        `lock_timeout` is the LOCK_TIMEOUT of this statement. Defaults to that of the session.
        """
        STATEMENTS.debug(sql)
        parameters = None if lock_timeout is None else {"LOCK_TIMEOUT": str(lock_timeout)}
        with self._translating(sql, is_stoppable=is_stoppable), self._driver.cursor() as cursor:
            found: Any = cursor.execute(sql, _statement_params=parameters)
            return [tuple(map(_value, row)) for row in found.fetchall()]

    def shown(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement, and return its rows by the names of its columns, in lower case."""
        STATEMENTS.debug(sql)
        with self._translating(sql), self._driver.cursor() as cursor:
            found: Any = cursor.execute(sql)
            names = [column.name.lower() for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def ending_of(self, transaction: str | None) -> str:
        """Return whether a transaction of any session, also an earlier one, is committed, rolled back or running.

        https://docs.snowflake.com/en/sql-reference/sql/desc-transaction
        """
        found = self.shown(f"DESCRIBE TRANSACTION {transaction}")
        return str(found[0].get("state", "")).lower().replace("_", " ") if found else ""

    def set_autocommit(self, value: bool) -> None:
        """Set whether a statement that changes rows outside of a transaction is committed at once."""
        if value != self._is_autocommitting:
            self.execute(f"ALTER SESSION SET AUTOCOMMIT = {'TRUE' if value else 'FALSE'}", is_stoppable=False)
            self._is_autocommitting = value

    def insert(self, sql: str, rows: Sequence[Row], *, is_stoppable: bool = True) -> None:
        """Run an INSERT with one row of placeholders once for all rows, whose values are bound as texts."""
        STATEMENTS.debug(sql)
        texts = [[None if value is None else _text(value) for value in row] for row in rows]
        with self._translating(sql, is_stoppable=is_stoppable), self._driver.cursor() as cursor:
            # With `qmark`, the connector sends one statement with a list of values for each column.
            cursor.executemany(sql, texts)

    def arrow(self, sql: str) -> pa.Table:
        """Run a SELECT and return its rows as an Arrow table, with the column names that `described` returns."""
        STATEMENTS.debug(sql)
        with self._translating(sql), self._driver.cursor() as cursor:
            found: Any = cursor.execute(sql)
            # Without force_return_table, the connector returns None for a result without rows.
            table: pa.Table = found.fetch_arrow_all(force_return_table=True)
        return table.rename_columns([shown(name) for name in table.column_names])

    def described(self, sql: str) -> tuple[Column, ...]:
        """Return the columns of a SELECT. Snowflake compiles it and doesn't run it.

        Raises:
            ConfigurationError: A column was named in quoted lower case, which the library can't distinguish from an
                unquoted name.
        """
        from snowflake.connector.constants import FIELD_ID_TO_NAME

        with self._translating(sql), self._driver.cursor() as cursor:
            found: list[Any] = cursor.describe(sql) or []
        check_case([column.name for column in found], sql)
        return tuple(
            Column(
                name=shown(column.name),
                type=spelled(
                    FIELD_ID_TO_NAME[column.type_code],
                    length=column.internal_size,
                    precision=column.precision,
                    scale=column.scale,
                ),
            )
            for column in found
        )

    def close(self) -> None:
        """Close the session. Snowflake drops its temporary tables and rolls back its open transaction."""
        self._driver.close()

    @contextmanager
    def _translating(self, doing: str, *, is_stoppable: bool = True) -> Generator[None, None, None]:
        from snowflake.connector.errors import Error

        # Under the lock, so that `Connections.cancel` never stops a statement other than the one that it saw.
        with self._stopping:
            self._is_stoppable = is_stoppable
        try:
            yield
        except (Error, OSError) as error:
            self.is_lost = self.is_lost or is_lost(error)
            raise translated(error, doing) from error
        finally:
            with self._stopping:
                self._is_stoppable = False


def check_case(names: Sequence[str], sql: str) -> None:
    """Refuse columns that were named in quoted lower case.

    Raises:
        ConfigurationError: There is one.
    """
    quoted = [name for name in names if name == name.lower() != name.upper()]
    if quoted:
        raise ConfigurationError(
            f"the columns {', '.join(quoted)} were named in quoted lower case. Name them without quotes"
            f" (while describing: {' '.join(statement_text(sql).split())[:300]})."
        )


class Connections:
    """The connections of one session. Each is opened when it is needed, and all are closed together.

    Args:
        connect: Opens a connection of the driver.
    """

    def __init__(self, connect: Callable[[], Driver]) -> None:
        self._connect = connect
        self._stopping = threading.Lock()
        self._open: list[Connection] = []
        self._canceller: Connection | None = None
        self._second: Connection | None = None

    def opened(self) -> Connection:
        """Open a connection."""
        connection = Connection(self._logged_in(), stopping=self._stopping)
        with self._stopping:
            self._open.append(connection)
        return connection

    @property
    def beside(self) -> Connection:
        """The second connection, which commits each statement, for statements outside the first one's transaction."""
        return self._second or self.renewed()

    def renewed(self) -> Connection:
        """Open the second connection, in place of the one that is open: a new session sees all that is committed.

        An older session may miss what others have committed since it was opened. See READ_CONSISTENCY_MODE:
        https://docs.snowflake.com/en/sql-reference/parameters
        """
        before, self._second = self._second, None
        if before is not None:
            with self._stopping:
                self._open.remove(before)
            before.close()
        self._second = self.opened()
        return self._second

    @contextmanager
    def apart(self) -> Generator[Connection, None, None]:
        """Open a connection for what would change others' current schema, and close it after the block."""
        connection = Connection(self._logged_in(), stopping=threading.Lock())
        try:
            yield connection
        finally:
            connection.close()

    def alive(self, connection: Connection) -> Connection:
        """Return `connection`, or a new one if it is lost, to clean up what it left behind."""
        try:
            if any(one.is_lost for one in self._open) and not connection.is_lost:
                # The cause that ended one session, such as a new network policy, may have ended the others too.
                connection.execute("SELECT 1", is_stoppable=False)
        except WarehouseError as error:
            _LOG.debug("%s", error)
        try:
            return self.opened() if connection.is_lost else connection
        except WarehouseError as error:
            _LOG.warning("the tables that a lost session left behind are not dropped now: %s", error)
            return connection

    def cancel(self) -> None:
        """Stop the running statements that may be stopped, by a connection that is opened once for it."""
        # While the lock is held, no statement ends. So the one that is stopped can't be the next one, such as a COMMIT.
        with self._stopping:
            found = [connection.running for connection in self._open]
            ids = [one for one in found if one is not None]
            if not ids:
                return
            try:
                self._cancel(ids)
            except (WarehouseError, ConfigurationError) as error:
                # Logged, not raised: the deadline's thread must survive, and cancels again until the block has ended.
                _LOG.warning("a statement could not be stopped: %s", error)

    def _cancel(self, ids: Sequence[int]) -> None:
        # The session's own connections wait for the statements that are to be stopped. Kept, because each login costs
        # time, may ask a person, and counts as an attempt.
        if self._canceller is None or self._canceller.is_lost:
            self._canceller = Connection(self._logged_in(), stopping=threading.Lock())
        for session_id in ids:
            self._canceller.execute(f"SELECT SYSTEM$CANCEL_ALL_QUERIES({session_id})")

    def close(self) -> None:
        """Close all connections."""
        for connection in reversed(self._open):
            connection.close()
        with self._stopping:
            if self._canceller is not None:
                self._canceller.close()

    def _logged_in(self) -> Driver:
        from snowflake.connector.errors import Error

        try:
            return self._connect()
        except (Error, OSError) as error:
            raise not_logged_in(error) from error


def _value(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(timezone.utc)
    if isinstance(value, Decimal) and int(value.as_tuple().exponent) >= 0:
        return int(value)
    return value


def _text(value: Any) -> str:
    return value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)
