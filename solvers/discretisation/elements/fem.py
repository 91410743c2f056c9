"""P1 finite elements by DOLFINx, with degrees of freedom on a regular grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.solvers.discretisation.differences.cells import cell_means
from penstock.solvers.discretisation.elements.compiled import form
from penstock.solvers.discretisation.elements.gathering import Gathering
from penstock.solvers.problem import GridDofs, LinearSystem

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc


class DarcyDiscretisation:
    """P1 finite elements for Darcy flow on the unit square.

    The equation is -∇·(a ∇u) = f, u = 0 on the boundary, on n x n squares cut into two triangles each. a and f are
    constant on every square (both of its triangles), so they are arrays [X, Y] of cell values. One matrix and one
    vector are made once and overwritten by every `system`.

    Args:
        resolution: n.
        comm: the ranks that the mesh is distributed over; this process alone where absent.
    """

    def __init__(self, resolution: int, *, comm: MPI.Comm | None = None):
        from mpi4py import MPI  # before dolfinx and petsc4py, which would otherwise load another MPI

        # isort: split
        import dolfinx
        import ufl
        from dolfinx.fem.petsc import create_matrix, create_vector
        from petsc4py import PETSc

        self.resolution = resolution
        comm = comm or MPI.COMM_SELF
        mesh = dolfinx.mesh.create_unit_square(comm, resolution, resolution)
        self.space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
        cell_values = dolfinx.fem.functionspace(mesh, ("Discontinuous Lagrange", 0))
        self._coefficient = dolfinx.fem.Function(cell_values)
        self._source = dolfinx.fem.Function(cell_values)

        u, v = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        self._bilinear = form(self._coefficient * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
        self._linear = form(self._source * v * ufl.dx)

        mesh.topology.create_connectivity(1, 2)
        boundary = dolfinx.mesh.exterior_facet_indices(mesh.topology)
        dofs = dolfinx.fem.locate_dofs_topological(self.space, 1, boundary)
        self._conditions = [dolfinx.fem.dirichletbc(PETSc.ScalarType(0), dofs, self.space)]

        self._matrix = create_matrix(self._bilinear)
        self._matrix.setOption(PETSc.Mat.Option.SPD, True)
        self._vector = create_vector(self.space)

        # DOLFINx numbers cells and dofs in another order: find each one's place on the grid by its coordinates.
        cells = mesh.topology.index_map(2)
        num_cells = cells.size_local + cells.num_ghosts
        centroids = dolfinx.mesh.compute_midpoints(mesh, 2, np.arange(num_cells, dtype=np.int32))
        i, j = np.floor(centroids[:, :2] * resolution).astype(int).T
        self._square_of_cell = i * resolution + j
        owned = np.arange(self.space.dofmap.index_map.size_local)
        i, j = np.rint(self.space.tabulate_dof_coordinates()[owned, :2] * resolution).astype(int).T
        self.grid = GridDofs(
            shape=(resolution + 1, resolution + 1),
            spacing=(1 / resolution, 1 / resolution),
            permutation=i * (resolution + 1) + j,
        )
        self._gathered = Gathering(comm, owned, self.grid.permutation)

    def system(self, coefficient: np.ndarray, source: np.ndarray) -> LinearSystem:
        """The linear system for one coefficient and one source.

        Rows of boundary dofs are identity rows, their columns are eliminated: A is symmetric positive definite.

        Args:
            coefficient: cell values of a > 0, [X, Y].
            source: cell values of f, [X, Y].

        Returns:
            The system, whose A and b the next call overwrites.
        """
        from dolfinx.fem.petsc import assemble_matrix, assemble_vector, set_bc
        from petsc4py import PETSc

        # DG0 has one dof per cell, numbered like the cells.
        self._coefficient.x.array[:] = coefficient.ravel()[self._square_of_cell]
        self._source.x.array[:] = source.ravel()[self._square_of_cell]
        self._matrix.zeroEntries()
        assemble_matrix(self._matrix, self._bilinear, bcs=self._conditions)
        self._matrix.assemble()
        with self._vector.localForm() as with_ghosts:
            with_ghosts.set(0.0)
        assemble_vector(self._vector, self._linear)
        self._vector.ghostUpdate(PETSc.InsertMode.ADD, PETSc.ScatterMode.REVERSE)
        set_bc(self._vector, self._conditions)
        return LinearSystem(A=self._matrix, b=self._vector, is_spd=True, family="darcy", grid=self.grid)

    def with_load(self, load: np.ndarray) -> LinearSystem:
        """The system with the matrix of the last coefficient and another right-hand side.

        Args:
            load: b at the inner vertices, [X - 1, Y - 1].
        """
        self._vector.array = np.pad(load, 1).ravel()[self.grid.permutation]
        return LinearSystem(A=self._matrix, b=self._vector, is_spd=True, family="darcy", grid=self.grid)

    def vertex_values(self, x: PETSc.Vec) -> np.ndarray:
        """x at the vertices, [X + 1, Y + 1]."""
        return self._gathered(x.array_r).reshape(self.grid.shape)

    def cell_means(self, x: PETSc.Vec) -> np.ndarray:
        """The mean of x over the four corners of every square, [X, Y]."""
        return cell_means(self.vertex_values(x))
