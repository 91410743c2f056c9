"""The surrogate of a run tried out on its validation set, when a page is written.

Axes:  N rows, * the shape of a geometry.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import PenstockError, describe
from penstock.orchestrator.store.run_folder import RunFolder

if TYPE_CHECKING:
    from penstock.layout import Layout
    from penstock.orchestrator.plan import Plan

MOST_ROWS, FEWEST_ROWS = 256, 3  # that are tried
MOST_SECONDS = 20.0  # for which the surrogate may predict, unless the fewest rows take longer
MOST_BYTES = 2e9  # of a validation set that is read


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the surrogate of a checkpoint predicts for rows of the validation set."""

    step: int
    """Step of the checkpoint."""
    layout: Layout
    named: Mapping[str, np.ndarray]
    """[N, *] by quantity: what the solver gave."""
    predicted: Mapping[str, np.ndarray]
    """[N, *] by output."""
    errors: np.ndarray
    """[N]: relative L2 errors of whole outputs."""
    errors_by_output: Mapping[str, np.ndarray]
    """[N] by output."""
    names: Sequence[str]
    """What each row is called."""
    parameters: Mapping[str, np.ndarray]
    """[N] by parameter, named with its unit: scalars as they are, of others the quantiles."""
    call_seconds: float
    """Core-seconds per sample that a row stands for, on this machine's CPU, in batches."""
    sample_bytes: int
    """Size of a sample, as a store would hold it."""


def try_out(folder: RunFolder) -> Trial:
    """Try the best surrogate so far, on this machine's CPU.

    Args:
        folder: the run.

    Raises:
        PenstockError: it can't be tried, and why: nothing is trained yet, the set is too large or damaged, or the code
            of the problem or of the model is not what it was.
    """
    if not folder.validation.exists():  # before torch is imported
        raise PenstockError("there is no validation set yet")
    try:
        from penstock.orchestrator.store.trained import best_step

        return _tried(folder.path, best_step(folder))
    except PenstockError:
        raise
    except Exception as error:  # code of the user, or of another version, may raise anything
        raise PenstockError(f"the surrogate can't be tried: {describe(error)}") from error


@lru_cache(maxsize=4)
def _tried(path: Path, step: int) -> Trial:
    """The trial of a checkpoint, once for all that is written about it."""
    from penstock.arrays import zarr_store
    from penstock.orchestrator.plan import resolve
    from penstock.orchestrator.store.run_store import RunStore
    from penstock.orchestrator.store.trained import predictions, surrogate_of

    folder = RunFolder(path)
    num_bytes = sum(file.stat().st_size for file in folder.validation.rglob("*") if file.is_file())
    if num_bytes > MOST_BYTES:
        raise PenstockError(f"the validation set takes {num_bytes / 1e9:.1f} GB: use `penstock predict`")
    plan = resolve(folder.config())
    surrogate = surrogate_of(folder, plan, step)
    stored = RunStore(folder).read_validation(plan.problem.layout)
    rows, simulations, steps = plan.unit.all_rows(stored.arrays, plan.problem.layout, stored.simulations, stored.steps)
    layout = surrogate.layout
    first = zarr_store.by_name({name: array[:1] for name, array in rows.items()}, layout)
    predictions(surrogate, first, 1)  # what is built on first use is not in the time of a row
    began = time.perf_counter()
    predictions(surrogate, first, 1)
    num = int(np.clip(MOST_SECONDS / (time.perf_counter() - began), FEWEST_ROWS, MOST_ROWS))
    kept = np.unique(np.linspace(0, len(simulations) - 1, min(len(simulations), num)).round().astype(int))
    rows, simulations, steps = {name: array[kept] for name, array in rows.items()}, simulations[kept], steps[kept]
    named = zarr_store.by_name(rows, layout)
    validation = plan.validation(rows, "cpu")
    began = time.process_time()
    predicted = predictions(surrogate, named, validation.batch_size)
    seconds = time.process_time() - began
    validation.errors(surrogate)
    errors, by_output = validation.sample_errors()
    has_steps = len(set(steps.tolist())) > 1
    return Trial(
        step=step,
        layout=layout,
        named=named,
        predicted=predicted,
        errors=errors,
        errors_by_output=by_output,
        names=[
            f"simulation {simulation}" + (f", step {step}" if has_steps else "")
            for simulation, step in zip(simulations, steps, strict=True)
        ],
        parameters=_parameters(plan, named, layout, simulations),
        call_seconds=seconds / len(simulations) / plan.unit.frames(plan.problem.layout).advance,
        sample_bytes=sum(array[0].nbytes for array in stored.arrays.values()),
    )


def _parameters(
    plan: Plan, named: Mapping[str, np.ndarray], layout: Layout, simulations: np.ndarray
) -> dict[str, np.ndarray]:
    """What rows differ in: scalars among the inputs, quantiles of other parameters."""
    from penstock.solvers.parameters.space import generator_of

    scalars = {
        f"{spec.name} [{spec.unit}]": named[spec.name]
        for spec in layout.inputs
        if spec.on is None and named[spec.name].ndim == 1 and np.ptp(named[spec.name]) > 0
    }
    known = {spec.name for spec in layout.inputs if spec.on is None}
    problem = plan.problem
    names = problem.quantile_names
    if not names:
        return scalars
    numbers, of_row = np.unique(simulations, return_inverse=True)
    seed = plan.config.seed
    quantiles = np.stack([problem.quantiles(generator_of(seed, "validation", int(number))) for number in numbers])
    others = {
        f"quantile of {name}": quantiles[of_row, column] for column, name in enumerate(names) if name not in known
    }
    return scalars | others
