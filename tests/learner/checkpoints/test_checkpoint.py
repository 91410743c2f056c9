"""Checkpoints are whole or absent, and a damaged one says so in one line."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import POLICIES
from penstock.learner.checkpoints import checkpoint, staging
from penstock.learner.checkpoints.rows import Rows
from penstock.learner.checkpoints.tensors import DTYPE_NAMES
from penstock.learner.checkpoints.writer import Writer


def parts(step, error=None, size=50):
    return {
        "weights": {"layer.weight": torch.full((size, 4), float(step)), "layer.bias": torch.arange(4.0)},
        "optimizer": {"exp_avg.layer.weight": torch.full((size, 4), step + 0.5), "count": step},
        "buffer": {"samples": torch.full((size, 3), float(step)), "random": {"state": {"inc": 2**100}}},
        "meta": {"step": step, "validation": None if error is None else {"relative_l2": {"mean": error}}},
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


@pytest.mark.parametrize("put_back", [staging.recover, staging.grant])
def test_a_step_that_was_saved_before_is_replaced(tmp_path, put_back):
    """Samples may have come since, without a step: as in a long warm-up."""
    path = checkpoint.save(tmp_path, 0, **parts(1), keep=1)
    assert checkpoint.save(tmp_path, 0, **parts(2), keep=1) == path
    assert checkpoint.load(tmp_path).weights["layer.weight"][0, 0] == 2
    granted = staging.grant(tmp_path)
    path.rename(granted / "replaced-0")  # a writer between its two renames: who only reads leaves that alone
    assert checkpoint.latest(tmp_path) is None and checkpoint.best(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == [granted.name]
    put_back(tmp_path)  # it was killed there
    assert checkpoint.load(tmp_path).weights["layer.weight"][0, 0] == 2
    assert not granted.exists() or not list(granted.iterdir())


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
    granted = staging.grant(tmp_path)
    meta = MetaThatDamages(damage, granted / "2" / name)
    with pytest.raises(PenstockError, match=f"can't write the checkpoint of step 2 .*: {name} .*still valid"):
        checkpoint.save(tmp_path, 2, **parts(2) | {"meta": meta}, keep=1, staging=granted)
    assert {path.name for path in tmp_path.iterdir()} == {"1", granted.name} and not list(granted.iterdir())
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
    with pytest.raises(PenstockError, match=r"its meta\.json is that of step 1"):
        checkpoint.load(tmp_path)


def test_alien_files_under_the_right_names_are_damage(tmp_path):
    for folder in ("a", "b"):
        checkpoint.save(tmp_path / folder, 1, **parts(1 if folder == "a" else 2), keep=1)
    (tmp_path / "a" / "1" / "weights.safetensors").write_bytes((tmp_path / "b/1/weights.safetensors").read_bytes())
    with pytest.raises(PenstockError, match=r"weights\.safetensors was changed"):
        checkpoint.load(tmp_path / "a")
    of_today = f'{{"format": {checkpoint.FORMAT}'
    for text in ("[]", f"{of_today}}}", "{", '"text"', f'{of_today}, "crc32": 0, "contents": 3}}', "null"):
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
    for other in (1, 99):
        (path / "meta.json").write_text(json.dumps({**meta, "format": other}))
        with pytest.raises(PenstockError, match=f"has format {other}, this penstock reads .*: use the version that wr"):
            checkpoint.load(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, **parts(1), keep=1)
    loaded = checkpoint.load(tmp_path)
    module = nn.ModuleDict({"layer": nn.Linear(4, 50, bias=False)})
    with pytest.raises(PenstockError, match=r"layer\.bias was \(4,\) when it was saved and is absent in this model"):
        loaded.load_into(module)
    with pytest.raises(PenstockError, match=r"layer\.bias was \(4,\) when it was saved and is \(9,\) in this model"):
        loaded.load_into(nn.ModuleDict({"layer": nn.Linear(4, 9)}))


KILLER = """
import os, random, signal, sys, threading, time
import numpy as np, torch
from torch import nn
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.writer import Writer
from penstock.learner.buffers.buffer import Buffer
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.policies import Reservoir
from penstock.layout import FieldSpec, Layout
torch.set_num_threads(1)  # a fork of a process with a thread pool may hang
random.seed(0)
folder, num_kills = sys.argv[1], 50
layout = Layout(inputs=(FieldSpec(name="a", on=Grid((16, 16))),), outputs=(FieldSpec(name="u", on=Grid((16, 16))),))

def new_buffer():
    return Buffer(layout, Reservoir(), capacity=256, watermark=8, seed=0)

def put(buffer, value, count):
    arrays = {name: np.full((count, *shape), value, np.float32) for name, shape in layout.shapes.items()}
    buffer.put_now(arrays, np.full(count, int(value)), np.arange(count))

def train_for_ever(step):
    \"\"\"Every step is saved; its number is in the weights, in rows of the buffer and in meta.\"\"\"
    model, buffer, writer, ingest = nn.Linear(64, 64), new_buffer(), Writer(), threading.Lock()
    if step:
        buffer.load_state(checkpoint.load(folder).buffer)

    def produce():
        while True:
            with ingest:
                put(buffer, step + 0.5, 4)
            time.sleep(1e-3)

    threading.Thread(target=produce, daemon=True).start()
    while True:
        ingest.acquire()
        buffer.draw(8, 0.0)  # these may be replaced
        step += 1
        put(buffer, float(step), 4)
        began = time.monotonic()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
        writer.save(
            folder, step, weights=model.state_dict(), optimizer={"o": model.weight, "step": step},
            buffer=buffer.state(), meta={"step": step, "validation": {"relative_l2": {"mean": 1 / step}}}, keep=2,
            release=ingest.release,
        )
        buffer.draw(8, 0.0)
        if step % 2:  # else the next save waits
            writer.wait()
            os.write(1, b"%d %f\\n" % (step, time.monotonic() - began))

step = 0
for _ in range(num_kills):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write_end, 1)
        train_for_ever(step)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        announced = pipe.readline()
        time.sleep(random.uniform(0.0, 2.0) * float(announced.split()[1]))  # in units of the time that a save takes
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for announced in pipe:
            pass
    step = checkpoint.latest(folder)
    assert step >= int(announced.split()[0]), (step, announced)
    loaded = checkpoint.load(folder)
    assert loaded.meta["step"] == loaded.optimizer["step"] == step
    assert all((tensor == step).all() for tensor in (*loaded.weights.values(), loaded.optimizer["o"]))
    new_buffer().load_state(loaded.buffer)
    fields = loaded.buffer["arrays.fields"].flatten(1)
    assert (fields == fields[:, :1]).all() and (fields[:, 0].long() == loaded.buffer["simulations"]).all()
    assert fields.max() == step, (fields.max(), step)  # and nothing that came after
    checkpoint.best(folder)
print(step)
"""


@pytest.mark.slow  # 50 kills
def test_a_writer_killed_at_any_moment_leaves_a_valid_newest_checkpoint(tmp_path):
    """Forks train and save as fast as they can and are killed at 50 random moments; each resumes from the newest.

    What is then the newest must be whole and of one step: weights, optimizer, buffer and meta.
    """
    command = [sys.executable, "-c", KILLER, tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 50


def test_a_file_size_limit_is_one_line_and_leaves_the_last_checkpoint_valid(tmp_path):
    """RLIMIT_FSIZE makes writes fail with EFBIG as a full disk makes them fail with ENOSPC."""
    program = """
import resource, signal, sys, torch
from penstock.errors import PenstockError
from penstock.learner.checkpoints import checkpoint
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
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=200)
    assert result.stdout.startswith("1 can't write the checkpoint of step 2"), result.stdout + result.stderr
    assert "File too large" in result.stdout and len(result.stdout.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert checkpoint.load(tmp_path).step == 1


def test_files_are_what_the_safetensors_library_reads(tmp_path):
    """Of every dtype, of no and of zero size, strided, by rows, and with blocks that end within and between rows."""
    generator = torch.Generator().manual_seed(0)
    plain = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPE_NAMES} | {
        "random": torch.randn(1_300_000, generator=generator),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "transposed": torch.randn(3, 700, generator=generator).T,
        "parameter": nn.Parameter(torch.randn(3, generator=generator)),
    }
    short, long = torch.randn(3000, 1001, generator=generator), torch.randn(4, 1_400_000, generator=generator)
    index = torch.randperm(3000, generator=generator)[:2500]
    rows = {
        "all rows": (Rows(short), short),
        "short rows": (Rows(short, index), short[index]),
        "long rows": (Rows(long, torch.tensor([2, 0])), long[[2, 0]]),
        "bfloat16 rows": (Rows(short.bfloat16(), index), short.bfloat16()[index]),
        "no rows": (Rows(short, index[:0]), short[:0]),
        "rows of nothing": (Rows(short[:, :0], index), short[index, :0]),
    }
    for given, expected in rows.values():
        assert (given.shape, given.dtype, given.nbytes) == (expected.shape, expected.dtype, expected.nbytes)
    buffer = {name: given for name, (given, _) in rows.items()}
    path = checkpoint.save(tmp_path, 1, weights={}, optimizer=plain, buffer=buffer, meta={}, keep=1)
    for part, tensors in {"optimizer": plain, "buffer": {name: copy for name, (_, copy) in rows.items()}}.items():
        read = safetensors.torch.load((path / f"{part}.safetensors").read_bytes())
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name
    assert safetensors.torch.load((path / "weights.safetensors").read_bytes()) == {}


def test_a_dtype_that_safetensors_lacks_is_named(tmp_path):
    weights = {"layer.weight": torch.zeros(3, dtype=torch.complex128)}
    with pytest.raises(PenstockError, match=r"layer\.weight is complex128, which safetensors can't hold"):
        checkpoint.save(tmp_path, 1, weights=weights, optimizer={}, buffer=None, meta={}, keep=1)


def test_neither_writing_nor_reading_holds_the_buffer_twice(tmp_path):
    """Peak memory beyond a buffer of 256 MB: of a save by slots and in whole, and what loading it allocates."""
    program = """
import sys, psutil, torch
from pathlib import Path
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.writer import Writer
from benchmarks.learner.allocator import peak_mb
from penstock.learner.checkpoints.rows import Rows
torch.set_num_threads(1)
samples = torch.ones(16384, 4096)
for step, index in ((1, None), (2, torch.arange(16384 - 1, 0, -1))):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, writer = peak_mb(), Writer()
    writer.save(
        sys.argv[1], step, weights={}, optimizer={}, meta={}, keep=1,
        buffer={"samples": Rows(samples, index)},
    )
    writer.wait()
    print(peak_mb() - before)
memory = psutil.Process().memory_info()
loaded = checkpoint.load(sys.argv[1]).buffer["samples"]
assert loaded.sum() == loaded.numel() == 16383 * 4096
after = psutil.Process().memory_info()
print((after.rss - after.shared - memory.rss + memory.shared) / 2**20)  # memory that no file stands behind
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert all(float(megabytes) < 30 for megabytes in result.stdout.split()), result.stdout


def test_a_writer_saves_what_was_there_when_it_was_called(tmp_path):
    writer, released = Writer(), []
    for step in (1, 2):
        state = parts(step, size=200_000)
        state["buffer"]["samples"] = Rows(state["buffer"]["samples"])
        writer.save(tmp_path, step, **state, keep=2, release=lambda step=step: released.append(step))
        for part in ("weights", "optimizer"):
            for tensor in filter(torch.is_tensor, state[part].values()):
                tensor.fill_(-1.0)
        state["buffer"]["random"]["state"]["inc"] = state["meta"]["step"] = state["meta"]["validation"] = -1
    writer.wait()
    loaded, expected = checkpoint.load(tmp_path), parts(2, size=200_000)
    assert released == [1, 2] and loaded.meta == expected["meta"]
    for part in ("weights", "optimizer", "buffer"):
        for name, value in expected[part].items():
            saved = getattr(loaded, part)[name]
            assert torch.equal(saved, value) if isinstance(value, torch.Tensor) else saved == value
    assert checkpoint.load(tmp_path, 1, weights_only=True).weights["layer.weight"].unique() == 1


def test_what_a_writer_could_not_write_is_raised_by_the_next_call_and_ingestion_goes_on(tmp_path):
    folder, writer, released = tmp_path / "checkpoints", Writer(), []
    folder.write_text("not a folder")
    writer.save(folder, 1, **parts(1), keep=1, release=lambda: released.append(1))
    with pytest.raises(PenstockError, match=r"can't write the checkpoint of step 1 in .*still valid"):
        writer.save(folder, 2, **parts(2), keep=1, release=lambda: released.append(2))
    writer.save(folder, 3, **parts(3), keep=1, release=lambda: released.append(3))
    with pytest.raises(PenstockError, match="can't write the checkpoint of step 3"):
        writer.wait()
    writer.wait()
    assert released == [1, 2, 3]
    folder.unlink()
    writer.save(folder, 4, **parts(4), keep=1)
    writer.wait()
    assert checkpoint.latest(folder) == 4


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", POLICIES)
def test_draws_while_the_buffer_is_written_leave_it_as_it_was(tmp_path, kind, device):
    """The file holds the population at the moment of the save, each row with its own numbers, and none of later."""
    layout = Layout(inputs=(FieldSpec(name="a", on=Grid((32, 32))),), outputs=(FieldSpec(name="u", on=Grid((32, 32))),))
    buffer = Buffer(layout, POLICIES[kind](), capacity=6000, watermark=16, seed=0, device=device)
    writer, ingest, done = Writer(), threading.Lock(), threading.Event()

    def rows_of(simulations):
        """Every value of a row tells its simulation and its place."""
        places = np.arange(1024, dtype=np.float32).reshape(1, 32, 32) / 1024
        return {name: np.float32(simulations[:, None, None, None] + places) for name in layout.shapes}

    def put(first, count):
        simulations = np.arange(first, first + count)
        buffer.put_now(rows_of(simulations), simulations, np.zeros(count, np.int64))

    def produce():
        first = 10_000
        while not done.is_set():
            with ingest:
                put(first, 50)
            first += 50

    put(0, 5500)
    for _ in range(5):
        buffer.draw(50, 0.0)
    state = buffer.state()
    expected = state["simulations"].clone()
    drawn = [buffer.num_drawn]
    ingest.acquire()
    producer = threading.Thread(target=produce)
    producer.start()

    def release():
        drawn.append(buffer.num_drawn)
        ingest.release()

    writer.save(tmp_path, 1, weights={}, optimizer={}, buffer=state, meta={}, keep=1, release=release)
    while ingest.locked() and len(drawn) == 1:
        buffer.draw(16, 0.0)
    for _ in range(50):
        buffer.draw(16, 0.0)
    done.set()
    producer.join()
    writer.wait()
    assert drawn[1] > drawn[0]
    saved = checkpoint.load(tmp_path).buffer
    simulations = saved["simulations"].numpy()
    assert len(simulations) == (5500 if kind == "reservoir" else 5250) and simulations.max() < 5500
    np.testing.assert_array_equal(simulations, expected)
    for name, array in rows_of(simulations).items():
        np.testing.assert_array_equal(saved[f"arrays.{name}"].numpy().reshape(array.shape), array)
    assert saved["num_drawn"] == drawn[0]
