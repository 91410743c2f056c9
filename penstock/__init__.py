"""penstock: online training of neural operators from live PDE solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from penstock.orchestrator.store.trained import Loaded

__version__ = "0.2.0"


def load(path: str | PathLike) -> Loaded:
    """Load a trained surrogate, to be called with its inputs by name.

        surrogate = penstock.load("runs/latest")
        outputs = surrogate(coefficient=array)  # [B, *] in, a dict of [B, *] out, in physical units

    Args:
        path: a run folder, whose best checkpoint is taken, or the newest if none was validated; or a file that
            `penstock export` wrote. To load a run, a .safetensors or a user's model runs the code that it names.

    Returns:
        The surrogate; `card` says what it was trained on, with the names, units and shapes of inputs and outputs.

    Raises:
        PenstockError: there is no surrogate there, or what it needs is not installed.
    """
    from penstock.orchestrator.store.trained import load as load_trained  # imports torch

    return load_trained(path)
