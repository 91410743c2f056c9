"""What the bits of a run depend on besides its configuration."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from penstock import __version__
from penstock.errors import PenstockError
from penstock.learner.stream.order import OVERRIDE
from penstock.machine import processor
from penstock.orchestrator.store.run_folder import RunFolder

LIBRARIES = {  # distributions by the name of what they bring; the first one that is installed counts
    "SciPy": ("scipy",),
    "DOLFINx": ("fenics-dolfinx", "dolfinx-solver-real"),
    "gmsh": ("gmsh",),
}


def of_this_process() -> dict[str, Any]:
    """The conditions of every process, whatever its role.

    A library that is not installed has no key.
    """
    found = {name: _version(distributions) for name, distributions in LIBRARIES.items()}
    return {
        "penstock": __version__,
        "Python": platform.python_version(),
        "NumPy": version("numpy"),
        "processor": processor(),  # BLAS and torch choose their kernels by it
    } | {name: each for name, each in found.items() if each is not None}


def _version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        with suppress(PackageNotFoundError):
            return version(distribution)
    return None


def require_same(folder: RunFolder, role: str, conditions: dict[str, Any]) -> None:
    """Record the conditions of a role in run.json, or compare with those recorded.

    One that an older record lacks is unknown there: it is recorded now.

    Args:
        folder: the run folder.
        role: "learner" or "solver".
        conditions: the conditions of this process.

    Raises:
        PenstockError: other conditions are recorded.
    """
    recorded = folder.read("run.json").get("conditions", {})
    before = recorded.get(role, {})
    for what, value in before.items():
        if conditions.get(what) != value:
            raise PenstockError(
                f"deterministic: the {role} had {what} {value} and now has {conditions.get(what)}: go back to that, or "
                f"go on without the guarantee by {OVERRIDE}"
            )
    folder.update_run(conditions=recorded | {role: conditions | before})
