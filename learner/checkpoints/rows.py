"""Rows of a tensor that are named and not copied: how a buffer hands its contents to a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor, gathered a block at a time while they are written, so that a buffer is saved without a copy."""

    tensor: Tensor
    """[N, ...]"""
    index: Tensor | None = None
    """int64: the rows, in the order in which they are written; None for all of them."""

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape if self.index is None else self.index.shape + self.tensor.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.tensor.itemsize
