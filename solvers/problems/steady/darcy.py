"""Steady Darcy flow through a random medium."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion, couplings, outflow
from penstock.solvers.discretisation.elements.fem import DarcyDiscretisation
from penstock.solvers.parameters.fields import BinaryField, GaussianField, LogNormalField
from penstock.solvers.parameters.humps import Humps
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve, tangents_of

if TYPE_CHECKING:
    from petsc4py import PETSc


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

    With m `derivatives` the log-normal medium also gives du/dξ_k for the m leading modes of its Gaussian field, whose
    coefficients ξ_k are standard normal. A du/dξ = -(dA/dξ) u has the matrix of u, so a direct solver factors once:
    each takes a tenth of the solve for u at 64 x 64 cells or 24^3, a quarter at 128 x 128.

    A sample holds values at the centres of n^d cells, indexed [x, y, z]: a, and the mean of u at a cell's corners, so
    too of each derivative, `solution_by_mode_<k_1>_<k_2>`. With `derivatives_as` tangents it also has da/dξ_k,
    `coefficient_by_mode_<k_1>_<k_2>`.

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
        derivatives: m, further outputs of "log_normal", from 0 on. Good values: 0 to 8.
        derivatives_as: "outputs", which the model predicts like others; "tangents", with which the surrogate's own
            derivatives are compared: then a sample also has those of the inputs.
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
        derivatives: int = 0,
        derivatives_as: str = "outputs",
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
        self.is_parallel = dimension == 2
        self.source = source
        gaussian, humps = GaussianField(resolution, dimension=dimension), Humps(resolution, dimension=dimension)
        media = {
            "two_phase": BinaryField(gaussian, above=above, below=below),
            "log_normal": LogNormalField(gaussian),
            "humps": BinaryField(humps, above=above, below=below),
        }
        if medium not in media:
            raise ValueError(f"medium = {medium!r} is not known: {', '.join(media)}")
        if derivatives and medium != "log_normal":
            raise ValueError(
                f"derivatives = {derivatives} needs medium = 'log_normal': where {medium!r} changes, it jumps"
            )
        self.medium = media[medium]
        self.space = ParameterSpace(coefficient=self.medium)
        self.directions = gaussian.directions(derivatives) if derivatives else {}
        grid = Grid((resolution,) * dimension)
        self.inputs, solution = (FieldSpec(name="coefficient", on=grid),), FieldSpec(name="solution", on=grid)
        self.outputs = (solution, *map(solution.derivative, self.directions))
        self.tangents = tangents_of(self.inputs, self.directions, derivatives_as)

    @cached_property
    def discretisation(self) -> DarcyDiscretisation | StructuredDiffusion:
        if self.dimension == 2:
            return DarcyDiscretisation(self.resolution, comm=self.comm)
        return StructuredDiffusion(self.resolution, self.dimension)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        coefficient = parameters["coefficient"]
        system = self.discretisation.system(coefficient, source=np.full_like(coefficient, self.source))
        solution = solve(system)
        outputs = {"solution": self.discretisation.cell_means(solution.x)}
        changes = {mode: self.medium.derivative(coefficient, each) for mode, each in self.directions.items()}
        for mode, change in changes.items():
            derivative = solve(self.discretisation.with_load(self._derivative_load(change, solution.x)))
            outputs[f"solution_by_{mode}"] = self.discretisation.cell_means(derivative.x)
        tangents = {each.name: changes[each.by] for each in self.tangents}
        yield Sample(inputs={"coefficient": coefficient, **tangents}, outputs=outputs)

    def _derivative_load(self, change: np.ndarray, x: PETSc.Vec) -> np.ndarray:
        """-A(da) u at the inner vertices, for a change da of a, in which A is linear."""
        flow = outflow(couplings(change), self.discretisation.vertex_values(x))
        return -flow[(slice(1, -1),) * self.dimension]
