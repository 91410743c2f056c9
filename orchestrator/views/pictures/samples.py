"""The pictures that `penstock predict` and `penstock problems show` draw.

Axes:  N samples, * the shape of a geometry: *grid of a grid, P points of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any, BinaryIO

import numpy as np

from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.orchestrator.views.numbers import digits

MAX_ROWS, MAX_LINES = 8, 12  # samples, and lines of panels that they take together
PER_LINE = 6  # panels side by side; those of a sample beyond them go below
DPI = 120
MAX_ARROWS = 400
ARROWS = {"units": "inches", "width": 0.01}  # as thin in wide panels as in others
TEXT_WIDTH, TEXT_LINES = 42, 3  # of the scalars under a panel, in characters
MAX_ASPECT = 10  # of a domain that is drawn to scale
WIDE = 2.5  # aspect from which on a domain gets two panels' width, with its colour bar below
WIDTH, HEIGHT = 3.2, 2.9  # of a panel, at most, in inches
BAR_BESIDE, BAR_BELOW, TITLE, TEXT_LINE = 0.7, 0.5, 0.35, 0.16  # what they take of that
TICKS = 8  # size of their labels
POINT_AREA = 2e4  # of all points of a cloud together, in square points of print


@dataclass(frozen=True)
class Panel:
    """A field of one sample, as it is drawn."""

    title: str
    values: np.ndarray
    """[*] or [components, *]."""
    spec: FieldSpec
    style: dict[str, Any]
    """Arguments for matplotlib: a colour map, limits."""
    has_bar: bool = True
    """Whether it has a colour bar beside it."""


def draw_comparison(
    path: Path | BinaryIO,
    arrays: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    layout: Layout,
    names: Sequence[str],
) -> None:
    """Draw a PNG with one row per sample.

    At most MAX_ROWS are drawn, fewer where they take several lines each, spread from the first to the last, as by
    `compared`.

    Args:
        path: the file, or an open one.
        arrays: as for `compared`.
        predictions: likewise.
        errors: likewise.
        layout: likewise.
        names: likewise.
    """
    most = max(1, min(MAX_ROWS, MAX_LINES // len(_lines(_compared_groups(layout)))))
    rows = np.linspace(0, len(names) - 1, min(len(names), most)).round().astype(int)  # of a trajectory its end, too
    compared(partial(_save_png, path), arrays, predictions, errors, layout, names, rows)


def compared(
    save: Callable[[Any], None],
    arrays: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    layout: Layout,
    names: Sequence[str],
    rows: Sequence[int],
) -> None:
    """Draw some samples beside their predictions, a row for each.

    A row shows the input fields, and of every output field the truth, the prediction and the absolute error. Fields on
    an interval are drawn as a line per component, those on grids of three axes as the middle slice along the last.
    Vectors are drawn by their length, with arrows. Domains keep their proportions up to 10 : 1.

    Args:
        save: is given the figure.
        arrays: arrays by quantity, [N, *] or [N, components, *] for fields, [N] for scalars, and what samples bring
            along of their geometries.
        predictions: predictions by output, as `arrays`.
        errors: relative L2 errors by output, [N].
        layout: layout of the samples, of which an output is a field.
        names: what each sample is called beside its row, N of them.
        rows: the samples to draw.
    """

    def panels(row: int) -> list[Panel]:
        inputs = _panels(_fields(layout.inputs), arrays, row, {"cmap": "cividis"})
        return [*inputs, *(panel for output in _fields(layout.outputs) for panel in of_output(output, row))]

    def of_output(output: FieldSpec, row: int) -> list[Panel]:
        truth, predicted = arrays[output.name][row], predictions[output.name][row]
        error = predicted - truth
        where = shown(output.on, arrays, row)
        sizes = [length_of(values, output)[..., where] for values in (truth, predicted)]
        limits = {"vmin": min(map(np.min, sizes)), "vmax": max(map(np.max, sizes))}
        return [
            Panel(f"{output.name} [{output.unit}], solver", truth, output, limits),
            Panel(f"{output.name}, surrogate", predicted, output, limits),
            Panel(
                f"{output.name}, absolute error: {digits(100 * errors[output.name][row])} % in L2",
                error if output.components > 1 and output.on.dimension > 1 else np.abs(error),  # the length is drawn
                FieldSpec(name="error", on=output.on, components=output.components),
                {"cmap": "magma"},
            ),
        ]

    _draw(save, arrays, rows, panels, _compared_groups(layout), _scalars(layout.inputs), [names[row] for row in rows])


def draw_samples(
    path: Path, arrays: Mapping[str, np.ndarray], rows: Sequence[int], layout: Layout, names: Sequence[str] = ()
) -> None:
    """Draw a PNG with one row for each of some samples.

    A row shows all fields, inputs first, and the scalars as text. Fields are drawn as by `compared`.

    Args:
        path: the file.
        arrays: arrays by quantity, as for `compared`.
        rows: the samples to draw.
        layout: layout of the samples, which have a field.
        names: what each of them is called beside its row; none are where absent.
    """

    def panels(row: int) -> list[Panel]:
        inputs = _panels(_fields(layout.inputs), arrays, row, {"cmap": "cividis"})
        return [*inputs, *_panels(_fields(layout.outputs), arrays, row, {})]

    groups = [[spec.on for spec in _fields(specs)] for specs in (layout.inputs, layout.outputs)]
    _draw(partial(_save_png, path), arrays, rows, panels, groups, _scalars((*layout.inputs, *layout.outputs)), names)


def names_of(simulations: np.ndarray, steps: np.ndarray, layout: Layout) -> list[str]:
    """What samples are called beside their rows.

    Where a state leads to the next, steps count states from the first on, as in pictures of rollouts.

    Args:
        simulations: the simulation of each sample, int64 [N].
        steps: its step, int64 [N].
        layout: layout of the samples.
    """
    has_steps, word = len(set(steps.tolist())) > 1, "from step" if layout.feeds else "step"
    rows = zip(simulations, steps, strict=True)
    return [f"simulation {simulation}" + f", {word} {step}" * has_steps for simulation, step in rows]


def _save_png(path: Path | BinaryIO, figure: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(path)  # `savefig` would draw it twice, once for nothing


def _draw(
    save: Callable[[Any], None],
    arrays: Mapping[str, np.ndarray],
    rows: Sequence[int],
    panels: Callable[[int], list[Panel]],
    groups: Sequence[Sequence[Geometry]],
    scalars: Sequence[FieldSpec],
    names: Sequence[str] = (),
) -> None:
    """Draw samples, each on as many lines as its panels take.

    `groups` are the geometries of a sample's panels, one after another; `names` those of the rows.
    """
    lines = _lines(groups)
    texts = [_text_below(scalars, arrays, row) for row in rows]
    heights = [
        max((_height(geometry, "" if number else text) for geometry in line if geometry.dimension > 1), default=HEIGHT)
        for text in texts
        for number, line in enumerate(lines)
    ]
    # in the middle of a panel that is as wide as its place, a text would stick out of the picture
    is_narrow = lines[0][0].dimension > 1 and _aspect(lines[0][0]) < 1
    unit = min(_span(geometry) for line in lines for geometry in line)  # wide panels alone need no columns between
    num_columns = max(sum(map(_span, line)) for line in lines) // unit
    with figures((unit * WIDTH * num_columns, sum(heights))) as figure:
        grid = figure.add_gridspec(len(heights), num_columns, height_ratios=heights)
        axes: list[list[Any]] = [[] for _ in rows]
        for number, line in enumerate(lines * len(rows)):
            ends = np.cumsum([_span(geometry) // unit for geometry in line])
            for start, end in pairwise([0, *ends]):
                axes[number // len(lines)].append(figure.add_subplot(grid[number, start:end]))
        for number, (row, of_row) in enumerate(zip(rows, axes, strict=True)):
            for axis, panel in zip(of_row, panels(row), strict=True):
                DRAWN[type(panel.spec.on)](figure, axis, panel, panel.spec.on, arrays, row)
                axis.set_title(panel.title, fontsize=9)
                axis.tick_params(labelsize=TICKS)
            of_row[0].set_xlabel(texts[number], fontsize=8, loc="center" if is_narrow else "left")
            if len(names):
                of_row[0].set_ylabel(names[number].replace(", ", "\n"), fontsize=9)
        save(figure)


def _lines(groups: Sequence[Sequence[Geometry]]) -> list[list[Geometry]]:
    """The panels of each line; a group stays together where a line has room for it."""
    lines: list[list[Geometry]] = [[]]
    for group in groups:
        for part in [group] if sum(map(_span, group)) <= PER_LINE else [[geometry] for geometry in group]:
            if lines[-1] and sum(map(_span, (*lines[-1], *part))) > PER_LINE:
                lines.append([])
            lines[-1] += part
    return lines


def _compared_groups(layout: Layout) -> list[list[Geometry]]:
    return [[spec.on for spec in _fields(layout.inputs)], *([spec.on] * 3 for spec in _fields(layout.outputs))]


def _text_below(scalars: Sequence[FieldSpec], arrays: Mapping[str, np.ndarray], row: int) -> str:
    text = ", ".join(_scalar_text(spec, arrays[spec.name][row]) for spec in scalars)
    return fill(text, TEXT_WIDTH, max_lines=TEXT_LINES, placeholder=" ...")


def _height(geometry: Geometry, text: str) -> float:
    """The height of a panel with the text below it, in inches."""
    text_height = TEXT_LINE * len(text.splitlines())
    if _is_wide(geometry):
        return TITLE + height_of(geometry, 2 * WIDTH) + BAR_BELOW + text_height
    return min(HEIGHT, TITLE + height_of(geometry, WIDTH - BAR_BESIDE) + text_height)


def height_of(geometry: Geometry, width: float) -> float:
    """The height of a domain in this width, at most as much; that of lines, too."""
    is_flat = geometry.dimension > 1 and 1 <= _aspect(geometry) <= MAX_ASPECT
    return width / _aspect(geometry) if is_flat else width


def _span(geometry: Geometry) -> int:
    """The width of a panel, in those of most."""
    return 2 if _is_wide(geometry) else 1


@contextmanager
def figures(size: tuple[float, float]) -> Iterator[Any]:
    """Give a new figure without a window, and close it.

    Args:
        size: width and height in inches.

    Yields:
        The figure.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=size, layout="constrained")
    try:
        yield figure
    finally:
        plt.close(figure)


def _aspect(geometry: Geometry) -> float:
    """Width over height of a domain of at least two dimensions."""
    width, height = np.ptp(geometry.box[:, :2], axis=0)
    return width / height


def _is_wide(geometry: Geometry) -> bool:
    return geometry.dimension > 1 and WIDE <= _aspect(geometry) <= MAX_ASPECT


def _fields(specs: Sequence[FieldSpec]) -> list[FieldSpec]:
    return [spec for spec in specs if spec.on is not None]


def _scalars(specs: Sequence[FieldSpec]) -> list[FieldSpec]:
    return [spec for spec in specs if spec.on is None]


def _panels(
    specs: Sequence[FieldSpec], arrays: Mapping[str, np.ndarray], row: int, style: dict[str, Any]
) -> list[Panel]:
    return [Panel(f"{spec.name} [{spec.unit}]", arrays[spec.name][row], spec, style) for spec in specs]


def _scalar_text(spec: FieldSpec, value: np.ndarray) -> str:
    numbers = " ".join(f"{number:.4g}" for number in np.atleast_1d(value))
    return f"{spec.name} = {numbers}" + (f" {spec.unit}" if spec.unit != "1" else "")


def length_of(values: np.ndarray, spec: FieldSpec) -> np.ndarray:
    """Return values [*] as they are, vectors [components, *] as their lengths [*]."""
    return np.linalg.norm(values, axis=0) if spec.components > 1 else values


def shown(geometry: Geometry, arrays: Mapping[str, np.ndarray], row: int) -> slice | np.ndarray:
    """Return the index of the places where a field has values.

    Args:
        geometry: geometry of the field.
        arrays: what samples bring along of their geometries.
        row: the sample.

    Returns:
        An index for the last axes of the field's array.
    """
    name = geometry.named("weights")
    return arrays[name][row] > 0 if name in geometry.travelling else slice(None)


def _draw_grid(figure, axis, panel: Panel, grid: Grid, arrays: Mapping[str, np.ndarray], row: int) -> Any:
    vectors = panel.values
    if grid.is_masked:
        vectors = np.where(shown(grid, arrays, row), vectors, np.nan)
    if grid.dimension == 1:
        return _draw_lines(axis, *grid.axes(), vectors)
    values = length_of(vectors, panel.spec)
    while values.ndim > 2:
        middle = values.shape[-1] // 2
        values, vectors = values[..., middle], vectors[..., middle]
    # a pixel around each value, [x, y] with y upwards
    (left, right), (bottom, top) = (_pixel_edges(coordinates) for coordinates in grid.axes()[:2])
    image = axis.imshow(values.T, origin="lower", extent=(left, right, bottom, top), **panel.style)
    if panel.spec.components == grid.dimension == 2:
        step = max(1, int(np.sqrt(values.size / MAX_ARROWS)))
        x, y = (coordinates[::step] for coordinates in grid.axes())
        axis.quiver(x, y, *(component[::step, ::step].T for component in vectors), color="white", **ARROWS)
    return _finish(figure, axis, image, panel)


def _draw_lines(axis, x: np.ndarray, values: np.ndarray) -> None:
    """A line per component."""
    lines = axis.plot(x, values.T)
    if len(lines) > 1:
        axis.legend(lines, range(1, len(lines) + 1), fontsize=8)


def _pixel_edges(coordinates: np.ndarray) -> tuple[float, float]:
    half = np.ptp(coordinates) / max(1, len(coordinates) - 1) / 2
    return coordinates[0] - half, coordinates[-1] + half


def _draw_mesh(figure, axis, panel: Panel, mesh: Mesh, arrays: Mapping[str, np.ndarray], row: int) -> Any:
    points, cells = mesh.arrays.points, mesh.arrays.cells
    if mesh.dimension != 2:
        return _draw_cloud(figure, axis, panel, points, panel.values)
    image = axis.tripcolor(*points.T, cells, length_of(panel.values, panel.spec), shading="gouraud", **panel.style)
    _draw_arrows(axis, panel, points, panel.values, "white")
    return _finish(figure, axis, image, panel)


def _draw_points(figure, axis, panel: Panel, geometry: Points, arrays: Mapping[str, np.ndarray], row: int) -> Any:
    is_there = shown(geometry, arrays, row)
    points = arrays[geometry.named("points")][row][is_there]
    return _draw_cloud(figure, axis, panel, points, panel.values[..., is_there])


def _draw_cloud(figure, axis, panel: Panel, points: np.ndarray, values: np.ndarray) -> Any:
    """One dot per point, seen along the last axis in 3D; lines in 1D."""
    if points.shape[1] == 1:
        order = np.argsort(points[:, 0])
        return _draw_lines(axis, points[order, 0], values[..., order])
    lengths = length_of(values, panel.spec)
    image = axis.scatter(*points[:, :2].T, c=lengths, s=POINT_AREA / len(points), linewidths=0, **panel.style)
    _draw_arrows(axis, panel, points, values, "black")
    return _finish(figure, axis, image, panel)


def _draw_arrows(axis, panel: Panel, points: np.ndarray, values: np.ndarray, color: str) -> None:
    if not panel.spec.components == points.shape[1] == 2:
        return
    places = np.flatnonzero(values.any(axis=0))  # where many vectors are 0, the others would be drawn too long
    if len(places):
        places = places[:: max(1, len(places) // MAX_ARROWS)]
        axis.quiver(*points[places].T, *values[:, places], color=color, **ARROWS)


def _finish(figure, axis, image, panel: Panel) -> Any:
    geometry = panel.spec.on
    axis.set_aspect("equal" if 1 / MAX_ASPECT <= _aspect(geometry) <= MAX_ASPECT else "auto")
    axis.set_xticks([])
    axis.set_yticks([])
    if panel.has_bar:
        below = {"location": "bottom", "aspect": 40} if _is_wide(geometry) else {}
        figure.colorbar(image, ax=axis, shrink=0.8, **below).ax.tick_params(labelsize=TICKS)
    return image


DRAWN: dict[type[Geometry], Callable] = {Grid: _draw_grid, Mesh: _draw_mesh, Points: _draw_points}
"""What draws a panel: from figure, axis, panel, geometry, arrays and row to the coloured image, or None for lines."""
