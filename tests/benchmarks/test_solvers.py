"""Each bench prints its table."""

import json

import numpy as np
import pytest
from mpi4py import MPI
from scipy.sparse import diags_array, eye_array, kron
from scipy.sparse.linalg import spsolve

from benchmarks import report
from benchmarks.solvers import end_to_end, page, solvers
from benchmarks.solvers.arms import Arm, KeptKSP, Role, Solved, own_arms, published_arms, user_arms
from benchmarks.solvers.comparison import (
    AccuracyGoal,
    ExactSolver,
    Record,
    References,
    ResidualGoal,
    compare,
    structure_of,
)
from benchmarks.solvers.constant import Heat, Poisson
from benchmarks.solvers.darcy import Darcy, GaussianField3D, StructuredDarcy, two_phase
from benchmarks.solvers.sequences import NonlinearDiffusion, Transient
from penstock.errors import PenstockError
from penstock.solvers.linear.check import residual_of
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.strategy import Tolerance
from penstock.solvers.problem import LinearSystem


def solve(system) -> np.ndarray:
    return Direct().solve(system, Tolerance(1e-12)).x.array_r.copy()


def smooth(n: int, offset: float) -> tuple[np.ndarray, ...]:
    """Coordinates of the points of the unit cube that lie `offset` behind the multiples of 1/n."""
    points = (np.arange(n) + offset) / n
    return np.meshgrid(points, points, points, indexing="ij")


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_structured_darcy_with_a_constant_coefficient_is_the_kronecker_sum(dimension, to_scipy):
    n = 5
    system = StructuredDarcy(n, dimension).system(np.full((n,) * dimension, 3.0), np.ones((n,) * dimension))
    second_differences = n**2 * diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n - 1, n - 1))
    expected = 0
    for axis in range(dimension):
        factors = [eye_array(n - 1)] * dimension
        factors[axis] = second_differences
        term = factors[0]
        for factor in factors[1:]:
            term = kron(term, factor)
        expected = expected + term
    assert abs(to_scipy(system.A) - 3.0 * expected / n**dimension).max() < 1e-12
    np.testing.assert_allclose(system.b.array_r, n**-dimension)


@pytest.mark.parametrize("dimension", [2, 3])
def test_structured_darcy_is_what_dolfinx_assembles(dimension, to_scipy):
    import dolfinx
    import ufl
    from dolfinx.fem.petsc import assemble_matrix

    n = 4
    coefficient = np.random.default_rng(0).uniform(1, 10, (n,) * dimension)
    if dimension == 2:
        mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, n, n)
    else:
        mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, n, n, n)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    a = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Discontinuous Lagrange", 0)))
    num_cells = mesh.topology.index_map(dimension).size_local
    centroids = dolfinx.mesh.compute_midpoints(mesh, dimension, np.arange(num_cells, dtype=np.int32))
    a.x.array[:] = coefficient[tuple(np.floor(n * centroids[:, :dimension]).astype(int).T)]
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    A = assemble_matrix(dolfinx.fem.form(a * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx))
    A.assemble()
    vertices = np.rint(n * space.tabulate_dof_coordinates()[:, :dimension]).astype(int)
    inner = np.flatnonzero(np.all((vertices > 0) & (vertices < n), axis=1))
    inner = inner[np.argsort(np.ravel_multi_index(tuple(vertices[inner].T), (n + 1,) * dimension))]
    system = StructuredDarcy(n, dimension).system(coefficient, np.ones_like(coefficient))
    assert abs(to_scipy(A)[inner][:, inner] - to_scipy(system.A)).max() < 1e-13


def test_second_order_in_three_dimensions():
    """u = sin πx sin πy sin πz with a = 1 + x, by its own right-hand side."""
    errors = []
    for n in (8, 16, 32):
        x, y, z = smooth(n, 0.5)
        sines = np.sin(np.pi * y) * np.sin(np.pi * z)
        source = 3 * np.pi**2 * (1 + x) * np.sin(np.pi * x) * sines - np.pi * np.cos(np.pi * x) * sines
        solution = solve(StructuredDarcy(n, 3).system(1 + x, source))
        x, y, z = (values[1:, 1:, 1:] for values in smooth(n, 0.0))
        exact = np.sin(np.pi * x) * np.sin(np.pi * y) * np.sin(np.pi * z)
        errors.append(np.linalg.norm(solution - exact.ravel()) / np.linalg.norm(exact))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.9) & (orders < 2.1))


def test_gaussian_field_in_three_dimensions_has_its_covariance():
    """Against the Karhunen-Loève sum at two points, over the modes of the grid."""

    class Coarse(GaussianField3D):
        NUM_MODES = 8

    n, k = 8, np.arange(8)
    draws = np.array([Coarse(n).draw(np.random.default_rng(i)) for i in range(2000)])
    cosines = np.sqrt(2) * np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, k))
    cosines[:, 0] = 1.0
    variances = 1 / (np.pi**2 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 9) ** 2
    variances[0, 0, 0] = 0.0
    here, there = (1, 2, 3), (3, 2, 5)
    for point in (here, there):
        products = [cosines[p] * cosines[q] for p, q in zip(here, point, strict=True)]
        expected = np.einsum("xyz,x,y,z->", variances, *products)
        seen = np.mean(draws[(slice(None), *here)] * draws[(slice(None), *point)])
        spread = np.std(draws[(slice(None), *here)] * draws[(slice(None), *point)]) / np.sqrt(len(draws))
        assert abs(seen - expected) < 4 * spread


def test_poisson_has_right_hand_sides_of_rank_30_and_one_matrix():
    case = Poisson(resolution=16)
    loads = np.array([case.system(i).b.array_r.copy() for i in range(40)])
    values = np.linalg.svd(loads, compute_uv=False)
    assert values[29] > 1e-6 * values[0] > 1e4 * values[30]
    assert structure_of(case).has_constant_matrix


def test_poisson_meets_its_boundary_values():
    """u = T₁(2x - 1) is harmonic, and P1 elements hold it exactly."""
    case = Poisson(resolution=8)
    coefficients = np.zeros((5, 6))
    coefficients[0, 0], coefficients[1, 0] = -1.0, 1.0
    coefficients[2, 1] = coefficients[3, 1] = 1.0
    system = case.system(0)
    system.b.array = case.load(coefficients).ravel()
    expected = np.repeat(2 * np.arange(1, 8) / 8 - 1, 7)
    np.testing.assert_allclose(solve(system), expected, atol=1e-12)


def test_heat_steps_are_solutions_of_the_systems_before_them():
    case = Heat(resolution=12)
    assert structure_of(case).has_constant_matrix
    for i in (4, 0):
        system = case.system(i)
        np.testing.assert_allclose(system.guess.array_r, case.state(i).ravel())
        np.testing.assert_allclose(solve(system), case.state(i + 1).ravel(), rtol=1e-10)


def test_heat_decays_at_the_rate_of_its_slowest_mode():
    """Without the source the first sine shrinks by 1 / (1 + 2π² Δt) a step, to second order in h."""
    case = Heat(resolution=64)
    x = np.arange(1, 64) / 64
    mode = np.outer(np.sin(np.pi * x), np.sin(np.pi * x))
    system = case.system(0)
    system.b.array = (mode / 64**2).ravel()
    np.testing.assert_allclose(solve(system), mode.ravel() / (1 + 2 * np.pi**2 * case.TIME_STEP), rtol=2e-4)


def small_case() -> Darcy:
    return Darcy("12/3", two_phase(12), resolution=12)


def all_arms(case):
    structure = structure_of(case)
    return [*published_arms(structure), *user_arms(structure), *own_arms(structure, case.system(0))]


@pytest.mark.parametrize(
    "case",
    [small_case(), Poisson(resolution=12), Heat(resolution=12), NonlinearDiffusion(12), Transient(12)],
    ids=lambda case: case.name,
)
def test_every_arm_solves_every_system(case):
    comparison = compare(case, all_arms(case), 3, lambda *_: ResidualGoal(1e-8))
    for record in comparison.records:
        assert not record.failures
        assert len(record.solved) == 3
        assert 0 < record.worst <= 1e-8 or record.worst == 0
        assert 0 < record.largest_error < 1e-5
        assert all(solved.setup_s >= 0 and solved.solve_s > 0 for solved in record.solved.values())


def test_recycling_is_measured_with_a_larger_space_in_sequences_whose_matrix_changes():
    def titles(case):
        return [arm.title for arm in published_arms(structure_of(case))]

    assert "GCRO-DR(60, 20) + SOR, reset" in titles(NonlinearDiffusion(8))
    assert "GCRO-DR(60, 20) + SOR, reset" not in titles(Heat(resolution=8))


@pytest.mark.parametrize("case", [small_case(), NonlinearDiffusion(12)], ids=lambda case: case.name)
def test_references_are_scipys_solutions(case, to_scipy):
    references = References(case)
    for i in (1, 0):
        references.prepare(i)
        system = case.system(i)
        expected = spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
        np.testing.assert_allclose(ExactSolver()(system), expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())
        x = system.b.duplicate()
        x.array = 1.25 * expected
        assert references.error(system, x, i) == pytest.approx(0.25, rel=1e-9)


def test_a_reference_too_large_to_factor_is_iterated(to_scipy):
    n = 36
    system = StructuredDarcy(n, 3).system(np.ones((n, n, n)), np.ones((n, n, n)))
    assert system.A.getSize()[0] > 40_000
    x = ExactSolver()(system)
    assert np.linalg.norm(to_scipy(system.A) @ x - system.b.array_r) <= 2e-10 * np.linalg.norm(system.b.array_r)


def test_a_method_that_jumps_over_the_accuracy_is_asked_for_more():
    """Its error is 30 times what the goal allows, or a thirtieth of it, as that of a method of two or three steps."""
    case = small_case()

    class Stepping(Arm):
        def solve(self, system, rtol):
            x = system.b.duplicate()
            x.array = ExactSolver()(system) * (1 + (3e-3 if rtol > 1e-3 else 3e-6))
            return Solved(x, 2, 1.0)

    goal = AccuracyGoal(1e-4, References(case), range(3))
    arm = Stepping("stepping", Role.OURS)
    goal.fit(arm, case)
    assert 1e-5 < goal.asked(arm) <= 1e-3


def test_a_matrix_assembled_once_is_told_beside_one_that_is_assembled_anew():
    section = page.section_of(solvers.compare_on(Poisson(resolution=12), 3, None), "solvers")
    assert [arm["title"] for arm in section["arms"]][-2:] == ["auto", "auto, assembled once"]
    assert section["auto"]["ratios"]["assembled once"][0].startswith("user: ")
    assert "where it is assembled once" in page.summary([section])
    assert "where the matrix is assembled once" in section["text"]


def test_a_residual_goal_shows_the_error_too():
    case = small_case()
    arms = user_arms(structure_of(case))
    by_residual = page.section_of(compare(case, arms, 2, lambda *_: ResidualGoal(1e-8)), "solvers")
    assert "| largest residual | largest error |" in by_residual["text"]
    by_error = page.section_of(compare(case, arms, 2, lambda *free: AccuracyGoal(1e-3, *free)), "solvers")
    assert "largest residual" not in by_error["text"]
    assert by_error["text"].count("| largest error |") == 1


def sequence_section(name: str, num_unknowns: int, worth: dict[str, float]) -> dict:
    recycling = [{"arm": arm, "time": (ratio, ratio), "iterations": 2.0} for arm, ratio in worth.items()]
    ratios = dict.fromkeys(("user", "unaware user"), ("user: LU", (2.0, 2.0)))
    auto = {"strategy": "lagged", "ratios": ratios, "trials_share": -2e-4}
    return {
        "case": f"D {name} {num_unknowns}",
        "measure": "residual",
        "num_unknowns": num_unknowns,
        "is_sequence": True,
        "auto": auto,
        "recycling": recycling,
    }


def test_two_sizes_are_one_sequence_and_recycling_is_told_by_its_best_variant():
    sections = [sequence_section("Newton", n, {"first": 1.2, "second": 1.7}) for n in (100, 400)]
    text = page.summary(sections)
    assert "1.70x (1.70x), 2.00x: second" in text
    assert "| 0.0 %" in text and "-0.0 %" not in text
    assert "in time in two sequences of D: no (D Newton 100, D Newton 400)" in text
    sections.append(sequence_section("transient", 100, {"first": 1.6}))
    assert "in time in two sequences of D: yes (D Newton 100, D Newton 400, D transient 100)" in page.summary(sections)


def test_arms_are_fitted_to_an_accuracy():
    case = small_case()
    comparison = compare(case, user_arms(structure_of(case)), 3, lambda *free: AccuracyGoal(1e-3, *free))
    errors = {record.arm.title: record.worst for record in comparison.records}
    assert 1e-5 < errors["user: CG + GAMG"] < 2e-3
    assert errors["user: MUMPS Cholesky"] < 1e-12


def test_a_failing_arm_is_told_and_enters_no_mean():
    case = small_case()

    class Broken(KeptKSP):
        def solve(self, system, rtol):
            raise RuntimeError("out of order")

    arms = [*user_arms(structure_of(case)), Broken("broken", Role.BASELINE, ksp="cg", pc="icc")]
    section = page.section_of(compare(case, arms, 2, lambda *_: ResidualGoal(1e-8)), "solvers")
    facts = {arm["title"]: arm for arm in section["arms"]}
    assert facts["broken"]["failures"] == {"RuntimeError: out of order": 2}
    assert "mean_ms" not in facts["broken"]
    assert "failures of broken: 2 x RuntimeError: out of order" in section["text"]


def test_an_arm_that_stops_on_another_norm_is_tightened():
    """Stopped on the preconditioned norm, whose ratio to the true one is far from 1 at contrast 1e6."""
    case = Darcy("contrast 1e6", two_phase(16, above=1.0, below=1e-6), resolution=16)
    arms = [KeptKSP("left", Role.BASELINE, ksp="gmres", pc="jacobi", options={"ksp_pc_side": "left"})]
    goal = ResidualGoal(1e-8)
    (record,) = compare(case, arms, 3, lambda *_: goal).records
    assert len(record.solved) == 3
    assert record.worst <= 1e-8


def record_of(seconds: dict[int, float], num_cold: int = 0) -> Record:
    """An arm that took so long for these systems."""
    record = Record(KeptKSP("arm", Role.USER, ksp="cg", pc="icc"))
    record.solved = {i: Solved(None, 1, took) for i, took in seconds.items()}
    record.cold = set(list(seconds)[:num_cold])
    return record


def test_ratios_are_of_sums_over_the_systems_that_both_solved_warm():
    auto = record_of({3: 9.0, 1: 1.0, 2: 2.0, 0: 1.0}, num_cold=1)  # in an order of its own
    other = record_of({0: 2.0, 1: 8.0, 2: 2.0, 3: 100.0})
    ratio = other.ratio(auto)
    assert ratio.of_sums == (2 + 8 + 2) / (1 + 1 + 2)
    assert ratio.paired == 2
    assert record_of({0: 1.0}, num_cold=1).ratio(other) is None


def test_an_arm_without_a_warm_solve_is_cold():
    case = small_case()
    arms = user_arms(structure_of(case))[:2]
    section = page.section_of(compare(case, arms, 1, lambda *_: ResidualGoal(1e-8)), "solvers")
    assert all(arm["num_solved"] == 0 and "cold_ms" in arm for arm in section["arms"])
    assert section["text"].count("(cold)") == 2


def test_a_direct_arm_that_misses_refines():
    """The same back-solve again could not mend the loss of digits that a pivot of 1e-9 brings about."""
    from petsc4py import PETSc

    A = PETSc.Mat().createAIJ((3, 3), nnz=3, comm=MPI.COMM_SELF)
    A.setValues(range(3), range(3), [[1e-9, 1.0, 2.0], [1.0, 1.0, 0.5], [2.0, 0.5, 3.0]])
    A.assemble()
    b = A.createVecLeft()
    b.array = [1.0, 2.0, 3.0]
    system = LinearSystem(A=A, b=b, is_spd=False, family="pivot")
    arm = KeptKSP(
        "LU", Role.USER, ksp="preonly", pc="lu", package="petsc", options={"pc_factor_mat_ordering_type": "natural"}
    )
    first = arm.solve(system, 1e-14)
    second = arm.improve(system, first.x, 1e-14)
    assert residual_of(system, second.x).norm() < 1e-2 * residual_of(system, first.x).norm()


def test_a_case_that_fails_is_told_and_the_next_one_goes_on(tmp_path, monkeypatch, capsys):
    class Unprepared(Darcy):
        def system(self, i):
            raise ArithmeticError("no states")

    monkeypatch.setattr(report, "FOLDER", tmp_path)
    first = Unprepared("first", two_phase(12), resolution=12)
    monkeypatch.setattr(solvers, "cases", lambda: [first, Darcy("second", two_phase(12), resolution=12)])
    with pytest.raises(PenstockError, match="B first 169 "):
        solvers.run("B", 2)
    assert json.loads((tmp_path / "solvers.json").read_text()).keys() == {"B second 169", "B second 169, accuracy"}


def test_a_folder_that_cannot_be_used_is_told_first(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").write_text("a file")
    monkeypatch.setattr(report, "FOLDER", tmp_path / "benchmarks")
    with pytest.raises(PenstockError, match="benchmarks can't be written to"):
        solvers.run("B 12/3 10201", 2)


def test_no_systems_is_told():
    with pytest.raises(PenstockError, match="--systems 0: must be at least 1"):
        solvers.run(None, 0)


def test_a_case_replaces_its_own_section_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    case = small_case()
    section = page.section_of(compare(case, user_arms(structure_of(case)), 2, lambda *_: ResidualGoal(1e-8)), "solvers")
    for name, title in (("B first", "old"), ("B second", "kept"), ("B first", "new")):
        page.publish(name, section | {"text": title, "case": name})
    assert json.loads((tmp_path / "solvers.json").read_text()).keys() == {"B first", "B second"}
    assert (tmp_path / "solvers.md").read_text().rstrip().endswith("new\n\nkept")
    assert (tmp_path / "solvers-B-residual.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["discretisation", "--systems", "2", "--resolution", "8"], "discretisation.md"),
        (["solvers", "--case", "B 12/3 10201", "--systems", "2"], "solvers.md"),
    ],
)
def test_each_bench_prints_its_table_and_writes_it(bench, tmp_path, arguments, file):
    result = bench(*arguments)
    assert result.returncode == 0, result.stderr
    written = (tmp_path / "benchmarks" / "tables" / file).read_text()
    tables = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert tables and all(line in written for line in tables)
    assert f"python -m benchmarks {arguments[0]}" in written


def test_end_to_end_every_loop_makes_the_same_samples():
    rows = [line.split("|")[1:-1] for line in end_to_end.run(8, 1e-3, resolution=12).splitlines() if "|" in line][2:]
    assert len(rows) == 5
    for _, rate, _, error, _ in rows:
        assert float(rate) > 0
        assert float(error) < 2e-3


def test_unknown_case_is_told_with_the_known_ones(bench):
    result = bench("solvers", "--case", "Z")
    assert result.returncode == 2
    assert "B 12/3 10201" in result.stderr
    assert len(result.stderr.splitlines()) == 1
