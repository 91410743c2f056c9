"""The stream from solver workers to the learner, over Ray.

`RayStream` has the methods of `Stream` (learner/stream/stream.py), and `submit` and `silences` for the driver.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from penstock.errors import WorkerDied
from penstock.learner.stream.stream import CHUNKS_AHEAD
from penstock.messages import Chunk, Lease, LeaseEnd

LOOK_S = 5.0  # a longer pause between calls of `silences` means that this process stood still


class RayStream:
    """Chunks of solver actors, pulled through generators that the learner owns.

    Ray keeps what was yielded with the owner, so no chunk under way is lost when a solver dies. A worker has one
    generator at a time, because Ray's backpressure counts per generator, and bytes in flight are bounded per worker.
    """

    def __init__(self):
        import ray  # here, because Ray reads its token when it is first imported, and the driver imports this module

        self._ray = ray
        self._lock = threading.Lock()
        self._leases: dict[Any, deque[Lease]] = {}  # by actor, the current lease first
        self._chunks: dict[Any, Any] = {}  # the generator of each actor's first lease
        self._quiet_since: dict[Any, float] = {}
        self._looked_at = time.monotonic()
        self._outgrown_bytes: dict[Any, int] = {}

    def submit(self, lease: Lease, worker: Any) -> None:
        """Queue a lease at a worker; returns at once.

        Args:
            lease: the lease.
            worker: handle of the solver actor.
        """
        with self._lock:
            self._leases.setdefault(worker, deque()).append(lease)
            if worker not in self._chunks:
                self._call(worker)

    def _call(self, worker: Any) -> None:
        # Ray counts a generator's objects that were not taken yet; the option is private, hence the pinned version.
        method = worker.stream.options(
            num_returns="streaming", _generator_backpressure_num_objects=CHUNKS_AHEAD, max_task_retries=0
        )
        self._chunks[worker] = method.remote(self._leases[worker][0])
        self._quiet_since[worker] = time.monotonic()

    def next(self, timeout_s: float, lane: int | None = None) -> Chunk | LeaseEnd | None:
        """The next item of any worker, or of the worker on a lane.

        Args:
            timeout_s: how long to wait, in seconds.
            lane: the lane; None for any worker.

        Returns:
            A chunk, or the end of a lease; None if nothing came in time.

        Raises:
            Exception: what the worker's own code raised outside of simulations; no other worker would fare better.
        """
        with self._lock:
            workers = {
                chunks: worker
                for worker, chunks in self._chunks.items()
                if lane is None or self._leases[worker][0].lane == lane
            }
        if not workers:
            time.sleep(timeout_s)
            return None
        ready, _ = self._ray.wait(list(workers), num_returns=1, timeout=timeout_s)
        if not ready:
            return None
        worker = workers[ready[0]]
        try:
            chunk = self._ray.get(next(ready[0]))
        except StopIteration:
            return self._end(worker)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, WorkerDied):
                return self._bury(worker, str(error.cause))
            raise error.cause from error
        except self._ray.exceptions.RayError as error:  # the worker died; others will solve its simulations
            return self._bury(worker, _one_line(error))
        with self._lock:  # to the end of the queue, so that one fast worker does not hold up the others
            self._chunks[worker] = self._chunks.pop(worker)
            self._quiet_since[worker] = time.monotonic()
            if chunk.outgrown_bytes is not None:
                self._outgrown_bytes[worker] = chunk.outgrown_bytes
        return chunk

    def _end(self, worker: Any) -> LeaseEnd:
        with self._lock:
            lease = self._leases[worker].popleft()
            end = LeaseEnd(lease.number, outgrown_bytes=self._outgrown_bytes.get(worker))
            del self._chunks[worker]
            if self._leases[worker]:
                self._call(worker)
            else:
                del self._leases[worker], self._quiet_since[worker]
                self._outgrown_bytes.pop(worker, None)
        return end

    def _bury(self, worker: Any, error: str) -> LeaseEnd:
        """The end of a dead worker's current lease; the driver takes back the others."""
        with self._lock:
            del self._chunks[worker], self._quiet_since[worker]
            self._outgrown_bytes.pop(worker, None)
            return LeaseEnd(self._leases.pop(worker)[0].number, error)

    def silences(self) -> dict[int, float]:
        """How long each worker at work has given nothing.

        Returns:
            Seconds by the number of the worker's current lease, without the time in which a chunk waited to be taken.
        """
        with self._lock:
            workers = {chunks: worker for worker, chunks in self._chunks.items()}
        if not workers:
            return {}
        ready, _ = self._ray.wait(list(workers), num_returns=len(workers), timeout=0)
        with self._lock:
            now = time.monotonic()
            stood_still, self._looked_at = max(0.0, now - self._looked_at - LOOK_S), now
            for worker in self._quiet_since:
                self._quiet_since[worker] = min(now, self._quiet_since[worker] + stood_still)
            for chunks in ready:  # a chunk waits to be taken
                if workers[chunks] in self._quiet_since:
                    self._quiet_since[workers[chunks]] = now
            return {self._leases[worker][0].number: now - since for worker, since in self._quiet_since.items()}

    def close(self) -> None:
        """Take no more; workers in the middle of a lease are released."""
        with self._lock:
            self._leases.clear()
            self._quiet_since.clear()  # `silences` may be under way
            self._chunks.clear()  # dropping a generator cancels its actor call


def _one_line(error: Exception) -> str:
    """Ray's last line, up to the guesses at causes that follow the fact."""
    if "low on memory" in str(error):
        return "Ray killed it because the machine ran low on memory"
    return str(error).strip().splitlines()[-1].split("Worker exit detail: ")[-1].split(" Some common causes")[0].strip()
