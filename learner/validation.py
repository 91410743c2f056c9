"""The error on simulations that are never trained on, measured in slices between the steps of the training.

Axes:  N samples, C channels, *grid the axes of the fields' grid, M measured errors of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from penstock.learner.copies import copied, follow
from penstock.learner.losses import ratio, sobolev_norm
from penstock.learner.storage import to_device
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


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Relative errors ||prediction - target|| / ||target|| in the L2 and the H1 norm.

    Those of the whole output count every channel in multiples of its standard deviation, as the losses do. Those of a
    field are the same in any unit.
    """

    relative_l2: Statistics
    h1: Statistics
    fields: dict[str, FieldErrors]
    """By the output fields' names."""

    def as_dict(self) -> dict:
        """{"relative_l2": {"mean", "median", "p99", "max"}, "h1": likewise, "fields": {name: both}}."""
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

    The H1 norm is `GridNorm`'s of order 1 on the cosine basis, which is right for periodic fields and others alike.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], *, batch_size: int = BATCH_SIZE, device: torch.device | str = "cpu"
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        self.arrays = dict(arrays)
        self.batch_size = batch_size
        num_channels = self.arrays["targets"].shape[1]
        # [N, M]: relative L2 and H1 error of the whole output, then of every channel
        self._errors = torch.empty(len(self), 2 * (1 + num_channels), device=self.device)
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

    def advance(self) -> Errors | None:
        """Evaluate the next slice; the errors when it was the last one. Only then the host waits for the device."""
        rows = slice(self._num_done, min(self._num_done + self.batch_size, len(self)))
        batch = {name: to_device(array[rows], self.device) for name, array in self.arrays.items()}
        with torch.no_grad():
            target = self._snapshot.normalization.in_stds("targets", batch["targets"])
            error = self._snapshot.predict_in_stds(batch) - target
            ratios = [_whole_and_channels(norm.squared(error), norm.squared(target)) for norm in self._norms]
            torch.nan_to_num(torch.cat(ratios, dim=1), nan=torch.inf, posinf=torch.inf, out=self._errors[rows])
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

    def _summary(self) -> Errors:
        relative_l2_NC, h1_NC = np.split(self._errors.cpu().double().numpy(), 2, axis=1)
        pairs = [
            {"relative_l2": Statistics.of(relative_l2_NC[:, column]), "h1": Statistics.of(h1_NC[:, column])}
            for column in range(relative_l2_NC.shape[1])
        ]
        names = [spec.name for spec in self._snapshot.layout.outputs]
        fields = {name: FieldErrors(**pair) for name, pair in zip(names, pairs[1:], strict=True)}
        return Errors(**pairs[0], fields=fields)


def _whole_and_channels(error_BC: Tensor, target_BC: Tensor) -> Tensor:
    """[B, 1 + C] relative errors, of all channels together and of each, from the squared norms."""
    return torch.cat(
        [ratio(error_BC.mean(dim=1, keepdim=True), target_BC.mean(dim=1, keepdim=True)), ratio(error_BC, target_BC)],
        dim=1,
    )


def _quantile(ordered: np.ndarray, fraction: float) -> float:
    """Linear interpolation, as np.quantile's, which makes NaN of two infinite neighbours."""
    position = fraction * (len(ordered) - 1)
    below, above = ordered[int(np.floor(position))], ordered[int(np.ceil(position))]
    return float(below if below == above else below + (position % 1) * (above - below))
