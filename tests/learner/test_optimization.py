"""A step against torch's plain AdamW and NumPy; continued from a saved state it is the same bit for bit."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.losses.losses import MSE, OwnLoss, TotalLoss
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization, RunningMoments
from penstock.learner.optimization import Optimization
from penstock.learner.optimizers.muon import Muon
from penstock.learner.surrogate import Surrogate

LAYOUT = Layout((FieldSpec(name="a", on=Grid((12, 12))),), (FieldSpec(name="u", on=Grid((12, 12))),))
ALL_OPTIONS = {"micro_batch_size": 3, "clip_norm": 0.05, "ema_decay": 0.9}
RATES = [1e-3 * 0.9**n for n in range(12)]


def relative_l2(prediction, target, typical=1.0):
    return (prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)


LOSS = TotalLoss(LAYOUT, lambda _: relative_l2)


def batches(count, size=8):
    """a -> 3 + 2 a shifted by two cells, for smooth a."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        fields = F.interpolate(torch.randn(size, 1, 4, 4, generator=generator), (12, 12), mode="bicubic")
        yield {"fields": fields, "targets": 3 + 2 * fields.roll(1, 2)}


def new_step(seed=0, **options):
    torch.manual_seed(seed)
    moments = RunningMoments()
    moments.update({name: array.numpy() for name, array in next(batches(1, 64)).items()})
    surrogate = Surrogate(FNO(LAYOUT, width=6, modes=4, layers=2), Normalization.from_moments(moments, LAYOUT), LAYOUT)
    return Optimization(surrogate, **{"loss": LOSS, "learning_rate": 1e-3, **options})


def weights(surrogate):
    return {name: parameter.detach().clone() for name, parameter in surrogate.named_parameters()}


def plain_steps(surrogate, rates, *, clip_norm=None):
    """The same training, spelled out. Yields the loss before every step."""
    optimizer = torch.optim.AdamW(surrogate.parameters(), weight_decay=1e-4, foreach=False, fused=False)
    std = surrogate.normalization.targets_std[0]
    for batch, rate in zip(batches(len(rates)), rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = relative_l2(surrogate.predict(batch)["targets"] / std, batch["targets"] / std).mean()
        loss.backward()
        if clip_norm is not None:
            gradients = [parameter.grad for parameter in surrogate.parameters()]
            norm = np.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))
            for gradient in gradients:
                gradient *= min(1.0, clip_norm / norm)
        optimizer.step()
        yield loss.item()


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"micro_batch_size": 3}, {"micro_batch_size": 20}])
def test_steps_are_those_of_plain_adamw(options):
    step = new_step(**options)
    reference = copy.deepcopy(step.surrogate)
    expected_losses = list(plain_steps(reference, RATES, clip_norm=options.get("clip_norm")))
    losses = [step(batch, rate).item() for batch, rate in zip(batches(len(RATES)), RATES, strict=True)]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for (name, result), expected in zip(step.surrogate.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5, msg=name)


class ComplexGains(nn.Module):
    """Im(conj(w) a), summed over two points, everywhere."""

    def __init__(self, dtype):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[1 + 2j, -0.5j]], dtype=dtype))

    def forward(self, fields):
        return (self.w.conj() * fields[:, :, 0, :2]).imag.float().sum(dim=2)[:, :, None, None] + 0 * fields


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_parameters_follow_adamw_written_out_in_numpy(dtype):
    """The mean output's gradient is constant: d/dRe(w) Im(conj(w) a) = 0 and d/dIm(w) = -a."""
    step = Optimization(
        Surrogate(ComplexGains(dtype), Normalization.identity(LAYOUT), LAYOUT),
        loss=TotalLoss(LAYOUT, lambda _: lambda prediction, target, typical: prediction.mean(dim=(1, 2, 3))),
        learning_rate=1e-2,
        ema_decay=0.5,
        clip_norm=0.3,
    )
    batch = next(batches(1))
    a = batch["fields"][:, 0, 0, :2].mean(dim=0).double().numpy()
    gradient = -1j * a[None]
    gradient *= min(1.0, 0.3 / np.linalg.norm(gradient))
    w = average = np.array([[1 + 2j, -0.5j]])
    m = v = np.zeros((1, 2, 2))
    parts = lambda z: np.stack([z.real, z.imag], axis=-1)  # noqa: E731
    for n in range(1, 6):
        step(batch, 1e-2)
        m = 0.9 * m + 0.1 * parts(gradient)
        v = 0.999 * v + 0.001 * parts(gradient) ** 2
        change = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        w = w * (1 - 1e-2 * 1e-4) - 1e-2 * (change[..., 0] + 1j * change[..., 1])
        decay = min(0.5, n / (9 + n))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(step.surrogate.model.w.detach().numpy(), w, rtol=1e-5)
    np.testing.assert_allclose(step.averaged.model.w.numpy(), average, rtol=1e-5)
    assert step.surrogate.model.w.dtype == step.averaged.model.w.dtype == dtype


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4, 8])
def test_the_gradient_of_the_parts_is_that_of_the_batch(micro_batch_size):
    step, batch = new_step(micro_batch_size=micro_batch_size), next(batches(1))
    std = step.surrogate.normalization.targets_std[0]
    loss = relative_l2(step.surrogate.predict(batch)["targets"] / std, batch["targets"] / std).mean()
    expected = torch.autograd.grad(loss, step.surrogate.parameters())
    step(batch, 1e-3)
    for (name, parameter), gradient in zip(step.surrogate.named_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max(), msg=name)


class Gain(nn.Module):
    """u = g a"""

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.tensor([0.5]))

    def forward(self, fields):
        return self.g * fields


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 3}, {"micro_batch_size": 8}, {"compile": True}])
def test_a_weighted_loss_and_its_gradient_are_those_of_numpy(options, monkeypatch):
    """Of u = g a it is L = 1/N Σ w_i mean((g a_i - u_i)²), and dL/dg = 1/N Σ w_i mean(2 a_i (g a_i - u_i))."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # Inductor's code is run below
    step = Optimization(
        Surrogate(Gain(), Normalization.identity(LAYOUT), LAYOUT),
        loss=TotalLoss(LAYOUT, MSE),
        learning_rate=1e-2,
        **options,
    )
    for number, batch in enumerate(batches(3)):
        a, u = (batch[name].double().numpy() for name in ("fields", "targets"))
        weights = np.random.default_rng(number).uniform(0, 2, 8).astype(np.float32) if number < 2 else None
        w = np.ones(8) if weights is None else weights.astype(np.float64)
        residual = step.surrogate.model.g.item() * a - u
        losses = np.mean(residual**2, axis=(1, 2, 3))
        gradient = np.mean(w * np.mean(2 * a * residual, axis=(1, 2, 3)))
        loss = step(batch, 1e-2, None if weights is None else torch.from_numpy(weights))
        assert loss.item() == pytest.approx(np.mean(w * losses), rel=1e-5)
        assert step.surrogate.model.g.grad.item() == pytest.approx(gradient, rel=1e-4)
        np.testing.assert_allclose(step.row_losses.numpy(), losses, rtol=1e-5)


def test_the_average_is_that_of_numpy_and_forgets_the_first_weights_quickly():
    step = new_step(ema_decay=0.7)
    expected = {name: value.double().numpy() for name, value in weights(step.surrogate).items()}
    for number, batch in enumerate(batches(30)):
        step(batch, 1e-3)
        decay = min(0.7, (1 + number) / (10 + number))
        for name, value in weights(step.surrogate).items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double().numpy()
    for name, value in weights(step.averaged).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not any(parameter.requires_grad for parameter in step.averaged.parameters())
    assert step.averaged.predict(next(batches(1)))["targets"].shape == (8, 1, 12, 12)


def test_without_averaging_the_average_is_the_surrogate_itself():
    step = new_step()
    assert step.averaged is step.surrogate


class CountsBatches(nn.Module):
    """2 w a, and a buffer that counts the batches, as batch normalisation's statistics do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.unused = nn.Parameter(torch.ones(1))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, fields):
        self.count += 1
        return 2 * self.weight * fields


def test_the_averaged_surrogate_follows_the_normalisation_and_the_buffers():
    step = Optimization(
        Surrogate(CountsBatches(), Normalization.identity(LAYOUT), LAYOUT),
        loss=LOSS,
        learning_rate=1e-3,
        ema_decay=0.9,
    )
    for batch in batches(3):
        step(batch, 1e-3)
    assert step.averaged.model.count == 3
    moments = RunningMoments()
    moments.update({name: array.numpy() for name, array in batch.items()})
    step.surrogate.normalization = Normalization.from_moments(moments, LAYOUT)
    assert step.averaged.normalization is step.surrogate.normalization
    step.surrogate.normalization.load_state_dict(Normalization.identity(LAYOUT).state_dict())
    assert torch.equal(step.averaged.normalization.targets_mean, torch.zeros(1))
    assert torch.equal(step.averaged.model.unused, torch.ones(1))


def test_bfloat16_is_that_of_the_linear_layers_alone():
    step = new_step(precision="bfloat16", ema_decay=0.9)
    dtypes, spectral_dtypes = set(), set()
    for module in step.surrogate.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, inputs, output: dtypes.add(output.dtype))
    model = step.surrogate.model
    model.layers[0].spectral.weight.values.register_hook(lambda gradient: spectral_dtypes.add(gradient.dtype))
    losses = [step(batch, 1e-2) for batch in batches(100)]
    assert dtypes == {torch.bfloat16} and spectral_dtypes == {torch.float32}
    assert losses[0].dtype == torch.float32
    assert {tensor.dtype for tensor in step.state().values()} == {torch.float32, torch.int64}
    whole = new_step()
    expected = [whole(batch, 1e-2) for batch in batches(100)]
    assert losses[0].item() == pytest.approx(expected[0].item(), rel=1e-2)
    assert losses[-1].item() == pytest.approx(expected[-1].item(), rel=0.1) and expected[-1] < 0.6 * expected[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, ALL_OPTIONS, {"optimizer": Muon}])
def test_a_continued_training_is_the_uninterrupted_one_bit_for_bit(precision, options):
    stream = list(zip(batches(len(RATES)), RATES, strict=True))
    whole, first = (new_step(precision=precision, **options) for _ in range(2))
    losses = [whole(*item) for item in stream]
    for item in stream[:5]:
        first(*item)
    saved = copy.deepcopy((first.averaged.state_dict(), first.state()))
    second = new_step(seed=99, precision=precision, **options)
    second.averaged.load_state_dict(saved[0])
    second.load_state(saved[1])
    assert second.num_steps == 5
    before = {name: tensor.clone() for name, tensor in saved[1].items()}
    for item, loss in itertools.islice(zip(stream, losses, strict=True), 5, None):
        assert torch.equal(second(*item), loss)
    for ours, theirs in ((whole.surrogate, second.surrogate), (whole.averaged, second.averaged)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert all(torch.equal(saved[1][name], tensor) for name, tensor in before.items())  # it was copied
    assert whole.state().keys() == second.state().keys()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name


@pytest.mark.parametrize(("before", "now", "how"), [(0.9, None, "with"), (None, 0.9, "without")])
def test_a_state_of_averaged_weights_is_not_taken_for_one_of_plain_weights(before, now, how):
    first, second = new_step(ema_decay=before), new_step(ema_decay=now)
    with pytest.raises(PenstockError, match=f"was trained {how} training.ema_decay: use the configuration"):
        second.load_state(first.state())


class Variational(nn.Module):
    """Predicts the mean of a normal law, and is trained by its negative log-likelihood with a deviation of its own."""

    def __init__(self):
        super().__init__()
        self.gain, self.log_std = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, fields):
        return self.gain * fields

    def loss(self, fields, targets):
        error = (self(fields) - targets).flatten(1)
        return (error.square() / 2 * torch.exp(-2 * self.log_std) + self.log_std).mean(dim=1)


def test_a_model_can_supply_its_loss():
    """Least squares and the deviation of what is left, in closed form, are where the likelihood is largest."""
    (batch,) = batches(1, 64)
    a, u = batch["fields"].double(), batch["fields"].double() * 0.7 + 0.2 * batch["targets"].double().sin()
    batch["targets"] = u.float()
    mean, std = ({"fields": f(a).float()[None], "targets": f(u).float()[None]} for f in (torch.mean, torch.std))
    surrogate = Surrogate(Variational(), Normalization(mean, std), LAYOUT)
    step = Optimization(surrogate, loss=OwnLoss(), learning_rate=0.05)
    for n in range(300):
        step(batch, 0.05 * 0.98**n)
    a, u = (a - a.mean()) / a.std(), (u - u.mean()) / u.std()
    gain = (a * u).sum() / (a * a).sum()
    assert float(surrogate.model.gain) == pytest.approx(float(gain), abs=2e-3)
    deviation = (u - gain * a).square().mean().sqrt()
    assert float(surrogate.model.log_std.exp()) == pytest.approx(float(deviation), rel=2e-3)


def test_an_optimizer_whose_state_a_checkpoint_cant_hold_is_refused():
    class Counts(torch.optim.SGD):
        def step(self):
            super().step()
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["count"] = 1

    step = new_step(optimizer=Counts)
    step(next(batches(1)), 1e-3)
    with pytest.raises(PenstockError, match="Counts keeps count as a int, and a checkpoint holds tensors: take anoth"):
        step.is_finite()


def test_an_optimizer_without_a_state_is_seen_to_diverge_and_is_not_averaged():
    step = new_step(optimizer=torch.optim.SGD)
    step(next(batches(1)), 1e-3)
    assert step.is_finite()
    step(next(batches(1)), math.inf)
    assert not step.is_finite()
    averaged = new_step(optimizer=torch.optim.SGD, ema_decay=0.9)
    with pytest.raises(PenstockError, match=r"training\.ema_decay: SGD keeps no state, as it has no momentum: leave"):
        averaged(next(batches(1)), 1e-3)


def test_a_state_of_another_optimizer_is_refused():
    first, second = new_step(), new_step(optimizer=Muon)
    first(next(batches(1)), 1e-3)
    second.load_state(first.state())
    with pytest.raises(PenstockError, match=r"was trained with another optimizer: give it as training\.optimizer"):
        second(next(batches(1)), 1e-3)


@pytest.mark.parametrize("losses", [lambda error: error.mean(), lambda error: error.flatten(2).mean(dim=2)])
def test_a_models_loss_that_is_not_one_per_sample_is_refused(losses):
    class Mistaken(Variational):
        def loss(self, fields, targets):
            return losses((self(fields) - targets).square())

    step = Optimization(
        Surrogate(Mistaken(), Normalization.identity(LAYOUT), LAYOUT), loss=OwnLoss(), learning_rate=0.1
    )
    with pytest.raises(ValueError, match=r"and must give a loss per sample, \[8\]"):
        step(next(batches(1)), 0.1)


def test_a_constant_output_is_0_to_a_models_loss():
    mean, std = (
        {"fields": torch.zeros(1), "targets": torch.full((1,), 3.0)},
        {"fields": torch.ones(1), "targets": torch.zeros(1)},
    )
    surrogate = Surrogate(Variational(), Normalization(mean, std), LAYOUT)
    batch = next(batches(1)) | {"targets": torch.full((8, 1, 12, 12), 3.0)}
    expected = batch["fields"].square().flatten(1).mean(dim=1) / 2
    torch.testing.assert_close(surrogate.own_loss(batch), expected)


def test_a_state_from_before_the_first_step_has_no_moments_and_can_be_loaded():
    first, second = new_step(ema_decay=0.9), new_step(seed=99, ema_decay=0.9)
    assert not any(name.startswith("exp_avg") for name in first.state())
    second.averaged.load_state_dict(first.averaged.state_dict())
    second.load_state(first.state())
    for batch in batches(3):
        assert torch.equal(first(batch, 1e-3), second(batch, 1e-3))


class RefuseReads(TorchDispatchMode):
    """Fails where the host reads a tensor's value, for which it would wait on a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a value was read on the host")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16", **ALL_OPTIONS}])
def test_no_value_is_read_on_the_host(options):
    step, (first, second) = new_step(**options), batches(2)
    step(first, 1e-3)
    with RefuseReads():
        loss = step(second, 1e-3)
        with pytest.raises(AssertionError, match="read on the host"):
            loss.item()


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16", **ALL_OPTIONS}])
def test_a_step_on_a_gpu_never_waits_for_it(options):
    on_cpu = new_step(**options)
    surrogate = copy.deepcopy(on_cpu.surrogate).cuda()
    step = Optimization(surrogate, loss=LOSS, learning_rate=1e-3, **options)
    arrays = [{name: array.cuda() for name, array in batch.items()} for batch in batches(6)]
    step(arrays[0], 1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [step(batch, 1e-3) for batch in arrays[1:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = [on_cpu(batch, 1e-3).item() for batch in batches(6)][1:]
    np.testing.assert_allclose([loss.item() for loss in losses], expected, rtol=1e-2)


@pytest.mark.slow  # Inductor compiles C++ for forward and backward
def test_a_compiled_step_is_the_same_and_other_batch_sizes_are_not_compiled():
    """Loss, gradient and losses of the rows, with a weight per row."""
    stream = [*batches(3), *batches(1, 5), *batches(1, 3)]

    def steps(**options):
        torch.manual_seed(0)
        surrogate = Surrogate(nn.Conv2d(1, 1, 1), Normalization.identity(LAYOUT), LAYOUT)
        surrogate.model.forward = lambda fields, forward=surrogate.model.forward: torch.tanh(forward(fields))
        step = Optimization(surrogate, loss=LOSS, learning_rate=1e-3, **options)
        for batch in stream:
            compiles, loss = step.compiles_next, step(batch, 1e-3, torch.linspace(0, 2, len(batch["targets"])))
            gradient = surrogate.model.weight.grad.item()
            yield compiles, [loss.item(), gradient, *step.row_losses.tolist()]

    torch._dynamo.utils.counters.clear()
    with torch._inductor.config.patch(compile_threads=1):  # its processes would import torch, each on its own
        compiles, numbers = zip(*steps(compile=True), strict=True)
    never_compiles, expected = zip(*steps(), strict=True)
    for each, other in zip(numbers, expected, strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-5)
    assert compiles == (True, *[False] * 4) and not any(never_compiles)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"clip_norm": float("nan")}, "clip_norm must be above 0"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1"),
        ({"ema_decay": -0.1}, "ema_decay must be at least 0 and below 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        new_step(**options)
