"""Boxes, arrows and panels for the pictures of docs/models: a card of white, measured in inches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

matplotlib.use("Agg")

DPI = 130
SIZE, SMALL = 9.5, 8.5  # of letters, in points
INK, FAINT = "#1f2933", "#9aa5b1"
WARM, COOL = "#c2410c", "#1d4ed8"  # what is marked
FILLS = {"learned": "#fde8c8", "fixed": "#e5eaf0"}  # of boxes
GAP = 0.06  # between an arrow and what it joins, in inches
BESIDE = {True: {"va": "bottom"}, False: {"va": "center", "ha": "left"}}  # of text at a level arrow, or another
DOWN_THEN_ACROSS = {"connectionstyle": "angle,angleA=90,angleB=0"}  # styles of arrows with a corner
ACROSS_THEN_UP = {"connectionstyle": "angle,angleA=0,angleB=90"}


@dataclass(frozen=True)
class Place:
    """A rectangle on a card: its lower left corner and its sizes, in inches."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    def edge(self, other: Place) -> tuple[float, float]:
        """Where an arrow to or from another place begins: in the middle of the side that faces it."""
        (x, y), (other_x, other_y) = self.centre, other.centre
        beside = max(self.x - other.x - other.width, other.x - self.x - self.width)
        above = max(self.y - other.y - other.height, other.y - self.y - self.height)
        if beside >= above:
            return x + np.sign(other_x - x) * (self.width / 2 + GAP), y
        return x, y + np.sign(other_y - y) * (self.height / 2 + GAP)


class Card:
    """A picture that is put together from places.

    Args:
        width: in inches.
        height: in inches.
    """

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = plt.figure(figsize=(width, height), facecolor="white")
        self.sketch = self.figure.add_axes((0, 0, 1, 1), zorder=5)
        self.sketch.set(xlim=(0, width), ylim=(0, height))
        self.sketch.set_axis_off()
        self.sketch.patch.set_alpha(0)

    def panel(self, place: Place, title: str = "", *, below: str = "", frame: bool = True) -> Axes:
        """Return axes without ticks.

        Args:
            place: where.
            title: what stands above.
            below: what stands below.
            frame: whether there is a line around.
        """
        x, y, width, height = place.x, place.y, place.width, place.height
        axes = self.figure.add_axes(
            (x / self.width, y / self.height, width / self.width, height / self.height), zorder=2
        )
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=frame, color=FAINT, linewidth=0.8)
        self.text(place.centre[0], y + height + 0.1, title)
        self.text(place.centre[0], y - 0.2, below, size=SMALL)
        return axes

    def field(self, place: Place, values: np.ndarray, title: str = "", *, below: str = "", **style) -> Axes:
        """Return a panel with values on a grid.

        Args:
            place: where.
            values: [X, Y]; the first axis goes to the right.
            title: what stands above.
            below: what stands below.
            **style: arguments of matplotlib's imshow.
        """
        axes = self.panel(place, title, below=below)
        style = {"cmap": "viridis", "interpolation": "nearest", "aspect": "auto"} | style
        axes.imshow(values.T, origin="lower", extent=(0, 1, 0, 1), **style)
        return axes

    def mesh(
        self, place: Place, mesh: Mesh2, values: np.ndarray | None = None, title: str = "", *, below: str = "", **style
    ) -> Axes:
        """Return a panel with a mesh of triangles, and values at its points.

        Args:
            place: where.
            mesh: the mesh, within the unit square.
            values: [P]; None for the edges alone.
            title: what stands above.
            below: what stands below.
            **style: arguments of matplotlib's tripcolor or triplot.
        """
        axes = self.panel(place, title, below=below, frame=False)
        triangles = (*mesh.points.T, mesh.cells)
        if values is None:
            axes.triplot(*triangles, **{"color": FAINT, "linewidth": 0.5} | style)
        else:
            axes.tripcolor(*triangles, values, **{"shading": "gouraud", "cmap": "viridis"} | style)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        return axes

    def box(self, place: Place, text: str, kind: str = "learned") -> Place:
        """Draw a box with text in it; return its place.

        Args:
            place: where.
            text: what stands in it.
            kind: a key of FILLS.
        """
        shape = FancyBboxPatch(
            (place.x, place.y),
            place.width,
            place.height,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=FILLS[kind],
            edgecolor=INK,
            linewidth=0.9,
        )
        self.sketch.add_patch(shape)
        self.text(*place.centre, text, va="center")
        return place

    def arrow(self, start: Place, end: Place, text: str = "", *, bend: float = 0, **style) -> None:
        """Draw an arrow from the side of one place to that of another.

        Args:
            start: the place it leaves.
            end: the place it reaches.
            text: what stands at its middle, above or to the right.
            bend: how much it is bent to the right, as a part of its length.
            **style: arguments of matplotlib's FancyArrowPatch.
        """
        a, b = start.edge(end), end.edge(start)
        self.line(a, b, bend=bend, **style)
        if text:
            x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
            level = abs(a[0] - b[0]) >= abs(a[1] - b[1])
            self.text(*((x, y + 0.06) if level else (x + 0.08, y)), text, **BESIDE[level], size=SMALL)

    def line(self, a: tuple[float, float], b: tuple[float, float], *, bend: float = 0, **style) -> None:
        """Draw an arrow from one spot to another; bend and style are those of `arrow`."""
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": INK, "linewidth": 1.2} | style
        style = {"connectionstyle": f"arc3,rad={bend}", "shrinkA": 0, "shrinkB": 0} | style
        self.sketch.add_patch(FancyArrowPatch(a, b, **style))

    def text(self, x: float, y: float, text: str, *, ha: str = "center", size: float = SIZE, color: str = INK, **style):
        """Write text at a spot."""
        self.sketch.text(x, y, text, ha=ha, fontsize=size, color=color, linespacing=1.25, **style)

    def save(self, path: Path) -> None:
        """Write a PNG."""
        self.figure.savefig(path, dpi=DPI)
        plt.close(self.figure)


@dataclass(frozen=True)
class Mesh2:
    """A mesh of triangles."""

    points: np.ndarray
    """[P, 2]."""
    cells: np.ndarray
    """[T, 3]."""


def row(y: float, sizes: Sequence[tuple[float, float]], x: float, gap: float) -> list[Place]:
    """Places in a row, their middles at one height.

    Args:
        y: that height.
        sizes: width and height of each.
        x: where the first begins.
        gap: between two of them.
    """
    places = []
    for width, height in sizes:
        places.append(Place(x, y - height / 2, width, height))
        x += width + gap
    return places
