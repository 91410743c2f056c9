"""How many more samples two workers make than one, and what the machine allows."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir, closing, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from benchmarks.problems import WINDOW, config_of, names_of
from benchmarks.solvers.report import report
from penstock.messages import Chunk, Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.cluster.ray_session import set_environment
from penstock.orchestrator.ledger.designs import InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.orchestrator.run.gathering import gathered
from penstock.orchestrator.solving import Solving

NAMES = ["darcy", "heat", "cavity", "navier_stokes"]
WARM_UP_S = 5.0  # `auto` decides, and what serves all simulations is built
ENDLESS = 10_000_000
LEAST = 0.95
INTRODUCTION = """
Samples per second of each problem with its default options, over {seconds:g} seconds after a warm-up of {warm_up:g}
seconds. "run" is the stream of a run without its learner: workers that Ray starts, whose chunks this process takes and
drops. "plain" is the same worker in separate processes without Ray or a stream: that is what the solvers can make, and
the ratio of two to one what the machine allows. Of what they can make at least {least:g} is wanted to come through the
stream, which carries many times as much (`transport`). Cores that are two threads of one allow less than two. The
measurements were made one after the other, while {load:.1f} processes ran on average.
"""


def rate(chunks: Iterable[Chunk], seconds: float, warm_up_s: float = WARM_UP_S) -> float:
    """Samples per second, from the first chunk after the warm-up to the last one in time."""
    began, first, num = None, None, 0
    for chunk in chunks:
        now = time.perf_counter()
        if began is None:
            began = now
        if first is not None:
            num += len(chunk)
        elif now - began >= warm_up_s:
            first = now
        if first is not None and now - first >= seconds:
            break
    return num / (now - first)


def of_run(name: str, num_workers: int, seconds: float) -> float:
    """Samples per second of workers that Ray starts.

    In a separate process: Ray keeps the token of the first cluster that a process starts.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_of_run, name, num_workers, seconds, WARM_UP_S).result()


def _of_run(name: str, num_workers: int, seconds: float, warm_up_s: float) -> float:
    solving = Solving.of(config_of(name, workers=num_workers))
    ledger = Ledger(InOrder("training"), ENDLESS)
    set_environment(None)
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),  # of the workers' logs
        gathered(solving, ledger, tell=lambda line: None) as chunks,
        closing(chunks.stream),
    ):
        return rate(chunks.stream, seconds, warm_up_s)


def of_processes(name: str, num: int, seconds: float) -> float:
    """Samples per second of plain processes that solve at the same time, in all."""
    context = get_context("spawn")
    pairs = [context.Pipe() for _ in range(num)]
    processes = [
        context.Process(target=_solve_in_process, args=(name, number, seconds, theirs))
        for number, (_, theirs) in enumerate(pairs)
    ]
    for process in processes:
        process.start()
    ours = [mine for mine, _ in pairs]
    for word in ("begin", "end"):
        answers = [connection.recv() for connection in ours]
        for connection in ours:
            connection.send(word)
    for process in processes:
        process.join()
    return sum(answers)


def _solve_in_process(name: str, number: int, seconds: float, connection: Connection) -> None:
    """Solve, and send the rate; go on until all have sent theirs."""
    worker = make_worker(Solving.of(config_of(name)))
    chunks = _endless(worker, number * ENDLESS)
    next(chunks)
    connection.send("ready")
    connection.recv()
    connection.send(rate(chunks, seconds))
    with suppress(EOFError):
        while not connection.poll():
            next(chunks)


def _endless(worker, first: int) -> Iterator[Chunk]:
    while True:
        yield from worker.stream(Lease(number=first, simulations=tuple(range(first, first + WINDOW))))
        first += WINDOW


def run(names: list[str], seconds: float) -> None:
    """Measure problems, and print and write the table.

    Args:
        names: of the problems; `NAMES` where there are none.
        seconds: time of each measurement.

    Raises:
        PenstockError: there is no such problem.
    """
    rows, loads = [], []
    for name in names_of(names or NAMES):
        rates = []
        for measure in (of_run, of_processes):
            for num in (1, 2):
                rates.append(measure(name, num, seconds))
                loads.append(os.getloadavg()[0])
                print(f"{name}: {measure.__name__}({num}): {rates[-1]:.3g} samples/s", file=sys.stderr, flush=True)
        run_1, run_2, plain_1, plain_2 = rates
        ratios = [run_2 / run_1, plain_2 / plain_1, run_1 / plain_1, run_2 / plain_2]
        rows.append([name, *(f"{rate:.3g}" for rate in rates), *(f"{ratio:.2f}" for ratio in ratios)])
    header = ["problem", "run, 1", "run, 2", "plain, 1", "plain, 2", "run 2 / 1", "plain 2 / 1"]
    header += ["run 1 / plain 1", "run 2 / plain 2"]
    load = sum(loads) / len(loads)
    introduction = INTRODUCTION.format(seconds=seconds, warm_up=WARM_UP_S, least=LEAST, load=load)
    command, place = " ".join(["scaling", *names, f"--seconds {seconds:g}"]), f"{os.cpu_count()} cores"
    report("scaling.md", "Two workers against one, without a learner", introduction, header, rows, command, place)
