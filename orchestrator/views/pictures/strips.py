"""Trajectories as strips of frames, and as animations.

Axes:  F frames, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from penstock.layout import FieldSpec, Layout
from penstock.learner.rollout.trajectories import Trajectories
from penstock.orchestrator.views.pictures.samples import (
    BAR_BESIDE,
    DRAWN,
    TICKS,
    TITLE,
    WIDTH,
    Panel,
    figures,
    height_of,
    length_of,
    shown,
)

MAX_COLUMNS, MAX_FIELDS, MAX_FRAMES = 8, 3, 60
FRAMES_PER_SECOND = 8
BAR_WIDTH = 0.9  # in inches, for the colour bars at the end of the rows
TITLES, LEAST_HEIGHT = 0.4, 0.9  # in inches, of a picture's titles, and of a row for what is written beside it
FAR, SMALLEST = 10.0, float(np.finfo(np.float32).tiny)
SMALL = 0.65  # a strip's panels, in those of other pictures


@dataclass(frozen=True)
class Course:
    """The frames of one simulation, true and predicted."""

    name: str
    """What it is called beside its frames."""
    steps: Sequence[int]
    """Time of each of the F frames, in steps from the state that is given; where none is, numbers of samples."""
    fields: Sequence[FieldSpec]
    """The fields to draw, MAX_FIELDS at most."""
    true: Mapping[str, np.ndarray]
    """[F, *] or [F, components, *] by field; the first frame is missing of one that is not given."""
    predicted: Mapping[str, np.ndarray]
    """Likewise."""
    geometry: Mapping[str, np.ndarray]
    """What the simulation brings along of its geometries, with a first axis of 1."""

    @classmethod
    def of(cls, rolled: Trajectories, number: int, layout: Layout, rows: Mapping[str, np.ndarray]) -> Course:
        """Return the frames of one of several simulations.

        Args:
            rolled: the simulations.
            number: which of them.
            layout: layout of the problem's samples, with a field among its outputs.
            rows: arrays of the rows that they were rolled out along, [N, C, *] by name.

        Returns:
            The frames.
        """
        first = rolled.first_rows[number]
        fields = [spec for spec in layout.outputs if spec.on is not None][:MAX_FIELDS]
        brought = [block.by_name(rows[block.name][first : first + 1]) for block in layout.geometry_blocks]
        given = {spec.name: [rolled.given[spec.name][number]] for spec in fields if spec.name in rolled.given}
        true, predicted = (
            {spec.name: np.stack([*given.get(spec.name, ()), *of[spec.name][number]]) for spec in fields}
            for of in (rolled.true, rolled.predicted)
        )
        return cls(
            name=f"simulation {rolled.simulations[number]}",
            steps=[0, *rolled.steps] if given else [step - 1 for step in rolled.steps],
            fields=fields,
            true=true,
            predicted=predicted,
            geometry={name: values for arrays in brought for name, values in arrays.items()},
        )


def draw_strip(path: Path, course: Course) -> None:
    """Draw a PNG with a column for each of some frames.

    They are spread from the first to the last. For every field there are a row of the truth, one of the prediction and
    one of the absolute error, each in the same colours at all times.

    Args:
        path: the file.
        course: the frames.
    """
    numbers = _spread(len(course.steps), MAX_COLUMNS)
    rows = _rows(course)
    width = SMALL * WIDTH
    heights = [max(LEAST_HEIGHT, height_of(panels[-1].spec.on, width)) for _, panels in rows]
    with figures((width * len(numbers) + BAR_WIDTH, sum(heights) + TITLES)) as figure:
        figure.set_layout_engine("compressed")  # else panels that keep their proportions leave labels no room
        axes = figure.subplots(len(rows), len(numbers), squeeze=False, height_ratios=heights)
        for number, column in zip(numbers, axes.T, strict=True):
            column[0].set_title(f"step {course.steps[number]}", fontsize=9)
        for of_row, (label, panels) in zip(axes, rows, strict=True):
            _draw_row(figure, of_row, [panels[number] for number in numbers], label, course)
        figure.suptitle(course.name, fontsize=9)
        figure.savefig(path, dpi=120, format="png")


def animate(path: Path, course: Course) -> None:
    """Write a GIF: truth, prediction and absolute error of every field side by side.

    At most MAX_FRAMES frames are in it, spread from the first to the last.

    Args:
        path: the file.
        course: the frames.
    """
    from matplotlib.animation import PillowWriter

    rows, writer = _rows(course), PillowWriter(fps=FRAMES_PER_SECOND)
    heights = [TITLE + height_of(spec.on, WIDTH - BAR_BESIDE) for spec in course.fields]
    with figures((3 * WIDTH, sum(heights) + TITLE)) as figure, writer.saving(figure, str(path), dpi=80):
        for number in _spread(len(course.steps), MAX_FRAMES):
            figure.clear()
            axes = figure.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
            for axis, (label, panels) in zip(axes.flat, rows, strict=True):
                _draw_row(figure, [axis], [panels[number]], "", course)
                axis.set_title(label.replace("\n", ", "), fontsize=9)
            figure.suptitle(f"{course.name}, step {course.steps[number]}", fontsize=9)
            writer.grab_frame()


def _rows(course: Course) -> list[tuple[str, list[Panel | None]]]:
    """For each row its label, and the panels of all frames with the same limits.

    There is None for a frame that is missing.
    """
    return [row for spec in course.fields for row in _of_field(course, spec)]


def _of_field(course: Course, spec: FieldSpec) -> Iterator[tuple[str, list[Panel | None]]]:
    where, true = shown(spec.on, course.geometry, 0), course.true[spec.name]
    lowest, highest = _limits(true, spec, where)
    # a rollout may blow up: it is drawn in the colours of the truth, far beyond them
    largest = FAR * max(abs(lowest), abs(highest), SMALLEST)
    predicted = np.nan_to_num(course.predicted[spec.name], nan=largest).clip(-largest, largest)
    errors = predicted - true
    if spec.components == 1:
        errors = np.abs(errors)  # of vectors the length is drawn
    error = replace(spec, name="error")
    least_error, largest_error = _limits(errors, error, where)
    most = max(highest - lowest, SMALLEST)
    colours = {"vmin": lowest, "vmax": max(highest, lowest + SMALLEST)}
    of_errors = {"vmin": max(min(0.0, least_error), -most), "vmax": max(SMALLEST, min(largest_error, most))}
    for label, of, values, style in (
        (f"{spec.name} [{spec.unit}]\nsolver", spec, true, colours),
        ("surrogate", spec, predicted, colours),
        ("absolute error", error, errors, {**of_errors, "cmap": "magma"}),
    ):
        missing = [None] * (len(course.steps) - len(values))
        yield label, [*missing, *(Panel("", each, of, style, has_bar=False) for each in values)]


def _limits(values: np.ndarray, spec: FieldSpec, where: slice | np.ndarray) -> tuple[float, float]:
    """The least and the largest value that is drawn.

    Of vectors lengths are drawn, on an interval components.
    """
    is_lines = spec.on.dimension == 1
    visible = np.stack([each if is_lines else length_of(each, spec) for each in values])[..., where]
    return float(visible.min()), float(visible.max())


def _draw_row(figure, axes: Sequence, panels: Sequence[Panel | None], label: str, course: Course) -> None:
    image = None
    for axis, panel in zip(axes, panels, strict=True):
        if panel is None:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            continue
        image = DRAWN[type(panel.spec.on)](figure, axis, panel, panel.spec.on, course.geometry, 0)
        if image is None:  # lines, which have no colours
            room = 0.05 * (panel.style["vmax"] - panel.style["vmin"])
            axis.set_ylim(panel.style["vmin"] - room, panel.style["vmax"] + room)
            axis.tick_params(labelsize=TICKS)
            if axis is not axes[0]:
                axis.set_yticklabels([])
    if image is not None:
        figure.colorbar(image, ax=list(axes), shrink=0.9).ax.tick_params(labelsize=TICKS)
    axes[0].set_ylabel(label, fontsize=9)


def _spread(num: int, most: int) -> np.ndarray:
    return np.linspace(0, num - 1, min(num, most)).round().astype(int)
