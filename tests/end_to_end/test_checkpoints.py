"""Runs that are ended within the write of a checkpoint."""

import random
import signal
import time

import psutil
import pytest

from penstock.learner.checkpoints import checkpoint

OFTEN = ("training.stop_after={steps: 100000}", "checkpoint.every_s=0.2")


def stop_within_a_write(cli, process, delay_s: float) -> tuple[psutil.Process, int]:
    """The learner, stopped (SIGSTOP) at least delay_s after a write began and before its end; the newest step.

    Called as soon as the process was started.
    """
    folder = cli.latest / "checkpoints"
    began = time.time()  # no record of an earlier process is newer; what psutil says of a start may be a second off
    cli.wait_until(process, lambda record: record["time"] > began and record["step"] and checkpoint.latest(folder))
    learner = psutil.Process(cli.read("run.json")["learner_pid"])
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        if any(folder.glob(".writing-*/*")):
            time.sleep(delay_s)
            learner.suspend()
            if any(folder.glob(".writing-*/*")):
                return learner, checkpoint.latest(folder)
            learner.resume()
        time.sleep(0.001)
    raise AssertionError("no write was met")


@pytest.mark.slow  # four starts of Ray
@pytest.mark.timeout(480)  # on a machine with seven times as much to do as it has cores it takes 240 s
def test_a_run_that_is_ended_within_writes_goes_on_from_the_newest_whole_checkpoint(cli):
    process = cli.start("train", "tiny.yaml", *OFTEN, *cli.kind.large_model)
    folder = cli.latest / "checkpoints"

    # The learner is killed, and the driver before it can start another one.
    learner, newest = stop_within_a_write(cli, process, random.Random(0).uniform(0.0, 0.03))
    process.kill()
    learner.kill()
    process.communicate()
    assert any(folder.glob(".writing-*"))

    # A signal ends it within 20 s with a last checkpoint.
    process = cli.start("resume")
    learner, _ = stop_within_a_write(cli, process, 0.0)
    before = time.monotonic()
    process.send_signal(signal.SIGTERM)
    learner.resume()
    result = cli.finish(process, timeout_s=30)
    assert result.returncode == 143 and f"resumed at step {newest}" in result.stdout
    assert time.monotonic() - before < 20
    newest = checkpoint.latest(folder)
    assert newest == cli.read("summary.json")["step"]

    # A second signal ends it at once. The first alone can't end a stopped learner.
    process = cli.start("resume")
    _, whole = stop_within_a_write(cli, process, 0.0)
    process.send_signal(signal.SIGINT)
    time.sleep(4.0)  # the driver handles a signal between two waits of a second: two within one would be taken as one
    process.send_signal(signal.SIGINT)
    result = cli.finish(process, timeout_s=10)
    assert result.returncode == 130 and f"resumed at step {newest}" in result.stdout

    result = cli.run("resume", f"training.stop_after={{steps: {whole + 5}}}")
    assert result.returncode == 0, result.stderr
    assert f"resumed at step {whole}" in result.stdout and cli.read("summary.json")["step"] == whole + 5
    assert not any(folder.glob(".writing-*"))
