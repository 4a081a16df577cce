"""The I/O manager of Snowflake."""

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
"""The options that are passed to `dagster_snowflake.SnowflakeResource`."""

# The limit of QUERY_TAG in Snowflake's documentation of session parameters.
_LONGEST_TAG = 2000
_FIELDS = {"schema": "schema_", "warehouse": "warehouse_"}
"""The fields of options whose names are taken: by pydantic's `schema`, and by `RangeIOManager.warehouse`."""


class RangeSnowflakeIOManager(RangeIOManager):
    """Keep assets as tables of a Snowflake database; replaces `dagster_snowflake_pandas.SnowflakePandasIOManager`.

    Every write is one transaction: readers see the table before or after it, and an error leaves the table unchanged.
    Names without capital letters are Snowflake's unquoted names: the asset `nyc/flights` is the table NYC.FLIGHTS, and
    its column `flight_date` is FLIGHT_DATE. Frames are loaded through Parquet. A `Query` runs in Snowflake, and its
    rows don't leave it. Sessions have the time zone UTC.

    The I/O manager reads the same metadata as `RangeDuckDBIOManager`. It logs in with the same options as
    `dagster_snowflake.SnowflakeResource`. That package and Snowflake's connector are imported when a run first uses
    them.

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

    account: str | None = Field(default=None, description="The account identifier.")
    user: str = Field(description="The user's login name.")
    password: str | None = Field(default=None, description="The user's password.")
    database: str = Field(description="The database that the tables are in.")
    schema_: str | None = Field(
        default=None,
        alias="schema",
        description="The schema of assets that don't name one, and of temporary tables, which else are in PUBLIC.",
    )
    role: str | None = Field(default=None, description="The role. Defaults to the user's default role.")
    warehouse_: str | None = Field(
        default=None,
        alias="warehouse",
        description="The virtual warehouse that runs all statements; backfills can have one of their own.",
    )
    authenticator: str | None = Field(default=None, description="How to log in, such as externalbrowser or a URL.")
    private_key: str | None = Field(default=None, description="A private key, as text.")
    private_key_path: str | None = Field(default=None, description="The path of a private key.")
    private_key_password: str | None = Field(default=None, description="The private key's password.")
    login_timeout: int | None = Field(default=None, description="The seconds to wait for the login.")
    network_timeout: int | None = Field(default=None, description="The seconds to wait for a response.")
    client_session_keep_alive: bool | None = Field(default=None, description="Keep idle sessions open.")
    client_prefetch_threads: int | None = Field(default=None, description="The number of threads that fetch results.")
    ocsp_response_cache_filename: str | None = Field(default=None, description="The URI of the OCSP response cache.")
    validate_default_parameters: bool | None = Field(
        default=None, description="Fail if database, schema or warehouse is unknown."
    )
    additional_snowflake_connection_args: dict[str, Any] | None = Field(
        default=None, description="Further arguments of snowflake.connector.connect."
    )
    lock_timeout: float = Field(default=60.0, description="Seconds to wait while another session changes the table.")
    statement_timeout: int | None = Field(
        default=None, description="The seconds after which Snowflake cancels a statement. Defaults to the account's."
    )
    query_tag: dict[str, str] = Field(
        default={},
        description="Further fields of the statements' query tag, beside tool, table, run_id and publication_id.",
    )

    def warehouse(self) -> Warehouse:
        """Return the Snowflake database as a warehouse."""
        return self._tagged({})

    @property
    def database_shown(self) -> tuple[str, str]:
        """See `RangeIOManager.database_shown`."""
        return self.database, "snowflake"

    def _tagged(self, tags: Mapping[str, str]) -> Warehouse:
        from dagster_safe_backfill.warehouses.snowflake.session import SnowflakeWarehouse

        connect = partial(self._connect, tags)
        return SnowflakeWarehouse(connect, schema=self.schema_, lock_timeout=self.lock_timeout)

    @property
    def default_schema(self) -> str | None:
        """See `RangeIOManager.default_schema`."""
        return self.schema_

    def _connect(self, tags: Mapping[str, str]) -> SnowflakeConnection:
        # SnowflakeResource.get_connection has no `finally`: on an error in its block it leaves the connection open. So
        # the block is entered here, and the session closes the connection.
        opened: Any = self._resource(tags).get_connection()
        return opened.__enter__()

    def _resource(self, tags: Mapping[str, str]) -> SnowflakeResource:
        # Imported here, because dagster_snowflake takes about 9 s to import on two cores.
        from dagster_snowflake import SnowflakeResource

        options: dict[str, Any] = {
            name: value for name in _LOGIN if (value := getattr(self, _FIELDS.get(name, name))) is not None
        }
        # The connector changes the session_parameters that it is given.
        further = copy.deepcopy(self.additional_snowflake_connection_args or {})
        further["session_parameters"] = {**further.get("session_parameters", {}), **self._session_parameters(tags)}
        # Without this, the connector converts NUMBER(10,2) to floats in Arrow results.
        further["arrow_number_to_decimal"] = True
        return SnowflakeResource(paramstyle="qmark", additional_snowflake_connection_args=further, **options)

    def _session_parameters(self, tags: Mapping[str, str]) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "AUTOCOMMIT": True,
            "TIMEZONE": "UTC",
            # 0 would turn waiting for locks off (Snowflake's documentation of LOCK_TIMEOUT).
            "LOCK_TIMEOUT": max(1, round(self.lock_timeout)),
            # Otherwise a COMMIT after a failed statement would keep the statements before it.
            "TRANSACTION_ABORT_ON_ERROR": True,
            # 0 turns array binding through a stage off: the connector creates the stage by DDL, which in Snowflake
            # commits the open transaction.
            "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,
            "QUERY_TAG": self._query_tag(tags),
        }
        if self.statement_timeout is not None:
            found["STATEMENT_TIMEOUT_IN_SECONDS"] = self.statement_timeout
        return found

    def _query_tag(self, tags: Mapping[str, str]) -> str:
        """Return the query tag of every statement; the library's own fields win over the user's."""
        tag = json.dumps({**self.query_tag, "tool": "dagster-safe-backfill", **tags})
        if len(tag) > _LONGEST_TAG:
            raise ConfigurationError(
                f"query_tag has {len(tag)} characters with the fields that the library adds, and Snowflake accepts"
                f" {_LONGEST_TAG}. Shorten it."
            )
        return tag
