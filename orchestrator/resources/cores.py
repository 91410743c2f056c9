"""How the cores of a machine are shared."""

from __future__ import annotations

import os
from dataclasses import dataclass

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config, SolverSection


@dataclass(frozen=True)
class Split:
    """How the cores are shared between the solvers and the learner."""

    cores: int
    workers: int
    learner_threads: int

    @classmethod
    def of(cls, solver: SolverSection) -> Split:
        """The split for the section `solver` of a configuration.

        Args:
            solver: the section. Workers that are "auto" take all cores except one, each as many as it has ranks.

        Returns:
            The split. The learner takes the cores that are left, but never fewer than two threads.
        """
        cores = len(os.sched_getaffinity(0))
        workers = max(1, (cores - 1) // solver.ranks) if solver.workers == "auto" else solver.workers
        # Solvers wait whenever the stream is ahead, and a learner with a single thread would then leave a core idle.
        return cls(cores, workers, min(cores, max(2, cores - workers * solver.ranks)))

    def require_cores(self, solver: SolverSection) -> None:
        """Check that every MPI rank can have a core.

        They wait for each other at full speed.

        Args:
            solver: the section `solver` of the configuration.

        Raises:
            PenstockError: there are too few.
        """
        num_ranks = self.workers * solver.ranks
        if solver.ranks > 1 and num_ranks > self.cores:
            raise PenstockError(
                f"solver.ranks = {solver.ranks} with solver.workers = {self.workers} takes {num_ranks} cores, and this "
                f"machine has {self.cores}: lower one of them"
            )


def solves_here(config: Config) -> bool:
    """Whether a command that only solves does so in its own process.

    So it does with a single worker, and no cluster to join.
    """
    return config.cluster.address is None and Split.of(config.solver).workers == 1
