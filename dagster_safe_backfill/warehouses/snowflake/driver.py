"""Connections with Snowflake, which run statements, return rows and translate the driver's errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.errors import ConfigurationError, WarehouseError
from dagster_safe_backfill.model.tables import Column
from dagster_safe_backfill.warehouses.base import STATEMENTS, Row
from dagster_safe_backfill.warehouses.snowflake.errors import is_lost, translated
from dagster_safe_backfill.warehouses.snowflake.generator import shown
from dagster_safe_backfill.warehouses.snowflake.types import spelled

if TYPE_CHECKING:
    import pyarrow as pa
    from snowflake.connector import SnowflakeConnection as Driver

_LOG = logging.getLogger(__name__)


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
        """Run a SHOW or DESCRIBE statement, and return its rows by the names of its columns, in lower case."""
        STATEMENTS.debug(sql)
        with self._translating(sql), self._driver.cursor() as cursor:
            found: Any = cursor.execute(sql)
            names = [column.name.lower() for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

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
        quoted = [column.name for column in found if column.name == column.name.lower() != column.name.upper()]
        if quoted:
            raise ConfigurationError(
                f"the columns {', '.join(quoted)} were named in quoted lower case. Name them without quotes"
                f" (while describing: {' '.join(sql.split())[:300]})."
            )
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


class Connections:
    """The connections of one session. Each is opened when it is needed, and all are closed together.

    Args:
        connect: Opens a connection of the driver.
    """

    def __init__(self, connect: Callable[[], Driver]) -> None:
        self._connect = connect
        self._stopping = threading.Lock()
        self._open: list[Connection] = []
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
        """Stop the running statements that may be stopped, by a connection that is opened for it."""
        # While the lock is held, no statement ends. So the one that is stopped can't be the next one, such as a COMMIT.
        with self._stopping:
            found = [connection.running for connection in self._open]
            ids = [one for one in found if one is not None]
            if not ids:
                return
            try:
                self._cancel(ids)
            except WarehouseError as error:
                # Logged, not raised: the deadline's thread must survive, and cancels again until the block has ended.
                _LOG.warning("a statement could not be stopped: %s", error)

    def _cancel(self, ids: Sequence[int]) -> None:
        # The session's own connections wait for the statements that are to be stopped.
        connection = Connection(self._logged_in(), stopping=threading.Lock())
        try:
            for session_id in ids:
                connection.execute(f"SELECT SYSTEM$CANCEL_ALL_QUERIES({session_id})")
        finally:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in reversed(self._open):
            connection.close()

    def _logged_in(self) -> Driver:
        from snowflake.connector.errors import Error

        try:
            return self._connect()
        except (Error, OSError) as error:
            raise translated(error, "logging in") from error


def _value(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(timezone.utc)
    if isinstance(value, Decimal) and int(value.as_tuple().exponent) >= 0:
        return int(value)
    return value


def _text(value: Any) -> str:
    return value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)
