"""The picture that `penstock predict` draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penstock.layout import Layout
from penstock.orchestrator.views.numbers import digits

MAX_ROWS = 8


def draw_comparison(
    path: Path,
    inputs: dict[str, np.ndarray],
    truth: np.ndarray,
    prediction: np.ndarray,
    errors: np.ndarray,
    layout: Layout,
) -> None:
    """A PNG with a row a sample: input fields, truth, prediction, absolute error.

    inputs: [N, X, Y] or [N] by name. truth, prediction: [N, X, Y], the first output. errors: [N], relative L2. Fields
    of a grid of one axis are drawn as a line, of more than two as the middle slice of what lies beyond the second.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    output = layout.outputs[0]
    fields = [spec for spec in layout.inputs if spec.shape]
    scalars = [spec for spec in layout.inputs if not spec.shape]
    num_rows = min(len(truth), MAX_ROWS)
    figure, axes = plt.subplots(
        num_rows,
        len(fields) + 3,
        figsize=(3.2 * (len(fields) + 3), 2.9 * num_rows),
        squeeze=False,
        layout="constrained",
    )
    for row in range(num_rows):
        error = np.abs(prediction[row] - truth[row])
        limits = {
            "vmin": min(truth[row].min(), prediction[row].min()),
            "vmax": max(truth[row].max(), prediction[row].max()),
        }
        panels = [(f"{spec.name} [{spec.unit}]", inputs[spec.name][row], {"cmap": "cividis"}) for spec in fields]
        panels += [
            (f"{output.name} [{output.unit}], solver", truth[row], limits),
            ("surrogate", prediction[row], limits),
            (f"absolute error, {digits(100 * errors[row])} % in L2", error, {"cmap": "magma"}),
        ]
        for axis, (title, values, style) in zip(axes[row], panels, strict=True):
            _draw_field(figure, axis, values, style)
            axis.set_title(title, fontsize=9)
        if scalars:
            text = ", ".join(f"{spec.name} = {inputs[spec.name][row]:.4g} {spec.unit}" for spec in scalars)
            axes[row][0].set_xlabel(text, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_field(figure, axis, values: np.ndarray, style: dict) -> None:
    if values.ndim == 1:
        axis.plot(values)
        return
    while values.ndim > 2:
        values = values[..., values.shape[-1] // 2]
    image = axis.imshow(values.T, origin="lower", **style)  # [x, y] with y upwards
    axis.set_xticks([])
    axis.set_yticks([])
    figure.colorbar(image, ax=axis, shrink=0.8)
