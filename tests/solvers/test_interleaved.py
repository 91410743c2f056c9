"""Simulations that take turns against the same ones after one another."""

import re
from functools import cached_property

import numpy as np
import pytest
import scipy.sparse.linalg

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.messages import Lease
from penstock.solvers.discretisation.differences.five_point import OFFSETS, FivePoint
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.direct.direct import MIN_USES_OF_A_BLOCK_FACTOR
from penstock.solvers.parameters.space import ParameterSpace, Uniform, generator_of
from penstock.solvers.problem import InterleavedProblem, SolveError
from penstock.solvers.worker import SolverWorker

n = 6
NUM_STEPS = 20
LEASE = tuple(range(20))
RTOL = 1e-10


class Diffusion(InterleavedProblem):
    """Implicit steps from noise on n x n points, with new noise at each.

    It calls `disturb(x, step, values)` before each step, with what is about to be the right-hand side.
    """

    num_steps = NUM_STEPS

    def __init__(self, disturb=lambda x, step, values: None):
        self.space = ParameterSpace(x=Uniform(0.0, 1.0))
        self.inputs, self.outputs = (FieldSpec(name="x"),), (FieldSpec(name="u", on=Grid((n, n))),)
        self.disturb = disturb

    def turns(self, parameters):
        noise = np.random.default_rng(int(1e9 * parameters["x"]))
        u = noise.standard_normal((n, n))
        for step in range(self.num_steps):
            values = u + noise.standard_normal((n, n))
            self.disturb(parameters["x"], step, values)
            solution = yield self.system(values, step)
            u = solution.x.array_r.reshape(n, n)
            yield Sample(inputs={"x": parameters["x"]}, outputs={"u": u}, step=step)

    def system(self, values, step):
        return self.discretisation.with_load(values)

    @cached_property
    def discretisation(self) -> FivePoint:
        five_point = FivePoint(n, family="diffusion", is_spd=True)
        five_point.overwrite(stencil(0.5))
        return five_point


def stencil(ratio):
    values = np.array([1 + 4 * ratio, *4 * [-ratio]])
    return np.broadcast_to(values[:, None, None], (len(OFFSETS), n, n)).copy()


class Watched(LinearSolver):
    """It notes the size of every block."""

    def __init__(self, strategy=None, **options):
        super().__init__(strategy or Constant(), **(options or {"rtol": RTOL}))
        self.blocks = []

    def solve_block(self, systems):
        self.blocks.append(len(systems))
        return super().solve_block(systems)


def outcome(problem, *, solver=None, leases=(LEASE,), **options):
    """Samples [steps, n, n] by simulation, failures, and blocks, of the last lease."""
    solver = solver or Watched()
    worker = SolverWorker(problem, {"training": solver}, seed=0, sort=False, **options)
    for number, simulations in enumerate(leases):
        chunks = list(worker.stream(Lease(number=number, simulations=simulations)))
    rows = {
        (int(i), int(step)): target.reshape(n, n)
        for chunk in chunks
        for i, step, target in zip(chunk.simulations, chunk.steps, chunk.arrays["targets"], strict=True)
    }
    finished = [i for chunk in chunks for i in chunk.finished]
    failed = {i: reason for chunk in chunks for i, reason in chunk.failed.items()}
    assert sorted([*finished, *failed]) == sorted(leases[-1])  # every one ends exactly once
    assert sum(len(chunk) for chunk in chunks) == len(rows)
    samples = {i: np.stack([rows[i, step] for step in range(NUM_STEPS)]) for i in finished}
    return samples, failed, solver.blocks


def assert_alike(samples, others):
    assert samples.keys() == others.keys()
    for i, values in samples.items():
        np.testing.assert_allclose(values, others[i], rtol=1e-5, atol=1e-6)  # samples have single precision


@pytest.mark.parametrize(
    "solver",
    [
        lambda: Watched(rtol=RTOL),
        lambda: Watched(accuracy=1e-3),
        lambda: Watched(Auto(), accuracy=1e-3),
    ],
    ids=["residual", "accuracy", "auto"],
)
def test_samples_are_those_of_simulations_one_after_another(solver):
    together, failed, blocks = outcome(Diffusion(), solver=solver())
    apart, _, none = outcome(Diffusion(), solver=solver(), num_at_once=1)
    assert not failed and not none
    assert max(blocks) == 8 and sum(blocks) >= 0.5 * len(LEASE) * NUM_STEPS
    assert_alike(together, apart)


def test_a_trajectory_against_scipy():
    samples, _, blocks = outcome(Diffusion())
    assert blocks
    line = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    solve = scipy.sparse.linalg.factorized(
        (scipy.sparse.eye_array(n * n) + 0.5 * scipy.sparse.kronsum(line, line)).tocsc()
    )
    last = LEASE[-1]
    noise = np.random.default_rng(int(1e9 * x_of(last)))
    u = noise.standard_normal((n, n))
    for step in range(NUM_STEPS):
        u = solve((u + noise.standard_normal((n, n))).ravel()).reshape(n, n)
        np.testing.assert_allclose(samples[last][step], u, rtol=1e-5, atol=1e-6)


def x_of(simulation):
    return Diffusion().draw(generator_of(0, "training", simulation))["x"]


def spoil(x, step, values):
    if x > 0.7 and step == NUM_STEPS // 2:
        values[2, 3] = np.nan


def stop(x, step, values):
    if x > 0.7 and step == NUM_STEPS // 2:
        raise ArithmeticError("no heat left")


@pytest.mark.parametrize(("disturb", "said"), [(spoil, "not finite"), (stop, "ArithmeticError: no heat left")])
def test_a_simulation_in_a_block_fails_alone(disturb, said):
    samples, failed, blocks = outcome(Diffusion(disturb))
    whole, _, _ = outcome(Diffusion(), num_at_once=1)
    assert failed.keys() == {i for i in LEASE if x_of(i) > 0.7} and 2 < len(failed) < len(LEASE) - 2
    assert all(said in reason for reason in failed.values()) and 8 in blocks
    assert all(re.search(r"/test_interleaved\.py, line \d+\)$", reason) for reason in failed.values())
    assert_alike(samples, {i: whole[i] for i in samples})


def test_a_block_that_is_not_good_enough_is_solved_again_one_by_one():
    """After that there are no more blocks of this matrix."""

    class Poor(Constant):
        def solve_block(self, systems, tolerance):
            solve = self._block.solve

            def solve_poorly(systems):
                checks = solve(systems)
                for check in checks:
                    check.residual_norm = check.norm_b
                return checks

            self._block.solve = solve_poorly
            return super().solve_block(systems, tolerance)

    samples, failed, blocks = outcome(Diffusion(), solver=Watched(Poor()))
    assert len(blocks) == 1 and not failed
    assert_alike(samples, outcome(Diffusion(), num_at_once=1)[0])


class Changing(Diffusion):
    """Its matrix is another one for the last step of each simulation."""

    def system(self, values, step):
        ratio = 0.5 if step < NUM_STEPS - 1 else 2.0
        return self.discretisation.system(stencil(ratio), values)


class Late(Changing):
    """The same in the last simulations, so that systems wait when it changes."""

    def turns(self, parameters):
        self.has_changed = getattr(self, "has_changed", 0) + 1
        return super().turns(parameters)

    def system(self, values, step):
        return super().system(values, step) if self.has_changed > 12 else Diffusion.system(self, values, step)


@pytest.mark.parametrize("problem", [Changing, Late])
def test_a_matrix_that_does_not_stay(problem):
    samples, failed, blocks = outcome(problem())
    assert not failed and bool(blocks) == (problem is Late)
    assert_alike(
        {i: values[:-1] for i, values in samples.items()},
        {i: values[:-1] for i, values in outcome(Diffusion(), num_at_once=1)[0].items()},
    )


def test_a_problem_may_catch_the_error_of_a_system():
    class Patient(Diffusion):
        def turns(self, parameters):
            self.caught = getattr(self, "caught", 0)
            noise = np.random.default_rng(int(1e9 * parameters["x"]))
            for step in range(self.num_steps):
                values = noise.standard_normal((n, n))
                try:
                    yield self.system(np.full((n, n), np.nan) if step == NUM_STEPS - 1 else values, step)
                except SolveError:
                    self.caught += 1
                yield Sample(inputs={"x": parameters["x"]}, outputs={"u": values}, step=step)

    problem = Patient()
    samples, failed, _ = outcome(problem)
    assert len(samples) == problem.caught == len(LEASE) and not failed


def test_a_deterministic_lease_gives_the_same_bits_whatever_came_before():
    first, second = LEASE, tuple(range(20, 40))
    alone, _, blocks = outcome(Diffusion(), leases=(second,), must_repeat=True)
    after, _, _ = outcome(Diffusion(), leases=(first, second), must_repeat=True)
    assert blocks and all(alone[i].tobytes() == after[i].tobytes() for i in second)


def test_a_simulate_of_a_subclass_is_obeyed():
    class Own(Diffusion):
        def simulate(self, parameters, solve):
            for sample in super().simulate(parameters, solve):
                yield Sample(inputs=sample.inputs, outputs={"u": -sample.outputs["u"]}, step=sample.step)

    samples, _, blocks = outcome(Own())
    assert not blocks
    assert_alike({i: -values for i, values in samples.items()}, outcome(Diffusion(), num_at_once=1)[0])


def test_few_systems_are_solved_one_by_one():
    """A factor for blocks has to pay for itself."""
    few = tuple(range(MIN_USES_OF_A_BLOCK_FACTOR // NUM_STEPS))
    assert outcome(Diffusion(), leases=(few,))[2] == []
