"""Runs that are ended within the write of a checkpoint."""

import random
import signal
import time

import psutil

from penstock.learner.checkpoints import checkpoint

OFTEN = ("training.stop_after={steps: 100000}", "checkpoint.every_s=0.2")


def stop_within_a_write(cli, process, delay_s: float) -> tuple[psutil.Process, int]:
    """The learner, stopped (SIGSTOP) at least delay_s after a write began and before its end; the newest step."""
    folder = cli.latest / "checkpoints"
    cli.wait_until(process, lambda record: checkpoint.latest(folder))
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


def assert_resumes_from(cli, step: int) -> None:
    result = cli.run("resume", f"training.stop_after={{steps: {step + 5}}}")
    assert result.returncode == 0, result.stderr
    assert f"resumed at step {step}" in result.stdout and cli.read("summary.json")["step"] == step + 5


def test_a_learner_killed_within_a_write_goes_on_from_the_checkpoint_before(cli):
    process = cli.start("train", "tiny.yaml", *OFTEN, *cli.kind.large_model)
    learner, newest = stop_within_a_write(cli, process, random.Random(0).uniform(0.0, 0.03))
    learner.kill()
    result = cli.finish(process)
    assert result.returncode == 1
    cli.assert_one_line(result, "the learner's process died", "resume runs/tiny-")
    assert any((cli.latest / "checkpoints").glob(".writing-*"))
    assert_resumes_from(cli, newest)
    assert not any((cli.latest / "checkpoints").glob(".writing-*"))


def test_a_signal_within_a_write_ends_within_20_s_with_a_last_checkpoint(cli):
    process = cli.start("train", "tiny.yaml", *OFTEN, *cli.kind.large_model)
    learner, _ = stop_within_a_write(cli, process, 0.0)
    before = time.monotonic()
    process.send_signal(signal.SIGTERM)
    learner.resume()
    assert cli.finish(process, timeout_s=30).returncode == 143
    assert time.monotonic() - before < 20
    newest = checkpoint.latest(cli.latest / "checkpoints")
    assert newest == cli.read("summary.json")["step"]
    assert_resumes_from(cli, newest)


def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint_before_the_write_valid(cli):
    process = cli.start("train", "tiny.yaml", *OFTEN, *cli.kind.large_model)
    _, newest = stop_within_a_write(cli, process, 0.0)  # nor can the first signal alone end a stopped learner
    process.send_signal(signal.SIGINT)
    time.sleep(4.0)  # the driver handles a signal between two waits of a second: two within one would be taken as one
    process.send_signal(signal.SIGINT)
    assert cli.finish(process, timeout_s=10).returncode == 130
    assert_resumes_from(cli, newest)
