"""`penstock bench` on a configuration of the user's own, transient and with two families of systems."""

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.cli.bench.learner import bench_learner
from penstock.orchestrator.cli.bench.solvers import bench_solvers
from penstock.orchestrator.config.config import load_config

TWO_FAMILIES = """
import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem
from dataclasses import replace


class Steps(Problem):
    num_steps = 60

    def __init__(self, *, solves: bool = True):
        self.solves = solves
        self.space = ParameterSpace(speed=Uniform(1.0, 2.0))
        self.inputs = (FieldSpec(name="before", on=Grid((9, 9))),)
        self.outputs = (FieldSpec(name="after", on=Grid((9, 9))),)

    def simulate(self, parameters, solve):
        fine, coarse = StructuredDiffusion(10, 2), StructuredDiffusion(6, 2)
        u = np.ones((9, 9))
        for step in range(self.num_steps):
            before = u
            if self.solves:
                a = np.full((10, 10), parameters["speed"] + step)
                u = solve(replace(fine.assemble(a, before, mass=1.0), family="fine")).x.array_r.reshape(9, 9)
                solve(replace(coarse.system(np.ones((6, 6)) + step, np.ones((6, 6))), family="coarse"))
            yield Sample(inputs={"before": before}, outputs={"after": u})
"""
STOP = "training: {stop_after: {steps: 10}, device: cpu, batch_size: 4}\nbuffer: {capacity: 40, watermark: 20}\n"


def test_all_ways_to_solve_are_compared_on_the_systems_of_a_run(tmp_path, capfd):
    (tmp_path / "mine.yaml").write_text("problem: {name: darcy, resolution: 12}\n" + STOP)
    bench_solvers(load_config(tmp_path / "mine.yaml", ("solver.strategy={name: krylov, pc: jacobi}",)), 2)
    printed = capfd.readouterr().out
    assert "## darcy, error against the exact solution at most 0.0001" in printed
    for arm in (
        "user: CG + GAMG",
        "user: MUMPS Cholesky",
        "cg + multigrid",
        "GCRO-DR(40, 20) + ICC, sorted",
        "auto",
        "yours: krylov",
    ):
        assert f"\n| {arm} " in printed
    assert "`auto` chose: " in printed


def test_each_family_of_a_sequence_has_its_table(tmp_path, capfd):
    (tmp_path / "mine.py").write_text(TWO_FAMILIES)
    (tmp_path / "mine.yaml").write_text(f"problem: ./mine.py:Steps\nsolver: {{rtol: 1.0e-8}}\n{STOP}")
    bench_solvers(load_config(tmp_path / "mine.yaml"), 3)
    printed = capfd.readouterr().out
    assert "n = 81, 3 systems" in printed and "n = 25, 3 systems" in printed
    assert "GCRO-DR(40, 20) + ICC, in order" in printed and "failures of" not in printed


def test_a_problem_without_systems_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(TWO_FAMILIES)
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: ./mine.py:Steps, solves: false}}\n{STOP}")
    with pytest.raises(PenstockError, match="solves no linear system in its first simulation"):
        bench_solvers(load_config(tmp_path / "mine.yaml"), 3)


ODD = """
from dataclasses import replace

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import FivePoint
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import LinearSystem, Problem


class Odd(Problem):
    def __init__(self, *, kind: str):
        self.kind = kind
        self.space = ParameterSpace(speed=Uniform(1.0, 2.0))
        self.inputs = (FieldSpec(name="speed"),)
        self.outputs = (FieldSpec(name="after", on=Grid((4, 4))),)

    def simulate(self, parameters, solve):
        from petsc4py import PETSc

        if self.kind == "broken":
            raise ValueError("no mesh")
        values = np.full((5, 4, 4), -1.0)
        values[0] = 4 + parameters["speed"]
        if self.kind == "singular":
            values[0] = 4 - np.pad(np.zeros((2, 2)), 1, constant_values=1.0)
            values[0, ::3, ::3] -= 1
        system = FivePoint(4, family="odd", is_spd=False).system(values, np.arange(16.0).reshape(4, 4))
        if self.kind == "nest":
            system = LinearSystem(A=PETSc.Mat().createNest([[system.A]], comm=PETSc.COMM_SELF), b=system.b)
        if self.kind == "named by draw":
            system.family = f"odd {parameters['speed']}"
            solve(replace(system, family="another"))
        yield Sample(inputs=parameters, outputs={"after": solve(system).x.array_r.reshape(4, 4)})
"""


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("broken", r"problem '.*Odd': ValueError: no mesh \(.*odd.py, line 24\)"),
        ("singular", r"problem '.*Odd': system 0 \(family 'odd'\): the matrix is singular: it takes constants to zero"),
        ("nest", "of type 'aij', and that of family 'default' is of type 'nest'"),
        ("named by draw", "no system of family 'odd 1.* in 20 successive simulations: name families by the kind"),
    ],
)
def test_a_problem_that_can_t_be_compared_is_refused_in_one_line(tmp_path, kind, complaint):
    (tmp_path / "odd.py").write_text(ODD)
    (tmp_path / "odd.yaml").write_text(f"problem: {{name: ./odd.py:Odd, kind: {kind}}}\n{STOP}")
    with pytest.raises(PenstockError, match=complaint) as caught:
        bench_solvers(load_config(tmp_path / "odd.yaml"), 1)
    assert caught.value.exit_code == 3


CONSTANT_BY_DRAW = """
import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.structured import StructuredDiffusion
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem


class Mine(Problem):
    num_steps = 3

    def __init__(self, *, varies: bool = True):
        self.varies = varies
        self.space = ParameterSpace(speed=Uniform(1.0, 2.0))
        self.inputs = (FieldSpec(name="before", on=Grid((5, 5))),)
        self.outputs = (FieldSpec(name="after", on=Grid((5, 5))),)

    def simulate(self, parameters, solve):
        discretisation, u = StructuredDiffusion(6, 2), np.ones((5, 5))
        coefficient = np.full((6, 6), parameters["speed"] if self.varies else 1.0)
        for step in range(self.num_steps):
            before, u = u, solve(discretisation.assemble(coefficient, u, mass=1.0)).x.array_r.reshape(5, 5)
            yield Sample(inputs={"before": before}, outputs={"after": u}, step=step)
"""


@pytest.mark.parametrize("varies", [True, False])
def test_a_matrix_that_stays_within_a_simulation_alone_is_not_constant(tmp_path, capfd, varies):
    (tmp_path / "mine.py").write_text(CONSTANT_BY_DRAW)
    (tmp_path / "mine.yaml").write_text(f"problem: {{name: ./mine.py:Mine, varies: {str(varies).lower()}}}\n{STOP}")
    bench_solvers(load_config(tmp_path / "mine.yaml"), 4)
    assert ("factor kept" in capfd.readouterr().out) is not varies


OFFSET = """
import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.discretisation.differences.five_point import OFFSETS, FivePoint
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem


class Mine(Problem):
    space = ParameterSpace(reaction=Uniform(1.0, 2.0))
    inputs = (FieldSpec(name="reaction"),)
    outputs = (FieldSpec(name="after", on=Grid((9, 9))),)

    def simulate(self, parameters, solve):
        values = np.full((len(OFFSETS), 9, 9), -1.0)
        values[0] = 4 + parameters["reaction"] + np.linspace(0, 1, 9)
        x = np.pad(1000.0 + np.random.default_rng(0).normal(size=(9, 9)), 1)
        b = values[0] * x[1:-1, 1:-1] - x[2:, 1:-1] - x[:-2, 1:-1] - x[1:-1, 2:] - x[1:-1, :-2]
        solution = solve(FivePoint(9, family="mine", is_spd=True).system(values, b))
        yield Sample(inputs=parameters, outputs={"after": solution.x.array_r.reshape(9, 9)})
"""


def test_errors_are_relative_to_what_the_configuration_says(tmp_path, capfd):
    """The solutions are 1000 with a deviation of 1: what is within 1e-2 of their size may be ten deviations off."""
    (tmp_path / "mine.py").write_text(OFFSET)
    solver = "solver: {accuracy: 1.0e-2, accuracy_of: deviation}\n"
    (tmp_path / "mine.yaml").write_text("problem: ./mine.py:Mine\n" + solver + STOP)
    config = load_config(tmp_path / "mine.yaml")
    bench_solvers(config, 3)
    printed = capfd.readouterr().out
    assert "error against the exact solution at most 0.01 of its deviation from its mean" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("| cg + icc ")]
    iterations = float(row.split("|")[3])
    bench_solvers(load_config(tmp_path / "mine.yaml", ("solver.accuracy_of=value",)), 3)
    (row,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| cg + icc ")]
    assert float(row.split("|")[3]) < iterations


def test_a_model_that_the_problem_does_not_suit_is_no_matter_to_its_solvers(tmp_path, capfd):
    (tmp_path / "mine.yaml").write_text("problem: {name: poisson, resolution: 8}\nmodel: fno\n" + STOP)
    bench_solvers(load_config(tmp_path / "mine.yaml"), 1)
    assert "## poisson, error against" in capfd.readouterr().out


def test_the_ladder_is_that_of_the_runs_own_step(tmp_path, capfd):
    model = "model: {name: fno, width: 4, modes: 3, layers: 2}\n"
    (tmp_path / "mine.yaml").write_text("problem: {name: darcy, resolution: 12}\n" + model + STOP)
    bench_learner(load_config(tmp_path / "mine.yaml"), 0.2)
    printed = capfd.readouterr().out
    assert "## fno on darcy, batch 4" in printed and "the cost of feeding" in printed
    for rung in ("L1: the step alone", "L2", "L2p", "DataLoader, batched"):
        assert f"\n| {rung} " in printed
    assert "L1 is the step on one batch" in printed
