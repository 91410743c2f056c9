"""Faults by kind, a seeded plan of them, and a run that has to bear it.

A kind is a function that does something to a run and waits until penstock has answered it. When is counted in
simulations delivered, so that a slow machine sees the same faults at the same places.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from benchmarks.chaos.disturbed import DIE, HANG, LEAK, RAISE
from benchmarks.chaos.run import COMPILER, HAS_OWN_DISK, WORKERS, Run

SIMULATIONS_PER_FAULT = 200  # with their rests, as many last longer than most recoveries
MOST_BETWEEN = 20  # simulations delivered between a recovery and the next fault
STOPPED_S = 5.0
FULL_S = 20.0
CLOCK_STEP_S = 3600
WRONG_CLOCK_S = 10.0


def solver_killed(run: Run, random: Random) -> None:
    """SIGKILL of a worker."""
    _with_a_death(run, lambda: random.choice(run.solvers()).kill())


def solver_stopped(run: Run, random: Random) -> None:
    """SIGSTOP of a worker, which `solver.timeout_s` ends."""
    _with_a_death(run, lambda: random.choice(run.solvers()).suspend())


def simulation_hangs(run: Run, random: Random) -> None:
    """A simulation that sleeps, which `solver.timeout_s` ends."""
    _with_a_death(run, lambda: run.order(HANG))


def solver_dies_at_its_start(run: Run, random: Random) -> None:
    """SIGKILL of a worker, whose successor exits while it is built."""

    def strike() -> None:
        run.order(DIE)
        random.choice(run.solvers()).kill()

    _with_a_death(run, strike, num=2)


def solver_leaks(run: Run, random: Random) -> None:
    """A worker that keeps 600 MB, above `solver.memory_mb`."""
    before = run.count("worker outgrown")
    run.order(LEAK)
    run.wait_until(lambda: run.count("worker outgrown") > before, "the replacement of a worker that leaks")


def simulation_raises(run: Run, random: Random) -> None:
    """A simulation whose code raises: it alone fails."""
    before = run.record["failed"]
    run.order(RAISE)
    run.wait_until(lambda: run.record["failed"] > before, "the failure of a simulation that raises")


def learner_killed(run: Run, random: Random) -> None:
    """SIGKILL of the learner, which another one replaces."""
    before = run.count("learner restarted")
    os.kill(run.read("run.json")["learner_pid"], signal.SIGKILL)
    run.wait_until(lambda: run.count("learner restarted") > before, "another learner")


def learner_stopped(run: Run, random: Random) -> None:
    """SIGSTOP of the learner, and SIGCONT 5 s later."""
    learner = psutil.Process(run.read("run.json")["learner_pid"])
    learner.suspend()
    time.sleep(STOPPED_S)
    learner.resume()


def workers_scaled(run: Run, random: Random) -> None:
    """`penstock scale` to one worker or three, and back to two."""
    for num in (random.choice((WORKERS - 1, WORKERS + 1)), WORKERS):
        if run.penstock("scale", "runs/latest", "--solvers", str(num)).wait():
            raise run.wrong("penstock scale failed")
        run.wait_until(lambda num=num: run.record["workers"] == num, f"a run of {num} workers")


def driver_killed(run: Run, random: Random) -> None:
    """SIGKILL of the driver, then `penstock resume`."""
    run.process.kill()
    run.finish(-signal.SIGKILL)
    run.resume()


def driver_terminated(run: Run, random: Random) -> None:
    """SIGTERM to the driver, then `penstock resume`."""
    run.process.terminate()
    run.finish(128 + signal.SIGTERM)
    run.resume()


def disk_filled(run: Run, random: Random) -> None:
    """The disk of the run folder full for 20 s."""
    before = run.count("learner died")
    _fill(run.runs)
    if run.count("learner died") > before:
        raise run.wrong("the learner died of a full disk")


def shared_memory_filled(run: Run, random: Random) -> None:
    """/dev/shm, where Ray's object store is, full for 20 s, and SIGKILL of a worker."""

    def strike() -> None:
        with ThreadPoolExecutor() as threads:
            filled = threads.submit(_fill, run.shm)
            time.sleep(FULL_S / 4)
            random.choice(run.solvers()).kill()
            filled.result()

    _with_a_death(run, strike)


def clock_set(run: Run, random: Random) -> None:
    """The time of day an hour forwards or backwards, and right again 10 s later."""
    run.set_clock(random.choice((-1, 1)) * CLOCK_STEP_S)
    time.sleep(WRONG_CLOCK_S)
    run.set_clock(0)


def control_service_killed(run: Run, random: Random) -> None:
    """SIGKILL of Ray's control service, then `penstock resume`."""
    (service,) = (p for p in psutil.Process(run.process.pid).children() if p.name() == "gcs_server")
    service.kill()
    run.finish(1)
    run.resume()


Kind = Callable[[Run, Random], None]
KINDS: tuple[Kind, ...] = (
    *(solver_killed, solver_stopped, simulation_hangs, solver_dies_at_its_start, solver_leaks, simulation_raises),
    *(learner_killed, learner_stopped, workers_scaled, driver_killed, driver_terminated, control_service_killed),
    *((disk_filled, shared_memory_filled) if HAS_OWN_DISK else ()),
    *((clock_set,) if COMPILER else ()),
)


def _fill(disk: Path) -> None:
    """Keep a disk full for FULL_S."""
    filler, end = disk / "filler", time.monotonic() + FULL_S
    with filler.open("wb", buffering=0) as file:
        while time.monotonic() < end:
            with suppress(OSError):
                while True:  # also what is freed meanwhile
                    file.write(b"x" * 512)
            time.sleep(0.02)
    filler.unlink()


def _with_a_death(run: Run, strike: Callable[[], None], num: int = 1) -> None:
    """Strike, and wait until the expected number of workers has died."""
    before = run.count("worker died")
    strike()
    run.wait_until(lambda: run.count("worker died") >= before + num, f"the death of {num} worker(s)")


@dataclass(frozen=True)
class Fault:
    """One fault of a plan."""

    kind: Kind
    after: int
    """Simulations delivered since the run had recovered from the fault before."""

    @property
    def name(self) -> str:
        return name_of(self.kind)


def name_of(kind: Kind) -> str:
    """The name of a kind for people."""
    return kind.__name__.replace("_", " ")


def plan(num_faults: int, random: Random) -> list[Fault]:
    """Faults in rounds, each of all kinds in a random order.

    So the learner is not killed three times without any other end of its process in between, which would end the run.
    """
    kinds: list[Kind] = []
    while len(kinds) < num_faults:
        kinds += random.sample(KINDS, len(KINDS))
    return [Fault(kind, random.randint(1, MOST_BETWEEN)) for kind in kinds[:num_faults]]


@dataclass(frozen=True)
class Recovery:
    """A fault that was borne."""

    fault: Fault
    seconds: float
    """From the blow until both workers were ready and both samples and steps had increased again."""


def bear(run: Run, faults: list[Fault], random: Random, tell: Callable[[str], None]) -> list[Recovery]:
    """Start a run, do the faults to it one after another, and see it to its end.

    Args:
        run: the run.
        faults: what to do.
        random: chooses among workers, and such.
        tell: prints a line for each recovery.

    Returns:
        How long each took to recover from.

    Raises:
        PenstockError: the run did not recover, or did not end by itself.
    """
    recoveries = []
    run.begin()
    for fault in faults:
        recoveries.append(Recovery(fault, bear_one(run, fault.kind, fault.after, random)))
        tell(f"{fault.name}: recovered in {recoveries[-1].seconds:.1f} s, {run.record['delivered']} simulations")
        run.note_shared_memory()
        with urllib.request.urlopen(run.read("run.json")["metrics"], timeout=30) as response:
            if b"penstock_samples_unique_total" not in response.read():
                raise run.wrong("the metrics lack penstock_samples_unique_total")
    run.end()
    return recoveries


def bear_one(run: Run, kind: Kind, after: int, random: Random) -> float:
    """Do a fault to a run that goes.

    Args:
        run: the run.
        kind: what to do.
        after: how many simulations are delivered before.
        random: chooses among workers, and such.

    Returns:
        Seconds from the blow until the run had recovered.
    """
    delivered, saved = run.record["delivered"], run.newest_checkpoint
    run.wait_until(
        # With a new checkpoint, or each fault could undo all since the one before.
        lambda: run.record["delivered"] >= delivered + after and run.newest_checkpoint > saved,
        f"{after} simulations and a checkpoint",
    )
    began = time.monotonic()
    kind(run, random)
    _recovered(run)
    return time.monotonic() - began


def _recovered(run: Run) -> None:
    """Wait until all workers are ready, and both samples and steps increase."""
    before = run.record

    def goes_on() -> bool:
        now = run.record
        return now["workers"] == WORKERS and all(now[count] > before[count] for count in ("unique", "step"))

    run.wait_until(goes_on, "samples and steps")
