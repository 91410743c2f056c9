"""The trained surrogate of a run, from its checkpoints."""

from __future__ import annotations

from penstock.errors import PenstockError
from penstock.learner.checkpoints import checkpoint, staging
from penstock.learner.surrogate import Surrogate
from penstock.orchestrator.plan import Plan
from penstock.orchestrator.store.run_folder import RunFolder


def load_surrogate(folder: RunFolder, plan: Plan) -> tuple[Surrogate, int]:
    """The surrogate of the best checkpoint, or of the newest if none was validated.

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
    step = checkpoint.best(folder.checkpoints)
    if step is None:  # none was validated, as after an early stop
        step = checkpoint.latest(folder.checkpoints)
    if step is None:
        run = folder.read("run.json")
        if cause := run.get("cause"):
            raise PenstockError(
                f"{folder.path} has no checkpoint: the run {run['state']} before its first one: {cause}"
            )
        raise PenstockError(f"{folder.path} has no checkpoint yet: let it run longer, or resume it if it was killed")
    surrogate = plan.surrogate()
    checkpoint.load(folder.checkpoints, step, weights_only=True).load_into(surrogate)
    return surrogate.eval(), step
