"""Inverse scattering: the refraction in a square from waves at its boundary."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import pi

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import FivePoint
from penstock.solvers.discretisation.differences.structured import couplings, outflow
from penstock.solvers.parameters.space import Discrete, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.inverse.traces import by_side, check_functions, flux_specs, fluxes, plane_waves
from penstock.solvers.problems.steady.helmholtz import check_waves

MAX_INCLUSIONS = 4
STEEPNESS = 2e4 / 3  # an inclusion has fallen to 1/e at 0.11 from its centre


class Scattering(Problem):
    """Scattering in the unit square: from the refraction κ to the fluxes of 20 waves.

    Δu + (ω κ)² u = 0, u = cos(ω (x cos θ + y sin θ)) on the boundary, for L angles θ. With `problem.swap: true` a
    surrogate learns the inverse: from the fluxes ∂u/∂n to κ.

    κ = 1 + Σ_k exp(-c (x - x_k)⁴ - c (y - y_k)⁴), c = 2·10⁴/3, is that of m inclusions, nearly squares, which add where
    they overlap; their centres are uniform on the unit square, and m is uniform on 1, ..., 4. Equation, boundary
    values, ω = 2π and the 70 x 70 points are those of the public code of Molinaro et al. (2023, "Neural inverse
    operators for solving PDE inverse problems", arXiv 2301.11167, github.com/mroberto166/nio), whose set has 12,621
    samples with κ in [1, 4.655]. The law of κ is ours, with κ in [1, 5]. Their angles are L from 0 to 2π,
    both ends included; ours are π (l + 1/2) / L. Their fluxes are differences of first order, ours of second.

    Five-point differences. A sample's L systems share one matrix, symmetric and indefinite, so a direct solver factors
    once. Near a resonance of the square, u and its fluxes are large.

    A sample holds κ at the vertices of n x n squares, an array [n + 1, n + 1] indexed [x, y]; and the flux out of the
    square on `west` (x = 0), `east` (x = 1), `south` (y = 0) and `north` (y = 1), arrays [n - 1, L] at y or x = 1/n,
    ..., 1 - 1/n for each θ.

    Args:
        resolution: squares along each side of the unit square, n >= 2. Good values: 69 (published) to 150. Where all
            inclusions overlap a wave has 2π n / (5 ω) points; fewer than 5 are refused.
        num_functions: L, waves per sample, at least 1. Published are 20.
        wavenumber: ω, above 0.
    """

    def __init__(self, *, resolution: int = 69, num_functions: int = 20, wavenumber: float = 2 * pi):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: an inner vertex needs 2 squares per side")
        check_functions(num_functions)
        check_waves(resolution, wavenumber * (1 + MAX_INCLUSIONS))
        self.resolution = resolution
        self.num_functions = num_functions
        self.wavenumber = wavenumber
        numbers = range(1, MAX_INCLUSIONS + 1)
        centres = {f"{axis}_{k}": Uniform(0.0, 1.0) for k in numbers for axis in "xy"}
        self.space = ParameterSpace(num_inclusions=Discrete(tuple(numbers)), **centres)
        grid = Grid((resolution + 1, resolution + 1), centring="vertices")
        self.inputs = (FieldSpec(name="refraction", on=grid),)
        self.outputs = flux_specs(resolution, num_functions)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        refraction = self.refraction(parameters)
        flows = self.fluxes((self.wavenumber * refraction) ** 2, self.boundary_values, solve)
        yield Sample(inputs={"refraction": refraction}, outputs=by_side(flows))

    def refraction(self, parameters: Parameters) -> np.ndarray:
        """κ at the vertices for one draw, [n + 1, n + 1]."""
        places = np.arange(self.resolution + 1) / self.resolution
        numbers = range(1, parameters["num_inclusions"] + 1)
        along_x, along_y = (
            np.exp(-STEEPNESS * np.subtract.outer(places, [parameters[f"{axis}_{k}"] for k in numbers]) ** 4)
            for axis in "xy"
        )
        return 1 + along_x @ along_y.T

    def fluxes(self, squares: np.ndarray, boundary_values: np.ndarray, solve: Solve) -> np.ndarray:
        """The fluxes at the vertices for one medium, [L, n + 1, n + 1].

        Args:
            squares: (ω κ)² at the vertices, [n + 1, n + 1].
            boundary_values: waves at the vertices, zero inside, [L, n + 1, n + 1].
            solve: solves a system.
        """
        n = self.resolution
        reaction = squares / n**2
        stencil = np.full((5, n - 1, n - 1), -1.0)
        stencil[0] = 4 - reaction[1:-1, 1:-1]
        self.discretisation.overwrite(stencil)
        along = np.ones(n + 1)
        along[[0, -1]] = 0.5
        reaction = np.outer(along, along) * reaction  # on the boundary half a square belongs to a vertex
        edges = couplings(np.ones((n, n)))
        return fluxes(lambda u: outflow(edges, u) - reaction * u, self.discretisation.with_load, boundary_values, solve)

    @cached_property
    def boundary_values(self) -> np.ndarray:
        """The L waves on the boundary, [L, n + 1, n + 1]."""
        return plane_waves(self.resolution, self.num_functions, self.wavenumber)

    @cached_property
    def discretisation(self) -> FivePoint:
        return FivePoint(self.resolution - 1, family="scattering", is_spd=False)
