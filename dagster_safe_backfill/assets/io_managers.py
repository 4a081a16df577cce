"""I/O managers that write ranges of partitions safely."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dagster_safe_backfill.assets.metadata import (
    check_names,
    names,
    options_of_metadata,
    schema_of,
    table_of_asset,
    table_of_output,
)
from dagster_safe_backfill.errors import ConfigurationError, TableNotFoundError
from dagster_safe_backfill.model.states import RowCounts
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.model.text import about
from dagster_safe_backfill.reports.events import changes_metadata
from dagster_safe_backfill.runs.partitions import reads_nothing, slice_of_input, slice_of_output
from dagster_safe_backfill.runs.table_io import TableIO

if TYPE_CHECKING:
    from dagster_safe_backfill.warehouses.base import Session, Warehouse


class RangeIOManager(dg.ConfigurableIOManager, TableIO):
    """What the I/O managers of all warehouses share: slices in, one transaction per write."""

    @abstractmethod
    def warehouse(self) -> Warehouse:
        """Return the database that the tables are in."""

    @property
    @abstractmethod
    def default_schema(self) -> str | None:
        """The schema of tables that name none themselves."""

    @contextmanager
    def connected(
        self, table: TableRef, *, run_id: str | None, publication_id: str | None = None, read_only: bool = False
    ) -> Generator[Session, None, None]:
        """Open a session for the work of a run on a table, which the database's history and errors tell of."""
        tags = {"table": str(table)}
        if run_id is not None:
            tags["run_id"] = run_id
        if publication_id is not None:
            tags["publication_id"] = publication_id
        with about(table), self._tagged(tags).connect(read_only=read_only) as connection:
            yield connection

    def _tagged(self, tags: Mapping[str, str]) -> Warehouse:  # noqa: ARG002 - where there is a history of statements
        """Return the database, with sessions whose statements its history tells by these tags."""
        return self.warehouse()

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write an asset's slice, or an op's whole table, in one transaction.

        Raises:
            ConfigurationError: The output is None: annotate `-> None` if nothing is to be written.
            WriteError: The rows can't be written as they are. The table is as it was.
            SliceError: The run's partitions can't be told. The table is as it was.
        """
        _read, store = _loaded()
        spec = self._output_spec(context)
        if obj is None:
            raise ConfigurationError(
                f"{spec.table}: the function returned None; return a frame or an sb.Query, or annotate it `-> None`"
            )
        partition_slice = slice_of_output(context)
        with self.connected(spec.table, run_id=_run_id(context)) as connection:
            changes = store.store(connection, obj, spec=spec, partition_slice=partition_slice)
        context.add_output_metadata(_write_metadata(context, spec, changes))  # pyright: ignore[reportUnknownMemberType]: MetadataValue is generic

    def load_input(self, context: dg.InputContext) -> object:
        """Read the upstream partitions that the input maps to, as the type that its hint names (pandas if none).

        Raises:
            TableNotFoundError: The table isn't there yet.
            ConfigurationError: The hint names no known frame type.
        """
        read, _store = _loaded()
        upstream = context.upstream_output
        metadata = dict((upstream and upstream.definition_metadata) or {})
        if context.has_asset_key:
            table = self.table_of(context.asset_key, schema=schema_of(metadata))
        elif upstream is not None:
            table = table_of_output(upstream.name, metadata=metadata, default_schema=self.default_schema)
        else:
            raise ConfigurationError(f"the input {context.name} comes from no asset and no op output")
        is_empty = reads_nothing(context)
        try:
            with self.connected(table, run_id=_run_id(context), read_only=True) as connection:
                return read.read(
                    connection,
                    spec=options_of_metadata(metadata).table_spec(table),
                    partition_slice=None if is_empty else slice_of_input(context),
                    is_empty=is_empty,
                    columns=names(context.definition_metadata or {}, "columns"),
                    load_type=_load_type(context),
                )
        except TableNotFoundError:
            # The first partition of an asset that reads its own past has nothing to read, and no table yet.
            if not is_empty:
                raise
            return read.read_nothing(_load_type(context))

    def table_of(self, key: dg.AssetKey, *, schema: str | None) -> TableRef:
        """Return an asset's table here; `schema` is the one that its options name."""
        table = table_of_asset(key, schema=schema, default_schema=self.default_schema)
        return replace(table, longest_name=self.warehouse().dialect.longest_name)

    def _output_spec(self, context: dg.OutputContext) -> TableSpec:
        metadata = context.definition_metadata or {}
        if context.has_asset_key:
            table = self.table_of(context.asset_key, schema=schema_of(metadata))
        else:
            table = table_of_output(context.name, metadata=metadata, default_schema=self.default_schema)
        with about(table):
            check_names(metadata)
            return options_of_metadata(metadata).table_spec(table)


class RangeDuckDBIOManager(RangeIOManager):
    """Tables in a DuckDB file; a drop-in for `dagster_duckdb_pandas.DuckDBPandasIOManager`.

    Reads the same metadata of plain assets: `schema`, `partition_expr` (also by dimension), and `columns` of inputs.
    Also reads `unique_key`; `updated_at_column`, `column_timezone`, `on_empty` and `on_outside`, which `TableOptions`
    documents; `on_schema_change` and `column_defaults`, which `Replace` documents; and `keep_latest`, the column that
    tells which of several rows of one key is kept. A wrong value, or a name that is almost one of these, is an error
    before anything is written.

    Every write is one transaction: a reader sees the table before or after it, and an error leaves it as it was.
    The columns are matched by name. Frames may be pandas, polars, pyarrow or anything else that speaks Arrow;
    a `Query` runs inside DuckDB.

    Example:
        ```python
        defs = dg.Definitions(
            assets=[flights],
            resources={"io_manager": sb.RangeDuckDBIOManager(database="warehouse.duckdb", schema="nyc")},
        )
        ```
    """

    database: str = Field(description="Path of the DuckDB file.")
    schema_: str | None = Field(
        default=None, alias="schema", description="Schema of the assets that name none themselves."
    )
    connection_config: dict[str, Any] = Field(
        default={},
        description="DuckDB's settings, such as memory_limit: https://duckdb.org/docs/configuration",
    )
    lock_timeout: float = Field(default=60.0, description="Seconds to wait for a file that another process holds.")

    def warehouse(self) -> Warehouse:
        """Return the DuckDB file as a warehouse."""
        from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse

        return DuckDBWarehouse(self.database, lock_timeout=self.lock_timeout, config=self.connection_config)

    @property
    def default_schema(self) -> str | None:
        """The schema of tables that name none themselves."""
        return self.schema_


def _loaded():
    """Load what reads and writes tables: with the first of them, so that definitions are cheap to load."""
    from dagster_safe_backfill.wap.tables import read, store

    return read, store


def _run_id(context: dg.InputContext | dg.OutputContext) -> str | None:
    """Return the run that reads or writes; None where no run does, as in `load_asset_value`."""
    try:
        return context.step_context.run_id
    except dg.DagsterInvariantViolationError:
        return None


def _load_type(context: dg.InputContext) -> type:
    hint = context.dagster_type.typing_type
    # Any is a class since Python 3.11.
    if isinstance(hint, type) and hint is not Any:
        return hint
    import pandas as pd

    return pd.DataFrame


def _write_metadata(context: dg.OutputContext, spec: TableSpec, changes: Mapping[str, RowCounts]) -> dict[str, Any]:
    total = sum(changes.values(), RowCounts())
    rows = "dagster/partition_row_count" if context.has_partition_key else "dagster/row_count"
    return {
        "dagster/table_name": str(spec.table),
        rows: total.staged,
        **changes_metadata(total),
    }
