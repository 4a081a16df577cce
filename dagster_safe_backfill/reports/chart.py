"""Charts for the UI. They need pygal, an optional extra, which is loaded when the first chart is drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

# The size fits the dialog in which the UI shows metadata.
WIDTH, HEIGHT = 900, 340
MOST_POINTS = 400
"""The maximum number of points of a line. The size of an SVG grows with them, so more partitions are grouped."""

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
    """Return an SVG of the row counts of shadow and live table by partition, with `blocked` and `warned` ones marked.

    If there are more than `MOST_POINTS` partitions, a point is the mean of several neighbours, and it is marked if any
    of them is.

    Raises:
        ImportError: pygal is not installed.
    """
    groups = _groups(len(keys))
    most = max(map(len, groups))
    colours: list[str] = []
    tops = [0.0] * len(groups)
    chart, style_of = _chart(show_dots=len(keys) <= _DOTS_UP_TO)
    chart.title = f"{title}: rows by partition" + (f" (means of up to {most})" if most > 1 else "")
    labels: list[str] = []
    for group in groups:
        labels.append(keys[group[0]])
    chart.x_labels = labels
    for name, side, colour, width in (("live now", live, _GREY, 3), ("shadow (staged)", shadow, _BLUE, 1.5)):
        if side is not None:
            means: list[float] = []
            for group in groups:
                means.append(sum(side[group.start : group.stop]) / len(group))
            tops = [*map(max, tops, means)]
            chart.add(name, means, stroke_style={"width": width})
            colours.append(colour)
    for verdict, colour in _MARKS.items():
        count = verdicts.count(verdict)
        if count:
            places = _marked(verdicts, verdict, groups, tops)
            legend = f"{verdict}: {count:,} of {len(keys):,}"
            chart.add(legend, places, stroke=False, show_dots=True, dots_size=5)
            colours.append(colour)
    chart.style = style_of(colors=tuple(colours))
    return chart.render()


def _groups(count: int) -> list[range]:
    """Return the positions below `count` in at most `MOST_POINTS` groups of neighbours; sizes differ by at most 1."""
    points = min(count, MOST_POINTS)
    groups: list[range] = []
    for i in range(points):
        groups.append(range(count * i // points, count * (i + 1) // points))
    return groups


def _marked(
    verdicts: Sequence[str], verdict: str, groups: Sequence[range], tops: Sequence[float]
) -> list[float | None]:
    """Return the height at which each group with a partition of this verdict is marked; None for other groups."""
    marked = [verdict in verdicts[group.start : group.stop] for group in groups]
    return [top if is_marked else None for top, is_marked in zip(tops, marked, strict=True)]


def _chart(*, show_dots: bool) -> tuple[Any, Callable[..., Any]]:
    """Return a chart without data, and its style, which still takes the colours of the lines."""
    import pygal  # pyright: ignore[reportMissingTypeStubs]

    # pygal 3.1.3 installs an import finder for its map plug-ins that has no find_spec, so Python would warn at every
    # later import.
    for finder in tuple(sys.meta_path):
        if isinstance(finder, pygal.PluginImportFixer):
            sys.meta_path.remove(finder)
    line: Any = pygal.Line(
        width=WIDTH,
        height=HEIGHT,
        explicit_size=True,
        # An SVG in an <img> runs no scripts. By default, pygal links one on kozea.github.io.
        js=(),
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
    package: Any = pygal
    return line, partial(
        package.style.Style,
        background="white",
        plot_background="white",
        foreground="#4a5560",
        foreground_strong="#1f2933",
        foreground_subtle="#d5dae0",
        guide_stroke_color="#e8ebee",
        major_guide_stroke_color="#e8ebee",
        guide_stroke_dasharray="0",
        major_guide_stroke_dasharray="0",
        title_font_size=15,
        label_font_size=11,
        major_label_font_size=11,
        legend_font_size=12,
        font_family="sans-serif",
    )
