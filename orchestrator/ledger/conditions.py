"""What the bits of a run that must repeat depend on besides its configuration."""

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
    """What may differ between two processes of any role."""
    return {
        "penstock": __version__,
        "Python": platform.python_version(),
        "NumPy": version("numpy"),
        "processor": processor(),  # BLAS and torch take other kernels on another one
    }


def require_same(folder: RunFolder, role: str, conditions: dict[str, Any]) -> None:
    """Write the conditions of a role's process into run.json, where there are none of it yet.

    Raises PenstockError when there are, and others.
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
