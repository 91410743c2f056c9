"""A run whose simulations are distributed over MPI ranks, and ranks that die."""

import os
import signal
import time

import psutil
import pytest

pytestmark = [
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two ranks need two cores"),
    pytest.mark.darcy,  # a mesh is distributed by the same code, and what does not depend on it is tested here
]


@pytest.mark.slow  # three workers of two ranks, which wait for each other at full speed
@pytest.mark.timeout(480)  # on a loaded machine
def test_a_killed_rank_is_replaced_and_a_killed_worker_leaves_no_rank(cli):
    """All simulations end delivered, each once, although first a rank is killed, and then the worker's process."""
    process = cli.start(
        "train",
        "tiny.yaml",
        f"problem.name={cli.slow_problem(0.02)}",
        "training.stop_after={simulations: 200}",
        "solver.ranks=2",
        "solver.strategy=direct",
    )

    def ranks_of(pid: int) -> list[psutil.Process]:
        return [child for child in psutil.Process(pid).children(recursive=True) if child.name().startswith("python")]

    def deaths() -> list[dict]:
        return [event for event in cli.events() if event["event"] == "worker died"]

    def solver_pid() -> int | None:
        return next(iter(cli.read("run.json").get("solver_pids", {}).values()), None)

    cli.wait_until(process, lambda record: record["delivered"] >= 40)
    first_pid = solver_pid()
    ranks_of(first_pid)[-1].kill()
    deadline = time.monotonic() + 60  # within 5 s on a quiet machine: tests/orchestrator/actors/test_ranks.py
    while not deaths():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    delivered = cli.records()[-1]["delivered"]
    cli.wait_until(process, lambda record: record["delivered"] >= delivered + 40)
    assert solver_pid() not in (None, first_pid)
    ranks = ranks_of(solver_pid())
    assert len(ranks) == 2
    os.kill(solver_pid(), signal.SIGKILL)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive

    result = cli.finish(process)
    assert result.returncode == 0, result.stderr
    assert "1 solver worker of 2 MPI ranks" in result.stdout
    assert "200 simulations delivered, 0 failed" in result.stdout
    assert cli.read("ledger.json")["delivered"] == [[0, 200]]
    assert "one of its 2 MPI ranks died" in deaths()[0]["error"] and len(deaths()) == 2
    assert "Traceback" not in (cli.latest / "logs" / "solver-0.log").read_text()
    left = [each for each in psutil.process_iter(["cwd"]) if (each.info["cwd"] or "").startswith(str(cli.folder))]
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive
