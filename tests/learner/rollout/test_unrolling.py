"""Inputs of a rollout in training: what is given, what stays true, and that a resumed run repeats them to the bit."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Windows
from penstock.learner.checkpoints import checkpoint
from penstock.learner.feed.feed import Feed
from penstock.learner.losses.losses import LOSSES, TotalLoss
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.rollout.unrolling import Unrolling
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.ingest import Ingest
from penstock.learner.surrogate import Surrogate
from penstock.learner.trainer import Trainer
from penstock.messages import Chunk
from tests.support.learners import NoStream

GRID = Grid((8,), periodic=True)
LAYOUT = Layout(
    (FieldSpec(name="force", on=GRID), FieldSpec(name="before", on=GRID), FieldSpec(name="time")),
    (FieldSpec(name="solution", on=GRID),),
    {"before": "solution"},
)
NUM_STEPS = 9


def drawn(num_rows, batch_size):
    """Rows that belong together: the true state, the force and the time of row r are 1000 r and more."""
    start = 1000.0 * torch.arange(num_rows).reshape(-1, 1, 1, 1) + torch.arange(batch_size).reshape(1, -1, 1, 1)
    field = start.expand(num_rows, batch_size, 1, 8)
    return {"fields": torch.cat([-field, field], dim=2), "scalars": start[..., 0], "targets": field + 1}


def plus_ten(arrays):
    return {"targets": arrays["fields"][:, 1:] + 10}


def test_pushforward_gives_what_was_predicted_and_leaves_the_rest_true():
    torch.manual_seed(0)
    unrolling, identity = Unrolling(LAYOUT, pushforward=3), Normalization.identity(LAYOUT)
    counts = np.zeros(4, int)
    for _ in range(400):
        arrays = drawn(4, 5)
        row = unrolling(plus_ten, identity, arrays)
        number = int(row["scalars"][0, 0]) // 1000
        counts[number] += 1
        for name in ("scalars", "targets"):
            assert torch.equal(row[name], arrays[name][number])
        assert torch.equal(row["fields"][:, 0], arrays["fields"][number][:, 0])  # the force
        assert torch.equal(row["fields"][:, 1], arrays["fields"][0][:, 1] + 10 * number)  # of the first true state
    np.testing.assert_allclose(counts, 100, atol=5 * np.sqrt(400 * 0.25 * 0.75))


def test_noise_has_the_asked_deviation_on_fed_inputs_alone():
    torch.manual_seed(0)
    std = {"fields": torch.tensor([2.0, 50.0]), "scalars": torch.ones(1), "targets": torch.ones(1)}
    normalization = Normalization({name: torch.zeros_like(value) for name, value in std.items()}, std)
    arrays = drawn(1, 4000)
    before = {name: array.clone() for name, array in arrays.items()}
    row = Unrolling(LAYOUT, noise=0.02)(plus_ten, normalization, arrays)
    noise = (row["fields"][:, 1] - before["fields"][0][:, 1]).double()
    assert abs(noise.mean()) < 5 / np.sqrt(noise.numel())
    np.testing.assert_allclose(noise.std(), 0.02 * 50, rtol=5 / np.sqrt(2 * noise.numel()))
    assert torch.equal(row["fields"][:, 0], before["fields"][0][:, 0])
    assert all(torch.equal(row[name], before[name][0]) for name in ("scalars", "targets"))
    assert all(torch.equal(arrays[name], before[name]) for name in arrays)  # the batch itself is as it was


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 0.8, 0.1]))

    def forward(self, fields, scalars):
        return self.weight[0] * fields[:, :1] + self.weight[1] * fields[:, 1:] + self.weight[2] * scalars[..., None]


def new_step(layout=LAYOUT, **options):
    surrogate = Surrogate(Linear(), Normalization.identity(layout), layout)
    micro = options.pop("micro_batch_size", None)
    unrolling = Unrolling(layout, **options)
    loss = TotalLoss(layout, LOSSES["mse"])
    return Optimization(surrogate, loss=loss, learning_rate=1e-2, unrolling=unrolling, micro_batch_size=micro)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_no_gradient_goes_through_what_was_pushed_forward(micro_batch_size):
    """The gradient of a step against that of the last application alone, its input taken as a constant."""
    random = torch.Generator().manual_seed(1)
    shapes = {"fields": (2, 8), "scalars": (1,), "targets": (1, 8)}
    arrays = {name: torch.randn(2, 6, *shape, generator=random) for name, shape in shapes.items()}
    parts = [slice(i, i + (micro_batch_size or 6)) for i in range(0, 6, micro_batch_size or 6)]
    seed = next(s for s in range(100) if pushes(s, len(parts)) == [1] * len(parts))
    step = new_step(pushforward=1, micro_batch_size=micro_batch_size)
    model = Linear()
    torch.manual_seed(seed)
    loss = step({name: array.flatten(0, 1) for name, array in arrays.items()}, 0.0)
    with torch.no_grad():
        first = model(arrays["fields"][0], arrays["scalars"][0])
    fields = torch.cat([arrays["fields"][1][:, :1], first], dim=1)
    expected = (model(fields, arrays["scalars"][1]) - arrays["targets"][1]).square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(step.surrogate.model.weight.grad, model.weight.grad)
    assert step.row_losses.shape == (6,)


def pushes(seed, num_parts):
    torch.manual_seed(seed)
    return [int(torch.randint(2, ())) for _ in range(num_parts)]


def simulations(num):
    """Frames u_{j+1} = 0.9 u_j + 0.1 f."""
    random = np.random.default_rng(0)
    force, frames = random.normal(size=(num, 8)), [random.normal(size=(num, 8))]
    for _ in range(NUM_STEPS):
        frames.append(0.9 * frames[-1] + 0.1 * force)
    states = np.stack(frames, axis=1)  # [num, frames, 8]
    arrays = {
        "fields": np.stack([np.broadcast_to(force[:, None], states[:, 1:].shape), states[:, :-1]], axis=2),
        "scalars": np.broadcast_to(np.arange(NUM_STEPS)[:, None], (num, NUM_STEPS, 1)),
        "targets": states[:, 1:, None],
    }
    ids, steps = np.divmod(np.arange(num * NUM_STEPS), NUM_STEPS)
    packed = {name: a.reshape(num * NUM_STEPS, *a.shape[2:]).astype(np.float32) for name, a in arrays.items()}
    return Chunk(arrays=packed, simulations=ids, steps=steps, finished=tuple(range(num)))


def new_trainer(seed=0, num=12, saver=None):
    torch.manual_seed(seed)
    unit = Windows(NUM_STEPS).fitted(LAYOUT).unrolled(3)
    buffer = Buffer(LAYOUT, Reservoir(), capacity=12 * NUM_STEPS, watermark=NUM_STEPS, seed=seed, unit=unit)
    ingest = Ingest(NoStream(), buffer, LAYOUT, None)
    if num:
        ingest.take(simulations(num))
    step = new_step(unit.layout(LAYOUT), pushforward=2, noise=0.05)
    settings = Settings(batch_size=4, stop_after=StopAfter(steps=30))
    trainer = Trainer(step, Feed(buffer, "cpu", 4, None, depth=0), ingest, settings)
    trainer.saver = saver and saver(trainer)
    return trainer


class SavesTo:
    is_writing = False

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, trainer):
        self.trainer = trainer
        return self

    def owes(self):
        return False

    def save(self, step, state_of):
        checkpoint.save(self.folder, step, **state_of(), keep=1)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = new_trainer()
    assert whole.run(lambda: False) == "steps"
    first = new_trainer(saver=SavesTo(tmp_path))
    first.run(lambda: first.step >= 11)
    second = new_trainer(seed=99, num=0)
    second.load_checkpoint(checkpoint.load(tmp_path))
    assert second.step == 11 and second.run(lambda: False) == "steps"
    assert whole.num_trained == second.num_trained == 30 * 4  # rows that are trained, not those that lead to them
    for name, tensor in whole.surrogate.state_dict().items():
        assert torch.equal(tensor, second.surrogate.state_dict()[name]), name


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: Unrolling(Layout(LAYOUT.inputs, LAYOUT.outputs), noise=0.1),
            "no input is an output of the step before",
        ),
        (lambda: Unrolling(Trajectories(4).layout(LAYOUT), noise=0.1), "no input is an output of the step before"),
        (lambda: Unrolling(LAYOUT, pushforward=-1), "must be at least 0"),
        (lambda: Unrolling(LAYOUT, noise=float("nan")), "must be at least 0"),
        (lambda: Samples().unrolled(2), "draw windows or pairs"),
    ],
)
def test_what_cannot_be_unrolled(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()
