"""P1 finite elements by DOLFINx on a mesh that is given as arrays.

Axes:  P points of the mesh, in its own order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.geometry import MeshArrays

if TYPE_CHECKING:
    import dolfinx
    import ufl
    from petsc4py import PETSc

CELLS = ("interval", "triangle", "tetrahedron")


class MeshElements:
    """P1 finite elements on the points and cells of a `Mesh`, u = 0 on its boundary.

    DOLFINx numbers its degrees of freedom in another order than the mesh its points. Values go in and come out in the
    mesh's order; matrices and vectors are in DOLFINx's, so that forms can be all that UFL can say.

    Args:
        arrays: the mesh.
    """

    def __init__(self, arrays: MeshArrays):
        from mpi4py import MPI  # before dolfinx and petsc4py, which would otherwise load another MPI

        # isort: split
        import basix.ufl
        import dolfinx
        import ufl

        dimension = arrays.points.shape[1]
        element = basix.ufl.element("Lagrange", CELLS[dimension - 1], 1, shape=(dimension,))
        mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, cells=arrays.cells, e=element, x=arrays.points)
        space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
        self.space = space
        self.trial, self.test = ufl.TrialFunction(space), ufl.TestFunction(space)

        # A P1 cell numbers its dofs like its corners, and DOLFINx remembers which points these were.
        self.point_of_dof = np.empty(len(arrays.points), np.int64)
        self.point_of_dof[space.dofmap.list] = mesh.geometry.input_global_indices[mesh.geometry.dofmaps[0]]

        mesh.topology.create_connectivity(dimension - 1, dimension)
        boundary = dolfinx.mesh.exterior_facet_indices(mesh.topology)
        dofs = dolfinx.fem.locate_dofs_topological(space, dimension - 1, boundary)
        self._conditions = [dolfinx.fem.dirichletbc(0.0, dofs, space)]

    def function(self) -> dolfinx.fem.Function:
        """A function for data of forms, zero until it is filled."""
        import dolfinx

        return dolfinx.fem.Function(self.space)

    def fill(self, function: dolfinx.fem.Function, values: np.ndarray) -> None:
        """Give a function its values at the points, [P]."""
        function.x.array[:] = values[self.point_of_dof]

    def matrix(self, bilinear: ufl.Form, *, is_spd: bool = False) -> PETSc.Mat:
        """The matrix of a bilinear form.

        Rows of dofs on the boundary are identity rows, their columns are eliminated.

        Args:
            bilinear: in `trial` and `test`.
            is_spd: whether the matrix is symmetric positive definite.
        """
        import dolfinx
        from dolfinx.fem.petsc import assemble_matrix

        matrix = assemble_matrix(dolfinx.fem.form(bilinear), bcs=self._conditions)
        matrix.assemble()
        matrix.setOption(matrix.Option.SPD, is_spd)
        return matrix

    def vector(self, linear: dolfinx.fem.Form) -> PETSc.Vec:
        """A new vector of a linear form in `test`, 0 on the boundary."""
        from dolfinx.fem.petsc import assemble_vector, set_bc

        vector = assemble_vector(linear)
        set_bc(vector, self._conditions)
        return vector

    def at_dofs(self, values: np.ndarray) -> PETSc.Vec:
        """A new vector with these values at the points, [P]."""
        from dolfinx.fem.petsc import create_vector

        vector = create_vector(self.space)
        vector.array = values[self.point_of_dof]
        return vector

    def at_points(self, vector: PETSc.Vec) -> np.ndarray:
        """The values of a vector at the points, [P]."""
        values = np.empty(len(self.point_of_dof))
        values[self.point_of_dof] = vector.array_r
        return values
