"""Spectral and explicit problems beside plain NumPy loops and exponax, at equal error."""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from benchmarks.peers.loops import fourier, volumes
from benchmarks.solvers.report import report
from benchmarks.turns import EXPLANATION, HEADER, chosen, in_turns
from penstock.errors import PenstockError
from penstock.machine import keep_freed_arrays
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.solving import Solving
from penstock.solvers.problem import Parameters, Problem

try:
    from benchmarks.peers.loops import with_exponax
except ImportError:
    with_exponax = None

Peer = Callable[[Parameters], np.ndarray]
"""From a draw to the frames after the first, [T, ...]."""

NUM_MATCHED = 2  # draws on which errors are equal
LADDER = sorted({round(2 ** (power / 3)) for power in range(48)})  # steps per frame, each a quarter more
INTRODUCTION = """
Each problem with its default options beside loops that a practitioner writes for it: NumPy with the transforms of
scipy.fft, and exponax, compiled by JAX{absence}. One draw after the other is solved by ours and by all peers of the
problem, in turns in one process on one core, for about {seconds:g} CPU seconds per peer: rates are those of the median
draw, in CPU seconds of the process, draws and packing left out. {explanation} All begin with the same draw and return
the same frames. A peer takes equal steps, as many as it needs for an error no larger than ours in {num_matched} draws
(at least one step per frame); the error is relative, in L2 over all frames, against the NumPy loop with much finer
steps on the same grid. Where the error of a peer is larger than ours, its filter or its coefficients leave it there
however many steps it takes.
"""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A problem with its peers."""

    problem: str
    peers: Mapping[str, Callable[[Problem, int], Peer]]
    """Loops by their names, from the problem and the steps per frame; the first gives the reference."""
    finest: int
    """Steps per frame of the reference."""
    matched: dict[str, Any] = field(default_factory=dict)
    """Options of the problem where errors are matched, if the default ones take too long or are chaotic."""


def _exponax(name: str) -> dict[str, Callable[[Problem, int], Peer]]:
    return {} if with_exponax is None else {with_exponax.NAME: getattr(with_exponax, name)}


CONTESTS = [
    Contest(
        problem="navier_stokes",
        peers={"NumPy, ETDRK4": fourier.NavierStokes} | _exponax("navier_stokes"),
        finest=60,
        matched={"num_steps": 5},
    ),
    Contest(problem="burgers", peers={"NumPy, ETDRK4": fourier.burgers} | _exponax("burgers"), finest=16384),
    Contest(
        problem="korteweg_de_vries",
        peers={"NumPy, ETDRK4": fourier.korteweg_de_vries} | _exponax("korteweg_de_vries"),
        finest=80,
        matched={"num_steps": 20},
    ),
    Contest(
        problem="kuramoto_sivashinsky",
        peers={"NumPy, ETDRK4": fourier.kuramoto_sivashinsky} | _exponax("kuramoto_sivashinsky"),
        finest=40,
        matched={"warm_up": 0, "num_steps": 20},
    ),
    Contest(
        problem="gray_scott",
        peers={"NumPy, ETDRK4": fourier.GrayScott} | _exponax("gray_scott"),
        finest=40,
        matched={"num_steps": 5},
    ),
    Contest(
        problem="kdv_burgers",
        peers={"NumPy, WENO-Z, IF-RK4": volumes.KdVBurgers},
        finest=64,
        matched={"num_steps": 25},
    ),
    Contest(problem="wave_1d", peers={"NumPy, exact by FFT": fourier.Wave}, finest=1),
    Contest(
        problem="diffusion_reaction",
        peers={"NumPy, ETDRK4 by DCT": fourier.DiffusionReaction},
        finest=100,
        matched={"num_steps": 4},
    ),
    Contest(problem="shallow_water", peers={"NumPy, MUSCL, HLL, Heun": volumes.ShallowWater}, finest=40),
    Contest(
        problem="burgers_shocks",
        peers={"NumPy, MUSCL, Godunov, Heun": volumes.BurgersShocks},
        finest=4096,
        matched={"num_steps": 5},
    ),
]


def compare(contest: Contest, seconds: float, options: Mapping[str, Any]) -> list[list[str]]:
    """The rows of a contest.

    Args:
        contest: the problem and its peers.
        seconds: CPU time per peer.
        options: of the problem, instead of the default ones.
    """
    problem = _problem(contest.problem, options)
    matched = _problem(contest.problem, {**options, **contest.matched})
    draws = [matched.draw_numbered(0, "training", number) for number in range(NUM_MATCHED)]
    first = next(iter(contest.peers.values()))
    references = [first(matched, contest.finest)(draw) for draw in draws]
    error = max(map(_error, (_solved(matched, draw) for draw in draws), references))
    matches = [
        _fewest_steps(peer, matched, draws, references, error, contest.finest) for peer in contest.peers.values()
    ]
    loops = [peer(problem, steps) for peer, (steps, _) in zip(contest.peers.values(), matches, strict=True)]
    arms = [lambda draw: _solved(problem, draw), *loops]
    for arm in arms:  # compiles
        arm(draws[0])
    turns = in_turns(arms, _draws(problem), seconds=seconds * len(loops))
    rates = problem.num_steps / turns.medians
    return [
        [
            contest.problem,
            f"{rates[0]:.3g}",
            f"{error:.0e}",
            name,
            f"{rates[arm]:.3g}",
            f"{peers_error:.0e}",
            str(steps),
            *turns.cells(arm),
        ]
        for arm, (name, (steps, peers_error)) in enumerate(zip(contest.peers, matches, strict=True), start=1)
    ]


def _problem(name: str, options: Mapping[str, Any]) -> Problem:
    training = {"stop_after": {"steps": 1}}
    return Solving.of(Config.model_validate({"problem": {"name": name, **options}, "training": training})).problem


def _draws(problem: Problem) -> Iterator[Parameters]:
    return (problem.draw_numbered(0, "training", number) for number in count())


def _solved(problem: Problem, draw: Parameters) -> np.ndarray:
    """Our frames after the first, [T, ...]."""
    return np.array([sample.outputs["solution"] for sample in problem.simulate(draw, _no_solve)])


def _no_solve(system: Any) -> Any:
    raise PenstockError("a problem without systems asked for a solve")


def _error(frames: np.ndarray, reference: np.ndarray) -> float:
    """The relative L2 distance of all frames; infinite where they are not finite."""
    distance = float(np.linalg.norm(frames - reference) / np.linalg.norm(reference))
    return distance if np.isfinite(distance) else np.inf


def _fewest_steps(
    peer: Callable[[Problem, int], Peer],
    problem: Problem,
    draws: list[Parameters],
    references: list[np.ndarray],
    error: float,
    finest: int,
) -> tuple[int, float]:
    """The fewest steps per frame with which a peer's error is no larger than ours, and its error.

    They are found by bisection. Where the error stays above ours, they are the fewest that come within a tenth of it.
    """
    ladder = [steps for steps in LADDER if steps <= finest]

    @cache
    def error_of(steps: int) -> float:
        loop = peer(problem, steps)
        with np.errstate(all="ignore"):
            return max(map(_error, map(loop, draws), references))

    bound = max(error, 1.1 * error_of(ladder[-1]))
    steps = ladder[bisect_left(ladder, True, key=lambda steps: error_of(steps) <= bound)]
    return steps, error_of(steps)


def run(arguments: argparse.Namespace) -> None:
    """Measure problems beside their peers, and print and write the table.

    Args:
        arguments: `names` of problems, all of them where there are none, `seconds` per peer, and `resolution`, the
            default one where absent.

    Raises:
        PenstockError: there is no such problem among these.
    """
    keep_freed_arrays()
    options = {} if arguments.resolution is None else {"resolution": arguments.resolution}
    contests = chosen(CONTESTS, arguments.names)
    rows = [row for contest in contests for row in compare(contest, arguments.seconds, options)]
    header = ["problem", "samples/s", "error", "peer", "its samples/s", "its error", "its steps per frame", *HEADER]
    absence = " (which is not installed here)" if with_exponax is None else ""
    introduction = INTRODUCTION.format(
        absence=absence, seconds=arguments.seconds, num_matched=NUM_MATCHED, explanation=EXPLANATION.strip()
    )
    command = " ".join(["peers", "spectral", *arguments.names, f"--seconds {arguments.seconds:g}"])
    report("peers-spectral.md", "Spectral problems beside their peers", introduction, header, rows, command)
