"""What problems on the unit circle share that begin with sums of sines."""

from __future__ import annotations

from penstock.geometry import Grid
from penstock.layout import FieldSpec
from penstock.solvers.parameters.space import ParameterSpace
from penstock.solvers.parameters.waves import RandomWaves
from penstock.solvers.problem import Problem
from penstock.solvers.problems.frames import FEEDS, check_frames


class OnCircle(Problem):
    """A problem on the unit circle, from u at one time to u at the next.

    Its initial states have the law of `RandomWaves`, and its samples are arrays [n] at the centres of cells.

    Args:
        resolution: cells on the circle, n >= 8.
        num_steps: samples per simulation, at least 1.
        interval: time between `before` and `solution`.
    """

    is_transient = True
    feeds = FEEDS

    def __init__(self, *, resolution: int, num_steps: int, interval: float):
        if resolution < 8:
            raise ValueError(f"resolution = {resolution} is too small: four waves need at least 8 cells")
        check_frames(num_steps, interval, 1)
        self.resolution = resolution
        self.num_steps = num_steps
        self.interval = interval
        self.space = ParameterSpace(initial=RandomWaves())
        self.grid = Grid((resolution,), periodic=True)
        self.inputs = (FieldSpec(name="before", on=self.grid),)
        self.outputs = (FieldSpec(name="solution", on=self.grid),)
