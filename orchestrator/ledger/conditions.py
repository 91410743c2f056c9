"""What the bits of a run depend on besides its configuration."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from penstock import __version__
from penstock.errors import PenstockError
from penstock.learner.stream.order import OVERRIDE
from penstock.machine import processor
from penstock.orchestrator.store.run_folder import RunFolder


def of_this_process() -> dict[str, Any]:
    """The conditions of every process, whatever its role."""
    return {
        "penstock": __version__,
        "Python": platform.python_version(),
        "NumPy": version("numpy"),
        "processor": processor(),  # BLAS and torch choose their kernels by it
    }


def require_same(folder: RunFolder, role: str, conditions: dict[str, Any]) -> None:
    """Record the conditions of a role in run.json, or compare with those recorded.

    Args:
        folder: the run folder.
        role: "learner" or "solver".
        conditions: the conditions of this process.

    Raises:
        PenstockError: other conditions are recorded.
    """
    recorded = folder.read("run.json").get("conditions", {})
    before = recorded.setdefault(role, conditions)
    folder.update_run(conditions=recorded)
    for what, value in before.items():
        if conditions.get(what) != value:
            raise PenstockError(
                f"deterministic: the {role} had {what} {value} and now has {conditions.get(what)}: go back to that, or "
                f"go on without the guarantee by {OVERRIDE}"
            )
