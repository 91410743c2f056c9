"""Charts as SVG for a page that may be dark or light.

Colours and fonts are the page's: what matplotlib draws in a stand-in colour gets a variable of the page's style.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from threading import Lock
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

INK, FAINT, PAPER = "#010203", "#010204", "#010205"
LINES = ("#010301", "#010302", "#010303", "#010304", "#010305", "#010306")
VARIABLES = {INK: "ink", FAINT: "faint", PAPER: "paper"} | {color: f"line{n}" for n, color in enumerate(LINES)}
"""The variable of the page's style in place of each stand-in."""
SIZE = (5.0, 3.1)  # of a chart, in inches: as wide as a phone's page, so that its letters are as large as the text's
MOST_POINTS = 500  # of a line
RASTER_DPI = 120  # of what is rasterized
TIMES = r"\times"
POWER = re.compile(r"\$\\mathdefault\{([\d.]+\\times)?10\^\{(-?\d+)\}\}\$")  # as matplotlib writes it
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "penstock",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
    "xtick.color": INK,
    "ytick.color": INK,
}
_LOCK = Lock()  # matplotlib's settings are those of the process


@contextmanager
def style() -> Iterator[None]:
    """Within the block, figures are made in stand-in colours, by one thread at a time."""
    with _LOCK, matplotlib.rc_context(_RC):
        yield


def chart(key: str, title: str, caption: str, draw: Callable[[Axes], Any], *, size: tuple[float, float] = SIZE) -> str:
    """A chart as a `<figure>`.

    Args:
        key: a name that no other chart of the page has.
        title: its title.
        caption: what it shows, also for screen readers.
        draw: draws on axes.
        size: width and height in inches.

    Returns:
        HTML.
    """
    with style():
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        drawn = svg(figure, key)
    return framed(drawn, title, caption)


def framed(drawn: str, title: str, caption: str) -> str:
    """A picture as a `<figure>` with its title and caption."""
    return (
        f'<figure><div role="img" aria-label="{escape(f"{title}: {caption}")}">{drawn}</div>'
        f"<figcaption><strong>{escape(title)}</strong> {escape(caption)}</figcaption></figure>"
    )


def svg(figure: Figure, key: str, dpi: float = RASTER_DPI) -> str:
    """A figure as an `<svg>` for the middle of a page.

    Args:
        figure: the figure, made within `style`.
        key: a name that no other figure of the page has; its ids begin with it.
        dpi: dots per inch of what is rasterized.

    Returns:
        The element.
    """
    buffer = io.StringIO()
    figure.set_dpi(dpi)
    # `savefig` would draw the figure twice, which takes half as long again.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1 focusable='false' aria-hidden='true'", text, count=1
    )
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'((?:href="|url\()#)', rf"\g<1>{key}-", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"font: (?:\w+ )*([\d.]+px) [^;\"]*", r"font-size: \1", text)
    return re.sub(r"#0[0-9a-f]{5}", lambda found: _variable(found[0]), text)


def _variable(color: str) -> str:
    return f"var(--{VARIABLES[color]})" if color in VARIABLES else color


def thinned(num: int, most: int = MOST_POINTS) -> np.ndarray:
    """Indices of at most `most` of some points, evenly spaced from first to last."""
    return np.unique(np.linspace(0, num - 1, min(num, most)).round().astype(int)) if num else np.arange(0)


def duration_axis(axis: Axes, seconds: np.ndarray, what: str = "time of the run") -> np.ndarray:
    """Label the x axis with a time.

    Args:
        axis: the axes.
        seconds: the times.
        what: which time it is.

    Returns:
        The times in the unit of the axis.
    """
    longest = float(np.max(seconds, initial=0.0))
    name, unit = next(
        each for each in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if longest >= 3 * each[1] or each[1] == 1
    )
    axis.set_xlabel(f"{what} [{name}]")
    axis.xaxis.set_major_locator(MaxNLocator(6))
    if len(seconds) > 1 and longest > np.min(seconds):
        axis.set_xlim(np.min(seconds) / unit, longest / unit)
    return seconds / unit


def stacked(axis: Axes, x: np.ndarray, parts: Sequence[tuple[str, np.ndarray]]) -> None:
    """Draw stacked areas, the first at the bottom.

    Args:
        axis: the axes.
        x: the abscissa, [R].
        parts: names and heights [R].
    """
    names, heights = zip(*parts, strict=True)
    axis.stackplot(x, *heights, labels=names, colors=LINES, linewidth=0, alpha=0.85)
    axis.margins(x=0)
    legend(axis, len(parts))


def logarithmic(axis: Axes) -> None:
    """Make the y axis logarithmic."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_Powers())
    axis.yaxis.set_minor_formatter(_Powers(labelOnlyBase=False))


class _Powers(LogFormatterSciNotation):
    """Powers of ten as plain text.

    In TeX's notation, which it parses, they take matplotlib 0.1 s of a core per axis.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        text = super().__call__(x, pos)
        if (found := POWER.fullmatch(text)) is None:
            return text
        return f"{(found[1] or '').replace(TIMES, '×')}10{found[2].translate(SUPERSCRIPTS)}"


def legend(axis: Axes, num: int) -> None:
    """A legend above the axes, where it covers nothing."""
    axis.figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=min(num, 3), borderpad=0)


def whole_numbers(axis: Axes) -> None:
    """Ticks of the x axis at whole numbers, few enough for a narrow chart."""
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(lambda value, _: short(value))


def short(value: float) -> str:
    """A count in a few letters, such as 20k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
