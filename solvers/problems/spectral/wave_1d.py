"""The wave equation on an interval."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import Discrete, ParameterSpace, Uniform
from penstock.solvers.problem import Parameters, Problem, Solve
from penstock.solvers.problems.frames import FEEDS, check_frames, samples

HALF = 8.0  # the interval is (-HALF, HALF)
SPEED = 2.0
ENDS = {  # what is not drawn: 0 for Dirichlet, 1 for Neumann
    "dirichlet": {"left_end": 0.0, "right_end": 0.0},
    "neumann": {"left_end": 1.0, "right_end": 1.0},
    "mixed": {},
}
EITHER = Discrete((0.0, 1.0))


class Wave1D(Problem):
    """A pulse between two ends that reflect it: from u at some times to the next.

    ∂²u/∂t² = 4 ∂²u/∂x² on (-8, 8), u = 0 (Dirichlet) or ∂u/∂x = 0 (Neumann) at each end.

    These are the cases WE1 (both ends Dirichlet), WE2 (both Neumann) and WE3 (mixed) of Brandstetter et al. (2022,
    arXiv 2202.03376). At first u = exp(-(x - s)²) and ∂u/∂t = 2 ∂u/∂x, a pulse that goes to the left, with s uniform on
    [-4, 4]. With mixed ends each is Dirichlet or Neumann with the same probability. Their code saves the frames of a
    trajectory from the last to the first, and a copy of it for further equations draws the left end twice, so that the
    right one stays Dirichlet; here neither is so. They solve by Chebyshev collocation with tolerances of 1e-3; ours is
    exact.

    d'Alembert's solution with images: with F(y + 32) = σ_l σ_r F(y), σ = -1 for a Dirichlet end and 1 for a Neumann
    end, and F(y) = exp(-(y - s)²) on a period around s,

        u(x, t) = F(x + 2t) + σ_l F(-16 - x + 2t).

    It meets both conditions exactly, and those at first up to 1e-7: the tail of the pulse beyond an end. It repeats
    after 16 units of time, or 32 where the ends differ.

    A simulation yields a sample per interval: from `before`, u at the last `history` times, an array [history, n], to
    `solution` [n], at n equally spaced points, both ends included. u at one time doesn't tell which way a pulse goes,
    so there are 2 times by default. With mixed ends `left_end` and `right_end` are inputs, 0 for Dirichlet and 1 for
    Neumann.

    Args:
        resolution: points, n >= 16. Published are 20 to 200 Chebyshev points.
        ends: "dirichlet", "neumann" or "mixed".
        num_steps: samples per simulation. num_steps * interval is 100 in the published sets, with 250 frames.
        interval: time between frames.
        history: frames that are given, at least 1.
    """

    is_transient = True

    def __init__(
        self,
        *,
        resolution: int = 128,
        ends: str = "mixed",
        num_steps: int = 100,
        interval: float = 0.4,
        history: int = 2,
    ):
        if resolution < 16:
            raise ValueError(
                f"resolution = {resolution} is too small: a pulse of width 2 in 16 needs at least 16 points"
            )
        if ends not in ENDS:
            raise ValueError(f"ends = {ends!r} is not known: {' or '.join(ENDS)}")
        check_frames(num_steps, interval, history)
        self.resolution = resolution
        self.ends = ends
        self.num_steps = num_steps
        self.interval = interval
        self.history = history
        self.feeds = FEEDS if history == 1 else {}
        self.drawn_ends = () if ENDS[ends] else ("left_end", "right_end")
        self.space = ParameterSpace(start=Uniform(-4.0, 4.0), **dict.fromkeys(self.drawn_ends, EITHER))
        grid = Grid((resolution,), extent=(2 * HALF,), origin=(-HALF,), centring="vertices")
        self.inputs = (
            FieldSpec(name="before", on=grid, components=history),
            *(FieldSpec(name=name) for name in self.drawn_ends),
        )
        self.outputs = (FieldSpec(name="solution", on=grid),)

    def simulate(self, parameters: Parameters, solve: Solve) -> Iterator[Sample]:
        drawn = {name: parameters[name] for name in self.drawn_ends}
        frames = self.frames(parameters["start"], **ENDS[self.ends] | drawn)
        yield from samples(frames, interval=self.interval, history=self.history, constants=drawn)

    def frames(self, start: float, *, left_end: float, right_end: float) -> Iterator[np.ndarray]:
        """u [n] at first and after each interval.

        Args:
            start: s.
            left_end: 0 for Dirichlet, 1 for Neumann.
            right_end: likewise.
        """
        points = np.linspace(-HALF, HALF, self.resolution)
        left, right = 2 * left_end - 1, 2 * right_end - 1  # σ_l and σ_r
        ways = SPEED * self.interval * np.arange(self.num_steps + self.history)[:, None]
        incident = _periodic_pulse(points + ways - start, left * right)
        yield from incident + left * _periodic_pulse(-2 * HALF - points + ways - start, left * right)


def _periodic_pulse(distances: np.ndarray, sign: float) -> np.ndarray:
    """exp(-y²) on a period around y = 0, with this sign after each period of 4 HALF."""
    periods = np.round(distances / (4 * HALF))
    return np.where(periods % 2, sign, 1.0) * np.exp(-((distances - 4 * HALF * periods) ** 2))
