"""What the stream carries from solvers to the learner's buffer, beside bare ZeroMQ."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import zmq

from benchmarks.canned import SIDES, Canned, push, serve, serve_ready
from benchmarks.consumer import BUFFER_BYTES, consumer
from benchmarks.report import footer, paragraph, write
from penstock.machine import keep_freed_arrays
from penstock.report import markdown
from penstock.transport.receiver import IO_THREADS

LEAST = 0.7


def run(seconds: float, rounds: int) -> None:
    """Print the table, and write it to benchmarks/tables/transport.md.

    Args:
        seconds: time of each measurement.
        rounds: measurements of every arm, in turns.
    """
    keep_freed_arrays()  # as a learner does
    rows = []
    for size, side in SIDES.items():
        for num_workers in (1, 2, 4):
            rates: dict[str, list[float]] = {arm: [] for arm in (*BARE, *OURS)}
            for _ in range(rounds):
                for arm, encrypts in BARE.items():
                    rates[arm].append(bare(side, num_workers, seconds, encrypts=encrypts))
                for arm, (target, shares_memory) in OURS.items():
                    rates[arm].append(ours(side, num_workers, seconds, target, shares_memory=shares_memory))
            rows.append([size, str(num_workers), *_columns(rates, 8 * side**2)])
            print(" | ".join(rows[-1]), flush=True)
    heads = ["sample", "producers", "ZeroMQ, samples/s", "ready chunks", "GB/s", "ratio", "worker", "ratio"]
    heads += ["ZeroMQ with CURVE", "network", "ratio"]
    text = paragraph(
        f"""Producers send samples that cost nothing to one consumer that copies them into slots of a buffer. ZeroMQ:
        PUSH to PULL over TCP on this machine, one array per message, no account. Ours: `Ingest` drops second copies and
        keeps the account of what "ready chunks", filled beforehand as ZeroMQ's messages are, bring through shared
        memory. In "worker" the chunks are made by `SolverWorker`, which draws, checks and packs every sample. "network"
        is ready chunks over TCP with CURVE, which encrypts, as between two machines, beside ZeroMQ with the same.
        Medians of {rounds} measurements of {seconds:g} s in turns; ratios are of the medians, and of ready chunks at
        least {LEAST} is wanted."""
    )
    command = f"python -m benchmarks transport --seconds {seconds:g} --rounds {rounds}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, pyzmq {zmq.__version__}"
    foot = footer(command, f"{multiprocessing.cpu_count()} processors", f"{versions}, libzmq {zmq.zmq_version()}")
    write("transport.md", f"# Transport: samples per second\n\n{text}\n\n{markdown(rows, heads)}\n\n{foot}\n")


def _columns(rates: dict[str, list[float]], sample_bytes: int) -> list[str]:
    medians = {arm: statistics.median(rates[arm]) for arm in rates}

    def beside(arm: str, bare: str) -> list[str]:
        return [f"{medians[arm]:.0f}", f"{medians[arm] / medians[bare]:.2f}"]

    rate, ratio = beside("ready chunks", "ZeroMQ")
    return [
        *(f"{medians['ZeroMQ']:.0f}", rate, f"{medians['ready chunks'] * sample_bytes / 1e9:.2f}", ratio),
        *beside("worker", "ZeroMQ"),
        *(f"{medians['ZeroMQ with CURVE']:.0f}", *beside("network", "ZeroMQ with CURVE")),
    ]


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


def bare(side: int, num_producers: int, seconds: float, *, encrypts: bool = False) -> float:
    """Samples per second of bare ZeroMQ, encrypted or not; the other arguments are those of `ours`."""
    size, key = 2 * side**2, None
    context = zmq.Context(io_threads=IO_THREADS)
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 4)
    if encrypts:
        key, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_publickey, socket.curve_server = key, True
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    slots = np.ones((max(4, BUFFER_BYTES // (4 * size)), size), np.float32)
    slot = count()

    def take() -> int:
        slots[next(slot) % len(slots)] = np.frombuffer(socket.recv(copy=False).buffer, np.float32)
        return 1

    try:
        with _processes(push, [(port, size, key)] * num_producers):
            return _rate(take, seconds)
    finally:
        context.destroy(linger=0)


def ours(side: int, num_workers: int, seconds: float, serve: Callable, *, shares_memory: bool) -> float:
    """Samples per second that the stream carries into a buffer.

    Args:
        side: points along each side.
        num_workers: number of processes that send.
        seconds: time that counts, after as much that does not.
        serve: what they run, with the endpoint, their name and `side`.
        shares_memory: whether they count as processes of this machine.
    """
    names = [f"solver-{number}" for number in range(num_workers)]
    with (
        consumer(Canned(side).layout, names, shares_memory=shares_memory) as taking,
        _processes(serve, [(taking.endpoint, name, side) for name in names]),
    ):
        return _rate(lambda: len(taking.take() or ()), seconds)


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


BARE = {"ZeroMQ": False, "ZeroMQ with CURVE": True}
"""ZeroMQ alone, and whether it encrypts."""
OURS = {"ready chunks": (serve_ready, True), "worker": (serve, True), "network": (serve_ready, False)}
"""What sends our chunks, and whether through shared memory."""
