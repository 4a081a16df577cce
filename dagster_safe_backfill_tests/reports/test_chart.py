"""The picture of a run: what stands in it, and its size."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from dagster_safe_backfill.reports.chart import MOST_POINTS, rows_by_partition

SVG = "{http://www.w3.org/2000/svg}"
FIRST = dt.date(2000, 1, 1)


def texts_of(svg: bytes) -> set[str]:
    return {element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def marks_of(svg: bytes) -> list[str]:
    """Return the keys of the marked partitions: theirs are the big dots."""
    found: list[str] = []
    for dot in ElementTree.fromstring(svg).iterfind(f".//{SVG}g[@class='dots']"):
        circle, label = dot.find(f"{SVG}circle"), dot.find(f"{SVG}desc[@class='x_label']")
        assert circle is not None
        assert label is not None
        if circle.get("r") == "5":
            found.append(label.text or "")
    return found


def days(count: int) -> list[str]:
    return [str(FIRST + dt.timedelta(days=i)) for i in range(count)]


def drawn(keys: list[str], **changed: object) -> bytes:
    count = len(keys)
    verdicts = ["passed"] * count
    arguments = {"shadow": [9] * count, "live": [8] * count, "verdicts": verdicts, "title": "nyc.flights", **changed}
    return rows_by_partition(keys, **arguments)  # type: ignore[arg-type]


def test_sides_and_verdicts_are_named_and_marked() -> None:
    svg = drawn(days(4), verdicts=["passed", "blocked", "warned", "blocked"])
    assert {
        "nyc.flights: rows by partition",
        "live now",
        "shadow (staged)",
        "warned: 1 of 4",
        "blocked: 2 of 4",
    } <= texts_of(svg)
    assert marks_of(svg) == ["2000-01-03", "2000-01-02", "2000-01-04"]


def test_what_did_not_occur_is_not_in_the_legend() -> None:
    shown = texts_of(drawn(days(3), live=None))
    assert "shadow (staged)" in shown
    assert not {text for text in shown if text.startswith(("live", "warned", "blocked"))}


@pytest.mark.parametrize("count", [MOST_POINTS, MOST_POINTS + 1, 2_406, 10_000])
def test_a_picture_is_small_and_hides_no_failure(count: int) -> None:
    verdicts = ["passed"] * count
    verdicts[0] = verdicts[count // 2] = verdicts[-1] = "blocked"
    svg = drawn(days(count), verdicts=verdicts)
    assert len(svg) < 60_000
    assert f"blocked: 3 of {count:,}" in texts_of(svg)
    marks = marks_of(svg)
    assert len(marks) == 3
    most = -(-count // MOST_POINTS)
    for place, mark in zip([0, count // 2, count - 1], marks, strict=True):
        assert 0 <= place - (dt.date.fromisoformat(mark) - FIRST).days < most
    assert (f"nyc.flights: rows by partition (means of up to {most})" in texts_of(svg)) == (count > MOST_POINTS)


@pytest.mark.parametrize("keys", [["cost$_per_$unit", "b"], ["日本", "$\\frac{"], ["<a>", "&amp;"], ["", "\u202e"]])
def test_keys_are_shown_as_they_are(keys: list[str]) -> None:
    assert {*keys, "a$b$<i>: rows by partition"} <= texts_of(drawn(keys, title="a$b$<i>"))


def test_nothing_staged_and_nothing_live_is_drawn() -> None:
    assert "0" in texts_of(drawn(days(2), shadow=[0, 0], live=[0, 0]))


def test_it_is_an_image_without_scripts_of_others() -> None:
    scripts = [*ElementTree.fromstring(drawn(days(2))).iter(f"{SVG}script")]
    assert all(script.get("href") is None for script in scripts)
    assert b"xlink:href" not in drawn(days(2))


def test_the_library_loads_only_when_a_picture_is_drawn() -> None:
    script = "import json, sys, dagster_safe_backfill; print(json.dumps('pygal' in sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) is False


def test_the_library_leaves_the_imports_of_others_alone() -> None:
    draw = "rows_by_partition(['a'], shadow=[1], live=None, verdicts=['passed'], title='t')"
    script = f"from dagster_safe_backfill.reports.chart import rows_by_partition; {draw}"
    script += "; import warnings; warnings.simplefilter('error'); import xml.dom.pulldom"
    subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
