"""I/O managers that write ranges of partitions in one transaction."""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import ConfigDict, Field

from dagster_safe_backfill.assets.metadata import (
    check_former_keys,
    check_names,
    former_keys,
    names,
    options_of_metadata,
    sample_columns_of,
    schema_of,
    table_of_asset,
    table_of_output,
    wap_schema_of,
)
from dagster_safe_backfill.assets.outputs import origin_of, run_id_of, write_metadata
from dagster_safe_backfill.errors import ConfigurationError, TableNotFoundError
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.model.text import about
from dagster_safe_backfill.redaction import masking, without_secrets
from dagster_safe_backfill.runs.declared import TableIO, first_key
from dagster_safe_backfill.runs.partitions import reads_nothing, slice_of_input, slice_of_output
from dagster_safe_backfill.runs.private_dagster import consuming_assets

if TYPE_CHECKING:
    from dagster_snowflake import SnowflakeResource
    from snowflake.connector import SnowflakeConnection

    from dagster_safe_backfill.warehouses.base import Session, Warehouse

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


class RangeIOManager(dg.ConfigurableIOManager, TableIO):
    """Base class of this library's I/O managers: it writes the partitions of a run in one transaction.

    Subclasses return their database from `warehouse` and their schema from `default_schema`.
    """

    # Pydantic's errors quote what was given, which may be a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    wap_schema: str | None = Field(
        default=None, description="The schema of shadows, archives, ledger and locks. Defaults to that of each table."
    )

    @abstractmethod
    def warehouse(self) -> Warehouse:
        """Return the database that the tables are in."""

    @property
    @abstractmethod
    def default_schema(self) -> str | None:
        """The schema of assets that don't name one; None if it isn't configured."""

    @property
    def database_shown(self) -> tuple[str, str]:
        """The database's name or path, and its kind, in the metadata of Dagster's events. Both are empty by default."""
        return "", ""

    @contextmanager
    def connected(
        self,
        table: TableRef,
        *,
        run_id: str | None,
        publication_id: str | None = None,
        read_only: bool = False,
        sample_columns: Sequence[str] | None = None,
    ) -> Generator[Session, None, None]:
        """Open a session for a run's work on a table.

        Statements are tagged with the table and the ids, where the database keeps a query history. Errors raised in
        the block name the table. If `sample_columns` are given, errors and logs show no value of another column.
        """
        tags = {"table": str(table)}
        if run_id is not None:
            tags["run_id"] = run_id
        if publication_id is not None:
            tags["publication_id"] = publication_id
        warehouse = self._tagged(tags)
        with masking(sample_columns), about(table), warehouse.connect(read_only=read_only) as connection:
            yield connection

    def _tagged(self, tags: Mapping[str, str]) -> Warehouse:  # noqa: ARG002 - overrides use it
        """Return the database; where it keeps a query history, the sessions' statements are tagged with `tags`."""
        return self.warehouse()

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write an asset's partitions, or an op's whole table, in one transaction.

        If an error is raised, the table is unchanged.

        Raises:
            ConfigurationError: The output is None. Annotate the function `-> None` if it writes nothing.
            OtherAssetError: The table belongs to another asset.
            WriteError: The rows can't be written.
            SliceError: The run's partitions can't be processed.
        """
        table = self._output_table(context)
        with about(table):
            options = self._output_options(context)
            spec = options.table_spec(table)
        # Dagster calls no I/O manager for an output that is annotated `-> None`.
        if obj is None:
            raise ConfigurationError(
                f"{spec.table}: the function returned None, so nothing was written. Return a frame or an sb.Query, or"
                " annotate the function `-> None`."
            )
        partition_slice = slice_of_output(context)
        with self.connected(spec.table, run_id=run_id_of(context)) as connection:
            changes = _upkeep().store(
                connection, obj, spec=spec, partition_slice=partition_slice, origin=origin_of(context, options)
            )
            query = _upkeep().select_text(connection, spec=spec, partition_slice=partition_slice)
        of_frame = _upkeep().frame_metadata(obj)
        context.add_output_metadata(write_metadata(context, spec, changes) | of_frame | {"Query": query})  # pyright: ignore[reportUnknownMemberType]: MetadataValue is generic

    def load_input(self, context: dg.InputContext) -> object:
        """Read the upstream partitions of an input, as the type that its annotation names; a pandas frame without one.

        Raises:
            TableNotFoundError: The table doesn't exist yet.
            ConfigurationError: The annotation isn't a supported frame type.
        """
        upstream = context.upstream_output
        metadata = dict((upstream and upstream.definition_metadata) or {})
        if context.has_asset_key:
            first = first_key(context.asset_key, former_keys(metadata))
            table = self.table_of(first, schema=schema_of(metadata))
        elif upstream is not None:
            table = table_of_output(upstream.name, metadata=metadata, default_schema=self.default_schema)
        else:
            raise ConfigurationError(f"the input {context.name} comes from neither an asset nor an op output")
        # slice_of_input raises for an input without partitions.
        is_empty = reads_nothing(context)
        shown = sample_columns_of(metadata)
        try:
            with self.connected(table, run_id=run_id_of(context), read_only=True, sample_columns=shown) as connection:
                return _upkeep().read(
                    connection,
                    spec=options_of_metadata(metadata).table_spec(table),
                    partition_slice=None if is_empty else slice_of_input(context),
                    is_empty=is_empty,
                    columns=names(context.definition_metadata or {}, "columns"),
                    load_type=_upkeep().load_type_of(context.dagster_type.typing_type),
                )
        except TableNotFoundError:
            # In its first run, an asset that reads its own earlier partitions has no table yet.
            is_own = context.has_asset_key and context.asset_key in consuming_assets(context)
            if not is_empty and not is_own:
                raise
            return _upkeep().no_rows(_upkeep().load_type_of(context.dagster_type.typing_type))

    def table_of(self, key: dg.AssetKey, *, schema: str | None) -> TableRef:
        """Return an asset's table in this database; `schema` is that of the asset's options."""
        return self._here(table_of_asset(key, schema=schema, default_schema=self.default_schema))

    def _here(self, table: TableRef) -> TableRef:
        """Return a table with what is to be known of the database that it is in."""
        database, kind = self.database_shown
        return replace(
            table,
            longest_name=self.warehouse().dialect.longest_name,
            database=database,
            storage_kind=kind,
            wap_schema=wap_schema_of(table, self.wap_schema),
        )

    def _output_table(self, context: dg.OutputContext) -> TableRef:
        metadata = context.definition_metadata or {}
        if context.has_asset_key:
            return self.table_of(first_key(context.asset_key, former_keys(metadata)), schema=schema_of(metadata))
        return self._here(table_of_output(context.name, metadata=metadata, default_schema=self.default_schema))

    def _output_options(self, context: dg.OutputContext) -> AssetOptions:
        metadata = context.definition_metadata or {}
        check_names(metadata)
        options = options_of_metadata(metadata)
        if context.has_asset_key:
            check_former_keys(context.asset_key, options)
        return options


class RangeDuckDBIOManager(RangeIOManager):
    """Keep assets as tables of a DuckDB file; replaces `dagster_duckdb_pandas.DuckDBPandasIOManager`.

    Every write is one transaction: readers see the table before or after it, and an error leaves the table unchanged.
    Columns are matched by name. An asset may return a pandas, polars or pyarrow frame, any other object that exports
    Arrow, or a `Query`, which runs in DuckDB.

    The I/O manager reads the same metadata of plain assets as `DuckDBPandasIOManager`: `schema`, `partition_expr`
    (also a mapping from dimension name to expression), and `columns` of inputs. It also reads `unique_key`; the
    options of `TableOptions` (`updated_at_column`, `column_timezone`, `on_empty`, `on_outside`, `on_missing_column`,
    `renamed_from`); the options of `Replace` (`on_schema_change`, `column_defaults`); and `keep_latest`, the column
    whose largest value selects the row of a key that is kept. A wrong value or a misspelled name raises
    `ConfigurationError` before anything is written.

    Example:
        ```python
        defs = dg.Definitions(
            assets=[flights],
            resources={"io_manager": sb.RangeDuckDBIOManager(database="warehouse.duckdb", schema="nyc")},
        )
        ```
    """

    database: str = Field(repr=False, description="The path of the DuckDB file.")
    schema_: str | None = Field(default=None, alias="schema", description="The schema of assets that don't name one.")
    connection_config: dict[str, Any] = Field(
        default={}, repr=False, description="DuckDB's settings, like memory_limit."
    )
    lock_timeout: float = Field(default=60.0, description="The seconds to wait while another process holds the file.")

    def warehouse(self) -> Warehouse:
        """Return the DuckDB file as a warehouse."""
        from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

        return DuckDBWarehouse(self.database, lock_timeout=self.lock_timeout, config=self.connection_config)

    @property
    def database_shown(self) -> tuple[str, str]:
        """See `RangeIOManager.database_shown`."""
        return without_secrets(self.database), "duckdb"

    @property
    def default_schema(self) -> str | None:
        """See `RangeIOManager.default_schema`."""
        return self.schema_


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
    password: str | None = Field(default=None, repr=False, description="The user's password.")
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
    private_key: str | None = Field(default=None, repr=False, description="A private key, as text.")
    private_key_path: str | None = Field(default=None, description="The path of a private key.")
    private_key_password: str | None = Field(default=None, repr=False, description="The private key's password.")
    login_timeout: int | None = Field(default=None, description="The seconds to wait for the login.")
    network_timeout: int | None = Field(default=None, description="The seconds to wait for a response.")
    client_session_keep_alive: bool | None = Field(default=None, description="Keep idle sessions open.")
    client_prefetch_threads: int | None = Field(default=None, description="The number of threads that fetch results.")
    ocsp_response_cache_filename: str | None = Field(default=None, description="The URI of the OCSP response cache.")
    validate_default_parameters: bool | None = Field(
        default=None, description="Fail if database, schema or warehouse is unknown."
    )
    additional_snowflake_connection_args: dict[str, Any] | None = Field(
        default=None, repr=False, description="Further arguments of snowflake.connector.connect."
    )
    # Longer than the ten minutes for which Snowflake may keep a killed process's transaction (docs/snowflake.md).
    lock_timeout: float = Field(default=660.0, description="Seconds to wait while another session changes the table.")
    statement_timeout: int | None = Field(default=None, description="Seconds until Snowflake cancels a statement.")
    query_tag: dict[str, str] = Field(
        default={}, description="Further fields of the query tag, beside tool, table, run_id and publication_id."
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
        # Temporary tables hold computed rows, too.
        schema = self.wap_schema or self.schema_
        return SnowflakeWarehouse(connect, schema=schema, lock_timeout=self.lock_timeout)

    @property
    def default_schema(self) -> str | None:
        """See `RangeIOManager.default_schema`."""
        return self.schema_

    def _connect(self, tags: Mapping[str, str]) -> SnowflakeConnection:
        from dagster_safe_backfill.warehouses.snowflake.driver import check_asks_once

        # SnowflakeResource.get_connection has no `finally`: on an error in its block it leaves the connection open. So
        # the block is entered here, and the session closes the connection.
        connection: Any = self._resource(tags).get_connection().__enter__()
        check_asks_once(connection, authenticator=self._authenticator, given=self._further)
        return connection

    @property
    def _further(self) -> Mapping[str, Any]:
        return self.additional_snowflake_connection_args or {}

    @property
    def _authenticator(self) -> str | None:
        return self.authenticator or self._further.get("authenticator")

    def _resource(self, tags: Mapping[str, str]) -> SnowflakeResource:
        # Imported here, because dagster_snowflake takes about 9 s to import on two cores.
        from dagster_snowflake import SnowflakeResource

        from dagster_safe_backfill.warehouses.snowflake.driver import asking_once
        from dagster_safe_backfill.warehouses.snowflake.session import session_parameters

        options: dict[str, Any] = {
            name: value for name in _LOGIN if (value := getattr(self, _FIELDS.get(name, name))) is not None
        }
        # The connector changes the session_parameters that it is given.
        further = copy.deepcopy({**self._further})
        further["session_parameters"] = session_parameters(
            further.get("session_parameters") or {},
            lock_timeout=self.lock_timeout,
            statement_timeout=self.statement_timeout,
            query_tag=self._query_tag(tags),
        )
        # Without this, the connector converts NUMBER(10,2) to floats in Arrow results.
        further["arrow_number_to_decimal"] = True
        further.update(asking_once(further, authenticator=self._authenticator))
        return SnowflakeResource(paramstyle="qmark", additional_snowflake_connection_args=further, **options)

    def _query_tag(self, tags: Mapping[str, str]) -> str:
        """Return the query tag of every statement; the library's own fields win over the user's."""
        tag = json.dumps({**self.query_tag, "tool": "dagster-safe-backfill", **tags})
        if len(tag) > _LONGEST_TAG:
            raise ConfigurationError(
                f"query_tag has {len(tag)} characters with the fields that the library adds, and Snowflake accepts"
                f" {_LONGEST_TAG}. Shorten it."
            )
        return tag


def _upkeep():
    """Load the engine with the first run that needs it, so that definitions are cheap to load."""
    from dagster_safe_backfill.runs import upkeep

    return upkeep
