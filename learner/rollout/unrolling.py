"""Training on inputs with errors such as a rollout makes.

Axes:  n applications before the one that is trained, B rows, C channels, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.normalization import Normalization, along
from penstock.learner.rollout.feedback import Arrays, Feedback


class Unrolling:
    """Makes the inputs of a training step those of a rollout.

    A surrogate of a step that has seen only exact states makes errors that are outside of what it was trained on, and
    rollouts go astray. Two remedies give it inexact ones, and leave the targets exact:

    - *Pushforward*: the surrogate's own predictions, without a gradient through them (Brandstetter, Worrall and
      Welling, ICLR 2022, arXiv 2202.03376, section 3.1). The number of applications before the one that is trained is
      drawn from 0 to n for each part of a batch, all equally likely, so that the exact states are trained too.
    - *Noise*: independent normal noise on the first states (Sanchez-Gonzalez et al., ICML 2020, arXiv 2002.09405).

    Random numbers are torch's own, whose state is in the checkpoints.

    Args:
        layout: layout of batches.
        pushforward: n. Good values: 1 to 4; a step takes up to n more forward passes.
        noise: standard deviation of the noise, in multiples of the inputs' own. Good values: 1e-4 to 0.05, about the
            error of an application.

    Raises:
        ValueError: no input is fed, or an option is below 0.
    """

    def __init__(self, layout: Layout, *, pushforward: int = 0, noise: float = 0.0):
        if pushforward < 0 or not noise >= 0:
            raise ValueError(f"pushforward = {pushforward} and noise = {noise} must be at least 0")
        self.num_unrolled = 1 + pushforward
        """Number of rows of a batch that belong together, each where the one before ends."""
        self.noise = noise
        self._feedback = Feedback(layout)
        if not self._feedback.fed:
            raise ValueError(
                "no input is an output of the step before: draw windows or pairs, or samples of a problem with `feeds`"
            )

    def __call__(
        self, predict: Callable[[Arrays], dict[str, Tensor]], normalization: Normalization, arrays: Arrays
    ) -> dict[str, Tensor]:
        """Return the rows to train on.

        Args:
            predict: the surrogate, from a batch to its outputs in physical units, without a gradient.
            normalization: has the deviations of the inputs.
            arrays: rows that belong together, [n + 1, B, C, *] by name.

        Returns:
            Arrays by name, [B, C, *]: true targets, and inputs that are not all true.
        """
        row = self._with_noise({name: array[0] for name, array in arrays.items()}, normalization)
        number = int(torch.randint(self.num_unrolled, ())) if self.num_unrolled > 1 else 0
        for following in range(1, number + 1):
            given = {name: array[following] for name, array in arrays.items()}
            row = self._feedback.next_inputs(given, {**row, **predict(row)})
        return row

    def _with_noise(self, row: dict[str, Tensor], normalization: Normalization) -> dict[str, Tensor]:
        if self.noise == 0:
            return row
        for name, places in self._feedback.fed.items():
            row[name], std = row[name].clone(), getattr(normalization, f"{name}_std")
            for channels, *_ in places:
                values = row[name][:, channels]
                values += self.noise * along(std[channels], values) * torch.randn_like(values)
        return row
