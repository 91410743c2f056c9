"""The real command line in a separate process, on a problem that takes seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

TINY = """
name: tiny
problem: PROBLEM
solver: {strategy: {name: gcrodr, m: 20, k: 5, pc: jacobi}, window: 16, workers: 1}
buffer: {kind: reservoir, capacity: 128, watermark: 32, batches_per_simulation: 0.5}
model: MODEL
training: {batch_size: 8, device: cpu, stop_after: {steps: 150}}
validation: {simulations: 16, every_s: 2}
checkpoint: {every_s: 3}
"""

SLOW = """
import time

from penstock.solvers.problems.{module} import {name}


class Slow({name}):
    def simulate(self, parameters, solve):
        time.sleep({pause_s})
        yield from super().simulate(parameters, solve)
"""


@dataclass(frozen=True)
class Kind:
    """A problem of one kind of geometry, one sample per simulation, with a model for it."""

    problem: str
    model: str
    source: tuple[str, str]
    """Module and class of the problem."""
    large_model: tuple[str, ...]
    """Overrides for weights of 8 MB: a write of a checkpoint then lasts long enough to be met."""


POINT_MODEL = "{name: branch_trunk, width: 16, latent: 16, layers: 2}"
KINDS = {
    "grid": Kind(
        "{name: darcy, resolution: 16}",
        "{name: fno, width: 8, modes: 4, layers: 2}",
        ("steady.darcy", "Darcy"),
        ("model.width=64", "model.modes=8"),
    ),
    "mesh": Kind(
        "{name: heat_l_shape, resolution: 16, num_steps: 1}",
        POINT_MODEL,
        ("transient.heat_l_shape", "HeatLShape"),
        ("model.width=700", "model.latent=700"),
    ),
    "points": Kind(
        "{name: poisson_with_hole, resolution: 20}",
        POINT_MODEL,
        ("steady.poisson_with_hole", "PoissonWithHole"),
        ("model.width=700", "model.latent=700"),
    ),
}


LONGEST = ("test_slurm.py", "test_deterministic.py", "test_endings.py", "test_faults.py")
"""Begun first, so that none is left alone at the end where several run at once."""


class Cli:
    """`penstock` in a folder, with every run started in the background and waited for."""

    def __init__(self, folder: Path, kind: Kind = KINDS["grid"]):
        self.folder = folder
        self.config = folder / "tiny.yaml"
        self.use(kind)
        # Learners of two threads and solvers share two cores: threads that wait by spinning would take others' time.
        self.environment = os.environ | {"HOME": str(folder), "COLUMNS": "200", "OMP_WAIT_POLICY": "passive"}
        self.environment.pop("RAY_ADDRESS", None)
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody has it who waits for a run

    def use(self, kind: Kind, template: str = TINY) -> None:
        """Write the configuration: a template in which PROBLEM and MODEL stand for those of the kind."""
        self.kind = kind
        self.config.write_text(template.replace("PROBLEM", kind.problem).replace("MODEL", kind.model))

    def start(self, *arguments: str, script: str | None = None) -> subprocess.Popen:
        """script: Python to run in place of `-m penstock`, with the same arguments."""
        program = ["-m", "penstock"] if script is None else ["-c", script]
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, timeout_s: float = 200.0) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        return self.finish(process, timeout_s)

    def finish(self, process: subprocess.Popen, timeout_s: float = 200.0) -> subprocess.CompletedProcess:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"the command did not end in {timeout_s} s\n{out}\n{err}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def slow_problem(self, pause_s: float) -> str:
        """The name of a problem that rests before every simulation: for how long must not matter."""
        module, name = self.kind.source
        (self.folder / "slow.py").write_text(SLOW.format(pause_s=pause_s, module=module, name=name))
        return "./slow.py:Slow"

    @staticmethod
    def assert_one_line(result: subprocess.CompletedProcess, *expected: str) -> None:
        """It failed, and its one line holds what is expected."""
        assert result.stderr.startswith("penstock: ") and result.stderr.count("\n") == 1, result.stderr
        for text in expected:
            assert text in result.stderr

    @property
    def latest(self) -> Path:
        return (self.folder / "runs" / "latest").resolve()

    def read(self, name: str) -> dict:
        return json.loads((self.latest / name).read_text())

    def records(self) -> list[dict]:
        path = self.latest / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    def events(self) -> list[dict]:
        return [json.loads(line) for line in (self.latest / "events.jsonl").read_text().splitlines()]

    def delivered_ids(self) -> list[int]:
        return [i for start, end in self.read("ledger.json")["delivered"] for i in range(start, end)]

    def assert_every_simulation_once(self) -> None:
        ledger = self.read("ledger.json")
        leased = [i for ids in ledger["leased"].values() for i in ids]
        everything = self.delivered_ids() + [int(i) for i in ledger["failed"]] + leased + ledger["returned"]
        assert sorted(everything) == list(range(len(everything)))

    def wait_until(self, process: subprocess.Popen, condition, timeout_s: float = 200.0) -> dict:
        """The first record of the run for which `condition` holds."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (self.folder / "runs" / "latest").exists() and (records := self.records()) and condition(records[-1]):
                return records[-1]
            assert process.poll() is None, f"the run ended early\n{process.communicate()}"
            time.sleep(0.1)
        raise AssertionError(f"timed out; last record: {self.records()[-1:]}")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)
        if item.get_closest_marker("darcy") and item.config.getoption("--geometry") != "grid":
            item.add_marker(pytest.mark.skip(reason="of the Darcy problem alone"))


@pytest.fixture
def cli(tmp_path, request):
    yield from _cli(tmp_path, request)


@pytest.fixture(scope="module")
def shared_cli(tmp_path_factory, request):
    yield from _cli(tmp_path_factory.mktemp("run"), request)


def _cli(folder: Path, request):
    before = set(psutil.pids())
    yield Cli(folder, KINDS[request.config.getoption("--geometry")])
    for process in psutil.process_iter(["cwd"]):  # left by a test that failed; a run leaves none: see test_run.py
        if process.pid not in before and (process.info["cwd"] or "").startswith(str(folder)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
