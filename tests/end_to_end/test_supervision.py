"""Runs whose terminal closes, and whose workers fall silent, grow, or die again and again."""

import fcntl
import os
import subprocess
import sys
import termios


def test_a_run_outlives_its_terminal(cli):
    """Nobody reads the terminal, whose buffer is full after a second; then it is closed, and the run goes on."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "penstock", "train", "tiny.yaml"]
    process = subprocess.Popen(
        [*command, f"problem.name={cli.slow_darcy(0.02)}", "training.stop_after={steps: 200}"],
        cwd=cli.folder,
        env=cli.environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # the terminal's end is the session's
    )
    os.close(slave)
    cli.wait_until(process, lambda record: record["step"] >= 20)
    os.close(master)  # the kernel sends SIGHUP to the whole group, Ray's processes among them
    assert process.wait(timeout=300) == 0
    assert cli.read("run.json")["state"] == "ended" and cli.read("summary.json")["step"] == 200
    assert "terminal closed" in [event["event"] for event in cli.events()]
