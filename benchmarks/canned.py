"""Samples that are there already, and workers that send them. No torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import zmq

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.machine import keep_freed_arrays
from penstock.messages import CHUNK_BYTES, CHUNKS_UNDER_WAY, Chunk, Lease, LeaseEnd
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem
from penstock.solvers.worker import SolverWorker
from penstock.transport.endpoint import Endpoint
from penstock.transport.sender import Sender

SIDES = {"16 kB": 45, "256 kB": 181, "4 MB": 724}  # of a sample's two fields, float32


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


def worker_of(problem: Problem) -> SolverWorker:
    """A worker that solves in the order of the ids."""
    return SolverWorker(problem, {"training": LinearSolver(Direct(), rtol=1e-8)}, seed=0, sort=False)


def worker_bytes(problem: Problem) -> int:
    """Bound on the bytes of a worker's chunks under way."""
    return CHUNKS_UNDER_WAY * (CHUNK_BYTES + problem.layout.sample_bytes)


class ReadyChunks:
    """Chunks whose arrays are there already.

    Args:
        problem: whose samples they hold.
        num_rows: samples per chunk.
    """

    def __init__(self, problem: Problem, num_rows: int):
        chunks = list(worker_of(problem).stream(Lease(number=0, simulations=tuple(range(num_rows)))))
        self._arrays = {key: np.concatenate([chunk.arrays[key] for chunk in chunks]) for key in chunks[0].arrays}
        self._quantiles = np.concatenate([chunk.quantiles for chunk in chunks])

    def of(self, lease: Lease) -> Iterator[Chunk]:
        """The chunks of a lease, with its ids."""
        num_rows = len(self._quantiles)
        for first in range(0, len(lease.simulations), num_rows):
            ids = lease.simulations[first : first + num_rows]
            yield Chunk(
                arrays={key: array[: len(ids)] for key, array in self._arrays.items()},
                simulations=np.array(ids),
                steps=np.zeros(len(ids), np.int64),
                quantiles=self._quantiles[: len(ids)],
                finished=ids,
            )


def serve(endpoint: Endpoint, name: str, side: int) -> None:
    """Send what a worker makes of samples that cost nothing."""
    keep_freed_arrays()  # as a worker of a run does
    worker = worker_of(Canned(side))
    with Sender(endpoint, name, worker_bytes(worker.problem)) as sender:
        for lease in sender.leases():
            for chunk in worker.stream(lease):
                sender.send(chunk)
            sender.send(LeaseEnd(lease.number))


def serve_ready(endpoint: Endpoint, name: str, side: int) -> None:
    """Send chunks of the size of a worker's that are there already, with the ids of the lease."""
    keep_freed_arrays()
    problem = Canned(side)
    ready = ReadyChunks(problem, max(1, CHUNK_BYTES // problem.layout.sample_bytes))
    with Sender(endpoint, name, worker_bytes(problem)) as sender:
        for lease in sender.leases():
            for chunk in ready.of(lease):
                sender.send(chunk)
            sender.send(LeaseEnd(lease.number))


def push(port: int, size: int, server_key: bytes | None = None) -> None:
    """Send arrays of float32, all of one size, to a local port by ZeroMQ alone; with a key by CURVE."""
    socket = zmq.Context().socket(zmq.PUSH)
    if server_key is not None:
        socket.curve_serverkey = server_key
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.setsockopt(zmq.SNDHWM, 4)
    socket.connect(f"tcp://127.0.0.1:{port}")
    values = np.random.default_rng(0).standard_normal(size, np.float32)
    while True:
        socket.send(values)
