from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_safe_backfill.model.plans import EXPECTED_TAG, Expected

_KEYS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=20)


@given(
    st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3), st.dictionaries(st.text(max_size=6), _KEYS)
)
def test_what_a_plan_expects_survives_its_tag(codes: dict[str, str], live: dict[str, dict[str, str]]) -> None:
    expected = Expected.parse({"other": "tag", **Expected.of(codes, live).tags}) or Expected(frozenset())
    for asset, code in codes.items():
        assert expected.knows_code(asset)
        assert expected.is_code(asset, code)
        assert not expected.is_code(asset, code + "!")
    for asset, fingerprints in live.items():
        assert expected.knows_live(asset)
        assert expected.changed(asset, fingerprints) == []
        assert expected.changed(asset, {key: text + "!" for key, text in fingerprints.items()}) == [*fingerprints]
    assert not expected.knows_live("an asset of no plan")


@pytest.mark.parametrize("text", ["ä", "abc", "AAAA", "AAAAAAAAA"])
def test_a_tag_that_no_plan_wrote(text: str) -> None:
    with pytest.raises(ValueError, match="safe_backfill_plan"):
        Expected.parse({f"{EXPECTED_TAG}_1": text})


def test_no_plan() -> None:
    assert Expected.parse({"dagster/backfill": "abc"}) is None


def test_no_tag_is_too_long_for_postgresql() -> None:
    """Its index takes 2,704 bytes of key and value together (dagster-io/dagster#7875)."""
    expected = Expected.of({"a": "1"}, {"a": {str(day): "3:duckdb:f00" for day in range(2_406)}})
    assert all(len(key) + len(value) < 2_600 for key, value in expected.tags.items())
    assert Expected.parse(expected.tags) == expected
    assert sum(map(len, expected.tags.values())) == 8 * (2_406 + 3)
