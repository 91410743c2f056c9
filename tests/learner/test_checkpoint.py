"""Checkpoints are whole or absent, and a damaged one says so in one line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.learner import checkpoint


def parts(step, error=None, size=50):
    return {
        "weights": {"layer.weight": torch.full((size, 4), float(step)), "layer.bias": torch.arange(4.0)},
        "optimizer": {"exp_avg.layer.weight": torch.full((size, 4), step + 0.5), "count": step},
        "buffer": {"samples": torch.full((size, 3), float(step)), "random": {"state": {"inc": 2**100}}},
        "meta": {"step": step, "validation": None if error is None else {"mean": error}},
    }


def test_round_trip(tmp_path):
    path = checkpoint.save(tmp_path / "a" / "b", 7, **parts(7), keep=2)
    assert path == tmp_path / "a" / "b" / "7"
    loaded = checkpoint.load(tmp_path / "a" / "b")
    expected = parts(7)
    assert (loaded.step, loaded.path, loaded.meta) == (7, path, expected["meta"])
    for part in ("weights", "optimizer", "buffer"):
        contents = getattr(loaded, part)
        assert contents.keys() == expected[part].keys()
        for name, value in expected[part].items():
            assert torch.equal(contents[name], value) if isinstance(value, torch.Tensor) else contents[name] == value
    assert sorted(file.suffix for file in path.iterdir()) == [".json"] + [".safetensors"] * 3


def test_the_newest_k_and_the_best_stay_and_only_the_newest_can_be_resumed(tmp_path):
    for step, error in ((1, 0.5), (2, 0.1), (3, 0.3), (4, None), (5, 0.2)):
        checkpoint.save(tmp_path, step, **parts(step, error), keep=2)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [2, 4, 5]
    assert checkpoint.latest(tmp_path) == 5 and checkpoint.best(tmp_path) == 2
    assert sorted(file.name for file in (tmp_path / "2").iterdir()) == ["meta.json", "weights.safetensors"]
    best = checkpoint.load(tmp_path, 2, weights_only=True)
    assert best.optimizer is None and best.buffer is None and best.weights["layer.weight"][0, 0] == 2
    with pytest.raises(PenstockError, match="holds weights alone: export and predict work, resuming does not"):
        checkpoint.load(tmp_path, 2)


def test_as_many_stay_as_are_to_be_kept(tmp_path):
    for step in range(1, 12):
        checkpoint.save(tmp_path, step, **parts(step), keep=5)
        assert len(list(tmp_path.iterdir())) == min(step, 5)


def test_a_step_that_was_saved_before_is_replaced(tmp_path):
    """Samples may have come since, without a step: as in a long warm-up."""
    path = checkpoint.save(tmp_path, 0, **parts(1), keep=1)
    assert checkpoint.save(tmp_path, 0, **parts(2), keep=1) == path
    assert checkpoint.load(tmp_path).weights["layer.weight"][0, 0] == 2
    path.rename(tmp_path / ".replaced-0")  # a writer killed between its two renames
    assert checkpoint.load(tmp_path).weights["layer.weight"][0, 0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_leftovers_are_removed(tmp_path):
    checkpoint.save(tmp_path, 1, **parts(1), keep=1)
    (tmp_path / ".writing-2").mkdir()
    (tmp_path / ".writing-2" / "weights.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) == 1
    checkpoint.save(tmp_path, 3, **parts(3), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path):
    contents = bytearray(path.read_bytes())
    contents[-3] ^= 1
    path.write_bytes(contents)


def replace_by_text(path):
    path.write_bytes(b"x" * path.stat().st_size)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [os.remove, truncate, flip_a_bit, replace_by_text, empty])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "buffer.safetensors", "meta.json"])
def test_a_damaged_file_is_named_in_one_line(tmp_path, name, damage):
    checkpoint.save(tmp_path, 1, **parts(1), keep=2)
    checkpoint.save(tmp_path, 2, **parts(2), keep=2)
    damage(tmp_path / "2" / name)
    with pytest.raises(PenstockError) as raised:
        checkpoint.load(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"the checkpoint {tmp_path / '2'} is damaged: {name}") and "\n" not in message
    assert message.endswith(f"can't be resumed from. Older ones in {tmp_path} hold weights for export and predict")
    shutil.rmtree(tmp_path / "2")
    with pytest.raises(PenstockError, match="holds weights alone: export and predict work, resuming does not"):
        checkpoint.load(tmp_path)
    assert checkpoint.load(tmp_path, weights_only=True).step == 1


class MetaThatDamages(Mapping):
    """Read by `save` once the tensors are on the disk: it then does to a file of theirs what a bad disk does."""

    def __init__(self, damage, file):
        self.damage, self.file = damage, file

    def __getitem__(self, key):
        raise KeyError(key)

    def __iter__(self):
        self.damage(self.file)
        return iter(())

    def __len__(self):
        return 0


@pytest.mark.parametrize("damage", [os.remove, truncate, flip_a_bit])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "buffer.safetensors"])
def test_the_last_checkpoint_can_be_resumed_from_until_the_new_one_is_read_back(tmp_path, name, damage):
    checkpoint.save(tmp_path, 1, **parts(1, 0.5), keep=1)
    meta = MetaThatDamages(damage, tmp_path / ".writing-2" / name)
    with pytest.raises(PenstockError, match=f"can't write the checkpoint of step 2 .*: {name} .*still valid"):
        checkpoint.save(tmp_path, 2, **parts(2) | {"meta": meta}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert checkpoint.load(tmp_path).buffer["samples"][0, 0] == 1
    checkpoint.save(tmp_path, 3, **parts(3), keep=1)
    assert checkpoint.load(tmp_path).step == 3


@pytest.mark.parametrize("damage", [os.remove, truncate, flip_a_bit, replace_by_text, empty])
@pytest.mark.parametrize("name", ["weights.safetensors", "meta.json"])
def test_the_best_is_found_among_those_that_are_whole(tmp_path, name, damage):
    for step, error in ((1, 0.5), (2, 0.3), (3, 0.1)):
        checkpoint.save(tmp_path, step, **parts(step, error), keep=3)
    shutil.copytree(tmp_path / "3", tmp_path / ".writing-4")
    damage(tmp_path / "3" / name)
    assert checkpoint.best(tmp_path) == 2 and checkpoint.latest(tmp_path) == 3
    for step in (1, 2):
        damage(tmp_path / str(step) / name)
    with pytest.raises(PenstockError, match=f"is damaged: {name}"):
        checkpoint.best(tmp_path)
    checkpoint.save(tmp_path, 5, **parts(5, 0.9), keep=1)  # and the run goes on
    assert checkpoint.best(tmp_path) == 5 and [path.name for path in tmp_path.iterdir()] == ["5"]


def test_a_copy_under_another_step_is_damage(tmp_path):
    path = checkpoint.save(tmp_path, 1, **parts(1, 0.5), keep=1)
    shutil.copytree(path, tmp_path / "2")
    assert checkpoint.best(tmp_path) == 1
    with pytest.raises(PenstockError, match=r"its meta\.json is of step 1"):
        checkpoint.load(tmp_path)


def test_alien_files_under_the_right_names_are_damage(tmp_path):
    for folder in ("a", "b"):
        checkpoint.save(tmp_path / folder, 1, **parts(1 if folder == "a" else 2), keep=1)
    (tmp_path / "a" / "1" / "weights.safetensors").write_bytes((tmp_path / "b/1/weights.safetensors").read_bytes())
    with pytest.raises(PenstockError, match=r"weights\.safetensors was changed"):
        checkpoint.load(tmp_path / "a")
    for text in ("[]", '{"format": 1}', "{", '"text"', '{"format": 1, "crc32": 0, "contents": 3}', "null"):
        (tmp_path / "b" / "1" / "meta.json").write_text(text)
        with pytest.raises(PenstockError, match=r"meta\.json"):
            checkpoint.load(tmp_path / "b")


def test_another_format_an_empty_folder_and_a_missing_step_are_named(tmp_path):
    with pytest.raises(PenstockError, match="there is no checkpoint in"):
        checkpoint.load(tmp_path / "nowhere")
    assert checkpoint.latest(tmp_path / "nowhere") is None and checkpoint.best(tmp_path) is None
    path = checkpoint.save(tmp_path, 1, **parts(1), keep=1)
    with pytest.raises(PenstockError, match="no checkpoint of step 5"):
        checkpoint.load(tmp_path, 5)
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(PenstockError, match="has format 99"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, **parts(1), keep=1)
    loaded = checkpoint.load(tmp_path)
    module = nn.ModuleDict({"layer": nn.Linear(4, 50, bias=False)})
    with pytest.raises(PenstockError, match=r"layer\.bias is \(4,\) there and absent here"):
        loaded.load_into(module)
    with pytest.raises(PenstockError, match=r"layer\.bias is \(4,\) there and \(9,\) here"):
        loaded.load_into(nn.ModuleDict({"layer": nn.Linear(4, 9)}))


KILLER = """
import os, random, signal, sys, time, torch
from penstock.learner import checkpoint
torch.set_num_threads(1)  # a fork of a process with a thread pool may hang
random.seed(0)
folder, size, step = sys.argv[1], 200_000, 0

def write_for_ever(step):
    while True:
        step += 1
        values = torch.full((size,), float(step))
        checkpoint.save(
            folder, step, weights={"w": values}, optimizer={"o": values}, buffer={"b": values},
            meta={"validation": {"mean": 1 / step}}, keep=2,
        )
        os.write(1, b"%d " % step)

for _ in range(25):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write_end, 1)
        write_for_ever(step)
    os.close(write_end)
    time.sleep(random.uniform(0.02, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as pipe:
        announced = max(map(int, pipe.read().split()), default=step)
    step = checkpoint.latest(folder) or 0
    assert step >= announced, (step, announced)
    if step:
        loaded = checkpoint.load(folder)
        for contents in (loaded.weights, loaded.optimizer, loaded.buffer):
            assert all((tensor == step).all() for tensor in contents.values())
        checkpoint.best(folder)
print(step)
"""


def test_a_writer_killed_at_any_moment_leaves_a_valid_newest_checkpoint(tmp_path):
    """Forks write as fast as they can and are killed at random moments; each begins where the last one got to."""
    command = [sys.executable, "-c", KILLER, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10


def test_a_file_size_limit_is_one_line_and_leaves_the_last_checkpoint_valid(tmp_path):
    """RLIMIT_FSIZE makes writes fail with EFBIG as a full disk makes them fail with ENOSPC."""
    program = """
import resource, signal, sys, torch
from penstock.errors import PenstockError
from penstock.learner import checkpoint
def parts(n):
    return dict(weights={"w": torch.zeros(n)}, optimizer={"o": torch.zeros(4)}, buffer=None, meta={}, keep=2)
checkpoint.save(sys.argv[1], 1, **parts(10))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(sys.argv[1], 2, **parts(100_000))
except PenstockError as error:
    print(error.exit_code, error)
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("1 can't write the checkpoint of step 2"), result.stdout + result.stderr
    assert "File too large" in result.stdout and len(result.stdout.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert checkpoint.load(tmp_path).step == 1
