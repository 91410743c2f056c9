"""A run on a program that leaves daemons behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

SPEC = """
parameters: {k: {law: uniform, low: 1.0, high: 2.0}}
inputs: {k: {}}
outputs: {u: {geometry: line}}
geometries: {line: {kind: grid, shape: [8]}}
"""
# Each of the first three simulations of a program leaves a process in a session of its own.
PROGRAM = """
import mmap, os, struct, time
reading, writing, memory = map(int, os.environ["PENSTOCK_DESCRIPTORS"].split())
mapped, lines = mmap.mmap(memory, 0), os.fdopen(reading)
def say(line):
    os.write(writing, line.encode() + b"\\n")
while next(lines) != "begin\\n":
    pass
say("penstock 1")
for count, line in enumerate(lines):
    number = line.split()[1]
    if count < 3 and not os.fork():
        os.setsid()
        with open("PIDS", "a") as pids:
            print(os.getpid(), file=pids, flush=True)
        time.sleep(10_000)
    k, = struct.unpack("d", mapped[:8])
    mapped[64:128] = struct.pack("8d", *(k * i for i in range(8)))
    say(f"sample {number} 0 0.0")
    next(lines)
    say(f"done {number}")
"""


@pytest.mark.darcy  # it is the same whatever else is solved
@pytest.mark.slow  # two starts of Ray
@pytest.mark.timeout(480)
def test_a_program_leaves_no_daemon_behind_a_run(cli):
    """After Ctrl-C, and after an end in order: Ray kills the children of its workers then."""
    (cli.folder / "spec.yaml").write_text(SPEC)
    (cli.folder / "program.py").write_text(PROGRAM.replace("PIDS", str(cli.folder / "pids")))
    command = f"{sys.executable} -I -S ./program.py"
    cli.config.write_text(
        cli.config.read_text()
        .replace(cli.kind.problem, f"{{name: external, command: {command!r}, spec: spec.yaml}}")
        .replace(cli.kind.model, "{name: mlp, hidden: [8]}")
    )
    (cli.folder / "pids").touch()

    def daemons() -> list[int]:
        return [int(pid) for pid in (cli.folder / "pids").read_text().split()]

    def are_gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in daemons())

    process = cli.start("train", "tiny.yaml", "training.stop_after={steps: 100000}")
    cli.wait_until(process, lambda record: record["step"] >= 10)
    assert len(daemons()) == 3 and not are_gone()
    process.send_signal(signal.SIGINT)
    result = cli.finish(process)
    assert result.returncode == 130, result.stderr
    assert "solver.strategy = 'gcrodr' has no effect: the program solves its own systems" in result.stdout
    wait_until(are_gone)

    steps = cli.read("summary.json")["step"] + 20
    result = cli.run("resume", f"training.stop_after={{steps: {steps}}}")
    assert result.returncode == 0, result.stderr
    assert len(daemons()) == 6
    wait_until(are_gone)

    (cli.folder / "spec.yaml").write_text(SPEC.replace("[8]", "[9]"))
    os.remove(cli.folder / "program.py")
    result = cli.run("train", "tiny.yaml", "problem.command=./program.py")
    assert result.returncode == 2
    cli.assert_one_line(result, f"problem.command: {cli.folder}/program.py: no such file: build it")
