"""A learner that was taken for dead, and lives, writes nothing into the run of its successor."""

import os
import subprocess
import sys

import pytest

from penstock.errors import PenstockError
from penstock.learner.checkpoints import staging
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore

STOPPER = """
import os, random, signal, sys, time
from pathlib import Path

import torch

from penstock.errors import PenstockError
from penstock.learner.checkpoints import checkpoint, staging

torch.set_num_threads(1)  # a fork of a process with a thread pool may hang
folder, num_stops = Path(sys.argv[1]), 20

def save(step, granted):
    part = {"step": torch.full((20_000,), float(step))}
    error = {"relative_l2": {"mean": 1 / (1 + step)}}
    checkpoint.save(
        folder, step, weights=part, optimizer=part, buffer=part, meta={"validation": error}, keep=2, staging=granted
    )

def save_for_ever(step, granted):
    try:
        while True:
            began = time.monotonic()
            save(step, granted)
            os.write(1, b"%f\\n" % (time.monotonic() - began))
            step += random.random() < 0.7  # else it is replaced
    except PenstockError as error:
        os.write(1, str(error).encode())
    os._exit(0)

def contents():
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

granted, ended = staging.grant(folder), set()
for number in range(num_stops):
    random.seed(number)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write_end, 1)
        save_for_ever(1 + (checkpoint.latest(folder) or 0), granted)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        seconds = float(pipe.readline())
        time.sleep(random.uniform(0.0, 2.0) * seconds)  # in units of the time that a save takes
        os.kill(child, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        granted = staging.grant(folder)
        newest = checkpoint.load(folder)
        assert all((part["step"] == newest.step).all() for part in (newest.weights, newest.optimizer, newest.buffer))
        save(newest.step + number % 2, granted)
        before = contents()
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)
        last = pipe.read().splitlines()[-1]
    assert last.startswith(f"another learner has taken over {folder}"), last
    assert contents() == before
    assert checkpoint.load(folder).step == newest.step + number % 2
staging.revoke(folder)
assert all(path.name.isdecimal() for path in folder.iterdir())
print(num_stops)
"""


@pytest.mark.slow  # 20 stops
def test_a_writer_that_is_stopped_past_its_replacement_writes_nothing(tmp_path):
    """It is stopped at 20 random instants of its saves; what its successor has then written stays to the byte."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STOPPER, tmp_path / "checkpoints"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert result.returncode == 0 and result.stdout == "20\n", result.stderr


def test_the_validation_set_is_its_successors_too(tmp_path):
    folder = RunFolder(tmp_path)
    store = RunStore(folder, staging.grant(folder.checkpoints))
    staging.grant(folder.checkpoints)
    with pytest.raises(PenstockError, match="another learner has taken over"):
        store.write_validation(None, None)
    assert not folder.validation.exists()
