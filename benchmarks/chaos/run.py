"""A run of the command line that faults are done to, and what is left of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos import disturbed
from penstock.errors import PenstockError
from penstock.learner.checkpoints import checkpoint

CONFIGURATION = """
name: chaos
seed: SEED
problem: {name: ./disturbed.py:Disturbed, resolution: 16, orders: ORDERS}
solver: {workers: 2, window: 4, timeout_s: 10, memory_mb: 500}
buffer: {kind: reservoir, capacity: 256, watermark: 32, batches_per_simulation: 0.5}
model: {name: fno, width: 8, modes: 4, layers: 2}
training: {batch_size: 8, learning_rate: 5.0e-3, device: cpu, stop_after: {simulations: SIMULATIONS}}
validation: {simulations: 32, every_s: 2}
checkpoint: {every_s: 1}
"""
WORKERS = 2
PATIENCE_S = 300.0  # only ends a wait for what will never come
DISK_MB = 256
# Whether this process may mount file systems, as root may where it is no container's.
HAS_OWN_DISK = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
CLEAN_WITHIN_S = 30.0  # Ray's processes notice the death of a driver after some seconds


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


class Run:
    """`penstock train` in a folder, and `penstock resume` as often as it takes.

    Args:
        folder: an empty folder.
        num_simulations: simulations of the run.
        seed: seed of the run.
    """

    def __init__(self, folder: Path, num_simulations: int, seed: int = 0):
        self.folder = folder
        self.num_simulations = num_simulations
        self.orders = folder / "orders"
        self.orders.mkdir()
        self.runs = folder / "runs"
        self.runs.mkdir()
        if HAS_OWN_DISK:  # a small one, which a fault may fill
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", self.runs], check=True)
        shutil.copy(disturbed.__file__, folder)
        values = {"SEED": str(seed), "ORDERS": str(self.orders), "SIMULATIONS": str(num_simulations)}
        text = CONFIGURATION
        for name, value in values.items():
            text = text.replace(name, value)
        (folder / "run.yaml").write_text(text)
        self.temporary = Path(tempfile.mkdtemp(prefix=""))  # a short name, because Ray's sockets are in it
        self.shared_memory: set[Path] = set()
        """Files in /dev/shm that processes of the run were seen to have open."""
        self.process: subprocess.Popen | None = None

    def penstock(self, *arguments: str) -> subprocess.Popen:
        """Start a command, whose words go to console.txt."""
        own = {"HOME": str(self.folder), "TMPDIR": str(self.temporary), "OMP_WAIT_POLICY": "passive"}
        own["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / "inductor")  # torch keeps it for other processes to come
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own
        with (self.folder / "console.txt").open("a") as console:
            return subprocess.Popen(
                [sys.executable, "-m", "penstock", *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def train(self) -> None:
        self.process = self.penstock("train", "run.yaml")

    def resume(self) -> None:
        """Go on with the run, and wait until it records again."""
        now = time.time()
        self.process = self.penstock("resume")
        self.wait_until(lambda: self.record.get("time", 0.0) > now, "a record of the resumed run")

    def order(self, name: str) -> None:
        """Ask the problem for a fault."""
        (self.orders / name).touch()

    @property
    def path(self) -> Path:
        return self.runs / "latest"

    @property
    def record(self) -> dict[str, Any]:
        """The newest line of metrics.jsonl; empty before there is one."""
        with suppress(FileNotFoundError):
            lines = (self.path / "metrics.jsonl").read_text().split("\n")[:-1]  # the last one may be half written
            return json.loads(lines[-1]) if lines else {}
        return {}

    @property
    def newest_checkpoint(self) -> int:
        """Its step; -1 where there is none."""
        with suppress(FileNotFoundError):
            step = checkpoint.latest(self.path / "checkpoints")
            return -1 if step is None else step
        return -1

    def read(self, name: str) -> dict[str, Any]:
        return json.loads((self.path / name).read_text())

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

    def processes(self) -> list[psutil.Process]:
        """Every living process of the run: all that is in its folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
        return found

    def note_shared_memory(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error, OSError):
                mapped = Path(f"/proc/{process.pid}/maps").read_text().split()
                self.shared_memory |= {Path(word) for word in mapped if word.startswith("/dev/shm/")}

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something while the run goes.

        Raises PenstockError if the run ends before, or if it does not come.
        """
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None:
                raise self.wrong(f"the run ended with exit code {self.process.returncode} before {what}")
            if time.monotonic() > end:
                raise self.wrong(f"{what} did not come within {PATIENCE_S:.0f} s; the last record: {self.record}")
            time.sleep(0.1)

    def finish(self, exit_code: int) -> None:
        """Wait for the end of the process that drives the run, which must have this exit code."""
        try:
            found = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise self.wrong(f"the run did not end within {PATIENCE_S:.0f} s") from None
        if found != exit_code:
            raise self.wrong(f"exit code {found} where {exit_code} was to be expected")

    def wrong(self, what: str) -> PenstockError:
        """The error to raise where the run did something wrong, with its last words."""
        words = (self.folder / "console.txt").read_text().splitlines()[-8:]
        return PenstockError("\n  ".join([f"{what} (in {self.folder}); it said last:", *words]), exit_code=1)

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

    def left(self) -> list[str]:
        """What is left of it on the machine, after a while: processes, temporary files, shared memory."""
        end = time.monotonic() + CLEAN_WITHIN_S
        while (found := self._left()) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def _left(self) -> list[str]:
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(f"process {process.pid}: {' '.join(process.cmdline())[:80]}")
        return found + [str(path) for path in (*self.temporary.iterdir(), *self.shared_memory) if path.exists()]

    def remove(self) -> None:
        """End whatever is left, and remove the temporary folder."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)
        if HAS_OWN_DISK:
            kept = shutil.copytree(self.runs, self.folder / "kept", symlinks=True)
            subprocess.run(["umount", self.runs], check=True)
            self.runs.rmdir()
            kept.rename(self.runs)
