"""Point sets, which cover a space of parameters more evenly than random draws.

Axes:  F quantiles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from scipy.stats import qmc

from penstock.solvers.parameters.space import generator_of

EDGE = 2.0**-31  # half of the spacing of SciPy's Sobol points: at the quantiles 0 and 1 a normal number is infinite


class PointSet(ABC):
    """A point of the unit cube per simulation: the quantiles of its parameters.

    It depends on seed, design and number of the simulation alone, so any worker can redo it, and a resumed run has
    nothing to restore. Points in the order of the numbers are cheapest.

    Args:
        dimension: F.
        seed: seed of the run.
        design: name of the design whose simulations these are.
    """

    def __init__(self, dimension: int, seed: int, design: str):
        self.dimension = dimension
        self.seed = seed
        self.design = design

    def point(self, simulation: int) -> np.ndarray:
        """The point of a simulation, float64 [F], inside of (0, 1)."""
        return np.clip(self._point(simulation), EDGE, 1 - EDGE)

    @abstractmethod
    def _point(self, simulation: int) -> np.ndarray:
        """The point, which may have zeros and ones."""

    def _generator(self, number: int) -> np.random.Generator:
        """A random generator that no simulation has."""
        return generator_of(self.seed, f"points of {self.design}", number)


class Sobol(PointSet):
    """Sobol's sequence, randomised by linear matrix scrambling and a digital shift.

    The first 2^m points, and every further 2^m, are balanced best. There are 2^30.
    """

    @cached_property
    def _engine(self) -> qmc.Sobol:
        return qmc.Sobol(self.dimension, rng=self._generator(0))

    def _point(self, simulation: int) -> np.ndarray:
        if simulation < self._engine.num_generated:
            self._engine.reset()
        if simulation > self._engine.num_generated:
            self._engine.fast_forward(simulation - self._engine.num_generated)  # 6 ms for a million of 20 quantiles
        return self._engine.random(1)[0]


class Halton(PointSet):
    """Halton's sequence, its digits permuted at random (Owen 2017, arXiv 1706.02808)."""

    @cached_property
    def _engine(self) -> qmc.Halton:
        return qmc.Halton(self.dimension, rng=self._generator(0))

    def _point(self, simulation: int) -> np.ndarray:
        self._engine.num_generated = simulation  # fast_forward would draw all points before
        return self._engine.random(1)[0]


class LatinHypercube(PointSet):
    """Latin hypercubes of `BLOCK` successive simulations each.

    Of the simulations of a block each has another one of `BLOCK` equal parts of every quantile.
    """

    BLOCK = 256

    def __init__(self, dimension: int, seed: int, design: str):
        super().__init__(dimension, seed, design)
        self._blocks: dict[int, np.ndarray] = {}

    def _point(self, simulation: int) -> np.ndarray:
        block, place = divmod(simulation, self.BLOCK)
        if block not in self._blocks:
            points = qmc.LatinHypercube(self.dimension, rng=self._generator(block)).random(self.BLOCK)
            self._blocks = {block: points}  # the last one alone
        return self._blocks[block][place]


POINT_SETS: dict[str, type[PointSet]] = {"sobol": Sobol, "halton": Halton, "latin_hypercube": LatinHypercube}
"""Names for `problem.design`, beside "monte_carlo", with the class behind each."""
