"""`penstock export`: a trained surrogate as one file."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from penstock import __version__
from penstock.learner.export.program import arguments
from penstock.learner.export.program import export as export_file
from penstock.orchestrator.config.config import with_files
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from penstock.orchestrator.store.trained import load_surrogate
from penstock.orchestrator.views.monitor import explained_lines, statistics


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
    arrays, *origins = plan.unit.all_rows(stored.arrays, layout, stored.simulations, stored.steps)
    num_simulations = len(set(stored.simulations.tolist()))
    card = _card(folder, plan, num_simulations, plan.validation(arrays, "cpu", origins).errors(surrogate).as_dict())
    card["step"] = step
    example = {name: array[:2] for name, array in arrays.items()}
    path = export_file(surrogate, card, output or folder.path / f"{folder.path.name}.pt2", example)
    print(
        "\n".join(
            [
                f"validation relative L2 error: {statistics(card['validation']['relative_l2'])}",
                *explained_lines(card["validation"]),
            ]
        )
    )
    print(f"wrote {os.path.relpath(path)} and its card {os.path.relpath(path.with_suffix('.card.json'))}")
    names = [spec.name for _, spec in arguments(surrogate.layout)]
    print("use it with torch alone (the card has the shapes of its tensors):")
    print(f"    model = torch.export.load({os.path.relpath(path)!r}).module()")
    print(f"    outputs = model({', '.join(f'{name}=...' for name in names)})  # a dictionary of tensors")


def _card(folder: RunFolder, plan: Plan, num_simulations: int, errors: dict[str, Any]) -> dict[str, Any]:
    """What a stranger must know to use the file, `errors` of the very weights."""
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
        "validation": {"simulations": num_simulations, **errors},
        "model": {"name": config.model.name, "options": config.model.options},
        "configuration": config.model_dump(mode="json", exclude={"name", "metrics", "cluster", "checkpoint"}),
        "run": folder.path.name,
        "seed": config.seed,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"penstock": __version__, "torch": version("torch"), "python": platform.python_version()},
    }
