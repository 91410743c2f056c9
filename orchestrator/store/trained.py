"""The trained surrogate of a run, from its checkpoints, or of a file."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock import __version__
from penstock.errors import PenstockError
from penstock.learner.checkpoints import checkpoint, staging
from penstock.learner.export.loaded import Loaded, load_file
from penstock.learner.surrogate import Surrogate
from penstock.orchestrator.config.config import ELSEWHERE, with_files
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.record import in_words


def best_step(folder: RunFolder) -> int:
    """The step of the best checkpoint, or of the newest if none was validated.

    Args:
        folder: the run.

    Raises:
        PenstockError: the run has no checkpoint, which the message explains, or all are damaged.
    """
    step = checkpoint.best(folder.checkpoints)
    if step is None:  # none was validated, as after an early stop
        step = checkpoint.latest(folder.checkpoints)
    if step is None:
        run = folder.read("run.json")
        if cause := run.get("cause"):
            raise PenstockError(
                f"{folder.path} has no checkpoint: the run {run['state']} before its first one: {in_words(cause)}"
            )
        raise PenstockError(f"{folder.path} has no checkpoint yet: let it run longer, or resume it if it was killed")
    return step


def load_surrogate(folder: RunFolder, plan: Plan) -> tuple[Surrogate, int]:
    """The surrogate of the checkpoint of `best_step`.

    What a killed writer had moved aside is put back before.

    Args:
        folder: the run.
        plan: its plan.

    Returns:
        The surrogate, in evaluation mode, and the checkpoint's step.

    Raises:
        PenstockError: the run has no checkpoint, which the message explains, or it is damaged.
    """
    if not folder.is_running():
        staging.recover(folder.checkpoints)
    step = best_step(folder)
    return surrogate_of(folder, plan, step), step


def surrogate_of(folder: RunFolder, plan: Plan, step: int) -> Surrogate:
    """The surrogate of a checkpoint, in evaluation mode.

    Args:
        folder: the run.
        plan: its plan.
        step: the checkpoint's step.

    Raises:
        PenstockError: it is damaged, or gone.
    """
    surrogate = plan.surrogate()
    checkpoint.load(folder.checkpoints, step, weights_only=True).load_into(surrogate)
    return surrogate.eval()


def predictions(surrogate: Surrogate, named: Mapping[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
    """What a surrogate predicts for rows.

    Args:
        surrogate: the surrogate.
        named: arrays [N, *] by quantity, the inputs and what samples bring along of their geometries among them.
        batch_size: rows that are predicted at a time.

    Returns:
        Arrays [N, *] by output.
    """
    num_rows = len(next(iter(named.values())))
    batches = []
    with torch.no_grad():
        for start in range(0, num_rows, batch_size):
            rows = slice(start, start + batch_size)
            batches.append(surrogate(**{name: torch.from_numpy(values[rows]) for name, values in named.items()}))
    return {spec.name: torch.cat([each[spec.name] for each in batches]).numpy() for spec in surrogate.layout.outputs}


def about(folder: RunFolder, plan: Plan, step: int) -> dict[str, Any]:
    """What a stranger must know of a surrogate: the head of its card.

    Args:
        folder: the run.
        plan: its plan.
        step: step of its checkpoint.
    """
    problem = plan.problem
    config = with_files(plan.config, lambda _, file: Path(file).name)  # where it lay says nothing elsewhere
    return {
        "problem": {
            "name": config.problem.name,
            "options": config.problem.options,
            "about": problem.about,
            "swap": config.problem.swap,
        },
        "parameters": problem.space.describe(),
        "model": {"name": config.model.name, "options": config.model.options},
        "configuration": config.model_dump(mode="json", exclude={"name", "checkpoint", *ELSEWHERE}),
        "run": folder.path.name,
        "seed": config.seed,
        "step": step,
        "versions": {"penstock": __version__, "torch": version("torch"), "python": platform.python_version()},
    }


def load(path: str | os.PathLike) -> Loaded:
    """Load a surrogate; see `penstock.load`."""
    path = Path(path)
    if not path.exists():
        raise PenstockError(f"there is no {path}: give a run folder, or a file of `penstock export`")
    if not path.is_dir():
        return load_file(path)
    folder = RunFolder.open(path)
    plan = resolve(folder.config())
    surrogate, step = load_surrogate(folder, plan)
    return Loaded.of(surrogate.of_model, about(folder, plan, step))
