"""References to rows of a tensor, which a checkpoint writes without a copy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor that are gathered block by block while they are written.

    So a buffer is saved without a copy of it.
    """

    tensor: Tensor
    """The tensor, [N, ...]."""
    index: Tensor | None = None
    """int64: numbers of the rows, in the order in which they are written; None for all rows."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the rows as one tensor."""
        return self.tensor.shape if self.index is None else self.index.shape + self.tensor.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the tensor."""
        return self.tensor.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return math.prod(self.shape) * self.tensor.itemsize
