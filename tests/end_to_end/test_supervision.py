"""Runs whose terminal closes, and whose workers fall silent, grow, or die again and again."""

import fcntl
import itertools
import os
import resource
import subprocess
import sys
import termios
from contextlib import suppress

import psutil
import pytest

from penstock.solvers.parameters.space import ParameterSpace, Uniform, generator_of

pytestmark = pytest.mark.timeout(480)  # on a machine with ten times as much to do as it has cores


def test_a_run_outlives_its_terminal_and_a_full_disk_for_the_driver_is_one_line(cli):
    """Nobody reads the terminal, whose buffer is full after a second; then it is closed, and the run goes on.

    A view without a reader (`penstock train ... | head -1`) is in tests/orchestrator/views/terminal/test_output.py.
    """
    master, slave = os.openpty()
    command = [sys.executable, "-m", "penstock", "train", "tiny.yaml"]
    process = subprocess.Popen(
        [*command, f"problem.name={cli.slow_problem(0.02)}", "training.stop_after={steps: 100000}"],
        cwd=cli.folder,
        env=cli.environment,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # the terminal's end is the session's
    )
    os.close(slave)
    step = cli.wait_until(process, lambda record: record["step"] >= 20, 300)["step"]
    os.close(master)  # the kernel sends SIGHUP to the whole group, Ray's processes among them
    cli.wait_until(process, lambda _: "terminal closed" in [event["event"] for event in cli.events()])
    cli.wait_until(process, lambda record: record["step"] >= step + 20)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    result = cli.finish(process)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]  # Ray's native log may have complained before
    assert line.startswith("penstock: can't write ") and "the last checkpoint is still valid" in line


MISFITS = """
import os, time

import numpy as np

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem


class Misfits(Problem):
    '''Draws below `hang` never return, below `crash` end their process, below `stop` raise, from `grow` keep 400 MB.'''

    def __init__(self, *, hang: float = 0.0, crash: float = 0.0, stop: float = 0.0, grow: float = 1.0):
        self.hang, self.crash, self.stop, self.grow, self.kept = hang, crash, stop, grow, []
        self.space = ParameterSpace(x=Uniform(0.0, 1.0))
        self.inputs = (FieldSpec(name="x"), FieldSpec(name="a", on=Grid((16,))))
        self.outputs = (FieldSpec(name="u", on=Grid((16,))),)

    def simulate(self, parameters, solve):
        x = parameters["x"]
        time.sleep(0.02)
        while x < self.hang:
            pass
        if x < self.crash:
            os.abort()
        if x < self.stop:
            raise KeyboardInterrupt("mesh_\\udcff.msh")
        if x >= self.grow:
            self.kept.append(np.ones(50_000_000))
        yield Sample(inputs={"x": x, "a": np.full(16, x)}, outputs={"u": np.full(16, x * x)})
"""
SPACE = ParameterSpace(x=Uniform(0.0, 1.0))


def start(cli, *arguments):
    (cli.folder / "misfits.py").write_text(MISFITS)
    small = ("validation.simulations=8", "solver.strategy=direct", "buffer.batches_per_simulation=null")
    return cli.start("train", "tiny.yaml", "problem={name: ./misfits.py:Misfits}", *small, *arguments)


@pytest.mark.darcy
def test_simulations_that_hang_crash_or_raise_fail_alone_and_workers_that_stop_or_grow_are_replaced(cli):
    x = {i: SPACE.draw(generator_of(0, "training", i))["x"] for i in range(300)}
    order = sorted(x, key=x.get)
    between = [(x[a] + x[b]) / 2 for a, b in itertools.pairwise(order)]
    # 1, 1, 5 and 1 of the draws
    limits = {"hang": between[0], "crash": between[1], "stop": between[6], "grow": between[-1]}
    process = start(
        *(
            cli,
            "solver.workers=2",
            "solver.timeout_s=6",
            "solver.memory_mb=250",
            "training.stop_after={simulations: 300}",
        ),
        *(f"problem.{key}={limit!r}" for key, limit in limits.items()),
    )
    stopped = {}

    def one_is_stopped(record):
        for name, pid in cli.read("run.json").get("solver_pids", {}).items() if record["delivered"] >= 20 else ():
            with suppress(psutil.NoSuchProcess):
                solver = psutil.Process(pid)
                if solver.status() != psutil.STATUS_ZOMBIE:
                    solver.suspend()  # SIGSTOP
                    stopped[name] = pid
                    return True
        return False

    cli.wait_until(process, one_is_stopped, 300)
    ((name, pid),) = stopped.items()
    result = cli.finish(process, timeout_s=300)
    assert result.returncode == 0, result.stderr
    failed = {int(i): reason for i, reason in cli.read("ledger.json")["failed"].items()}
    assert sorted(failed) == sorted(order[:7])
    assert failed[order[0]] == "took longer than 6 s (solver.timeout_s), 2 times"
    assert failed[order[1]] == "its worker died, 3 times"
    assert all(failed[i].startswith(r"KeyboardInterrupt: mesh_\udcff.msh (") for i in order[2:7])
    assert "293 simulations delivered, 7 failed" in result.stdout
    (event,) = (event for event in cli.events() if event["event"] == "simulation failed")  # 7 lines would be too many
    assert failed[event["simulation"]] == event["reason"] and f"failed: {event['reason']}; ledger" in result.stdout
    most_frequent, *others = cli.read("summary.json")["failed_reasons"]
    example = min(order[2:7])
    assert most_frequent == {"count": 5, "simulation": example, "reason": failed[example]}
    assert len(others) == 2
    assert f"7 of 300 simulations failed, 5 of them like simulation {example}: KeyboardInterrupt: " in result.stdout
    assert f"in simulation {order[0]}" in result.stdout and f"died in simulation {order[1]}: " in result.stdout
    assert "worker outgrown" in {event["event"] for event in cli.events()} and "(solver.memory_mb)" in result.stdout
    silent = [event for event in cli.events() if event["event"] == "worker silent"]
    assert {order[0]} <= {event["simulation"] for event in silent}
    assert name in {event["worker"] for event in silent}
    assert any(silence["worker"] == name for record in cli.records() for silence in record["silent"])
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.darcy
def test_a_solver_that_always_crashes_ends_the_run_with_the_cause(cli):
    result = cli.finish(start(cli, "problem.crash=1.0", "training.stop_after={steps: 60}"), timeout_s=300)
    assert result.returncode == 3
    cli.assert_one_line(result, "solver workers die again and again", "in simulation ", "solver-4.log")
    assert "the next starts in 8 s" in result.stdout


@pytest.mark.darcy
def test_a_run_in_which_nothing_is_solved_any_more_ends_by_its_minutes_with_what_it_has(cli):
    process = start(cli, "problem.hang=1.0", "training.stop_after={minutes: 0.1}")
    result = cli.finish(process, timeout_s=300)
    assert result.returncode == 1
    cli.assert_one_line(result, "training.stop_after.minutes: for 0.1 minutes nothing was solved", "resume runs/tiny-")
