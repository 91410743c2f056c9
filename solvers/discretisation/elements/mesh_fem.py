"""Finite elements by DOLFINx on a mesh that is given as arrays.

Axes:  P points of the mesh, in its own order, T cells, d dimensions of space, C components of the solution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.geometry import MeshArrays
from penstock.solvers.discretisation.elements import compiled
from penstock.solvers.discretisation.elements.gathering import Gathering
from penstock.solvers.problem import LinearSystem

if TYPE_CHECKING:
    import dolfinx
    import ufl
    from mpi4py import MPI
    from petsc4py import PETSc

CELLS = ("interval", "triangle", "tetrahedron")

Part = Callable[[np.ndarray], np.ndarray]
"""A part of the boundary: the points that belong to it, bool [N], from the coordinates of points, [d, N].

A facet belongs to it if all its corners do.
"""


def everywhere(x: np.ndarray) -> np.ndarray:
    """The whole boundary, as a part of it."""
    return np.ones(x.shape[1], bool)


def plane(axis: int, coordinate: float) -> Part:
    """The part of the boundary where x_axis has this value."""
    return lambda x: np.isclose(x[axis], coordinate)


class MeshElements:
    """A `Mesh` in DOLFINx, and Lagrange elements on it.

    On a part of the boundary u is `given`, a function of DOLFINx that is zero until it is filled.

    Other elements, mixed ones too, are a function space on `mesh`: its forms are a `WeakForm`, its conditions come from
    `condition`, and data (`function`, `constants`, `on`) and output (`Recovery`) are the same for all.

    DOLFINx numbers its degrees of freedom in another order than the mesh its points. Values go in and come out in the
    mesh's order; matrices and vectors are in DOLFINx's, so that forms can be all that UFL can say.

    Matrices and vectors may be distributed over MPI ranks; values at the points are whole on each of them.

    Args:
        arrays: the mesh.
        degree: of the polynomials, 1 or above. Values go in and come out at the points of the mesh whatever it is.
        components: C; u is a vector field where it is above 1.
        fixed: the part of the boundary where u is given, all components of it together; all of it where absent. None
            leaves natural conditions everywhere, and `given` is then in no equation.
        comm: the ranks that the mesh is distributed over; this process alone where absent.

    Raises:
        ValueError: no facet lies on `fixed`.
    """

    def __init__(
        self,
        arrays: MeshArrays,
        *,
        degree: int = 1,
        components: int = 1,
        fixed: Part | None = everywhere,
        comm: MPI.Comm | None = None,
    ):
        from mpi4py import MPI  # before dolfinx and petsc4py, which would otherwise load another MPI

        # isort: split
        import basix.ufl
        import dolfinx
        import ufl

        self.dimension = arrays.points.shape[1]
        element = basix.ufl.element("Lagrange", CELLS[self.dimension - 1], 1, shape=(self.dimension,))
        comm = comm or MPI.COMM_SELF
        given_here = slice(None if comm.rank == 0 else 0)  # DOLFINx takes parts of a mesh, of which rank 0 gives all
        self.mesh = dolfinx.mesh.create_mesh(
            comm, cells=arrays.cells[given_here], e=element, x=arrays.points[given_here]
        )
        """The mesh of DOLFINx, for function spaces of other elements."""
        self._shape = (components,) if components > 1 else ()
        self.space = dolfinx.fem.functionspace(self.mesh, ("Lagrange", degree, self._shape))
        self.trial, self.test = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        dofs, points = self._dofs_at_points(self.space)
        is_own = dofs < self.space.dofmap.index_map.size_local
        self._own_points = points[is_own]
        self._gathered = Gathering(comm, dofs[is_own], self._own_points)
        self.num_moves = 0

        self.given = dolfinx.fem.Function(self.space)
        self.conditions = []
        if fixed is not None:
            facets = self._facets(fixed, "fixed", "; give None where u is given nowhere")
            dofs = dolfinx.fem.locate_dofs_topological(self.space, self.dimension - 1, facets)
            self.conditions = [dolfinx.fem.dirichletbc(self.given, dofs)]

    def move(self, points: np.ndarray) -> None:
        """Put the points of the mesh elsewhere, [P, d].

        Its cells stay, and so do the parts of its boundary.
        """
        geometry = self.mesh.geometry
        geometry.x[:, : self.dimension] = points[geometry.input_global_indices]
        self.num_moves += 1

    def function(self) -> dolfinx.fem.Function:
        """A scalar P1 function for data of forms, zero until it is filled."""
        import dolfinx

        return dolfinx.fem.Function(self._linear[0])

    def fill(self, function: dolfinx.fem.Function, values: np.ndarray) -> None:
        """Give a function its values at the points, [P].

        It is one from `function`, or `given` where u is a scalar of degree 1.
        """
        function.x.array[:] = values[self._linear[1]]

    def constants(self, names: Iterable[str]) -> dict[str, dolfinx.fem.Constant]:
        """Numbers for data of forms, by name, zero until their `value` is set."""
        import dolfinx

        return {name: dolfinx.fem.Constant(self.mesh, 0.0) for name in names}

    def condition(
        self, given: dolfinx.fem.Function, part: Part, *, of: dolfinx.fem.FunctionSpace | None = None
    ) -> dolfinx.fem.DirichletBC:
        """The condition that the solution equals a function on a part of the boundary.

        For H(div) elements, such as Raviart-Thomas, that is the flux through the part.

        Args:
            given: a function of the solution's space, which may be filled again before each system.
            part: the part of the boundary.
            of: the part of a mixed space that the condition is on, `space.sub(0)` for instance; the space where absent.

        Raises:
            ValueError: no facet lies on the part.
        """
        import dolfinx

        space = given.function_space if of is None else of
        facets = self._facets(part, "condition(part)", "; a point alone is held by dolfinx.fem.dirichletbc")
        dofs = dolfinx.fem.locate_dofs_topological(space, self.dimension - 1, facets)
        return dolfinx.fem.dirichletbc(given, dofs)

    def on(self, part: Part) -> ufl.Measure:
        """The measure ds of a part of the boundary; a form takes one part at most.

        Raises:
            ValueError: no facet lies on it.
        """
        import dolfinx
        import ufl

        facets = np.sort(self._facets(part, "on(part)"))
        tags = dolfinx.mesh.meshtags(self.mesh, self.dimension - 1, facets, np.ones_like(facets))
        return ufl.Measure("ds", domain=self.mesh, subdomain_data=tags, subdomain_id=1)

    def at_dofs(self, values: np.ndarray) -> PETSc.Vec:
        """A new vector with these values [P] or [C, P] at the points, for degree 1."""
        vector = self._vector.duplicate()  # to create one takes ten times as long
        vector.array = values.T[self._own_points].ravel()
        return vector

    def at_points(self, vector: PETSc.Vec) -> np.ndarray:
        """The values of a vector at the points, [P] or [C, P]."""
        return np.ascontiguousarray(self._gathered(vector.array_r.reshape(-1, *self._shape)).T)

    def rigid_motions(self) -> PETSc.NullSpace:
        """The translations and rotations of the body, for algebraic multigrid."""
        from dolfinx.fem.petsc import create_vector
        from petsc4py import PETSc

        coordinates = create_vector(self.space)  # which knows its blocks
        num_own = self.space.dofmap.index_map.size_local
        coordinates.array = self.space.tabulate_dof_coordinates()[:num_own, : self.dimension].ravel()
        return PETSc.NullSpace().createRigidBody(coordinates)

    @property
    def corners(self) -> np.ndarray:
        """The points of every cell of this rank in DOLFINx's order, [T, d + 1]."""
        return self.mesh.geometry.input_global_indices[self.mesh.geometry.dofmaps[0]]

    @cached_property
    def _vector(self) -> PETSc.Vec:
        from dolfinx.fem.petsc import create_vector

        return create_vector(self.space)

    @cached_property
    def _linear(self) -> tuple[dolfinx.fem.FunctionSpace, np.ndarray]:
        """The space of scalar P1 functions, and the points of this rank's dofs."""
        import dolfinx

        space = dolfinx.fem.functionspace(self.mesh, ("Lagrange", 1))
        return space, self._dofs_at_points(space)[1]

    def _dofs_at_points(self, space: dolfinx.fem.FunctionSpace) -> tuple[np.ndarray, np.ndarray]:
        """The dofs of this rank at points of the mesh, ascending, and these points.

        They are blocks of dofs where u has components.
        """
        # A cell's first dofs are those at its corners.
        dofs, firsts = np.unique(space.dofmap.list[:, : self.corners.shape[1]], return_index=True)
        return dofs, self.corners.ravel()[firsts]

    def _facets(self, part: Part, name: str, hint: str = "") -> np.ndarray:
        import dolfinx

        def belongs(x: np.ndarray) -> np.ndarray:
            found = part(x[: self.dimension])
            is_array = isinstance(found, np.ndarray)
            if not is_array or found.dtype != bool or found.shape != x.shape[1:]:
                what = f"{found.dtype} {list(found.shape)}" if is_array else type(found).__name__
                raise ValueError(f"{name}: a part must return bool [N] for N points, got {what}")
            return found

        self.mesh.topology.create_connectivity(self.dimension - 1, self.dimension)
        facets = dolfinx.mesh.locate_entities_boundary(self.mesh, self.dimension - 1, belongs)
        if not self.mesh.comm.allreduce(len(facets)):
            reason = "no facet of the boundary has all its corners on this part; widen its tolerance or refine the mesh"
            raise ValueError(f"{name}: {reason}{hint}")
        return facets


class Recovery:
    """The values of an expression at the points: means over the cells around each.

    It may jump between cells, as a stress does, or a function of any elements. It is compiled once.

    Args:
        elements: the mesh, on one rank.
        expression: a scalar, vector or tensor of functions on the mesh, of any space.
    """

    def __init__(self, elements: MeshElements, expression: ufl.core.expr.Expr):
        self._elements, self._corners = elements, elements.corners
        in_cell = np.concatenate([np.zeros((1, elements.dimension)), np.eye(elements.dimension)])
        self._expression = compiled.expression(expression, in_cell, elements.mesh.ufl_domain())
        self._num_cells = np.bincount(self._corners.ravel())

    def at_points(self) -> np.ndarray:
        """The values for the data as they are, [P] or [C, P].

        The components of a tensor follow one another row by row.
        """
        cells = np.arange(len(self._corners), dtype=np.int32)
        values = self._expression.eval(self._elements.mesh, cells).reshape(self._corners.size, -1)
        sums = [np.bincount(self._corners.ravel(), component) for component in values.T]
        return np.squeeze(sums / self._num_cells)


class WeakForm:
    """The linear systems of a(u, v) = l(v), with u given on a part of the boundary.

    The forms may be any that UFL can say, over any function space on the mesh: u and v are the space's trial and test
    function, which a mixed space splits. Forms are compiled once. One matrix and one vector are made once and
    overwritten by every `system`; a form a without data that may change, functions or constants, has its matrix
    assembled once, or once per move of the mesh.

    Rows of dofs where u is given are identity rows, their columns are eliminated: A is symmetric if a is.

    Args:
        elements: the mesh.
        bilinear: a.
        linear: l.
        conditions: where u is given. Where absent, those of `elements` if u is in their space, none if it is not.
        **properties: of the `LinearSystem`: `family`, `is_spd`, `nullspace`, `near_nullspace`.
    """

    def __init__(
        self,
        elements: MeshElements,
        bilinear: ufl.Form,
        linear: ufl.Form,
        *,
        conditions: Sequence[dolfinx.fem.DirichletBC] | None = None,
        **properties: Any,
    ):
        from dolfinx.fem.petsc import create_matrix, create_vector

        space = bilinear.arguments()[0].ufl_function_space()
        if conditions is None:
            conditions = elements.conditions if space == elements.space else []

        self._elements = elements
        self._bilinear, self._linear = compiled.form(bilinear), compiled.form(linear)
        self._conditions, self._properties = list(conditions), properties
        self._is_constant = not bilinear.coefficients() and not bilinear.constants()
        self._assembled_after = -1  # moves of the mesh
        self._matrix = create_matrix(self._bilinear)
        self._matrix.setOption(self._matrix.Option.SPD, properties.get("is_spd", False))
        self._vector = create_vector(space)
        dofmap = space.dofmap
        self._held = np.zeros(dofmap.index_map_bs * (dofmap.index_map.size_local + dofmap.index_map.num_ghosts))

    def system(self, guess: PETSc.Vec | None = None) -> LinearSystem:
        """The system for the data as they are, whose A and b the next call overwrites."""
        return LinearSystem(A=self.matrix(), b=self.vector(), guess=guess, **self._properties)

    def with_load(self, linear: dolfinx.fem.Form) -> LinearSystem:
        """The system for another l, with the matrix as it was assembled last.

        u is 0 where it is given.

        Args:
            linear: l, compiled.
        """
        from dolfinx.fem.petsc import set_bc

        self._assemble(linear, lifts=False)
        set_bc(self._vector, self._conditions, alpha=0.0)
        return LinearSystem(A=self._matrix, b=self._vector, **self._properties)

    def matrix(self) -> PETSc.Mat:
        """The matrix A for the data as they are."""
        from dolfinx.fem.petsc import assemble_matrix

        if not (self._is_constant and self._assembled_after == self._elements.num_moves):
            self._matrix.zeroEntries()
            assemble_matrix(self._matrix, self._bilinear, bcs=self._conditions)
            self._matrix.assemble()
            self._assembled_after = self._elements.num_moves
        return self._matrix

    def vector(self) -> PETSc.Vec:
        """The right-hand side b for the data as they are."""
        from dolfinx.fem.petsc import set_bc

        for condition in self._conditions:
            condition.set(self._held)
        self._assemble(self._linear, lifts=self._held.any())
        set_bc(self._vector, self._conditions)
        return self._vector

    def _assemble(self, linear: dolfinx.fem.Form, *, lifts: bool) -> None:
        """Overwrite b with l(v), less a(u, v) for what u is where it is given."""
        from dolfinx.fem.petsc import apply_lifting, assemble_vector
        from petsc4py import PETSc

        with self._vector.localForm() as with_ghosts:
            with_ghosts.set(0.0)
        assemble_vector(self._vector, linear)
        if lifts:
            apply_lifting(self._vector, [self._bilinear], [self._conditions])
        self._vector.ghostUpdate(PETSc.InsertMode.ADD, PETSc.ScatterMode.REVERSE)
