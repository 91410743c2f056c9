"""Flow in a box that its lid drives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np

from penstock.geometry import Grid, Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.taylor_hood import TaylorHood
from penstock.solvers.discretisation.elements.triangulation import square
from penstock.solvers.parameters.space import LogUniform, ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.flow.profile import Profile
from penstock.solvers.problems.flow.steady_flow import SteadyFlow, check_levels


class Cavity(Problem):
    """The lid-driven cavity: from Reynolds number and lid to velocity and pressure.

    -Δu / Re + u·∇u + ∇p = 0, ∇·u = 0 on the unit square, u = (g(x), 0) on its lid y = 1 and 0 on the other sides; p has
    the mean 0.

    The lid's velocity g is random and 0 at the corners, with mean 1 and a shape like (4 x (1 - x))² (see `Profile`);
    the classical lid, g = 1, has singular corners. The drawn Reynolds number is log-uniform on [Re_max / 2, Re_max].
    Newton's method starts at 1/8 of it, with 4 levels, from fluid at rest; each level doubles the Reynolds number and
    starts from the last flow. So the Reynolds numbers of all samples are log-uniform on [Re_max / 16, Re_max].

    Taylor-Hood elements on n x n squares cut into two triangles each. Jacobians are nonsymmetric and indefinite; one
    pressure is fixed.

    A simulation yields a sample per level: `reynolds` and `lid` [2 n + 1], at i / (2 n), to `velocity`
    [2, n + 1, n + 1] and `pressure` [n + 1, n + 1] at the vertices, indexed [x, y].

    Args:
        resolution: n, squares along each side, at least 4. Good values: 16 to 64. Below the classical
            lid, extremes of u on the centre lines are off by 8e-3 at n = 32 and Re = 1000, by 6e-4 at 64.
        num_levels: Reynolds numbers per simulation, at least 1, a sample for each.
        largest_reynolds: Re_max > 0. Good values: 100 to 2000.
    """

    def __init__(self, *, resolution: int = 32, num_levels: int = 4, largest_reynolds: float = 1000.0):
        if resolution < 4:
            raise ValueError(f"resolution = {resolution} is too small: an eddy needs at least 4 squares per side")
        check_levels(num_levels, largest_reynolds)
        self.resolution = resolution
        self.num_steps = num_levels
        lid = Grid((2 * resolution + 1,), centring="vertices", name="lid")
        self.space = ParameterSpace(
            reynolds=LogUniform(largest_reynolds / 2, largest_reynolds), lid=Profile(2 * resolution + 1, power=2)
        )
        grid = Grid((resolution + 1, resolution + 1), centring="vertices")
        self.inputs = (FieldSpec(name="reynolds"), FieldSpec(name="lid", on=lid))
        self.outputs = (FieldSpec(name="velocity", on=grid, components=2), FieldSpec(name="pressure", on=grid))

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        lid, shape = parameters["lid"], self.outputs[1].shape
        flows = self.flow.rising(
            self.at_rest(lid), parameters["reynolds"], length=1.0, num_levels=self.num_steps, solve=solve
        )
        for step, (reynolds, unknowns) in enumerate(flows):
            velocity, pressure = self.elements.at_points(*self.elements.parts(unknowns))
            yield Sample(
                inputs={"reynolds": reynolds, "lid": lid},
                outputs={"velocity": velocity.reshape(2, *shape), "pressure": pressure.reshape(shape)},
                step=step,
            )

    def at_rest(self, lid: np.ndarray) -> np.ndarray:
        """The unknowns where only the lid moves, with a velocity of [2 n + 1]."""
        x, y = self.elements.nodes[self.elements.boundary].T
        along = np.where(y > 1 - 1e-9, lid[np.rint(2 * self.resolution * x).astype(int)], 0.0)
        return self.elements.state(np.stack([along, np.zeros_like(along)]))

    @cached_property
    def elements(self) -> TaylorHood:
        return TaylorHood(Mesh((self.resolution + 1) ** 2, 2, partial(square, self.resolution)).arrays)

    @cached_property
    def flow(self) -> SteadyFlow:
        return SteadyFlow(self.elements, family="cavity")
