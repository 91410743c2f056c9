"""Each model of the zoo trains, averages, validates, saves and restores right, or is refused before anything is solved.

`live` does what a run does with a model, beside torch's own AdamW, a tensor at a time, and NumPy's averages. It must
fail for exactly the models that `rehearse` refuses.
"""

import re
from functools import partial

import numpy as np
import pytest
import torch

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.weights import load_weights, weights_of
from penstock.learner.losses.losses import MSE, TotalLoss
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.optimizers.adamw import WEIGHT_DECAY
from penstock.learner.rehearsal.rehearsal import rehearse, try_export, try_out
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation
from tests.learner.models import zoo

GRID = zoo.GRID
LAYOUT = Layout(
    (FieldSpec(name="a", on=Grid(GRID)), FieldSpec(name="s")),
    (FieldSpec(name="u", on=Grid(GRID)), FieldSpec(name="p", on=Grid(GRID))),
)
RATE, DECAY = 1e-2, 0.9
SIZES = (6, 6, 1, 6, 6)  # of the batches

# fmt: off
LIVING = [
    "Plain", "ComplexWeights", "DoubleComplexWeights", "ComplexBuffer", "DoubleComplexBuffer", "Double",
    "MixedPrecisions", "BatchNormed", "Dropped", "NewBuffer", "LateBuffer", "SavedRandomFeatures", "Masked",
    "IntegerParameter", "Tied", "TiedWeights", "Frozen", "Lazy", "Thawing", "WeightNormed", "Parametrized",
    "SpectralNormed", "KeepsActivations", "WithMetadata", "InnerMetadata", "ExtraState", "Versioned", "ChannelsLast",
    "Scripted", "ZeroDimensional", "ZeroInitialised", "SparseGradients", "SparseBuffer", "Hooked", "SharedModule",
    "ChangesInputs", "KeepsArrays",
]
# fmt: on
NOTED = {
    "Unused": "no gradient reaches never.weight, never.bias",
    "Detached": "no gradient reaches a.weight, a.bias, b.weight, b.bias",
    "ThroughNumpy": "what it predicts for a sample depends on the others in the batch",
    "AcrossTheBatch": "what it predicts for a sample depends on the others in the batch",
    "AlwaysRandom": r"in eval\(\) it predicts something else each time",
    "OwnGenerator": "a resumed training differs from an .* random numbers come from torch's own generator",
}
FILE = r"\(\S+zoo.py, line \d+\)"
REFUSED = {
    "ForgottenBuffer": r"restored from a checkpoint it predicts something else .*\(it may be scale\)",
    "PlainAttribute": r"restored from a checkpoint it predicts something else .*\(it may be scale\)",
    "RandomFeatures": r"restored from a checkpoint it predicts something else .*\(it may be features\)",
    "KeepsHiddenState": r"a training step on 6 samples fails: .* in the gradient of \S+zoo.py, line \d+$",
    "UnsaveableExtraState": r"get_extra_state \(_extra_state\) gives a object, which a checkpoint can't hold",
    "SavedSparseBuffer": r"laplacian is sparse, .* give register_buffer\(..., persistent=False\)",
    "HookOnItself": "a copy of it changes while it is trained",
    "ChangesActivationInPlace": r"a training step on 6 samples fails: .* in the gradient of \S+zoo.py, line \d+$",
    "Squeezed": r"Squeezed gives \[2, 8, 8\] for one sample and must give \[1, 2, 8, 8\]",
    "FixedBatch": rf"one sample can't pass through it: .* {FILE}",
    "NotFinite": "its loss on random samples is nan before any training",
    "NotFiniteGradient": r"its gradient on random samples is not finite, in the gradient of \S+zoo.py, line \d+:",
    "WhollyDetached": "a training step on 6 samples fails: .* does not require grad",
    "NothingToTrain": "NothingToTrain has no parameter that requires a gradient",
    "NoParameters": "NoParameters has no parameter that requires a gradient",
    "NewParameter": "makes a new parameter b.weight, which is never trained",
    "ReturnsTuple": r"returns a tuple and must return one tensor, \[2, 2, 8, 8\]",
    "ReturnsDict": r"returns a dict of \['u'\] and must return one tensor",
    "ReturnsArray": "returns a ndarray and must return one tensor",
    "ReturnsComplex": "returns complex64 and must return real numbers",
    "ReturnsIntegers": "returns int64 and must return real numbers",
    "WrongShape": r"gives \[2, 1, 8, 8\] for two samples and must give \[2, 2, 8, 8\]",
    "WrongDtypeInside": rf"two samples can't pass through it: .* {FILE}",
    "Exits": rf"two samples can't pass through it: SystemExit: no licence {FILE}",
    "NormOfOne": rf"a training step on one sample fails: .* {FILE}",
    "CannotBeCopied": r"it can't be copied \(TypeError: cannot pickle 'generator' object\)",
    "OwnStateDict": "its checkpoint can't be restored: .* model.c.weight was not saved",
}
NAMES = [*LIVING, *NOTED, *REFUSED]


def new_surrogate(name, seed):
    torch.manual_seed(seed)
    surrogate = Surrogate(getattr(zoo, name)(LAYOUT), Normalization.identity(LAYOUT), LAYOUT)
    if name == "Lazy":
        try_out(surrogate, name)
    return surrogate


def new_step(surrogate):
    return Optimization(surrogate, loss=TotalLoss(LAYOUT, MSE), learning_rate=RATE, ema_decay=DECAY)


def samples(size):
    generator = torch.Generator().manual_seed(size)
    fields, scalars = torch.randn(size, 1, *GRID, generator=generator), torch.randn(size, 1, generator=generator)
    return {
        "fields": fields,
        "scalars": scalars,
        "targets": torch.cat([fields.roll(1, 2), scalars[:, :, None, None] * fields], 1),
    }


def predictions(surrogate):
    """Of six samples together and, seeded alike, of each alone."""
    modes = [module.training for module in surrogate.modules()]
    with torch.no_grad():
        surrogate.eval()
        outputs = [surrogate.model_output(samples(size))["targets"] for size in (6, 1)]
        torch.manual_seed(5)
        values = [surrogate.predict(samples(size))["targets"] for size in (6, 1)]
    for module, mode in zip(surrogate.modules(), modes, strict=True):
        module.training = mode
    assert [tuple(output.shape) for output in outputs] == [(6, 2, *GRID), (1, 2, *GRID)]
    assert all(output.is_floating_point() and output.isfinite().all() for output in outputs)
    return values


def plain_training(surrogate):
    """Losses, final parameters and their averages, by torch's AdamW for one tensor and NumPy."""
    optimizer = torch.optim.AdamW(surrogate.parameters(), RATE, weight_decay=WEIGHT_DECAY, foreach=False, fused=False)
    losses, averages = [], {name: p.detach().numpy().copy() for name, p in surrogate.named_parameters()}
    for number, size in enumerate(SIZES):
        torch.manual_seed(number)
        optimizer.zero_grad()
        loss = (surrogate.predict(samples(size))["targets"] - samples(size)["targets"]).square().mean()
        loss.backward()
        for parameter in surrogate.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        optimizer.step()
        losses.append(loss.item())
        decay = min(DECAY, (1 + number) / (10 + number))
        for name, parameter in surrogate.named_parameters():
            if parameter.requires_grad or parameter.grad is not None:
                averages[name] = decay * averages[name] + (1 - decay) * parameter.detach().numpy()
    return losses, {name: p.detach().clone() for name, p in surrogate.named_parameters()}, averages


def live(name, folder):
    """Raises unless everything that a run does with the model comes out right."""
    losses, parameters, averages = plain_training(new_surrogate(name, 0))
    surrogate = new_surrogate(name, 0)
    first = {key: parameter.detach().clone() for key, parameter in surrogate.named_parameters()}
    step = new_step(surrogate)
    validation = Validation({key: array.numpy() for key, array in samples(6).items()}, LAYOUT, batch_size=6)
    validation.errors(step.averaged)
    for number, size in enumerate(SIZES):
        torch.manual_seed(number)
        assert step(samples(size), RATE).item() == pytest.approx(losses[number], rel=1e-4)
    for key, parameter in surrogate.named_parameters():
        torch.testing.assert_close(parameter.detach(), parameters[key], rtol=1e-3, atol=1e-5)
        assert parameter.grad is None or not parameter.grad.any() or not torch.equal(parameter, first[key]), key
    for key, parameter in step.averaged.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), averages[key], rtol=1e-3, atol=1e-5, err_msg=key)
    for key, buffer in step.averaged.named_buffers():
        torch.testing.assert_close(buffer, dict(surrogate.named_buffers())[key])
    assert step.is_finite() and max(losses[3:]) < losses[0]

    expected = predictions(step.averaged)
    targets = samples(6)["targets"].flatten(1)
    relative_l2 = ((expected[0].flatten(1) - targets).norm(dim=1) / targets.norm(dim=1)).mean()
    torch.manual_seed(5)
    assert validation.errors(step.averaged).relative_l2.mean == pytest.approx(relative_l2.item(), rel=1e-4)

    weights, state = weights_of(step.averaged), step.state()
    checkpoint.save(folder, 1, weights=weights, optimizer=state, buffer=None, meta={}, keep=1)
    alone, resumed = new_surrogate(name, 7), new_step(new_surrogate(name, 8))
    saved = checkpoint.load(folder)
    load_weights(alone, saved.weights)  # as export and predict do
    load_weights(resumed.averaged, saved.weights)
    resumed.load_state(saved.optimizer)
    for restored in (alone, resumed.averaged):
        assert all(map(torch.equal, predictions(restored), expected))
    for number in range(2):
        results = []
        for each in (step, resumed):
            torch.manual_seed(number)
            results.append([each(samples(6), RATE), *predictions(each.surrogate), *predictions(each.averaged)])
        assert name == "OwnGenerator" or all(map(torch.equal, *results))


def rehearsed(name, folder):
    def build():
        surrogate = Surrogate(getattr(zoo, name)(LAYOUT), Normalization.identity(LAYOUT), LAYOUT)
        try_out(surrogate, name)
        return surrogate

    return rehearse(
        build, new_step, partial(Validation, layout=LAYOUT), batch_sizes=(6, 1), folder=folder, must_repeat=False
    )


def test_every_model_of_the_zoo_is_tried():
    models = {name for name, value in vars(zoo).items() if isinstance(value, type) and value.__module__ == zoo.__name__}
    assert models == set(NAMES) and len(NAMES) > 60


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_model_lives_or_is_refused_in_one_line(name, tmp_path):
    before = torch.get_rng_state()
    if name in REFUSED:
        with pytest.raises(PenstockError, match=f"^model: .*{REFUSED[name]}") as refusal:
            rehearsed(name, tmp_path)
        assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
    else:
        notes = rehearsed(name, tmp_path)
        assert len(notes) == (name in NOTED)
        assert not notes or re.search(f"^model: {NOTED[name]}", notes[0]), notes
    assert torch.equal(torch.get_rng_state(), before) and list(tmp_path.iterdir()) == []
    if name in REFUSED:
        with pytest.raises(BaseException):  # noqa: B017  torch's, or an assertion of `live`
            live(name, tmp_path)
    else:
        live(name, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_what_is_exported_is_the_model_and_what_cannot_be_is_said():
    """`export` compares the file with the model at other batches and resolutions."""
    for name in ("ComplexWeights", "WeightNormed", "KeepsActivations"):
        step = new_step(new_surrogate(name, 0))
        step(samples(6), RATE)
        assert try_export(step.averaged) is None
    note = try_export(new_surrogate("ThroughNumpy", 0))
    assert note.startswith("penstock export won't work, while training and penstock predict do: ThroughNumpy can't be")
    assert "\n" not in note
