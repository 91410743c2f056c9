"""The error on simulations that are never trained on, measured in slices between the steps of the training.

VRMSE is the variance-scaled root mean squared error of The Well (Ohana et al., NeurIPS 2024, arXiv 2412.00568), with
the variance over the whole set, samples and points alike. A relative error of 1e-4 says little of a temperature of
300 K that varies by 0.03 K; a VRMSE of 1 says that nothing of the variation was learnt.

Axes:  N samples, C channels, *grid the axes of the fields' grid, M measured errors of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.learner.buffers.storage import to_device
from penstock.learner.copies import copied, follow
from penstock.learner.losses.losses import ratio, sobolev_norm
from penstock.learner.normalization import RunningMoments, along, inverse, is_constant
from penstock.learner.surrogate import Surrogate

BATCH_SIZE = 16  # of a slice, which holds up the next step


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of one error over all samples; infinite where a prediction was not finite."""

    mean: float
    median: float
    p99: float
    max: float

    @classmethod
    def of(cls, errors_N: np.ndarray) -> Statistics:
        ordered = np.sort(errors_N)
        return cls(
            mean=float(ordered.mean()),
            median=_quantile(ordered, 0.5),
            p99=_quantile(ordered, 0.99),
            max=float(ordered[-1]),
        )


@dataclass(frozen=True, kw_only=True)
class FieldErrors:
    """Of one output field, over all samples."""

    relative_l2: Statistics
    h1: Statistics
    vrmse: float
    """Root of the mean squared error over the variance: 1 for a prediction of the mean alone, and 1 - vrmse² is the
    share of the variance that is explained."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Relative errors ||prediction - target|| / ||target|| in the L2 and the H1 norm, and what of the variance is left.

    Those of the whole output count every channel in multiples of its standard deviation, as the losses do. Those of a
    field are the same in any unit. A target that is smaller than SMALLEST_SHARE of the root mean square of the targets
    at its step has its error measured by that. Constant outputs count nowhere.
    """

    relative_l2: Statistics
    h1: Statistics
    vrmse: float
    """Root mean square of the fields'."""
    fields: dict[str, FieldErrors]
    """By the output fields' names."""
    constants: dict[str, float]
    """Of outputs that never vary, the value that is predicted."""

    def as_dict(self) -> dict:
        """{"relative_l2": {"mean", "median", "p99", "max"}, "h1": likewise, "vrmse", "fields": {name: all three},
        "constants": {name: value}}."""
        return asdict(self)


class Validation:
    """Held-out samples: arrays [N, C, *grid] as the surrogate takes them, evaluated `batch_size` at a time on `device`.

    They are not copied, and must not change. Only the slice that is due goes to a GPU: the set of a transient problem
    may be larger than the GPU's memory, which training needs.

        validation.begin(surrogate)
        while (errors := validation.advance()) is None:
            ...  # train a step

    `begin` copies the surrogate, so that all slices measure the same weights while training changes them. A slice is
    one batch's forward pass in float32; nothing waits for the device before the last one.

    steps: int64 [N], those of the rows' simulations that their inputs are of; absent, all rows are alike.

    The H1 norm is `GridNorm`'s of order 1 on the cosine basis, which is right for periodic fields and others alike.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        steps: np.ndarray | None = None,
        batch_size: int = BATCH_SIZE,
        device: torch.device | str = "cpu",
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        self.arrays = dict(arrays)
        self.batch_size = batch_size
        num_channels = self.arrays["targets"].shape[1]
        # [N, M]: relative L2 and H1 error of the whole output, then of every channel; then each channel's squared error
        self._errors = torch.empty(len(self), 2 + 3 * num_channels, device=self.device)
        numbers, steps = np.unique(np.zeros(len(self)) if steps is None else steps, return_inverse=True)
        moments = RunningMoments(len(numbers))
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            moments.update({"targets": self.arrays["targets"][rows]}, steps[rows])
        mean, std = moments.over("targets")
        sizes = [np.hypot(*moments.over("targets", slice(step, step + 1))) for step in range(len(numbers))]
        self._std = self._on_device(np.where(is_constant(mean, std), 0.0, std))  # [C]
        self._sizes = self._on_device(np.stack(sizes)[steps])  # [N, C] root mean squares of the targets at a row's step
        self._num_done = len(self)
        self._surrogate: Surrogate | None = None
        self._snapshot: Surrogate | None = None

    def __len__(self) -> int:
        return len(self.arrays["targets"])

    @property
    def is_running(self) -> bool:
        """Whether slices are left of what `begin` began."""
        return self._num_done < len(self)

    def begin(self, surrogate: Surrogate) -> None:
        """Take a copy of the surrogate, on the device; what was running is given up."""
        if surrogate is self._surrogate:
            follow(self._snapshot, surrogate)
        else:
            self._surrogate = surrogate
            self._norms = (sobolev_norm(0), sobolev_norm(1, extent=surrogate.layout.extent))
            self._snapshot = copied(surrogate).to(self.device).requires_grad_(False).eval()
        self._num_done = 0
        # A channel that is constant in training and not here is measured in its deviation here.
        std = self._snapshot.normalization.targets_std
        self._inverse_std = inverse(torch.where(std > 0, std, self._std))

    def advance(self) -> Errors | None:
        """Evaluate the next slice; the errors when it was the last one. Only then the host waits for the device."""
        rows = slice(self._num_done, min(self._num_done + self.batch_size, len(self)))
        batch = {name: to_device(array[rows], self.device) for name, array in self.arrays.items()}
        with torch.no_grad():
            target, error = batch["targets"], self._snapshot.predict(batch) - batch["targets"]
            target, error = (along(self._inverse_std, values) * values for values in (target, error))
            squares = [norm.squared(error) for norm in self._norms]
            typical = self._sizes[rows] * self._inverse_std
            ratios = [
                _whole_and_channels(squares_BC, norm.squared(target), typical * norm.weight)
                for squares_BC, norm in zip(squares, self._norms, strict=True)
            ]
            errors = torch.cat([*ratios, squares[0]], dim=1)
            torch.nan_to_num(errors, nan=torch.inf, posinf=torch.inf, out=self._errors[rows])
        self._num_done = rows.stop
        return None if self.is_running else self._summary()

    def finish(self) -> Errors:
        """Evaluate all slices that are left."""
        while (errors := self.advance()) is None:
            pass
        return errors

    def errors(self, surrogate: Surrogate) -> Errors:
        """The errors of a surrogate, at once."""
        self.begin(surrogate)
        return self.finish()

    def sample_errors(self, surrogate: Surrogate) -> np.ndarray:
        """float64 [N]: every sample's relative L2 error of the whole output."""
        self.errors(surrogate)
        return self._errors[:, 0].cpu().double().numpy()

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def _summary(self) -> Errors:
        num_channels = self.arrays["targets"].shape[1]
        columns, std_C, inverse_C = (
            tensor.cpu().double().numpy() for tensor in (self._errors, self._std, self._inverse_std)
        )
        relative_l2_NC, h1_NC, squares_NC = np.split(columns, [1 + num_channels, 2 * (1 + num_channels)], axis=1)
        statistics = [
            {"relative_l2": Statistics.of(relative_l2_NC[:, column]), "h1": Statistics.of(h1_NC[:, column])}
            for column in range(1 + num_channels)
        ]
        # An output that varies in training and not here: its error is then shown in the deviation that it had there.
        std_C = np.where(std_C > 0, std_C * inverse_C, 1.0)
        vrmse = np.sqrt(squares_NC.mean(axis=0)) / std_C
        specs = self._snapshot.layout.outputs
        varies = inverse_C > 0
        fields = {
            spec.name: FieldErrors(**statistics[1 + c], vrmse=float(vrmse[c]))
            for c, spec in enumerate(specs)
            if varies[c]
        }
        means = self._snapshot.normalization.targets_mean.tolist()
        return Errors(
            **statistics[0],
            vrmse=float(np.sqrt(np.mean(vrmse[varies] ** 2))),
            fields=fields,
            constants={spec.name: means[c] for c, spec in enumerate(specs) if not varies[c]},
        )


def _whole_and_channels(error_BC: Tensor, target_BC: Tensor, typical_BC: Tensor) -> Tensor:
    """[B, 1 + C] relative errors, of all channels together and of each, from the squared norms."""
    squares_BC = error_BC, target_BC, typical_BC.square()
    error, target, typical = (squares.mean(dim=1, keepdim=True) for squares in squares_BC)
    return torch.cat([ratio(error, target, typical.sqrt()), ratio(error_BC, target_BC, typical_BC)], dim=1)


def _quantile(ordered: np.ndarray, fraction: float) -> float:
    """Linear interpolation, as np.quantile's, which makes NaN of two infinite neighbours."""
    position = fraction * (len(ordered) - 1)
    below, above = ordered[int(np.floor(position))], ordered[int(np.ceil(position))]
    return float(below if below == above else below + (position % 1) * (above - below))
