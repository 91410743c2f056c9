"""The learner's process: placed, prepared, asked, and found dead."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.learner.allocator import KEEP_FREED_MEMORY
from penstock.orchestrator.actors.learner_actor import LearnerActor
from penstock.orchestrator.cluster.nodes import is_placed, learner_options, waits_for
from penstock.orchestrator.plan import Plan
from penstock.orchestrator.resources.cores import Split
from penstock.orchestrator.run.supervision import MemoryKills
from penstock.orchestrator.run.workers import Taker
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import LearnerStatus, Prepared
from penstock.transport.endpoint import Endpoint


class LearnerDied(PenstockError):
    """The learner's process ended without a word.

    Another one may go on from the newest checkpoint.
    """

    def __init__(self, message: str, *, exit_code: int = 1):
        super().__init__(message, exit_code=exit_code)


class LearnerProcess:
    """A learner in a separate process, as Ray places it.

    What its own code raises is raised here as it is.

    Args:
        ray: the module, imported.
        plan: the plan of the run.
        folder: the run folder.
        split: its share of the CPUs, and where it is to be.
        session_folder: Ray's session folder if the run started Ray, else None.
        memory_kills: watches for kills by the kernel.

    Raises:
        LearnerDied: it has died; raised by `prepared` and `status`.
    """

    def __init__(
        self,
        ray: Any,
        plan: Plan,
        folder: RunFolder,
        split: Split,
        *,
        session_folder: Path | None,
        memory_kills: MemoryKills,
    ):
        self._ray = ray
        self._memory_kills = memory_kills
        self._options = learner_options(split)
        environment = {"env_vars": KEEP_FREED_MEMORY}
        actor = ray.remote(max_restarts=0, runtime_env=environment, **self._options)(LearnerActor)
        self._actor = actor.remote(plan, folder.path, split.learner_threads, session_folder)
        self._answer = self._actor.prepare.remote()

    def placed(self, timeout_s: float) -> bool:
        """Whether Ray has given it a process, asked for so long at the most."""
        return is_placed(self._ray, self._actor) or bool(self._ray.wait([self._answer], timeout=timeout_s)[0])

    def waits_for(self) -> str | None:
        """What it waits for, as a clause for people; None once it has a process."""
        return None if is_placed(self._ray, self._actor) else waits_for(self._ray, self._options)

    def prepared(self, timeout_s: float) -> Prepared | None:
        """What it reports once it is built and restored; None if that takes longer."""
        return self._answered(timeout_s)

    def taker(self, worker_bytes: int, endpoint: Endpoint) -> Taker:
        """The learner as what takes the samples.

        Args:
            worker_bytes: bound on the bytes of each worker's chunks under way.
            endpoint: where it said that it receives.

        Returns:
            The taker.
        """
        actor = self._actor
        return Taker(actor.lease.remote, actor.bury.remote, actor.give_up.remote, worker_bytes, endpoint)

    def start(self) -> None:
        """Begin training; leases may be given from here on."""
        self._actor.start.remote()

    def stop(self) -> None:
        """Have it write a checkpoint at the next step, and end."""
        self._actor.stop.remote()

    def kill(self) -> None:
        """End it if it lives, where Ray has only lost sight of it."""
        self._ray.kill(self._actor)

    def status(self, timeout_s: float) -> LearnerStatus | None:
        """The learner's status; None if it does not answer in time.

        An unanswered call is kept and not repeated, because a status drains the news that it reports.
        """
        self._answer = self._answer or self._actor.status.remote()
        return self._answered(timeout_s)

    def _answered(self, timeout_s: float) -> Any:
        if not self._ray.wait([self._answer], timeout=timeout_s)[0]:
            return None
        answer, self._answer = self._answer, None
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            is_for_memory = self._memory_kills.is_recent(time.monotonic()) or "low on memory" in str(error)
            how = "memory ran out" if is_for_memory else type(error).__name__
            raise LearnerDied(f"the learner's process died ({how})") from error
