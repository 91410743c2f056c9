"""The table of 1 to 1,000 workers: `python -m benchmarks scale`."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from typing import Any

import numpy as np
import psutil
import zmq

from benchmarks.canned import SIDES, Canned, worker_bytes
from benchmarks.report import FOLDER, footer, paragraph, require_folder, write
from benchmarks.scale.driver import tick_of
from benchmarks.scale.fleet import Fleet
from benchmarks.scale.measure import PER_PROCESS, Measured, measure
from benchmarks.transport import bare
from penstock.errors import PenstockError
from penstock.report import markdown

PAUSES_S = {"16 kB": 0.05, "256 kB": 0.1, "4 MB": 1.0}  # so that 64 workers stay below the transport's limit
WORKERS = (1, 4, 16, 64)
SLEEPERS = (256, 1000)
PRODUCERS = 2  # that find the transport's limit
SAMPLES_EACH = 50  # per second and worker, for the driver
TICKS = 5
FILE = "scale.json"


def run(seconds: float, processes: int) -> None:
    """Print the tables, and write them to benchmarks/tables/scale.md, and the rates to scale.json beside it.

    Args:
        seconds: time of each measurement.
        processes: number of worker processes; rows that need more are left out.
    """
    require_folder()
    sleepers = [num for num in SLEEPERS if num <= processes * PER_PROCESS]
    rates: dict[str, dict[int, float]] = {size: {} for size in SIDES}
    rows = []
    with Fleet(processes) as fleet:
        limits = {size: _limit(fleet, side, min(PRODUCERS, processes), seconds / 2) for size, side in SIDES.items()}
        for size, side in SIDES.items():
            for num in (*[num for num in WORKERS if num <= processes], *sleepers):
                are_sleepers = num in sleepers
                pause_s = PAUSES_S[size]
                measured = None
                if num * worker_bytes(Canned(side)) < psutil.virtual_memory().available:
                    measured = measure(fleet, side, num, pause_s=pause_s, seconds=seconds, are_sleepers=are_sleepers)
                    rates[size][num] = measured.rate
                rows.append([size, f"{num:,}", *_columns(side, num, measured, rates[size], limits[size][1])])
                print(" | ".join(rows[-1]), flush=True)
    ticks = [tick_of(num, SAMPLES_EACH, TICKS) for num in (*WORKERS, *sleepers)]
    write(FILE, json.dumps({"pauses": PAUSES_S, "rates": rates, "machine": machine()}, indent=1) + "\n")
    write("scale.md", _page(limits, rows, [asdict(tick) for tick in ticks], seconds, processes, fleet))


def measured_rates() -> dict[str, tuple[float, dict[int, float]]]:
    """What `run` wrote last: by size of a sample the pause, and the rates by number of worker processes.

    Raises:
        PenstockError: there are none.
    """
    path = FOLDER / FILE
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PenstockError(f"{path} can't be read: run `python -m benchmarks scale` here first") from error
    return {
        size: (found["pauses"][size], {int(num): rate for num, rate in rates.items() if int(num) in WORKERS})
        for size, rates in found["rates"].items()
    }


def machine() -> str:
    """What a table says of the machine."""
    return f"{os.cpu_count()} processors, {os.getloadavg()[0]:.1f} processes running on average at the end"


def versions() -> str:
    """What a table says of the programs."""
    return f"Python {platform.python_version()}, NumPy {np.__version__}, pyzmq {zmq.__version__}"


def _limit(fleet: Fleet, side: int, num: int, seconds: float) -> tuple[float, float]:
    """Samples per second of bare ZeroMQ, and of ready chunks without a pause."""
    ready = measure(fleet, side, num, pause_s=0.0, seconds=seconds, are_sleepers=True, per_process=1)
    return bare(side, num, seconds), ready.rate


def _columns(side: int, num: int, measured: Measured | None, rates: dict[int, float], limit: float) -> list[str]:
    bound = f"{num * worker_bytes(Canned(side)) / 1e6:,.0f}"
    if measured is None:
        return [*["-"] * 9, f"not run ({bound})"]
    rows, rate = measured.rows_per_chunk, measured.rate
    return [
        f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}",
        f"{rate / (num * rates[1]):.2f}",
        f"{rate / min(limit, num * rates[1]):.2f}",
        f"{rate * 8 * side**2 / 1e9:.3f}",
        f"{measured.chunks_per_s:.0f}",
        f"{rows:.1f}",
        *(f"{1e6 * cost / rows:,.0f}" for cost in (measured.take_s, measured.transport_s, measured.worker_s)),
        f"{measured.shared_bytes / 1e6:,.0f} ({bound})",
    ]


def _page(limits, rows, ticks: list[dict[str, Any]], seconds: float, processes: int, fleet: Fleet) -> str:
    heads = ["sample", "workers", "unique/s", "of linear", "of linear or the limit", "GB/s", "chunks/s"]
    heads += ["samples per chunk", "taking, us", "ZeroMQ, us", "worker, us", "shared memory, MB (bound)"]
    text = paragraph(
        f"""Workers that sleep, {", ".join(f"{pause:g} s per sample of {size}" for size, pause in PAUSES_S.items())},
        and send canned arrays to one consumer that copies them into slots of a buffer. Up to {WORKERS[-1]} each is a
        process with a `SolverWorker`, which draws, checks and packs; {SLEEPERS[0]} and more are threads, {PER_PROCESS}
        per process, that send ready chunks as often and as large as a worker would. Linear is as many times what one
        worker brings, the limit what ready chunks bring without a pause. Times are of CPU per sample: of the thread
        that takes, of ZeroMQ's thread beside it, of a worker's process. Shared memory is what the workers had written
        to at the end, and in brackets the bound on it; what would take more than the free memory is not run.
        Each measurement took {seconds:g} s. All {processes} processes together took {fleet.start_s:.0f} s to start."""
    )
    limit_rows = [
        [
            size,
            f"{zeromq:,.0f}",
            f"{zeromq * 8 * SIDES[size] ** 2 / 1e9:.2f}",
            f"{ready:,.0f}",
            f"{ready * 8 * SIDES[size] ** 2 / 1e9:.2f}",
            f"{ready / zeromq:.2f}",
        ]
        for size, (zeromq, ready) in limits.items()
    ]
    limit_heads = ["sample", "ZeroMQ, samples/s", "GB/s", "ready chunks, samples/s", "GB/s", "ratio"]
    per_sample = [tick["cpu_s"] / tick["num_samples"] for tick in ticks]
    many = [each for tick, each in zip(ticks, per_sample, strict=True) if tick["num_workers"] >= 16]
    driver_text = paragraph(
        f"""What `WorkerPool`, `Ledger`, `Journal` and `Metrics` take for a tick, which comes once per second, at
        {SAMPLES_EACH} samples per second and worker with a solve each, in CPU time of one thread: reading the learner's
        status, the account, ends of leases, silences, the record, the metrics of each solve, new leases. Actors are
        stubs: what Ray takes for its calls is not in it, nor is the console. The cost of a tick that does not grow
        weighs on few workers; from 16 on the time per sample lies between {1e6 * min(many):.1f} and
        {1e6 * max(many):.1f} us, {100 * (max(many) / min(many) - 1):.0f} % apart."""
    )
    driver_rows = [
        [
            f"{tick['num_workers']:,}",
            f"{tick['num_samples']:,.0f}",
            f"{1e3 * tick['cpu_s']:.1f}",
            f"{1e6 * each:.1f}",
            f"{tick['status_bytes'] / 1e3:.0f}",
        ]
        for tick, each in zip(ticks, per_sample, strict=True)
    ]
    driver_heads = ["workers", "samples/s", "tick, ms", "per sample, us", "status, kB"]
    command = f"python -m benchmarks scale --seconds {seconds:g} --processes {processes}"
    return "\n\n".join(
        [
            "# Scale: 1 to 1,000 workers",
            text,
            markdown(rows, heads),
            "## The transport's limit",
            paragraph(f"{PRODUCERS} processes that send without a pause; see [transport.md](transport.md)."),
            markdown(limit_rows, limit_heads),
            "## The driver",
            driver_text,
            markdown(driver_rows, driver_heads),
            footer(command, machine(), versions()) + "\n",
        ]
    )
