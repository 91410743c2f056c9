"""Each bench prints its table."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI
from scipy.sparse.linalg import spsolve

from benchmarks import report
from benchmarks.solvers import end_to_end, page, solvers
from benchmarks.solvers.cases import darcy, heat, newton, poisson, transient
from benchmarks.solvers.published import published_arms
from penstock.errors import PenstockError
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.linear.check import residual_of
from penstock.solvers.problem import LinearSystem
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.referee.arms import Arm, KeptKSP, Role, Solved
from penstock.solvers.referee.case import Case, ExactSolver
from penstock.solvers.referee.goals import AccuracyGoal, ResidualGoal
from penstock.solvers.referee.lineup import own_arms, user_arms
from penstock.solvers.referee.referee import Record, compare, structure_of
from penstock.solvers.referee.table import section_of
from tests.support.systems import to_scipy


def small_case() -> Case:
    return darcy("12/3", 12)


def all_arms(case):
    structure = structure_of(case)
    return [*published_arms(structure), *user_arms(structure), *own_arms(structure, case.first())]


@pytest.mark.parametrize(
    "case",
    [small_case(), poisson(12), heat(12), newton(12), transient(12)],
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

    assert "GCRO-DR(60, 20) + SOR, reset" in titles(newton(8))
    assert "GCRO-DR(60, 20) + SOR, reset" not in titles(heat(8))


@pytest.mark.parametrize("case", [small_case(), newton(12)], ids=lambda case: case.name)
def test_references_are_scipys_solutions(case):
    def compare_with_scipy(i, system):
        case.prepare(i, system)
        expected = spsolve(to_scipy(system.A).tocsc(), system.b.array_r)
        np.testing.assert_allclose(ExactSolver()(system), expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())
        x = system.b.duplicate()
        x.array = 1.25 * expected
        assert case.error(i, system, x) == pytest.approx(0.25, rel=1e-9)

    case.visit(range(2), compare_with_scipy)


@pytest.mark.parametrize("is_spd", [True, False])
def test_a_reference_too_large_to_factor_is_iterated(is_spd):
    n = 36
    system = StructuredDiffusion(n, 3).system(np.ones((n, n, n)), np.ones((n, n, n)))
    if not is_spd:  # rows of another length each
        scale = system.b.duplicate()
        scale.array = np.linspace(0.1, 10.0, scale.getSize())
        system.A.setOption(system.A.Option.SPD, False)
        system.A.diagonalScale(scale)
        system = replace(system, is_spd=False)
    assert system.A.getSize()[0] > 40_000
    x = ExactSolver()(system)
    assert np.linalg.norm(to_scipy(system.A) @ x - system.b.array_r) <= 2e-10 * np.linalg.norm(system.b.array_r)


def test_a_method_that_jumps_over_the_accuracy_is_asked_for_more():
    """An arm with an error of 30 times the goal, or of a thirtieth of it.

    A method of two or three steps has such errors.
    """
    case = small_case()

    class Stepping(Arm):
        def solve(self, system, rtol):
            x = system.b.duplicate()
            x.array = ExactSolver()(system) * (1 + (3e-3 if rtol > 1e-3 else 3e-6))
            return Solved(x, 2, 1.0)

    goal = AccuracyGoal(1e-4, case, range(3))
    arm = Stepping("stepping", Role.OURS)
    goal.fit(arm)
    assert 1e-5 < goal.asked(arm) <= 1e-3


def test_a_matrix_assembled_once_is_told_beside_one_that_is_assembled_anew():
    section = section_of(solvers.compare_on(poisson(12), 3, None))
    assert [arm["title"] for arm in section["arms"]][-2:] == ["auto", "auto, assembled once"]
    assert section["auto"]["ratios"]["assembled once"][0].startswith("user: ")
    assert "where it is assembled once" in page.summary([section])
    assert "where the matrix is assembled once" in section["text"]


def test_a_residual_goal_shows_the_error_too():
    case = small_case()
    arms = user_arms(structure_of(case))
    by_residual = section_of(compare(case, arms, 2, lambda *_: ResidualGoal(1e-8)))
    assert "| largest residual | largest error |" in by_residual["text"]
    by_error = section_of(compare(case, arms, 2, lambda free: AccuracyGoal(1e-3, case, free)))
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
    comparison = compare(case, user_arms(structure_of(case)), 3, lambda free: AccuracyGoal(1e-3, case, free))
    errors = {record.arm.title: record.worst for record in comparison.records}
    assert 1e-5 < errors["user: CG + GAMG"] < 2e-3
    assert errors["user: MUMPS Cholesky"] < 1e-12


def test_a_failing_arm_is_told_and_enters_no_mean():
    case = small_case()

    class Broken(KeptKSP):
        def solve(self, system, rtol):
            raise RuntimeError("out of order")

    arms = [*user_arms(structure_of(case)), Broken("broken", Role.BASELINE, ksp="cg", pc="icc")]
    section = section_of(compare(case, arms, 2, lambda *_: ResidualGoal(1e-8)))
    facts = {arm["title"]: arm for arm in section["arms"]}
    assert facts["broken"]["failures"] == {"RuntimeError: out of order": 2}
    assert "mean_ms" not in facts["broken"]
    assert "failures of broken: 2 x RuntimeError: out of order" in section["text"]


def test_an_arm_that_stops_on_another_norm_is_tightened():
    """An arm that stops on the preconditioned norm.

    The ratio of that norm to the true one is far from 1 at contrast 1e6.
    """
    problem = Darcy(resolution=16, above=1.0, below=1e-6)
    case = Case("contrast 1e6", "Darcy", problem, 17**2)
    arms = [KeptKSP("left", Role.BASELINE, ksp="gmres", pc="jacobi", options={"ksp_pc_side": "left"})]
    goal = ResidualGoal(1e-8)
    (record,) = compare(case, arms, 3, lambda *_: goal).records
    assert len(record.solved) == 3
    assert record.worst <= 1e-8


def record_of(seconds: dict[int, float], num_cold: int = 0) -> Record:
    """The record of an arm that took these times for its systems."""
    record = Record(KeptKSP("arm", Role.USER, ksp="cg", pc="icc"))
    record.solved = {i: Solved(None, 1, took) for i, took in seconds.items()}
    record.cold = set(list(seconds)[:num_cold])
    return record


def test_assembly_is_what_follows_the_system_before_of_whatever_family(monkeypatch):
    """By a clock that the problem turns: 5 s before each system of one family, and 100 s before each of the other."""
    now = [0.0]
    monkeypatch.setattr("penstock.solvers.referee.case.time", SimpleNamespace(thread_time=lambda: now[0]))

    class Coupled(Darcy):
        def simulate(self, parameters, solve):
            def by_family(system):
                for family, seconds in (("a", 5.0), ("b", 100.0), ("a", 5.0)):
                    now[0] += seconds
                    solution = solve(replace(system, family=family))
                return solution

            yield from super().simulate(parameters, by_family)

    case = Case("two families", "Darcy", Coupled(resolution=4), 25, is_sequence=True, family="a")
    case.visit(range(4), lambda number, system: None)
    assert case.assemblies == [5.0] * 4


def test_ratios_are_of_sums_over_the_systems_that_both_solved_warm():
    auto = record_of({3: 9.0, 1: 1.0, 2: 2.0, 0: 1.0}, num_cold=1)  # in another order
    other = record_of({0: 2.0, 1: 8.0, 2: 2.0, 3: 100.0})
    ratio = other.ratio(auto)
    assert ratio.of_sums == (2 + 8 + 2) / (1 + 1 + 2)
    assert ratio.paired == 2
    assert record_of({0: 1.0}, num_cold=1).ratio(other) is None


def test_an_arm_without_a_warm_solve_is_cold():
    case = small_case()
    arms = user_arms(structure_of(case))[:2]
    section = section_of(compare(case, arms, 1, lambda *_: ResidualGoal(1e-8)))
    assert all(arm["num_solved"] == 0 and "cold_ms" in arm for arm in section["arms"])
    assert section["text"].count("(cold)") == 2


def test_a_direct_arm_that_misses_refines():
    """Refinement mends the loss of digits by a pivot of 1e-9.

    The same back-solve again could not.
    """
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
        def simulate(self, parameters, solve):
            raise ArithmeticError("no states")

    monkeypatch.setattr(report, "FOLDER", tmp_path)
    problems = {"first": Unprepared(resolution=12), "second": Darcy(resolution=12)}
    both = [Case(f"B {name} 169", "Darcy", problem, 169) for name, problem in problems.items()]
    monkeypatch.setattr(solvers, "cases", lambda: both)
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
    section = section_of(compare(case, user_arms(structure_of(case)), 2, lambda *_: ResidualGoal(1e-8)))
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
