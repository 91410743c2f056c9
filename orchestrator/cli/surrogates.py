"""Commands on a trained surrogate: export it, and predict with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock import __version__
from penstock.arrays.ragged import joined, padded
from penstock.errors import PenstockError
from penstock.layout import Layout
from penstock.learner.checkpoints import checkpoint
from penstock.learner.export.program import export as export_file
from penstock.learner.surrogate import Surrogate
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import with_files
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.run.bounds import require_memory_for_draws
from penstock.orchestrator.run.memory import least_memory
from penstock.orchestrator.store import zarr_store
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from penstock.orchestrator.views.monitor import explained_lines
from penstock.orchestrator.views.numbers import digits
from penstock.orchestrator.views.pictures import draw_comparison


def export(folder: RunFolder, output: Path | None) -> None:
    """Write the best surrogate as one .pt2 file, its card inside and beside it.

    Args:
        folder: the run.
        output: the file to write; None for <run>.pt2 in the run folder.

    Raises:
        PenstockError: the run has no checkpoint, or the file can't be written.
    """
    plan = resolve(folder.config())
    surrogate, step = load_surrogate(folder, plan)
    layout = plan.problem.layout
    stored = RunStore(folder).read_validation(layout)
    arrays, _, steps = plan.unit.all_rows(stored.arrays, layout, stored.simulations, stored.steps)
    num_simulations = len(set(stored.simulations.tolist()))
    card = _card(folder, plan, num_simulations, plan.validation(arrays, "cpu", steps).errors(surrogate).as_dict())
    card["step"] = step
    example = {name: array[:2] for name, array in arrays.items()}
    path = export_file(surrogate, card, output or folder.path / f"{folder.path.name}.pt2", example)
    errors = card["validation"]["relative_l2"]
    mean, p99, largest = (digits(errors[name]) for name in ("mean", "p99", "max"))
    print(
        "\n".join(
            [
                f"validation relative L2 error: mean {mean}, p99 {p99}, max {largest}",
                *explained_lines(card["validation"]),
            ]
        )
    )
    print(f"wrote {os.path.relpath(path)} and its card {os.path.relpath(path.with_suffix('.card.json'))}")
    print(f"load it with torch alone: torch.export.load({os.path.relpath(path)!r}).module()")


def predict(folder: RunFolder, num: int, output: Path | None) -> None:
    """Solve new draws, predict them, and write a Zarr store and a PNG.

    Args:
        folder: the run.
        num: number of draws.
        output: the folder to write; None for predictions/ in the run folder.

    Raises:
        PenstockError: there is no checkpoint, nothing could be solved, or nothing can be written.
    """
    plan = resolve(folder.config())
    require_memory_for_draws(plan, num, least_memory())
    surrogate, _ = load_surrogate(folder, plan)
    target = output or folder.path / "predictions"
    try:  # before anything is solved
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PenstockError(f"can't write to {target}: {error.strerror}: give another --output") from error
    unit, layout = plan.unit, plan.problem.layout
    worker = make_worker(plan)
    chunks = list(worker.stream(Lease(number=0, simulations=tuple(range(num)), design="prediction")))
    for simulation, reason in ((i, r) for chunk in chunks for i, r in chunk.failed.items()):
        print(f"draw {simulation} failed: {reason}")
    simulations = np.concatenate([chunk.simulations for chunk in chunks])
    steps = np.concatenate([chunk.steps for chunk in chunks])
    # Of a simulation that failed at a late step the samples before may have been sent.
    whole = np.isin(simulations, [simulation for chunk in chunks for simulation in chunk.finished])
    if not whole.any():
        raise PenstockError("every solve failed, there is nothing to compare with", exit_code=3)
    samples = {name: padded(joined([chunk.arrays[name] for chunk in chunks])[whole]) for name in layout.blocks}
    arrays, simulations, steps = unit.all_rows(samples, layout, simulations[whole], steps[whole])
    layout = surrogate.layout
    validation = plan.validation(arrays, "cpu", steps)
    predictions = []
    with torch.no_grad():
        for start in range(0, len(validation), validation.batch_size):
            rows = slice(start, start + validation.batch_size)
            batch = {name: torch.from_numpy(array[rows]) for name, array in arrays.items()}
            predictions.append(_by_quantity(surrogate.predict(batch), batch, layout))
    predicted = {name: np.concatenate([each[name] for each in predictions]) for name in predictions[0]}
    errors = validation.sample_errors(surrogate)

    named = zarr_store.by_name(arrays, layout)
    zarr_store.write(
        target / "predictions.zarr",
        named
        | {f"{name}_predicted": values for name, values in predicted.items()}
        | {"simulation": simulations, "step": steps, "relative_l2": errors},
        {"run": folder.path.name, "design": "prediction", "seed": plan.config.seed},
    )
    picture = target / "predictions.png"
    wrote = [os.path.relpath(target / "predictions.zarr")]
    if field := next((spec.name for spec in layout.outputs if spec.on is not None), None):
        draw_comparison(picture, named, predicted[field], errors, layout)
        wrote.append(os.path.relpath(picture))
    print(f"relative L2 error of {len(errors)} samples: mean {digits(errors.mean())}, max {digits(errors.max())}")
    print(f"wrote {' and '.join(wrote)}")


def _by_quantity(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], layout: Layout) -> dict[str, np.ndarray]:
    """Predictions by the outputs' names; 0 in the padding of a sample."""
    values = {}
    for block in layout.output_blocks:
        weights = layout.weights_of(block, batch)
        array = outputs[block.name]
        if isinstance(weights, Tensor):
            array = torch.where(weights > 0, array, 0.0)
        values |= {name: array[:, channel].numpy() for name, channel in block.channels.items()}
    return values


def load_surrogate(folder: RunFolder, plan: Plan) -> tuple[Surrogate, int]:
    """The surrogate of the best checkpoint, or of the newest if none was validated.

    Args:
        folder: the run.
        plan: its plan.

    Returns:
        The surrogate, in evaluation mode, and the checkpoint's step.

    Raises:
        PenstockError: the run has no checkpoint, or it is damaged.
    """
    if not folder.is_running():
        checkpoint.recover(folder.checkpoints)
    step = checkpoint.best(folder.checkpoints)
    if step is None:  # none was validated, as after an early stop
        step = checkpoint.latest(folder.checkpoints)
    if step is None:
        raise PenstockError(f"{folder.path} has no checkpoint yet: let it run longer")
    surrogate = plan.surrogate()
    checkpoint.load(folder.checkpoints, step, weights_only=True).load_into(surrogate)
    return surrogate.eval(), step


def _card(folder: RunFolder, plan: Plan, num_simulations: int, errors: dict[str, Any]) -> dict[str, Any]:
    """What a stranger must know to use the file, `errors` of the very weights."""
    problem = plan.problem
    config = with_files(plan.config, lambda _, file: Path(file).name)  # where it lay says nothing elsewhere
    return {
        "problem": {"name": config.problem.name, "options": config.problem.options, "about": type(problem).__doc__},
        "parameters": problem.space.describe(),
        "validation": {"simulations": num_simulations, **errors},
        "model": {"name": config.model.name, "options": config.model.options},
        "configuration": config.model_dump(mode="json", exclude={"name", "metrics", "cluster", "checkpoint"}),
        "run": folder.path.name,
        "seed": config.seed,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"penstock": __version__, "torch": version("torch"), "python": platform.python_version()},
    }
