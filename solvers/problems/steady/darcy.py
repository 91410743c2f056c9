"""Steady Darcy flow through a random medium."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import inf

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.discretisation.elements.fem import DarcyDiscretisation
from penstock.solvers.parameters.fields import BinaryField, GaussianField, LogNormalField
from penstock.solvers.parameters.humps import Humps
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve


class Darcy(Problem):
    """Darcy flow on the unit square or cube: from permeability a to pressure u.

    -∇·(a ∇u) = f, u = 0 on the boundary, with a constant f.

    By default a is 12 or 3 by the sign of a Gaussian field with covariance (-Δ + 9)^-2, and f = 1. This is the
    distribution of the Darcy set of Li et al. (2021, arXiv 2010.08895); their public files hold finite differences at
    421 x 421 points, ours are finite elements at any resolution, so fields agree in law and not number by number. The
    two-phase Darcy flow of DGenNO (2025, arXiv 2502.06250) has a = 10 or 5 and f = 10 on 29 x 29 points; the law of its
    phases may differ.

    With "humps" a has its two values by whether a sum of five Gaussian humps is above its mean. This is the medium of
    PDEBench's Darcy set (Takamoto et al. 2022, arXiv 2210.07182), which has a = 1 or 0.1 and f = 0.01, 0.1, 1, 10 or
    100 on 128 x 128 cells. Their mean is over a batch of draws, ours over the law. They march ∂u/∂t = ∇·(a ∇u) + f from
    a random field to t = 2, where up to a fiftieth of that field is left, with u = 0 half a cell outside the square;
    ours is the steady solution with u = 0 on the boundary.

    A sample holds values at the centres of n^d cells, indexed [x, y, z]: a, and the mean of u at a cell's corners.

    Args:
        resolution: cells along each side of the unit square or cube, n >= 2. Good values: 64 to 421, in three
            dimensions 16 to 64.
        dimension: dimension d of the domain, 2 or 3. The square is assembled by DOLFINx.
        medium: law of the permeability. "two_phase", two values by the sign of the field; "log_normal", the exponential
            of the field, scaled to a variance of 1; "humps", two values by the sign of a sum of humps less its mean.
        above: permeability of the phase where the field is >= 0, above 0. Not used by "log_normal".
        below: permeability of the other phase, above 0. Not used by "log_normal". With 1 above and 1e-4 below,
            iterative methods have a hard time.
        source: f, finite and not 0. u is proportional to it.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        dimension: int = 2,
        medium: str = "two_phase",
        above: float = 12.0,
        below: float = 3.0,
        source: float = 1.0,
    ):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a square of cells needs at least 2 per side")
        if dimension not in (2, 3):
            raise ValueError(f"dimension = {dimension} must be 2 or 3")
        if not (0 < above < inf and 0 < below < inf):
            raise ValueError(f"above = {above} and below = {below} are permeabilities: they must be above 0 and finite")
        if source == 0 or not abs(source) < inf:
            raise ValueError(f"source = {source} must be finite and not 0, for which u is 0")
        self.resolution = resolution
        self.dimension = dimension
        self.source = source
        gaussian, humps = GaussianField(resolution, dimension=dimension), Humps(resolution, dimension=dimension)
        media = {
            "two_phase": BinaryField(gaussian, above=above, below=below),
            "log_normal": LogNormalField(gaussian),
            "humps": BinaryField(humps, above=above, below=below),
        }
        if medium not in media:
            raise ValueError(f"medium = {medium!r} is not known: {', '.join(media)}")
        self.space = ParameterSpace(coefficient=media[medium])
        grid = Grid((resolution,) * dimension)
        self.inputs = (FieldSpec(name="coefficient", on=grid),)
        self.outputs = (FieldSpec(name="solution", on=grid),)

    @cached_property
    def discretisation(self) -> DarcyDiscretisation | StructuredDiffusion:
        if self.dimension == 2:
            return DarcyDiscretisation(self.resolution)
        return StructuredDiffusion(self.resolution, self.dimension)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        coefficient = parameters["coefficient"]
        system = self.discretisation.system(coefficient, source=np.full_like(coefficient, self.source))
        solution = solve(system)
        yield Sample(
            inputs={"coefficient": coefficient},
            outputs={"solution": self.discretisation.cell_means(solution.x)},
        )
