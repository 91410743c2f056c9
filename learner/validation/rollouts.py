"""Errors of rollouts over time, where a surrogate is given what it predicted.

Axes:  S simulations, B simulations of a slice, A applications of the surrogate, F frames, m frames of an application,
C channels of all outputs, P points, * the shape of a geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.layout import Layout
from penstock.learner.buffers.units import Frames, Unit
from penstock.learner.losses.losses import ratio
from penstock.learner.losses.norms import norm_of
from penstock.learner.normalization import along
from penstock.learner.rollout.feedback import place_of, roll_out
from penstock.learner.rollout.trajectories import rollout_rows
from penstock.learner.surrogate import Surrogate

LOSS = 0.2  # of correlation, at which a prediction counts as lost
MOST_TIMES = 64  # that are recorded, with each record of the run until the next validation
LARGEST = 1e6  # what a relative error counts at most: a rollout that blew up leaves a number


@dataclass(frozen=True, kw_only=True)
class RolloutErrors:
    """The errors of a surrogate along rollouts from the start of each simulation.

    The correlation is Pearson's over the points of the domain by their weights, averaged over the channels of the
    output fields. Times are numbers of steps of the simulation.
    """

    steps: list[int]
    """Times of frames, from the last that was given.

    They are all, or MOST_TIMES of them, spread evenly from the first to the last.
    """
    relative_l2: list[float]
    """Mean of ||prediction - target|| / ||target|| at each time, as in `Errors`, no error counting above LARGEST."""
    correlation: list[float] | None
    """Mean correlation of prediction and target at each time; None without an output field that varies."""
    correlation_time: float | None
    """Mean over the simulations of the first time at which 1 - correlation is above LOSS.

    A simulation in which it never is counts with its last time. The measure is that of Kochkov et al., PNAS 2021,
    arXiv 2102.01010, and, with this threshold, of Lippe et al. (PDE-Refiner), NeurIPS 2023, arXiv 2308.05732.
    """
    lost: float | None
    """Share of the simulations in which it is: below 1, the mean time is a lower bound."""


class Rollouts:
    """Rolls a surrogate out along the simulations of a validation set, slice by slice.

    A slice is one application of the surrogate to one batch of simulations.

    Args:
        layout: layout of batches.
        frames: the frames that a row leads to.
        rows: rows of the set that belong to one rollout, int64 [S, A], see `rollout_rows`.
    """

    def __init__(self, layout: Layout, frames: Frames, rows: np.ndarray):
        self._layout = layout
        self._rows = rows
        self._measures = _Measures(layout, frames)
        given = {source: name for name, source in layout.feeds.items()}
        last = {
            name: given.get(source)
            for frame in frames.names
            for name, source in zip(frame, frames.names[-1], strict=True)
        }
        self.has_persistence = None not in last.values()
        """Whether each output is given in the last frame before."""
        self._last = last
        num_frames = rows.shape[1] * len(frames.names)
        self.steps = [frames.spacing * (number + 1) for number in range(num_frames)]
        self._slices: Iterator[None] = iter(())
        self._num_left = 0
        self._errors_2SF = torch.empty(2, 0, 0)  # relative L2 and correlation
        self._counts_C = torch.empty(0)

    @property
    def is_running(self) -> bool:
        """Whether slices are left."""
        return self._num_left > 0

    def begin(
        self,
        surrogate: Surrogate,
        batch_of: Callable[[np.ndarray], dict[str, Tensor]],
        *,
        inverse_std_C: Tensor,
        sizes_NC: Tensor,
        batch_size: int,
    ) -> None:
        """Begin to roll a surrogate out, and give up what was running.

        Args:
            surrogate: the surrogate, which must not change until the last slice.
            batch_of: gives the arrays of rows, on the surrogate's device.
            inverse_std_C: reciprocal of each output channel's standard deviation; 0 for a constant one.
            sizes_NC: root mean square of the targets at each row's step.
            batch_size: number of simulations of a slice.
        """
        num_simulations, num_applications = self._rows.shape
        starts, num_frames = range(0, num_simulations, batch_size), len(self.steps) // num_applications
        self._errors_2SF = torch.empty(2, num_simulations, len(self.steps), device=surrogate.device)
        self._counts_C = self._measures.counts(inverse_std_C)
        self._num_left = len(starts) * num_applications

        def slices() -> Iterator[None]:
            for start in starts:
                rows_AB = self._rows[start : start + batch_size].T
                rolled = roll_out(surrogate.predict, self._layout, map(batch_of, rows_AB))
                for number, (rows_B, (batch, predicted)) in enumerate(zip(rows_AB, rolled, strict=True)):
                    typical_BC = sizes_NC[rows_B] * inverse_std_C
                    frames = slice(number * num_frames, (number + 1) * num_frames)
                    self._errors_2SF[:, start : start + len(rows_B), frames] = self._measures(
                        batch, predicted, inverse_std_C, typical_BC, self._counts_C
                    )
                    yield

        self._slices = slices()

    def advance(self) -> None:
        """Do the next slice."""
        with torch.no_grad():
            next(self._slices)
        self._num_left -= 1

    def persistence(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the forecast that all stays as it is in the last given frame.

        Only where `has_persistence`.

        Args:
            batch: arrays of rows, [B, C, *] by name.

        Returns:
            The outputs by name, likewise.
        """
        outputs = {}
        for block in self._layout.output_blocks:
            places = [place_of(self._layout, self._last[spec.name]) for spec in block.specs]
            outputs[block.name] = torch.cat([batch[array][:, channels] for array, channels in places], dim=1)
        return outputs

    def errors(self) -> RolloutErrors:
        """Return the errors, after the last slice; waits for the device."""
        errors_SF, correlation_SF = self._errors_2SF.cpu().double().numpy()
        num = len(self.steps)
        told = np.linspace(0, num - 1, min(num, MOST_TIMES)).round().astype(int)
        steps, relative_l2 = [self.steps[frame] for frame in told], errors_SF.mean(axis=0)[told].tolist()
        if not self._counts_C.any():
            return RolloutErrors(
                steps=steps, relative_l2=relative_l2, correlation=None, correlation_time=None, lost=None
            )
        is_lost_SF = 1 - correlation_SF > LOSS
        first_S = np.where(is_lost_SF.any(axis=1), is_lost_SF.argmax(axis=1), num - 1)
        return RolloutErrors(
            steps=steps,
            relative_l2=relative_l2,
            correlation=correlation_SF.mean(axis=0)[told].tolist(),
            correlation_time=float(np.array(self.steps)[first_S].mean()),
            lost=float(is_lost_SF.any(axis=1).mean()),
        )


def rollouts_along(unit: Unit, layout: Layout, simulations: np.ndarray, steps: np.ndarray) -> Rollouts | None:
    """Return the rollouts along the rows of a set.

    They begin at the first row of each simulation.

    Args:
        unit: what a row is.
        layout: layout of the problem's samples.
        simulations: simulation of each row, int64 [N].
        steps: step of each row's inputs, int64 [N].

    Returns:
        The rollouts, as long as the shortest simulation; None where they would have one frame alone.
    """
    frames, batch_layout = unit.frames(layout), unit.layout(layout)
    rows = rollout_rows(frames, batch_layout, simulations, steps)
    return None if rows is None else Rollouts(batch_layout, frames, rows)


class _Measures:
    """Relative L2 error and correlation of the frames of an application."""

    def __init__(self, layout: Layout, frames: Frames):
        self._layout = layout
        self._norms = [norm_of(block.on, 0) for block in layout.output_blocks]
        places, start, fields = {}, 0, []
        for block in layout.output_blocks:
            for spec in block.specs:
                places[spec.name] = range(start, start + spec.components)
                start += spec.components
                fields += [spec.on is not None] * spec.components
        self._is_field_C = torch.tensor(fields)
        self._frames = [[channel for name in names for channel in places[name]] for names in frames.names]

    def counts(self, inverse_std_C: Tensor) -> Tensor:
        """1 for each channel of a field that varies, whose correlation counts, [C]."""
        return (self._is_field_C.to(inverse_std_C.device) & (inverse_std_C > 0)).float()

    def __call__(
        self,
        batch: Mapping[str, Tensor],
        predicted: Mapping[str, Tensor],
        inverse_std_C: Tensor,
        typical_BC: Tensor,
        counts_C: Tensor,
    ) -> Tensor:
        """Return relative L2 errors and correlations, [2, B, m].

        Args:
            batch: arrays by name, with the targets.
            predicted: predicted arrays by name, in physical units.
            inverse_std_C: reciprocal of each channel's standard deviation; 0 for a constant one.
            typical_BC: root mean square of the targets at a row's step, in multiples of the standard deviations.
            counts_C: what `counts` returned.
        """
        blocks, errors, targets, correlations = self._layout.output_blocks, [], [], []
        split = inverse_std_C.split([block.shape[0] for block in blocks])
        for block, norm, own_C in zip(blocks, self._norms, split, strict=True):
            target, prediction = batch[block.name], predicted[block.name]
            weights = self._layout.weights_of(block, batch)
            own = along(own_C, target)
            travelling = weights if isinstance(weights, Tensor) else None
            errors.append(norm.squared(own * (prediction - target), travelling))
            targets.append(norm.squared(own * target, travelling))
            is_field = block.on is not None
            correlations.append(_correlation(prediction, target, weights) if is_field else torch.zeros_like(target))
        error_BC, target_BC, correlation_BC = (torch.cat(each, dim=1) for each in (errors, targets, correlations))
        relative = torch.stack(
            [
                ratio(error_BC[:, f].mean(1), target_BC[:, f].mean(1), typical_BC[:, f].square().mean(1).sqrt())
                for f in self._frames
            ],
            dim=1,
        )
        correlation = torch.stack(
            [(correlation_BC[:, f] * counts_C[f]).sum(1) / counts_C[f].sum().clamp(min=1) for f in self._frames], dim=1
        )
        relative = torch.nan_to_num(relative, nan=LARGEST).clamp(max=LARGEST)
        return torch.stack([relative, torch.nan_to_num(correlation, nan=0.0)])


def _correlation(a: Tensor, b: Tensor, weights: Tensor | np.ndarray | None) -> Tensor:
    """Pearson's correlation over the points, [B, C], of fields [B, C, *].

    It is 1 if both are constant, and 0 if one is.
    """
    a_BCP, b_BCP = a.flatten(2).double(), b.flatten(2).double()
    if weights is None:
        shares = torch.ones_like(a_BCP[:1, :1])
    else:
        shares = torch.as_tensor(weights, device=a.device).double()
        shares = shares.flatten(2) if isinstance(weights, Tensor) else shares.reshape(1, 1, -1)
    shares = shares / shares.sum(dim=2, keepdim=True)
    centred, deviations = [], []
    for values in (a_BCP, b_BCP):
        values = torch.where(shares > 0, values, 0.0)  # what is predicted beside the domain means nothing
        mean = (shares * values).sum(dim=2, keepdim=True)
        centred.append(values - mean)
        deviation = (shares * centred[-1].square()).sum(dim=2).sqrt()
        # a constant in float32 deviates by its rounding
        deviations.append(torch.where(deviation > 1e-6 * mean[..., 0].abs(), deviation, 0.0))
    covariance = (shares * centred[0] * centred[1]).sum(dim=2)
    product = deviations[0] * deviations[1]
    are_constant = ((deviations[0] == 0) & (deviations[1] == 0)).double()
    return torch.where(product > 0, covariance / product, are_constant).float()
