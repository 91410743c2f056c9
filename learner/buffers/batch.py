"""A batch of rows that was drawn from a buffer.

Axes:  N rows, C channels, S scalars, T steps, *grid the axes of the fields' grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows drawn together from distinct slots.

    The buffer keeps no reference to them.
    """

    arrays: dict[str, Tensor]
    """[N, C, *grid] and [N, S] by name, in the shapes of the buffer's `layout`.

    If several rows of a unit are drawn together, the first of all units, then the second of all, and so on.
    """
    slots: np.ndarray
    """int64 [N]: slots of the rows' units when they were drawn."""
    simulations: np.ndarray
    """int64 [N]: simulation of each row."""
    steps: np.ndarray
    """int64 [N]: step of each row's inputs."""
    weights: Tensor | None
    """float32 [N], factors on the rows' losses, with mean 1; None if all rows count alike."""
    num_samples: int
    """Samples that the batch trains on: N, or N T for trajectories."""

    def __len__(self) -> int:
        return len(self.simulations)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device.

        Args:
            device: the device.

        Returns:
            A batch; tensors that are on the device already are shared.
        """
        arrays = {name: array.to(device) for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, weights=None if self.weights is None else self.weights.to(device))
