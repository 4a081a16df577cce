"""The values of options: what they take, what they come to, and how they refuse what they don't take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import time, timedelta
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import (
    AssetOptions,
    Batches,
    Checks,
    Limits,
    Merge,
    Publish,
    Replace,
    Swap,
)
from dagster_safe_backfill.model.table_options import TableOptions
from dagster_safe_backfill.model.tables import KeepLatest, TableRef, TableSpec

NIGHTS = "22:00-06:00 America/New_York"
ALL = [Merge, Replace, Swap, Batches, Limits, TableOptions, Checks, AssetOptions]


@pytest.mark.parametrize("kind", ALL)
def test_every_value_has_defaults_and_is_frozen_and_hashable(kind: Callable[[], Any]) -> None:
    value = kind()
    assert value == kind()
    assert hash(value) == hash(kind())
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        value.on_conflict = "overwrite"


@pytest.mark.parametrize("kind", [Merge, Replace, Swap])
def test_what_the_strategies_have_in_common(kind: type[Publish]) -> None:
    value = kind(
        on_conflict="overwrite",
        archive_days=0.5,
        on_schema_change="add_columns",
        column_defaults={"tax": "0.0"},
        allow_mixed_versions=True,
    )
    assert value.archive_for == timedelta(hours=12)
    assert value.strategy == kind.__name__.lower()
    assert hash(value) == hash(kind(on_conflict="overwrite", archive_days=0.5, on_schema_change="add_columns",
                                    allow_mixed_versions=True))  # fmt: skip


def test_a_value_keeps_no_mapping_or_list_of_the_caller() -> None:
    defaults, columns = {"tax": "0.0"}, ["day"]
    value = Merge(on_schema_change="add_columns", column_defaults=defaults)
    checks = Checks(sample_columns=columns)
    defaults.clear()
    columns.clear()
    assert value.column_defaults == {"tax": "0.0"}
    assert checks.sample_columns == ("day",)


def test_hours_are_parsed_when_the_limits_are_made() -> None:
    parsed = Limits(allowed_hours=NIGHTS)
    assert parsed.hours is not None
    assert parsed.hours.start == time(22)
    assert parsed == Limits(allowed_hours=parsed.hours)
    assert Limits().hours is None


def test_a_single_column_may_stand_for_a_list() -> None:
    assert Checks(sample_columns="day") == Checks(sample_columns=["day"])
    assert Checks(sample_columns=[]).sample_columns == ()


def test_options_make_the_tables_rules() -> None:
    options = AssetOptions(
        partition_expr={None: "day"},
        unique_key=("day", "shop"),
        publish=Swap(on_schema_change="sync", column_defaults={"tax": "0"}),
        table=TableOptions(
            schema="ignored here",
            column_timezone="UTC",
            updated_at_column="at",
            on_empty="allow",
            on_outside="drop",
            on_duplicate=KeepLatest("seen"),
        ),
    )
    table = TableRef(schema="sales", name="revenue")
    assert options.table_spec(table) == TableSpec(
        table=table,
        partition_expr={None: "day"},
        column_timezone="UTC",
        unique_key=("day", "shop"),
        updated_at_column="at",
        on_empty="allow",
        on_outside="drop",
        on_schema_change="sync",
        column_defaults={"tax": "0"},
        keep_latest="seen",
    )


TOGETHER = [
    ({"publish": Merge()}, 'publish="merge" needs a unique_key'),
    ({"unique_key": ("day",), "table": TableOptions(updated_at_column="Day")}, "can't be part of unique_key"),
    ({"table": TableOptions(on_duplicate=KeepLatest("seen"))}, "keep_latest .* needs a unique_key"),
    ({"unique_key": ("day",), "table": TableOptions(on_duplicate=KeepLatest("DAY"))}, "part of unique_key"),
]


@pytest.mark.parametrize(("options", "says"), TOGETHER, ids=[says for _, says in TOGETHER])
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=says):
        AssetOptions(**options)


BAD: list[tuple[Callable[..., Any], str, object, str]] = [
    *((kind, "on_conflict", "rasie", 'did you mean "raise"?') for kind in (Merge, Replace, Swap)),
    (Merge, "on_conflict", ["raise"], '"raise" or "overwrite"'),
    (Swap, "may_lose", "streams", 'did you mean ["streams"]?'),
    (Swap, "may_lose", ["stream"], 'did you mean "streams"?'),
    (Merge, "on_moved_key", "moove", 'did you mean "move"?'),
    (Merge, "on_moved_key", True, '"raise" or "move"'),
    (Merge, "on_schema_change", "sync", 'publish=Swap(on_schema_change="sync")'),
    (Replace, "on_schema_change", "sync", 'publish=Swap(on_schema_change="sync")'),
    (Swap, "on_schema_change", "snyc", 'did you mean "sync"?'),
    (Merge, "on_schema_change", "add-columns", 'did you mean "add_columns"?'),
    (Merge, "archive_days", math.nan, "a number of days, at least 0 and at most 36,500"),
    (Merge, "archive_days", -1, "at least 0"),
    (Merge, "archive_days", True, "a number of days"),
    (Merge, "column_defaults", {"tax": "0"}, 'set it to "add_columns"'),
    (Merge, "column_defaults", None, "a mapping of column names to SQL expressions"),
    (Swap, "column_defaults", {"tax": 0}, 'write the SQL as a text: "0"'),
    (Swap, "column_defaults", {"": "0"}, "a mapping of column names"),
    (Batches, "size", 0, "at least 1"),
    (Batches, "canary", "no", "True or False"),
    (Limits, "timeout_seconds", 0, "more than 0"),
    (Limits, "timeout_seconds", math.inf, "at most 31,622,400"),
    (Limits, "max_retries", -1, "a whole number of retries, at least 0"),
    (Limits, "allowed_hours", 22, NIGHTS),
    (Limits, "allowed_hours", "22:00-06:00 America/New_Yrok", "did you mean America/New_York?"),
    (TableOptions, "column_timezone", "Europe/Berln", "did you mean Europe/Berlin?"),
    (TableOptions, "column_timezone", 1, 'such as "America/New_York"'),
    (TableOptions, "on_duplicate", "latest", 'keep_latest("a_column")'),
    (TableOptions, "on_duplicate", "rais", 'did you mean "raise"?'),
    (TableOptions, "schema", " ", "the name of a schema"),
    (KeepLatest, "column", "", "the name of a column"),
    (Checks, "partitioned", "atuo", 'did you mean "auto"?'),
    (Checks, "partitioned", 1, 'True, False or "auto"'),
    (Checks, "sample_columns", "day, shop", 'did you mean ["day", "shop"]?'),
    (Checks, "sample_columns", ["day", "Day"], "twice"),
    (Checks, "sample_columns", {"day"}, "a list of column names"),
    (sb.AllowedHours, "start", "22:00", "datetime.time"),
]


@pytest.mark.parametrize(("kind", "option", "value", "says"), BAD)
def test_a_bad_value_is_refused_when_it_is_made(
    kind: Callable[..., Any], option: str, value: object, says: str
) -> None:
    others = {"end": time(6), "timezone": "UTC"} if kind is sb.AllowedHours else {}
    with pytest.raises(sb.ConfigurationError) as caught:
        kind(**{option: value}, **others)
    assert says in str(caught.value)
