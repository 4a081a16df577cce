"""Options are checked where they are written: a bad one is refused when the asset is defined, with a hint."""

from __future__ import annotations

import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import AssetOptions
from dagster_safe_backfill.runs.declared import options_of
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_key

GRID = dg.MultiPartitionsDefinition({"day": DAYS, "region": dg.StaticPartitionsDefinition(["eu", "us"])})
EVAL = {"sb": sb, "dg": dg, "GRID": GRID, "nan": float("nan"), "inf": float("inf"), "timedelta": timedelta}


def wap(**options: Any) -> dg.AssetsDefinition:
    """Define a `@wap_asset`."""

    @sb.wap_asset(**{"partitions_def": DAYS, "partition_expr": "day", **options})
    def events() -> pd.DataFrame:
        return pd.DataFrame()

    return events


def staged(**options: Any) -> dg.AssetsDefinition:
    """Define staged assets, and return the one of the live table."""

    def events() -> pd.DataFrame:
        return pd.DataFrame()

    return sb.build_staged_wap_assets(events, **{"partitions_def": DAYS, "partition_expr": "day", **options}).published


BOTH = pytest.mark.parametrize("define", [wap, staged])

BAD: list[tuple[str, str]] = [
    # publish
    ('publish="mrege"', 'publish must be "merge", "replace" or "swap", not \'mrege\'; did you mean "merge"?'),
    ('publish="Merge", unique_key=["id"]', "not 'Merge'; did you mean \"merge\"?"),
    ('publish="upsert"', 'publish must be "merge", "replace" or "swap", not \'upsert\''),
    ("publish=True", 'publish must be "merge", "replace", "swap" or a Merge, Replace or Swap, not True'),
    ("publish=sb.Swap", "did you mean Swap()?"),
    ("publish=sb.Batches()", "a Merge, Replace or Swap, not Batches("),
    ('publish={"on_conflict": "raise"}', "a Merge, Replace or Swap, not {"),
    ("publish=[]", "a Merge, Replace or Swap, not []"),
    ('publish="merge"', 'publish="merge" needs a unique_key'),
    ("publish=sb.Merge()", 'publish="merge" needs a unique_key'),
    (
        'publish=sb.Replace(on_conflict="rasie")',
        'on_conflict must be "raise" or "overwrite", not \'rasie\'; did you mean',
    ),
    ('publish=sb.Replace(on_conflict="owerwrite")', 'did you mean "overwrite"?'),
    ("publish=sb.Replace(on_conflict=None)", 'on_conflict must be "raise" or "overwrite", not None'),
    ("publish=sb.Replace(on_conflict=[])", 'on_conflict must be "raise" or "overwrite", not []'),
    (
        "publish=sb.Replace(archive_days=-1)",
        "archive_days must be a number of days, at least 0 and at most 36,500, not -1",
    ),
    (
        "publish=sb.Replace(archive_days=nan)",
        "archive_days must be a number of days, at least 0 and at most 36,500, not nan",
    ),
    ("publish=sb.Replace(archive_days=inf)", "archive_days must be a number of days"),
    ("publish=sb.Replace(archive_days=True)", "archive_days must be a number of days"),
    ('publish=sb.Replace(archive_days="30")', "archive_days must be a number of days"),
    ("publish=sb.Replace(archive_days=None)", "archive_days must be a number of days"),
    (
        'publish=sb.Replace(on_schema_change="sync")',
        'on_schema_change must be "raise" or "add_columns", not \'sync\'; it re',
    ),
    ('publish=sb.Swap(on_schema_change="snyc")', 'did you mean "sync"?'),
    ('publish=sb.Replace(on_schema_change="add columns")', 'did you mean "add_columns"?'),
    ("publish=sb.Replace(on_schema_change=True)", 'on_schema_change must be "raise" or "add_columns", not True'),
    ('publish=sb.Replace(column_defaults={"tax": "0"})', "column_defaults are for columns that are added"),
    (
        'publish=sb.Replace(on_schema_change="add_columns", column_defaults={"tax": 0})',
        "column_defaults['tax'] must be a SQL expression, not 0; write the SQL as a text: \"0\"",
    ),
    (
        'publish=sb.Replace(on_schema_change="add_columns", column_defaults={"tax": " "})',
        "column_defaults['tax'] must be a SQL expression, not ' '",
    ),
    (
        'publish=sb.Replace(on_schema_change="add_columns", column_defaults=["tax"])',
        "column_defaults must be a mapping of column names to SQL expressions, not ['tax']",
    ),
    ("publish=sb.Replace(column_defaults=None)", "column_defaults must be a mapping of column names"),
    ("publish=sb.Replace(allow_mixed_versions=1)", "allow_mixed_versions must be True or False, not 1"),
    ("publish=sb.Replace(allow_mixed_versions=None)", "allow_mixed_versions must be True or False, not None"),
    # batches
    ("batches=0", "batches must be a whole number of partitions, at least 1, not 0"),
    ("batches=-5", "batches must be a whole number of partitions, at least 1, not -5"),
    ("batches=True", "batches must be a Batches, such as Batches(size=10), or a whole number of partitions, not True"),
    ("batches=2.5", "batches must be a Batches, such as Batches(size=10)"),
    ('batches="10"', "batches must be a Batches, such as Batches(size=10)"),
    ("batches=sb.Batches", "did you mean Batches()?"),
    ("batches=sb.Limits()", "batches must be a Batches, such as Batches(size=10)"),
    ("batches=sb.Batches(size=0)", "size must be a whole number of partitions, at least 1, not 0"),
    ("batches=sb.Batches(size=True)", "size must be a whole number of partitions"),
    ("batches=sb.Batches(size=10.0)", "size must be a whole number of partitions"),
    ('batches=sb.Batches(publish_each="batch")', "publish_each must be True or False, not 'batch'"),
    ("batches=sb.Batches(canary=None)", "canary must be True or False, not None"),
    ("batches=sb.Batches(resume=0)", 'resume must be True, False or "always", not 0'),
    (
        "batches=sb.Batches(resume='alwais')",
        'resume must be True, False or "always", not \'alwais\'; did you mean "always"?',
    ),
    ("batches=sb.Batches(resume_within=1)", "resume_within must be a positive datetime.timedelta, not 1"),
    (
        "batches=sb.Batches(resume_within=timedelta(0))",
        "resume_within must be a positive datetime.timedelta, not datetime.timedelta(0)",
    ),
    # limits
    ("limits=600", "limits must be a Limits, such as Limits(max_retries=5), not 600"),
    ('limits={"max_retries": 3}', "did you mean Limits(max_retries=3)?"),
    ('batches={"size": 3}', "did you mean Batches(size=3)?"),
    ("limits=sb.Limits", "did you mean Limits()?"),
    ("limits=sb.Limits(timeout_seconds=0)", "timeout_seconds must be a number of seconds, more than 0"),
    ("limits=sb.Limits(timeout_seconds=-1)", "timeout_seconds must be a number of seconds, more than 0"),
    ("limits=sb.Limits(timeout_seconds=nan)", "timeout_seconds must be a number of seconds, more than 0"),
    ("limits=sb.Limits(timeout_seconds=inf)", "timeout_seconds must be a number of seconds, more than 0"),
    ("limits=sb.Limits(timeout_seconds=True)", "timeout_seconds must be a number of seconds, more than 0"),
    ('limits=sb.Limits(timeout_seconds="10 min")', "timeout_seconds must be a number of seconds, more than 0"),
    ("limits=sb.Limits(max_retries=-1)", "max_retries must be a whole number of retries, at least 0, not -1"),
    ("limits=sb.Limits(max_retries=True)", "max_retries must be a whole number of retries, at least 0, not True"),
    ("limits=sb.Limits(max_retries=None)", "max_retries must be a whole number of retries, at least 0, not None"),
    ("limits=sb.Limits(max_retries=1.5)", "max_retries must be a whole number of retries, at least 0, not 1.5"),
    ("limits=sb.Limits(retry_wait=-0.1)", "retry_wait must be a number of seconds, at least 0"),
    ("limits=sb.Limits(retry_wait=nan)", "retry_wait must be a number of seconds, at least 0"),
    ("limits=sb.Limits(retry_wait=None)", "retry_wait must be a number of seconds, at least 0"),
    (
        'limits=sb.Limits(allowed_hours="22-6 UTC")',
        "allowed_hours '22-6 UTC': the text doesn't have the form HH:MM-HH:MM Area/City",
    ),
    ('limits=sb.Limits(allowed_hours="22:00-06:00")', "the text has no time zone"),
    ('limits=sb.Limits(allowed_hours="22:00-06:00 Europe/Berln")', "did you mean Europe/Berlin?"),
    ('limits=sb.Limits(allowed_hours="")', 'Write it like "22:00-06:00 America/New_York"'),
    (
        "limits=sb.Limits(allowed_hours=22)",
        'allowed_hours must be a text such as "22:00-06:00 America/New_York", not 22',
    ),
    ("limits=sb.Limits(max_partitions=0)", "max_partitions must be a whole number of partitions, at least 1, not 0"),
    (
        'limits=sb.Limits(max_partitions="90")',
        "max_partitions must be a whole number of partitions, at least 1, not '90'",
    ),
    # table
    ('table="nyc"', "table must be a TableOptions, such as TableOptions(schema=\"sales\"), not 'nyc'"),
    ("table=sb.TableOptions", "did you mean TableOptions()?"),
    ('table=sb.TableOptions(schema="")', "schema must be the name of a schema, not ''"),
    ("table=sb.TableOptions(schema=5)", "schema must be the name of a schema, not 5"),
    (
        'table=sb.TableOptions(column_timezone="America/New_Yrok")',
        "column_timezone: there is no time zone 'America/New_Yrok'; did you mean America/New_York?",
    ),
    ('table=sb.TableOptions(column_timezone="EST5EDT4")', "column_timezone: there is no time zone 'EST5EDT4'"),
    ('table=sb.TableOptions(column_timezone="America")', "column_timezone: there is no time zone 'America'"),
    (
        'table=sb.TableOptions(column_timezone="")',
        'column_timezone must be the name of a time zone, such as "America/New',
    ),
    ("table=sb.TableOptions(column_timezone=-5)", "column_timezone must be the name of a time zone"),
    ('table=sb.TableOptions(updated_at_column=" ")', "updated_at_column must be the name of a column, not ' '"),
    ("table=sb.TableOptions(updated_at_column=True)", "updated_at_column must be the name of a column, not True"),
    (
        'unique_key=["Day"], table=sb.TableOptions(updated_at_column="day")',
        "updated_at_column 'day' can't be part of unique_key",
    ),
    (
        'table=sb.TableOptions(on_empty="alow")',
        'on_empty must be "refuse" or "allow", not \'alow\'; did you mean "allow"?',
    ),
    ("table=sb.TableOptions(on_empty=True)", 'on_empty must be "refuse" or "allow", not True'),
    ("table=sb.TableOptions(on_empty=None)", 'on_empty must be "refuse" or "allow", not None'),
    (
        'table=sb.TableOptions(on_outside="dorp")',
        'on_outside must be "refuse" or "drop", not \'dorp\'; did you mean "drop"?',
    ),
    ('table=sb.TableOptions(on_outside={"drop"})', 'on_outside must be "refuse" or "drop", not {\'drop\'}'),
    ('table=sb.TableOptions(on_duplicate="latest")', 'on_duplicate must be "raise" or keep_latest("a_column"), not'),
    ('table=sb.TableOptions(on_duplicate="rasie")', 'did you mean "raise"?'),
    ("table=sb.TableOptions(on_duplicate=sb.keep_latest)", 'on_duplicate must be "raise" or keep_latest("a_column")'),
    ('table=sb.TableOptions(on_duplicate=sb.keep_latest(""))', "keep_latest must be the name of a column, not ''"),
    ("table=sb.TableOptions(on_duplicate=None)", 'on_duplicate must be "raise" or keep_latest("a_column"), not None'),
    ('table=sb.TableOptions(on_duplicate=sb.keep_latest("seen"))', "keep_latest (on_duplicate) needs a unique_key"),
    (
        'unique_key=["day"], table=sb.TableOptions(on_duplicate=sb.keep_latest("day"))',
        "keep_latest (on_duplicate) names 'day', which is part of unique_key",
    ),
    # checks
    ('checks="auto"', "checks must be a Checks, such as Checks(partitioned=True), not 'auto'"),
    ("checks=True", "checks must be a Checks, such as Checks(partitioned=True), not True"),
    ("checks=sb.Checks", "did you mean Checks()?"),
    (
        'checks=sb.Checks(partitioned="atuo")',
        'partitioned must be True, False or "auto", not \'atuo\'; did you mean "auto"?',
    ),
    ("checks=sb.Checks(partitioned=None)", 'partitioned must be True, False or "auto", not None'),
    ("checks=sb.Checks(partitioned=1)", 'partitioned must be True, False or "auto", not 1'),
    (
        'checks=sb.Checks(sample_columns="day,id")',
        "sample_columns must be a column name or a list of column names, not",
    ),
    ("checks=sb.Checks(sample_columns=[1])", "sample_columns must be a list of column names, not 1"),
    ('checks=sb.Checks(sample_columns=["id", "ID"])', "sample_columns names ID, id twice. Name each column once."),
    # unique_key, partition_expr, partitions_def
    ('unique_key="day, id"', 'did you mean ["day", "id"]?'),
    ('unique_key=""', "unique_key must be a column name or a list of column names, not ''"),
    ('unique_key=["day", ""]', "unique_key must be a list of column names, not ''"),
    ('unique_key=["day", None]', "unique_key must be a list of column names, not None"),
    ('unique_key=["day", "id", "day"]', "unique_key names day twice. Name each column once."),
    ('unique_key={"day", "id"}', "unique_key must be a column name or a list of column names, not {"),
    ("unique_key=None", "unique_key must be a column name or a list of column names, not None"),
    ("unique_key=5", "unique_key must be a column name or a list of column names, not 5"),
    ('partition_expr=""', "partition_expr must be a column or SQL expression, such as \"day\", not ''"),
    ("partition_expr=None", 'partition_expr must be a column or SQL expression, such as "day", not None'),
    ('partition_expr=["day"]', "partition_expr must be a column or SQL expression, such as \"day\", not ['day']"),
    ('partition_expr={"day": "day"}', 'partition_expr must be a column or SQL expression, such as "day", not {'),
    ('partitions_def=GRID, partition_expr="day"', 'a SQL expression for each dimension, {"day": …, "region": …}, not'),
    ('partitions_def=GRID, partition_expr={"day": "day"}', 'for each dimension, {"day": …, "region": …}, not {'),
    (
        'partitions_def=GRID, partition_expr={"day": "day", "regoin": "region"}',
        'a dimension of partition_expr ({"day": …, "region": …}) must be day or region, not \'regoin\'; did you mean',
    ),
    (
        'partitions_def=GRID, partition_expr={"day": 1, "region": "r"}',
        "partition_expr['day'] must be a SQL expression, not 1",
    ),
    ("partitions_def=None", "partitions_def must be a partitions definition, such as dg.DailyPartitionsDefinition("),
    ('partitions_def="daily"', "partitions_def must be a partitions definition, such as dg.DailyPartitionsDefinition("),
    ("partitions_def=dg.DailyPartitionsDefinition", "partitions_def must be a partitions definition, such as"),
    # audits
    ("audits=sb.unique(), unique_key=['id']", "audits must be a list of audits, such as [sb.unique()], not Unique("),
    ("audits=None", "audits must be a list of audits, such as [sb.unique()], not None"),
    ('audits=["unique"]', "audits must be a list of audits, such as [sb.unique()], not 'unique'"),
    ("audits=[sb.unique]", "did you mean unique(…)?"),
    (
        'audits=[sb.not_null("a"), sb.not_null("a")]',
        "several audits are named not_null_a. Give each its own name=….",
    ),
    ("audits=[sb.unique()]", "unique() without columns needs a unique_key"),
    ('audits=[sb.unique(severity="WARN")], unique_key=["id"]', "unique() of the unique_key has severity ERROR"),
    # backfill_policy, io_manager_key
    ("backfill_policy=sb.single_run", "did you mean single_run()?"),
    (
        'backfill_policy="single_run"',
        "backfill_policy must be single_run(), batched(n) or per_partition(), not 'single_run';",
    ),
    ("backfill_policy=10", "did you mean batched(10)?"),
    ("backfill_policy=sb.batched", "did you mean batched(10)?"),
    ("backfill_policy=True", "backfill_policy must be single_run(), batched(n) or per_partition(), not True"),
    ('io_manager_key=""', "io_manager_key must be the key of a resource, such as \"io_manager\", not ''"),
    ("io_manager_key=None", 'io_manager_key must be the key of a resource, such as "io_manager", not None'),
    # @dg.asset's own
    ('key="a", name="b"', "give either key, or name and key_prefix, not both"),
    ('name=""', "name must be a text, not ''"),
    ("name=5", "name must be a text, not 5"),
    ("group_name=5", "group_name must be a text, not 5"),
    ("code_version=1", "code_version must be a text, not 1"),
    ('pool=""', "pool must be a text, not ''"),
    ('description=["x"]', "description must be a text, not ['x']"),
    ("key=5", 'key must be a text or a list of texts, such as ["nyc", "flights"], not 5'),
    ("key=[]", 'key must be a text or a list of texts, such as ["nyc", "flights"], not []'),
    ('key=["nyc", ""]', 'key must be a text or a list of texts, such as ["nyc", "flights"], not \'\''),
    ("key_prefix=5", 'key_prefix must be a text or a list of texts, such as ["nyc", "flights"], not 5'),
    ('key_prefix=dg.AssetKey("a")', "key_prefix must be a text or a list of texts"),
    (
        'automation_condition="eager"',
        "automation_condition must be a condition, such as dg.AutomationCondition.eager()",
    ),
    ("freshness_policy=1", "freshness_policy must be a policy, such as dg.FreshnessPolicy.cron(…), not 1"),
    ("retry_policy=3", "retry_policy must be a policy, such as dg.RetryPolicy(max_retries=2), not 3"),
    ('deps="raw"', "deps must be a list of assets or keys, such as [\"orders\"], not 'raw'"),
    ('kinds="duckdb"', "kinds must be a set of kinds, such as {\"duckdb\"}, not 'duckdb'"),
    ('owners="team:sales"', "owners must be a list of owners, such as [\"team:sales\"], not 'team:sales'"),
    ('ins=["raw"]', "ins must be a mapping of input names to dg.AssetIn, not ['raw']"),
    ('tags=["a"]', "tags must be a mapping of names to texts, not ['a']"),
    ('op_tags=["a"]', "op_tags must be a mapping of names to values, not ['a']"),
    ('metadata=["a"]', "metadata must be a mapping of names to values, not ['a']"),
    ("hooks=[1]", "hooks must be a set of hooks, not [1]"),
    (
        'required_resource_keys="api"',
        "required_resource_keys must be a set of resource keys, such as {\"api\"}, not 'api'",
    ),
    (
        'metadata={"on_empty": "allow"}',
        "metadata: on_empty is an option, not metadata; write table=TableOptions(on_empty=…)",
    ),
    ('metadata={"unique_key": "id"}', "metadata: unique_key is an option, not metadata; write unique_key=…"),
    ('metadata={"keep_latest": "seen"}', 'write table=TableOptions(on_duplicate=keep_latest("a_column"))'),
    # names that there are not, and those of earlier versions
    ('uniqe_key=["id"]', "there is no argument 'uniqe_key'; did you mean unique_key?"),
    ("batchs=10", "there is no argument 'batchs'; did you mean batches?"),
    ("limit=3", "there is no argument 'limit'; did you mean limits?"),
    ('descripton="x"', "there is no argument 'descripton'; did you mean description?"),
    ("max_retrys=3", "there is no argument 'max_retrys'; did you mean limits=Limits(max_retries=…)?"),
    ("zzz=1", "there is no argument 'zzz'"),
    ("check_specs=[]", "there is no argument 'check_specs': the asset's checks are its audits"),
    ("config_schema={}", "there is no argument 'config_schema': annotate a parameter"),
    ("batch_size=10", "there is no argument 'batch_size'; write batches=Batches(size=…), or batches=… alone"),
    ('publish_per="batch"', "there is no argument 'publish_per'; write batches=Batches(publish_each=True)"),
    ("canary=False", "write batches=Batches(canary=…)"),
    ("resume=False", "write batches=Batches(resume=…)"),
    ('on_conflict="overwrite"', "write publish=Merge(on_conflict=…) (or Replace, or Swap)"),
    ("archive_days=7", "write publish=Merge(archive_days=…) (or Replace, or Swap)"),
    ('on_schema_change="sync"', "write publish=Merge(on_schema_change=…) (or Replace, or Swap)"),
    ('column_defaults={"a": "0"}', "write publish=Merge(column_defaults=…) (or Replace, or Swap)"),
    ("allow_mixed_versions=True", "write publish=Merge(allow_mixed_versions=…) (or Replace, or Swap)"),
    ("timeout_seconds=600", "write limits=Limits(timeout_seconds=…)"),
    ("max_retries=5", "write limits=Limits(max_retries=…)"),
    ("retry_wait=5", "write limits=Limits(retry_wait=…)"),
    ('allowed_hours="22:00-06:00 UTC"', "write limits=Limits(allowed_hours=…)"),
    ("max_partitions_per_backfill=90", "write limits=Limits(max_partitions=…)"),
    ("partitioned_checks=True", "write checks=Checks(partitioned=…)"),
    ('sample_columns=["id"]', "write checks=Checks(sample_columns=…)"),
    ('schema="nyc"', "write table=TableOptions(schema=…)"),
    ('column_timezone="UTC"', "write table=TableOptions(column_timezone=…)"),
    ('updated_at_column="at"', "write table=TableOptions(updated_at_column=…)"),
    ('on_empty="allow"', "write table=TableOptions(on_empty=…)"),
    ('on_outside="drop"', "write table=TableOptions(on_outside=…)"),
    ('on_duplicate="raise"', "write table=TableOptions(on_duplicate=…)"),
]


def read(options: str) -> dict[str, Any]:
    """Return the keyword arguments that a row writes; a bad value is refused here already."""
    return eval(f"dict({options})", dict(EVAL))


@BOTH
@pytest.mark.parametrize(("options", "says"), BAD, ids=[options for options, _ in BAD])
def test_a_bad_option_is_refused_when_the_asset_is_defined(
    define: Callable[..., dg.AssetsDefinition], options: str, says: str
) -> None:
    with pytest.raises(sb.ConfigurationError) as caught:
        define(**read(options))
    assert says in str(caught.value)


GOOD = [
    *(f'unique_key=["id"], publish="{name}"' for name in ("merge", "replace", "swap")),
    'unique_key="id", publish=sb.Merge(on_conflict="overwrite", archive_days=0, allow_mixed_versions=True)',
    'publish=sb.Replace(on_schema_change="add_columns", column_defaults={"tax": "0.0"}, archive_days=0.5)',
    'publish=sb.Swap(on_schema_change="sync")',
    "batches=10",
    "batches=sb.Batches(size=10, canary=False, resume=False)",
    'limits=sb.Limits(timeout_seconds=0.5, max_retries=0, retry_wait=0, allowed_hours="22:00-06:00 Europe/Berlin")',
    "limits=sb.Limits(max_partitions=1)",
    'table=sb.TableOptions(schema="nyc", column_timezone="America/New_York", updated_at_column="at")',
    'unique_key=("id",), table=sb.TableOptions(on_empty="allow", on_duplicate=sb.keep_latest("seen"))',
    'table=sb.TableOptions(on_outside="drop")',
    'checks=sb.Checks(partitioned=True, sample_columns=["id"])',
    "checks=sb.Checks(partitioned=False, sample_columns=[])",
    'partitions_def=GRID, partition_expr={"region": "region", "day": "day"}',
    'audits=(sb.not_null("a"),)',
    "publish=None, batches=None, limits=None, table=None, checks=None, backfill_policy=None",
    'key=["nyc", "events"], metadata={"mine": 1, "schemas": 2}, tags={"a": "b"}, owners=["team:x"], kinds={"duckdb"}',
    'deps=["raw"], required_resource_keys={"api"}, hooks=set(), op_tags={"a": 1}, retry_policy=dg.RetryPolicy()',
    'name="e", key_prefix="p", group_name="g", description="d", code_version="1", pool="w", ins={}',
]


@BOTH
@pytest.mark.parametrize("options", GOOD)
def test_good_options_are_taken_and_kept(define: Callable[..., dg.AssetsDefinition], options: str) -> None:
    given = read(options)
    kept = options_of(define(**given))
    assert kept is not None
    for name in ("limits", "table", "checks"):
        if given.get(name) is not None:
            assert getattr(kept, name) == given[name]


def test_a_batch_can_not_go_live_by_itself_where_all_is_published_at_the_end() -> None:
    with pytest.raises(sb.ConfigurationError, match=r"publish_each=True is for @wap_asset"):
        staged(batches=sb.Batches(publish_each=True))


@pytest.mark.parametrize("size", [0, -1, True, 2.5, "10", None])
def test_a_policy_of_no_partitions_is_refused(size: Any) -> None:
    with pytest.raises(sb.ConfigurationError, match="partitions_per_run must be a whole number of partitions"):
        sb.batched(size)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"audits": ["unique"]}, "audits must be a list of audits"),
        ({"audits": []}, "needs at least one audit"),
        ({"last": True}, "last must be a whole number of partitions"),
        ({"sample_columns": "a,b"}, r'did you mean \["a", "b"\]\?'),
    ],
)
def test_a_bad_option_of_live_audits_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=says):
        sb.build_audit_checks(wap(), **{"audits": [sb.not_null("a")], **options})


@BOTH
def test_the_defaults(define: Callable[..., dg.AssetsDefinition]) -> None:
    assert options_of(define()) == AssetOptions(partition_expr={None: "day"})
    keyed = options_of(define(unique_key="id", publish=None, batches=7))
    assert keyed == AssetOptions(
        partition_expr={None: "day"},
        unique_key=("id",),
        audits=(sb.unique(),),
        publish=sb.Merge(),
        batches=sb.Batches(size=7),
    )


@BOTH
def test_the_options_stay_with_the_asset_whatever_is_done_to_it(define: Callable[..., dg.AssetsDefinition]) -> None:
    asset = define(table=sb.TableOptions(on_outside="drop"))
    kept = options_of(asset)
    assert kept is not None

    renamed = asset.with_attributes(
        asset_key_replacements={asset.key: dg.AssetKey(["p", *asset.key.path])},
        group_names_by_key={asset.key: "g"},
        metadata_by_key={asset.key: {}},
    )
    assert options_of(renamed) is kept

    with_resources = dg.with_resources([asset], {"io_manager": dg.mem_io_manager})[0]
    assert isinstance(with_resources, dg.AssetsDefinition)
    assert options_of(with_resources) is kept

    module = types.ModuleType("module")
    module.__dict__["asset"] = asset
    (loaded,) = dg.load_assets_from_modules([module], key_prefix="q")
    assert isinstance(loaded, dg.AssetsDefinition)
    assert loaded.key.path[0] == "q"
    assert options_of(loaded) is kept

    merged = dg.Definitions.merge(dg.Definitions(assets=[asset]), dg.Definitions(assets=[renamed]))
    for key in (asset.key, renamed.key):
        assert options_of(merged.resolve_assets_def(key)) is kept


def test_what_others_make_has_none() -> None:
    @dg.asset
    def plain() -> None: ...

    @dg.op
    def one() -> int:
        return 1

    @dg.graph_asset
    def graph() -> int:
        return one()

    assert options_of(plain) is None
    assert options_of(graph) is None
    assert options_of(dg.AssetsDefinition(specs=[dg.AssetSpec("external")])) is None


@BOTH
def test_metadata_tells_readers_and_people_and_is_no_other_way_in(define: Callable[..., dg.AssetsDefinition]) -> None:
    asset = define(
        unique_key=["id"],
        metadata={"mine": 1},
        table=sb.TableOptions(
            schema="nyc", column_timezone="UTC", updated_at_column="at", on_empty="allow", on_outside="drop"
        ),
        publish=sb.Merge(on_schema_change="add_columns"),
    )
    assert dict(asset.metadata_by_key[asset.key]) == {
        "mine": 1,
        "partition_expr": "day",
        "unique_key": ["id"],
        "updated_at_column": "at",
        "column_timezone": "UTC",
        "schema": "nyc",
    }


BAD_METADATA: list[tuple[dict[str, Any], str]] = [
    ({"on_emtpy": "allow"}, "metadata 'on_emtpy' is not an option of a table; did you mean 'on_empty'?"),
    ({"uniqe_key": ["id"]}, "did you mean 'unique_key'?"),
    ({"partition_exp": "day"}, "did you mean 'partition_expr'?"),
    ({"on_duplicate": "raise"}, "did you mean 'keep_latest'?"),
    ({"on_empty": "alow"}, 'on_empty must be "refuse" or "allow", not \'alow\'; did you mean "allow"?'),
    ({"on_outside": True}, 'on_outside must be "refuse" or "drop", not True'),
    ({"on_schema_change": "add"}, 'on_schema_change must be "raise" or "add_columns"'),
    ({"column_timezone": "Mars/One"}, "column_timezone: there is no time zone 'Mars/One'"),
    ({"unique_key": 5}, "unique_key must be a column name or a list of column names, not 5"),
    ({"unique_key": ["id", "id"]}, "unique_key names id twice"),
    ({"partition_expr": 5}, "partition_expr must be a SQL expression, or a mapping of dimensions to one each, not 5"),
    (
        {"partition_expr": " "},
        "partition_expr must be a SQL expression, or a mapping of dimensions to one each, not ' '",
    ),
    ({"column_defaults": {"a": "0"}}, "column_defaults are for columns that are added"),
    ({"keep_latest": "seen"}, "keep_latest (on_duplicate) needs a unique_key"),
    ({"unique_key": ["id"], "updated_at_column": "id"}, "updated_at_column 'id' can't be part of unique_key"),
    ({"schema": ""}, "schema must be the name of a schema, not ''"),
]


@pytest.mark.parametrize(("metadata", "says"), BAD_METADATA, ids=[says for _, says in BAD_METADATA])
def test_a_slip_in_the_metadata_of_a_plain_asset(
    metadata: dict[str, Any], says: str, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day", **metadata})
    def events() -> pd.DataFrame:
        return pd.DataFrame({"day": pd.to_datetime(["2024-01-01"]), "id": [1]})

    # The jobs and checks of an asset see it when they are defined, its I/O manager when it writes.
    with pytest.raises(sb.ConfigurationError) as caught:
        sb.build_audit_checks(events, [sb.not_null("id")])
    assert says in str(caught.value)
    result = run_key([events], "2024-01-01", io_manager=io_manager, instance=instance)
    assert says in failure_of(result, "events")
