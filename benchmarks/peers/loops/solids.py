"""Loops of a good DOLFINx user for solids and heat: forms compiled once, one matrix overwritten, its solver kept.

Each is a class whose call takes the parameters of a draw to the outputs of its samples, [T, C, P] in the mesh's order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.solvers import mpi

mpi.start()

import basix.ufl  # noqa: E402
import dolfinx  # noqa: E402
import ufl  # noqa: E402
from dolfinx import fem  # noqa: E402
from dolfinx.fem.petsc import (  # noqa: E402
    apply_lifting,
    assemble_matrix,
    assemble_vector,
    create_matrix,
    create_vector,
    set_bc,
)
from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from penstock.geometry import MeshArrays  # noqa: E402
from penstock.solvers.problem import Parameters, Problem  # noqa: E402

SOLVERS = {
    "LU (MUMPS)": ("preonly", "lu", "mumps"),
    "Cholesky (MUMPS)": ("preonly", "cholesky", "mumps"),
    "Cholesky (PETSc)": ("preonly", "cholesky", "petsc"),
    "CG + GAMG": ("cg", "gamg", None),
}
RTOL = 1e-6  # of CG


def kept_solver(matrix: PETSc.Mat, solver: str) -> PETSc.KSP:
    """A solver that keeps what it may: direct ones their symbolic factorisation, GAMG its interpolation.

    Args:
        matrix: will be overwritten.
        solver: one of `SOLVERS`.
    """
    method, preconditioner, package = SOLVERS[solver]
    ksp = PETSc.KSP().create(matrix.comm)
    ksp.setOperators(matrix)
    ksp.setType(method)
    pc = ksp.getPC()
    pc.setType(preconditioner)
    if package is not None:
        pc.setFactorSolverType(package)
        if package == "petsc":
            pc.setFactorOrdering("nd")
    else:
        options = PETSc.Options()
        options["peer_pc_gamg_reuse_interpolation"] = True
        ksp.setOptionsPrefix("peer_")
        ksp.setFromOptions()
    ksp.setTolerances(rtol=RTOL)
    return ksp


def mesh_of(arrays: MeshArrays) -> dolfinx.mesh.Mesh:
    dimension = arrays.points.shape[1]
    cell = {2: "triangle", 3: "tetrahedron"}[dimension]
    element = basix.ufl.element("Lagrange", cell, 1, shape=(dimension,))
    return dolfinx.mesh.create_mesh(MPI.COMM_SELF, cells=arrays.cells, e=element, x=arrays.points)


def dofs_of_points(space: fem.FunctionSpace) -> np.ndarray:
    """The (block) dof at each point of the mesh, in the mesh's own order."""
    mesh = space.mesh
    corners = mesh.geometry.input_global_indices[mesh.geometry.dofmaps[0]]
    dofs = np.empty(corners.max() + 1, np.int64)
    dofs[corners] = space.dofmap.list[:, : corners.shape[1]]
    return dofs


def side(mesh: dolfinx.mesh.Mesh, where: Callable) -> tuple[np.ndarray, ufl.Measure]:
    """The facets of a side, and the measure on it."""
    mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
    facets = np.sort(dolfinx.mesh.locate_entities_boundary(mesh, mesh.topology.dim - 1, where))
    tags = dolfinx.mesh.meshtags(mesh, mesh.topology.dim - 1, facets, np.ones_like(facets))
    return facets, ufl.Measure("ds", domain=mesh, subdomain_data=tags, subdomain_id=1)


class Kept:
    """One matrix, one vector and one solver for a(u, v) = l(v) with u given on a side."""

    def __init__(self, bilinear: ufl.Form, linear: ufl.Form, conditions: list, solver: str):
        self._a, self._l, self._conditions = fem.form(bilinear), fem.form(linear), conditions
        self._A, self._b = create_matrix(self._a), create_vector(self._l.function_spaces[0])
        self._A.setOption(PETSc.Mat.Option.SYMMETRIC, solver != "LU (MUMPS)")
        self._ksp = kept_solver(self._A, solver)
        self._x = self._b.duplicate()
        if solver == "CG + GAMG":
            space = self._l.function_spaces[0]
            if space.dofmap.index_map_bs > 1:
                self._A.setNearNullSpace(rigid_motions(bilinear.arguments()[0].ufl_function_space()))

    def factor(self) -> None:
        self._A.zeroEntries()
        assemble_matrix(self._A, self._a, bcs=self._conditions)
        self._A.assemble()
        self._ksp.setOperators(self._A)

    def load(self, *, lift: bool = False) -> PETSc.Vec:
        self._b.set(0.0)
        assemble_vector(self._b, self._l)
        if lift:
            apply_lifting(self._b, [self._a], [self._conditions])
        set_bc(self._b, self._conditions)
        return self._b

    def solve(self) -> np.ndarray:
        self._ksp.solve(self._b, self._x)
        return self._x.array_r


def rigid_motions(space: fem.FunctionSpace) -> PETSc.NullSpace:
    coordinates = create_vector(space)
    coordinates.array = space.tabulate_dof_coordinates()[:, : space.mesh.geometry.dim].ravel()
    return PETSc.NullSpace().createRigidBody(coordinates)


def hooke(u: ufl.core.expr.Expr, first: ufl.core.expr.Expr, second: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
    strain = ufl.sym(ufl.grad(u))
    return first * ufl.tr(strain) * ufl.Identity(len(u)) + 2 * second * strain


class Elastic:
    """A body clamped at x = 0 and pulled at x = `end`, with Hooke's law."""

    def __init__(self, problem: Problem, solver: str, *, degree: int, end: float):
        mesh = mesh_of(problem.mesh.arrays)
        dimension = mesh.geometry.dim
        space = fem.functionspace(mesh, ("Lagrange", degree, (dimension,)))
        self._at_points = dofs_of_points(space)
        clamped, _ = side(mesh, lambda x: np.isclose(x[0], 0.0))
        _, ds = side(mesh, lambda x: np.isclose(x[0], end))
        zero = fem.Constant(mesh, np.zeros(dimension))
        bc = fem.dirichletbc(zero, fem.locate_dofs_topological(space, dimension - 1, clamped), space)
        self._traction = fem.Constant(mesh, np.zeros(dimension))
        u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
        first, second = self.material(mesh)
        a = ufl.inner(hooke(u, first, second), ufl.grad(v)) * ufl.dx
        self._kept = Kept(a, ufl.inner(self._traction, v) * ds, [bc], solver)
        self._dimension = dimension

    def solved(self) -> np.ndarray:
        self._kept.factor()
        self._kept.load()
        return self._kept.solve().reshape(-1, self._dimension)[self._at_points].T[None]


class Elasticity(Elastic):
    def __init__(self, problem: Problem, solver: str):
        super().__init__(problem, solver, degree=1, end=1.0)

    def material(self, mesh: dolfinx.mesh.Mesh) -> tuple[ufl.core.expr.Expr, ufl.core.expr.Expr]:
        scalars = fem.functionspace(mesh, ("Lagrange", 1))
        self._points = np.argsort(dofs_of_points(scalars))
        self._modulus, self._ratio = fem.Function(scalars), fem.Constant(mesh, 0.0)
        E, nu = self._modulus, self._ratio
        return E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))

    def __call__(self, parameters: Parameters) -> np.ndarray:
        self._modulus.x.array[:] = parameters["youngs_modulus"].ravel()[self._points]
        self._ratio.value = parameters["poisson_ratio"]
        self._traction.value[:] = [parameters[f"traction_{axis}"] for axis in "xyz"[: self._dimension]]
        return self.solved()


class Cook(Elastic):
    def __init__(self, problem: Problem, solver: str):
        super().__init__(problem, solver, degree=problem.degree, end=48.0)

    def material(self, mesh: dolfinx.mesh.Mesh) -> tuple[ufl.core.expr.Expr, ufl.core.expr.Expr]:
        """Lamé's constants of plane stress, as numbers."""
        self._first, self._second = fem.Constant(mesh, 0.0), fem.Constant(mesh, 0.0)
        return self._first, self._second

    def __call__(self, parameters: Parameters) -> np.ndarray:
        E, nu = parameters["youngs_modulus"], parameters["poisson_ratio"]
        self._first.value, self._second.value = E * nu / (1 - nu**2), E / (2 * (1 + nu))
        self._traction.value[:] = parameters["force_x"] / 16, parameters["force_y"] / 16
        return self.solved()


class Thermal:
    """A constant matrix, factored once; a draw assembles its right-hand side and solves."""

    def __init__(self, problem: Problem, solver: str):
        mesh = mesh_of(problem.mesh.arrays)
        space = fem.functionspace(mesh, ("Lagrange", 2))
        self._at_points = dofs_of_points(space)
        left, _ = side(mesh, lambda x: np.isclose(x[0], -0.5))
        _, ds = side(mesh, lambda x: np.isclose(x[0], 0.5))
        self._left, self._flux = fem.Constant(mesh, 0.0), fem.Constant(mesh, 0.0)
        bc = fem.dirichletbc(self._left, fem.locate_dofs_topological(space, 1, left), space)
        u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
        a = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
        self._kept = Kept(a, -self._flux * v * ds, [bc], solver)
        self._kept.factor()

    def __call__(self, parameters: Parameters) -> np.ndarray:
        self._left.value, self._flux.value = parameters["left"], parameters["flux"]
        self._kept.load(lift=True)
        return self._kept.solve()[self._at_points][None, None]


class HyperelasticBlock:
    """A neo-Hookean block by Newton's method, one matrix for all steps."""

    def __init__(self, problem: Problem, solver: str):
        mesh = mesh_of(problem.mesh.arrays)
        space = fem.functionspace(mesh, ("Lagrange", problem.degree, (3,)))
        self._at_points, self._num_levels = dofs_of_points(space), problem.num_steps
        clamped, _ = side(mesh, lambda x: np.isclose(x[0], 0.0))
        _, ds = side(mesh, lambda x: np.isclose(x[0], 1.0))
        bc = fem.dirichletbc(fem.Constant(mesh, np.zeros(3)), fem.locate_dofs_topological(space, 2, clamped), space)
        self._weight, self._traction = (fem.Constant(mesh, np.zeros(3)) for _ in range(2))
        self._first, self._second = fem.Constant(mesh, 0.0), fem.Constant(mesh, 0.0)
        self._u, v = fem.Function(space), ufl.TestFunction(space)
        F = ufl.Identity(3) + ufl.grad(self._u)
        inverse = ufl.inv(F).T
        P = self._second * (F - inverse) + self._first * ufl.ln(ufl.det(F)) * inverse
        dx = ufl.dx(degree={1: 1, 2: 4}[problem.degree])
        inside = ufl.inner(P, ufl.grad(v)) * dx
        outside = ufl.inner(self._weight, v) * dx + ufl.inner(self._traction, v) * ds
        self._kept = Kept(ufl.derivative(inside, self._u), outside - inside, [bc], solver)

    def __call__(self, parameters: Parameters) -> np.ndarray:
        E, nu = parameters["youngs_modulus"], parameters["poisson_ratio"]
        self._first.value, self._second.value = E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))
        weight = np.array([parameters[f"weight_{axis}"] for axis in "xyz"])
        traction = np.array([parameters[f"traction_{axis}"] for axis in "xyz"])
        self._u.x.array[:] = 0.0
        samples = []
        for level in range(1, self._num_levels + 1):
            share = level / self._num_levels
            self._weight.value[:], self._traction.value[:] = share * weight, share * traction
            first = norm = self._kept.load().norm()
            while norm > 1e-8 * first:
                self._kept.factor()
                self._u.x.array[:] += self._kept.solve()
                norm = self._kept.load().norm()
            samples.append(self._u.x.array.reshape(-1, 3)[self._at_points].T)
        return np.array(samples)
