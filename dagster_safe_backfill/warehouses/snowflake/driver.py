"""One connection with Snowflake: statements in, rows out, the driver's errors translated."""

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
    """A driver's connection, which is one session of Snowflake's. Not for use by several threads, but for `running`.

    Args:
        driver: The connection, with bindings by question mark.
        stopping: Held while it changes whether a statement runs that may be stopped.

    Attributes:
        is_lost: Whether the server has ended it.
    """

    def __init__(self, driver: Driver, *, stopping: threading.Lock) -> None:
        self._driver = driver
        self._stopping = stopping
        self._is_stoppable = False
        self.is_lost = False

    @property
    def schema(self) -> str | None:
        """Its current schema."""
        return self._driver.schema

    @property
    def running(self) -> int | None:
        """The session's id, if a statement runs that may be stopped; to be asked with the lock held."""
        return self._driver.session_id if self._is_stoppable else None

    def execute(self, sql: str, *, is_stoppable: bool = True) -> list[Row]:
        """Run one statement and return its rows, with numbers and times as the library has them."""
        STATEMENTS.debug(sql)
        with self._translating(sql, is_stoppable=is_stoppable), self._driver.cursor() as cursor:
            found: Any = cursor.execute(sql)
            return [tuple(map(_value, row)) for row in found.fetchall()]

    def insert(self, sql: str, rows: Sequence[Row]) -> None:
        """Run an INSERT of one row of placeholders once, for rows that are bound as texts."""
        STATEMENTS.debug(sql)
        texts = [[None if value is None else _text(value) for value in row] for row in rows]
        with self._translating(sql), self._driver.cursor() as cursor:
            cursor.executemany(sql, texts)

    def arrow(self, sql: str) -> pa.Table:
        """Run a SELECT and return its rows as an Arrow table, its columns named as `described` names them."""
        STATEMENTS.debug(sql)
        with self._translating(sql), self._driver.cursor() as cursor:
            found: Any = cursor.execute(sql)
            table: pa.Table = found.fetch_arrow_all(force_return_table=True)
        return table.rename_columns([shown(name) for name in table.column_names])

    def described(self, sql: str) -> tuple[Column, ...]:
        """Return the columns of a SELECT, which is compiled and not run.

        Raises:
            ConfigurationError: A column's name is in quoted lower case, which stands for another one here.
        """
        from snowflake.connector.constants import FIELD_ID_TO_NAME

        with self._translating(sql), self._driver.cursor() as cursor:
            found: list[Any] = cursor.describe(sql) or []
        quoted = [column.name for column in found if column.name == column.name.lower() != column.name.upper()]
        if quoted:
            raise ConfigurationError(
                f"the columns {', '.join(quoted)} were named in quoted lower case; name them without quotes"
                f" (while describing: {' '.join(sql.split())[:300]})"
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
        """Close it; its temporary tables go, and what it hasn't committed."""
        self._driver.close()

    @contextmanager
    def _translating(self, doing: str, *, is_stoppable: bool = True) -> Generator[None, None, None]:
        from snowflake.connector.errors import Error

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
    """The connections of one session: each is opened where it is needed, and all are closed together.

    Args:
        connect: Opens a driver's connection.
    """

    def __init__(self, connect: Callable[[], Driver]) -> None:
        self._connect = connect
        self._stopping = threading.Lock()
        self._open: list[Connection] = []

    def opened(self) -> Connection:
        """Open a connection."""
        connection = Connection(self._logged_in(), stopping=self._stopping)
        self._open.append(connection)
        return connection

    @property
    def beside(self) -> Connection:
        """The second one, which commits each statement; for what can't be done in the first one's transaction."""
        return self._open[1] if len(self._open) > 1 else self.opened()

    def alive(self, connection: Connection) -> Connection:
        """Return a connection, or another one if it is lost, as what it left behind is to be cleaned up."""
        try:
            if any(one.is_lost for one in self._open) and not connection.is_lost:
                # What ended one may have ended all.
                connection.execute("SELECT 1", is_stoppable=False)
        except WarehouseError as error:
            _LOG.debug("%s", error)
        try:
            return self.opened() if connection.is_lost else connection
        except WarehouseError as error:
            _LOG.warning("what a lost session left behind is not cleaned up: %s", error)
            return connection

    def cancel(self) -> None:
        """Stop what runs, if it may be stopped; by a connection that is opened for it.

        No statement of the others ends meanwhile, so that what is stopped is not the next one, such as a COMMIT.
        """
        with self._stopping:
            found = [connection.running for connection in self._open]
            ids = [one for one in found if one is not None]
            if not ids:
                return
            try:
                self._cancel(ids)
            except WarehouseError as error:
                # Who cancels does so again, until what runs has ended.
                _LOG.warning("a statement could not be stopped: %s", error)

    def _cancel(self, ids: Sequence[int]) -> None:
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
