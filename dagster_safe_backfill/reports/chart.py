"""Pictures for the UI. Importing this loads pygal, so it is imported when one is drawn."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pygal import Config, Line, PluginImportFixer  # pyright: ignore[reportMissingTypeStubs]: untyped, as are its parts
from pygal.style import Style  # pyright: ignore[reportMissingTypeStubs]

# pygal's finder of map plug-ins is of a kind that Python gave up, and warns of at every later import, whoever's.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, PluginImportFixer)]

WIDTH, HEIGHT = 900, 340
MOST_POINTS = 400
"""More partitions than this are drawn as groups of neighbours: an SVG grows with its points."""

_DOTS_UP_TO = 60
_GREY, _BLUE, _AMBER, _RED = "#9aa5b1", "#2f6fdf", "#e8a200", "#d1293d"
_MARKS = {"warned": _AMBER, "blocked": _RED}


def rows_by_partition(
    keys: Sequence[str],
    *,
    shadow: Sequence[int],
    live: Sequence[int] | None,
    verdicts: Sequence[str],
    title: str,
) -> bytes:
    """Return an SVG of both sides' rows by partition, with the partitions marked that are `blocked` or `warned`.

    Beyond `MOST_POINTS` partitions a point is the mean of some neighbours, and is marked if one of them is.
    """
    groups = _groups(len(keys))
    most = max(len(group) for group in groups)
    lines = {"live now": live, "shadow (staged)": shadow}
    drawn = {name: [_mean(side, group) for group in groups] for name, side in lines.items() if side is not None}
    tops = [max(values) for values in zip(*drawn.values(), strict=True)]
    marked = {
        verdict: [any(verdicts[i] == verdict for i in group) for group in groups]
        for verdict in _MARKS
        if verdict in verdicts
    }
    # Untyped in its own package.
    chart: Any = Line(_config(show_dots=len(keys) <= _DOTS_UP_TO), style=_style([*drawn], [*marked]))
    chart.title = f"{title}: rows by partition" + (f" (means of up to {most})" if most > 1 else "")
    chart.x_labels = [keys[group[0]] for group in groups]
    for name, values in drawn.items():
        chart.add(name, values, stroke_style={"width": 3 if name == "live now" else 1.5})
    for verdict, is_marked in marked.items():
        places = [top if is_one else None for top, is_one in zip(tops, is_marked, strict=True)]
        legend = f"{verdict}: {verdicts.count(verdict):,} of {len(keys):,}"
        chart.add(legend, places, stroke=False, show_dots=True, dots_size=5)
    return chart.render()


def _groups(count: int) -> list[range]:
    """Return the places 0 to `count` in at most `MOST_POINTS` runs of neighbours, whose sizes differ by at most one."""
    points = min(count, MOST_POINTS)
    return [range(count * i // points, count * (i + 1) // points) for i in range(points)]


def _mean(side: Sequence[int], group: range) -> float:
    return sum(side[i] for i in group) / len(group)


def _config(*, show_dots: bool) -> Any:
    return Config(
        width=WIDTH,
        height=HEIGHT,
        explicit_size=True,
        js=(),  # An image runs no scripts, and none is fetched.
        include_x_axis=True,
        show_dots=show_dots,
        dots_size=2.5,
        show_minor_x_labels=False,
        x_labels_major_count=8,
        truncate_label=18,
        truncate_legend=-1,
        legend_at_bottom=True,
        legend_at_bottom_columns=4,
        legend_box_size=10,
        margin=12,
        value_formatter="{:,.0f}".format,
        max_scale=7,
    )


def _style(lines: Sequence[str], marks: Sequence[str]) -> Any:
    colours = {"live now": _GREY, "shadow (staged)": _BLUE, **_MARKS}
    return Style(
        background="white",
        plot_background="white",
        foreground="#4a5560",
        foreground_strong="#1f2933",
        foreground_subtle="#d5dae0",
        guide_stroke_color="#e8ebee",
        major_guide_stroke_color="#e8ebee",
        guide_stroke_dasharray="0",
        major_guide_stroke_dasharray="0",
        colors=tuple(colours[name] for name in [*lines, *marks]),
        title_font_size=15,
        label_font_size=11,
        major_label_font_size=11,
        legend_font_size=12,
        font_family="sans-serif",
    )
