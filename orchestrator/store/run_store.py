"""The `Store` of a run's learner, in the run folder."""

from __future__ import annotations

from pathlib import Path

from penstock.arrays import zarr_store
from penstock.layout import Layout
from penstock.learner.checkpoints.staging import taken_over
from penstock.learner.validation.collect import Collected
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import Ended


class RunStore:
    """The `Store` of a run: checkpoints/, and validation.zarr.

    The validation set has one array per quantity.

    Args:
        folder: the run folder.
        staging: what gives a learner the right to write; None for one that alone has the folder.
    """

    def __init__(self, folder: RunFolder, staging: Path | None = None):
        self.checkpoints = folder.checkpoints
        self.staging = staging
        self._validation = folder.validation

    def read_validation(self, layout: Layout) -> Collected | None:
        """Read the validation set.

        Args:
            layout: layout of the problem.

        Returns:
            The set; None if there is none yet.

        Raises:
            PenstockError: it is damaged.
        """
        if not self._validation.exists():
            return None
        stored, attributes = zarr_store.read(self._validation)
        failed = {int(simulation): reason for simulation, reason in attributes["failed"].items()}
        return Collected(
            zarr_store.by_block(stored, layout),
            stored["simulation"],
            stored["step"],
            Ended(attributes["delivered"], failed),
        )

    def write_validation(self, collected: Collected, layout: Layout) -> None:
        """Write the validation set.

        Args:
            collected: the set.
            layout: layout of the problem.

        Raises:
            PenstockError: it can't be written, or another learner has the right to write.
        """
        if self.staging is not None and not self.staging.is_dir():
            raise taken_over(self.checkpoints)
        named = zarr_store.by_name(collected.arrays, layout)
        numbers = {"simulation": collected.simulations, "step": collected.steps}
        ended = collected.ended
        failed = {str(simulation): reason for simulation, reason in ended.failed.items()}
        zarr_store.write(self._validation, named | numbers, {"delivered": ended.delivered, "failed": failed})
