"""The model's constants, measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from benchmarks.canned import SIDES, Canned, ReadyChunks
from benchmarks.consumer import WINDOW
from benchmarks.scale.driver import Tick, tick_of
from benchmarks.scale.fleet import Fleet
from benchmarks.scale.measure import measure
from benchmarks.scale.model import Constants, Cost, DriverCost, Metadata
from penstock.messages import Lease
from penstock.transport.items import packed

ID = 10**6  # of a simulation in metadata
TICKS = 4
TICK_ARMS = ((1, 0), (256, 0), (256, 10), (256, WINDOW), (1000, 1))
"""Workers, and samples of each per tick."""
CHUNKS = (("16 kB", 1), ("16 kB", 64), ("256 kB", 1), ("256 kB", 16), ("4 MB", 1))
"""Ready chunks: the size of a sample, and samples per chunk."""
PAUSE_S = 0.005


def calibrate(seconds: float) -> dict[bool, Constants]:
    """Measure the constants.

    Args:
        seconds: time of each measurement.

    Returns:
        The constants by whether samples go through shared memory, or over TCP, encrypted.
    """
    driver, metadata = _driver(), _metadata()
    with Fleet(1) as fleet:
        worker = _worker(fleet, seconds)
        found = {}
        for shares_memory in (True, False):
            take, carry = _receiver(fleet, seconds, shares_memory=shares_memory)
            found[shares_memory] = Constants(
                worker=worker, take=take, carry=carry, driver=driver, metadata=metadata, start_s=fleet.start_s
            )
    return found


def fitted(terms: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """The costs, none of them negative, whose sums over the terms come closest to what was measured, relatively.

    Args:
        terms: by measurement, how often each cost occurs.
        seconds: by measurement, what was measured.
    """
    scale = 1 / np.array(seconds)
    costs, _ = nnls(np.array(terms, float) * scale[:, None], np.ones(len(seconds)))
    return costs.tolist()


def _receiver(fleet: Fleet, seconds: float, *, shares_memory: bool) -> tuple[Cost, Cost]:
    """The costs of the thread that takes, and of ZeroMQ's beside it."""
    terms, taking, carrying = [], [], []
    for size, num_rows in CHUNKS:
        measured = measure(
            *(fleet, SIDES[size], 1),
            pause_s=0.0,
            seconds=seconds,
            are_sleepers=True,
            num_rows=num_rows,
            shares_memory=shares_memory,
        )
        rows = measured.rows_per_chunk
        terms.append([1.0, rows, rows * 8 * SIDES[size] ** 2 / 1e6])
        taking.append(measured.take_s)
        carrying.append(max(measured.transport_s, 1e-9))
    return Cost(*fitted(terms, taking)), Cost(*fitted(terms, carrying))


def _worker(fleet: Fleet, seconds: float) -> Cost:
    """The time of a worker per chunk, beside the pauses."""
    terms, times = [], []
    for side in SIDES.values():
        measured = measure(fleet, side, 1, pause_s=PAUSE_S, seconds=seconds)
        rows = measured.rows_per_chunk
        terms.append([1.0, rows, rows * 8 * side**2 / 1e6])
        times.append(max(rows / measured.rate - rows * PAUSE_S, 1e-9))
    return Cost(*fitted(terms, times))


def _driver() -> DriverCost:
    ticks: list[Tick] = [tick_of(num, each, TICKS) for num, each in TICK_ARMS]
    terms = [[1.0, tick.num_workers, tick.num_samples, tick.num_leases] for tick in ticks]
    return DriverCost(*fitted(terms, [tick.cpu_s for tick in ticks]))


def _metadata() -> Metadata:
    """Bytes of a chunk's header and of a lease, with one simulation and with a window of them."""
    problem = Canned(next(iter(SIDES.values())))
    sizes = {}
    for num in (1, WINDOW):
        lease = Lease(number=ID, simulations=tuple(range(ID, ID + num)))
        (chunk,) = ReadyChunks(problem, num).of(lease)
        sizes[num] = np.array([len(packed(chunk)[0]), len(packed(lease)[0])])
    chunk, lease = (sizes[WINDOW] - sizes[1]) / (WINDOW - 1)
    return Metadata(float(sizes[1][0] - chunk), float(chunk), float(sizes[1][1] - lease), float(lease))
