"""What a problem's simulations cost, and the systems that they solve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from penstock.errors import PenstockError
from penstock.messages import ACTIVITIES, Chunk, Lease
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.reasons import is_symmetric
from penstock.solvers.problem import LinearSystem, Problem, Solution
from penstock.solvers.worker import SolverWorker

RTOL = 1e-8  # of the direct solutions, as in validation
FEWEST, MOST = 3, 1000  # times that a median is taken of


@dataclass
class MatrixTimes:
    """What systems took, by whether their matrix was new."""

    kept_seconds: list[float] = field(default_factory=list)
    """Time to solve each that had the matrix of the system before."""
    new_seconds: list[float] = field(default_factory=list)
    """Time to solve each with another matrix, without the first, for which a solver also sets itself up."""

    def add(self, seconds: float, *, repeats_matrix: bool) -> None:
        """Count a system; beyond MOST of either kind none is."""
        times = self.kept_seconds if repeats_matrix else self.new_seconds
        if len(times) < MOST:
            times.append(seconds)

    @property
    def kept_share(self) -> float | None:
        """The median time of a further right-hand side over that of a new matrix.

        None where there were fewer than FEWEST of either, whose times would say more of the machine.
        """
        if min(len(self.kept_seconds), len(self.new_seconds)) < FEWEST:
            return None
        return median(self.kept_seconds) / median(self.new_seconds)


@dataclass(kw_only=True)
class Systems(MatrixTimes):
    """The systems of one family that were met."""

    fewest: int
    """Unknowns of the smallest one."""
    most: int
    """Unknowns of the largest one."""
    is_spd: bool
    """Whether the problem calls the first one symmetric positive definite."""
    is_symmetric: bool
    """Whether the first one is symmetric."""
    count: int = 0
    """Number of systems."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a few simulations took on one core, with every system solved directly."""

    num: int
    """Number of the simulations."""
    chunks: tuple[Chunk, ...]
    """Their samples."""
    systems: Mapping[str, Systems]
    """The systems that they solved, by family."""
    first_seconds: float
    """Time of the first simulation, which also builds what the problem keeps for all."""
    seconds: Mapping[str, float]
    """Time of a sample of the others by activity, see `ACTIVITIES`."""

    @property
    def failed(self) -> dict[int, str]:
        """The simulations that failed, with the reason."""
        return {number: reason for chunk in self.chunks for number, reason in chunk.failed.items()}


def measure(problem: Problem, num: int, *, seed: int = 0) -> Measurement:
    """Solve a few draws of a problem and time them.

    Args:
        problem: the problem.
        num: number of draws, at least 2.
        seed: seed of the draws.

    Returns:
        The measurement.

    Raises:
        PenstockError: no simulation succeeded after the first one.
    """
    solver = _Noting()
    worker = SolverWorker(problem, {"training": solver}, seed=seed, sort=False)
    first = list(worker.stream(Lease(number=0, simulations=(0,))))
    others = list(worker.stream(Lease(number=1, simulations=tuple(range(1, num)))))
    num_samples = sum(map(len, others))
    if not num_samples:
        raise PenstockError(next(reason for chunk in others for reason in chunk.failed.values()), exit_code=3)
    return Measurement(
        num=num,
        chunks=(*first, *others),
        systems=solver.met,
        first_seconds=sum(sum(chunk.seconds.values()) for chunk in first),
        seconds={name: sum(chunk.seconds[name] for chunk in others) / num_samples for name in ACTIVITIES},
    )


class _Noting(LinearSolver):
    """A direct solver that notes which systems it met."""

    def __init__(self):
        super().__init__(Direct(), rtol=RTOL)
        self.met: dict[str, Systems] = {}

    def __call__(self, system: LinearSystem) -> Solution:
        size = system.A.getSize()[0]
        if system.family not in self.met:
            self.met[system.family] = Systems(
                fewest=size, most=size, is_spd=system.is_spd, is_symmetric=is_symmetric(system)
            )
        met = self.met[system.family]
        met.fewest, met.most, met.count = min(met.fewest, size), max(met.most, size), met.count + 1
        solution = super().__call__(system)
        if met.count > 1:
            met.add(solution.seconds, repeats_matrix=self.repeats_matrix)
        return solution
