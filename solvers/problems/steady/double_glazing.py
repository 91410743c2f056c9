"""Heat carried around between two panes: nonsymmetric systems and sharp layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.cells import cell_means
from penstock.solvers.discretisation.elements.supg import UpwindedConvection, mean_wind
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import LogUniform, ParameterSpace
from penstock.solvers.problem import Parameters, Problem, Solve

SIDE = 2.0
WINDS = ("recirculating", "random")


class DoubleGlazing(Problem):
    """Convection between two panes: from diffusion (and wind) to temperature.

    -ε Δu + w·∇u = 0 on (-1, 1)², u = 1 on the hot pane x = 1, u = 0 on the other sides.

    w = (∂ψ/∂y, -∂ψ/∂x) with ψ = -(1 - x²)(1 - y²) g, so walls let nothing through. With g = 1 this is the double
    glazing problem of IFISS (Elman, Silvester and Wathen 2014, "Finite elements and fast iterative solvers", example
    6.1.4), which has ε = 1/200: one eddy, w = (2y (1 - x²), -2x (1 - y²)), max |w| = 2. "random" draws g, a Gaussian
    field of variance 1 with covariance proportional to (-Δ + 49)^-3 in units of the side; |w| has a root mean square of
    1.8. ε is log-uniform. Both laws are ours.

    u jumps at the ends of the hot pane, where it is taken as 1/2. With g = 1 a quarter turn of the square leaves the
    wind as it is, so the solutions for each of the four sides hot add up to 1: the mean of u is 1/4, and so is u in the
    centre.

    P1 elements with streamline upwinding (SUPG) and ψ interpolated at the vertices. Upwinding acts along the wind only:
    at ε = 0.0005 and n = 32 u falls to -0.08.

    A sample holds ε as a scalar and, for n x n cells indexed [x, y], the mean of u at a cell's corners; with a random
    wind also both components of w, each the mean over a cell's two triangles.

    Args:
        resolution: cells along each side of the square, n >= 2. Good values: 64 to 256.
        wind: "recirculating", the wind of IFISS; or "random".
        smallest_diffusion: smallest ε, above 0. Layers are about √ε thick.
        largest_diffusion: largest ε, above the smallest.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        wind: str = "recirculating",
        smallest_diffusion: float = 0.002,
        largest_diffusion: float = 0.05,
    ):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: a square of cells needs at least 2 per side")
        if wind not in WINDS:
            raise ValueError(f"wind = {wind!r} is not known: {' or '.join(WINDS)}")
        if not 0 < smallest_diffusion < largest_diffusion < np.inf:
            raise ValueError(
                f"smallest_diffusion = {smallest_diffusion} must be above 0 and below "
                f"largest_diffusion = {largest_diffusion}, which must be finite"
            )
        self.resolution = resolution
        self.is_random = wind == "random"
        self._field = GaussianField(resolution + 1, exponent=3.0, inverse_length=7.0, centring="vertices")
        grid = Grid((resolution, resolution), extent=(SIDE, SIDE), origin=(-1.0, -1.0))
        drawn = {"diffusion": LogUniform(smallest_diffusion, largest_diffusion)}
        self.inputs = (FieldSpec(name="diffusion"),)
        if self.is_random:
            drawn["eddies"] = self._field
            self.inputs += (FieldSpec(name="wind_x", on=grid), FieldSpec(name="wind_y", on=grid))
        self.space = ParameterSpace(**drawn)
        self.outputs = (FieldSpec(name="temperature", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        inputs = {"diffusion": parameters["diffusion"]}
        stream = self.closed
        if self.is_random:
            stream = self.closed * parameters["eddies"] / self._deviation
            inputs["wind_x"], inputs["wind_y"] = mean_wind(stream) / SIDE
        # On a square of side 1 the equation has the same ε and ψ.
        system = self.discretisation.system(
            stream, np.zeros_like(stream), diffusion=parameters["diffusion"], boundary_values=self.walls
        )
        corners = self.walls.copy()
        corners[1:-1, 1:-1] = solve(system).x.array_r.reshape(system.grid.shape)
        yield Sample(inputs=inputs, outputs={"temperature": cell_means(corners)})

    @cached_property
    def closed(self) -> np.ndarray:
        """The stream function of IFISS, -(1 - x²)(1 - y²), [n + 1, n + 1]."""
        across = 1 - np.linspace(-1, 1, self.resolution + 1) ** 2
        return -np.outer(across, across)

    @cached_property
    def walls(self) -> np.ndarray:
        """u on the boundary, [n + 1, n + 1], zero inside."""
        values = np.zeros((self.resolution + 1, self.resolution + 1))
        values[-1, 1:-1] = 1.0
        values[-1, [0, -1]] = 0.5
        return values

    @cached_property
    def _deviation(self) -> float:
        """Standard deviation of the drawn fields."""
        return float(np.sqrt(self._field.variance))

    @cached_property
    def discretisation(self) -> UpwindedConvection:
        return UpwindedConvection(self.resolution)
