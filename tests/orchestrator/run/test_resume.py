"""What a run refuses before it goes on, with the folder left as it was."""

import json
import os
import subprocess
import sys

import pytest

from penstock.errors import PenstockError
from penstock.machine import identity_of
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.run.driver import resume
from penstock.orchestrator.store.run_folder import RunFolder


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A function that makes the folder of a run that has ended, from what is laid over its configuration."""
    monkeypatch.chdir(tmp_path)

    def make(**sections) -> RunFolder:
        values = {
            "problem": {"name": "darcy", "resolution": 16},
            "solver": {"strategy": "direct", "sort": False, "workers": 1},
            "buffer": {"batches_per_simulation": 0.5},
            "model": {"name": "fno", "width": 8, "modes": 4},
            "training": {"device": "cpu", "stop_after": {"steps": 10, "simulations": 200}},
        }
        folder = RunFolder.create(Config.model_validate(values | sections))
        folder.update_run(state="ended")
        folder.write("summary.json", {"step": 10})
        return folder

    return make


def refusal(folder: RunFolder, *overrides: str) -> str:
    """Told in one line, before anything of the run is changed."""

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}

    before = files()
    with pytest.raises(PenstockError) as caught:
        resume(folder, overrides, on_folder=lambda folder: pytest.fail("it went on"))
    assert "\n" not in str(caught.value) and files() == before
    return str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "problem.resolution=32",
        "model.width=16",
        "buffer.kind=fifo",
        "buffer.capacity=500",
        "buffer.draw=trajectories",
        "training.ema_decay=0.9",
        "validation.simulations=7",
    ],
)
def test_what_a_checkpoint_depends_on_can_not_change(stopped, override):
    key = override.split("=")[0]
    key = key.split(".")[0] if key.startswith(("problem", "model")) else key
    steps = {"problem": {"name": "heat", "resolution": 16}} if key == "buffer.draw" else {}
    assert refusal(stopped(**steps), override).startswith(f"{key} can't change on resume: the checkpoint depends on it")


@pytest.mark.parametrize(
    "override",
    [
        "solver.workers=2",
        "solver.window=32",
        "solver.strategy=gcrodr",
        "solver.accuracy=1e-6",
        "solver.sort=true",
        "training.stop_after.simulations=300",
    ],
)
def test_nor_can_what_the_blocks_of_a_deterministic_run_depend_on(stopped, override):
    text = refusal(stopped(deterministic=True), override)
    assert text.startswith(f"{override.split('=')[0]} can't change on resume") and "deterministic=false" in text


def test_determinism_can_not_begin_half_way(stopped):
    assert refusal(stopped(), "deterministic=true").startswith("deterministic can't be turned on on resume")


@pytest.mark.parametrize(
    "strategy, says",
    [("{name: krylov, pc: jakobi}", "jakobi"), ("{name: cg, nothing: 1}", "nothing"), ("{name: unheard}", "unheard")],
)
def test_a_strategy_that_can_not_be_made_is_refused_before_the_run(stopped, strategy, says):
    text = refusal(stopped(), f"solver.strategy={strategy}")
    assert text.startswith("solver.strategy") and says in text


def test_a_checkpoint_that_can_not_be_read_is_told_at_once(stopped):
    folder = stopped()
    meta = folder.checkpoints / "10" / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"format": 1, "crc32": 0, "contents": {}}))
    assert "has format 1, this penstock reads 2: use the version that wrote it" in refusal(folder)
    meta.unlink()
    assert "is damaged: meta.json is missing" in refusal(folder)


def test_a_run_that_goes_on_is_not_resumed(stopped):
    folder = stopped()
    folder.update_run(state="running", driver_pid=os.getpid(), driver_identity=identity_of(os.getpid()))
    assert "is running: stop it first" in refusal(folder)


HOLDER = """
import sys
from pathlib import Path
from penstock.orchestrator.store.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).hold():
    print(flush=True)
    sys.stdin.read()
"""


def test_a_run_of_another_host_or_process_namespace_is_not_resumed(stopped):
    """Its pid says nothing here; its lock does, until its process dies."""
    folder = stopped()
    folder.update_run(state="running", driver_pid=2**22 + 1, driver_identity="none")
    command = [sys.executable, "-c", HOLDER, folder.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        driver.stdout.readline()
        assert folder.is_running()
        assert "is running: stop it first" in refusal(folder)
        driver.kill()
    assert not folder.is_running()
