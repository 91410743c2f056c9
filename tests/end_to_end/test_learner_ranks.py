"""A run whose learner has two ranks, each with a worker."""

import os
import signal

import pytest

from penstock.learner.checkpoints import checkpoint


@pytest.mark.slow  # two starts of Ray, and four of a learner's process
@pytest.mark.timeout(480)  # on a machine with many times as much to do as it has cores
def test_two_ranks_train_one_surrogate_and_both_begin_again_where_one_is_killed(cli):
    process = cli.start(
        *("train", "tiny.yaml", f"problem.name={cli.slow_problem(0.02)}", "training.stop_after={simulations: 600}"),
        *("training.ranks=2", "solver.workers=2", "checkpoint.every_s=1", "buffer.batches_per_simulation=null"),
    )
    folder = cli.folder / "runs" / "latest" / "checkpoints"
    cli.wait_until(process, lambda record: folder.exists() and (checkpoint.latest(folder) or 0) > 0, 300)
    before = cli.read("run.json")
    assert len(before["learner_pids"]) == len(before["solver_pids"]) == 2
    os.kill(before["learner_pids"][1], signal.SIGKILL)
    cli.wait_until(process, lambda record: cli.read("run.json")["learner_pids"] != before["learner_pids"], 300)
    after = cli.read("run.json")
    assert not {*before["learner_pids"]} & {*after["learner_pids"]} and after["solver_pids"] == before["solver_pids"]
    result = cli.finish(process)
    assert result.returncode == 0, result.stderr
    died, restarted = ([e for e in cli.events() if e["event"] == f"learner {what}"] for what in ("died", "restarted"))
    assert [event["checkpoint"] for event in died] == [event["step"] for event in restarted] != [None]
    assert "rank 1 of 2" in died[0]["error"]
    assert "worker died" not in {event["event"] for event in cli.events()}
    assert cli.delivered_ids() == list(range(600)) and cli.read("summary.json")["unique"] == 600
    assert cli.read("summary.json")["validation"]["relative_l2"]["mean"] < 1.0
    names = {path.name for path in (folder / str(checkpoint.latest(folder))).iterdir()}
    assert {"buffer.safetensors", "buffer-1.safetensors", "optimizer-1.safetensors"} < names

    result = cli.run("resume", "training.ranks=1", "training.stop_after={simulations: 700}")
    cli.assert_one_line(result, "training.ranks can't change on resume: the checkpoint depends on it")
    result = cli.run("resume", "training.stop_after={simulations: 640}", timeout_s=300)
    assert result.returncode == 0, result.stderr
    assert cli.delivered_ids() == list(range(640))
    assert cli.run("export", timeout_s=300).returncode == 0
