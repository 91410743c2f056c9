"""Taylor-Hood elements for flows, by DOLFINx on a mesh that is given as arrays.

Axes:  P points of the mesh, in its own order; M nodes of the velocity, which are the points and the edges' midpoints;
       B nodes where the velocity is given; N all unknowns; T cells, E edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import MeshArrays

if TYPE_CHECKING:
    import dolfinx
    import ufl
    from petsc4py import PETSc


class TaylorHood:
    """Quadratic velocities and linear pressures on the triangles of a `Mesh`.

    Velocities are given on the boundary, except on edges that are open, where the flow leaves as it likes. Without open
    edges the flow is enclosed, and one pressure is fixed as well, because only differences of pressure count then.

    Arrays of all unknowns [N], of a component's nodes [M] and of the pressure [P] are in DOLFINx's order; `at_points`
    brings the last two into the mesh's.

    Args:
        arrays: the mesh.
        is_open: from the midpoints of the edges on the boundary, [E, 2], to bool [E].
        curve: from the ends of all edges, [E, 2, 2], to their midpoints [E, 2], for edges that are parabolas. They are
            straight where absent.
    """

    def __init__(
        self,
        arrays: MeshArrays,
        *,
        is_open: Callable[[np.ndarray], np.ndarray] | None = None,
        curve: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        from mpi4py import MPI  # before dolfinx and petsc4py, which would otherwise load another MPI

        # isort: split
        import basix.ufl
        import dolfinx

        points, cells = arrays.points, arrays.cells
        if curve is not None:
            points, cells = with_midpoints(points, cells, curve)
        shape = basix.ufl.element("Lagrange", "triangle", 1 if curve is None else 2, shape=(2,))
        mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, cells=cells, e=shape, x=points)
        quadratic = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
        linear = basix.ufl.element("Lagrange", "triangle", 1)
        self.space = dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element([quadratic, linear]))
        self.component_space, (dofs_x,) = self.space.sub(0).sub(0).collapse()
        _, (dofs_y,) = self.space.sub(0).sub(1).collapse()
        self.velocity_dofs = np.array([dofs_x, dofs_y])  # [2, M]
        self.pressure_space, (self.pressure_dofs,) = self.space.sub(1).collapse()

        # A cell numbers its corners before its edges, and DOLFINx remembers which points these were.
        corners = mesh.geometry.input_global_indices[mesh.geometry.dofmaps[0][:, :3]]
        self._weights = arrays.weights
        self.node_of_point, self.pressure_of_point = np.empty((2, len(arrays.points)), np.int64)
        self.node_of_point[corners] = self.component_space.dofmap.list[:, :3]
        self.pressure_of_point[corners] = self.pressure_space.dofmap.list

        mesh.topology.create_connectivity(1, 2)
        edges = dolfinx.mesh.exterior_facet_indices(mesh.topology)
        opens = np.zeros(len(edges), bool)
        if is_open is not None:
            opens = is_open(dolfinx.mesh.compute_midpoints(mesh, 1, edges)[:, :2])
        self.boundary = dolfinx.fem.locate_dofs_topological(self.component_space, 1, edges[~opens])
        self.outlet = dolfinx.fem.locate_dofs_topological(self.pressure_space, 1, edges[opens])
        fixed = self.velocity_dofs[:, self.boundary].ravel()
        if not opens.any():
            fixed = np.append(fixed, self.pressure_dofs[0])
        self.fixed = np.sort(fixed).astype(np.int32)
        self.conditions = [dolfinx.fem.dirichletbc(dolfinx.fem.Function(self.space), self.fixed)]

    @property
    def trials(self) -> tuple[ufl.core.expr.Expr, ...]:
        """Velocity and pressure that bilinear forms are linear in."""
        from ufl import TrialFunctions

        return TrialFunctions(self.space)

    @property
    def tests(self) -> tuple[ufl.core.expr.Expr, ...]:
        """Velocity and pressure that all forms are tested with."""
        from ufl import TestFunctions

        return TestFunctions(self.space)

    @property
    def nodes(self) -> np.ndarray:
        """The coordinates of the velocity's nodes, [M, 2]."""
        return self.component_space.tabulate_dof_coordinates()[:, :2]

    def state(self, velocity: np.ndarray) -> np.ndarray:
        """All unknowns [N] of a flow at rest whose velocity on the boundary is [2, B]."""
        unknowns = np.zeros(self.velocity_dofs.size + self.pressure_dofs.size)
        unknowns[self.velocity_dofs[:, self.boundary]] = velocity
        return unknowns

    def at_points(self, velocity: np.ndarray, pressure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Velocity [2, P] and pressure [P] at the mesh's points, in its order.

        They come from [2, M] and [P] in DOLFINx's. The pressure of an enclosed flow has the mean 0.
        """
        pressure = pressure[self.pressure_of_point]
        if not len(self.outlet):
            pressure = pressure - np.average(pressure, weights=self._weights)
        return velocity[:, self.node_of_point], pressure

    def parts(self, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Velocity [2, M] and pressure [P] out of all unknowns [N]."""
        return unknowns[self.velocity_dofs], unknowns[self.pressure_dofs]


def overwrite(matrix: PETSc.Mat, bilinear: dolfinx.fem.Form, conditions: list[dolfinx.fem.DirichletBC]) -> None:
    """Give a matrix the values of a bilinear form.

    Rows of unknowns with a condition become identity rows, their columns are eliminated.
    """
    from dolfinx.fem.petsc import assemble_matrix

    matrix.zeroEntries()
    assemble_matrix(matrix, bilinear, bcs=conditions)
    matrix.assemble()


def with_midpoints(
    points: np.ndarray, cells: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of triangles with curved edges.

    Args:
        points: corners of the triangles, [P, 2].
        cells: numbers of points, [T, 3].
        curve: from the ends of all edges, [E, 2, 2], to their midpoints [E, 2].

    Returns:
        The points and the midpoints, [P + E, 2], and the numbers of every cell's corners and of the midpoints that face
        them, [T, 6].
    """
    ends = np.sort(cells[:, [[1, 2], [0, 2], [0, 1]]], axis=2)
    edges, numbers = np.unique(ends.reshape(-1, 2), axis=0, return_inverse=True)
    midpoints = len(points) + numbers.reshape(len(cells), 3)
    return np.concatenate([points, curve(points[edges])]), np.concatenate([cells, midpoints], axis=1)
