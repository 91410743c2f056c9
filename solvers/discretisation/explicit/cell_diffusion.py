"""Diffusion between the cells of a regular grid, exact in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import dctn, idctn, irfftn, rfftn


class CellDiffusion:
    """Diffusion between equal cells, periodic or without flux through the boundary.

    ∂u_c/∂t = ν_c Δ u_c for each component. Δ is the second difference along each axis. Waves or cosines are its
    eigenfunctions, so a fast Fourier or cosine transform solves the equation for any length of time. The sum of u stays
    what it is, and no new extremes arise: a value becomes a mean of values, with weights above 0.

    Args:
        shape: n, cells along each axis.
        spacing: h, length of a cell along each axis.
        diffusivities: ν_c of each component.
        is_periodic: whether all axes are periodic.
    """

    def __init__(self, shape: Sequence[int], spacing: float, diffusivities: Sequence[float], *, is_periodic: bool):
        self._shape = tuple(shape)
        self._axes = tuple(range(1, len(shape) + 1))
        self._is_periodic = is_periodic
        turns = [np.arange(n) / n if is_periodic else np.arange(n) / (2 * n) for n in shape]
        if is_periodic:  # real waves: the last axis has half of the modes
            turns[-1] = turns[-1][: shape[-1] // 2 + 1]
        eigenvalues = sum(4 * np.sin(np.pi * turn) ** 2 for turn in np.ix_(*turns)) / spacing**2
        self._rates = np.multiply.outer(np.asarray(diffusivities), eigenvalues)
        self._decay: tuple[float, np.ndarray] = (0.0, np.ones_like(self._rates))

    def flow(self, values: np.ndarray, time: float) -> np.ndarray:
        """u [C, *grid] after this time."""
        if self._decay[0] != time:
            self._decay = (time, np.exp(-self._rates * time))
        if self._is_periodic:
            return irfftn(self._decay[1] * rfftn(values, axes=self._axes), s=self._shape, axes=self._axes)
        modes = dctn(values, axes=self._axes, norm="ortho")
        return idctn(self._decay[1] * modes, axes=self._axes, norm="ortho", overwrite_x=True)
