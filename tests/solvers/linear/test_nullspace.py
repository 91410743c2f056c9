"""Nullspaces given, missing, wrong; singular or only badly scaled."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import scipy.spatial
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.linear import STRATEGIES, LinearSolver, null_vectors, nullspace
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.problem import Outcome
from tests.support.systems import system_of

RTOL = 1e-8


def neumann(*shape: int, coefficient=None):
    """The matrix of -div(a grad u) without flux through the boundary.

    Its nullspace is that of the constants [n, 1].
    """
    a = np.ones(shape) if coefficient is None else coefficient
    cells = np.arange(a.size).reshape(shape)
    left = [np.take(cells, np.arange(n - 1), axis).ravel() for axis, n in enumerate(shape)]
    right = [np.take(cells, np.arange(1, n), axis).ravel() for axis, n in enumerate(shape)]
    p, q, f = np.concatenate(left), np.concatenate(right), a.ravel()
    conductance = 2 * f[p] * f[q] / (f[p] + f[q])
    edges = scipy.sparse.coo_array((conductance, (p, q)), shape=(a.size, a.size))
    degrees = np.bincount(np.append(p, q), np.append(conductance, conductance), a.size)
    return (scipy.sparse.diags_array(degrees) - edges - edges.T).tocsr(), np.full((a.size, 1), a.size**-0.5)


def elastic_body(*shape: int, length: float = 1.0):
    """Linear elements of steel on a jittered grid, and the rigid-body modes.

    The grid's first axis has this length.
    """
    generator = np.random.default_rng(0)
    axes = [np.linspace(0, length if axis == 0 else 1.0, n) for axis, n in enumerate(shape)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    points = points + generator.uniform(-0.1, 0.1, points.shape) / max(shape)
    cells, d = scipy.spatial.Delaunay(points).simplices, len(shape)
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    volumes = np.abs(np.linalg.det(edges)) / (2 if d == 2 else 6)
    gradients = np.linalg.inv(edges).transpose(0, 2, 1)
    gradients = np.concatenate([-gradients.sum(1, keepdims=True), gradients], 1)  # [cells, d + 1, d]
    lame, shear = 1.15e11, 7.7e10  # Pa
    blocks = lame * np.einsum("cai,cbj->caibj", gradients, gradients)
    blocks += shear * np.einsum("caj,cbi->caibj", gradients, gradients)
    blocks += shear * np.einsum("cak,cbk,ij->caibj", gradients, gradients, np.eye(d))
    blocks *= volumes[:, None, None, None, None]
    dofs = (d * cells[:, :, None] + np.arange(d)).reshape(len(cells), -1)
    rows, columns = np.repeat(dofs, dofs.shape[1], 1).ravel(), np.tile(dofs, dofs.shape[1]).ravel()
    A = scipy.sparse.coo_array((blocks.ravel(), (rows, columns)), shape=(points.size, points.size)).tocsr()
    modes = [np.tile(np.eye(d)[i], len(points)) for i in range(d)]
    for i in range(d):
        for j in range(i):
            rotation = np.zeros_like(points)
            rotation[:, i], rotation[:, j] = points[:, j], -points[:, i]
            modes.append(rotation.ravel())
    return A, np.linalg.qr(np.array(modes).T)[0]


def stokes(n: int, viscosity: float = 1.0):
    """Flow between walls on a staggered n x n grid, and the pressure's level.

    Velocity comes before pressure.
    """
    identity, inner = scipy.sparse.eye_array(n), scipy.sparse.eye_array(n - 1)

    def second(m: int, is_centred: bool):
        main = np.full(m, 2.0)
        main[[0, -1]] += is_centred
        return n**2 * scipy.sparse.diags_array([-np.ones(m - 1), main, -np.ones(m - 1)], offsets=[-1, 0, 1])

    across = scipy.sparse.kron(second(n - 1, False), identity) + scipy.sparse.kron(inner, second(n, True))
    along = scipy.sparse.kron(second(n, True), inner) + scipy.sparse.kron(identity, second(n - 1, False))
    slope = n * scipy.sparse.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    gradient = scipy.sparse.vstack([scipy.sparse.kron(slope, identity), scipy.sparse.kron(identity, slope)])
    stiffness = viscosity * scipy.sparse.block_diag([across, along])
    A = scipy.sparse.block_array([[stiffness, gradient], [gradient.T, None]]).tocsr()
    return A, np.append(np.zeros(A.shape[0] - n * n), np.full(n * n, 1 / n))[:, None]


def upwind(n: int, wind: float = 20.0):
    """Transport and diffusion between walls on n x n cells, with both nullspaces.

    Columns add up to zero, and the nullspace of the rows is not constant. The second nullspace is that of the
    transpose.
    """
    diffusion, constants = neumann(n, n)
    flux = scipy.sparse.diags_array([np.append(np.ones(n - 1), 0.0), -np.ones(n - 1)], offsets=[0, -1])
    A = (diffusion + wind * scipy.sparse.kron(flux, scipy.sparse.eye_array(n))).tocsr()
    return A, np.linalg.svd(A.toarray())[2][-1:].T, constants


def collocated(n: int, wind: float = 1.0):
    """Flow between walls by central differences, velocities and pressures at the same n x n points.

    Its nullspace is the pressures' at the corners, in no equation, and a checkerboard's four colours.
    """
    inner = scipy.sparse.eye_array(n - 2, n, k=1)
    slope = scipy.sparse.diags_array([-np.ones(n - 2), np.ones(n - 2)], offsets=[0, 2], shape=(n - 2, n)) / 2
    line = scipy.sparse.diags_array([-1 - wind / 2, 2.0, -1 + wind / 2], offsets=[-1, 0, 1], shape=(n - 2, n - 2))
    gradient = scipy.sparse.vstack([scipy.sparse.kron(slope, inner), scipy.sparse.kron(inner, slope)])
    momentum = scipy.sparse.block_diag([scipy.sparse.kronsum(line, line)] * 2)
    A = scipy.sparse.block_array([[momentum, gradient], [gradient.T, None]]).tocsr()
    return A, np.append(np.zeros(A.shape[0] - n * n), np.full(n * n, 1 / n))[:, None]


def solution_of(A, b, null, left=None):
    """The x orthogonal to the nullspace, by a bordered system.

    By Keller, [A L; Nᵀ 0] [x; 0] = [b; 0].
    """
    bordered = scipy.sparse.block_array([[A, null if left is None else left], [null.T, None]]).tocsc()
    scale = abs(A).max()
    bordered[: A.shape[0]] /= scale
    return scipy.sparse.linalg.spsolve(bordered, np.append(b / scale, np.zeros(null.shape[1])))[: A.shape[0]]


def beam(n: int, stiffness: float = 1.0):
    """The beam EI u'''' on n points, simply supported: condition 0.16 n⁴."""
    second = n**2 * scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return stiffness * (second @ second).tocsr()


def penalised(n: int, penalty: float):
    """The matrix of `neumann` with values on one side, set by a penalty."""
    A = neumann(n, n)[0]
    return A + scipy.sparse.diags_array(np.where(np.arange(n * n) < n, penalty, 0.0))


def scaled(A, null, generator, *, rows: bool, columns: bool, decades: float = 12.0):
    """A matrix with rows and columns times random powers of 10, and its nullspace."""
    left, right = 10.0 ** generator.uniform(-decades, decades, (2, A.shape[0]))
    if rows:
        A = scipy.sparse.diags_array(left) @ A
    if columns:
        A = A @ scipy.sparse.diags_array(right)
        null = np.linalg.qr(null / right[:, None])[0]
    return A.tocsr(), null


def space_of(null) -> PETSc.NullSpace:
    vectors = [PETSc.Vec().createWithArray(column.copy(), comm=MPI.COMM_SELF) for column in null.T]
    return PETSc.NullSpace().create(vectors=vectors, comm=MPI.COMM_SELF)


def two_bodies():
    """The matrix of two unconnected bodies, and its nullspace.

    Its vectors are constant on one body and zero on the other.
    """
    (one, null), (other, other_null) = neumann(6, 6), neumann(9, 5)
    return scipy.sparse.block_diag([one, other]).tocsr(), scipy.linalg.block_diag(null, other_null)


SINGULAR = {
    "no flux": lambda: neumann(16, 16),
    "no flux, contrast 1e8": lambda: neumann(
        16, 16, coefficient=10 ** np.random.default_rng(1).uniform(-4, 4, (16, 16))
    ),
    "two bodies": two_bodies,
    "elastic, 2D": lambda: elastic_body(8, 8),
    "elastic, 3D": lambda: elastic_body(4, 4, 4),
    "slender": lambda: elastic_body(60, 4, length=20.0),
    "Stokes": lambda: stokes(10),
    "Stokes, water": lambda: stokes(10, viscosity=1e-6),
}


def found_in(A, space=None) -> PETSc.Vec | None:
    """The vector that A is found to take to zero."""
    system = system_of(A, np.ones(A.shape[0]), nullspace=space)
    z = null_vectors.suspect_of(system, STRATEGIES["direct"])
    return z if z is not None and null_vectors.is_found(system.A, z) else None


def error(solution, expected) -> float:
    return np.linalg.norm(solution.x.array_r - expected) / np.linalg.norm(expected)


def consistent(A, generator) -> np.ndarray:
    """A consistent right-hand side.

    It comes from differences of a smooth solution, so that a condition of 1e8 leaves digits.
    """
    return A @ generator.standard_normal(A.shape[0])


@pytest.mark.parametrize("where", ["attached", "given"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_nullspace_is_used_wherever_it_is_and_left_where_it_was(name, where):
    """Six systems, so that `auto` tries and `lagged` keeps.

    MUMPS and PETSc's methods each have a matrix object.
    """
    generator = np.random.default_rng(0)
    solver = LinearSolver(STRATEGIES[name](), accuracy=1e-6)
    for _ in range(6):
        A, null = neumann(12, 12, coefficient=np.exp(generator.standard_normal((12, 12))))
        b, space = consistent(A, generator), space_of(null)
        system = system_of(A, b, is_spd=True, nullspace=space if where == "given" else None)
        if where == "attached":
            system.A.setNullSpace(space)
        solution = solver(system)
        assert solution.converged and error(solution, solution_of(A, b, null)) <= 1e-6
        assert system.A.getNullSpace().handle == (space.handle if where == "attached" else 0)
        assert system.A.getNearNullSpace().handle == 0
    assert solver.num_retried == 0


def test_the_systems_nullspace_wins_and_the_matrix_keeps_its_own():
    A, null = two_bodies()
    b = consistent(A, np.random.default_rng(0))
    system = system_of(A, b, is_spd=True, nullspace=space_of(null))
    constants = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    system.A.setOption(PETSc.Mat.Option.SYMMETRIC, True)  # PETSc then keeps it for the transpose, too
    system.A.setNullSpace(constants)
    for left in (constants, space_of(null)):
        system.A.setTransposeNullSpace(left)
        solution = LinearSolver(STRATEGIES["direct"](), rtol=RTOL)(system)
        assert solution.converged and error(solution, solution_of(A, b, null)) <= 1e-8
        assert system.A.getNullSpace().handle == constants.handle
        assert system.A.getTransposeNullSpace().handle == left.handle


@pytest.mark.parametrize("where", ["attached", "given"])
def test_a_near_nullspace_is_used_wherever_it_is(where):
    """Rigid-body modes halve the iterations of GAMG on steel held at one side."""
    A, modes = elastic_body(20, 20)
    free = np.arange(A.shape[0]) >= 40
    A, near = A[free][:, free], space_of(np.linalg.qr(modes[free])[0])
    system = system_of(A, np.ones(free.sum()), is_spd=True, near_nullspace=near if where == "given" else None)
    if where == "attached":
        system.A.setNearNullSpace(near)
    solutions = [
        LinearSolver(Krylov(ksp="cg", pc="gamg"), rtol=RTOL)(given)
        for given in (system, system_of(A, np.ones(free.sum()), is_spd=True))
    ]
    assert solutions[0].iterations < 0.7 * solutions[1].iterations
    assert system.A.getNearNullSpace().handle == (near.handle if where == "attached" else 0)


@pytest.mark.parametrize("kind", SINGULAR)
def test_every_nullspace_is_served_by_a_direct_solve(kind):
    A, null = SINGULAR[kind]()
    b = consistent(A, np.random.default_rng(0))
    solution = LinearSolver(STRATEGIES["direct"](), accuracy=1e-4)(system_of(A, b, nullspace=space_of(null)))
    assert solution.converged, solution.reason
    assert error(solution, solution_of(A, b, null)) <= 1e-4


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kind", ["no flux", "two bodies", "elastic, 2D", "Stokes"])
def test_a_singular_matrix_is_refused_whatever_the_strategy(kind, name):
    """A singular matrix without its nullspace is refused by every strategy.

    Most strategies would converge, each to a different x.
    """
    A, _ = SINGULAR[kind]()
    solver = LinearSolver(STRATEGIES[name](), accuracy=1e-4)
    for _ in range(2):
        solution = solver(system_of(A, consistent(A, np.random.default_rng(0)), is_spd=kind != "Stokes"))
        assert solution.outcome is Outcome.REFUSED and "the matrix is singular" in solution.reason
        assert "nullspace" in solution.reason and "\n" not in solution.reason


def test_constants_are_seen_in_any_system_of_a_family():
    regular, singular = penalised(8, 1.0), neumann(8, 8)[0]
    solver = LinearSolver(STRATEGIES["direct"](), rtol=RTOL)
    assert solver(system_of(regular, np.ones(64))).converged
    solution = solver(system_of(singular, consistent(singular, np.random.default_rng(0))))
    assert solution.outcome is Outcome.REFUSED and "it takes constants to zero" in solution.reason


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kind", SINGULAR)
def test_scaling_hides_no_nullspace(kind, rows, columns):
    """Scaling by 8 decades in each direction hides no nullspace.

    With the scaled nullspace given, no more is found.
    """
    A, null = scaled(*SINGULAR[kind](), np.random.default_rng(1), rows=rows, columns=columns, decades=4)
    found = found_in(A)
    assert found is not None
    outside = found.array_r - null @ (null.T @ found.array_r)
    assert np.linalg.norm(outside) <= 1e-6 * found.norm()
    assert found_in(A, space_of(null)) is None


REGULAR = {
    **{f"penalty {penalty:.0e}": lambda penalty=penalty: penalised(16, penalty) for penalty in (1e-3, 1e9, 1e16, 1e30)},
    **{f"beam of {n}": lambda n=n: beam(n, stiffness=2e11) for n in (64, 512, 3000)},
    "cantilever": lambda: held(*elastic_body(200, 3, length=100.0)),
    "reaction 1e-9": lambda: neumann(16, 16)[0] + 1e-9 * scipy.sparse.eye_array(256),
    "contrast 1e12": lambda: penalised(16, 1.0) @ scipy.sparse.diags_array(10.0 ** np.linspace(-6, 6, 256)),
}


def held(A, _modes):
    """The body with its first six degrees of freedom fixed."""
    return A[6:][:, 6:]


@pytest.mark.parametrize("kind", REGULAR)
def test_no_scaling_makes_a_regular_matrix_singular(kind):
    A = REGULAR[kind]()
    generator = np.random.default_rng(2)
    for rows, columns in ((False, False), (True, False), (False, True), (True, True)):
        B, _ = scaled(A, np.zeros((A.shape[0], 0)), generator, rows=rows, columns=columns)
        assert found_in(B) is None


@pytest.mark.parametrize("name", ["auto", "cg", "krylov"])
def test_what_is_too_large_to_factor_is_examined_by_the_strategy(name, monkeypatch):
    monkeypatch.setattr(null_vectors, "MAX_FACTORED", 100)
    A, _ = two_bodies()
    A = scipy.sparse.block_diag([A, neumann(10, 10)[0]]).tocsr()
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    solution = solver(system_of(A, consistent(A, np.random.default_rng(0)), is_spd=True))
    assert solution.outcome is Outcome.REFUSED and "singular" in solution.reason
    assert solver(system_of(penalised(16, 1.0), np.ones(256), is_spd=True)).converged


def test_a_mesh_that_is_another_one_each_time_is_not_factored_each_time(monkeypatch):
    factored = []
    search = nullspace.suspect_of
    monkeypatch.setattr(nullspace, "suspect_of", lambda *args: factored.append(0) or search(*args))
    solver = LinearSolver(Krylov(), rtol=1e-8)
    for size in range(10, 50):
        A = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(size, size))
        assert solver(system_of(A.tocsr(), np.ones(size), is_spd=True)).converged
    assert len(factored) == 4 + 3  # plus those with number 8, 16 and 32


def test_a_nullspace_that_changes_is_explained_by_that_of_the_transpose():
    """Transport without a way out, alone and beside other unknowns; with one, it is solved."""
    A, _, _ = upwind(8)
    beside = scipy.sparse.block_diag([beam(30), A]).tocsr()
    for matrix, named in ((A, "constants"), (beside, "a vector that is constant on 64 of its 94 unknowns")):
        system = system_of(matrix, np.ones(matrix.shape[0]))
        reason = LinearSolver(STRATEGIES["auto"](), rtol=RTOL)(system).reason
        assert reason.startswith(f"the matrix is singular: its transpose takes {named}") and "no level" in reason
    regular = A + scipy.sparse.diags_array((np.arange(64) == 5).astype(float))
    assert LinearSolver(STRATEGIES["auto"](), rtol=RTOL)(system_of(regular.tocsr(), np.ones(64))).converged


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_nullspace_that_is_none_is_named(name):
    A = penalised(8, 1.0)
    constants = PETSc.NullSpace().create(constant=True, comm=MPI.COMM_SELF)
    solution = LinearSolver(STRATEGIES[name](), rtol=RTOL)(system_of(A, np.ones(64), is_spd=True, nullspace=constants))
    assert (
        solution.outcome is Outcome.REFUSED
        and "A does not take vector 0 of the nullspace to zero (0." in solution.reason
    )


def test_rows_of_rounding_make_no_nullspace_wrong():
    """Rows that hold rounding alone make no nullspace wrong.

    Where the integral of a basis function's divergence is zero, assembly leaves some 1e-16 of it.
    """
    A, null = stokes(10, viscosity=1e-6)
    A = A.tolil()
    pressures = np.flatnonzero(null[:, 0])
    for row in (0, 17):
        A[row, pressures] = 0.0
        A[row, pressures[:3]] = (1e-15, -4e-15, 2e-15)
    A, b = A.tocsr(), np.zeros(A.shape[0])
    b[: pressures[0]] = np.random.default_rng(0).standard_normal(pressures[0])
    solution = LinearSolver(STRATEGIES["direct"](), accuracy=1e-4)(system_of(A, b, nullspace=space_of(null)))
    assert solution.converged, solution.reason


def test_a_nullspace_that_is_too_small_or_not_orthonormal_is_named():
    A, null = SINGULAR["elastic, 2D"]()
    b = consistent(A, np.random.default_rng(0))
    for space, said in (
        (null[:, :2], "beside the nullspace given, it takes a vector"),
        (2.0 * null, "the product of 0 and 0 is 4"),
        (null @ np.array([[1.0, 0.6], [0.0, 0.8], [0.0, 0.0]]), "the product of 0 and 1 is 0.6"),
    ):
        solution = LinearSolver(STRATEGIES["direct"](), rtol=RTOL)(system_of(A, b, nullspace=space_of(space)))
        assert solution.outcome is Outcome.REFUSED and said in solution.reason


@pytest.mark.parametrize("name", ["auto", "direct", "cg"])
def test_a_row_of_zeros_beside_the_nullspace_is_refused_and_one_within_it_solved(name):
    A, null = neumann(5, 5)
    b = np.append(consistent(A, np.random.default_rng(0)), 0.0)  # that row has a solution, and many
    beside, held = scipy.sparse.block_diag([A, [[0.0]]]).tocsr(), scipy.linalg.block_diag(null, 1.0)
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    solution = solver(system_of(beside, b, is_spd=True, nullspace=space_of(held[:, :1])))
    assert solution.outcome is Outcome.REFUSED
    assert "singular: beyond the nullspace given, its row 25 holds no entry but zeros:" in solution.reason
    assert found_in(beside, space_of(held[:, :1])) is not None
    solution = solver(system_of(beside, b, is_spd=True, nullspace=space_of(held)))
    assert solution.converged and error(solution, np.append(solution_of(A, b[:-1], null), 0.0)) <= 1e-6


def test_a_nullspace_that_is_a_function_may_explain_a_row_of_zeros():
    A = scipy.sparse.diags_array([0.0, 2.0, 3.0]).tocsr()
    space = PETSc.NullSpace().create(constant=False)
    space.setFunction(lambda _, vector: vector.setValue(0, 0.0))
    solution = LinearSolver(STRATEGIES["cg"](), rtol=RTOL)(
        system_of(A, np.array([0.0, 2.0, 3.0]), is_spd=True, nullspace=space)
    )
    assert "holds no entry but zeros" not in solution.reason


def test_a_row_of_zeros_is_explained_by_the_nullspace_of_the_transpose():
    A = scipy.sparse.diags_array([np.append(np.ones(9), 0.0), -np.ones(9)], offsets=[0, 1]).tocsr()  # u_i - u_(i + 1)
    b, null = np.append(np.arange(9.0), 0.0), np.full((10, 1), 10**-0.5)
    for left in (None, np.eye(10)[:, -1:]):
        system = system_of(A, b, nullspace=space_of(null))
        if left is not None:
            system.A.setTransposeNullSpace(space_of(left))
        solution = LinearSolver(STRATEGIES["direct"](), rtol=RTOL)(system)
        assert solution.converged, solution.reason
        assert error(solution, np.linalg.lstsq(A.toarray(), b)[0]) <= 1e-8
    A.data[:2] = 0.0
    solution = LinearSolver(STRATEGIES["direct"](), rtol=RTOL)(system_of(A, b, nullspace=space_of(null)))
    assert "beyond the nullspace given, its row 0 holds no entry but zeros, nor does another" in solution.reason


@pytest.mark.parametrize("has_corners", [False, True])
def test_what_is_taken_to_zero_beside_a_pressures_level_is_found_in_spite_of_rounding(has_corners):
    """Velocities in it are rounding alone, and so are rows of the divergence then."""
    A, level = collocated(9)
    is_in = (abs(A).sum(axis=1) > 0) | has_corners
    A, level = A[is_in][:, is_in], level[is_in] / np.linalg.norm(level[is_in])
    assert np.linalg.matrix_rank(A.toarray()) == A.shape[0] - (8 if has_corners else 4)
    solution = LinearSolver(STRATEGIES["auto"](), rtol=RTOL)(
        system_of(A, consistent(A, np.random.default_rng(0)), nullspace=space_of(level))
    )
    assert solution.outcome is Outcome.REFUSED and "is singular: be" in solution.reason
    found = found_in(A, space_of(level))
    assert np.linalg.norm(A @ found.array_r) <= 1e-12 * found.norm()


@pytest.mark.parametrize("name", ["auto", "direct", "krylov"])
def test_a_right_hand_side_that_is_not_consistent_is_named_with_its_figure(name):
    A, null = neumann(8, 8)
    b = consistent(A, np.random.default_rng(0))
    off = b + 1e-3 * np.linalg.norm(b) * null[:, 0]
    space = space_of(null)
    solver = LinearSolver(STRATEGIES[name](), rtol=RTOL)
    solution = solver(system_of(A, off, is_spd=True, nullspace=space))
    assert solution.outcome is Outcome.REFUSED
    assert "not consistent: its part along the nullspace is 1.0e-03" in solution.reason
    system = system_of(A, off, is_spd=True, nullspace=space)
    space.remove(system.b)  # as the error says
    assert error(solver(system), solution_of(A, b, null)) <= 1e-5


def test_consistency_is_a_matter_of_the_transposes_nullspace():
    A, null, left = upwind(8)
    generator = np.random.default_rng(0)
    b = consistent(A, generator)
    for says_left in (False, True):
        solver = LinearSolver(STRATEGIES["direct"](), rtol=RTOL)
        outcomes = []
        for right_hand_side in (b, b + 1e-3 * np.linalg.norm(b) * left[:, 0]):
            system = system_of(A, right_hand_side, nullspace=space_of(null))
            if says_left:
                system.A.setTransposeNullSpace(space_of(left))
            outcomes.append(solver(system))
        assert outcomes[0].converged and error(outcomes[0], solution_of(A, b, null, left)) <= 1e-7
        assert not outcomes[1].converged
        assert ("is not consistent" if says_left else "give that by A.setTransposeNullSpace") in outcomes[1].reason
    system.A.setTransposeNullSpace(space_of(null))
    assert (
        "A.setTransposeNullSpace is none of the transpose"
        in LinearSolver(STRATEGIES["direct"](), rtol=RTOL)(system).reason
    )


TWO_RANKS = """
from mpi4py import MPI
import numpy as np
from petsc4py import PETSc
from penstock.solvers.linear import STRATEGIES, LinearSolver
from penstock.solvers.problem import LinearSystem

A = PETSc.Mat().createAIJ([50, 50], nnz=3)
for row in range(*A.getOwnershipRange()):
    for column in (row - 1, row + 1):
        if 0 <= column < 50:
            A.setValue(row, column, -1.0)
    A.setValue(row, row, 2.0 if 0 < row < 49 else 1.0)
A.assemble()
b = A.createVecLeft()
b.array = np.cos(np.pi * (np.arange(*b.getOwnershipRange()) + 0.5) / 50)
constants = PETSc.NullSpace().create(constant=True)
said = []
for space in (None, constants):
    solution = LinearSolver(STRATEGIES["direct"](), rtol=1e-8)(LinearSystem(A=A, b=b, nullspace=space))
    exact = b / (2 - 2 * np.cos(np.pi / 50))
    is_right = (solution.x - exact).norm() < 1e-8 * exact.norm()
    said.append((str(solution.outcome), is_right, "constants" in solution.reason))
if MPI.COMM_WORLD.rank == 0:
    print(said)
"""


def test_two_ranks(run_on_ranks):
    said = eval(run_on_ranks(2, TWO_RANKS))
    assert said == [("refused", False, True), ("converged", True, False)]
