"""Heat conduction in a block with a slot.

Axes:  P points of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements, WeakForm, plane
from penstock.solvers.discretisation.elements.triangulation import box
from penstock.solvers.parameters.space import Normal, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve

if TYPE_CHECKING:
    import dolfinx

HALF = np.array([0.5, 0.8])  # width and height of the block
SLOT = np.array([0.05, 0.4])
CELLS = np.array([20, 32])  # squares of size SLOT[0] along each axis
NUM_MODES = 4
EDGES = ("numbers", "functions")


class Thermal(Problem):
    """Heat conduction in a slotted block: from two edges to temperature T.

    ΔT = 0 on the block [-0.5, 0.5] x [-0.8, 0.8] less the slot (-0.05, 0.05) x (-0.4, 0.4). The slot, the top and the
    bottom are insulated, ∂T/∂n = 0.

    With `edges: numbers` T = r_1 on the left edge and ∂T/∂n = -r_2 on the right edge, both drawn uniformly from
    [0, 100]. This is the thermal set in the published code of Wang et al. (2024, "Accelerating data generation for
    neural operators via Krylov subspace recycling", arXiv 2401.09516), which its text describes otherwise. T is linear
    in the two numbers: T = r_1 - r_2 ψ.

    With `edges: functions` temperature is given on both edges,

        T = Σ_{k<4} c_k cos(kπ s),   s = (y + 0.8) / 1.6,   c_0 ~ N(50, 40²),   c_k ~ N(0, (40 / (1 + k²))²),

    with separate c_k for each. This law is ours.

    P2 finite elements by DOLFINx on squares of two triangles, the same matrix for all draws. The corners of the slot
    limit the order to 4/3.

    A sample holds `temperature` [P] at the points of the mesh. With numbers it goes there from the scalars `left` r_1
    and `flux` r_2; with functions from the scalars `left_0`, ..., `left_3`, `right_0`, ..., `right_3`, which are the
    c_k, and from the field `edge_temperature` [P], which is 0 off the edges.

    Args:
        resolution: squares across half of the slot, n >= 1. Good values: 1 to 5, which give 678 to 15,550 points and
            up to four times as many unknowns.
        edges: "numbers" or "functions".
    """

    is_parallel = True

    def __init__(self, *, resolution: int = 2, edges: str = "numbers"):
        if resolution < 1:
            raise ValueError(f"resolution = {resolution} is too small: half of the slot needs at least 1 square")
        if edges not in EDGES:
            raise ValueError(f"edges = {edges!r} is not known: {' or '.join(EDGES)}")
        self.edges = edges
        across, along = resolution * CELLS
        in_slot = (2 * resolution - 1) * (16 * resolution - 1)  # points
        self.mesh = Mesh((across + 1) * (along + 1) - in_slot, 2, partial(slotted_block, resolution))
        if edges == "numbers":
            self.space = ParameterSpace(left=Uniform(0.0, 100.0), flux=Uniform(0.0, 100.0))
        else:
            self.space = ParameterSpace(
                **{
                    f"{edge}_{k}": Normal(mean=0.0 if k else 50.0, deviation=40.0 / (1 + k**2))
                    for edge in ("left", "right")
                    for k in range(NUM_MODES)
                }
            )
        scalars = tuple(FieldSpec(name=name) for name in self.space.distributions)
        fields = (FieldSpec(name="edge_temperature", on=self.mesh),) if edges == "functions" else ()
        self.inputs = (*fields, *scalars)
        self.outputs = (FieldSpec(name="temperature", on=self.mesh),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        given, inputs = self.elements.given, dict(parameters)
        if self.edges == "numbers":
            given.x.array[:] = parameters["left"]
            self._flux.value = parameters["flux"]
        else:
            given.x.array[:] = np.array([parameters[name] for name in self.space.distributions]) @ self._modes
            inputs["edge_temperature"] = self.elements.at_points(given.x.petsc_vec)
        temperature = self.elements.at_points(solve(self.equation.system()).x)
        yield Sample(inputs=inputs, outputs={"temperature": temperature})

    @cached_property
    def elements(self) -> MeshElements:
        is_fixed = plane(0, -HALF[0]) if self.edges == "numbers" else lambda x: np.isclose(np.abs(x[0]), HALF[0])
        return MeshElements(self.mesh.arrays, degree=2, fixed=is_fixed, comm=self.comm)

    @cached_property
    def equation(self) -> WeakForm:
        """∫ ∇T·∇v dx = -∫ r_2 v ds over the right edge."""
        from ufl import dx, grad, inner

        T, v = self.elements.trial, self.elements.test
        flux = -self._flux * v * self.elements.on(plane(0, HALF[0]))
        return WeakForm(self.elements, inner(grad(T), grad(v)) * dx, flux, family="thermal", is_spd=True)

    @cached_property
    def _flux(self) -> dolfinx.fem.Constant:
        """r_2; it stays 0 where both temperatures are given."""
        return self.elements.constants(["flux"])["flux"]

    @cached_property
    def _modes(self) -> np.ndarray:
        """cos(kπ s) on one edge each, 0 elsewhere: [number of c_k, number of dofs]."""
        mode, rows = self.elements.given, []
        for edge in (-HALF[0], HALF[0]):
            for k in range(NUM_MODES):
                mode.interpolate(
                    lambda x, edge=edge, k=k: np.isclose(x[0], edge) * np.cos(k * np.pi * (x[1] / HALF[1] + 1) / 2)
                )
                rows.append(mode.x.array.copy())
        return np.array(rows)


def slotted_block(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The mesh of `Thermal`: points [P, 2] and cells [T, 3]."""
    points, cells = box(resolution * CELLS)
    points = (2 * points - 1) * HALF
    in_slot = (np.abs(points[cells].mean(axis=1)) < SLOT).all(axis=1)
    kept, cells = np.unique(cells[~in_slot], return_inverse=True)
    return points[kept], cells.reshape(-1, 3)
