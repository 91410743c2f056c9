"""The effect of sorted leases on learning: `python -m benchmarks sort-or-learn`.

Similar systems one after another are cheap to solve and make a biased stream. Here the same samples pass through each
kind of buffer in the order in which they were drawn, and sorted in windows that are small or large against the buffer.

Axes:  N samples, F features of a draw, R quantiles.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import footer, paragraph
from penstock.arrays.ragged import joined
from penstock.errors import PenstockError
from penstock.learner.buffers.bias import kolmogorov_smirnov
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import POLICIES
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.order import Deterministic
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.collect import Collected
from penstock.machine import processor
from penstock.messages import Chunk, Lease
from penstock.orchestrator.config.config import BufferSection
from penstock.orchestrator.config.solver import SolverSection
from penstock.registry import load_class
from penstock.report import markdown
from penstock.solvers import mpi
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import Problem
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.sorting.sorter import greedy_order
from penstock.solvers.worker import SolverWorker
from penstock.status import Ended

FOLDER = Path("docs")
CAPACITY = 512
WATERMARK = 128
BATCH_SIZE = 16
CHUNK_SIZE = 16
WIDTH, MODES = 16, 8
LEARNING_RATE = 4e-3
DEFAULT_WINDOW, DEFAULT_CAPACITY = SolverSection().window, BufferSection().capacity
DEFAULT_SHARE = DEFAULT_WINDOW / DEFAULT_CAPACITY
WINDOWS = (round(DEFAULT_SHARE * CAPACITY), CAPACITY // 4, CAPACITY, 4 * CAPACITY)
NUM_VALIDATION = 200
REUSES = {"fifo": (1,), "firo": (1,), "reservoir": (1, 4)}  # the first two can't repeat a sample


@dataclass(frozen=True)
class Draws:
    """Simulations that were solved once, for all arms of a seed."""

    chunk: Chunk
    features: np.ndarray
    """Features of the draws, [N, F]."""

    def __len__(self) -> int:
        return len(self.chunk)

    def collected(self) -> Collected:
        """The samples as a validation set."""
        return Collected(self.chunk.arrays, self.chunk.simulations, self.chunk.steps, Ended([[0, len(self)]]))

    @cached_property
    def orders(self) -> dict[int, list[int]]:
        """The order of the samples by window; 1 is as drawn.

        Every window goes on from the one before.
        """
        orders = {1: list(range(len(self)))}
        for window in WINDOWS:
            order, last = [], None
            for start in range(0, len(self), window):
                order += [start + row for row in greedy_order(self.features[start : start + window], last)]
                last = self.features[order[-1]]
            orders[window] = order
        return orders


class AsGiven(Deterministic):
    """The order that a stream has already."""

    def source(self, stream: Replay) -> Replay:
        return stream


class Replay:
    """The stream of a worker that solves draws in a given order.

    Args:
        draws: the solved simulations.
        order: rows in the order in which they are sent.
        on_chunk: is called after each chunk.
    """

    def __init__(self, draws: Draws, order: list[int], on_chunk: Callable[[], None]):
        self._draws = draws
        self._order = order
        self._on_chunk = on_chunk
        self._position = 0

    @property
    def has_ended(self) -> bool:
        return self._position >= len(self._order)

    def acknowledge(self) -> None:
        self._position += CHUNK_SIZE
        self._on_chunk()

    def next(self, timeout_s: float, lane: int | None = None) -> Chunk | None:
        rows, chunk = self._order[self._position : self._position + CHUNK_SIZE], self._draws.chunk
        if not rows:
            return None
        return replace(
            chunk,
            arrays={name: array[rows] for name, array in chunk.arrays.items()},
            simulations=chunk.simulations[rows],
            steps=chunk.steps[rows],
            quantiles=chunk.quantiles[rows],
            finished=tuple(chunk.simulations[rows].tolist()),
        )


def solve(problem: Problem, seed: int, design: str, count: int) -> Draws:
    """Solve `count` simulations of a design, with one sample each."""
    worker = SolverWorker(problem, {design: LinearSolver(Direct(), rtol=1e-8)}, seed=seed, sort=False)
    chunks = list(worker.stream(Lease(number=0, simulations=tuple(range(count)), design=design)))
    if failed := {i: reason for chunk in chunks for i, reason in chunk.failed.items()}:
        raise ArithmeticError(f"{len(failed)} simulations failed: {next(iter(failed.values()))}")
    chunk = Chunk(
        arrays={name: joined([chunk.arrays[name] for chunk in chunks]) for name in problem.layout.blocks},
        simulations=np.concatenate([chunk.simulations for chunk in chunks]),
        steps=np.concatenate([chunk.steps for chunk in chunks]),
        quantiles=np.concatenate([chunk.quantiles for chunk in chunks]),
    )
    features = [problem.features(problem.draw(generator_of(seed, design, i))) for i in range(count)]
    return Draws(chunk, np.stack(features).astype(np.float32))


@dataclass(frozen=True)
class Outcome:
    """The result of an arm with one seed."""

    error: float
    """Mean relative L2 validation error."""
    distance: float
    """KS distance of the buffer's population, mean over the run.

    It is that of the parameter that is furthest off.
    """


def learn(
    problem: Problem, training: Draws, validation: Draws, seed: int, kind: str, reuse: int, window: int
) -> Outcome:
    """Train once on all draws, in their order by window."""
    torch.manual_seed(seed)
    layout = problem.layout
    buffer = Buffer(layout, POLICIES[kind](), capacity=CAPACITY, watermark=WATERMARK, seed=seed)
    distances = []

    def measure() -> None:
        if buffer.reached_watermark:
            distances.append(kolmogorov_smirnov(buffer.contents().quantiles.astype(np.float64)).max())

    surrogate = Surrogate(FNO(layout, width=WIDTH, modes=MODES), Normalization.identity(layout), layout)
    learner = Learner(
        Optimization(surrogate, loss=TotalLoss(problem.layout, RelativeL2), learning_rate=LEARNING_RATE),
        buffer,
        Replay(training, training.orders[window], measure),
        layout,
        Settings(
            batch_size=BATCH_SIZE,
            stop_after=StopAfter(steps=reuse * len(training) // BATCH_SIZE),
            batches_per_simulation=reuse / BATCH_SIZE,
            validation_every_s=np.inf,
        ),
        store=PlainStore(validation=validation.collected()),
        order=AsGiven(num_lanes=1, window=len(training)),
    )
    cause = learner.run()
    if cause != "steps":
        raise RuntimeError(f"{kind}: training ended by {cause!r} at step {learner.trainer.step}")
    return Outcome(learner.trainer.validation_errors["relative_l2"]["mean"], float(np.mean(distances)))


Results = dict[tuple[str, int, int], list[Outcome]]  # one outcome per seed, by kind, reuse and window


def compare(problem: Problem, num_samples: int, seeds: Sequence[int]) -> Results:
    """Run all arms on one problem.

    A seed is one set of draws, one start of the weights and one sequence of batches.
    """
    validation = solve(problem, seeds[0], "validation", NUM_VALIDATION)
    results: Results = defaultdict(list)
    for seed in seeds:
        training = solve(problem, seed, "training", num_samples)
        for kind, reuses in REUSES.items():
            for reuse in reuses:
                for window in training.orders:
                    outcome = learn(problem, training, validation, seed, kind, reuse, window)
                    results[kind, reuse, window].append(outcome)
                    print(f"seed {seed}  {kind}, reuse {reuse}, window {window}: {outcome.error:.4f}", file=sys.stderr)
    return results


def run(num_samples: int, seeds: Sequence[int]) -> None:
    """Compare on two problems, and write the page in docs/.

    One problem has fields alone, the other a scalar that sorting sweeps. Raises PenstockError where docs/ is not to be
    found.
    """
    example = Path("examples/screened_poisson.py")
    if not FOLDER.is_dir() or not example.exists():
        raise PenstockError("docs/ and examples/ are not here: call this in the folder of the repository")
    if num_samples < WINDOWS[-1]:
        raise PenstockError(f"--samples: the largest window alone holds {WINDOWS[-1]}")
    mpi.start()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    poisson = load_class(f"{example}:ScreenedPoisson", {}, "examples")
    problems = {
        "Darcy, 32 x 32: a field of two values": Darcy(resolution=32),
        "screened Poisson, 32 x 32: a source and a scalar": poisson(resolution=32),
    }
    results = {title: compare(problem, num_samples, seeds) for title, problem in problems.items()}
    draw_errors(results, FOLDER / "sort-or-learn.png")
    table = markdown(
        [row for title, arms in results.items() for row in rows_of(title, arms)],
        ["problem", "buffer", "reuse", "order", "error", "least to largest", "against drawn", "KS distance", "verdict"],
    )
    print(table)
    (FOLDER / "sort-or-learn.md").write_text(page(table, results, num_samples, seeds))


def rows_of(title: str, arms: Results) -> list[list[str]]:
    rows = []
    for (kind, reuse, window), outcomes in arms.items():
        errors, drawn = ([outcome.error for outcome in arms[kind, reuse, of]] for of in (window, 1))
        ratio = np.mean(errors) / np.mean(drawn)
        rows.append(
            [
                title.partition(",")[0],
                kind,
                str(reuse),
                "as drawn" if window == 1 else f"window {window / CAPACITY:.2g} x capacity",
                f"{np.mean(errors):.4f}",
                f"{min(errors):.4f} to {max(errors):.4f}",
                "" if window == 1 else f"{ratio:.2f}x",
                f"{np.mean([outcome.distance for outcome in outcomes]):.3f}",
                "" if window == 1 else "within" if is_within(arms, kind, reuse, window) else "worse",
            ]
        )
    return rows


def is_within(arms: Results, kind: str, reuse: int, window: int) -> bool:
    """Whether the mean error lies within or below the seeds' spread as drawn."""
    return np.mean([o.error for o in arms[kind, reuse, window]]) <= max(o.error for o in arms[kind, reuse, 1])


def draw_errors(results: dict[str, Results], path: Path) -> None:
    """Draw one panel per problem: error by window, with the seeds' spread as bars.

    There is one line per buffer.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5.2 * len(results), 3.8), layout="constrained", squeeze=False)
    for ax, (title, arms) in zip(axes[0], results.items(), strict=True):
        for number, (kind, reuse) in enumerate((kind, reuse) for kind, reuses in REUSES.items() for reuse in reuses):
            errors = np.array([[o.error for o in arms[kind, reuse, window]] for window in (1, *WINDOWS)])
            means = errors.mean(axis=1)
            ax.errorbar(
                np.arange(len(means)) + 0.06 * (number - 1.5),  # side by side, so that the bars do not overlap
                means,
                yerr=[means - errors.min(axis=1), errors.max(axis=1) - means],
                marker="os^D"[number],
                color=("#0072B2", "#E69F00", "#000000", "#D55E00")[number],
                capsize=3,
                label=f"{kind}, reuse {reuse}",
            )
        ax.set(title=title, xlabel="sorted in windows, in capacities", yscale="log")
        ax.set_xticks(range(1 + len(WINDOWS)), ["as drawn", *(f"{window / CAPACITY:.2g}" for window in WINDOWS)])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel("mean relative L2 validation error")
    axes[0, 0].legend(loc=(0.3, 0.22))  # where the lines leave room
    figure.savefig(path, dpi=130)
    plt.close(figure)


def page(table: str, results: dict[str, Results], num_samples: int, seeds: Sequence[int]) -> str:
    good = [
        window
        for window in WINDOWS
        if all(is_within(arms, "reservoir", reuse, window) for arms in results.values() for reuse in (1, 4))
    ]
    shares = " and ".join(f"{window / CAPACITY:.2g}" for window in good) or "no tested size in"
    unbiased = 0.87 / CAPACITY**0.5
    text = f"""
        Sorted systems are cheap to solve and make a biased stream; the buffer is there to take the bias out again. Here
        the same {num_samples} samples, solved once, pass through each kind of buffer (capacity {CAPACITY}, watermark
        {WATERMARK}): as drawn, and sorted greedily in windows of {DEFAULT_SHARE:.2g} of the capacity, as the default
        window is, of a quarter of it, of all of it, and of four times it. That is one worker with successive windows;
        the windows of several workers would mix on their way and be biased less. All arms of a reuse take equal
        steps of {BATCH_SIZE} samples on equal unique samples, in lockstep, so no timing enters: an FNO of width {WIDTH}
        with {MODES} modes, AdamW, peak {LEARNING_RATE:g}, a cosine to zero.

        "error" is the mean relative L2 error on {NUM_VALIDATION} held-out simulations, mean over {len(seeds)} seeds of
        draws, weights and batches, with the least and largest. "KS distance" is the largest Kolmogorov-Smirnov distance
        of a parameter's distribution in the buffer from the one it is drawn from, mean over the run; {CAPACITY}
        independent draws have about {unbiased:.3f} per parameter. "within": the mean error is not above the largest of
        the samples as drawn."""
    conclusion = f"""
        With the reservoir, windows of {shares} capacities are within the seeds' spread of the stream as drawn, on both
        problems at both reuses. The default, {DEFAULT_WINDOW} simulations (`solver.window`) and {DEFAULT_CAPACITY}
        samples (`buffer.capacity`), is {"" if WINDOWS[0] in good else "not "}among them. Where `solver.sort` is `auto`,
        leases are sorted only where that saves solve time."""
    made_by = footer(
        f"python -m benchmarks sort-or-learn --samples {num_samples} --seeds {len(seeds)}",
        f"{processor()}, torch threads: {torch.get_num_threads()}",
        f"torch {torch.__version__.partition('+')[0]}, NumPy {np.__version__}",
    )
    return f"""# Sort or learn

{"\n\n".join(paragraph(part) for part in text.split("\n\n"))}

{table}

![validation error by window](sort-or-learn.png)

{paragraph(conclusion)}

{made_by}
"""
