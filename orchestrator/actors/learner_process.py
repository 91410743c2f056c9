"""The learner's process: placed, prepared, asked, and found dead."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.learner.allocator import KEEP_FREED_MEMORY
from penstock.orchestrator.actors.learner_actor import LearnerActor, Seat
from penstock.orchestrator.cluster.nodes import is_placed, learner_options, waits_for
from penstock.orchestrator.plan import Plan
from penstock.orchestrator.resources.cores import Split
from penstock.orchestrator.run.supervision import MemoryKills
from penstock.orchestrator.run.workers import Taker
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.status import LearnerStatus, Prepared, Word
from penstock.transport.endpoint import Endpoint

BACK_WITHIN_S = 60.0  # Ray gives up a node of which it hears nothing after about as long
ASK_EVERY_S = 1.0  # while it can't be reached
# After this it is taken for hung. It answers in another thread than that which trains, validates and compiles; but
# none does while a library is loaded, which may take a minute from a busy disk.
SILENT_S = 120.0


class LearnerDied(PenstockError):
    """The learner's process ended without a word.

    Another one may go on from the newest checkpoint.
    """

    def __init__(self, message: str, *, exit_code: int = 1):
        super().__init__(message, exit_code=exit_code)


class LearnerProcess:
    """A learner in a separate process, as Ray places it.

    What its own code raises is raised here as it is. While it can't be reached it is asked again; what got lost on the
    way is then said again, and what came twice is passed over.

    Args:
        ray: the module, imported.
        plan: the plan of the run.
        folder: the run folder.
        split: the learner's share of the CPUs, and where it is to be.
        staging: where it may write checkpoints, see `grant`.
        seat: its place among the learner ranks, which share the CPUs.
        session_folder: Ray's session folder if the run started Ray, else None.
        memory_kills: watches for kills by the kernel.

    Raises:
        LearnerDied: it has died, or could not be reached for BACK_WITHIN_S, raised by `prepared` and `status`; or it
            has given no status for SILENT_S.
    """

    def __init__(
        self,
        ray: Any,
        plan: Plan,
        folder: RunFolder,
        split: Split,
        *,
        staging: Path,
        seat: Seat = Seat(),  # noqa: B008 (frozen)
        session_folder: Path | None,
        memory_kills: MemoryKills,
    ):
        self._ray = ray
        self._memory_kills = memory_kills
        self._options = learner_options(split, seat.size)
        environment = {"env_vars": KEEP_FREED_MEMORY}
        actor = ray.remote(max_restarts=0, runtime_env=environment, **self._options)(LearnerActor)
        num_threads = max(1, split.learner_threads // seat.size)
        self._actor = actor.remote(plan, folder.path, num_threads, staging, session_folder, seat)
        self._ask = self._actor.prepare.remote  # what is to be answered next
        self._answer = self._ask()
        self._numbers = count(1)
        self._words: deque[Word] = deque()  # those that it is not known to have heard
        self._num_said = 0  # before it was asked for its status
        self._num_seen = 0
        self._unreachable_since: float | None = None
        self._silent_s = 0.0

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
        lease, bury, give_up = (partial(self._say, method) for method in ("lease", "bury", "give_up"))
        return Taker(lease, bury, give_up, worker_bytes, lambda _: endpoint)

    def start(self) -> None:
        """Begin training; leases may be given from here on."""
        self._say("start")

    def stop(self) -> None:
        """Have it write a checkpoint at the next step, and end."""
        self._say("stop")

    def kill(self) -> None:
        """End it if it lives, where Ray has only lost sight of it."""
        self._ray.kill(self._actor)

    def status(self, timeout_s: float) -> LearnerStatus | None:
        """The learner's status; None if it does not answer in time.

        An unanswered call is kept and not repeated, because a status drains the news that it reports.
        """
        if self._answer is None:
            self._num_said = self._words[-1].number if self._words else 0
            self._ask = partial(self._actor.status.remote, self._num_seen)
        asked = time.monotonic()
        status: LearnerStatus | None = self._answered(timeout_s)
        if status is None:
            # No more than was waited for: this process may have stood still too.
            self._silent_s += min(timeout_s, time.monotonic() - asked)
            if self._silent_s > SILENT_S:
                raise LearnerDied(f"the learner hangs: it has not answered for {SILENT_S:.0f} s")
        else:
            self._silent_s = 0.0
            self._num_seen = status.number
            while self._words and self._words[0].number <= status.heard:
                self._words.popleft()
            if self._words and self._words[0].number <= self._num_said:  # it was lost on its way
                self._actor.hear.remote(*self._words)
        return status

    def _say(self, method: str, *arguments: Any) -> None:
        """Have it call a method of itself, once and in turn."""
        self._words.append(Word(next(self._numbers), method, arguments))
        self._actor.hear.remote(self._words[-1])

    def _answered(self, timeout_s: float) -> Any:
        """The answer to what was asked; None if that takes longer.

        It is asked again where it gets lost.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._answer = self._answer or self._ask()
            if not self._ray.wait([self._answer], timeout=max(0.0, deadline - time.monotonic()))[0]:
                return None
            answer, self._answer = self._answer, None
            try:
                result = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self._ray.exceptions.ActorUnavailableError as error:
                self._unreachable(error)
                time.sleep(max(0.0, min(ASK_EVERY_S, deadline - time.monotonic())))
                if time.monotonic() >= deadline:
                    return None
            except self._ray.exceptions.RayError as error:
                is_for_memory = self._memory_kills.is_recent(time.monotonic()) or "low on memory" in str(error)
                how = "memory ran out" if is_for_memory else type(error).__name__
                raise LearnerDied(f"the learner's process died ({how})") from error
            else:
                self._unreachable_since = None
                return result

    def _unreachable(self, error: Exception) -> None:
        """Note that it can't be reached, which is no death.

        Raises LearnerDied after BACK_WITHIN_S.
        """
        now = time.monotonic()
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since > BACK_WITHIN_S:
            raise LearnerDied(f"the learner could not be reached for {BACK_WITHIN_S:.0f} s") from error
