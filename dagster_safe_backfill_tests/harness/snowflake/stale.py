"""Late sight of what others commit, as READ_CONSISTENCY_MODE = 'session' allows it, kept in a snapshot of DuckDB's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import duckdb

from dagster_safe_backfill_tests.harness.snowflake.catalog import Name
from dagster_safe_backfill_tests.harness.snowflake.duck import Duck

if TYPE_CHECKING:
    from dagster_safe_backfill_tests.harness.snowflake.account import Account

_Result = TypeVar("_Result")


class Stale:
    """What one session sees of the tables that it doesn't change: as of its login, or of its own last commit.

    What a change reads is of now, as are definitions, and tables that are newer than the snapshot.
    """

    def __init__(self, account: Account | None) -> None:
        self._account = account
        self._duck: Duck | None = None if account is None else account.connection()
        self.tokens: dict[str, int] | None = None
        """See `Account.tokens`; None if all is seen at once."""
        self.renew()

    def renew(self) -> None:
        """See all that is committed now."""
        if self._duck is not None:
            self._end()
            self._duck.execute("BEGIN")
            # A snapshot of a database begins with the first look at it.
            self._duck.execute("SELECT count(*) FROM duckdb_tables()")
            assert self._account is not None
            self.tokens = {**self._account.tokens}

    def read(self, statement: Callable[[Duck], _Result], sql: str, *, own: Collection[Name]) -> _Result | None:
        """Run a query; return None if it is of tables that the session itself has changed, or of newer ones."""
        if self._duck is None or any(name.sql in sql for name in own):
            return None
        try:
            return statement(self._duck)
        except duckdb.Error:
            self.renew()
            return None

    def close(self) -> None:
        if self._account is not None and self._duck is not None:
            self._end()
            self._account.put_back(self._duck)
            self._duck = None

    def _end(self) -> None:
        assert self._duck is not None
        with suppress(duckdb.TransactionException):
            self._duck.execute("ROLLBACK")
