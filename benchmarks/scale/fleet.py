"""Processes of workers that sleep, kept from one measurement to the next."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.canned import Canned, ReadyChunks, worker_bytes, worker_of
from penstock.errors import WorkerDied
from penstock.layout import Sample
from penstock.machine import own_bytes
from penstock.messages import CHUNK_BYTES, Chunk, Lease, LeaseEnd
from penstock.solvers.worker import CHUNK_SECONDS
from penstock.transport.endpoint import Endpoint
from penstock.transport.sender import Sender

START_WITHIN_S = 120.0


class Sleeping(Canned):
    """A problem whose solves take time and no CPU.

    Args:
        side: points along each side.
        pause_s: time of a simulation.
    """

    def __init__(self, side: int, pause_s: float):
        super().__init__(side)
        self._pause_s = pause_s

    def simulate(self, parameters, solve) -> Iterator[Sample]:
        time.sleep(self._pause_s)
        yield from super().simulate(parameters, solve)


def rows_per_chunk(sample_bytes: int, seconds_per_sample: float) -> int:
    """Samples in a chunk of a worker: it is sent when it is large enough or old enough."""
    by_age = ceil(CHUNK_SECONDS / seconds_per_sample) if seconds_per_sample > 0 else CHUNK_BYTES
    return max(1, min(ceil(CHUNK_BYTES / sample_bytes), by_age))


@dataclass(frozen=True)
class Task:
    """What one process does until the stream ends."""

    endpoint: Endpoint
    names: tuple[str, ...]
    """Its workers: one `SolverWorker`, or any number of sleepers."""
    side: int
    pause_s: float
    """Seconds of a simulation; 0 for chunks without a pause."""
    is_sleeper: bool
    """Whether each worker is a thread that sends chunks that are there already."""
    num_rows: int | None = None
    """Samples in a chunk of a sleeper; as many as a worker's when left out."""


@dataclass(frozen=True)
class Spent:
    """What a process used for a task."""

    cpu_s: float
    """CPU time of all its threads from the first lease on."""
    num_samples: int
    num_chunks: int
    shared_bytes: int
    """Shared memory that was written to, which is kept until the end: its peak."""
    own_bytes: int
    """Private memory of the process."""


class Fleet:
    """Worker processes that are started once.

    Args:
        size: number of processes.
    """

    def __init__(self, size: int):
        allow_many_files()
        began = time.perf_counter()
        context = get_context("spawn")
        pipes = [context.Pipe() for _ in range(size)]
        self._processes = [context.Process(target=_work, args=(theirs,), daemon=True) for _, theirs in pipes]
        self._connections = [ours for ours, _ in pipes]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()  # so that the death of a process is the end of its pipe
        for connection in self._connections:
            _answer(connection, START_WITHIN_S)
        self.start_s = time.perf_counter() - began
        """Time from the first process to the last one that had imported its modules."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """Give each of the first processes a task.

        They work until the stream ends; then `end` must be called.
        """
        for connection, task in zip(self._connections, tasks, strict=False):
            connection.send(task)

    def end(self, num_tasks: int) -> list[Spent]:
        """Wait for the processes that had tasks, and return what they used."""
        return [_answer(connection, START_WITHIN_S) for connection in self._connections[:num_tasks]]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def allow_many_files() -> None:
    """Raise the limit on open files to what this process may have: a thousand workers take some thousands."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _answer(connection: Connection, timeout_s: float):
    if not connection.poll(timeout_s):
        raise RuntimeError(f"a worker process said nothing for {timeout_s:g} s")
    return connection.recv()


def _work(connection: Connection) -> None:
    """Do tasks until this process is killed."""
    allow_many_files()
    connection.send("ready")
    while True:
        connection.send(_Work(connection.recv()).run())


class _Work:
    """A task being done."""

    def __init__(self, task: Task):
        self._task = task
        self._problem = Sleeping(task.side, task.pause_s)
        self._chunks = self._ready_chunks() if task.is_sleeper else worker_of(self._problem).stream
        self._num_samples = self._num_chunks = 0
        self._noting = threading.Lock()
        self._began_s: float | None = None  # CPU time at the first lease
        self._shared_bytes = 0

    def run(self) -> Spent:
        threads = [threading.Thread(target=self._send, args=(name,)) for name in self._task.names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cpu_s = time.process_time() - self._began_s
        return Spent(cpu_s, self._num_samples, self._num_chunks, self._shared_bytes, own_bytes())

    def _ready_chunks(self) -> Callable[[Lease], Iterator[Chunk]]:
        pause_s, layout = self._task.pause_s, self._problem.layout
        num_rows = self._task.num_rows or rows_per_chunk(layout.sample_bytes, pause_s)
        ready = ReadyChunks(Canned(self._task.side), num_rows)

        def chunks(lease: Lease) -> Iterator[Chunk]:
            for chunk in ready.of(lease):
                if pause_s:
                    time.sleep(pause_s * len(chunk))
                yield chunk

        return chunks

    def _send(self, name: str) -> None:
        # The learner's last word may be lost with the connection.
        with suppress(WorkerDied), Sender(self._task.endpoint, name, worker_bytes(self._problem)) as sender:
            try:
                self._serve(sender)
            finally:
                self._weigh()

    def _serve(self, sender: Sender) -> None:
        for lease in sender.leases():
            if self._began_s is None:
                self._began_s = time.process_time()
            for chunk in self._chunks(lease):
                if not sender.send(chunk):
                    return
                self._note(chunk)
            sender.send(LeaseEnd(lease.number))

    def _note(self, chunk: Chunk) -> None:
        with self._noting:
            self._num_samples += len(chunk)
            self._num_chunks += 1

    def _weigh(self) -> None:
        """Note the shared memory of the process while all of it is there."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        with self._noting:
            self._shared_bytes = max(self._shared_bytes, 1024 * int(status["RssShmem"].split()[0]))
