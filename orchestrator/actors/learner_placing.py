"""The learner of a run as its processes: one, or one for each rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.learner.checkpoints.staging import grant
from penstock.orchestrator.actors.learner_actor import Seat
from penstock.orchestrator.actors.learner_process import LearnerProcess
from penstock.orchestrator.actors.learner_ranks import LearnerRanks
from penstock.orchestrator.plan import Plan
from penstock.orchestrator.resources.cores import Split
from penstock.orchestrator.run.supervision import MemoryKills
from penstock.orchestrator.store.run_folder import RunFolder


def place_learner(
    ray: Any, plan: Plan, folder: RunFolder, split: Split, *, session_folder: Path | None, memory_kills: MemoryKills
) -> LearnerProcess | LearnerRanks:
    """Place the learner, which alone may write checkpoints from here on.

    The arguments are those of `LearnerProcess`.

    Returns:
        The learner.
    """
    staging = folder.patience.write(lambda: grant(folder.checkpoints))
    size = plan.config.training.ranks
    address = f"file://{(session_folder or folder.logs).absolute()}/ranks-{staging.name}"  # a new name each time
    processes = [
        LearnerProcess(
            *(ray, plan, folder, split),
            staging=staging,
            seat=Seat(rank=rank, size=size, address=address) if size > 1 else Seat(),
            session_folder=session_folder,
            memory_kills=memory_kills,
        )
        for rank in range(size)
    ]
    return processes[0] if size == 1 else LearnerRanks(processes)
