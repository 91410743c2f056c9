"""Poisson's equation with sources of many wavelengths: one matrix for all draws."""

from __future__ import annotations

from functools import cached_property
from math import inf, pi

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.nine_point import NinePointLaplacian
from penstock.solvers.parameters.sines import SineField
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import InterleavedProblem, Parameters, Turns


class PoissonSources(InterleavedProblem):
    """Poisson's equation on the unit square: from source f to the solution u.

    -Δu = f, u = 0 on the boundary.

    f is a sum of K² modes with a_ij uniform on [-1, 1], and so the solution is known:

        f = π/K² Σ_ij a_ij (i² + j²)^r sin(πix) sin(πjy),   u = 1/(πK²) Σ_ij a_ij (i² + j²)^(r-1) sin(πix) sin(πjy).

    With K = 16 this is the Poisson set of Raonić et al. (2023, "Convolutional neural operators", arXiv 2302.01178),
    1024 samples at 64 x 64 points. The paper tests on K = 20, too. Sources differ on the sign of r = 0.5, so choose
    with `exponent`. Ours are solved and not evaluated, in order to be a test of solvers.

    Compact nine-point differences, of fourth order; all draws share one matrix.

    A sample holds f and u at the vertices of n x n squares, arrays [n + 1, n + 1] indexed [x, y].

    Args:
        resolution: squares along each side of the unit square, n > K, because a mode needs points between its zeros.
            Good values: 63 (the published points) to 255. At 63 the error of u is 0.03 %.
        num_modes: K, modes along each axis, at least 1.
        exponent: r; 0.5 or -0.5.
    """

    def __init__(self, *, resolution: int = 63, num_modes: int = 16, exponent: float = 0.5):
        if num_modes < 1:
            raise ValueError(f"num_modes = {num_modes} is too small: a source needs at least 1 mode per axis")
        if resolution <= num_modes:
            raise ValueError(f"resolution = {resolution} is too small: {num_modes} modes per axis need more squares")
        if not abs(exponent) < inf:
            raise ValueError(f"exponent = {exponent} must be finite")
        self.resolution = resolution
        self.space = ParameterSpace(
            source=SineField(resolution, num_modes=num_modes, exponent=exponent, scale=pi / num_modes**2)
        )
        grid = Grid((resolution + 1, resolution + 1), centring="vertices")
        self.inputs = (FieldSpec(name="source", on=grid),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def turns(self, parameters: Parameters) -> Turns:
        source = parameters["source"]
        solved = yield self.discretisation.system(source, np.zeros_like(source))
        solution = np.pad(solved.x.array_r.reshape(self.resolution - 1, self.resolution - 1), 1)
        yield Sample(inputs={"source": source}, outputs={"solution": solution})

    @cached_property
    def discretisation(self) -> NinePointLaplacian:
        return NinePointLaplacian(self.resolution, family="poisson")
