"""Multigrid and fast Poisson against direct solves."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from mpi4py import MPI
from petsc4py import PETSc

from penstock.solvers.discretisation.elements.fem import DarcyDiscretisation
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.preconditioners.by_name import set_preconditioner
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.problem import GridDofs, LinearSystem
from tests.support import systems
from tests.support.systems import to_scipy

NAMES = ["multigrid", "fast_poisson"]


def system_of(A, shape, spacing=None, permutation=None, is_spd=True) -> LinearSystem:
    """A SciPy matrix over the points of a grid in C order as a system.

    `permutation` says which point each dof is.
    """
    A = scipy.sparse.csr_array(A)
    permutation = np.arange(A.shape[0]) if permutation is None else permutation
    grid = GridDofs(shape=shape, spacing=spacing or (1.0,) * len(shape), permutation=permutation)
    return systems.system_of(A[permutation][:, permutation], is_spd=is_spd, grid=grid)


def laplacian(num_points, boundary="dirichlet", coupling=1.0):
    """The one-dimensional -d²/dx², and the parts of a cell that points have."""
    main = np.full(num_points, 2.0)
    weights = np.ones(num_points)
    if boundary == "dirichlet between":
        main[[0, -1]] = 3.0
    elif boundary == "neumann between":
        main[[0, -1]] = 1.0
    elif boundary == "neumann":
        main[[0, -1]] = 1.0
        weights[[0, -1]] = 0.5
    side = -np.ones(num_points - 1)
    return coupling * scipy.sparse.diags_array([side, main, side], offsets=[-1, 0, 1]), scipy.sparse.diags_array(
        weights
    )


def tensor_operator(shape, boundaries, couplings, reaction=0.0):
    """The sum over axes of one-dimensional operators, times the other axes' weights."""
    one_dimensional = [laplacian(*arguments) for arguments in zip(shape, boundaries, couplings, strict=True)]
    total = 0.0
    for axis in [*range(len(shape)), None]:
        product = scipy.sparse.eye_array(1)
        for other, (operator, weights) in enumerate(one_dimensional):
            product = scipy.sparse.kron(product, operator if other == axis else weights)
        total = total + (reaction if axis is None else 1.0) * product
    return total.tocsr()


def diffusion(coefficient):
    """The seven- or five-point -∇·(a ∇u) on the cells of an array.

    It takes harmonic means, and zero half a spacing outside.
    """
    shape = coefficient.shape
    points = np.arange(coefficient.size).reshape(shape)
    padded = np.pad(coefficient, 1, mode="edge")
    inner = tuple(slice(1, -1) for _ in shape)
    diagonal = np.zeros(shape)
    A = scipy.sparse.csr_array((coefficient.size, coefficient.size))
    for axis in range(len(shape)):
        for step in (-1, 1):
            neighbour = np.roll(padded, -step, axis)[inner]
            coupling = 2 * coefficient * neighbour / (coefficient + neighbour)
            edge = [slice(None)] * len(shape)
            edge[axis] = 0 if step < 0 else -1
            outside = np.zeros(shape, dtype=bool)
            outside[tuple(edge)] = True
            diagonal += np.where(outside, 2 * coupling, coupling)
            rows = points[~outside]
            columns = np.roll(points, -step, axis)[~outside]
            A = A + scipy.sparse.csr_array((-coupling[~outside], (rows, columns)), shape=A.shape)
    return A + scipy.sparse.diags_array(diagonal.ravel())


def two_phase(shape, seed=0, above=12.0, below=3.0):
    """A field of blobs, some cells wide."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = np.real(np.fft.ifftn(np.fft.fftn(noise) * np.exp(-sum(f**2 for f in frequencies(shape)) / 8)))
    return np.where(smooth > 0, above, below)


def frequencies(shape):
    return np.meshgrid(*[np.fft.fftfreq(n, 1 / n) for n in shape], indexing="ij")


def preconditioner(system, name):
    pc = PETSc.PC().create(MPI.COMM_SELF)
    set_preconditioner(pc, name, system)
    pc.setOperators(system.A)
    pc.setUp()
    return pc


def dense_inverse(pc, num_unknowns):
    """The matrix M⁻¹, column by column."""
    source, target = (PETSc.Vec().createSeq(num_unknowns, comm=MPI.COMM_SELF) for _ in range(2))
    columns = []
    for column in np.eye(num_unknowns):
        source.array = column
        pc.apply(source, target)
        columns.append(target.array_r.copy())
    return np.array(columns).T


def cg(system, name, rtol=1e-8) -> tuple[np.ndarray, int]:
    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=rtol, atol=0.0, max_it=200)
    set_preconditioner(ksp.getPC(), name, system)
    ksp.setOperators(system.A)
    x = system.b.duplicate()
    ksp.solve(system.b, x)
    assert ksp.getConvergedReason() > 0
    return x.array_r.copy(), ksp.getIterationNumber()


def check_solution(system, x, rtol=1e-6):
    expected = scipy.sparse.linalg.spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
    np.testing.assert_allclose(x, expected, rtol=0, atol=rtol * np.abs(expected).max())


D, DB, N, NB = "dirichlet", "dirichlet between", "neumann", "neumann between"
TENSORS = [  # shape, boundary conditions, couplings, reaction
    ((7,), (D,), (1.0,), 0.0),
    ((31, 20), (D, D), (1.0, 1.0), 0.0),
    ((17, 33), (DB, DB), (1.0, 3.0), 0.0),
    ((16, 21), (N, D), (1.0, 1.0), 0.0),
    ((21, 22), (N, N), (1.0, 2.0), 0.1),
    ((20, 15), (NB, NB), (1.0, 1.0), 0.05),
    ((9, 12, 7), (D, N, DB), (1.0, 1.0, 2.0), 0.0),
    ((5, 6, 33), (NB, D, N), (1.0, 1.0, 1.0), 0.3),
    ((1, 40), (D, D), (0.0, 1.0), 0.0),
]


@pytest.mark.parametrize(("shape", "boundaries", "couplings", "reaction"), TENSORS)
def test_fast_poisson_is_a_direct_solve_where_the_coefficient_is_constant(shape, boundaries, couplings, reaction):
    permutation = np.random.default_rng(0).permutation(np.prod(shape))
    system = system_of(tensor_operator(shape, boundaries, couplings, reaction), shape, permutation=permutation)
    x, iterations = cg(system, "fast_poisson")
    assert iterations == 1
    check_solution(system, x, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("A", "shape"),
    [
        (tensor_operator((11, 12), (D, N), (1.0, 1.0)), (11, 12)),
        (tensor_operator((14, 9), (D, D), (1.0, 30.0)), (14, 9)),
        (diffusion(two_phase((6, 7, 5))), (6, 7, 5)),
        (diffusion(two_phase((13, 12), above=1e4, below=1.0)), (13, 12)),
    ],
)
def test_the_inverse_is_symmetric_and_positive_definite(name, A, shape):
    system = system_of(A, shape)
    M = dense_inverse(preconditioner(system, name), A.shape[0])
    np.testing.assert_allclose(M, M.T, rtol=0, atol=1e-6 * np.abs(M).max())
    eigenvalues = scipy.linalg.eigvalsh((M + M.T) / 2, np.linalg.inv(A.toarray()))
    assert eigenvalues.min() > 0.0
    if name == "multigrid":  # with one exact Gauss-Seidel sweep either side, no eigenvalue of M⁻¹ A is above 1
        assert eigenvalues.max() < 1 + 1e-5


@pytest.mark.parametrize("num_points", [33, 64, 101, 257])
@pytest.mark.parametrize("contrast", [1.0, 4.0])
def test_multigrid_iterations_do_not_grow_with_the_grid(num_points, contrast):
    coefficient = two_phase((num_points, num_points), above=contrast, below=1.0)
    system = system_of(diffusion(coefficient), coefficient.shape)
    x, iterations = cg(system, "multigrid")
    assert iterations <= 12
    check_solution(system, x)


def test_multigrid_takes_high_contrast():
    coefficient = two_phase((100, 100), above=1e4, below=1.0)
    system = system_of(diffusion(coefficient), coefficient.shape)
    x, iterations = cg(system, "multigrid", rtol=1e-11)
    assert iterations <= 30
    check_solution(system, x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(40,), (27, 50), (3, 90), (2, 2), (17, 18, 19), (12, 3, 40)])
def test_odd_and_even_sizes_in_every_dimension(name, shape):
    system = system_of(diffusion(two_phase(shape)), shape)
    x, iterations = cg(system, name, rtol=1e-9)
    assert iterations <= (14 if name == "multigrid" else 40)
    check_solution(system, x)


@pytest.mark.parametrize("couplings", [(1.0, 1e-4), (1.0, 1 / 9), (1e3, 1.0), (1.0, 1e-3, 1e2)])
def test_multigrid_takes_stretched_grids(couplings):
    shape = (60, 45) if len(couplings) == 2 else (20, 21, 22)
    system = system_of(tensor_operator(shape, (D,) * len(shape), couplings), shape)
    x, iterations = cg(system, "multigrid")
    assert iterations <= 13
    check_solution(system, x)


def test_multigrid_takes_wide_stencils():
    mass = scipy.sparse.diags_array([np.full(39, 1 / 6), np.full(40, 2 / 3), np.full(39, 1 / 6)], offsets=[-1, 0, 1])
    stiffness, _ = laplacian(40)
    bilinear = scipy.sparse.kron(mass, stiffness) + scipy.sparse.kron(stiffness, mass)
    trilinear = scipy.sparse.kron(bilinear, mass) + scipy.sparse.kron(scipy.sparse.kron(mass, mass), stiffness)
    for A, shape in ((bilinear, (40, 40)), (trilinear, (40, 40, 40))):
        system = system_of(A, shape)
        x, iterations = cg(system, "multigrid")
        assert iterations <= 12
        residual = system.b.array_r - to_scipy(system.A) @ x
        assert np.linalg.norm(residual) <= 2e-8 * system.b.norm()


@pytest.mark.parametrize("reaction", [1e-5, 1e-2, 10.0])
def test_multigrid_takes_neumann_conditions_with_a_reaction(reaction):
    system = system_of(tensor_operator((50, 41), (N, N), (1.0, 1.0), reaction), (50, 41))
    x, iterations = cg(system, "multigrid", rtol=1e-10)
    assert iterations <= 14
    check_solution(system, x, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_overwritten_values_of_a_darcy_problem_with_boundary_rows_are_seen(name):
    problem = DarcyDiscretisation(50)
    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-9, atol=0.0)
    for draw in range(3):
        field = GaussianField(50).draw(np.random.default_rng(draw))
        coefficient = 10.0**draw * np.where(field >= 0, 12.0, 3.0)
        system = problem.system(coefficient, np.ones_like(coefficient))
        if draw == 0:
            set_preconditioner(ksp.getPC(), name, system)
        ksp.setOperators(system.A)
        x = system.b.duplicate()
        ksp.solve(system.b, x)
        assert ksp.getConvergedReason() > 0
        assert ksp.getIterationNumber() <= (12 if name == "multigrid" else 30)
        check_solution(system, x.array_r)


@pytest.mark.parametrize("name", NAMES)
def test_a_new_pattern_is_read_anew(name):
    system = system_of(tensor_operator((12, 13), (D, D), (1.0, 1.0)), (12, 13))
    pc = preconditioner(system, name)
    system.A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    for i, j in ((0, 14), (14, 0)):  # a diagonal coupling
        system.A.setValue(i, j, -0.9)
    system.A.assemble()
    pc.setOperators(system.A)
    pc.setUp()
    M = dense_inverse(pc, 156)
    assert np.linalg.eigvals(M @ to_scipy(system.A).toarray()).real.max() < (1 + 1e-5 if name == "multigrid" else 1.5)


def test_the_scale_of_matrix_and_vector_does_not_matter():
    shape = (30, 31)
    A = diffusion(two_phase(shape))
    _, usual = cg(system_of(A, shape), "multigrid", rtol=1e-12)
    for factor in (1e-60, 1e60):
        _, iterations = cg(system_of(factor * A, shape), "multigrid", rtol=1e-12)
        assert abs(iterations - usual) <= 1


def test_values_that_are_not_finite_leave_no_trace():
    shape = (30, 31)
    system = system_of(diffusion(two_phase(shape)), shape)
    pc = preconditioner(system, "multigrid")
    z, expected = system.b.duplicate(), system.b.duplicate()
    pc.apply(system.b, expected)
    bad = system.b.copy()
    bad.setValue(7, np.nan)
    bad.assemble()
    pc.apply(bad, z)
    assert not np.isfinite(z.array_r).all()
    pc.apply(system.b, z)
    np.testing.assert_array_equal(z.array_r, expected.array_r)

    values = system.A.copy()
    system.A.scale(np.nan)
    with pytest.raises(PETSc.Error) as raised:
        pc.setUp()
    assert isinstance(raised.value.__cause__, np.linalg.LinAlgError)
    values.copy(system.A)
    pc.setUp()
    pc.apply(system.b, z)
    np.testing.assert_array_equal(z.array_r, expected.array_r)


def far_coupling():
    A = tensor_operator((8, 8), (D, D), (1.0, 1.0)).tolil()
    A[3, 5] = A[5, 3] = -0.1
    return A


def hole():
    keep = np.ones(64)
    keep[27] = 0.0
    mask = scipy.sparse.diags_array(keep)
    return mask @ tensor_operator((8, 8), (D, D), (1.0, 1.0)) @ mask + scipy.sparse.diags_array(1 - keep)


def mixed():
    A = tensor_operator((8, 8), (D, D), (1.0, 1.0)).tolil()
    for point in range(8):
        A[point, point] -= 1.0
    return A


SQUARE = tensor_operator((8, 8), (D, D), (1.0, 1.0))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("multigrid", lambda: LinearSystem(A=system_of(SQUARE, (8, 8)).A, b=None, is_spd=True), "needs a regular grid"),
        ("multigrid", lambda: system_of(SQUARE, (8, 7)), r"shape \(8, 7\) .* do not fit 64 unknowns"),
        ("multigrid", lambda: system_of(SQUARE, (2, 2, 4, 4)), "1 to 3 axes, not 4"),
        ("fast_poisson", lambda: twice_the_same_point(), "must name every point once"),
    ],
)
def test_what_can_never_be_served_is_refused(name, make, message):
    with pytest.raises(ValueError, match=message) as raised:
        set_preconditioner(PETSc.PC().create(MPI.COMM_SELF), name, make())
    assert not isinstance(raised.value, np.linalg.LinAlgError)


def twice_the_same_point():
    system = system_of(SQUARE, (8, 8))
    return replace(system, grid=replace(system.grid, permutation=np.zeros(64, dtype=int)))


UNSERVED = [
    ("multigrid", far_coupling, "couples grid points that are not neighbours"),
    ("fast_poisson", far_coupling, "couples grid points that are not neighbours"),
    ("fast_poisson", hole, "rows of the identity inside"),
    ("fast_poisson", mixed, "same boundary condition at both ends of axis 0"),
    ("fast_poisson", lambda: np.eye(64), "no points with neighbours"),
    ("fast_poisson", lambda: -SQUARE, "not positive definite"),
]


@pytest.mark.parametrize(("name", "make", "message"), UNSERVED)
def test_a_matrix_that_cannot_be_served_says_why(name, make, message):
    with pytest.raises(PETSc.Error) as raised:
        preconditioner(system_of(make(), (8, 8)), name)
    assert isinstance(raised.value.__cause__, np.linalg.LinAlgError)
    assert message in str(raised.value.__cause__)


@pytest.mark.parametrize(("name", "make", "message"), UNSERVED)
@pytest.mark.parametrize("strategy", [CG, Krylov, GCRODR])
def test_outcomes_do_not_depend_on_what_was_solved_before(strategy, name, make, message):
    solver = LinearSolver(strategy(pc=name), rtol=1e-8)
    solvers = []
    for A in (make(), SQUARE, make(), make(), SQUARE, SQUARE):
        system = system_of(A, (8, 8))
        solution = solver(system)
        assert solution.converged
        check_solution(system, solution.x.array_r)
        solvers.append(solution.strategy)
    assert solvers == ["direct", strategy.name, "direct", "direct", strategy.name, strategy.name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", [CG, Krylov, GCRODR])
def test_another_grid_of_as_many_points_is_followed(strategy, name):
    solver = LinearSolver(strategy(pc=name), rtol=1e-8)
    generator = np.random.default_rng(0)
    for shape in ((12, 12), (16, 9), (144,), (12, 12), (4, 9, 4)):
        permutation = generator.permutation(144)
        A = tensor_operator(shape, (D,) * len(shape), (1.0,) * len(shape))
        system = system_of(A, shape, permutation=permutation)
        solution = solver(system)
        assert solution.converged and solution.strategy == strategy.name
        if strategy is CG:
            assert solution.iterations <= (2 if name == "fast_poisson" else 14)
        check_solution(system, solution.x.array_r)


@pytest.mark.parametrize("name", NAMES)
def test_another_grid_for_the_same_matrix_is_followed(name):
    """A pattern changes, and PETSc is not notified to set up again."""
    one_dimensional = tensor_operator((144,), (D,), (1.0,))
    system = system_of(one_dimensional, (144,))
    pc = preconditioner(system, name)
    for shape in ((1, 144), (144, 1), (144,)):
        grid = GridDofs(shape=shape, spacing=(1.0,) * len(shape), permutation=np.arange(144)[::-1])
        set_preconditioner(pc, name, replace(system, grid=grid))
        pc.setOperators(system.A)
        pc.setUp()
        M = dense_inverse(pc, 144)
        eigenvalues = np.linalg.eigvals(M @ one_dimensional.toarray()).real
        assert 0.5 < eigenvalues.min() <= eigenvalues.max() < 1 + 1e-4


def mass_matrix(*shape):
    """The matrix of Q1 elements, with positive couplings only."""
    product = scipy.sparse.eye_array(1)
    for n in shape:
        one_dimensional = scipy.sparse.diags_array(
            [np.ones(n - 1), np.full(n, 4.0), np.ones(n - 1)], offsets=[-1, 0, 1]
        )
        product = scipy.sparse.kron(product, one_dimensional / 6)
    return product.tocsr()


def weak_diffusion_along_one_axis():
    stiffness, _ = laplacian(40)
    mass = mass_matrix(40)
    return (
        mass_matrix(40, 40) + 0.01 * scipy.sparse.kron(mass, stiffness) + 10 * scipy.sparse.kron(stiffness, mass)
    ).tocsr()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: mass_matrix(20, 20), (20, 20)),
        (lambda: mass_matrix(9, 10, 11), (9, 10, 11)),
        (lambda: mass_matrix(20, 20) + 0.1 * tensor_operator((20, 20), (D, D), (1.0, 1.0)), (20, 20)),
        (weak_diffusion_along_one_axis, (40, 40)),
    ],
)
def test_multigrid_takes_positive_couplings(make, shape):
    system = system_of(make(), shape)
    x, iterations = cg(system, "multigrid")
    assert iterations <= 20
    check_solution(system, x)


def test_what_is_not_said_to_be_spd_falls_back():
    solver = LinearSolver(CG(pc="multigrid"), rtol=1e-8)
    solutions = [solver(system_of(SQUARE, (8, 8), is_spd=is_spd)) for is_spd in (False, True, False, False, True)]
    assert all(solution.converged for solution in solutions)
    assert [solution.strategy for solution in solutions] == ["direct", "cg", "direct", "direct", "cg"]


def test_multigrid_takes_holes_and_mixed_conditions():
    for A in (hole(), mixed()):
        system = system_of(A, (8, 8))
        x, iterations = cg(system, "multigrid")
        assert iterations <= 12
        check_solution(system, x)
