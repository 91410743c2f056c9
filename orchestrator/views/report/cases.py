"""Errors of single samples: pictures of some, and their dependence on parameters."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from penstock.errors import PenstockError
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.pictures.samples import compared
from penstock.orchestrator.views.report.charts import LINES, chart, framed, logarithmic, style, svg
from penstock.orchestrator.views.report.html import absent, charts, paragraph, scrollable
from penstock.orchestrator.views.report.past import Past
from penstock.orchestrator.views.report.trial import Trial, try_out

MOST_PARAMETERS = 6  # that are drawn
MOST_BYTES = 3_000_000  # of the pictures, if they are not too many for the lowest of these resolutions
RASTER_DPIS = (120, 60, 30)
BINS = 6  # of a parameter, with a median each


def cases(past: Past) -> str:
    """The best, the median and the worst sample of the validation set."""
    try:
        trial = try_out(past.folder)
    except PenstockError as error:
        return absent(f"No pictures yet: {error}.")
    if all(spec.on is None for spec in trial.layout.outputs):
        return _of_scalars(trial)
    order = np.argsort(trial.errors)
    rows = [order[0], order[len(order) // 2], order[-1]]
    names = list(trial.names)
    for kind, row in zip(("best", "median", "worst"), rows, strict=True):
        names[row] = f"{kind}: {names[row]}"
    drawn: list[str] = []

    def save(figure: Figure) -> None:
        for axis in figure.axes:
            for artist in (*axis.collections, *axis.images):  # as paths, a mesh would take megabytes
                artist.set_rasterized(True)
        width = f"min-width: {72 * figure.get_figwidth():.0f}px"  # its letters would be too small on a phone
        for dpi in RASTER_DPIS:
            if len(picture := svg(figure, "cases", dpi)) < MOST_BYTES:
                break
        drawn.append(picture.replace("<svg", f'<svg style="{width}"', 1))

    with style():
        compared(save, trial.named, trial.predicted, trial.errors_by_output, trial.layout, names, rows)
    sizes = ", ".join(
        f"{kind} {digits(trial.errors[row])}" for kind, row in zip(("best", "median", "worst"), rows, strict=True)
    )
    caption = (
        f"The best, the median and the worst of {len(trial.errors)} samples of the validation set, by the relative L2 "
        f"error of the surrogate of step {trial.step}: {sizes}."
    )
    return scrollable(framed(drawn[0], "Cases.", caption), "Pictures of the best, median and worst case", "cases")


def parameters(past: Past) -> str:
    """Errors against the parameters of the samples."""
    try:
        trial = try_out(past.folder)
    except PenstockError as error:
        return absent(f"Nothing to show yet: {error}.")
    if not trial.parameters:
        return absent("The problem names no parameters.")
    by_strength = sorted(
        trial.parameters, key=lambda name: -abs(_rank_correlation(trial.parameters[name], trial.errors))
    )
    drawn = [
        chart(
            f"parameters-{number}",
            f"{name}.",
            f"Rank correlation with the error: {_rank_correlation(trial.parameters[name], trial.errors):.2f}.",
            partial(_scatter, name=name, values=trial.parameters[name], errors=trial.errors),
        )
        for number, name in enumerate(by_strength[:MOST_PARAMETERS])
    ]
    more = len(by_strength) - len(drawn)
    text = (
        f"Relative L2 errors of {len(trial.errors)} samples of the validation set, by the surrogate of step "
        f"{trial.step}; the line joins medians. Quantiles are uniform over draws."
        + (f" {more} more parameters, which matter less, are not drawn." if more else "")
    )
    return paragraph(text) + charts(drawn)


def _scatter(axis: Axes, *, name: str, values: np.ndarray, errors: np.ndarray) -> None:
    axis.plot(values, errors, "o", ms=4, alpha=0.75, color=LINES[0], mew=0)
    chunks = np.array_split(np.argsort(values), min(BINS, max(1, len(values) // 3)))
    medians = [(np.median(values[chunk]), np.median(errors[chunk])) for chunk in chunks]
    axis.plot(*zip(*medians, strict=True), color=LINES[1])
    if errors.min() > 0:
        logarithmic(axis)
    axis.set_xlabel(name)
    axis.set_ylabel("relative L2 error [-]")


def _rank_correlation(values: np.ndarray, errors: np.ndarray) -> float:
    """Spearman's, without a correction for ties; 0 where nothing can be correlated."""
    if len(values) < 3 or not np.ptp(values):
        return 0.0
    ranks = [np.argsort(np.argsort(each)) for each in (values, errors)]
    return float(np.corrcoef(*ranks)[0, 1])


def _of_scalars(trial: Trial) -> str:
    """Predictions against the truth, where outputs are numbers."""
    outputs = [spec for spec in trial.layout.outputs if trial.named[spec.name].ndim == 1]

    def draw(axis: Axes, name: str, unit: str) -> None:
        true = trial.named[name]
        axis.plot([true.min(), true.max()], [true.min(), true.max()], color=LINES[1], lw=1)
        axis.plot(true, trial.predicted[name], "o", ms=4, alpha=0.75, color=LINES[0], mew=0)
        axis.set_xlabel(f"{name} [{unit}], solver")
        axis.set_ylabel("surrogate")

    drawn = [
        chart(
            f"cases-{number}",
            f"{spec.name}.",
            f"Prediction against the solver's value, for {len(trial.errors)} samples of the validation set.",
            partial(draw, name=spec.name, unit=spec.unit),
        )
        for number, spec in enumerate(outputs[:MOST_PARAMETERS])
    ]
    return charts(drawn) if drawn else absent("The outputs are vectors of numbers, of which there is no picture.")
