"""Assets that were renamed: the table, its history, archives and shadows are those of the old key."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import DAYS, failure_of, run_key
from dagster_safe_backfill_tests.wap.test_owner import FIRST, SECOND, THIRD, House, house, refusal

__all__ = ["house"]

pytestmark = pytest.mark.every_warehouse

OLD, NEW = ("raw", "sales"), ("clean", "revenue")
RENAMED: Any = sb.TableOptions(renamed_from="raw/sales")


def test_the_renamed_asset_goes_on_in_the_table_and_the_old_one_is_refused(house: House) -> None:
    old, new = house.made.wap(*OLD), house.made.wap(*NEW, table=RENAMED)
    assert house.run(old, FIRST, SECOND).success
    # As long as only the old asset has written the table, it may go on.
    assert house.run(old, SECOND).success
    assert house.run(new, SECOND, THIRD).success
    expected = [(FIRST, "raw/sales"), (SECOND, "clean/revenue"), (THIRD, "clean/revenue")]
    assert house.live() == expected
    assert "the table of the asset clean/revenue" in refusal(house.run(old))
    assert house.live() == expected
    assert house.green("clean/revenue") == {SECOND, THIRD}
    assert house.backend.read("SELECT count(*) FROM information_schema.tables WHERE lower(table_name) = 'revenue'") == [
        (0,)
    ]


@pytest.mark.parametrize("was", ["wap", "plain"])
@pytest.mark.parametrize("now", ["wap", "plain"])
def test_the_kind_of_asset_may_change_with_the_name(house: House, was: str, now: str) -> None:
    old: dg.AssetsDefinition = getattr(house.made, was)(*OLD)
    assert house.run(old, FIRST, SECOND).success
    new = house.made.wap(*NEW, table=RENAMED) if now == "wap" else house.made.plain(*NEW, renamed_from="raw/sales")
    assert house.run(new, SECOND).success
    assert house.live() == [(FIRST, "raw/sales"), (SECOND, "clean/revenue")]
    refusal(house.run(old))
    assert house.run(new, FIRST).success
    assert [who for _day, who in house.live()] == ["clean/revenue"] * 2


def test_publications_of_the_old_key_are_rolled_back(house: House) -> None:
    old, new = house.made.wap(*OLD), house.made.wap(*NEW, table=RENAMED)
    first = house.run(old, FIRST)
    assert house.run(old, SECOND).success
    job = sb.build_rollback_job(new)
    assert house.job(job).success
    assert house.live() == [(FIRST, "raw/sales")]
    assert house.job(job, {"publication_id": first.run_id}).success
    assert house.live() == []
    # By the rollback, the table belongs to the new asset.
    refusal(house.run(old))


def test_archives_and_shadows_of_the_old_key_are_dropped(house: House) -> None:
    options: dict[str, Any] = {"publish": sb.Replace(archive_days=0.0000001)}
    old = house.made.wap(*OLD, **options)
    for _again in range(2):
        assert house.run(old).success
    assert house.run(house.made.staged(*OLD)[0], SECOND).success
    kept = (
        "SELECT count(*) FROM information_schema.tables"
        " WHERE lower(table_name) LIKE 'sales\\_\\_%' ESCAPE '\\' AND lower(table_name) <> 'sales__lock'"
    )
    assert house.backend.read(kept) == [(2,)]
    new = house.made.wap(*NEW, table=RENAMED)
    assert house.job(sb.build_retention_schedule([new], shadow_days=0).job).success
    assert house.backend.read(kept) == [(0,)]
    assert house.live() == [(FIRST, "raw/sales")]


def test_an_asset_that_was_renamed_twice(house: House) -> None:
    assert house.run(house.made.wap(*OLD), FIRST).success
    assert house.run(house.made.wap("sales2", table=RENAMED), SECOND).success
    new = house.made.wap(*NEW, table=sb.TableOptions(renamed_from=["raw/sales", "sales2"]))
    assert house.run(new, THIRD).success
    assert house.live() == [(FIRST, "raw/sales"), (SECOND, "sales2"), (THIRD, "clean/revenue")]
    refusal(house.run(house.made.wap("sales2", table=RENAMED), SECOND))


def test_two_assets_that_are_both_renamed_from_one(house: House) -> None:
    assert house.run(house.made.wap(*OLD), FIRST).success
    assert house.run(house.made.wap(*NEW, table=RENAMED), SECOND).success
    refusal(house.run(house.made.wap("other", "revenue", table=RENAMED), SECOND))
    assert house.live() == [(FIRST, "raw/sales"), (SECOND, "clean/revenue")]


@pytest.mark.parametrize("kind", ["wap", "plain", "staged"])
def test_downstream_assets_load_the_table(house: House, kind: str) -> None:
    assert house.run(house.made.wap(*OLD), FIRST, SECOND).success
    new: Any = {
        "wap": lambda: [house.made.wap(*NEW, table=RENAMED)],
        "plain": lambda: [house.made.plain(*NEW, renamed_from=["raw/sales"])],
        "staged": lambda: house.made.staged(*NEW, table=RENAMED)[2:],
    }[kind]()
    loaded: list[Any] = []

    @dg.asset(partitions_def=DAYS, ins={"revenue": dg.AssetIn(key=NEW)})
    def report(revenue: pd.DataFrame) -> None:
        loaded.append(revenue)

    (upstream,) = new
    metadata = upstream.metadata_by_key[upstream.key]
    source: Any = dg.SourceAsset(upstream.key, partitions_def=DAYS, metadata=metadata)
    result = run_key([report, source], SECOND, io_manager=house.io_manager, instance=house.instance)
    assert result.success, failure_of(result, "report")
    assert [list(frame["who"]) for frame in loaded] == [["raw/sales"]]


def test_what_was_staged_under_the_old_key_is_published(house: House) -> None:
    old, new = house.made.staged(*OLD), house.made.staged(*NEW, table=RENAMED)
    assert house.run(old[0], FIRST, SECOND).success
    assert house.run(new[1], None).success
    assert house.run(new[2], FIRST, SECOND).success
    assert house.live() == [(FIRST, "raw/sales"), (SECOND, "raw/sales")]
    assert house.green("clean/revenue") == {FIRST, SECOND}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("clean/revenue", "clean/revenue: renamed_from names the asset's own key"),
        (["raw/sales", "clean/revenue"], "renamed_from names the asset's own key"),
        (1, 'renamed_from must be the key of an asset, such as "raw/orders", or a list of keys, not 1'),
        ("raw//sales", "not 'raw//sales'"),
        ("", "not ''"),
        (["raw/sales", " "], "not ' '"),
        (["raw/sales", "raw/sales"], "renamed_from names a key twice"),
        (dg.AssetKey(["raw", "sales"]), "the key of an asset"),
    ],
)
@pytest.mark.only("duckdb", reason="of definitions")
def test_a_wrong_key_is_refused_where_the_asset_is_defined(house: House, given: Any, message: str) -> None:
    for make in (house.made.wap, house.made.staged):
        with pytest.raises(sb.ConfigurationError) as caught:
            make(*NEW, table=sb.TableOptions(renamed_from=given))
        assert message in str(caught.value)
    if not isinstance(given, dg.AssetKey):
        result = house.run(house.made.plain(*NEW, renamed_from=given or " "))
        assert "renamed_from" in failure_of(result, "clean__revenue")


def test_it_is_an_option_of_the_table(house: House) -> None:
    with pytest.raises(sb.ConfigurationError, match=r"write table=TableOptions\(renamed_from=…\)"):
        house.made.wap(*NEW, renamed_from="raw/sales")
