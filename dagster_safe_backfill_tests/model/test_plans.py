from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_safe_backfill.model.plans import Expected

_KEYS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=20)


@given(
    st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3), st.dictionaries(st.text(max_size=6), _KEYS)
)
def test_what_a_plan_expects_survives_its_tag(codes: dict[str, str], live: dict[str, dict[str, str]]) -> None:
    expected = Expected.parse(str(Expected.of(codes, live)))
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
        Expected.parse(text)


def test_the_tag_of_a_year_of_days_is_short() -> None:
    text = str(Expected.of({"a": "1"}, {"a": {str(day): "3:duckdb:f00" for day in range(365)}}))
    assert len(text) == 8 * (365 + 3)
