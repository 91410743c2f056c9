"""What the stream carries from solvers to the learner's buffer, beside bare ZeroMQ."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import zmq

from benchmarks.report import footer, paragraph, write
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.stream.ingest import Ingest
from penstock.messages import CHUNKS_UNDER_WAY, Chunk, Lease, LeaseEnd
from penstock.report import markdown
from penstock.solvers.chunk_builder import CHUNK_BYTES
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem
from penstock.solvers.worker import SolverWorker
from penstock.transport.receiver import Receiver
from penstock.transport.sender import Sender

SIDES = {"16 kB": 45, "256 kB": 181, "4 MB": 724}  # of a sample's two fields, float32
WINDOW = 64
LEASES_AHEAD = 4
BUFFER_BYTES = 1 << 28
LEAST = 0.7


class Canned(Problem):
    """A problem that solves nothing: two fields that are there already.

    Args:
        side: points along each side.
    """

    def __init__(self, side: int):
        self.space = ParameterSpace(level=Uniform(0.5, 2.0))
        self.inputs = (FieldSpec(name="source", on=Grid((side, side))),)
        self.outputs = (FieldSpec(name="solution", on=Grid((side, side))),)
        self._fields = np.random.default_rng(0).standard_normal((2, side, side))

    def simulate(self, parameters, solve) -> Iterator[Sample]:
        source, solution = self._fields
        solution[0, 0] = parameters["level"]
        yield Sample(inputs={"source": source}, outputs={"solution": solution})


class Latest(Reservoir):
    """A reservoir in which each sample may be replaced at once, as if training were faster than any stream."""

    def add(self, slots: np.ndarray) -> None:
        self.seen.add(slots)


def run(seconds: float, rounds: int) -> None:
    """Print the table, and write it to benchmarks/tables/transport.md.

    Args:
        seconds: time of each measurement.
        rounds: measurements of every arm, in turns.
    """
    rows = []
    for size, side in SIDES.items():
        for num_workers in (1, 2, 4):
            rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
            for _ in range(rounds):
                rates["ZeroMQ"].append(_bare(side, num_workers, seconds))
                for arm, (serve, shares_memory) in OURS.items():
                    rates[arm].append(_ours(side, num_workers, seconds, serve, shares_memory=shares_memory))
            rows.append([size, str(num_workers), *_columns(rates, 8 * side**2)])
            print(" | ".join(rows[-1]), flush=True)
    heads = ["sample", "producers", "ZeroMQ, samples/s"]
    heads += [head for arm in OURS for head in (arm, *(["GB/s"] if arm == "ready chunks" else []), "ratio")]
    text = paragraph(
        f"""Producers send samples that cost nothing to one consumer that copies them into slots of a buffer. ZeroMQ:
        PUSH to PULL over TCP on this machine, one array per message, no account. Ours: `Ingest` drops second copies and
        keeps the account of what "ready chunks", filled beforehand as ZeroMQ's messages are, bring through shared
        memory, or, with "network", over TCP with CURVE, which encrypts, as between two machines. In "worker" the
        chunks are made by `SolverWorker`, which draws, checks and packs every sample. Medians
        of {rounds} measurements of {seconds:g} s in turns; ratios are of the medians, and of ready chunks in shared
        memory {LEAST} is wanted."""
    )
    command = f"python -m benchmarks transport --seconds {seconds:g} --rounds {rounds}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, pyzmq {zmq.__version__}"
    foot = footer(command, f"{multiprocessing.cpu_count()} processors", f"{versions}, libzmq {zmq.zmq_version()}")
    write("transport.md", f"# Transport: samples per second\n\n{text}\n\n{markdown(rows, heads)}\n\n{foot}\n")


def _columns(rates: dict[str, list[float]], sample_bytes: int) -> list[str]:
    medians = {arm: statistics.median(rates[arm]) for arm in ARMS}
    columns = [f"{medians['ZeroMQ']:.0f}"]
    for arm in OURS:
        columns.append(f"{medians[arm]:.0f}")
        if arm == "ready chunks":
            columns.append(f"{medians[arm] * sample_bytes / 1e9:.2f}")
        columns.append(f"{medians[arm] / medians['ZeroMQ']:.2f}")
    return columns


@contextmanager
def _processes(target: Callable, arguments: list[tuple]) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=each, daemon=True) for each in arguments]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _push(port: int, size: int) -> None:
    socket = zmq.Context().socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 4)
    socket.connect(f"tcp://127.0.0.1:{port}")
    values = np.random.default_rng(0).standard_normal(size, np.float32)
    while True:
        socket.send(values)


def _bare(side: int, num_producers: int, seconds: float) -> float:
    size = 2 * side**2
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 4)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    slots = np.ones((max(4, BUFFER_BYTES // (4 * size)), size), np.float32)
    slot = count()

    def take() -> int:
        slots[next(slot) % len(slots)] = np.frombuffer(socket.recv(copy=False).buffer, np.float32)
        return 1

    try:
        with _processes(_push, [(port, size)] * num_producers):
            return _rate(take, seconds)
    finally:
        context.destroy(linger=0)


def _serve(endpoint, name: str, side: int) -> None:
    worker = SolverWorker(Canned(side), {"training": LinearSolver(Direct(), rtol=1e-8)}, seed=0, sort=False)
    num_bytes = CHUNKS_UNDER_WAY * (CHUNK_BYTES + worker.problem.layout.sample_bytes)
    with Sender(endpoint, name, num_bytes) as sender:
        for lease in sender.leases():
            for chunk in worker.stream(lease):
                sender.send(chunk)
            sender.send(LeaseEnd(lease.number))


def _serve_ready(endpoint, name: str, side: int) -> None:
    """Send chunks of the size of a worker's that are there already, with the ids of the lease."""
    worker = SolverWorker(Canned(side), {"training": LinearSolver(Direct(), rtol=1e-8)}, seed=0, sort=False)
    num_rows = max(1, CHUNK_BYTES // worker.problem.layout.sample_bytes)
    chunks = list(worker.stream(Lease(number=0, simulations=tuple(range(num_rows)))))
    arrays = {key: np.concatenate([chunk.arrays[key] for chunk in chunks]) for key in chunks[0].arrays}
    quantiles = np.concatenate([chunk.quantiles for chunk in chunks])
    with Sender(endpoint, name, CHUNKS_UNDER_WAY * sum(array.nbytes for array in arrays.values())) as sender:
        for lease in sender.leases():
            for first in range(0, len(lease.simulations), num_rows):
                ids = lease.simulations[first : first + num_rows]
                sender.send(
                    Chunk(
                        arrays={key: array[: len(ids)] for key, array in arrays.items()},
                        simulations=np.array(ids),
                        steps=np.zeros(len(ids), np.int64),
                        quantiles=quantiles[: len(ids)],
                        finished=ids,
                    )
                )
            sender.send(LeaseEnd(lease.number))


def _ours(side: int, num_workers: int, seconds: float, serve: Callable, *, shares_memory: bool) -> float:
    layout = Canned(side).layout
    num_slots = max(4, BUFFER_BYTES // layout.sample_bytes)
    ingest = Ingest(None, Buffer(layout, Latest(), capacity=num_slots, watermark=1, seed=0), layout)
    workers, numbers = {}, count()
    with tempfile.TemporaryDirectory() as folder:
        if shares_memory:
            receiver = Receiver(f"ipc://{folder}/samples")
        else:
            receiver = Receiver("tcp://127.0.0.1", host=("elsewhere", ""))
        names = [f"solver-{number}" for number in range(num_workers)]

        def lease(name: str) -> None:
            number = next(numbers)
            workers[number] = name
            simulations = tuple(range(WINDOW * number, WINDOW * (number + 1)))
            receiver.submit(Lease(number=number, simulations=simulations), name)

        def take() -> int:
            item = receiver.next(60.0)
            if item is None:
                raise RuntimeError("nothing came for 60 s: see what the producers print")
            if isinstance(item, LeaseEnd):
                lease(workers.pop(item.lease_number))
                return 0
            if not ingest.take(item):
                raise RuntimeError("the buffer takes no more")
            return len(item)

        for _ in range(LEASES_AHEAD):
            for name in names:
                lease(name)
        try:
            with _processes(serve, [(receiver.endpoint, name, side) for name in names]):
                return _rate(take, seconds)
        finally:
            receiver.close()


def _rate(take: Callable[[], int], seconds: float) -> float:
    """Samples per second, after as long a time that does not count."""
    end = time.perf_counter() + seconds
    take()
    while time.perf_counter() < end:
        take()
    num, since = 0, time.perf_counter()
    while time.perf_counter() - since < seconds:
        num += take()
    return num / (time.perf_counter() - since)


OURS = {"ready chunks": (_serve_ready, True), "network": (_serve_ready, False), "worker": (_serve, True)}
"""What sends our chunks, and whether through shared memory."""
ARMS = ("ZeroMQ", *OURS)
