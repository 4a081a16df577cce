"""Names and paths that need quotes, schemas that the role can't create, and columns that are added."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from sqlglot import exp

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.tables import Column, TableRef
from dagster_safe_backfill.sql import terms
from dagster_safe_backfill.warehouses.snowflake import catalog
from dagster_safe_backfill.warehouses.snowflake.driver import Connection
from dagster_safe_backfill.warehouses.snowflake.generator import DIALECT
from dagster_safe_backfill.warehouses.snowflake.loading import file_literal
from dagster_safe_backfill_tests.harness.assets import run_range
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03")
FIRST = ("FlightDate", "order", "my col", "it's", 'say "hi"', "select", "ünï", "1st", "a.b", "naïve — “x”")
PLACES = (("main", "t"), ("My Schema", "my table"), ("it's", "it's"), ("order", "select"), ("ünï", 'say "hi"'))


def asset_of(column: str, table: tuple[str, str], value: Callable[[], float], strategy: str) -> dg.AssetsDefinition:
    """Return an asset whose first column has a name, and whose table has one."""
    schema, name = table

    @sb.wap_asset(
        key=dg.AssetKey([schema, "asset"]),
        partitions_def=DAYS,
        partition_expr=f'"{stored(column)}"',
        unique_key=[column, "id"],
        audits=[sb.not_null(column), sb.unique()],
        backfill_policy=sb.single_run(),
        publish=strategy,
        code_version="1",
        former_keys=[dg.AssetKey([schema, name])] if name != "asset" else None,
    )
    def made(partitions: sb.PartitionSlice) -> pd.DataFrame:
        days = [day for day in partitions.keys for _ in range(2)]
        return pd.DataFrame(
            {column: pd.to_datetime(days).date, "id": [*range(len(days))], "value": [value()] * len(days)}
        )

    return made


def stored(name: str) -> str:
    return (name.upper() if name == name.lower() else name).replace('"', '""')
