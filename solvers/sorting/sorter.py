"""The order in which the systems of a window are solved.

`greedy_order` is the published one; the cost of `fast_order` grows with the number of systems, not with its square.
`Sorter` orders a worker's windows where that pays, and `Worth` judges whether it does.

Letters:  N systems, F features, D leading components of the features.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from penstock.arrays.conversion import as_numbers
from penstock.errors import Refused
from penstock.solvers.problem import Parameters

logger = logging.getLogger(__name__)

# D: steps on 12/3 and smooth fields are then within 3 % of those found with all F.
NUM_COMPONENTS = 16
# The components are found from 64 systems; with 256 the steps are the same to 0.5 %.
FITTED_SYSTEMS = 64
# Greedy order inside a group costs 6 us per system then; 1e4 at once would cost 29 for 2 to 4 % shorter steps.
GROUP_SYSTEMS = 1000
# With 3 or 10 dimensions the curve has longer steps.
CURVE_DIMENSIONS = 6

# Sorting may take this fraction of a window's solve time.
BUDGET_FRACTION = 0.02
# Safety factor on the estimate of sorting time.
MARGIN = 2.0
# Time to stack and reduce, per feature of a system, as measured once; used until the worker has sorted a window.
REDUCE_SECONDS = 5e-9
# Time to order, per system, as measured once; used until the worker has sorted a window.
STEP_SECONDS = 6e-6
# Pairs of a window in drawn order and a sorted one, before sorting is kept or left.
NUM_PAIRS = 5
# Sorting is kept if it wins 4 of the pairs; chance alone would keep it 6 times in 32.
WINS_TO_KEEP = 4
# The trial is repeated after 200 windows, because the strategy or the draws may have changed.
WINDOWS_BETWEEN_TRIALS = 200


def greedy_order(features: np.ndarray, start: np.ndarray | None = None) -> list[int]:
    """Greedy nearest neighbours: from one system always to the nearest that is left.

    This is SKR's Algorithm 1 (Wang et al., ICLR 2024, arXiv 2401.09516). O(N² F) time, O(N F) memory.

    Args:
        features: [N, F], one row per system; distances are Euclidean.
        start: [F], the last system solved; the order begins with the system nearest to it, and with system 0 without
            it.

    Returns:
        The rows in order.
    """
    if len(features) == 0:
        return []
    # ||f - c||² - ||c||² = ||f||² - 2 f·c needs no [N, F] temporary per step; centring keeps its cancellation small.
    centre = features.mean(axis=0)
    features = features - centre
    squares = np.einsum("nf,nf->n", features, features)
    left = np.ones(len(features), dtype=bool)
    current = features[0] if start is None else start - centre
    order: list[int] = []
    for _ in range(len(features)):
        distances = np.where(left, squares - 2 * (features @ current), np.inf)
        nearest = 0 if start is None and not order else int(np.argmin(distances))
        order.append(nearest)
        left[nearest] = False
        current = features[nearest]
    return order


def fast_order(features: np.ndarray, start: np.ndarray | None = None) -> list[int]:
    """Greedy nearest neighbours of principal components, grouped by Hilbert's curve.

    A window of at most `GROUP_SYSTEMS` is one group. O(N F + N log N) time, O(N F) memory. Arguments as for
    `greedy_order`.
    """
    if len(features) == 0:
        return []
    components = principal_components(features)
    return hilbert_order(features @ components, None if start is None else start @ components)


def principal_components(features: np.ndarray) -> np.ndarray:
    """The directions in which features [N, F] spread most.

    They are found from at most `FITTED_SYSTEMS` of the systems. No distance grows under a projection. For draws of a
    Gaussian field on a grid the same number of leading cosine coefficients serves as well, but needs the grid.

    Returns:
        Orthonormal columns [F, D], D <= `NUM_COMPONENTS`.
    """
    sample = features[:: -(-len(features) // FITTED_SYSTEMS)]
    sample = sample - sample.mean(axis=0)
    variances, vectors = np.linalg.eigh(sample @ sample.T)
    leading = slice(-1, -1 - min(NUM_COMPONENTS, int(np.sum(variances > 1e-8 * variances[-1]))), -1)
    return sample.T @ (vectors[:, leading] / np.sqrt(variances[leading]))


def hilbert_order(points: np.ndarray, start: np.ndarray | None = None, *, group: int = GROUP_SYSTEMS) -> list[int]:
    """Points along Hilbert's curve, and in greedy order inside groups.

    The curve runs through the first `CURVE_DIMENSIONS` coordinates. O(N log N + N D group) time.

    Args:
        points: [N, D].
        start: [D]; the curve is followed from the end that is nearer to it.
        group: number of successive points that are put in greedy order.

    Returns:
        The rows in order.
    """
    if len(points) <= group or points.shape[1] == 0:
        return greedy_order(points, start)
    corner = points[:, :CURVE_DIMENSIONS]
    bits = min(16, 63 // corner.shape[1])
    lowest, highest = corner.min(axis=0), corner.max(axis=0)
    extent = np.max(highest - lowest) or 1.0  # one for all coordinates, so that distances are kept
    cells = ((2**bits - 1) * ((corner - lowest) / extent)).astype(np.int64)
    curve = np.argsort(hilbert_index(cells, bits), kind="stable")
    if start is not None and np.linalg.norm(points[curve[-1]] - start) < np.linalg.norm(points[curve[0]] - start):
        curve = curve[::-1]
    order: list[int] = []
    for members in np.split(curve, range(group, len(curve), group)):
        order += members[greedy_order(points[members], start)].tolist()
        start = points[order[-1]]
    return order


def hilbert_index(cells: np.ndarray, bits: int) -> np.ndarray:
    """The places of integer cells on Hilbert's curve.

    Cells that follow each other on the curve are neighbours. The method is J. Skilling's, "Programming the Hilbert
    curve", AIP Conf. Proc. 707 (2004) 381-387: the rotations and reflections of all levels of the curve are undone from
    the coarsest to the finest level, each an exchange or a flip of the lower bits; then Gray's code is undone.

    Args:
        cells: [N, D], each coordinate below 2^bits.
        bits: bits of a coordinate; D bits <= 63.

    Returns:
        Places, int64 [N].
    """
    x = np.array(cells.T, dtype=np.int64)
    for level in range(bits - 1, 0, -1):
        lower = 2**level - 1
        for row in x:
            flipped = (row >> level & 1).astype(bool)
            exchanged = np.where(flipped, 0, (x[0] ^ row) & lower)
            x[0] ^= np.where(flipped, lower, exchanged)
            row ^= exchanged
    x = np.bitwise_xor.accumulate(x, axis=0)
    parity = np.zeros_like(x[0])
    for level in range(bits - 1, 0, -1):
        parity ^= np.where(x[-1] >> level & 1, 2**level - 1, 0)
    x ^= parity
    index = np.zeros_like(parity)
    for level in range(bits - 1, -1, -1):
        for row in x:
            index = index << 1 | (row >> level & 1)
    return index


def distance_gain(features: np.ndarray, order: list[int]) -> float:
    """The mean step along the order over the root mean square distance of two systems.

    It is about 1 for independent draws.
    """
    if len(order) < 2:
        return 1.0
    steps = [np.linalg.norm(features[here] - features[there]) for here, there in pairwise(order)]
    spread = np.sqrt(2 * np.sum(np.var(features, axis=0, ddof=1)))
    return float(np.mean(steps) / spread) if spread > 0 else 1.0


class Worth:
    """The judge whether the next window is to be sorted.

    It goes by the seconds per system that it is given, and reads no clock. The first window is solved as drawn, because
    it warms up. Then follow `NUM_PAIRS` pairs of windows, one as drawn and one sorted, the drawn one first in every
    other pair, so that a drift favours neither. Sorting is kept if the sorted windows win `WINS_TO_KEEP` of them,
    sorting included, until the next trial. A window is solved as drawn, whatever the last trial decided, if `MARGIN`
    times the estimated time of sorting it exceeds `BUDGET_FRACTION` of its solve time; a trial ends with that.
    """

    def __init__(self):
        self.is_kept: bool | None = None
        """The decision of the last trial; None while one goes on."""
        self._solve_seconds: float | None = None  # per system of the last window
        self._sort_seconds: float | None = None  # the least seen, so that interruptions by other processes don't count
        self._begin_trial()

    def _begin_trial(self) -> None:
        self.is_kept = None
        self._drawn: list[float] = []
        self._sorted: list[float] = []

    @property
    def next_is_sorted(self) -> bool:
        return self._is_known and self._wants_order and self._is_affordable

    @property
    def _is_known(self) -> bool:
        return self._solve_seconds is not None and self._sort_seconds is not None

    @property
    def _wants_order(self) -> bool:
        if self.is_kept is not None:
            return self.is_kept
        if len(self._drawn) == len(self._sorted):
            return len(self._drawn) % 2 == 1
        return len(self._drawn) > len(self._sorted)

    @property
    def _is_affordable(self) -> bool:
        return MARGIN * self._sort_seconds <= BUDGET_FRACTION * self._solve_seconds

    def record(self, solve_seconds: float, sort_seconds: float | None, *, is_sorted: bool) -> str | None:
        """Note the times of a window.

        Args:
            solve_seconds: seconds per system, without sorting.
            sort_seconds: seconds per system; for a window as drawn an estimate, None where there is none.
            is_sorted: whether the window was sorted.

        Returns:
            The result of a trial in a sentence, when one ends with this window.
        """
        counts = self._is_known  # the first window does not count
        too_dear = counts and self._wants_order and not is_sorted
        self._solve_seconds = solve_seconds
        if sort_seconds is not None:
            self._sort_seconds = min(sort_seconds, self._sort_seconds or sort_seconds)
        if not counts:
            return None
        if self.is_kept is not None:
            self._windows_left -= 1
            if self._windows_left == 0:
                self._begin_trial()
            return None
        if too_dear:
            self._end_trial(is_kept=False)
            return (
                f"windows are solved as drawn: sorting would take {1e3 * self._sort_seconds:.2g} ms per system "
                f"and solving takes {1e3 * solve_seconds:.3g}"
            )
        (self._sorted if is_sorted else self._drawn).append(solve_seconds + (sort_seconds if is_sorted else 0.0))
        if min(len(self._drawn), len(self._sorted)) < NUM_PAIRS:
            return None
        wins = sum(there < here for here, there in zip(self._drawn, self._sorted, strict=True))
        self._end_trial(is_kept=wins >= WINS_TO_KEEP)
        return (
            f"windows are {'sorted' if self.is_kept else 'solved as drawn'}: {1e3 * np.mean(self._sorted):.3g} ms "
            f"per system sorted, {1e3 * self._sort_seconds:.2g} of it for sorting, {1e3 * np.mean(self._drawn):.3g} as "
            f"drawn; the sorted ones were faster in {wins} of {NUM_PAIRS} pairs"
        )

    def _end_trial(self, *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self._windows_left = WINDOWS_BETWEEN_TRIALS


class Sorter:
    """The order of one window of systems after another.

    Each window goes on from the last system of the one before. A window takes `begin`, `add` for each of its systems,
    `order`, and `end` when they are solved.

    Args:
        sort: True for `greedy_order`, always; False for the order of the draws; "auto" for `fast_order` where it pays:
            the strategy must use data of earlier systems, and `Worth` decides.
        features: makes the vector [F] of one draw.
        name: name of the windows' design, for the log.
    """

    def __init__(self, sort: bool | Literal["auto"], features: Callable[[Parameters], np.ndarray], name: str):
        self._sort = sort
        self._make_features = features
        self._name = name
        self._shape: tuple[int, ...] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all earlier windows."""
        self._worth = Worth()
        self._last: np.ndarray | None = None  # [F] features of the last system of the window before

    def begin(self, systems: Sequence[int], *, gains_from_order: bool) -> None:
        """Begin a window.

        Args:
            systems: the numbers of its systems.
            gains_from_order: whether the strategy uses data of earlier systems.
        """
        self._last_drawn = systems[-1] if systems else None
        self._systems: list[int] = []
        self._features: list[np.ndarray] = []
        self._seconds = 0.0
        self._gain: float | None = None
        self._is_judged = self._sort == "auto" and gains_from_order and len(systems) > 1
        self._is_sorted = self._sort is True or (self._is_judged and self._worth.next_is_sorted)
        if not gains_from_order:
            self._worth = Worth()  # the times were those of another strategy

    def add(self, system: int, parameters: Parameters) -> None:
        """Add a system to the window.

        Raises the errors of `features`, and Refused where it gives anything but finite vectors of one length.
        """
        # In drawn order the last system's features show what features cost, and where the next window goes on.
        if self._is_sorted or (self._is_judged and system == self._last_drawn):
            start = time.perf_counter()
            features = as_numbers("features", self._make_features(parameters)).astype(float)
            self._check(features)
            self._features.append(features)
            self._seconds += time.perf_counter() - start
        self._systems.append(system)

    def _check(self, features: np.ndarray) -> None:
        if features.ndim != 1 or features.shape != (self._shape or features.shape):
            before = f", those before {self._shape}" if self._shape else ""
            raise Refused(f"features have shape {features.shape}{before}: give one vector [F]")
        if not np.isfinite(features @ features):
            raise Refused("features are not finite")
        self._shape = features.shape

    def order(self) -> list[int]:
        """The systems added, in the order in which to solve them."""
        if not self._features:
            return self._systems
        if not self._is_sorted:
            self._last = self._features[0]
            return self._systems
        start = time.perf_counter()
        features = np.stack(self._features)
        order = (greedy_order if self._sort is True else fast_order)(features, self._last)
        self._last = features[order[-1]]
        if self._is_judged and self._worth.is_kept is None:
            self._gain = distance_gain(features, order)
        self._seconds += time.perf_counter() - start
        return [self._systems[position] for position in order]

    def end(self, solve_seconds: float) -> None:
        """End the window, with the total time of its solves."""
        if not self._is_judged or not self._systems:
            return
        sort_seconds = None
        if self._is_sorted:
            sort_seconds = self._seconds / len(self._systems)
        elif self._features:
            sort_seconds = self._seconds + REDUCE_SECONDS * self._last.size + STEP_SECONDS
        decision = self._worth.record(solve_seconds / len(self._systems), sort_seconds, is_sorted=self._is_sorted)
        if decision is not None:
            gain = "" if self._gain is None else f", steps {self._gain:.2f} of a random pair's distance"
            logger.info("%s draws: %s%s", self._name, decision, gain)
