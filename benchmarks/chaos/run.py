"""A run of the command line that faults are done to, and what became of it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.chaos import disturbed
from benchmarks.chaos.watched_run import WatchedRun
from penstock.learner.checkpoints import checkpoint

CONFIGURATION = """
name: chaos
seed: SEED
problem: {name: ./disturbed.py:Disturbed, resolution: 16, orders: ORDERS}
solver: {workers: 2, window: 4, timeout_s: 10, memory_mb: 500}
buffer: {kind: reservoir, capacity: 256, watermark: 32, batches_per_simulation: 0.5}
model: {name: fno, width: 8, modes: 4, layers: 2}
training: {batch_size: 8, device: cpu, stop_after: {simulations: SIMULATIONS}}
validation: {simulations: 32, every_s: 2}
checkpoint: {every_s: 1}
"""
WORKERS = 2
DISK_MB = 256
# Whether this process may mount file systems, as root may where it is no container's.
HAS_OWN_DISK = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
OWN_SHARED_MEMORY = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /dev/shm && exec "$@"')
CLOCK = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("cc")


@dataclass(frozen=True)
class Account:
    """What became of a run's simulations, and of its training."""

    lost: int
    """Simulations that neither were delivered nor failed."""
    twice: int
    """Simulations that ended twice, and samples in the buffer's account that no delivered simulation has."""
    failed: dict[str, str]
    """Reason by simulation."""
    error: float
    """Mean relative L2 validation error; untrained it is about 1."""
    steps: int

    def faults(self) -> list[str]:
        """What is wrong with it, for people."""
        found = [f"{self.lost} simulations lost"] if self.lost else []
        found += [f"{self.twice} counted twice"] if self.twice else []
        unasked = {i: why for i, why in self.failed.items() if not why.startswith(f"ArithmeticError: {disturbed.WHY}")}
        return found + [f"simulation {i} failed: {why}" for i, why in unasked.items()]


class Run(WatchedRun):
    """`penstock train` in a folder, and `penstock resume` as often as it takes.

    Args:
        folder: an empty folder.
        num_simulations: simulations of the run.
        seed: seed of the run.
    """

    def __init__(self, folder: Path, num_simulations: int, seed: int = 0):
        self.num_simulations = num_simulations
        self.orders = folder / "orders"
        self.orders.mkdir()
        self.runs, self.shm = folder / "runs", folder / "shm"
        for disk in (self.runs, self.shm):
            disk.mkdir()
            if HAS_OWN_DISK:  # a small one, which a fault may fill
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", disk], check=True)
        values = {"SEED": str(seed), "ORDERS": str(self.orders), "SIMULATIONS": str(num_simulations)}
        text = CONFIGURATION
        for name, value in values.items():
            text = text.replace(name, value)
        super().__init__(folder, text, disturbed.__file__)
        if HAS_OWN_DISK:
            self.wrapper += [*OWN_SHARED_MEMORY, str(self.shm)]
        if COMPILER:
            self.set_clock(0)
            library = folder / "clock.so"
            subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", CLOCK, "-o", library, "-ldl"], check=True)
            self.wrapper += ["env", f"CHAOS_CLOCK={folder / 'clock'}", f"LD_PRELOAD={library}"]

    def set_clock(self, seconds: int) -> None:
        """Set the time of day of all processes of the run.

        Args:
            seconds: how far from the machine's.
        """
        with (self.folder / "clock").open("r+b" if (self.folder / "clock").exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))  # in place, because it is mapped

    def begin(self) -> None:
        """Start it, with simulations that rest, and wait until it trains."""
        self.order(disturbed.REST)
        self.train()
        self.wait_until(lambda: self.record.get("step", 0) > 0, "the first training step")

    def end(self) -> None:
        """See it to its end, without rests."""
        (self.orders / disturbed.REST).unlink()
        self.finish(0)

    def resume(self) -> None:
        """Go on with the run, and wait until it records again."""
        now = time.time()
        self.process = self.penstock("resume")
        self.wait_until(lambda: self.record.get("time", 0.0) > now, "a record of the resumed run")

    def order(self, name: str) -> None:
        """Ask the problem for a fault."""
        (self.orders / name).touch()

    @property
    def newest_checkpoint(self) -> int:
        """Its step; -1 where there is none."""
        with suppress(FileNotFoundError):
            step = checkpoint.latest(self.path / "checkpoints")
            return -1 if step is None else step
        return -1

    def count(self, event: str) -> int:
        """How often an event has happened."""
        lines = (self.path / "events.jsonl").read_text().split("\n")[:-1]
        return sum(json.loads(line)["event"] == event for line in lines)

    def solvers(self) -> list[psutil.Process]:
        """The solver workers that live."""
        found = []
        for pid in self.read("run.json").get("solver_pids", {}).values():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def account(self) -> Account:
        """What became of its simulations, once it has ended."""
        ledger, summary = self.read("ledger.json"), self.read("summary.json")
        delivered = [i for start, end in ledger["delivered"] for i in range(start, end)]
        ended = delivered + [int(i) for i in ledger["failed"]]
        return Account(
            lost=self.num_simulations - len(set(ended)),
            twice=len(ended) - len(set(ended)) + abs(summary["unique"] - len(delivered)),
            failed=ledger["failed"],
            error=summary["validation"]["relative_l2"]["mean"],
            steps=summary["step"],
        )

    def _left(self) -> list[str]:
        return super()._left() + [str(path) for path in self.shm.iterdir()]

    def remove(self) -> None:
        """End whatever is left, and keep the run folder when its small disk goes."""
        super().remove()
        if HAS_OWN_DISK:
            subprocess.run(["umount", self.shm], check=True)
            kept = shutil.copytree(self.runs, self.folder / "kept", symlinks=True)
            subprocess.run(["umount", self.runs], check=True)
            self.runs.rmdir()
            kept.rename(self.runs)
