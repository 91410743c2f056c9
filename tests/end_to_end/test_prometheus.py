"""A real run that Debian's Prometheus scrapes, with a token: the dashboard's data, and alerts on faults."""

import os
import signal
import time

import pytest

from tests.support.prometheus import free_port, prometheus, require_prometheus
from tests.support.waiting import wait_until

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.darcy
def test_every_panel_has_data_and_a_starved_learner_a_dead_worker_and_the_end_raise_alerts(cli, tmp_path):
    require_prometheus()
    (cli.folder / "token").write_text(TOKEN)
    (folder := tmp_path / "prometheus").mkdir()
    port, began = free_port(), time.time()
    process = cli.start(
        *("train", "tiny.yaml", f"problem.name={cli.slow_problem(0.05)}", "training.stop_after={steps: 100000}"),
        *("solver.strategy=auto", "buffer.watermark=16", "validation={simulations: 4, every_s: 1}"),
        *(f"metrics.port={port}", "metrics.token_file=token"),
    )
    scrape = {"authorization": {"credentials_file": str(cli.folder / "token")}}
    with prometheus(folder, f"http://127.0.0.1:{port}/metrics", **scrape) as server:  # which takes 5 s to begin
        cli.wait_until(process, lambda record: record["step"] > 0)
        missing = {"GPU memory"}  # of a learner on the CPU
        wait_until(lambda: server.panels_without_data(began, time.time()) <= missing, 100, every_s=0.5)
        wait_until(lambda: "PenstockLearnerStarved" in server.firing(), 100, every_s=0.3)
        os.kill(cli.read("run.json")["solver_pids"]["solver-0"], signal.SIGKILL)
        wait_until(lambda: "PenstockWorkersRestart" in server.firing(), 100, every_s=0.3)
        assert server.values("penstock_worker_restarts_total") == [1]
        process.send_signal(signal.SIGINT)
        result = cli.finish(process)
        wait_until(lambda: "PenstockRunGone" in server.firing(), 100, every_s=0.3)
    assert result.returncode == 130, result.stderr
    assert TOKEN not in result.stdout + result.stderr
    assert not [path for path in cli.latest.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
