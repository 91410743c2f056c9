"""Problems on meshes beside the loops of a good DOLFINx user, on the same draws."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from benchmarks.peers.loops import flows, solids
from benchmarks.solvers.report import report
from benchmarks.turns import EXPLANATION, HEADER, chosen, in_turns
from penstock.errors import PenstockError
from penstock.machine import keep_freed_arrays
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.solving import Solving
from penstock.solvers.linear import LinearSolver
from penstock.solvers.problem import LinearSystem, Parameters, Problem, Solution, SolveError

Loop = Callable[[Parameters], np.ndarray]
"""From a draw to the first output of its samples, [T, C, P]."""

COMPARED = 4  # draws of which both are compared, and the solvers of the peer are tried
WARM_UP = 128  # draws at most in which ours decides how to solve: on a constant matrix it tries 64 for low rank
TOLERANCE = 1e-3  # relative difference of both in a draw: ten times the accuracy that ours asks for
SPD = ("CG + GAMG", "Cholesky (PETSc)", "Cholesky (MUMPS)", "LU (MUMPS)")
GENERAL = ("LU (MUMPS)",)
INTRODUCTION = """
Each problem with its default options beside the loop that a good user of DOLFINx writes for it: forms are compiled
once, one matrix is overwritten by every assembly, the solver keeps what it may (the symbolic factorisation, or GAMG's
interpolation; a matrix that stays is factored once), values reach the mesh's order through a map made once. The peer's
solver is the fastest of those that fit, tried on {compared} draws; CG goes to a relative residual of {rtol:g}, which is
about our accuracy of 1e-4. Ours is solved as in a run, by `strategy: auto`, with every solution checked, after
{seconds:g} CPU seconds or {warm_up} draws in which it decides, at least {compared}. A row is one draw after the other,
solved by both in turns in one process on one core, for about {seconds:g} CPU seconds in all: rates are those of the
median draw, in CPU seconds of the process, draws and packing left out. {explanation} "difference" is the largest
relative one of the two in those {compared} draws, in L2 over all samples.
"""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A problem with its peer."""

    problem: str
    loop: Callable[[Problem, str], Loop]
    """From the problem and the name of a solver."""
    solvers: tuple[str, ...]
    output: str
    """The output that is compared."""


CONTESTS = [
    Contest(problem="elasticity", loop=solids.Elasticity, solvers=SPD, output="displacement"),
    Contest(problem="cook", loop=solids.Cook, solvers=SPD, output="displacement"),
    Contest(problem="hyperelastic_block", loop=solids.HyperelasticBlock, solvers=SPD, output="displacement"),
    Contest(problem="thermal", loop=solids.Thermal, solvers=SPD, output="temperature"),
    Contest(problem="stokes", loop=flows.Stokes, solvers=GENERAL, output="velocity"),
    Contest(problem="cavity", loop=flows.Cavity, solvers=GENERAL, output="velocity"),
]


class Ours:
    """A problem solved as in a run, in this process."""

    def __init__(self, name: str, options: Mapping[str, Any], output: str):
        training = {"stop_after": {"steps": 1}}
        solving = Solving.of(Config.model_validate({"problem": {"name": name, **options}, "training": training}))
        self.problem, solver = solving.problem, solving.config.solver
        self._solver = LinearSolver(
            solving.strategy(),
            rtol=solver.rtol,
            accuracy=solver.accuracy,
            of_deviation=solver.accuracy_of == "deviation",
        )
        self._output = output

    def __call__(self, parameters: Parameters) -> np.ndarray:
        samples = [sample.outputs[self._output] for sample in self.problem.simulate(parameters, self._solve)]
        return np.array(samples)

    def _solve(self, system: LinearSystem) -> Solution:
        solution = self._solver(system)
        if not solution.converged:
            raise SolveError(solution.reason)
        return solution


def compare(contest: Contest, seconds: float, options: Mapping[str, Any]) -> list[str]:
    """The row of a contest.

    Args:
        contest: the problem and its peer.
        seconds: CPU time.
        options: of the problem, instead of the default ones.

    Raises:
        PenstockError: the two differ.
    """
    ours = Ours(contest.problem, options, contest.output)
    draws = [ours.problem.draw_numbered(0, "training", number) for number in range(WARM_UP)]
    began = time.process_time()
    for number, draw in enumerate(draws):
        if number >= COMPARED and time.process_time() - began > seconds:
            break
        ours(draw)
    draws = draws[:COMPARED]
    loops = {solver: contest.loop(ours.problem, solver) for solver in contest.solvers}
    difference = max(_difference(ours(draw), loops[contest.solvers[-1]](draw)) for draw in draws)
    if not difference < TOLERANCE:
        raise PenstockError(f"{contest.problem}: ours and the peer differ by {difference:.1e}")
    fastest = min(loops, key=lambda solver: _seconds(loops[solver], draws))
    fresh = (ours.problem.draw_numbered(0, "training", number) for number in count(WARM_UP))
    turns = in_turns([ours, loops[fastest]], fresh, seconds=seconds)
    rates = ours.problem.num_steps / turns.medians
    return [
        contest.problem,
        f"{rates[0]:.3g}",
        f"DOLFINx, {fastest}",
        f"{rates[1]:.3g}",
        f"{difference:.0e}",
        *turns.cells(1),
    ]


def _difference(frames: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(frames.ravel() - others.ravel()) / np.linalg.norm(others))


def _seconds(loop: Loop, draws: list[Parameters]) -> float:
    """The median CPU seconds of a draw, once the solver has been set up."""
    loop(draws[0])
    return float(in_turns([loop], draws, seconds=np.inf).medians[0])


def run(arguments: argparse.Namespace) -> None:
    """Measure problems beside their peers, and print and write the table.

    Args:
        arguments: `names` of problems, all of them where there are none, `seconds` per problem, and `resolution`, the
            default one where absent.

    Raises:
        PenstockError: there is no such problem among these, or the two differ.
    """
    keep_freed_arrays()
    options = {} if arguments.resolution is None else {"resolution": arguments.resolution}
    rows = [compare(contest, arguments.seconds, options) for contest in chosen(CONTESTS, arguments.names)]
    header = ["problem", "samples/s", "peer", "its samples/s", "difference", *HEADER]
    introduction = INTRODUCTION.format(
        compared=COMPARED,
        warm_up=WARM_UP,
        rtol=solids.RTOL,
        seconds=arguments.seconds,
        explanation=EXPLANATION.strip(),
    )
    command = " ".join(["peers", "meshes", *arguments.names, f"--seconds {arguments.seconds:g}"])
    report("peers-meshes.md", "Problems on meshes beside DOLFINx loops", introduction, header, rows, command)
