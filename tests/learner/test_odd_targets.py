"""Zero, constant, offset and decaying targets leave what is learnt as it is, by NumPy on held-out samples."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.feed.feed import Feed
from penstock.learner.losses.losses import H1, MSE, SMALLEST_SHARE, RelativeL2, Sobolev, TotalLoss
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.ingest import Ingest
from penstock.learner.surrogate import Surrogate
from penstock.learner.trainer import Trainer
from penstock.learner.validation.course import ValidationCourse
from penstock.learner.validation.validation import Validation
from penstock.messages import Chunk
from tests.support.learners import NoStream

NUM_POINTS = 8
ONE, TWO = (
    Layout(
        (FieldSpec(name="a", on=Grid((NUM_POINTS,))),), tuple(FieldSpec(name=n, on=Grid((NUM_POINTS,))) for n in names)
    )
    for names in ("u", "up")
)
RELATIVE_LOSSES = [RelativeL2, H1, partial(Sobolev, order=-1)]


class Linear(nn.Module):
    """Any linear operator of the fields."""

    def __init__(self, layout):
        super().__init__()
        self.shape = layout.shapes["targets"]
        self.layer = nn.Linear(NUM_POINTS, self.shape[0] * NUM_POINTS)

    def forward(self, fields, scalars=None):
        return self.layer(fields[:, 0]).unflatten(1, self.shape)


def blurred(count, seed):
    """a -> its mean with the point to the left, of deviation 1."""
    a = np.random.default_rng(seed).normal(size=(count, 1, NUM_POINTS))
    return a, (a + np.roll(a, 1, axis=2)) / np.sqrt(2)


def trained(layout, arrays, held_out, *, loss=RelativeL2, draw=None, num_steps=1, steps=150):
    """A trainer that has trained on these samples, simulation by simulation, and knows the errors on others."""
    torch.manual_seed(0)
    draw = draw or Samples()
    simulations, numbers = np.divmod(np.arange(len(arrays["targets"])), num_steps)
    buffer = Buffer(layout, Reservoir(), capacity=len(simulations), watermark=64, seed=0, unit=draw)
    ingest = Ingest(NoStream(), buffer, layout)
    ingest.take(Chunk(arrays=arrays, simulations=simulations, steps=numbers, finished=tuple(set(simulations.tolist()))))
    batches = draw.layout(layout)
    surrogate = Surrogate(Linear(batches), Normalization.identity(batches), batches)
    rows, *_ = draw.all_rows(held_out, layout, *np.divmod(np.arange(len(held_out["targets"])), num_steps))
    trainer = Trainer(
        Optimization(surrogate, loss=TotalLoss(batches, loss), learning_rate=2e-2),
        Feed(buffer, "cpu", 16),
        ingest,
        Settings(batch_size=16, stop_after=StopAfter(steps=steps)),
        course=ValidationCourse(Validation(rows, batches)),
    )
    trainer.run(lambda: False)
    return trainer, rows


def predicted(trainer, rows):
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in rows.items()}
        return trainer.surrogate.eval().predict(tensors)["targets"].double().numpy()


def float32(**arrays):
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("loss", RELATIVE_LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-6])
def test_the_gradient_of_a_target_that_is_nearly_zero_is_bounded(loss, size):
    """The same error everywhere: a gradient is as the norm that the error is divided by, and that is bounded."""
    torch.manual_seed(0)
    x = (torch.arange(24) + 0.5) / 24
    target = np.sqrt(2) * torch.cos(np.pi * x)[None, None] * (0.5 + torch.rand(16, 1, 1))
    target[0] *= size
    prediction = (target + 0.1 * torch.cos(2 * np.pi * x)).requires_grad_()
    loss(Grid((24,)))(prediction, target).sum().backward()
    norms = prediction.grad.flatten(1).norm(dim=1)
    assert norms[0] <= 1.5 / SMALLEST_SHARE * norms[1:].max()


def test_zero_targets_among_others_leave_what_is_learnt_as_it_is():
    """3 % of draws with nothing in and nothing out: half of the batches have one."""
    errors = {}
    for share in (0.0, 0.03):
        (a, u), (held_a, held_u) = blurred(256, 1), blurred(128, 2)
        for fields, targets, seed in ((a, u, 3), (held_a, held_u, 4)):
            is_zero = np.random.default_rng(seed).random(len(fields)) < share
            fields[is_zero], targets[is_zero] = 0, 0
        trainer, rows = trained(ONE, float32(fields=a, targets=u), float32(fields=held_a, targets=held_u))
        vrmse = trainer.validation_errors["vrmse"]
        error = predicted(trainer, rows) - held_u
        assert vrmse == pytest.approx(np.sqrt(np.mean(error**2) / held_u.var()), rel=1e-3)
        errors[share] = vrmse, trainer.validation_errors["relative_l2"]["mean"]
    assert errors[0.0][0] < 0.15
    for with_zeros, without in zip(errors[0.03], errors[0.0], strict=True):
        assert with_zeros < 1.5 * without


@pytest.mark.parametrize(("value", "loss"), [(0.0, RelativeL2), (-101325.0, MSE), (1e9, RelativeL2)])
def test_a_constant_output_is_predicted_exactly_and_hides_no_other(value, loss):
    (a, u), (held_a, held_u) = blurred(256, 1), blurred(64, 2)
    with_constant = [np.concatenate([targets, np.full_like(targets, value)], axis=1) for targets in (u, held_u)]
    arrays, held_out = (float32(fields=f, targets=t) for f, t in zip((a, held_a), with_constant, strict=True))
    trainer, rows = trained(TWO, arrays, held_out, loss=loss)
    prediction, errors = predicted(trainer, rows), trainer.validation_errors
    assert (prediction[:, 1] == np.float32(value)).all()
    vrmse = np.sqrt(np.mean((prediction[:, 0] - held_u[:, 0]) ** 2) / held_u.var())
    assert errors["fields"].keys() == {"u"} and errors["constants"] == {"p": np.float32(value)}
    assert errors["vrmse"] == errors["fields"]["u"]["vrmse"] == pytest.approx(vrmse, rel=1e-3) and vrmse < 0.15
    assert errors["relative_l2"] == errors["fields"]["u"]["relative_l2"]  # the constant counts in no norm
    assert trainer.remarks == [
        f"output 'p' is {value:.7g} in all samples so far: predicted as that, and left out of loss and errors"
    ]


def test_what_varies_below_float32s_steps_is_called_so():
    (a, u), (held_a, held_u) = blurred(64, 1), blurred(16, 2)
    arrays, held_out = (
        float32(fields=f, targets=np.concatenate([t, 101325 + 0.01 * t], axis=1)) for f, t in ((a, u), (held_a, held_u))
    )
    trainer, _ = trained(TWO, arrays, held_out, steps=1)
    (remark,) = trainer.remarks
    assert remark.startswith("output 'p' varies by 0.0") and "about 101325, which float32 can't resolve" in remark
    assert remark.endswith("if that variation is more than noise, subtract the offset from it")


def test_outputs_of_which_none_varies_end_the_run_in_one_line():
    a, _ = blurred(64, 1)
    arrays = float32(fields=a, targets=np.full_like(a, 3.0))
    with pytest.raises(PenstockError, match="no output varies, so there is nothing to learn: output 'u' is 3 in all"):
        trained(ONE, arrays, arrays)


@pytest.mark.parametrize("value", [0.0, 7e5])
def test_a_constant_input_is_named_and_disturbs_nothing(value):
    layout = Layout((*ONE.inputs, FieldSpec(name="c")), ONE.outputs)
    (a, u), (held_a, held_u) = blurred(256, 1), blurred(64, 2)
    arrays, held_out = (
        float32(fields=f, targets=t, scalars=np.full((len(f), 1), value)) for f, t in ((a, u), (held_a, held_u))
    )
    trainer, _ = trained(layout, arrays, held_out)
    assert trainer.remarks == [f"input 'c' is {value:g} in all samples so far: its effect can't be learned"]
    assert trainer.validation_errors["vrmse"] < 0.15


def test_an_output_that_varies_in_the_validation_set_alone_is_measured_there():
    (a, u), (held_a, held_u) = blurred(64, 1), blurred(32, 2)
    arrays = float32(fields=a, targets=np.concatenate([u, np.full_like(u, 5.0)], axis=1))
    held_out = float32(fields=held_a, targets=np.concatenate([held_u, 5 + held_u], axis=1))
    trainer, _ = trained(TWO, arrays, held_out, steps=5)
    errors = trainer.validation_errors
    missed = held_u[:, 0]  # the prediction is 5 everywhere
    assert errors["constants"] == {} and errors["fields"]["p"]["vrmse"] == pytest.approx(
        np.sqrt(np.mean(missed**2) / missed.var()), rel=1e-4
    )


@pytest.mark.parametrize("offset", [300.0, 3e4, -3e5])
def test_an_offset_slows_nothing_and_hides_nothing(offset):
    """Of 3e5 deviations: the relative error is 3e-6 before anything is learnt, its gradient below AdamW's epsilon."""
    (a, u), (held_a, held_u) = blurred(256, 1), blurred(64, 2)
    trainer, rows = trained(ONE, float32(fields=a, targets=offset + u), float32(fields=held_a, targets=offset + held_u))
    error = predicted(trainer, rows) - rows["targets"].astype(np.float64)
    vrmse = trainer.validation_errors["vrmse"]
    assert vrmse == pytest.approx(np.sqrt(np.mean(error**2) / rows["targets"].astype(np.float64).var()), rel=0.02)
    assert vrmse < 0.2
    assert trainer.validation_errors["relative_l2"]["mean"] < 1e-2 / abs(offset) * 50


def test_every_step_of_a_decaying_trajectory_is_learnt():
    """Its last step is 1e-5 of its first: as one deviation for all, it would be predicted as noise."""
    num_steps = 6
    decay = 10.0 ** -np.arange(num_steps)
    (a, u), (held_a, held_u) = blurred(256, 1), blurred(64, 2)
    arrays, held_out = (
        float32(
            fields=np.repeat(f, num_steps, axis=0),
            targets=(t[:, None] * decay[:, None, None]).reshape(-1, 1, NUM_POINTS),
        )
        for f, t in ((a, u), (held_a, held_u))
    )
    trainer, rows = trained(ONE, arrays, held_out, draw=Trajectories(num_steps), num_steps=num_steps)
    error, truth = predicted(trainer, rows) - rows["targets"], rows["targets"].astype(np.float64)
    by_step = np.sqrt((error**2).mean(axis=(0, 2)) / truth.var(axis=(0, 2)))
    assert by_step.max() < 0.15
    fields = trainer.validation_errors["fields"]
    assert [fields[f"u_{step}"]["vrmse"] for step in range(num_steps)] == pytest.approx(by_step.tolist(), rel=1e-3)


def test_few_simulations_are_said():
    (a, u), (held_a, held_u) = blurred(64, 1), blurred(16, 2)
    arrays = float32(fields=a, targets=u)
    trainer, _ = trained(ONE, arrays, float32(fields=held_a, targets=held_u), num_steps=16, steps=1)
    assert trainer.remarks == [
        "means and deviations are of 4 simulations, all that came or that buffer.capacity 64 has room for: give at "
        "least 10 of them"
    ]


def test_a_blow_up_is_said():
    (a, u), (held_a, held_u) = blurred(160, 1), blurred(16, 2)
    arrays = float32(fields=a, targets=np.tile(30.0 ** np.arange(8), 20)[:, None, None] * u)
    trainer, _ = trained(ONE, arrays, float32(fields=held_a, targets=held_u), num_steps=8)
    (remark,) = trainer.remarks
    assert remark.startswith("output 'u' reaches ") and remark.endswith("take smaller steps in time")
