"""Calderón's problem: the conductivity of a square from currents at its boundary."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from math import pi

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion, couplings, outflow
from penstock.solvers.parameters.space import Discrete, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.inverse.traces import by_side, check_functions, flux_specs, fluxes, plane_waves
from penstock.solvers.problems.steady.helmholtz import check_waves

MAX_MODES = 5


class Calderon(Problem):
    """Calderón's problem: from a conductivity a to the fluxes of 20 potentials.

    -∇·(a ∇u) = 0 on the unit square, u = cos(ω (x cos θ + y sin θ)) on its boundary, for L angles θ. With
    `problem.swap: true` a surrogate learns the inverse: from the fluxes a ∂u/∂n to a.

    a = exp(Σ_k c_k sin(kπx) sin(kπy)) over k = 1, ..., m, with c_k uniform on [-1, 1] and m uniform on 1, ..., 5. This
    is the Calderón set with trigonometric coefficients of Molinaro et al. (2023, "Neural inverse operators for solving
    PDE inverse problems", arXiv 2301.11167), 4,096 + 1,024 + 2,047 samples of 20 potentials with 4 x 68 fluxes and 70 x
    70 values of a. The law of m, ω = π and θ = π (l + 1/2) / L are ours. As the cosine is even, θ and θ + π are the
    same potential, so angles around a whole circle would be data twice.

    P1 elements, a constant on squares. A sample's L systems share one matrix and differ in the right-hand side, so a
    direct solver factors once. The flux at a vertex is the balance of the part of the square around it, of second order
    as u is.

    A sample holds a at the centres of n x n squares, an array [n, n] indexed [x, y]; and the flux out of the square on
    `west` (x = 0), `east` (x = 1), `south` (y = 0) and `north` (y = 1), arrays [n - 1, L] at y or x = 1/n, ..., 1 - 1/n
    for each θ.

    Args:
        resolution: squares along each side of the unit square, n >= 2. Good values: 32 to 128, published are 69.
        num_functions: L, potentials per sample, at least 1. Published are 20.
        wavenumber: ω, above 0. A wave has 2π n / ω points; fewer than 5 are refused.
    """

    def __init__(self, *, resolution: int = 69, num_functions: int = 20, wavenumber: float = pi):
        if resolution < 2:
            raise ValueError(f"resolution = {resolution} is too small: an inner vertex needs 2 squares per side")
        check_functions(num_functions)
        check_waves(resolution, wavenumber)
        self.resolution = resolution
        self.num_functions = num_functions
        self.wavenumber = wavenumber
        amplitudes = {f"amplitude_{k}": Uniform(-1.0, 1.0) for k in range(1, MAX_MODES + 1)}
        self.space = ParameterSpace(num_modes=Discrete(tuple(range(1, MAX_MODES + 1))), **amplitudes)
        self.inputs = (FieldSpec(name="conductivity", on=Grid((resolution, resolution))),)
        self.outputs = flux_specs(resolution, num_functions)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        conductivity = self.conductivity(parameters)
        flows = self.fluxes(conductivity, self.boundary_values, solve)
        yield Sample(inputs={"conductivity": conductivity}, outputs=by_side(flows))

    def conductivity(self, parameters: Parameters) -> np.ndarray:
        """a on the squares for one draw, [n, n]."""
        numbers = np.arange(1, parameters["num_modes"] + 1)
        amplitudes = [parameters[f"amplitude_{k}"] for k in numbers]
        sines = np.sin(pi * np.outer((np.arange(self.resolution) + 0.5) / self.resolution, numbers))
        return np.exp((sines * amplitudes) @ sines.T)

    def fluxes(self, conductivity: np.ndarray, boundary_values: np.ndarray, solve: Solve) -> np.ndarray:
        """The fluxes at the vertices for one conductivity, [L, n + 1, n + 1].

        Args:
            conductivity: a on the squares, [n, n].
            boundary_values: potentials at the vertices, zero inside, [L, n + 1, n + 1].
            solve: solves a system.
        """
        self.discretisation.overwrite(conductivity)
        return fluxes(partial(outflow, couplings(conductivity)), self.discretisation.with_load, boundary_values, solve)

    @cached_property
    def boundary_values(self) -> np.ndarray:
        """The L potentials on the boundary, [L, n + 1, n + 1]."""
        return plane_waves(self.resolution, self.num_functions, self.wavenumber)

    @cached_property
    def discretisation(self) -> StructuredDiffusion:
        return StructuredDiffusion(self.resolution, 2, family="calderon")
