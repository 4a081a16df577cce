"""The I/O manager of Snowflake, which logs in with all of `dagster_snowflake`'s ways."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dagster_safe_backfill.assets.io_managers import RangeIOManager
from dagster_safe_backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from dagster_snowflake import SnowflakeResource
    from snowflake.connector import SnowflakeConnection

    from dagster_safe_backfill.warehouses.base import Warehouse

_LOGIN = (
    *("account", "user", "password", "database", "schema", "role", "warehouse", "authenticator"),
    *("private_key", "private_key_path", "private_key_password"),
    *("login_timeout", "network_timeout", "client_session_keep_alive", "client_prefetch_threads"),
    *("ocsp_response_cache_filename", "validate_default_parameters"),
)
"""The options that `dagster_snowflake.SnowflakeResource` has too."""


class RangeSnowflakeIOManager(RangeIOManager):
    """Tables in a Snowflake database; takes the place of `dagster_snowflake_pandas.SnowflakePandasIOManager`.

    Reads the same metadata as `RangeDuckDBIOManager`. Logs in as `dagster_snowflake.SnowflakeResource` does, which has
    the same options; that package and Snowflake's own are imported when a run first uses them.

    Every write is one transaction: a reader sees the table before or after it, and an error leaves it as it was.
    Names without capital letters, such as the asset key's and the frame's, are Snowflake's unquoted ones: the asset
    `nyc/flights` is the table NYC.FLIGHTS, its column `flight_date` FLIGHT_DATE. Frames are loaded through Parquet; a
    `Query` runs inside Snowflake, and none of its rows leaves it. The sessions keep UTC.

    Example:
        ```python
        defs = dg.Definitions(
            assets=[flights],
            resources={
                "io_manager": sb.RangeSnowflakeIOManager(
                    account="myorg-account",
                    user="dagster",
                    private_key_path=dg.EnvVar("SNOWFLAKE_KEY"),
                    database="analytics",
                    warehouse="backfills",
                )
            },
        )
        ```
    """

    account: str | None = Field(default=None, description="The account's identifier.")
    user: str = Field(description="The user's login name.")
    password: str | None = Field(default=None, description="The user's password.")
    database: str = Field(description="The database that the tables are in.")
    schema_: str | None = Field(
        default=None,
        alias="schema",
        description="Schema of the assets that name none themselves; temporary tables go there, or else to PUBLIC.",
    )
    role: str | None = Field(default=None, description="The role; the user's own, if unset.")
    warehouse_: str | None = Field(
        default=None,
        alias="warehouse",
        description="The virtual warehouse that runs it all, which may be another one than that of daily work.",
    )
    authenticator: str | None = Field(default=None, description="How to log in, such as externalbrowser or an URL.")
    private_key: str | None = Field(default=None, description="A private key, as text.")
    private_key_path: str | None = Field(default=None, description="Path of a private key.")
    private_key_password: str | None = Field(default=None, description="The private key's password.")
    login_timeout: int | None = Field(default=None, description="Seconds to wait for the login.")
    network_timeout: int | None = Field(default=None, description="Seconds to wait for an answer.")
    client_session_keep_alive: bool | None = Field(default=None, description="Keep idle sessions from ending.")
    client_prefetch_threads: int | None = Field(default=None, description="Threads that fetch results.")
    ocsp_response_cache_filename: str | None = Field(default=None, description="URI of the OCSP cache.")
    validate_default_parameters: bool | None = Field(default=None, description="Refuse names that aren't there.")
    additional_snowflake_connection_args: dict[str, Any] | None = Field(
        default=None, description="Further arguments of snowflake.connector.connect."
    )
    lock_timeout: float = Field(default=60.0, description="Seconds to wait for a table that others change.")
    statement_timeout: int | None = Field(
        default=None, description="Seconds after which Snowflake stops a statement; the account's, if unset."
    )
    query_tag: dict[str, str] = Field(
        default={},
        description="What the query history tells of these statements, besides tool, table, run_id and publication_id.",
    )

    def warehouse(self) -> Warehouse:
        """Return the Snowflake database as a warehouse."""
        return self._tagged({})

    def _tagged(self, tags: Mapping[str, str]) -> Warehouse:
        from dagster_safe_backfill.warehouses.snowflake.session import SnowflakeWarehouse

        connect = partial(self._connect, tags)
        return SnowflakeWarehouse(connect, schema=self.schema_, lock_timeout=self.lock_timeout)

    @property
    def default_schema(self) -> str | None:
        """The schema of tables that name none themselves."""
        return self.schema_

    def _connect(self, tags: Mapping[str, str]) -> SnowflakeConnection:
        # The resource closes its connection only if nothing is raised in its block, so that is not entered but here.
        opened: Any = self._resource(tags).get_connection()
        return opened.__enter__()

    def _resource(self, tags: Mapping[str, str]) -> SnowflakeResource:
        from dagster_snowflake import SnowflakeResource

        options: dict[str, Any] = {
            name: value for name in _LOGIN if (value := getattr(self, _FIELDS.get(name, name))) is not None
        }
        # The connector changes what it is given.
        further = copy.deepcopy(self.additional_snowflake_connection_args or {})
        further["session_parameters"] = {**further.get("session_parameters", {}), **self._session_parameters(tags)}
        # Else the connector makes floats of NUMBER(10,2) on the way to Arrow.
        further["arrow_number_to_decimal"] = True
        return SnowflakeResource(paramstyle="qmark", additional_snowflake_connection_args=further, **options)

    def _session_parameters(self, tags: Mapping[str, str]) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "AUTOCOMMIT": True,
            "TIMEZONE": "UTC",
            "LOCK_TIMEOUT": max(1, round(self.lock_timeout)),
            "TRANSACTION_ABORT_ON_ERROR": True,
            # Else large lists of values go through a stage, which takes DDL.
            "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,
            "QUERY_TAG": self._query_tag(tags),
        }
        if self.statement_timeout is not None:
            found["STATEMENT_TIMEOUT_IN_SECONDS"] = self.statement_timeout
        return found

    def _query_tag(self, tags: Mapping[str, str]) -> str:
        """Return what every statement is tagged with; what the library knows itself, nobody says otherwise."""
        tag = json.dumps({**self.query_tag, "tool": "dagster-safe-backfill", **tags})
        if len(tag) > _LONGEST_TAG:
            raise ConfigurationError(
                f"query_tag comes to {len(tag)} characters with what the library adds, and Snowflake takes"
                f" {_LONGEST_TAG}: shorten it"
            )
        return tag


_LONGEST_TAG = 2000
_FIELDS = {"schema": "schema_", "warehouse": "warehouse_"}
"""The names of options that are something else in this class."""
