"""The error on simulations that are never trained on.

Axes:  N samples, C channels, *grid the axes of the fields' grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from penstock.learner.losses import relative_l2
from penstock.learner.surrogate import Surrogate


def never() -> bool:
    return False


class Validation:
    """Held-out samples: `Layout.pack`'s arrays [N, C, *grid], evaluated `batch_size` at a time."""

    def __init__(self, arrays: Mapping[str, np.ndarray], *, batch_size: int = 16):
        self.arrays = {name: torch.tensor(array) for name, array in arrays.items()}
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.arrays["targets"])

    def errors(self, surrogate: Surrogate, should_stop: Callable[[], bool] = never) -> dict[str, float] | None:
        """Mean, median, 99th percentile and maximum of `sample_errors`; None where they are None."""
        errors_N = self.sample_errors(surrogate, should_stop)
        if errors_N is None:
            return None
        return {
            "mean": float(errors_N.mean()),
            "median": float(np.median(errors_N)),
            "p99": float(np.quantile(errors_N, 0.99)),
            "max": float(errors_N.max()),
        }

    def sample_errors(self, surrogate: Surrogate, should_stop: Callable[[], bool] = never) -> np.ndarray | None:
        """float64 [N]: the samples' relative L2 errors, outputs in multiples of their standard deviations.

        None when should_stop() became true between two batches.
        """
        device = next(surrogate.parameters()).device
        errors, was_training = [], surrogate.training
        surrogate.eval()
        with torch.no_grad():
            for start in range(0, len(self), self.batch_size):
                if should_stop():
                    break
                batch = {name: array[start : start + self.batch_size].to(device) for name, array in self.arrays.items()}
                in_stds = surrogate.normalization.in_stds
                prediction = in_stds("targets", surrogate.predict(batch))
                errors.append(relative_l2(prediction, in_stds("targets", batch["targets"])).cpu())
        surrogate.train(was_training)
        return torch.cat(errors).double().numpy() if sum(map(len, errors)) == len(self) else None
