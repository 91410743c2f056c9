"""The matrices of a spectral convolution: dense, or factored as a tensor.

Axes:  K = 2^(d-1) M wave vectors, S = 2^(d-1) sign patterns, M_a modes along axis a, C channels, R terms.

Each class gives the matrices by a call without arguments, as [K, C in, 2 C out], real parts beside imaginary parts. As
a tensor they are W [S, M_1 ... M_d, C in, 2, C out], of real numbers throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from penstock.learner.models.parameters import normal


class Dense(nn.Module):
    """Every entry is a parameter.

    Args:
        shape: shape of W.
        deviation: standard deviation of the entries at the start.
    """

    def __init__(self, shape: Sequence[int], deviation: float):
        super().__init__()
        self.values = normal([*_flat(shape)], deviation)

    def forward(self) -> Tensor:
        return self.values


class Tucker(nn.Module):
    """A small core tensor, with a matrix for each axis of modes and channels.

        W = G x_1 U_1 ... x_d U_d x_in U_in x_out U_out

    The factors U are the same for all sign patterns, and for real and imaginary parts. The source is arXiv 2310.00120.

    Args:
        shape: shape of W.
        deviation: standard deviation of the entries at the start.
        rank: largest number of parameters, as a part of the number of entries of W. Every axis is cut to the same part
            of its length, rounded down, and at least to 1.
    """

    def __init__(self, shape: Sequence[int], deviation: float, rank: float):
        super().__init__()
        self.shape = tuple(_flat(shape))
        self.axes = [*range(1, len(shape) - 2), len(shape) - 1]
        ranks = self._ranks(shape, rank * prod(shape))
        self.core = normal(ranks, deviation)
        self.factors = nn.ParameterList(normal([shape[a], ranks[a]], ranks[a] ** -0.5) for a in self.axes)

    def _ranks(self, shape: Sequence[int], most: float) -> list[int]:
        """The shape of the largest core with at most `most` parameters in all."""
        for part in (1 - step / 256 for step in range(256)):
            ranks = [max(1, int(part * size)) if a in self.axes else size for a, size in enumerate(shape)]
            if prod(ranks) + sum(shape[a] * ranks[a] for a in self.axes) <= most:
                break
        return ranks

    def forward(self) -> Tensor:
        tensor = self.core
        for axis, factor in zip(self.axes, self.factors, strict=True):
            tensor = (tensor.movedim(axis, -1) @ factor.T).movedim(-1, axis)
        return tensor.reshape(self.shape)


class CP(nn.Module):
    """A sum of products of vectors, one for each axis.

        W = Σ_r a_r ⊗ b_r ⊗ ...

    Args:
        shape: shape of W.
        deviation: standard deviation of the entries at the start.
        rank: largest number of parameters, as a part of the number of entries of W; there is one term at least.
    """

    def __init__(self, shape: Sequence[int], deviation: float, rank: float):
        super().__init__()
        self.shape = tuple(_flat(shape))
        terms = max(1, int(rank * prod(shape) / sum(shape)))
        entries = (deviation / math.sqrt(terms)) ** (1 / len(shape))
        self.factors = nn.ParameterList(normal([size, terms], entries) for size in shape)

    def forward(self) -> Tensor:
        wave_vectors, channels = _products([*self.factors][:-3]), _products([*self.factors][-3:])  # [K, R], [C 2 C, R]
        return (wave_vectors @ channels.T).reshape(self.shape)


FACTORED: dict[str, type[nn.Module]] = {"tucker": Tucker, "cp": CP}


def _flat(shape: Sequence[int]) -> tuple[int, int, int]:
    return prod(shape[:-3]), shape[-3], prod(shape[-2:])


def _products(factors: Sequence[Tensor]) -> Tensor:
    """All products of one row [R] of each factor, [number of products, R]."""
    products, *others = factors
    for factor in others:
        products = (products[:, None] * factor).flatten(0, 1)
    return products
