"""What workers of a fleet bring, and what it costs on both sides."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.canned import Canned, worker_bytes
from benchmarks.consumer import Consumer, consumer
from benchmarks.scale.fleet import Fleet, Task

PER_PROCESS = 64  # sleepers
LEAST_CHUNKS = 3  # of a worker, for a rate by the times between them


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement."""

    rate: float
    """Unique samples per second."""
    chunks_per_s: float
    rows_per_chunk: float
    take_s: float
    """CPU time per chunk of the thread that takes, in seconds."""
    transport_s: float
    """CPU time per chunk of the consumer's other threads, which are ZeroMQ's."""
    worker_s: float
    """CPU time per chunk of the workers' processes."""
    shared_bytes: int
    """Peak of the workers' shared memory."""
    bound_bytes: int
    """What it may be at most."""
    own_bytes: float
    """Private memory of a worker's process, on average."""


def measure(
    fleet: Fleet,
    side: int,
    num_workers: int,
    *,
    pause_s: float,
    seconds: float,
    are_sleepers: bool = False,
    per_process: int = PER_PROCESS,
    num_rows: int | None = None,
    shares_memory: bool = True,
) -> Measured:
    """Let workers send for a while.

    Args:
        fleet: the processes.
        side: points along each side.
        num_workers: number of workers, one per process unless they are sleepers.
        pause_s: seconds of a simulation.
        seconds: time that counts, after half as much that does not, and not before each worker has sent a chunk.
        are_sleepers: see `Task.is_sleeper`.
        per_process: sleepers in a process, at most.
        num_rows: see `Task.num_rows`.
        shares_memory: see `consumer`.
    """
    names = [f"solver-{number}" for number in range(num_workers)]
    per_process = per_process if are_sleepers else 1
    groups = [tuple(names[first : first + per_process]) for first in range(0, num_workers, per_process)]
    with consumer(Canned(side).layout, names, shares_memory=shares_memory) as taking:
        fleet.begin([Task(taking.endpoint, group, side, pause_s, are_sleepers, num_rows) for group in groups])
        _taken(taking, seconds / 2, num_workers)
        thread_s, process_s = time.thread_time(), time.process_time()
        arrivals = _taken(taking, seconds)
        thread_s, process_s = time.thread_time() - thread_s, time.process_time() - process_s
    spent = fleet.end(len(groups))
    num_chunks = sum(len(each) for each in arrivals.values())
    num_samples = sum(rows for each in arrivals.values() for _, rows in each)
    return Measured(
        rate=rate_of(list(arrivals.values()), num_workers, seconds),
        chunks_per_s=num_chunks / seconds,
        rows_per_chunk=num_samples / num_chunks,
        take_s=thread_s / num_chunks,
        transport_s=max(0.0, process_s - thread_s) / num_chunks,
        worker_s=sum(each.cpu_s for each in spent) / sum(each.num_chunks for each in spent),
        shared_bytes=sum(each.shared_bytes for each in spent),
        bound_bytes=num_workers * worker_bytes(Canned(side)),
        own_bytes=sum(each.own_bytes for each in spent) / len(spent),
    )


def _taken(taking: Consumer, seconds: float, num_workers: int = 0) -> dict[str, list[tuple[float, int]]]:
    """Time and samples of each chunk by worker, until enough workers have sent one."""
    arrivals: dict[str, list[tuple[float, int]]] = defaultdict(list)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(arrivals) < num_workers:
        chunk = taking.take()
        if chunk is not None:
            arrivals[taking.sender_of(chunk)].append((time.perf_counter(), len(chunk)))
    return arrivals


def rate_of(arrivals: Sequence[Sequence[tuple[float, int]]], num_workers: int, seconds: float) -> float:
    """Samples per second of all workers.

    A worker's samples come in chunks, a second apart. So where each has sent a few, its rate goes from its first chunk
    to its last one, and the edges of the interval do not matter.

    Args:
        arrivals: time and samples of each chunk of every worker that has sent any.
        num_workers: number of workers.
        seconds: length of the interval.
    """
    if len(arrivals) == num_workers and min(map(len, arrivals)) >= LEAST_CHUNKS:
        return sum(sum(rows for _, rows in each[1:]) / (each[-1][0] - each[0][0]) for each in arrivals)
    return sum(rows for each in arrivals for _, rows in each) / seconds
