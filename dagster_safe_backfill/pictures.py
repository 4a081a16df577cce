"""Pictures for the UI. Importing this loads matplotlib, so it is imported when one is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib import rc_context  # pyright: ignore[reportUnknownVariableType]: untyped in its own package
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter

_SIZE_INCHES, _DPI = (9.0, 3.4), 100
_BARS_UP_TO = 60
_COLOURS = {"live": "#9aa5b1", "shadow": "#2f6fdf", "blocked": "#d1293d", "warned": "#e8a200"}


@rc_context({"text.parse_math": False})  # A $ in a key is no formula.
def rows_by_partition(
    keys: Sequence[str],
    *,
    shadow: Sequence[int],
    live: Sequence[int] | None,
    verdicts: Sequence[str],
    title: str,
) -> bytes:
    """Return a PNG of both sides' rows by partition, with the partitions marked that are `blocked` or `warned`.

    Its size in bytes depends little on the number of partitions, as it has a fixed number of pixels.
    """

    def key_at(place: float, _: int | None = None) -> str:
        return keys[round(place)] if 0 <= round(place) < len(keys) else ""

    # Partly untyped in its own package.
    figure: Any = Figure(figsize=_SIZE_INCHES, dpi=_DPI)
    figure.subplots_adjust(left=0.08, right=0.99, top=0.9, bottom=0.2)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(keys))
    is_bars = len(keys) <= _BARS_UP_TO
    if is_bars and live is not None:
        axes.bar([i - 0.2 for i in places], live, width=0.4, color=_COLOURS["live"], label="live now")
        axes.bar([i + 0.2 for i in places], shadow, width=0.4, color=_COLOURS["shadow"], label="shadow (staged)")
    elif is_bars:
        axes.bar(places, shadow, width=0.6, color=_COLOURS["shadow"], label="shadow (staged)")
    else:
        if live is not None:
            axes.plot(places, live, color=_COLOURS["live"], linewidth=2.5, label="live now")
        axes.plot(places, shadow, color=_COLOURS["shadow"], linewidth=1, label="shadow (staged)")
    top = max(1, *shadow, *(live or []))
    for verdict in ("warned", "blocked"):
        marked = [i for i in places if verdicts[i] == verdict]
        if marked:
            axes.plot(
                marked,
                [max(shadow[i], live[i] if live else 0) + 0.06 * top for i in marked],
                linestyle="none",
                marker="v",
                markersize=8 if is_bars else 5,
                color=_COLOURS[verdict],
                label=f"{verdict}: {len(marked):,} of {len(keys):,}",
            )
    axes.set_ylim(0, 1.18 * top)
    axes.set_xlim(-0.7, len(keys) - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(key_at))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("rows")
    axes.set_title(f"{title}: rows by partition")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False)
    buffer = BytesIO()
    with warnings.catch_warnings():
        # Of letters that the font lacks: they are drawn as boxes.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
