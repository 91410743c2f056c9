"""Samples per second and core: draw, sort, assemble, solve, pack."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.solvers.cases import darcy
from penstock.messages import Lease
from penstock.report import markdown
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import LinearSystem, Outcome, Problem, Solution
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.referee.arms import Arm, KeptKSP, Role, StrategyArm
from penstock.solvers.referee.goals import AccuracyGoal
from penstock.solvers.referee.lineup import user_arms
from penstock.solvers.referee.referee import NUM_CALIBRATIONS, structure_of
from penstock.solvers.worker import SolverWorker

SEED = 0
PRODUCT = "penstock's worker, auto"
DEMO = "fresh GMRES(30) + ILU, residual 1e-8 (demo settings)"
WARM_UP = 2  # leases in which `auto` decides and calibrates
NUM_TURNS = 3
# The error is measured in 8 systems of a lease, which are all that the slow demo settings get.
NUM_CHECKED = 8

Produce = Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]
"""A function that solves simulations and returns the learner's arrays.

These are coefficients and solutions, float32 [N, X, Y].
"""


class Product:
    """The worker of penstock with `strategy: auto`."""

    def __init__(self, problem: Darcy, accuracy: float):
        self._solver = LinearSolver(Auto(), accuracy=accuracy)
        self._worker = SolverWorker(problem, {"training": self._solver}, seed=SEED)
        self._names = tuple(problem.layout.blocks)

    @property
    def reason(self) -> str:
        return self._solver.decisions[0].reason

    def __call__(self, simulations: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        chunks = list(self._worker.stream(Lease(number=0, simulations=tuple(simulations))))
        order = np.argsort(np.concatenate([chunk.simulations for chunk in chunks]))
        coefficients, solutions = (
            np.concatenate([chunk.arrays[name] for chunk in chunks])[order, 0] for name in self._names
        )
        return coefficients, solutions


class Loop:
    """The loop that a good user would write.

    The form is compiled once, the matrix is overwritten in place, and cell means are packed.

    Args:
        problem: the problem.
        new_arm: gives the solver for the next system: the same one again, or a new one.
        rtol: relative residual to solve to.
    """

    def __init__(self, problem: Problem, new_arm: Callable[[], Arm], rtol: float):
        self._problem = problem
        self._new_arm = new_arm
        self._rtol = rtol

    def __call__(self, simulations: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        samples = [
            sample
            for simulation in simulations
            for sample in self._problem.simulate(
                self._problem.draw(generator_of(SEED, "training", simulation)), self._solve
            )
        ]
        arrays = self._problem.layout.pack(samples)
        coefficients, solutions = arrays.values()
        return coefficients[:, 0], solutions[:, 0]

    def _solve(self, system: LinearSystem) -> Solution:
        solved = self._new_arm().solve(system, self._rtol)
        return Solution(
            x=solved.x,
            outcome=Outcome.CONVERGED,
            relative_residual=np.nan,
            iterations=solved.iterations,
            seconds=solved.seconds,
            strategy="user",
        )


def run(num_systems: int, accuracy: float, resolution: int = 100) -> str:
    """The section of the page.

    The loops take turns, with a lease of `num_systems` each, three times after warming up.
    """
    problem = Darcy(resolution=resolution)
    case = darcy("12/3", resolution)
    goal = AccuracyGoal(accuracy, case, range(NUM_CALIBRATIONS))
    product = Product(problem, accuracy)
    loops: dict[str, Produce] = {PRODUCT: product}
    for arm in user_arms(structure_of(case)):
        goal.fit(arm)
        loops[arm.title] = Loop(problem, lambda arm=arm: arm, goal.asked(arm))
    loops[DEMO] = Loop(problem, lambda: KeptKSP(DEMO, Role.BASELINE, ksp="gmres", pc="ilu"), 1e-8)
    exact = Loop(problem, lambda: StrategyArm("exact", Role.BASELINE, Direct), 1e-12)

    seconds: dict[str, list[float]] = {title: [] for title in loops}
    errors = dict.fromkeys(loops, 0.0)
    for turn in range(WARM_UP + NUM_TURNS):
        lease = range(turn * num_systems, (turn + 1) * num_systems)
        _, references = exact(lease[:NUM_CHECKED])
        for title, produce in loops.items():
            simulations = lease[:NUM_CHECKED] if title == DEMO else lease
            start = time.thread_time()
            _, solutions = produce(simulations)
            if turn >= WARM_UP:
                seconds[title].append((time.thread_time() - start) / len(simulations))
                differences = np.linalg.norm(solutions[:NUM_CHECKED] - references, axis=(1, 2))
                errors[title] = max(errors[title], *(differences / np.linalg.norm(references, axis=(1, 2))))
    rows = []
    for title, own in seconds.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(own, seconds[PRODUCT], strict=True))
        per_sample = statistics.median(own)
        rows.append(
            [title, f"{1 / per_sample:.0f}", f"{1e3 * per_sample:.2f}", f"{errors[title]:.1e}", f"{ratio:.2f}x"]
        )
    table = markdown(rows, ["loop", "samples/s", "ms per sample", "largest error", "worker against it"])
    return f"""## End to end: draw, sort, assemble, solve, pack

{case.title}, accuracy {accuracy:g}, except for the demo settings; CPU seconds, {NUM_TURNS} turns of {num_systems}
samples.

{table}

- `auto` chose: {product.reason}
"""
