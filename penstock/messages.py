"""What travels between driver, solvers and learner: leases, chunks, news.

Axes:  N samples of a chunk, F parameters of a draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.arrays.conversion import DTYPE
from penstock.arrays.ragged import Rows, joined


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The strategy that `auto` found fastest for a family of systems.

    It is made once in a run and shared by the run's workers.
    """

    family: str
    """Name of the family."""
    number: int = 0
    """Count of the decisions about the family: a later one replaces an earlier one."""
    strategy: str
    """Label of the choice, for instance "cg + multigrid"."""
    seconds: Mapping[str, float | None]
    """Median time of a solve, in seconds, by label of every strategy tried.

    None stands for one that failed or was cut short.
    """
    reason: str
    """One line for people: what was chosen, over what, by how much."""


# Only the families met last are remembered, because a problem may name a new one for every draw.
MAX_FAMILIES = 32


def keep_last[Key, Value](kept: dict[Key, Value], key: Key, value: Value) -> None:
    """Set a key as the last one, and drop the first ones beyond MAX_FAMILIES.

    Args:
        kept: a dictionary by family, which is changed.
        key: the family.
        value: what is kept of it.
    """
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > MAX_FAMILIES:
        del kept[next(iter(kept))]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The simulations that a worker takes at a time: its look-ahead window."""

    number: int
    """Count of the leases of a run."""
    simulations: tuple[int, ...]
    design: str = "training"
    """Second word of every draw's seed; "validation" draws are never trained on."""
    decisions: tuple[Decision, ...] = ()
    """Decisions about strategies so far, one per family."""
    may_try: bool = True
    """Whether this worker may try strategies; if not, it follows `decisions`."""
    lane: int = 0
    """The worker's place among those of the run.

    A worker that replaces a dead one takes over its lane.
    """


@dataclass(frozen=True)
class LeaseEnd:
    """The end of a lease, sent through the stream after its last chunk."""

    lease_number: int
    error: str | None = None
    """How the worker died before the lease was complete; None if it was."""
    outgrown_bytes: int | None = None
    """Memory in bytes of a worker that has outgrown its bound; None for others.

    It solves nothing more, and may have left simulations out.
    """


@dataclass(frozen=True, kw_only=True)
class SolveRecord:
    """The cost of one linear solve, sent with the chunks."""

    strategy: str
    """The strategy that gave the solution; after a retry, not the configured one."""
    seconds: float
    iterations: int
    """Products with A; 0 for a direct solve."""
    relative_residual: float
    """True relative residual ||b - A x|| / ||b||."""
    family: str = "default"
    """Name of the system's family."""
    reason: str = ""
    """Why it took more than one strategy, or what else the user should know; "" where all went well."""
    converged: bool = True
    """Whether it was solved; if not, its simulation failed for the reason."""
    repeats_matrix: bool = False
    """Whether it had the matrix of the system before: it was a further right-hand side, as of a derivative."""


@dataclass(frozen=True, kw_only=True)
class Restart:
    """A fault of an external program, which was started again to retry the simulation."""

    design: str
    simulation: int
    reason: str
    """The fault, in a line."""


ACTIVITIES = ("draw", "assembly", "solve", "pack")
"""What a worker's time goes to.

Assembly is all that a problem does between its draw, its solves and its samples, such as the steps of a method that
solves no system.
"""


BLOCKED, UNLEASED = "blocked", "unleased"
"""What a worker waits for: room for its next chunk, or a lease."""


CHUNK_BYTES = 4_000_000
"""Size at which a worker sends a chunk.

A chunk costs about as much as the copying of 1 MB, so samples travel together. Larger chunks leave the caches.
"""
CHUNKS_UNDER_WAY = 3
"""The most chunks of a worker that were sent and not taken."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Packed samples, the unit that travels, with news of their simulations.

    The news is what happened since the chunk before: simulations finished and failed, solves, decisions.
    """

    design: str = "training"
    """Design of the lease that the samples belong to."""
    arrays: dict[str, Rows]
    """The samples as arrays, packed by `Layout.pack`."""
    simulations: np.ndarray
    """The simulation that each sample belongs to, int64 [N]."""
    steps: np.ndarray
    """The number of each sample within its simulation, int64 [N]."""
    quantiles: np.ndarray | None = None
    """Quantile of each parameter of the sample's draw, float32 [N, F].

    Ranks lie in [0, 1] and are uniform under the target distribution; [N, 0] where none is given.
    """
    finished: tuple[int, ...] = ()
    """Simulations whose last sample is in this chunk."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Simulations that were given up, with the reason.

    None of their samples is in this or a later chunk.
    """
    solves: tuple[SolveRecord, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """Decisions the worker has made or adopted beyond those in its lease."""
    restarts: tuple[Restart, ...] = ()
    retried: int = 0
    """Number of simulations in which a system needed a more robust strategy, or an external program a restart."""
    seconds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(ACTIVITIES, 0.0))
    """Time that went to each of `ACTIVITIES` since the chunk before, in seconds."""
    outgrown_bytes: int | None = None
    """The `outgrown_bytes` of the `LeaseEnd` that will follow."""

    def __post_init__(self):
        if self.quantiles is None:
            object.__setattr__(self, "quantiles", np.empty((len(self), 0), DTYPE))

    def __len__(self) -> int:
        return len(self.simulations)

    @property
    def num_bytes(self) -> int:
        """Bytes of the chunk's arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def whole_simulations(chunks: Sequence[Chunk]) -> tuple[dict[str, Rows], np.ndarray, np.ndarray]:
    """The samples of the simulations that finished in these chunks.

    Of a simulation that failed at a late step, or goes on, the samples before may have been sent.

    Args:
        chunks: chunks of one problem, at least one.

    Returns:
        Arrays as in the chunks, and the simulation and the step of each sample.
    """
    simulations, steps = (np.concatenate([getattr(each, name) for each in chunks]) for name in ("simulations", "steps"))
    whole = np.isin(simulations, [simulation for chunk in chunks for simulation in chunk.finished])
    arrays = {name: joined([chunk.arrays[name] for chunk in chunks])[whole] for name in chunks[0].arrays}
    return arrays, simulations[whole], steps[whole]
